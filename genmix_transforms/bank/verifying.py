"""Whether a bank's files are those that were written: the names of those that are not."""

import hashlib
from dataclasses import replace
from pathlib import Path

import xxhash

from genmix_transforms.bank.manifest import Manifest, is_shard_name, read_manifest, write_manifest
from genmix_transforms.bank.shards import Shard
from genmix_transforms.bank.writer import only_writer
from genmix_transforms.errors import CorruptFileError
from genmix_transforms.files.progress import progress_bar


def verify_bank(folder: str | Path, *, progress: bool = False) -> Manifest:
    """Read every shard of a bank, and hold it to the manifest: names, sizes, headers, labels and checksums.

    Against damage (xxh3, some gigabytes a second), and where the manifest has sha256 sums, against forgery too.

    Args:
        folder: of the bank.
        progress: show a bar.

    Returns:
        The manifest, whose every word is true.

    Raises:
        InputError: no bank.
        CorruptFileError: names every shard that is missing, changed, or not the manifest's.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    faults = []
    for entry in progress_bar(manifest.shards, desc="verifying", unit="shard", disable=not progress):
        try:
            shard = Shard(folder, entry, manifest)
            source, distance = shard.column("source"), shard.column("distance")
            if shard.xxh3() != entry.xxh3 or (entry.sha256 and file_hash(folder / entry.file) != entry.sha256):
                faults.append(f"{entry.file} (not the bytes that were written)")
            elif source.min() < 0 or source.max() >= len(manifest.sources):
                faults.append(f"{entry.file} (of a source that the manifest does not have)")
            elif bool((distance < 0).any()):
                faults.append(f"{entry.file} (with distances below zero)")
            elif (int(shard.images.min()), int(shard.images.max())) != entry.pixel_range:
                faults.append(
                    f"{entry.file} (its pixels are not from {entry.pixel_range[0]} to {entry.pixel_range[1]})"
                )
        except CorruptFileError as error:
            faults.append(str(error).removeprefix(f"{folder}/"))
    named = {entry.file for entry in manifest.shards}
    to_come = {number for fill in manifest.fills for number in fill.numbers}
    extra = sorted(file.name for file in folder.iterdir() if is_shard_name(file.name) and file.name not in named)
    if extra and not to_come:
        faults.append(f"{', '.join(extra)} (not in the manifest: a killed writer's, or somebody else's)")
    if faults:
        raise CorruptFileError(f"{folder}: {'; '.join(faults)}. Fill the bank again, or take it from its copy")
    return manifest


def seal(folder: str | Path) -> Manifest:
    """Verify a bank, and write sha256 sums of its shards into its manifest, as what is published should have.

    Raises:
        CorruptFileError: the bank is not whole.
    """
    folder = Path(folder)
    with only_writer(folder):
        manifest = verify_bank(folder)
        if all(entry.sha256 for entry in manifest.shards):
            return manifest
        shards = tuple(replace(entry, sha256=file_hash(folder / entry.file)) for entry in manifest.shards)
        manifest = replace(manifest, shards=shards, generation=manifest.generation + 1)
        write_manifest(folder, manifest)
        return manifest


def fast_hash(path: Path) -> str:
    """xxh3 (64 bits) of a file."""
    digest = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
