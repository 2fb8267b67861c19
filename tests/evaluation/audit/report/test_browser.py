"""The report in a real browser: narrow and wide, light and dark, on paper, held to axe-core's rules.

It needs what tests/evaluation/audit/review/test_page.py needs, and skips where that is not there.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from genmix_transforms.evaluation.audit import save_audit

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = Path(__file__).with_name("browser.mjs")


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium; Debian's package chromium has one")
    if shutil.which("node") is None:
        pytest.skip("no node")
    script = "require.resolve('playwright-core'); console.log(require.resolve('axe-core'))"
    done = subprocess.run(["node", "-e", script], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no playwright-core or no axe-core: npm install playwright-core axe-core")
    return found, Path(done.stdout.split("node_modules")[0])


@pytest.fixture(scope="module")
def folder(audited, tmp_path_factory):
    made = tmp_path_factory.mktemp("report")
    save_audit(audited, made)
    return made


@pytest.fixture(scope="module")
def seen(browser, folder):
    chromium, modules = browser
    command = ["node", str(SCRIPT), chromium, str(folder / "report.html"), str(folder)]
    done = subprocess.run(command, cwd=modules, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_is_complained_of_and_nothing_comes_from_elsewhere(seen):
    assert seen["console"] == []
    assert seen["external"] == []
    assert seen["broken"] == []


def test_axe_finds_no_violation_and_nothing_is_wider_than_a_phone(seen):
    assert seen["violations"] == []
    assert seen["widths"] == {"1400-light": 1400, "1400-dark": 1400, "390-light": 390, "390-dark": 390}


def test_the_verdict_is_on_the_first_screen_and_keys_reach_it(seen):
    assert seen["first"] < 844
    assert seen["focused"] == "Skip to the verdict"
    assert seen["jumped"] == "#verdict"
    assert seen["next"] == "#copies"
    assert seen["headings"][0] == "Audit of a bank of synthetic images"
    assert "The bank holds copies" in seen["headings"][1]


def test_dark_is_dark_and_paper_is_white(seen):
    light, dark = (sum(map(int, re.findall(r"\d+", seen["ground"][scheme]))) for scheme in ("light", "dark"))
    assert dark < 150 < 600 < light
    assert seen["ground"]["print"] == "rgb(255, 255, 255)"
    assert seen["menu"] == "none"


def test_it_prints_to_a4(seen, folder):
    content = (folder / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox \[([^\]]+)\]", content)}
    assert boxes
    for _, _, width, height in boxes:
        assert (width, height) == (pytest.approx(595.3, abs=1), pytest.approx(841.9, abs=1))


def test_the_numbers_can_be_downloaded(seen, folder):
    assert json.loads(seen["download"]) == json.loads((folder / "audit.json").read_text())
