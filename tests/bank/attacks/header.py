"""Headers of shards that a reader should not believe. The manifest agrees with each, its sizes and checksums too."""

import json
import struct
from pathlib import Path
from typing import Any

from genmix_transforms.bank.rows import Rows

from .attack import CLASSES, SHARDS, Attacks, Opens
from .editing import edit_header, joined, parts, replace, reseal

ATTACKS = Attacks("header")

SHARD = SHARDS[0]
COLUMNS = tuple(name for name in Rows._fields if name != "masks")  # of a bank without masks
HEADER_KEY = "genmix_bank"


def _tensor(name: str, **changes: Any) -> Any:
    return lambda folder: edit_header(folder, lambda header: header[name].update(changes))


@ATTACKS.add("a header whose tensors come in another order", load=Opens.SAME, verify=Opens.SAME, opened=Opens.SAME)
def harmless(folder: Path) -> None:
    """So that the refusals below are not for the forging."""
    edit_header(folder, lambda header: dict(reversed(header.items())))


# No header


for _what, _header in {
    "no JSON": b"no JSON here",
    "no text": b"\xff\xfe",
    "lists in lists": b"[" * 100_000,
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "a string": b'"images"',
}.items():

    def _other(folder: Path, header: bytes = _header) -> None:
        path = folder / SHARD
        replace(path, joined(header, parts(path.read_bytes())[1]))
        reseal(folder)

    ATTACKS.add(f"a header that is {_what}", f"{SHARD}: not a whole shard", name=f"is[{_what}]")(_other)

for _length in (2**20 + 1, 2**40, 2**63, 2**64 - 1):

    def _claim(folder: Path, length: int = _length) -> None:
        path = folder / SHARD
        replace(path, struct.pack("<Q", length) + path.read_bytes()[8:])
        reseal(folder)

    ATTACKS.add(
        f"a header that claims {_length:,} bytes",
        rf"{SHARD}: its header claims {_length:,} bytes; a shard's has at most 1,048,576",
        name=f"claims[{_length}]",
    )(_claim)


@ATTACKS.add("a header of more than 1 MB, and it is there", "its header claims 1,[0-9,]+ bytes; a shard's has at most")
def of_a_megabyte(folder: Path) -> None:
    edit_header(folder, lambda header: {**header, "__metadata__": {**header["__metadata__"], "x": "x" * 2**20}})


@ATTACKS.add("a header longer than its file", f"{SHARD}: not a whole shard")
def past_the_end(folder: Path) -> None:
    path = folder / SHARD
    replace(path, struct.pack("<Q", 2**20) + path.read_bytes()[8:])
    reseal(folder)


# Tensors missing, too many, or others


for _name in COLUMNS:
    ATTACKS.add(f"no {_name}", "a shard has images, labels, .*; this file has", name=f"no[{_name}]")(
        lambda folder, name=_name: edit_header(folder, lambda header: header.pop(name) and None)
    )
    for _dtype in ("I8", "F64", "BF16", "U4", "", None, 7, ["U8"]):
        ATTACKS.add(
            f"{_name} of the type {_dtype!r}",
            rf"the manifest says \w+ \[3.*\] for {_name}, the shard",
            name=f"dtype[{_name}, {_dtype}]",
        )(_tensor(_name, dtype=_dtype))
    for _shape in ([2], [3, 1], [], [3, 1, 16], [-3], "3", None, [[3]], {"3": 3}, [2**63], [3, 10**30], [3.0], [True]):
        ATTACKS.add(
            f"{_name} of the shape {_shape!r}",
            rf"the manifest says \w+ \[3.*\] for {_name}, the shard",
            name=f"shape[{_name}, {_shape}]",
        )(_tensor(_name, shape=_shape))


@ATTACKS.add("a tensor too many", "this file has .*extra")
def extra(folder: Path) -> None:
    edit_header(folder, lambda header: header.update(extra={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}))


for _value in (None, [], "images", 7, {}):
    ATTACKS.add(f"images that are {_value!r}", "for images, the shard", name=f"images[{_value!r}]")(
        lambda folder, value=_value: edit_header(folder, lambda header: {**header, "images": value})
    )


@ATTACKS.add("a tensor twice in the header", "'images' is there twice")
def twice(folder: Path) -> None:
    path = folder / SHARD
    header, tensors = parts(path.read_bytes())
    text = json.dumps(header)
    other = json.dumps({**header["images"], "data_offsets": header["labels"]["data_offsets"]})
    replace(path, joined(text.replace('"images":', f'"images": {other}, "images":', 1).encode(), tensors))
    reseal(folder)


# Places


for _offsets in (
    *(None, [], [0], [0, 1, 2], "ab", {"0": 1}, [None, 48], ["0", "48"], [0.0, 48.0], [-48, 0], [48, 0], [0, 47]),
    *([0, 2**64], [2**63, 2**63 + 48], [-(2**63), 48 - 2**63], [[0], [48]], [10**30, 10**30 + 48]),
):
    ATTACKS.add(f"images at {_offsets!r}", "images cannot lie at|overlap or leave gaps", name=f"at[{_offsets!r}]")(
        _tensor("images", data_offsets=_offsets)
    )


@ATTACKS.add("a place that is a boolean", "cannot lie at")
def boolean(folder: Path) -> None:
    """In JSON false is not 0, though in Python it is."""

    def change(header: dict[str, Any]) -> None:
        first = next(name for name in COLUMNS if header[name]["data_offsets"][0] == 0)
        header[first]["data_offsets"][0] = False

    edit_header(folder, change)


def _moved(names: "tuple[str, ...] | None", by: int) -> Any:
    """These tensors, or the last one, said to lie some bytes further on."""

    def change(header: dict[str, Any]) -> None:
        last = max(COLUMNS, key=lambda name: header[name]["data_offsets"][1])
        for name in names or (last,):
            header[name]["data_offsets"] = [place + by for place in header[name]["data_offsets"]]

    return lambda folder: edit_header(folder, change)


for _step in (1, 2, 4):
    ATTACKS.add(f"labels {_step} bytes further on", "labels cannot lie at", name=f"misaligned[{_step}]")(
        _moved(("labels",), _step)
    )
ATTACKS.add("a gap before the last tensor", "overlap or leave gaps", name="gap")(_moved(None, 8))
ATTACKS.add("a gap before all tensors", "overlap or leave gaps", name="gap[all]")(_moved(COLUMNS, 8))
ATTACKS.add("tensors past the file's end", "overlap or leave gaps", name="past_the_end[far]")(_moved(None, 2**40))


@ATTACKS.add("a header of odd length, whose tensors are misaligned", "cannot lie at")
def misaligned_by_the_header(folder: Path) -> None:
    path = folder / SHARD
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    replace(path, struct.pack("<Q", length + 1) + content[8 : 8 + length] + b" " + content[8 + length :])
    reseal(folder)


@ATTACKS.add("two tensors in one place", "its tensors overlap or leave gaps")
def overlapping(folder: Path) -> None:
    edit_header(folder, lambda header: header["seeds"].update(data_offsets=header["labels"]["data_offsets"]))


@ATTACKS.add("the file ends before its tensors do", "bytes of tensors, its header says")
def cut_off(folder: Path) -> None:
    path = folder / SHARD
    replace(path, path.read_bytes()[:-8])
    reseal(folder)


# What it says of itself


for _metadata in (
    *(None, [], "genmix_bank", {}, {HEADER_KEY: None}, {HEADER_KEY: "no JSON"}, {HEADER_KEY: "[]"}, {"format": "pt"}),
    *({HEADER_KEY: "[" * 100_000}, {HEADER_KEY: {"classes": list(CLASSES)}}),
):
    ATTACKS.add(
        f"a shard that says of itself {str(_metadata)[:40]}",
        f"{SHARD}: not a bank's shard: its header has no '{HEADER_KEY}'",
        name=f"metadata[{str(_metadata)[:40]}]",
    )(lambda folder, metadata=_metadata: edit_header(folder, lambda header: {**header, "__metadata__": metadata}))


@ATTACKS.add("a shard that says nothing of itself", "not a bank's shard")
def no_metadata(folder: Path) -> None:
    edit_header(folder, lambda header: header.pop("__metadata__") and None)


for _classes in (["cyst"], ["hémangiome", "cyst"], ["cyst", "other"], None, "cyst", 2):
    ATTACKS.add(
        f"a shard of the classes {_classes!r}",
        "a shard of a bank of other classes: .*, the manifest says .*'cyst', 'hémangiome'",
        name=f"classes[{_classes!r}]",
    )(
        lambda folder, classes=_classes: edit_header(
            folder, lambda header: {**header, "__metadata__": {HEADER_KEY: json.dumps({"classes": classes})}}
        )
    )
