"""A saved bank with anything at all done to its files loads unharmed, or is refused in our own words.

More inputs than a test takes, by hand: ``python -m tests.bank.attacks.fuzz --inputs 100000``.
"""

import argparse
import shutil
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.manifest import INDEX, Fill, read_manifest, write_manifest
from genmix_transforms.bank.writing import BankWriter
from genmix_transforms.errors import CorruptFileError, InputError

from .mutations import SHARDS, make_input

COUNT, SHAPE, CLASSES = 6, (1, 4, 4), ("cyst", "hémangiome")
REFUSED = (CorruptFileError, InputError)  # MissingPathError is an InputError


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
