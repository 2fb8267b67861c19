"""Space on a disk: too little of it is told before the work, and where a write fails."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genmix_transforms.errors import DiskFullError, InputError, UnwritableError
from genmix_transforms.files import atomic
from genmix_transforms.files.disk import check_free_space, size_text


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Path]]:
    """Let so many bytes be free; the paths that were asked for are returned."""

    def set_free(count: int) -> list[Path]:
        asked: list[Path] = []

        def usage(path: Path) -> Any:
            asked.append(path)
            return SimpleNamespace(total=10 * count, used=9 * count, free=count)

        monkeypatch.setattr(shutil, "disk_usage", usage)
        return asked

    return set_free


def test_enough_space(tmp_path: Path, free: Callable[[int], list[Path]]) -> None:
    asked = free(1000)
    check_free_space(tmp_path / "new/deep/bank", 1000, what="the bank")
    assert asked == [tmp_path]  # the nearest folder that is there
    assert not (tmp_path / "new").exists()


def test_too_little_space(tmp_path: Path, free: Callable[[int], list[Path]]) -> None:
    free(53_400)
    with pytest.raises(
        InputError,
        match=f"^{tmp_path}/bank: the bank needs 2.00 GB, but only 53.4 kB are free on that disk; free some space, or",
    ):
        check_free_space(tmp_path / "bank", 2_000_000_000, what="the bank")


def test_a_relative_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    check_free_space(Path("new/bank"), 1, what="the bank")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (1_234_567_890_123, "1,234.57 GB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert size_text(count) == text


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A real one: /dev/full takes no byte."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / ".bank.json.tmp").symlink_to("/dev/full")
    with pytest.raises(DiskFullError) as told:
        atomic.write_bytes(tmp_path / "bank.json", b"content")
    assert told.value.errno == errno.ENOSPC
    assert str(told.value).startswith(f"{tmp_path}/bank.json: the disk is full (No space left on device) after 0 bytes")
    assert str(told.value).endswith("Free some space, and run the same command again")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("refusal", [errno.EROFS, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("shared", [False, True])
def test_what_cannot_be_written_is_told_by_its_own_name(
    refusal: int, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(refusal, os.strerror(refusal), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UnwritableError) as told:
        atomic.write_bytes(tmp_path / "bank.json", b"content", shared=shared)
    assert str(told.value) == (
        f"{tmp_path}/bank.json: cannot be written ({os.strerror(refusal)}); give a folder that you may write to"
    )


def test_an_error_of_another_file_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other.bin") as told, atomic.new_file(tmp_path / "bank.json"):
        (tmp_path / "other.bin").read_bytes()
    assert told.value.filename == str(tmp_path / "other.bin")
    with pytest.raises(OSError, match="^offline$"), atomic.new_file(tmp_path / "bank.json"):
        raise OSError("offline")
