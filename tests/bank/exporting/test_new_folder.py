"""The folder of an export: whole or not there, and nobody's files are replaced."""

import pytest
from filelock import FileLock

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.exporting import export_png, export_webdataset, samples
from genmix_transforms.errors import OverwriteError
from tests.bank.exporting.other_readers import EXPORTS, contents


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_is_replaced_only_when_told_to(full_bank, make_bank, tmp_path, export):
    export(make_bank((0, 0, 0)), tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(OverwriteError, match="not empty; give another folder, or overwrite=True"):
        export(full_bank(), tmp_path / "out")
    assert contents(tmp_path / "out") == before
    export(full_bank(), tmp_path / "out", overwrite=True)
    export(full_bank(), tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out"]


@pytest.mark.parametrize("export", EXPORTS)
def test_what_is_no_export_is_never_replaced(full_bank, tmp_path, export):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(OverwriteError, match="export: it is not overwritten"):
        export(full_bank(), tmp_path / "mine", overwrite=True)
    export(full_bank(), tmp_path / "out")
    (tmp_path / "out/thesis.txt").write_text("all of it")
    with pytest.raises(OverwriteError, match=r"not the export's \(thesis.txt\)"):
        export(full_bank(), tmp_path / "out", overwrite=True)
    assert (tmp_path / "mine/thesis.txt").read_text() == (tmp_path / "out/thesis.txt").read_text() == "all of it"


def test_an_export_of_another_kind_is_not_replaced(full_bank, tmp_path):
    export_png(full_bank(), tmp_path / "out")
    with pytest.raises(OverwriteError, match="holds no webdataset export"):
        export_webdataset(full_bank(), tmp_path / "out", overwrite=True)


def test_a_file_in_the_way(full_bank, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OverwriteError, match="is a file"):
        export_png(full_bank(), tmp_path / "out")


def test_an_empty_folder_and_a_link_are_filled(full_bank, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    export_png(full_bank(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(list((tmp_path / "empty").rglob("*.png"))) == 7


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_an_export_that_fails(full_bank, make_bank, tmp_path, export, error, monkeypatch):
    export(make_bank((0, 0, 0)), tmp_path / "out")
    before = contents(tmp_path / "out")
    bank, rows = full_bank(), SyntheticBank.rows
    monkeypatch.setattr(samples, "_PIECE_BYTES", 20)
    taken = []

    def failing(self, index):
        taken.append(index)
        if len(taken) > 4:
            raise error
        return rows(self, index)

    monkeypatch.setattr(SyntheticBank, "rows", failing)
    for name, overwrite in (("out", True), ("fresh", False)):
        taken.clear()
        with pytest.raises(type(error)):
            export(bank, tmp_path / name, overwrite=overwrite)
    assert contents(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_cleared_away(full_bank, tmp_path):
    (tmp_path / ".out.export.tmp/cyst").mkdir(parents=True)
    (tmp_path / ".out.export.tmp/cyst/00000999.png").write_bytes(b"half")
    export_png(full_bank(), tmp_path / "out")
    export_png(full_bank(), tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out"]


def test_an_export_that_was_killed_while_it_was_replaced_is_back(full_bank, tmp_path):
    export_png(full_bank(), tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.export.old")
    with pytest.raises(OverwriteError, match="not empty"):
        export_png(full_bank(), tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_two_exports_to_one_folder_do_not_mix(full_bank, tmp_path):
    with (
        FileLock(tmp_path / ".out.export.lock"),
        pytest.raises(OverwriteError, match="out: another process is exporting there; wait for it, or stop it"),
    ):
        export_png(full_bank(), tmp_path / "out")
    export_png(full_bank(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
