"""The data of a table: which options say it, and its parts. One place for table1.py and the scripts beside it."""

import argparse
from collections.abc import Collection

from genmix_transforms.data import PatchDataset, open_dataset
from genmix_transforms.evaluation.leakage import Splits

LIVER = "liver:"
LARGEST: dict[str, int | None] = {"small": 64, "scratch": 64, "trial": 16}
"""The most pixels a side that a preset is sized for; the others take patches as they are."""


def add_data_options(options: argparse.ArgumentParser, *, presets: Collection[str], preset: str = "small") -> None:
    """The options that choose patches and how they are split."""
    options.add_argument("--data", required=True, help="phantom, liver:CT.npz, an .npz, a .csv or a folder")
    options.add_argument("--preset", choices=list(presets), default=preset)
    options.add_argument("--size", type=int, help="side of the patches; left out, the source's, at most the preset's")
    options.add_argument("--group-key", help="the array or column that names each patch's patient")
    options.add_argument("--folds", type=int, default=1, help="1: one split, the source's own where it has one")
    options.add_argument("--split-seed", type=int, default=0)


def open_data(text: str, *, size: int | None, largest: int | None, seed: int, group_key: str | None) -> PatchDataset:
    """Patches by name or path: ``phantom``, ``liver:CT.npz``, or anything that ``open_dataset`` reads."""
    if text.startswith(LIVER):
        from genmix_transforms.data.liver_simulator import LiverLesionSimulator

        patches: PatchDataset = LiverLesionSimulator(text.removeprefix(LIVER), seed=seed).dataset()
        if size is not None:
            patches = patches.resized(size)
    else:
        patches = open_dataset(text, size=size, group_key=group_key)
    side = max(patches.images.shape[-2:])
    return patches.resized(largest) if size is None and largest is not None and side > largest else patches


def given_patches(given: argparse.Namespace) -> PatchDataset:
    """The patches that the options choose."""
    return open_data(
        given.data,
        size=given.size,
        largest=LARGEST.get(given.preset),
        seed=given.split_seed,
        group_key=given.group_key,
    )


def given_folds(given: argparse.Namespace, patches: PatchDataset) -> tuple[Splits, ...]:
    """Train, validation and test of each fold; of one, the source's own split where it has one."""
    if given.folds > 1:
        return tuple(patches.folds(given.folds, seed=given.split_seed))
    return (patches.split(seed=given.split_seed),)
