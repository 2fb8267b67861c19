"""The page of the demo: one file, no request, the numbers of the results."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from genmix_transforms.cli.demo_report import render
from tests.evaluation.made_results import make_many

COMMANDS = ("genmix split A & B --out split.csv", "genmix fill runs/mine --out <here>")


class Page(HTMLParser):
    """The cells of every row, the addresses, and the texts by element."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.addresses, self.tags, self.open, self.texts = [], [], [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data
        if self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def results():
    return make_many({"baseline": 0.4, "mixup": 0.35, "blend": 0.3, "genmix": 0.1}, classes=("cyst", "a & <b>"))


@pytest.fixture(scope="module")
def html(results):
    picture = Image.new("RGB", (30, 20), (1, 2, 3))
    return render(results, picture, described="3 patches", steps=1_500, classifier_steps=200, commands=COMMANDS)


@pytest.fixture(scope="module")
def page(html):
    found = Page(html)
    assert found.open == []
    return found


def test_it_is_one_file_and_asks_for_nothing(html, page):
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "script" not in page.tags
    assert not re.search(r"https?:|url\(|@import", html)
    assert "default-src 'none'" in html


def test_the_picture_is_in_it(page):
    (address,) = (one for one in page.addresses if one.startswith("data:image/png"))
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert (picture.size, picture.getpixel((0, 0))) == ((30, 20), (1, 2, 3))


def test_its_numbers_are_those_of_the_json(results, page, tmp_path):
    results.save(tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    rows = {row[0]: row[1:] for row in page.rows[1:5]}
    assert list(rows) == content["order"]
    for arm, cells in rows.items():
        for cell, name in zip(cells, ("accuracy", "macro_f1", "balanced_accuracy", "auc"), strict=False):
            mean, margin = re.fullmatch(r"([\d.]+) ± ([\d.]+)[*+ ]*", cell).groups()
            assert mean == f"{100 * content['summary'][arm][name]['mean']:.1f}"
            assert margin == f"{100 * content['summary'][arm][name]['margin']:.1f}"
    of_baseline = content["differences"]["macro_f1"]["baseline"]
    shown = [row for row in page.rows if row[1:2] == ["baseline"]]
    assert [(row[0], row[2]) for row in shown] == [
        (one["arm"], f"{100 * one['difference']:+.1f}") for one in of_baseline
    ]


def test_names_and_commands_are_text(html, page):
    assert page.texts["pre"] == "\n".join(COMMANDS)
    assert "a & <b>\nsens/spec" in page.rows[0]
    assert "b" not in page.tags


def test_it_says_what_the_numbers_are_worth(page):
    assert "How it works, not how well" in page.texts["h2"]
    assert "1,500 steps" in page.texts["p"]
