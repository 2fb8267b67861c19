"""The tutorials run as written, at a smaller size, and what they print has the form that the pages show."""

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs/tutorials"
spec = importlib.util.spec_from_file_location("tutorials", ROOT / "docs/figures/tutorials.py")
tutorials = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tutorials)

PHANTOM = {
    "LesionPhantom(size=32, noise=0.3, enlarge=1.6)": "LesionPhantom("
    "size=16, noise=0.3, enlarge=1.6, train=(12, 8, 10), val=(4, 4, 4), test=(6, 6, 6))",
    "steps=1_500": "steps=2",
}
SMALL = {"base_width=16": "base_width=4", "seeds=3": "seeds=2", "Protocol(steps=200)": "Protocol(steps=2)"}


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["genmix"])
    with torch.random.fork_rng(devices=[]):
        yield tmp_path
    sys.modules.pop("vae", None)


def outputs(text):
    return [block["code"] for block in tutorials.BLOCK.finditer(text) if block["language"] == "text"]


def form(text):
    """What stays of an output when its numbers are other ones."""
    return re.sub(r"[\d.,+*±\s\[\]-]+", " ", text.partition("\n\n")[0]).strip()


def run(name, smaller):
    """The outputs that the page has, and those of a smaller run."""
    text = (PAGES / name).read_text(encoding="utf-8")
    return outputs(text), outputs(tutorials.run_page(text, smaller=smaller))


@pytest.mark.filterwarnings("ignore:very few images", "ignore:.*fewer than a batch")
def test_the_first_bank(in_folder):
    shown, now = run("first-bank.md", {**PHANTOM, **SMALL, "batch_size=16": "batch_size=4"})
    assert [form(text) for text in now] == [form(text) for text in shown]
    assert now[1] == "{'cyst': 12, 'hemangioma': 8, 'metastasis': 10}\n"
    assert (in_folder / "sheet.png").is_file()
    assert (in_folder / "mixing.png").is_file()


@pytest.mark.filterwarnings("ignore:very few images")
def test_does_it_help(in_folder):
    data = Path(os.environ.get("GENMIX_TEST_DATA", "data")) / "pneumoniamnist.npz"
    if not data.is_file():
        pytest.skip("no pneumoniamnist.npz in $GENMIX_TEST_DATA")
    shutil.copyfile(data, in_folder / data.name)
    smaller = {
        "[:150]": "[:24]",
        "steps=2_000, batch_size=16": "steps=2, batch_size=4",
        "base_width=32": "base_width=4",
        "(few, val, test)": "(few, val.subset(torch.arange(20)), test.subset(torch.arange(40)))",
        "seeds=5": "seeds=2",
        "Protocol(steps=200)": "Protocol(steps=2)",
    }
    shown, now = run("does-it-help.md", smaller)
    assert [form(text) for text in now] == [form(text) for text in shown]
    assert "genmix-real" in now[2]


def test_an_own_generator_and_its_command(in_folder, capsys):
    smaller = {**PHANTOM, "LATENT, WIDTH = 32, 256": "LATENT, WIDTH = 4, 8"}
    with pytest.warns(UserWarning, match="very few images"):
        shown, now = run("own-generator.md", smaller)
    assert now[1] == shown[1]  # the message of the setting that cannot be
    installed = in_folder / "my_vae-0.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-vae\nVersion: 0.1\n")
    page = (PAGES / "own-generator.md").read_text(encoding="utf-8")
    declared = re.search(r'^\[project.entry-points."(.+)"\]\nvae = "(.+)"$', page, flags=re.MULTILINE)
    (installed / "entry_points.txt").write_text(f"[{declared[1]}]\nvae = {declared[2]}\n")
    text = tutorials.run_commands("genmix train vae --help\n")
    assert "--learning-rate" in text
    assert "Of Adam." in text
    tutorials.run_commands("genmix fill runs/vae --counts cyst=2 --out banks/two\n")
    assert (in_folder / "banks/two/bank.index.json").is_file()


def test_a_page_shows_what_it_prints():
    with pytest.raises(ValueError, match="a page must show what it prints"):
        tutorials.run_page("```python\nprint(1)\n```\n\n```python\n2\n```\n")
    assert tutorials.run_page("```python\nprint(1)\n```\n\n```text\n```\n").endswith("```text\n1\n```\n")


def test_what_is_to_be_replaced_must_be_there():
    with pytest.raises(ValueError, match="the page has no 'steps=9'"):
        tutorials.run_page("```python\n1\n```\n", smaller={"steps=9": "steps=1"})


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.name)
def test_every_picture_and_every_output_is_there(page):
    text = page.read_text(encoding="utf-8")
    assert all((page.parent / address).is_file() for _, address in tutorials.PICTURE.findall(text))
    assert all(outputs(text))
