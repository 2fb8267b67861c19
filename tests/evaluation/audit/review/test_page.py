"""The page in a real browser: by keyboard and mouse, narrow and wide, light and dark, held to axe-core's rules.

It needs Chromium (Debian's package ``chromium``), node, and ``npm install playwright-core axe-core`` in the
repository's root or in a folder that ``NODE_PATH`` names; it skips where one of them is not there.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.data import PatchDataset
from genmix_transforms.evaluation.audit.review.blind import BlindDesk
from genmix_transforms.evaluation.audit.review.desk import BankDesk
from genmix_transforms.evaluation.audit.review.serving import ReviewServer

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = Path(__file__).with_name("browser.mjs")


@pytest.fixture(scope="module")
def browser() -> str:
    """The browser's path, if there is one, and what drives it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium; Debian's package chromium has one")
    if shutil.which("node") is None:
        pytest.skip("no node")
    script = "require.resolve('playwright-core'); require.resolve('axe-core')"
    if subprocess.run(["node", "-e", script], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("no playwright-core or no axe-core: npm install playwright-core axe-core")
    return found


@pytest.fixture(scope="module")
def seen(browser: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened in the browser: a bank of 12 reviewed, a blind test of 4 taken, a bank of 10,000 looked at."""
    folder = tmp_path_factory.mktemp("page")
    gray = torch.arange(12, dtype=torch.uint8)[:, None, None, None].mul(20).expand(12, 1, 16, 16).contiguous()
    labels = torch.tensor([0] * 5 + [1] * 7)
    flags = torch.zeros(12, dtype=torch.uint8)
    flags[3] = Flag.NEAR_COPY
    SyntheticBank(gray, labels, classes=["cyst", "metastasis"], flags=flags).save(folder / "mine")
    many = torch.randint(0, 256, (10_000, 1, 8, 8), dtype=torch.uint8)
    SyntheticBank(many, torch.zeros(10_000, dtype=torch.int64), classes=["cyst"]).save(folder / "big")
    real = PatchDataset(images=gray, labels=labels, classes=("cyst", "metastasis"))
    blind = BlindDesk(folder / "mine", real, images=4)
    with (
        ReviewServer(BankDesk(folder / "mine")) as review,
        ReviewServer(blind) as test,
        ReviewServer(BankDesk(folder / "big")) as big,
    ):
        command = ["node", str(SCRIPT), browser, review.url, test.url, big.url, str(folder)]
        done = subprocess.run(command, cwd=_modules(), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    content["letters"] = BankDesk(folder / "mine").state()["letters"]
    content["score"] = blind.score
    return content


def _modules() -> Path:
    """Where the browser's script looks for its modules."""
    script = "console.log(require.resolve('axe-core'))"
    done = subprocess.run(["node", "-e", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return Path(done.stdout.split("node_modules")[0])


def test_nothing_is_complained_of_and_nothing_comes_from_elsewhere(seen: dict[str, Any]):
    assert [line for line in seen["console"] if "403" not in line] == []  # the last step is without the token
    assert seen["external"] == []


def test_axe_finds_no_violation_and_nothing_is_wider_than_a_phone(seen: dict[str, Any]):
    assert seen["violations"] == []
    assert seen["widths"] == {
        "review-1280-light": 1280,
        "review-390-dark": 390,
        "review-390-light": 390,
        "blind-1280-dark": 1280,
    }


def test_keys_decide_undo_and_move_and_what_happened_is_said(seen: dict[str, Any]):
    steps = seen["steps"]
    assert steps["first"] == "Patch 1 of 12: cyst"
    assert steps["rejected"] == "Patch 1 rejected. Patch 2, cyst."
    assert steps["undone"] == "Undone. Patch 2, cyst, open."
    assert steps["moved"] == "Patch 3 of 12: cyst"
    assert steps["marked"] == "Marked: near copy"
    assert (steps["end"], steps["label"]) == ("patch-11", "Patch 12, metastasis, open")
    assert steps["open"] == "Patch 2 of 12: cyst"
    assert steps["switchedOff"] == "1 of 12 decided: 0 accepted, 1 rejected"


def test_two_browsers_see_each_others_decisions_which_are_in_the_bank(seen: dict[str, Any]):
    assert seen["letters"] == "r....ar....."
    assert seen["steps"]["reloaded"] == ["3 of 12 decided: 1 accepted, 2 rejected", "Patch 2 of 12: cyst"]


def test_of_ten_thousand_patches_only_those_in_sight_are_there(seen: dict[str, Any]):
    steps = seen["steps"]
    assert 0 < steps["cells"] < 200
    assert 0 < steps["cellsAtTheEnd"] < 200
    assert steps["last"] == "Patch 10000 of 10000: cyst"


def test_a_blind_test_ends_with_its_score(seen: dict[str, Any]):
    steps = seen["steps"]
    assert steps["blind"] == "Real or synthetic: mine"
    assert steps["score"] == f"{seen['score'].text}."
    assert "95 % interval" in steps["score"]
    assert steps["disabled"]


def test_without_the_token_the_browser_is_refused(seen: dict[str, Any]):
    assert seen["steps"]["refused"] == 403
