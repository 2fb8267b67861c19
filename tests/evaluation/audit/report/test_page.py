"""What stands on the page; how it looks is in test_browser.py."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

from genmix_transforms.evaluation.audit.report import page as module
from genmix_transforms.evaluation.audit.report.page import render


class Page(HTMLParser):
    """Texts, tags and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.open, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "br", "path", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "rect", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def html(audited):
    return render(audited)


@pytest.fixture(scope="module")
def page(html):
    found = Page(html)
    assert found.open == []
    return found


def test_the_verdict_stands_first(audited, page):
    assert audited.verdict.kind == "copies"
    first = page.text.index("Holds copies of patients' images")
    assert first < page.text.index(audited.verdict.text) < page.text.index("Six questions")
    assert "Do not publish this bank" in page.text


def test_nothing_is_loaded_from_elsewhere_and_no_script_runs(page, html):
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not re.search(r"url\(|@import", html)
    policy = next(attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy


def test_links_lead_somewhere(page):
    places = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= places


def test_class_names_are_text(html, page):
    assert "stripes & <b>" in page.text
    assert "stripes &amp; &lt;b&gt;" in html
    assert "b" not in {tag for tag, _ in page.tags}


def test_five_pairs_are_shown_and_the_rest_is_counted(page):
    assert page.text.count("laid over") == 5
    assert "And 7 more near copies: audit.json lists all." in page.text
    assert "mirrored" in page.text
    pictures = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert sum(alt.startswith("Map of differences, on average 0 ") for alt in pictures) == 5
    assert all(pictures)


def test_groups_are_named_only_where_asked(audited, page):
    train = audited.splits[0]
    groups = {f"group {number}" for number in train.groups.tolist()}
    assert not any(group in page.text for group in groups)
    asked = Page(render(replace(audited, settings=replace(audited.settings, group_names=True, tsne=False))))
    nearest = audited.copies.nearest[audited.copies.distance.argmin()]
    assert f"(group {int(train.groups[nearest])})" in asked.text


def test_numbers_stand_beside_their_real_values_and_intervals(audited, page):
    captions = [text for text in ("All classes", "Class disc", "Class stripes & <b>") if text in page.text]
    assert len(captions) == 3
    assert "coverage" in page.text
    assert "Not given: FID of" in page.text
    assert page.text.count("real images result") >= 3  # heads of tables
    assert len(re.findall(r"\(.?[\d.]+ to .?[\d.]+\)", page.text)) > 60
    for way in ("train on synthetic, test on real", "train on real, test on synthetic"):
        assert page.text.count(way) == 2 + len(audited.bank.classes)  # its meaning is told too


def test_what_it_comes_from_is_said_without_paths(page, html):
    assert "bank's seed 3" in page.text
    assert "/home/me" not in html
    assert "nearest: 5 Number of neighbors for precision" in page.text


def test_the_numbers_are_in_the_page_too(audited, page):
    address = next(one for one in page.addresses if one.startswith("data:application/json"))
    content = json.loads(base64.b64decode(address.partition(",")[2]))
    assert content == json.loads(json.dumps(audited.to_dict()))


def test_too_many_numbers_stay_out(audited, monkeypatch):
    monkeypatch.setattr(module, "MOST_JSON", 10)
    text = render(replace(audited, settings=replace(audited.settings, tsne=False)))
    assert "application/json" not in text
    assert "are in audit.json" in text


def test_without_copies_and_classifiers_those_parts_are_left_out(audited):
    quality = replace(audited.quality, labels=None, usefulness=None)
    settings = replace(audited.settings, tsne=False, copies=False, train=False)
    text = Page(render(replace(audited, copies=None, flagged_unseen=None, quality=quality, settings=settings))).text
    assert "Not everything was checked" in text or "not quite like real" in text
    assert "Nobody has looked for copies" in text
    assert "Copies of training images" not in text


def test_where_nothing_is_flagged_the_nearest_are_shown(audited):
    copies = replace(audited.copies, threshold=0.0)
    text = Page(render(replace(audited, copies=copies, settings=replace(audited.settings, tsne=False)))).text
    assert "No image is flagged; these come nearest" in text
    assert text.count("laid over") == 4


def test_it_is_small_however_large_the_images(audited, html):
    assert len(html) < 600_000
    assert torch.is_tensor(audited.bank.images)
