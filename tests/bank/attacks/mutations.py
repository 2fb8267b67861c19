"""Random changes to a bank's files: bytes, whole files, and what stands in their JSON."""

import json
import struct
from dataclasses import dataclass, field

import xxhash

from genmix_transforms.bank.manifest import INDEX, shard_name

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
