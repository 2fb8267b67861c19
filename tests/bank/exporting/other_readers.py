"""Exports as other readers than ours see them: Pillow, tarfile, json."""

import io
import tarfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from genmix_transforms.bank.exporting import export_parquet, export_png, export_webdataset

KINDS = [((1, 5, 4), torch.uint8), ((1, 5, 4), torch.uint16), ((3, 5, 4), torch.uint8)]
_NEEDS_PYARROW = pytest.mark.skipif(find_spec("pyarrow") is None, reason="Parquet needs the datasets extra")
EXPORTS = [export_png, export_webdataset, pytest.param(export_parquet, marks=_NEEDS_PYARROW)]


def decoded(content):
    """An image of the bank from a PNG file, by Pillow alone."""
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image)
    pixels = pixels.astype(np.uint16) if image.mode.startswith("I") else pixels
    return torch.from_numpy(pixels[None].copy() if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0).copy())


def facts_of(bank, row):
    distance = float(bank.distance[row])
    return {
        "seed": int(bank.seeds[row]),
        "source": int(bank.source[row]),
        "distance": None if np.isnan(distance) else np.float32(distance),
        "flags": int(bank.flags[row]),
    }


def as_float32(facts):
    """Facts as they were read, with the distance as the float32 it is."""
    distance = facts["distance"]
    return {**facts, "distance": None if distance in (None, "") else np.float32(distance)}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tar_samples(folder):
    """Names without suffix -> {suffix: bytes}, in the order of the files, neighbours only."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as shard:
            previous = None
            for member in shard:
                key, _, suffix = member.name.partition(".")
                assert key == previous or key not in found
                found.setdefault(key, {})[suffix] = shard.extractfile(member).read()
                previous = key
    return found
