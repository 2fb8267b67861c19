"""``bank.index.json``: what a bank's folder holds. It is written last: what it does not name is not in the bank.

The format is specified in ``docs/reference/bank-format.md``.
"""

import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, get_args

import torch

from genmix_transforms.bank.rows import PIXEL_DTYPES, Bank, LabelKind, check_classes, check_mask_classes
from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError
from genmix_transforms.files.atomic import write_json
from genmix_transforms.files.strict_json import parse_json

INDEX = "bank.index.json"
LOCK = ".bank.lock"
DECISIONS = "bank.decisions.jsonl"
"""What reviewers have decided, see :mod:`~genmix_transforms.bank.decisions`."""
TURING = "bank.turing.jsonl"
"""What they have taken for real, see :mod:`genmix_transforms.evaluation.audit.review.blind`."""
REVIEW_LOCK = ".bank.review.lock"
"""Held while a line is added to one of these. Not the writer's: a fill may go on meanwhile."""
FORMAT = "genmix-bank"
FORMAT_VERSION = 2
"""Version 1 was that of the development versions; no release wrote it."""
MASKS_VERSION = "2.1"
"""Of a bank with masks. One without is written as before: releases that know no masks read it, and refuse the other."""

MAX_INDEX_BYTES = 2**28
"""Some 300 bytes a shard: a manifest of more than this names more shards than a folder can hold."""

MAX_SHARDS = 10**6
"""A shard's name has at most six digits."""


_SHARD_NAME = re.compile(r"bank-(\d{5,6})\.safetensors", re.ASCII)
_KEPT_NAME = re.compile(r"bank\.\d+of\d+\.kept", re.ASCII)
_HASHES = {"xxh3": re.compile(r"[0-9a-f]{16}"), "sha256": re.compile(r"[0-9a-f]{64}")}


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard as the manifest describes it.

    Args:
        file: its name.
        bytes: its size.
        count: images in it.
        class_counts: of each class, in the order of the manifest's classes.
        pixel_range: lowest and highest pixel value in it.
        xxh3: 64-bit xxh3 of the file, 16 hexadecimal digits: fast, against damage.
        sha256: of the file, or None: slow, for what is published, see :func:`~genmix_transforms.bank.verifying.seal`.
    """

    file: str
    bytes: int
    count: int
    class_counts: tuple[int, ...]
    pixel_range: tuple[int, int]
    xxh3: str
    sha256: str | None = None

    @property
    def number(self) -> int:
        """The number in its name."""
        return shard_number(self.file)


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Work that several processes, or several sittings, do together: shards whose numbers are settled beforehand.

    Args:
        identity: a hash of all that determines the shards' bytes.
        first: number of its first shard.
        total: how many shards.
    """

    identity: str
    first: int
    total: int

    @property
    def numbers(self) -> range:
        """The numbers of its shards."""
        return range(self.first, self.first + self.total)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``bank.index.json`` says.

    Args:
        classes: class names; a label is an index into them.
        dtype: of the pixels: "uint8" or "uint16".
        shape: ``(C, *spatial)`` of an image.
        labels: "index": int64 ``(n,)``; "probabilities": float32 ``(n, K)``.
        shards: in order.
        sources: where images come from; an image's ``source`` is an index into these.
        fills: work that was shared or is not finished yet.
        window: for CT, the Hounsfield units of the lowest and the highest pixel value; None where pixels have no unit.
        mask_classes: what the pixel values of masks mean, from 0 on; None: the bank has no masks.
        generation: grows with every change.
        created: when this generation was written, UTC, as ISO 8601.
    """

    classes: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    labels: LabelKind = "index"
    shards: tuple[ShardEntry, ...] = ()
    sources: tuple[Mapping[str, Any], ...] = ({},)
    fills: tuple[Fill, ...] = ()
    window: tuple[float, float] | None = None
    mask_classes: tuple[str, ...] | None = None
    generation: int = 1
    created: str = field(default_factory=lambda: now())

    @classmethod
    def of(cls, bank: Bank) -> Self:
        """What a bank is, be it in memory or on disk: without shards."""
        return cls(
            classes=bank.classes,
            dtype=str(bank.pixel_dtype).removeprefix("torch."),
            shape=bank.image_shape,
            labels=bank.label_kind,
            sources=bank.sources,
            window=bank.window,
            mask_classes=bank.mask_classes,
        )

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Images of each class, in the order of ``classes``."""
        return tuple(sum(shard.class_counts[place] for shard in self.shards) for place in range(len(self.classes)))

    @property
    def count(self) -> int:
        """Images in all."""
        return sum(shard.count for shard in self.shards)

    @property
    def pixel_dtype(self) -> torch.dtype:
        """uint8 or uint16."""
        return PIXEL_DTYPES[self.dtype]

    @property
    def image_bytes(self) -> int:
        """Bytes of all pixels, those of the masks included."""
        return self.count * _pixel_bytes(self.pixel_dtype, self.shape, masks=self.mask_classes is not None)

    @property
    def shards_to_come(self) -> int:
        """How many shards the fills that have not finished still owe."""
        there = {shard.number for shard in self.shards}
        return sum(number not in there for fill in self.fills for number in fill.numbers)


def _pixel_bytes(dtype: torch.dtype, shape: Sequence[int], *, masks: bool) -> int:
    """Bytes of the pixels of one image and, where there are masks, of its mask."""
    return dtype.itemsize * math.prod(shape) + (math.prod(shape[1:]) if masks else 0)


def now() -> str:
    """The time, UTC, to the second; that of SOURCE_DATE_EPOCH where it is set, as for other reproducible files."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InputError(f"SOURCE_DATE_EPOCH must be seconds since 1970, got {epoch!r}") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def shard_name(number: int) -> str:
    """``bank-00002.safetensors``. A number is never used for another shard again."""
    return f"bank-{number:05d}.safetensors"


def is_shard_name(name: str) -> bool:
    """Whether a file of this name is a shard of a bank."""
    match = _SHARD_NAME.fullmatch(name)
    return match is not None and shard_name(int(match.group(1))) == name  # one name a number


def shard_number(name: str) -> int:
    """The number in a shard's name."""
    match = _SHARD_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a shard")
    return int(match.group(1))


def kept_name(rank: int, count: int) -> str:
    """``bank.0of4.kept``: what one process of a fill has made and not put into a shard yet."""
    return f"bank.{rank}of{count}.kept"


def is_kept_name(name: str) -> bool:
    """Whether a file of this name holds rows that are in no shard yet."""
    return _KEPT_NAME.fullmatch(name) is not None


def holds_rows(name: str) -> bool:
    """Whether a file of this name is a shard, or holds rows that are in no shard yet."""
    return is_shard_name(name) or is_kept_name(name)


def is_bank_file(name: str) -> bool:
    """Whether a file of this name belongs to a bank: its manifest, a shard, a review, a lock, a leftover."""
    is_hidden = name.startswith(".bank") and name.endswith((".tmp", ".lock"))
    return name in (INDEX, DECISIONS, TURING) or holds_rows(name) or is_hidden


def refuse_unfinished(folder: Path, manifest: Manifest, *, error: type[InputError] = InputError) -> None:
    """Refuse a bank whose fill has not finished.

    Raises:
        InputError: shards are still to come; or ``error``, a kind of it.
    """
    if manifest.shards_to_come:
        raise error(
            f"{folder}: {manifest.shards_to_come} shards of a fill are still to come; finish it first, by the same "
            "command that began it"
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, whole or not at all. Several processes may write the same one at once."""
    content = asdict(manifest)
    content["class_counts"] = dict(zip(manifest.classes, manifest.class_counts, strict=True))
    content["shards"] = content.pop("shards")  # last: a person who opens the file sees the rest first
    if manifest.mask_classes is None:
        del content["mask_classes"]
    version = FORMAT_VERSION if manifest.mask_classes is None else MASKS_VERSION
    write_json(folder / INDEX, {"format": FORMAT, "format_version": version, **content}, shared=True)


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest.

    Raises:
        MissingPathError: no such folder, or no bank in it.
        InputError: a bank of another format version.
        CorruptFileError: the file is no manifest; the message says what is wrong with it.
    """
    path = folder / INDEX
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise CorruptFileError(f"{path}: {kind}, not a manifest")
        if status.st_size > MAX_INDEX_BYTES:
            raise CorruptFileError(f"{path}: more than {MAX_INDEX_BYTES:,} bytes: not a bank's manifest")
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(folder) from error
    except OSError as error:
        raise CorruptFileError(f"{path}: the manifest cannot be read ({error.strerror})") from error
    try:
        content = parse_json(raw)
    except ValueError as error:
        raise CorruptFileError(f"{path}: not a bank's manifest ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict) or "format" not in content or "format_version" not in content:
        raise CorruptFileError(f"{path}: not a bank's manifest (no 'format' and 'format_version')")
    version = content["format_version"]
    is_known = type(version) in (int, str) and version in (FORMAT_VERSION, MASKS_VERSION)  # to Python, 2.0 is 2
    if content["format"] != FORMAT or not is_known:
        raise InputError(
            f"{path}: format {content['format']!r} version {version!r}; this release reads {FORMAT!r} versions "
            f"{FORMAT_VERSION} and {MASKS_VERSION}: fill the bank again, or take the release that wrote it"
        )
    try:
        return _parse(content)
    except CorruptFileError as error:
        raise CorruptFileError(f"{path}: {error}") from error
    except KeyError as error:
        raise CorruptFileError(f"{path}: not a bank's manifest (no {error})") from error


def _missing(folder: Path) -> MissingPathError:
    if not folder.is_dir():
        return MissingPathError(f"{folder}: no such bank")
    begun = any(holds_rows(file.name) for file in folder.iterdir())
    reason = (
        "a bank whose first shard is not finished; run the same command again"
        if begun
        else "not a bank; SyntheticBank.from_folder reads a folder of images"
    )
    return MissingPathError(f"{folder}: no {INDEX}: {reason}")


def _parse(content: Mapping[str, Any]) -> Manifest:
    masked = content["format_version"] == MASKS_VERSION
    try:
        classes = check_classes(_list(content["classes"], "classes"))
        mask_classes = check_mask_classes(_list(content["mask_classes"], "mask_classes")) if masked else None
    except InputError as error:
        raise CorruptFileError(str(error)) from error
    dtype = content["dtype"]
    if not isinstance(dtype, str) or dtype not in PIXEL_DTYPES:
        raise CorruptFileError(f"pixel type {dtype!r}; there are {', '.join(PIXEL_DTYPES)}")
    labels = content["labels"]
    if labels not in get_args(LabelKind):
        raise CorruptFileError(f"labels {labels!r}; there are {', '.join(get_args(LabelKind))}")
    shape = tuple(_whole(extent, "shape", least=1) for extent in _list(content["shape"], "shape"))
    if not 2 <= len(shape) <= 5:
        raise CorruptFileError(f"shape {shape}: expected (C, *spatial)")
    sources = _list(content["sources"], "sources")
    if not sources or not all(isinstance(source, dict) for source in sources):
        raise CorruptFileError("sources must be objects, at least one")
    image = _pixel_bytes(PIXEL_DTYPES[dtype], shape, masks=masked)
    if image >= 2**48:
        raise CorruptFileError(f"shape {shape}: an image of {image:,} bytes")
    highest = 2 ** (8 * PIXEL_DTYPES[dtype].itemsize) - 1
    shards = tuple(_shard(entry, len(classes), image, highest) for entry in _list(content["shards"], "shards"))
    if len({shard.file for shard in shards}) != len(shards):
        raise CorruptFileError("a shard is named twice")
    created = content["created"]
    if not isinstance(created, str):
        raise CorruptFileError(f"created must be a text, got {created!r}")
    manifest = Manifest(
        classes=classes,
        dtype=dtype,
        shape=shape,
        labels=labels,
        shards=shards,
        sources=tuple(sources),
        fills=tuple(_fill(fill) for fill in _list(content["fills"], "fills")),
        window=_window(content["window"]),
        mask_classes=mask_classes,
        generation=_whole(content["generation"], "generation", least=1),
        created=created,
    )
    if sum(fill.total for fill in manifest.fills) > MAX_SHARDS:
        raise CorruptFileError(f"fills of more than {MAX_SHARDS:,} shards")
    try:
        json.dumps([created, *sources, *(fill.identity for fill in manifest.fills)], ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise CorruptFileError(f"a text that is no Unicode ({error})") from error
    counts = content["class_counts"]
    expected = dict(zip(manifest.classes, manifest.class_counts, strict=True))
    if counts != expected or not all(type(count) is int for count in counts.values()):
        raise CorruptFileError(f"class_counts says {counts}, the shards' sum up to {expected}")
    return manifest


def _shard(entry: Any, num_classes: int, image_bytes: int, highest: int) -> ShardEntry:
    if not isinstance(entry, dict):
        raise CorruptFileError(f"a shard must be an object, got {entry!r}")
    file = entry["file"]
    # A name with a path in it could read any file on the machine.
    if not isinstance(file, str) or not is_shard_name(file):
        raise CorruptFileError(f"{file!r} is not the name of a shard")
    count = _whole(entry["count"], f"{file}: count", least=1)
    counts = tuple(_whole(n, f"{file}: class_counts") for n in _list(entry["class_counts"], f"{file}: class_counts"))
    if len(counts) != num_classes or sum(counts) != count:
        raise CorruptFileError(f"{file}: {count} images, but class_counts {counts} for {num_classes} classes")
    size = _whole(entry["bytes"], f"{file}: bytes", least=1)
    if size <= count * image_bytes:
        raise CorruptFileError(f"{file}: {size} bytes cannot hold {count} images of {image_bytes} bytes")
    low, high = (_whole(value, f"{file}: pixel_range") for value in _pair(entry["pixel_range"], f"{file}: pixel_range"))
    if not low <= high <= highest:
        raise CorruptFileError(f"{file}: pixel_range must be the lowest and the highest pixel, got {low} and {high}")
    for name, pattern in _HASHES.items():
        value = entry.get(name)
        if not (isinstance(value, str) and pattern.fullmatch(value)) and not (name == "sha256" and value is None):
            raise CorruptFileError(f"{file}: {name} {value!r} is no such checksum")
    return ShardEntry(
        file=file,
        bytes=size,
        count=count,
        class_counts=counts,
        pixel_range=(low, high),
        xxh3=entry["xxh3"],
        sha256=entry.get("sha256"),
    )


def _fill(value: Any) -> Fill:
    if not isinstance(value, dict) or not isinstance(value["identity"], str):
        raise CorruptFileError(f"a fill must be an object with an identity, got {str(value)[:80]}")
    first, total = _whole(value["first"], "fills: first"), _whole(value["total"], "fills: total")
    if first + total > MAX_SHARDS:
        raise CorruptFileError(f"a fill of shards {first} to {first + total}; at most {MAX_SHARDS} have a name")
    return Fill(identity=value["identity"], first=first, total=total)


def _list(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise CorruptFileError(f"{name} must be a list, got {str(value)[:80]!r}")
    return value


def _pair(value: Any, name: str) -> Sequence[Any]:
    if len(_list(value, name)) != 2:
        raise CorruptFileError(f"{name} must be two numbers, got {str(value)[:80]}")
    return value  # type: ignore[no-any-return]


def _whole(value: Any, name: str, *, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**62:
        raise CorruptFileError(f"{name} must be a whole number, at least {least}, got {repr(value)[:80]}")
    return value


def _window(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    low, high = _pair(value, "window")
    for bound in (low, high):
        if not isinstance(bound, int | float) or isinstance(bound, bool) or not abs(bound) < 1e30:
            raise CorruptFileError(f"window must be two numbers, got {str(value)[:80]}")
    if not low < high:
        raise CorruptFileError(f"window must be two numbers, the lower first, got {value}")
    return float(low), float(high)
