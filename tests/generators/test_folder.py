"""Weights with their provenance: what is read is what was written, and damage is seen."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError
from genmix_transforms.generators.folder import read_weights, write_weights

PROVENANCE = {"images_seen": 640, "training_set": {"class_counts": {"cyst": 12}}}


def tensors() -> dict[str, torch.Tensor]:
    return {
        "conv.weight": torch.arange(16.0).view(2, 2, 2, 2).to(memory_format=torch.channels_last),
        "count": torch.tensor(3),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "none": torch.zeros(0, 4),
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors", tensors(), provenance=PROVENANCE)
    read, provenance = read_weights(tmp_path / "model.safetensors")
    assert provenance == PROVENANCE
    assert read.keys() == tensors().keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors().items())


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        write_weights(tmp_path / name, tensors(), provenance=PROVENANCE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_one_flipped_bit_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_weights(file, tensors(), provenance=PROVENANCE)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFileError, match="damaged: not the bytes that were written"):
        read_weights(file)


def test_files_without_a_checksum_or_a_provenance_are_read(tmp_path: Path) -> None:
    """As earlier releases and other tools write them."""
    file = tmp_path / "model.safetensors"
    content = {name: tensor.contiguous() for name, tensor in tensors().items()}
    safetensors.torch.save_file(content, file, {"genmix_provenance": json.dumps(PROVENANCE)})
    assert read_weights(file)[1] == PROVENANCE
    safetensors.torch.save_file(content, file)
    assert read_weights(file)[1] == {}


def test_no_file_and_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with pytest.raises(MissingPathError, match=r"model.safetensors: no such file; the folder has a config.json but no"):
        read_weights(file)
    write_weights(file, tensors(), provenance=PROVENANCE)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"model.safetensors: not a whole safetensors file"):
        read_weights(file)
