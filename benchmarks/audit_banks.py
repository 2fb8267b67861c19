"""Make a small bank with each kind of generator from the same 75 phantom lesions, and audit it.

    python benchmarks/audit_banks.py --out runs/audited
    python benchmarks/audit_banks.py --out runs/audited --only faces --faces runs/faces

``reports/NAME/`` gets the report of each bank, and the table of docs/results/audits.md is printed. The generators are
small, and most are trained too briefly on purpose: a bank with faults shows what an audit finds. Run the same command
again to continue: finished generators, banks and reports are kept.

``--faces`` is a published DCGAN of faces, as ``genmix convert dcgan`` writes it. The base of Textual Inversion has
random weights, so its row shows only that such a bank can be audited.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from few_labels_banks import FACES, teachers
from few_labels_data import POOL
from ldm_shapes import TINY, save_shapes

from genmix_transforms import SyntheticBank
from genmix_transforms.data import LesionPhantom, PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Protocol, preset, pretrain_classifier
from genmix_transforms.evaluation.audit import AuditSettings, audit, save_audit
from genmix_transforms.evaluation.bank_making import Recipe, resized_bank
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.generators import fill_bank

SIDE, PER_CLASS = 32, 100
FEWER_PER_CLASS = 40
"""Of the generators that see the 75 images alone."""

CALIBRATION = 400
"""Real images that set the threshold, of those that a generator has seen: at most 75, or 5,075 with the pool."""

FEW = {"train": (25, 25, 25), "val": (25, 25, 25), "test": (100, 100, 100)}

ALONE: dict[str, Recipe] = {
    "dcgan-without-augmentation": Recipe(
        kind="dcgan", network={"base_width": 32}, training={"steps": 1_200, "batch_size": 25, "augment": ()}
    ),
    "stylegan": Recipe(
        kind="stylegan", network={"fmap_base": 256, "fmap_max": 32}, training={"steps": 300, "batch_size": 16}
    ),
    "adm": Recipe(
        kind="adm",
        network={
            "configuration": {
                "image_size": SIDE, "num_channels": 64, "channel_mult": [1, 2, 2], "num_res_blocks": 1,
                "attention_resolutions": [8], "num_head_channels": 64, "resblock_updown": True, "learn_sigma": False,
                "noise_schedule": "cosine", "dropout": 0.0, "class_cond": True,
            },
            "sampler": {"steps": 25, "eta": 1.0},
        },
        training={"steps": 1_250, "batch_size": 16, "learning_rate": 2e-4, "ema_decay": 0.999},
    ),
    "textual-inversion": Recipe(
        kind="textual-inversion", network={"vectors": 2}, training={"steps": 60, "batch_size": 8}, size=64
    ),
}  # fmt: skip
"""Generators that see the 75 images alone."""

FROM_POOL = ("dcgan", "dcgan-soft", "dcgan-labelled")
"""Ways of few_labels.py: pre-trained on the pool and fine-tuned, the same with mixed labels, and the pool's images with
labels by a classifier."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="a folder for generators, banks and reports")
    options.add_argument("--only", help="names of banks, separated by commas (all)")
    options.add_argument("--faces", type=Path, help="a converted DCGAN of 64 x 64 color images, for the bank 'faces'")
    options.add_argument("--quick", action="store_true", help="2 steps each: only to see whether everything runs")
    given = options.parse_args()
    banks = Banks(given.out, faces=given.faces, quick=given.quick)
    names = given.only.split(",") if given.only else list(banks.makers)
    if unknown := sorted(set(names) - set(banks.makers)):
        raise SystemExit(f"--only: no bank {', '.join(unknown)}; there are {', '.join(banks.makers)}")
    settings = AuditSettings(draws=3 if given.quick else 30)
    rows = []
    for name in names:
        folder = given.out / "reports" / name
        try:
            if not (folder / "report.html").exists():
                pool = banks.pool if name in FROM_POOL else None
                # What others trained says nothing of the images that it has seen.
                asked = replace(settings, any_training_set=name == FACES, calibration=CALIBRATION)
                found = audit(banks.makers[name](), banks.splits, pool=pool, settings=asked, progress=False)
                save_audit(found, folder)
            rows.append(row(name, json.loads((folder / "audit.json").read_text())))
        except InputError as error:  # a classifier may give all images of a bank one label
            rows.append(f"| {name} | {error} |")
        print(rows[-1], flush=True)
    print("\n" + "\n".join([*HEADER, *rows]))


class Banks:
    """What is audited, made when it is asked for.

    Args:
        out: a folder for all that is trained.
        faces: a folder with a published DCGAN; None: without that bank.
        quick: 2 steps each.
    """

    def __init__(self, out: Path, *, faces: Path | None, quick: bool) -> None:
        self.out, self.quick = out, quick
        self.splits: Splits = LesionPhantom(size=SIDE, **FEW).dataset().split()  # type: ignore[arg-type]
        known = teachers(SIDE, quick=quick, faces=faces)
        self.makers: Mapping[str, Callable[[], SyntheticBank]] = {
            **{name: self._taught(known["dcgan"], name, pool=True) for name in FROM_POOL},
            **({FACES: self._taught(known[FACES], FACES, pool=False)} if FACES in known else {}),
            **{name: self._alone(name) for name in ALONE},
        }

    def _taught(self, teacher: Any, name: str, *, pool: bool) -> Callable[[], SyntheticBank]:
        def make() -> SyntheticBank:
            pool_run = self.out / "pool"
            if pool:
                teacher.learn(self.pool, out=pool_run, progress=False)
            made: SyntheticBank = teacher.bank(
                name,
                self.splits,
                judge=self._judge() if teacher.ways[name].labelled else Protocol(),
                pool_run=pool_run,
                run=self.out / "runs" / name,
                out=self.out / "banks" / name,
                per_class=12 if self.quick else PER_CLASS,
                seed=0,
            )
            return made

        return make

    def _alone(self, name: str) -> Callable[[], SyntheticBank]:
        def make() -> SyntheticBank:
            recipe, train = ALONE[name], self.splits[0]
            if recipe.kind == "textual-inversion":
                recipe = recipe.starting_from(self._base())
            patches = train if recipe.size is None else train.resized(recipe.size)
            training = {**recipe.training, **({"steps": 2, "batch_size": 4} if self.quick else {})}
            generator = recipe.untrained(patches)
            generator.fit(patches, out=self.out / "runs" / name, progress=False, **training)
            counts = dict.fromkeys(train.classes, 12 if self.quick else FEWER_PER_CLASS)
            return resized_bank(
                fill_bank(generator, counts=counts, out=self.out / "banks" / name, progress=False), SIDE
            )

        return make

    @cached_property
    def pool(self) -> PatchDataset:
        """Other patients: of another seed, without labels."""
        nothing = (0, 0, 0)
        count = (20, 20, 20) if self.quick else POOL
        return LesionPhantom(size=SIDE, seed=1, train=count, val=nothing, test=nothing).dataset().without_labels()

    def _judge(self) -> Protocol:
        """A classifier that was pre-trained on the pool."""
        weights = self.out / "classifier.safetensors"
        few = preset("few-labels")
        if not weights.exists():
            steps: dict[str, Any] = {"steps": 2, "batch_size": 8} if self.quick else {}
            pretrain_classifier(self.pool, out=weights, progress=False, **steps)
        return replace(few, weights=str(weights))

    def _base(self) -> Path:
        folder = self.out / "base"
        return folder if (folder / "model_index.json").exists() else save_shapes(TINY, folder)


HEADER = (
    "| bank | images | near copies (of 300 unseen real ones) | doubles | KID x 1000 | precision | coverage | "
    "Vendi score | own label is the most likely | train on synthetic, test on real | verdict |",
    "| --- |" + " ---: |" * 9 + " --- |",
)


def row(name: str, found: Mapping[str, Any]) -> str:
    """A row of the table from ``audit.json``."""
    copies, quality = found["copies"], found["quality"]
    useful = next(one for one in quality["usefulness"]["overall"] if one["name"].startswith("train on synthetic"))
    own = next(one for one in quality["labels"]["overall"] if one["name"].startswith("own label"))
    cells = [
        name,
        str(found["bank"]["images"]),
        f"{copies['near_copies']} ({found['flagged_of_unseen_patients']['flagged']})",
        str(copies["duplicates"]),
        measured(quality["overall"]["KID x 1000"], digits=0),
        *(measured(quality["overall"][key], digits=digits) for key, digits in NUMBERS.items()),
        f"{own['value']:.2f}",
        measured(useful, digits=2),
        found["verdict"]["kind"],
    ]
    return f"| {' | '.join(cells)} |"


NUMBERS = {"precision": 2, "coverage": 2, "Vendi score": 1}


def measured(number: Mapping[str, Any], *, digits: int) -> str:
    value, low, high = (f"{number[key]:.{digits}f}" for key in ("value", "low", "high"))
    return value if low == value == high else f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
