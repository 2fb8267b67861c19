"""Files that are damaged, missing, too many, in each other's place, or no files."""

import os
import shutil
import socket
from pathlib import Path

import torch

from genmix_transforms.bank.hub import seal
from genmix_transforms.bank.manifest import INDEX, shard_name
from genmix_transforms.bank.rows import Rows
from genmix_transforms.bank.shard import write_shard
from genmix_transforms.errors import CorruptFileError, MissingPathError

from .attack import CLASSES, SHARDS, Attacks, Opens, Refused
from .editing import edit_entry, flip, flip_pixel, place_of, replace, reseal

ATTACKS = Attacks("files")

NOT_WRITTEN = "not the bytes that were written"
GONE = f"{SHARDS[1]}: the manifest names this shard, but there is no such file"


# Cut off


def _cut(folder: Path, kept: int) -> None:
    path = folder / SHARDS[1]
    replace(path, path.read_bytes()[:kept])


for _kept in (0, 3, 8, 20, -1):
    ATTACKS.add(
        f"a shard cut off after {_kept} bytes" if _kept >= 0 else "a shard without its last byte",
        rf"{SHARDS[1]}: [\d,]+ bytes, the manifest says [\d,]+: not a whole shard",
        name=f"truncated[{_kept}]",
    )(lambda folder, kept=_kept: _cut(folder, kept))
    ATTACKS.add(
        f"a shard cut off after {_kept} bytes, and the manifest agrees",
        "must be|cannot hold" if _kept >= 0 else "bytes of tensors, its header says",
        name=f"truncated_and_resealed[{_kept}]",
    )(lambda folder, kept=_kept: (_cut(folder, kept), reseal(folder, 1)))


@ATTACKS.add("a byte more at a shard's end", "the manifest says .*not a whole shard")
def longer(folder: Path) -> None:
    with open(folder / SHARDS[1], "ab") as file:
        file.write(b"\0")


@ATTACKS.add("a byte more at a shard's end, and the manifest agrees", "bytes of tensors, its header says")
def longer_and_resealed(folder: Path) -> None:
    longer(folder)
    reseal(folder, 1)


# A bit flipped


for _number, _shard in enumerate(SHARDS):
    for _place, _flip, _opened in (
        ("the length of the header", lambda path: flip(path, 0), None),
        ("the header", lambda path: flip(path, 30), None),
        ("the pixels", flip_pixel, Opens.CHANGED),
        ("the last byte", lambda path: flip(path, -1), Opens.CHANGED),
    ):
        ATTACKS.add(
            f"a bit flipped in {_place} of {_shard}",
            rf"{_shard}.*{NOT_WRITTEN}" if _opened else _shard,
            name=f"flipped[{_place}, {_number}]",
            opened=_opened,
        )(lambda folder, shard=_shard, flip_bit=_flip: flip_bit(folder / shard))


@ATTACKS.add("a bit flipped in a label", f"{SHARDS[0]}: its labels are not those that the manifest counts")
def flipped_label(folder: Path) -> None:
    path = folder / SHARDS[0]
    flip(path, place_of(path.read_bytes(), "labels"))


@ATTACKS.add("a bit flipped in the manifest's text", "not a bank's manifest")
def flipped_manifest(folder: Path) -> None:
    flip(folder / INDEX, 0)


@ATTACKS.add("every shard damaged", ", ".join(SHARDS), verify=Refused(".*".join(SHARDS)), opened=Opens.CHANGED)
def all_damaged(folder: Path) -> None:
    for shard in SHARDS:
        flip(folder / shard, -1)


@ATTACKS.add(
    "one shard damaged, another missing", f"{SHARDS[2]}: .*no such file", verify=Refused(".*".join(SHARDS[::2]))
)
def damaged_and_missing(folder: Path) -> None:
    flip(folder / SHARDS[0], -1)
    (folder / SHARDS[2]).unlink()


@ATTACKS.add(
    "a pixel changed in a sealed bank, and the fast checksum forged",
    load=Opens.CHANGED,  # which is held to xxh3 alone, as the format says
    verify=Refused(rf"{SHARDS[1]} \({NOT_WRITTEN}\)"),
    opened=Opens.CHANGED,
)
def forged_checksum(folder: Path) -> None:
    seal(folder)
    flip_pixel(folder / SHARDS[1])
    reseal(folder, 1)


# Missing, too many, in each other's place


@ATTACKS.add("a shard missing", GONE)
def missing(folder: Path) -> None:
    (folder / SHARDS[1]).unlink()


@ATTACKS.add("all shards missing", f"{SHARDS[0]}: the manifest names this shard, but there is no such file")
def all_missing(folder: Path) -> None:
    for shard in SHARDS:
        (folder / shard).unlink()


@ATTACKS.add("the manifest missing", "a bank whose first shard is not finished", error=MissingPathError)
def no_manifest(folder: Path) -> None:
    (folder / INDEX).unlink()


@ATTACKS.add("the folder missing", "no such bank", error=MissingPathError)
def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


@ATTACKS.add(
    "the folder empty", "not a bank; SyntheticBank.from_folder reads a folder of images", error=MissingPathError
)
def empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@ATTACKS.add("a file in the folder's place", "no such bank", error=MissingPathError)
def a_file_for_a_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


@ATTACKS.add(
    "a shard that the manifest does not name",
    load=Opens.SAME,
    verify=Refused(r"bank-00007.safetensors \(not in the manifest: a killed writer's, or somebody else's\)"),
    opened=Opens.SAME,
)
def extra(folder: Path) -> None:
    shutil.copy(folder / SHARDS[0], folder / shard_name(7))


@ATTACKS.add("other files beside the shards", load=Opens.SAME, verify=Opens.SAME, opened=Opens.SAME)
def other_files(folder: Path) -> None:
    (folder / "README.md").write_text("a card", encoding="utf-8")
    (folder / ".bank-00009.safetensors.tmp").write_bytes(b"half")


def _swap(folder: Path, one: str, other: str) -> None:
    (folder / one).rename(folder / "aside")
    (folder / other).rename(folder / one)
    (folder / "aside").rename(folder / other)


@ATTACKS.add("two shards of as many images of each class swapped", f"{SHARDS[0]}.*{SHARDS[2]}", opened=Opens.CHANGED)
def swapped(folder: Path) -> None:
    assert (folder / SHARDS[0]).stat().st_size == (folder / SHARDS[2]).stat().st_size
    _swap(folder, SHARDS[0], SHARDS[2])


@ATTACKS.add("two shards swapped", f"{SHARDS[0]}.*its labels are not those")
def swapped_of_other_counts(folder: Path) -> None:
    _swap(folder, SHARDS[0], SHARDS[1])


@ATTACKS.add("a shard overwritten with another of the same bank", f"{SHARDS[0]}.*{NOT_WRITTEN}", opened=Opens.CHANGED)
def repeated(folder: Path) -> None:
    shutil.copy(folder / SHARDS[2], folder / SHARDS[0])


def _of_another(shape: tuple[int, ...], classes: tuple[str, ...], count: int = 3) -> "object":
    def damage(folder: Path) -> None:
        labels = torch.tensor([0, 0, 1, 1])[:count]
        rows = Rows.complete(torch.full((count, *shape), 7, dtype=torch.uint8), labels)
        write_shard(folder / SHARDS[0], rows, classes=classes)

    return damage


for _what, _shape, _classes, _count, _text in (
    ("of more images", (1, 4, 4), CLASSES, 4, "bytes, the manifest says .*not a whole shard"),
    ("of larger images", (1, 4, 5), CLASSES, 3, "bytes, the manifest says .*not a whole shard"),
    ("of another shape", (2, 2, 4), CLASSES, 3, r"U8 \[3, 1, 4, 4\] for images, the shard .*\[3, 2, 2, 4\]"),
    ("of other classes", (1, 4, 4), ("zyst", CLASSES[1]), 3, "a shard of a bank of other classes"),
):
    ATTACKS.add(f"a shard of another bank, {_what}", rf"{SHARDS[0]}: .*{_text}", name=f"of_another_bank[{_what}]")(
        _of_another(_shape, _classes, _count)
    )
ATTACKS.add(
    "a shard of another bank that looks the same",
    rf"{SHARDS[0]}.*{NOT_WRITTEN}",
    name="of_another_bank[the same kind]",
    opened=Opens.CHANGED,
)(_of_another((1, 4, 4), CLASSES))


# No files


def _remove_and(path: Path, make: object) -> None:
    path.unlink()
    make(path)


def _socket(path: Path) -> None:
    # A socket's path may not be longer than 107 bytes: bound by a short name, then renamed.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)


_NO_FILE = "there is no such file|it is no file|the shard cannot be opened"
_NO_MANIFEST = "a pipe or a device, not a manifest"
for _what, _make, _shard_text, _manifest_text in (
    ("an empty file", lambda path: path.write_bytes(b""), "0 bytes, the manifest says", "not a bank's manifest"),
    ("a folder", Path.mkdir, _NO_FILE, "a folder, not a manifest"),
    ("a link to nothing", lambda path: path.symlink_to("nothing"), _NO_FILE, "first shard is not finished"),
    ("a link to itself", lambda path: path.symlink_to(path.name), _NO_FILE, "not|cannot"),
    ("a link to /dev/null", lambda path: path.symlink_to("/dev/null"), _NO_FILE, _NO_MANIFEST),
    ("a link to /dev/zero", lambda path: path.symlink_to("/dev/zero"), _NO_FILE, _NO_MANIFEST),
    ("a named pipe", os.mkfifo, _NO_FILE, _NO_MANIFEST),
    ("a socket", _socket, _NO_FILE, _NO_MANIFEST),
    ("a sparse file of 1 TiB", _sparse, "1,099,511,627,776 bytes, the manifest says", "more than 268,435,456 bytes"),
):
    ATTACKS.add(f"{_what} in a shard's place", rf"{SHARDS[1]}: .*({_shard_text})", name=f"shard[{_what}]")(
        lambda folder, make=_make: _remove_and(folder / SHARDS[1], make)
    )
    ATTACKS.add(
        f"{_what} in the manifest's place",
        _manifest_text,
        name=f"manifest[{_what}]",
        error=MissingPathError if _what == "a link to nothing" else CorruptFileError,
    )(lambda folder, make=_make: _remove_and(folder / INDEX, make))


@ATTACKS.add(
    "a shard that the manifest does not name, a pipe", load=Opens.SAME, verify=Refused("bank-00007"), opened=Opens.SAME
)
def extra_pipe(folder: Path) -> None:
    os.mkfifo(folder / shard_name(7))


# Links are no attack: the hub's cache is made of them


@ATTACKS.add("all files are links out of the folder", load=Opens.SAME, verify=Opens.SAME, opened=Opens.SAME)
def links(folder: Path) -> None:
    elsewhere = folder.with_name(f"{folder.name}-blobs")
    elsewhere.mkdir()
    for name in (*SHARDS, INDEX):
        (folder / name).rename(elsewhere / f"blob {name}")
        (folder / name).symlink_to(elsewhere / f"blob {name}")


@ATTACKS.add("a link to another shard", f"{SHARDS[0]}.*{NOT_WRITTEN}", opened=Opens.CHANGED)
def link_to_another_shard(folder: Path) -> None:
    (folder / SHARDS[0]).unlink()
    (folder / SHARDS[0]).symlink_to(SHARDS[2])


@ATTACKS.add("a link out of the folder, to a file that is no shard", f"{SHARDS[0]}: its header claims .* bytes")
def link_to_something_else(folder: Path) -> None:
    secret = folder.with_name(f"{folder.name}-secret")
    secret.write_bytes(b"password: 1234\n" * 100)
    (folder / SHARDS[0]).unlink()
    (folder / SHARDS[0]).symlink_to(secret)
    edit_entry(folder, 0, bytes=secret.stat().st_size)
