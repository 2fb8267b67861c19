"""A manifest that says what cannot be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genmix_transforms.bank.manifest import INDEX
from genmix_transforms.errors import CorruptFileError, InputError

from .attack import SHARDS, Attacks, Opens, Refused
from .editing import edit_entry, edit_manifest, replace

ATTACKS = Attacks("manifest")

SECOND = SHARDS[1]
NONE_OF_OURS = "not a bank's manifest"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else ascii(value)
    return text if len(text) <= 70 else f"{text[:67]}..."


# No manifest at all


for _what, _content in {
    "nothing": b"",
    "half of one": b'{"format": "genmix-bank",',
    "a word": b"bank",
    "bytes that are no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "null": b"null",
    "a string": b'"genmix-bank"',
    "an empty object": b"{}",
    "lists in lists, 100,000 deep": b"[" * 100_000,
    "objects in objects, 100,000 deep": b'{"a":' * 100_000,
    "no version": b'{"format": "genmix-bank"}',
    "no fields": b'{"format": "genmix-bank", "format_version": 2}',
    "a number of 5,000 digits": b'{"format": "genmix-bank", "format_version": 2, "generation": ' + b"9" * 5000 + b"}",
    "a mark of byte order": b'\xef\xbb\xbf{"format": "genmix-bank"}',
}.items():
    ATTACKS.add(f"for a manifest: {_what}", NONE_OF_OURS, name=f"is[{_what}]")(
        lambda folder, content=_content: replace(folder / INDEX, content)
    )


@ATTACKS.add("a manifest of 300 MB", "more than 268,435,456 bytes: not a bank's manifest")
def of_300_megabytes(folder: Path) -> None:
    text = (folder / INDEX).read_bytes()
    with open(folder / INDEX, "wb") as file:
        file.write(text)
        file.truncate(300 * 10**6)


for _changes, _text in (
    ({"format_version": 3}, "format 'genmix-bank' version 3; this release reads 'genmix-bank' versions 2 and 2.1"),
    ({"format_version": 1}, "version 1; .* fill the bank again, or take the release that wrote it"),
    ({"format_version": "2"}, "version '2'"),
    ({"format": "webdataset"}, "format 'webdataset' version 2"),
    ({"format": ["genmix-bank"]}, r"format \['genmix-bank'\]"),
):
    ATTACKS.add(f"a manifest of another version: {_changes}", _text, name=f"version[{_changes}]", error=InputError)(
        lambda folder, changes=_changes: edit_manifest(folder, lambda manifest: manifest.update(changes))
    )


# A field is missing, there twice, or not what the shards are


def _without(folder: Path, field: str) -> None:
    edit_manifest(folder, lambda manifest: {key: value for key, value in manifest.items() if key != field})


for _field in "classes dtype shape labels shards sources fills window generation created class_counts".split():
    ATTACKS.add(f"no {_field}", f"{NONE_OF_OURS} .no '{_field}'", name=f"no[{_field}]")(
        lambda folder, field=_field: _without(folder, field)
    )
for _field in "file bytes count class_counts pixel_range xxh3".split():
    ATTACKS.add(f"a shard without {_field}", _field, name=f"no[shard's {_field}]")(
        lambda folder, field=_field: edit_manifest(folder, lambda m, field=field: m["shards"][1].pop(field) and None)
    )


def _twice(key: str, value: Any) -> Callable[[Path], None]:
    """The key twice in the text, the true value last: Python takes the last one, other readers the first, or none."""

    def damage(folder: Path) -> None:
        text = (folder / INDEX).read_text(encoding="utf-8")
        replace(folder / INDEX, text.replace(f'"{key}":', f'"{key}": {json.dumps(value)}, "{key}":', 1).encode())

    return damage


for _key, _value in {"classes": ["a"], "window": [0, 1], "generation": 7, "file": SHARDS[2], "by": "three"}.items():
    ATTACKS.add(f"{_key!r} twice in the text", f"{NONE_OF_OURS} .*'{_key}' is there twice", name=f"twice[{_key}]")(
        _twice(_key, _value)
    )


@ATTACKS.add(
    "30,000 keys, the last of them twice",
    "is there twice",
)
def many_keys(folder: Path) -> None:
    text = ", ".join(f'"{number}": 0' for number in (*range(30_000), 29_999))
    replace(folder / INDEX, f"{{{text}}}".encode())


# 2 and 2.0 are equal in Python; in JSON, and for other readers, they need not be.
for _name, _changes in {
    "format_version": {"format_version": 2.0},
    "class_counts": {"class_counts": {"cyst": 5.0, "hémangiome": 4.0}},
}.items():
    ATTACKS.add(
        f"a fraction for a whole number: {_changes}",
        f"{_name}|version",
        name=f"fraction[{_name}]",
        error=InputError if _name == "format_version" else CorruptFileError,
    )(lambda folder, changes=_changes: edit_manifest(folder, lambda manifest: manifest.update(changes)))


@ATTACKS.add("another generation", load=Opens.SAME, verify=Opens.SAME, opened=Opens.SAME)
def another_generation(folder: Path) -> None:
    """Which tells readers to look again, and nothing else."""
    edit_manifest(folder, lambda manifest: manifest.update(generation=10**9))


@ATTACKS.add("keys that nobody knows", load=Opens.SAME, verify=Opens.SAME, opened=Opens.SAME)
def unknown_keys(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(later={"a": [1]}))


@ATTACKS.add(
    "one source too few",
    load=Opens.CHANGED,
    verify=Refused(rf"{SHARDS[0]} \(of a source that the manifest does not have\)"),
    opened=Opens.CHANGED,
)
def sources_missing(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest["sources"].pop() and None)


@ATTACKS.add("another pixel type", r"the manifest says U16 \[3, 1, 4, 4\] for images, the shard", name="pixel_type")
def pixel_type(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(dtype="uint16"))


@ATTACKS.add("labels of another kind", r"the manifest says F32 \[3, 2\] for labels, the shard")
def kind_of_labels(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(labels="probabilities"))


for _shape in ([1, 2, 8], [4, 4], [2, 2, 2, 2]):
    ATTACKS.add(f"images of shape {_shape}", "for images, the shard", name=f"shape[{_shape}]")(
        lambda folder, shape=_shape: edit_manifest(folder, lambda manifest: manifest.update(shape=shape))
    )


def _renamed(classes: list[str]) -> Callable[[Path], None]:
    def change(manifest: dict[str, Any]) -> None:
        counts = manifest["class_counts"].values()
        manifest.update(classes=classes, class_counts=dict(zip(classes, counts, strict=True)))

    return lambda folder: edit_manifest(folder, change)


for _classes in (["hémangiome", "cyst"], ["cyst", "other"]):
    ATTACKS.add(f"the classes are {_classes}", "a shard of a bank of other classes", name=f"classes[{_classes}]")(
        _renamed(_classes)
    )


def _miscount(folder: Path, count: int) -> None:
    """The sums of the manifest are right; the shard has 3 images."""
    edit_entry(folder, 0, count=count, class_counts=[count - 1, 1])
    edit_manifest(folder, lambda manifest: manifest["class_counts"].update(cyst=2 + count))


for _count in (2, 4):
    ATTACKS.add(
        f"{_count} images in a shard of 3",
        rf"{SHARDS[0]}: the manifest says U8 \[{_count}, 1, 4, 4\] for images",
        name=f"count[{_count}]",
    )(lambda folder, count=_count: _miscount(folder, count))


# The shards


for _what, _change, _text in (
    ("a shard left out", lambda shards: shards.pop() and None, "class_counts says"),
    ("no shards", list.clear, "class_counts says"),
    ("a shard named twice", lambda shards: shards.append(shards[0]), "a shard is named twice"),
    ("a shard named twice, for another", lambda shards: shards.__setitem__(2, shards[0]), "a shard is named twice"),
):
    ATTACKS.add(_what, _text, name=_what.replace(" ", "_"))(
        lambda folder, change=_change: edit_manifest(folder, lambda manifest: change(manifest["shards"]))
    )


@ATTACKS.add("the shards in another order", load=Opens.CHANGED, verify=Opens.SAME, opened=Opens.CHANGED)
def another_order(folder: Path) -> None:
    """A whole bank, of the same images: those of a class come in another order."""
    edit_manifest(folder, lambda manifest: manifest["shards"].reverse())


for _place, _name in {
    "in the parent": f"../{SECOND}",
    "on the disk": f"/etc/{SECOND}",
    "in a folder": f"sub/{SECOND}",
    "in Windows' parent": f"..\\{SECOND}",
    "with a line's end": f"{SECOND}\n",
    "and up": f"{SECOND}/..",
    "with a NUL": f"{SECOND}\x00",
    "of version 1": "bank-00000-of-00001.safetensors",
    "of a model": "model.safetensors",
    "in foreign digits": "bank-\u0660\u0660\u0660\u0660\u0660.safetensors",
    "with seven digits": "bank-0000001.safetensors",
    "of nothing": "",
    "of the parent": "..",
    "that is null": None,
    "that is a number": 7,
    "that is a list": [SECOND],
}.items():

    def _elsewhere(folder: Path, name: Any = _name) -> None:
        (folder / "sub").mkdir()
        shutil.copy(folder / SECOND, folder / "sub" / SECOND)  # a whole shard, where the name leads
        edit_entry(folder, 1, file=name)

    ATTACKS.add(f"a shard's name {_place}: {_name!a}", "is not the name of a shard", name=f"name[{_place}]")(_elsewhere)

for _changes, _text in (
    ({"count": 5}, r"5 images, but class_counts \(1, 2\)"),
    ({"count": 0, "class_counts": [0, 0]}, "count must be a whole number, at least 1"),
    ({"count": -4}, "count must be a whole number"),
    ({"count": True}, "count must be a whole number"),
    ({"count": "3"}, "count must be a whole number"),
    ({"count": 10**40}, "count must be a whole number"),
    ({"class_counts": [3]}, "3 images, but class_counts"),
    ({"class_counts": [1, 2, 0]}, "3 images, but class_counts"),
    ({"class_counts": [-1, 4]}, "class_counts must be a whole number, at least 0"),
    ({"class_counts": 3}, "class_counts must be a list"),
    ({"class_counts": [2, 1]}, "class_counts says"),
    ({"bytes": 48}, "48 bytes cannot hold 3 images of 16 bytes"),
    ({"bytes": 0}, "bytes must be a whole number, at least 1"),
    ({"bytes": 2**62}, "bytes must be a whole number"),
    ({"bytes": 2**61}, "the manifest says 2,305,843,009,213,693,952: not a whole shard"),
    ({"bytes": None}, "bytes must be a whole number"),
    ({"pixel_range": [0]}, "pixel_range must be two numbers"),
    ({"pixel_range": [-1, 255]}, "pixel_range must be a whole number"),
    ({"pixel_range": [255, 0]}, "pixel_range must be the lowest and the highest pixel"),
    ({"pixel_range": [0, 256]}, "pixel_range must be the lowest and the highest pixel"),
    ({"pixel_range": 255}, "pixel_range must be a list"),
    ({"xxh3": None}, "xxh3 None is no such checksum"),
    ({"xxh3": "0" * 15}, "xxh3 '000000000000000' is no such checksum"),
    ({"xxh3": "0" * 17}, "is no such checksum"),
    ({"xxh3": "A" * 16}, "is no such checksum"),
    ({"xxh3": "0" * 15 + "\n"}, "is no such checksum"),
    ({"xxh3": "\u0660" * 16}, "is no such checksum"),
    ({"xxh3": 0}, "xxh3 0 is no such checksum"),
    ({"sha256": ""}, "sha256 '' is no such checksum"),
    ({"sha256": "0" * 63}, "is no such checksum"),
    ({"sha256": "g" * 64}, "is no such checksum"),
    ({"sha256": 0}, "sha256 0 is no such checksum"),
    ({"file": SHARDS[0]}, "a shard is named twice"),
):
    ATTACKS.add(f"of a shard: {_shown(_changes)}", _text, name=f"shard[{_shown(_changes)}]")(
        lambda folder, changes=_changes: edit_entry(folder, 1, **changes)
    )

for _changes, _load, _verify, _opened in (
    ({"xxh3": "0" * 16}, Refused("not the bytes"), Refused("not the bytes"), Opens.SAME),
    ({"sha256": "0" * 64}, Opens.SAME, Refused("not the bytes"), Opens.SAME),
    ({"pixel_range": [0, 0]}, Opens.SAME, Refused("its pixels are not from 0 to 0"), Opens.SAME),
):
    ATTACKS.add(
        f"of a whole shard: {_shown(_changes)}",
        name=f"whole_shard[{_shown(_changes)}]",
        load=_load,
        verify=_verify,
        opened=_opened,
    )(lambda folder, changes=_changes: edit_entry(folder, 1, **changes))


# Fields that say what cannot be


_FILL = {"identity": "a", "first": 0, "total": 1}
for _changes, _text in (
    ({"classes": None}, "classes must be a list"),
    ({"classes": "cyst"}, "classes must be a list"),
    ({"classes": []}, "different names, at least one"),
    ({"classes": ["cyst", "cyst"]}, "different names"),
    ({"classes": ["cyst", 3]}, "classes must be a list of names"),
    ({"classes": ["cyst", ["a"]]}, "classes must be a list of names"),
    ({"classes": ["cyst", ""]}, "class name '': not a name"),
    ({"classes": ["cyst", "a/b"]}, "class name 'a/b': it holds a slash"),
    ({"classes": ["cyst", "/etc"]}, "class name '/etc': it holds a slash"),
    ({"classes": ["cyst", "a\\b"]}, "it holds a slash"),
    ({"classes": ["cyst", ".."]}, "a folder's shorthand"),
    ({"classes": ["cyst", "a\n"]}, "spaces at its ends"),
    ({"classes": ["cyst", "a\x00"]}, "cannot be printed"),
    ({"classes": ["cyst", "a\x1b[2J"]}, "cannot be printed"),
    ({"classes": ["cyst", "\ud800"]}, "cannot be printed"),
    ({"classes": ["cyst", "a" * 201]}, "longer than 200 bytes"),
    ({"classes": ["cyst", "other"]}, "class_counts says"),
    ({"classes": ["cyst"]}, "3 images, but class_counts .* for 1 classes"),
    ({"labels": "soft"}, "labels 'soft'; there are index, probabilities"),
    ({"labels": ["index"]}, "labels "),
    ({"dtype": "float32"}, "pixel type .*; there are uint8, uint16"),
    ({"dtype": "int64"}, "pixel type .*; there are uint8, uint16"),
    ({"dtype": ""}, "pixel type .*; there are uint8, uint16"),
    ({"dtype": None}, "pixel type .*; there are uint8, uint16"),
    ({"dtype": ["uint8"]}, "pixel type .*; there are uint8, uint16"),
    ({"dtype": {"uint8": 1}}, "pixel type .*; there are uint8, uint16"),
    ({"shape": None}, "shape must be a list"),
    ({"shape": ["a"]}, "shape must be a whole number"),
    ({"shape": [1, 4.0, 4]}, r"shape must be a whole number, at least 1, got 4\.0"),
    ({"shape": [True, 4, 4]}, "shape must be a whole number"),
    ({"shape": [0, 4, 4]}, "shape must be a whole number, at least 1"),
    ({"shape": [1, -4, -4]}, "shape must be a whole number"),
    ({"shape": [2**64, 4, 4]}, "shape must be a whole number"),
    ({"shape": [2**20] * 3}, "an image of 1,152,921,504,606,846,976 bytes"),
    ({"shape": []}, r"expected \(C, \*spatial\)"),
    ({"shape": [16]}, r"expected \(C, \*spatial\)"),
    ({"shape": [1] * 6}, r"expected \(C, \*spatial\)"),
    ({"shape": [1, float("inf"), 4]}, "Infinity is no JSON"),
    ({"class_counts": [5, 4]}, "class_counts says"),
    ({"class_counts": {"cyst": 5}}, "class_counts says"),
    ({"class_counts": {"cyst": 5, "hémangiome": 7}}, "the shards' sum up to .*4"),
    ({"class_counts": {"hémangiome": 5, "cyst": 4}}, "the shards' sum up to"),
    ({"shards": None}, "shards must be a list"),
    ({"shards": {}}, "shards must be a list"),
    ({"shards": [SECOND]}, "a shard must be an object"),
    ({"window": 1}, "window must be a list"),
    ({"window": [1]}, "window must be two numbers"),
    ({"window": [1, 2, 3]}, "window must be two numbers"),
    ({"window": "ab"}, "window must be a list"),
    ({"window": ["a", "b"]}, "window must be two numbers"),
    ({"window": [False, True]}, "window must be two numbers"),
    ({"window": [200, -100]}, "the lower first"),
    ({"window": [200, 200]}, "the lower first"),
    ({"window": [0, 10**40]}, "window must be two numbers"),
    ({"window": [float("nan"), 1]}, "NaN is no JSON"),
    ({"window": [float("-inf"), 1]}, "-Infinity is no JSON"),
    ({"sources": None}, "sources must be a list"),
    ({"sources": []}, "sources must be objects, at least one"),
    ({"sources": [1]}, "sources must be objects"),
    ({"sources": [{"loss": float("nan")}]}, "NaN is no JSON"),
    ({"sources": [{"a": "\ud800"}]}, "a text that is no Unicode"),
    ({"sources": [{"\udfff": 1}]}, "a text that is no Unicode"),
    ({"fills": None}, "fills must be a list"),
    ({"fills": [1]}, "a fill must be an object with an identity"),
    ({"fills": [{}]}, "no 'identity'"),
    ({"fills": [{**_FILL, "identity": 1}]}, "a fill must be an object with an identity"),
    ({"fills": [{**_FILL, "identity": "\ud800"}]}, "a text that is no Unicode"),
    ({"fills": [{"identity": "a", "total": 1}]}, "no 'first'"),
    ({"fills": [{**_FILL, "first": -1}]}, "fills: first must be a whole number"),
    ({"fills": [{**_FILL, "total": 1.5}]}, "fills: total must be a whole number"),
    ({"fills": [{**_FILL, "first": 999_999, "total": 2}]}, "at most 1000000 have a name"),
    ({"fills": [{**_FILL, "total": 10**6}, _FILL]}, "fills of more than 1,000,000 shards"),
    ({"generation": "first"}, "generation must be a whole number"),
    ({"generation": 0}, "generation must be a whole number, at least 1"),
    ({"generation": -1}, "generation must be a whole number, at least 1"),
    ({"generation": 2**62}, "generation must be a whole number, at least 1"),
    ({"generation": 1.5}, "generation must be a whole number, at least 1"),
    ({"created": 1}, "created must be a text"),
    ({"created": "\ud800"}, "a text that is no Unicode"),
):
    ATTACKS.add(f"the manifest says {_shown(_changes)}", _text, name=f"says[{_shown(_changes)}]")(
        lambda folder, changes=_changes: edit_manifest(folder, lambda manifest: manifest.update(changes))
    )


@ATTACKS.add("a number that is too large for a float", "window must be two numbers")
def past_the_floats(folder: Path) -> None:
    text = (folder / INDEX).read_text(encoding="utf-8")
    changed = text.replace("-100.0", "-1e999")
    assert changed != text
    replace(folder / INDEX, changed.encode())
