"""A saved bank with anything at all done to its files loads unharmed, or is refused in our own words.

More inputs than a test takes, by hand: ``python tests/bank/test_fuzz.py --inputs 100000``.
"""

import argparse
import json
import shutil
import struct
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.manifest import INDEX, Fill, read_manifest, shard_name, write_manifest
from genmix_transforms.bank.writer import BankWriter
from genmix_transforms.errors import CorruptFileError, InputError

COUNT, SHAPE, CLASSES = 6, (1, 4, 4), ("cyst", "hémangiome")
REFUSED = (CorruptFileError, InputError)  # MissingPathError is an InputError
SHARDS = (shard_name(0), shard_name(1))
ODD = (
    None, True, False, 0, 1, -1, 2, 3, 5, 6, 7, 16, 48, 2**31, 2**53, 2**62 - 1, 2**63, 2**64, -(2**63), 10**40,
    0.5, -0.0, 1.0, 3.0, 1e30, 1e308, float("inf"), float("-inf"), float("nan"), 999_999, 10**6,
    "", " ", "cyst", "uint8", "uint16", "index", "probabilities", "../bank-00000.safetensors", "/", "\x00", "\ud800",
    "bank-00000.safetensors", "bank-00001.safetensors", "bank-000001.safetensors", "f" * 16, "f" * 64, "a" * 300,
    "U8", "I64", "F32", [], {}, [[]], [0], [0, 0], [1, 4, 4], [1, 2, 8], [2**40] * 3, [0, 6], [3, 3], [[0, 48]],
    {"cyst": 3}, {"cyst": 0, "hémangiome": 0}, {"file": "bank-00000.safetensors"},
)  # fmt: skip
DEEP = "deep"  # stands for a value nested deeper than a parser goes


class Original:
    """A bank of two shards as it was saved: its files, and what they hold."""

    def __init__(self, folder, *, soft):
        generator = np.random.default_rng(7)
        images = torch.from_numpy(generator.integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8))
        index = torch.tensor([0, 1, 1, 1, 0, 1])
        labels = torch.tensor([[0.9, 0.1], [0.25, 0.75]])[index] if soft else index
        with BankWriter(
            folder,
            classes=CLASSES,
            image_shape=SHAPE,
            labels="probabilities" if soft else "index",
            provenance={"by": "a test"},
            window=(-100.0, 200.0),
            shard_bytes=48,
        ) as writer:
            writer.add(images, labels, seeds=torch.arange(COUNT))
        fill = Fill(identity="a fill", first=0, total=2)
        write_manifest(folder, replace(read_manifest(folder), fills=(fill,)))
        self.files = {name: (folder / name).read_bytes() for name in (INDEX, *SHARDS)}
        # A manifest may name its shards in another order: another bank, of the same images.
        orders = ([0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2])
        self.orders = [sorted(order, key=lambda place: int(index[place])) for order in orders]
        self.images, self.labels = images, labels

    def is_held_by(self, bank):
        """Whether the bank has the images and labels that were saved, each image with its own label and seed."""
        return any(
            torch.equal(bank.images, self.images[order])
            and torch.equal(bank.labels, self.labels[order])
            and bank.seeds.tolist() == order
            for order in self.orders
        )


@dataclass
class Input:
    """Files to load a bank from (None: a folder of that name, absent: no such file), and how."""

    files: dict
    verify: bool | None
    resident: bool | None
    touched: set = field(default_factory=set)
    forged: bool = False
    """The manifest was made to agree with the change: it may hold another bank, and a whole one."""
    did: list = field(default_factory=list)


def make_input(original, rng):
    """Up to three mutations of the original files."""
    choice = (None, True, False)
    made = Input(dict(original.files), choice[rng.integers(3)], choice[rng.integers(3)])
    for _ in range((1, 1, 2, 3)[rng.integers(4)]):
        name = (INDEX, INDEX, INDEX, *SHARDS)[rng.integers(5)]
        mutate = MUTATIONS[rng.integers(len(MUTATIONS))]
        if made.files.get(name) is None:
            continue
        made.touched.add(name)
        made.did.append(f"{mutate.__name__} {name}")
        mutate(made, name, rng)
    if rng.random() < 0.3:
        agree(made)
    return made


def change_bytes(made, name, rng):
    content = bytearray(made.files[name])
    begin = int(rng.integers(len(content) + 1))
    end = min(len(content), begin + int(rng.integers(1, 40)))
    match rng.integers(7):
        case 0 if begin < len(content):
            content[begin] ^= 1 << int(rng.integers(8))
        case 1 if begin < len(content):
            content[begin] = int(rng.integers(256))
        case 2:
            del content[begin:]
        case 3:
            del content[begin:end]
        case 4:
            content[begin:begin] = content[begin:end]
        case 5:
            content[begin:begin] = rng.bytes(int(rng.integers(1, 40)))
        case _:
            content[begin:end] = rng.bytes(end - begin)
    made.files[name] = bytes(content)


def change_files(made, name, rng):
    match rng.integers(6):
        case 0:
            del made.files[name]
        case 1:
            made.files[name] = None
        case 2:
            made.files[name] = b""
        case 3:
            made.files[SHARDS[0]], made.files[SHARDS[1]] = made.files.get(SHARDS[1]), made.files.get(SHARDS[0])
            made.touched.update(SHARDS)
        case 4:
            made.files[shard_name(int(rng.integers(2, 5)))] = made.files[name]
        case _:
            made.files[name] = made.files[name] + bytes(int(rng.integers(1, 64)))


def change_json(made, name, rng):
    """Of the manifest, or of a shard's header, whose length is then made right (or not)."""
    if name == INDEX:
        value = parsed(made.files[name])
        if value is not None:
            made.files[name] = dumped(changed(value, rng))
        return
    content = made.files[name]
    length = int.from_bytes(content[:8], "little")
    header = parsed(content[8 : 8 + length]) if length < 10**6 else None
    if header is None:
        return
    text = dumped(changed(header, rng))
    text += b" " * (-len(text) % 8 if rng.random() < 0.9 else int(rng.integers(8)))
    claimed = len(text) if rng.random() < 0.95 else int(rng.choice([0, 1, length, 2**20, 2**20 + 1, 2**62]))
    made.files[name] = struct.pack("<Q", claimed) + text + content[8 + length :]


def change_offsets(made, name, rng):
    """Of a shard's tensors, by a few bytes, which damage hardly ever does in step."""
    if name == INDEX:
        return
    content = made.files[name]
    length = int.from_bytes(content[:8], "little")
    header = parsed(content[8 : 8 + length]) if length < 10**6 else None
    try:
        for key in header.keys() - {"__metadata__"} if rng.random() < 0.5 else {"labels", "images"}:
            header[key]["data_offsets"] = [
                place + int(rng.integers(-1, 2)) * 8 for place in header[key]["data_offsets"]
            ]
    except (AttributeError, KeyError, TypeError):
        return
    text = dumped(header)
    text += b" " * (length - len(text))
    made.files[name] = struct.pack("<Q", len(text)) + text + content[8 + length :]


def drop_shards(made, name, rng):
    """From the manifest, all of them perhaps, its sums made right: a bank of fewer images, or of none."""
    content = parsed(made.files.get(INDEX) or b"")
    if isinstance(content, dict) and isinstance(content.get("shards"), list):
        content["shards"] = [entry for entry in content["shards"] if rng.random() < 0.5]
        made.files[INDEX] = dumped(content)
        agree(made)


MUTATIONS = (
    *(change_bytes, change_bytes, change_bytes, change_files, change_files, change_offsets, drop_shards),
    *(change_json, change_json, change_json, change_json),
)


def parsed(content):
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError):
        return None


def dumped(value):
    text = json.dumps(value)
    return text.replace(json.dumps([DEEP]), "[" * 5000 + "]" * 5000).encode()


def places(value, path=()):
    """The way to every value in a JSON value."""
    found = [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        found += places(part, (*path, key))
    return found


def changed(value, rng):
    """The JSON value with one of the values in it replaced, removed, doubled, or exchanged with another."""
    ways = places(value)
    way = ways[rng.integers(len(ways))]
    if not way:
        return odd(rng) if rng.random() < 0.5 else value
    inside = value
    for key in way[:-1]:
        inside = inside[key]
    key, old = way[-1], inside[way[-1]]
    match rng.integers(6):
        case 0:
            del inside[key]
        case 1 if isinstance(inside, list):
            inside.append(old)
        case 1:
            inside[f"{key}2"] = old
        case 2 if isinstance(old, int | float):
            inside[key] = old + int(rng.integers(-3, 4))
        case 3 if isinstance(old, list):
            inside[key] = [old[place] for place in rng.permutation(len(old))]
        case 4:
            other = value
            for step in ways[rng.integers(len(ways))]:
                other = other[step]
            inside[key] = json.loads(json.dumps(other))
        case _:
            inside[key] = odd(rng)
    return value


def odd(rng):
    return [DEEP] if rng.random() < 0.01 else ODD[rng.integers(len(ODD))]


def agree(made):
    """Make the manifest's sizes, checksums and sums those of the files, so that what comes after is put to the test."""
    made.forged = True
    content = parsed(made.files.get(INDEX) or b"")
    try:
        for entry in content["shards"]:
            shard = made.files.get(entry["file"])
            if shard is not None:
                entry["bytes"], entry["xxh3"] = len(shard), xxhash.xxh3_64_hexdigest(shard)
        counts = [entry["class_counts"] for entry in content["shards"]]
        content["class_counts"] = {
            name: sum(count[place] for count in counts) for place, name in enumerate(content["classes"])
        }
    except (KeyError, IndexError, TypeError):
        return
    made.files[INDEX] = dumped(content)


def lay_out(folder, made):
    """Put the files there. New ones, not the old ones overwritten: a bank may still have those mapped."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in made.files.items():
        (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)


def check(folder, original, made):
    """Load it.

    Returns:
        "loaded" or "refused".

    Raises:
        AssertionError: another bank than the one that was saved.
        Exception: whatever is not ours.
    """
    lay_out(folder, made)
    try:
        bank = SyntheticBank.load(folder, verify=made.verify, resident=made.resident)
    except REFUSED as error:
        if str(folder) not in str(error):
            raise AssertionError(f"the message does not say where: {error}") from error
        return "refused"
    repr(bank)
    count = sum(bank.class_counts.values())
    index = bank.labels if bank.labels.ndim == 1 else bank.labels.argmax(dim=1)
    assert len(bank) == len(index) == count
    assert torch.equal(torch.bincount(index, minlength=bank.num_classes), bank.class_count)
    assert bool((index[1:] >= index[:-1]).all())
    assert all(len(column) == count for column in (bank.seeds, bank.source, bank.distance, bank.flags))
    some = torch.arange(count).flip(0)
    assert torch.equal(bank.rows(some), bank.images[some])
    checked = made.verify is not False or not made.touched & set(SHARDS)
    if checked and not made.forged:
        assert original.is_held_by(bank), "other images or labels than were saved"
    return "loaded"


def originals(folder):
    return [Original(folder / kind, soft=kind == "soft") for kind in ("index", "soft")]


def input_number(number, seed, known):
    rng = np.random.default_rng([seed, number])
    original = known[number % len(known)]
    return original, make_input(original, rng)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_change_is_harmless_or_refused(tmp_path, seed):
    known = originals(tmp_path)
    folder = tmp_path / "changed"
    folder.mkdir()
    outcomes = Counter()
    for number in range(500):
        original, made = input_number(number, seed, known)
        try:
            outcomes[check(folder, original, made)] += 1
        except Exception as error:
            pytest.fail(f"input {number} of seed {seed} ({', '.join(made.did)}): {type(error).__name__}: {error}")
    # A fuzzer whose every input is refused at the door tests the door only.
    assert outcomes["loaded"] >= 50
    assert outcomes["refused"] >= 200


def test_unchanged_files_are_the_bank_that_was_saved(tmp_path):
    known = originals(tmp_path)
    folder = tmp_path / "unchanged"
    folder.mkdir()
    for original in known:
        for verify in (None, True, False):
            assert check(folder, original, Input(dict(original.files), verify, None)) == "loaded"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shape": [2**40] * 3},
        {"shape": [2**61] * 5},
        {"labels": "probabilities"},
        {"fills": [{"identity": "a", "first": 0, "total": 10**6}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("resident", [None, True, False])
def test_a_bank_of_no_images_that_says_anything(tmp_path, changes, resident):
    original = originals(tmp_path)[0]
    folder = tmp_path / "empty"
    folder.mkdir()
    content = {**parsed(original.files[INDEX]), "shards": [], **changes}
    made = Input({INDEX: dumped(content)}, None, resident)
    agree(made)
    assert check(folder, original, made) in ("loaded", "refused")


def test_fuzzer_would_see_another_image(tmp_path):
    """Not a bank's images: then the law above is broken, and the check says so."""
    known = originals(tmp_path)
    folder = tmp_path / "forged"
    folder.mkdir()
    files = dict(known[0].files)
    files[SHARDS[1]] = files[SHARDS[1]][:-1] + bytes([files[SHARDS[1]][-1] ^ 1])
    made = Input(files, True, None, touched={SHARDS[1]})
    assert check(folder, known[0], made) == "refused"
    agree(made)
    made.forged = False
    with pytest.raises(AssertionError, match="other images or labels"):
        check(folder, known[0], made)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=2)
    arguments = parser.parse_args()
    outcomes, findings, slowest = Counter(), {}, (0.0, 0)
    with tempfile.TemporaryDirectory() as temporary:
        known = originals(Path(temporary))
        folder = Path(temporary) / "changed"
        folder.mkdir()
        for number in range(arguments.first, arguments.first + arguments.inputs):
            original, made = input_number(number, arguments.seed, known)
            began = time.perf_counter()
            try:
                outcome = check(folder, original, made)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                outcome = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
                findings.setdefault(outcome, (number, made, error))
            outcomes[outcome] += 1
            slowest = max(slowest, (time.perf_counter() - began, number))
    print(f"seed {arguments.seed}: {dict(outcomes)}; slowest: {slowest[0]:.2f} s, input {slowest[1]}")
    for outcome, (number, made, error) in findings.items():
        print(f"{outcome}: input {number}, {', '.join(made.did)}, verify={made.verify}, resident={made.resident}")
        print(f"    {str(error)[:300]}")
    raise SystemExit(bool(findings))


if __name__ == "__main__":
    main()
