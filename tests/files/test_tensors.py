"""Safetensors files with a checksum: any byte that changes is noticed, files without one are read as they are."""

import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError
from genmix_transforms.files.atomic import write_tensors
from genmix_transforms.files.tensors import CHECKSUM, SPELLED, read_tensors


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "second.weight": torch.randn(4, 3, generator=generator).t(),  # not contiguous
        "first.bias": torch.arange(5, dtype=torch.uint8),
        "depth": torch.tensor([0, 65535], dtype=torch.uint16),
        "steps": torch.tensor(7),
        "none": torch.empty(0, 3),
    }
    return weights | {f"as {name}": torch.zeros(3, dtype=dtype) for dtype, name in SPELLED.items()}


def test_what_is_written_is_read_by_us_and_by_the_library(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = tmp_path / "weights.safetensors"
    write_tensors(file, tensors, metadata={"format": "pt", "origin": 'a "trained" one, \u00e9'})
    ours, metadata = read_tensors(file)
    assert metadata == {"format": "pt", "origin": 'a "trained" one, \u00e9'}
    for read in (ours, safetensors.torch.load_file(file)):
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert read[name].dtype == tensor.dtype
            assert read[name].tolist() == tensor.tolist()
            assert read[name].shape == tensor.shape


def test_equal_content_makes_equal_files(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    for name, given in (("one", tensors), ("two", dict(reversed(tensors.items())))):
        write_tensors(tmp_path / name, given, metadata={"a": "1", "b": "2", "c": "3"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_changed_byte_anywhere_is_noticed(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    file = tmp_path / "weights.safetensors"
    write_tensors(file, tensors, metadata={"origin": "a trained one"})
    whole = file.read_bytes()
    random_ = random.Random(0)
    for place in random_.sample(range(len(whole)), 150):
        changed = bytearray(whole)
        changed[place] ^= 1 << random_.randrange(8)
        file.write_bytes(changed)
        # InputError: a header that is not one any more.
        with pytest.raises((CorruptFileError, InputError), match=str(file)):
            read_tensors(file)
    in_the_data = bytearray(whole)
    in_the_data[-1] ^= 1
    file.write_bytes(in_the_data)
    with pytest.raises(CorruptFileError, match="damaged: not the bytes that were written .* take it from a copy"):
        read_tensors(file)


@pytest.mark.parametrize("metadata", [None, {"origin": "66bce71"}])
def test_files_without_a_checksum_open_as_before(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    file = tmp_path / "old.safetensors"
    safetensors.torch.save_file({"weight": torch.ones(2)}, file, metadata)
    read, told = read_tensors(file)
    assert read["weight"].tolist() == [1, 1]
    assert told == (metadata or {})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"gone\.safetensors: no such file"):
        read_tensors(tmp_path / "gone.safetensors")
    write_tensors(tmp_path / "half", {"weight": torch.ones(100)})
    for content in (b"", b"not tensors", (tmp_path / "half").read_bytes()[:-100]):
        (tmp_path / "half").write_bytes(content)
        with pytest.raises(InputError, match="half: not a whole safetensors file"):
            read_tensors(tmp_path / "half")


def test_a_checksum_that_is_none(tmp_path: Path) -> None:
    for checksum in ("", "0" * 16, "x" * 1000):
        safetensors.torch.save_file({"weight": torch.ones(2)}, tmp_path / "file", {CHECKSUM: checksum})
        with pytest.raises(CorruptFileError, match="its checksum differs"):
            read_tensors(tmp_path / "file")
