"""Files of weights from elsewhere: read, or refused without running anything in them."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.generators.weights_file import flatten, is_weights_file, read_weights


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_are_read_mapped_or_not(mmap: bool, zipped: bool, tmp_path: Path) -> None:
    content = {"step": 3, "net": {"weight": torch.arange(5.0)}}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "a.pt", mmap=mmap)
    assert found["step"] == 3
    assert torch.equal(found["net"]["weight"], torch.arange(5.0))


def test_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(read_weights(tmp_path / "a.safetensors")["weight"], torch.ones(2))


class Touch:
    """An object that runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_does_not_run(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": Touch(tmp_path / "ran")}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    for mmap in (True, False):
        with pytest.raises(InputError, match=r"a\.pt: holds more than tensors.*nothing in it was run"):
            read_weights(tmp_path / "a.pt", mmap=mmap)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_broken_or_something_else(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    for name, content, message in (
        ("short.pt", whole[: len(whole) // 2], "not a readable PyTorch file"),
        ("empty.pt", b"", "not a readable PyTorch file|not a file of PyTorch weights"),
        ("text.pt", b"weights", "not a file of PyTorch weights"),
        ("short.safetensors", b"\0" * 20, "not a whole safetensors file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: ({message})"):
            read_weights(tmp_path / name, mmap=True)
    with pytest.raises(MissingPathError, match=r"nowhere\.pt: no such file"):
        read_weights(tmp_path / "nowhere.pt")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InputError, match=r"z\.pt: a compressed archive"):
        read_weights(tmp_path / "z.pt")


def test_what_looks_like_a_file_of_weights(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save({}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        assert is_weights_file(tmp_path / "a.pt")
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02N.")
    assert not is_weights_file(tmp_path / "a.pkl")
    with pytest.raises(MissingPathError, match=r"nowhere\.pkl: no such file"):
        is_weights_file(tmp_path / "nowhere.pkl")


def test_dicts_that_hold_each_other_many_times_over_are_read_once() -> None:
    knot: dict[str, Any] = {"a": 1}
    for _ in range(40):
        knot = dict.fromkeys("abcdefghij", knot)
    assert flatten(knot) == [(".".join("a" * 41), 1)]
    assert flatten({"a" * 2000: 1, "b": 2}) == [("b", 2)]


def test_nested_dicts_become_dotted_names() -> None:
    assert flatten({"a": {"b": 1, 2: {"c": 3}}, "d": [4]}) == [("a.b", 1), ("a.2.c", 3), ("d", [4])]
    assert flatten({}) == []
    assert flatten(5) == [("", 5)]
