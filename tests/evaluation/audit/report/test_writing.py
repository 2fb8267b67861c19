"""An audit on disk."""

import json
from dataclasses import replace

import pytest

from genmix_transforms.errors import InputError, MissingExtraError, OverwriteError
from genmix_transforms.evaluation.audit import save_audit
from genmix_transforms.evaluation.audit.labels import read_confidence
from genmix_transforms.evaluation.audit.report import writing


@pytest.fixture
def small(audited):
    return replace(audited, settings=replace(audited.settings, tsne=False))


def test_what_is_written_can_be_read(small, tmp_path):
    written = save_audit(small, tmp_path / "new" / "audit")
    assert [path.name for path in written] == ["audit.json", "confidence.json", "report.html"]
    assert json.loads(written[0].read_text()) == json.loads(json.dumps(small.to_dict()))
    assert read_confidence(written[1], small.bank).shape == (len(small.bank),)
    assert written[2].read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_earlier_audit_is_not_overwritten_unasked(small, tmp_path):
    save_audit(small, tmp_path)
    before = (tmp_path / "audit.json").read_bytes()
    with pytest.raises(OverwriteError, match=r"report\.html is there already: .* --overwrite"):
        save_audit(small, tmp_path)
    assert (tmp_path / "audit.json").read_bytes() == before
    without = replace(small, quality=replace(small.quality, labels=None))
    save_audit(without, tmp_path, overwrite=True)
    assert not (tmp_path / "confidence.json").exists()  # it was that of the earlier one


def test_nothing_is_left_where_the_page_cannot_be_made(small, tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("no page")

    monkeypatch.setattr(writing, "render", fail)
    with pytest.raises(RuntimeError, match="no page"):
        save_audit(small, tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def test_a_missing_extra_is_named_before_anything_is_written(audited, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    with pytest.raises(MissingExtraError, match=r"genmix-transforms\[figures\]"):
        save_audit(audited, tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def test_a_file_is_no_folder(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be a folder"):
        save_audit(small, tmp_path / "file")
