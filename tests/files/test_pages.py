"""A page holds all that it shows, and says what it was given."""

import re

import pytest

from genmix_transforms.files.pages import data_uri, render_page


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a template and a style."""
    (tmp_path / "shown/page").mkdir(parents=True)
    (tmp_path / "shown/__init__.py").write_text("")
    (tmp_path / "shown/page/one.css").write_text(".own { color: red; }")
    (tmp_path / "shown/page/one.html").write_text(
        '{% extends "page.html" %}{% block title %}A page{% endblock %}{% block body %}<p>{{ text }}</p>{% endblock %}'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "shown"


def test_a_page_has_its_text_its_own_style_and_the_common_one(package):
    page = render_page(package, "one", {"text": "hello"})
    assert page.startswith("<!doctype html>")
    assert "<title>A page</title>" in page
    assert "<p>hello</p>" in page
    assert page.index("color-scheme: light dark") < page.index(".own { color: red; }")


def test_texts_are_escaped(package):
    assert "<p>&lt;b&gt; &amp;</p>" in render_page(package, "one", {"text": "<b> &"})


def test_a_page_may_ask_for_nothing_and_run_nothing(package):
    page = render_page(package, "one", {"text": ""})
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|url\(|@import|<script", page)


def test_what_a_template_names_must_be_given(package):
    with pytest.raises(Exception, match="'text' is undefined"):
        render_page(package, "one", {})


def test_a_picture_in_an_address():
    assert data_uri(b"\x89PNG") == "data:image/png;base64,iVBORw=="
