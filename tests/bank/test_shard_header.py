"""A shard's header: it says where each tensor lies, and what it says otherwise is refused.

Most of what it could say otherwise is in attacks/header.py.
"""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from genmix_transforms.bank.shard import HEADER_KEY, MAX_HEADER_BYTES, read_facts, read_layout
from genmix_transforms.errors import CorruptFileError
from genmix_transforms.files.tensors import header_bytes
from tests.bank.attacks.editing import joined, parts

FACTS = {"classes": ["cyst", "hémangiome"], "fill": None}
EXPECTED = (("images", "U8", (3, 1, 5)), ("labels", "I64", (3,)), ("distance", "F32", (3,)))
TENSORS = {
    "images": torch.arange(15, dtype=torch.uint8).view(3, 1, 5),
    "labels": torch.tensor([0, 1, 1]),
    "distance": torch.tensor([0.5, 1.0, 2.0]),
}


@pytest.fixture
def path(tmp_path):
    """A file of three tensors that the safetensors library wrote."""
    save_file(TENSORS, tmp_path / "shard", {"genmix_bank": json.dumps(FACTS)})
    return tmp_path / "shard"


def layout(path, expected=EXPECTED):
    return read_layout(path, expected, size=path.stat().st_size)


def test_each_tensor_is_where_the_header_says(path):
    content = path.read_bytes()
    for name, place in layout(path).places.items():
        numbers = np.frombuffer(content[place.begin : place.end], place.dtype).reshape(place.shape)
        assert np.array_equal(numbers, TENSORS[name].numpy())
    assert layout(path).facts == read_facts(path) == FACTS


def test_a_header_that_we_wrote_is_one_of_the_librarys(tmp_path):
    names = ("labels", "distance", "images")  # the widest numbers first
    kinds = {name: (kind, shape) for name, kind, shape in EXPECTED}
    header = header_bytes({name: kinds[name] for name in names}, {HEADER_KEY: json.dumps(FACTS)})
    (tmp_path / "shard").write_bytes(header + b"".join(TENSORS[name].numpy().tobytes() for name in names))
    assert len(header) % 8 == 0
    assert read_facts(tmp_path / "shard") == FACTS
    read = load_file(tmp_path / "shard")
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)
    assert layout(tmp_path / "shard").places.keys() == TENSORS.keys()


@pytest.mark.parametrize("padding", [3000, 5000, 100_000])
def test_a_long_header_is_read_whole(path, padding):
    header, tensors = parts(path.read_bytes())
    facts = {**FACTS, "padding": "x" * padding}
    path.write_bytes(joined({**header, "__metadata__": {"genmix_bank": json.dumps(facts)}}, tensors))
    assert read_facts(path) == facts
    assert len(layout(path).places) == 3


def test_missing(path):
    path.unlink()
    for read in (read_facts, lambda path: read_layout(path, EXPECTED, size=100)):
        with pytest.raises(CorruptFileError, match="shard: the manifest names this shard, but there is no such file"):
            read(path)


def test_of_another_size(path):
    size = path.stat().st_size
    with pytest.raises(CorruptFileError, match=f"{size:,} bytes, the manifest says {size + 1:,}: not a whole shard"):
        read_layout(path, EXPECTED, size=size + 1)


@pytest.mark.parametrize(
    "header", [b"no JSON here", b"\xff\xfe", b"[" * 100_000, b"", b"[]", b"null", b"7", b'"images"'], ids=repr
)
def test_no_header(path, header):
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))
    with pytest.raises(CorruptFileError, match="shard: not a whole shard"):
        read_facts(path)


def test_header_longer_than_the_file(path):
    path.write_bytes(struct.pack("<Q", 100) + b"{}")
    with pytest.raises(CorruptFileError, match="not a whole shard .no header"):
        read_facts(path)


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_header_past_a_megabyte(path, length):
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(CorruptFileError, match=f"header claims {length:,} bytes; a shard's has at most 1,048,576"):
        read_facts(path)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (
            (("images", "U16", (3, 1, 5)), *EXPECTED[1:]),
            r"says U16 \[3, 1, 5\] for images, the shard .*U8",
        ),
        ((("images", "U8", (3, 5)), *EXPECTED[1:]), r"says U8 \[3, 5\] for images, the shard .*\[3, 1, 5\]"),
        (EXPECTED[1:], "a shard has labels, distance; this file has .*images"),
        ((*EXPECTED, ("seeds", "I64", (3,))), "a shard has images, labels, distance, seeds; this file has"),
    ],
)
def test_other_tensors_than_expected(path, expected, text):
    with pytest.raises(CorruptFileError, match=f"shard: {text}|shard: .*{text}"):
        layout(path, expected)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("header", numbered=True) / "shard"
    path.write_bytes(content)
    for read in (read_facts, layout):
        with pytest.raises(CorruptFileError, match=r"/shard: "):
            read(path)
