"""When does it help? Scores against labels a class, with generators that know a large pool without labels.

    python benchmarks/few_labels.py --data phantom --out results/few_labels_phantom
    python benchmarks/few_labels.py --data liver:liver_ct_256.npz --out results/few_labels_liver
    python benchmarks/few_labels.py --data pneumoniamnist.npz --out results/few_labels_pneumonia

The parts of the data hold no patient in common: a pool whose labels nobody looks at, labels to draw from, for training
and for choosing, and a large test set. A *draw* is a set of labelled images, so many a class, for training and as many
for validation; it is the unit of chance, beside the seed of its trainings. All arms see the same draws.

Stages, each resumable; ``--only`` takes some:

* ``pool``: each generator is trained once on the pool, and a classifier is pre-trained on it without labels;
* ``banks``: for each number of labels and draw each generator is adapted to the labelled images and fills a bank;
* ``runs``: every arm on every draw, with equal optimizer steps and nothing tuned on a draw;
* ``report``: the curves, and tables of differences with their intervals and with what could have been found.

``--processes 2``, or the same command in a second terminal, shares the work.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from few_labels_data import Source, open_source
from few_labels_report import compared, joined, write_report
from table1 import in_several_processes

from genmix_transforms import SyntheticBank
from genmix_transforms.data import PatchDataset, few_labels
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Protocol, Recipe, Results, evaluate, pretrain_classifier
from genmix_transforms.evaluation.bank_making import resized_bank
from genmix_transforms.evaluation.sharing import take_turns
from genmix_transforms.generators import fill_bank
from genmix_transforms.generators.registry import load_generator

LABELS = (5, 10, 25, 50, 100)
PAPER = "paper"
PAPER_TRAIN, PAPER_VALIDATION = (433, 70, 178), (115, 30, 157)
"""The counts of the paper's Table 1, for data of three classes: one more place on the curve."""

BANK = 100
"""Synthetic images of each class."""

STAGES = ("pool", "banks", "runs", "report")
PRETRAINED = "pretrained"
FAMILIES = ("scratch", PRETRAINED)
"""Comparisons of a draw: of networks from random weights, and of one that was pre-trained on the pool."""

ADM_32 = {
    "num_channels": 32, "channel_mult": [1, 2, 2], "num_res_blocks": 1, "attention_resolutions": [8],
    "num_head_channels": 32, "resblock_updown": True, "learn_sigma": False, "class_cond": False,
    "noise_schedule": "cosine", "dropout": 0.0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A generator that knows the pool, and the ways in which it is adapted to labelled images.

    Args:
        kind: of generator.
        pool: settings of its training on the pool.
        network: options of its constructor.
        adapted: by the banks' names, the settings of each way of adapting it.
        sampler: how an ADM draws.
    """

    kind: str
    pool: Mapping[str, Any]
    network: Mapping[str, Any]
    adapted: Mapping[str, Mapping[str, Any]]


def teachers(side: int, *, quick: bool) -> dict[str, Teacher]:
    """The generators, by name; ``quick`` only sees whether everything runs."""
    tiny = {"steps": 2, "batch_size": 4} if quick else {}
    few = {"steps": 2} if quick else {}
    return {
        "dcgan": Teacher(
            kind="dcgan",
            pool={"steps": 12_000, "batch_size": 32, **tiny},
            network={"base_width": 4 if quick else 32},
            adapted={"dcgan": {"steps": 1_000, "batch_size": 16, "learning_rate": 1e-4, **few}},
        ),
        "adm": Teacher(
            kind="adm",
            pool={"steps": 6_000, "batch_size": 16, "learning_rate": 4e-4, **tiny},
            network={"configuration": {"image_size": side, **ADM_32}, "sampler": {"eta": 1.0}},
            adapted={
                "adm": {"preset": "fine-tune", "steps": 400, "batch_size": 16, **few},
                "adm-classes": {"tune": "classes", "steps": 400, "batch_size": 16, **few},
            },
        ),
    }


PLAIN = ("baseline", "classical", "mixup", "balanced-mixup", "repeat", "pretrain-repeat", "genmix-real")
"""Arms without synthetic images."""

OF_EVERY_BANK = ("blend@0.1", "blend@0.25", "blend@0.5", "genmix", "pretrain")
OF_ONE_BANK = (
    "genmix@alpha=1", "genmix-union", "genmix@pairing=balanced", "genmix@pairing=same", "genmix@pairing=other",
    "genmix@pairing=inverse", "genmix-first", "blend-mixup", "blend@keep=0.5", "blend@keep=0.5@keep_by=random",
    "blend@balance=equal", "blend@synthetic_weight=0.8", "blend@aux_norm=true",
)  # fmt: skip
"""What is tried with one bank alone, ``--bank``."""

PROTOCOL = Protocol(steps=400, batch_size=32, validate_every=50)
"""How every classifier is trained; a batch is no larger than the training set."""

WITH_PRETRAINED = ("baseline", "blend@0.25", "genmix", "pretrain")
"""Arms whose classifier was pre-trained on the pool."""


def with_bank(arm: str, bank: str) -> str:
    """An arm's name with that of its bank: ``blend:adm@0.25``."""
    kind, at, options = arm.partition("@")
    return f"{kind}:{bank}{at}{options}"


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Labelled images of one draw.

    Args:
        labels: of each class, or ``paper``.
        number: of the draw.
    """

    labels: int | str
    number: int

    def folder(self, out: Path) -> Path:
        """Where what is made of it is kept."""
        return out / f"labels-{self.labels}" / f"draw-{self.number}"

    def of(self, source: Source) -> tuple[PatchDataset, PatchDataset]:
        """The training and the validation part."""
        if self.labels == PAPER:
            counts = [dict(zip(source.test.classes, each, strict=True)) for each in (PAPER_TRAIN, PAPER_VALIDATION)]
        else:
            counts = [dict.fromkeys(source.test.classes, int(self.labels))] * 2
        parts = zip((source.labelled, source.validation), counts, strict=True)
        train, validation = (few_labels(part, wanted, seed=self.number)[0] for part, wanted in parts)
        return train, validation


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is asked, on which data, and where it is kept."""

    source: Source
    out: Path
    labels: Sequence[int | str]
    draws: int
    bank: str
    banks: Sequence[str]
    protocol: Protocol
    quick: bool = False
    progress: bool = True

    @property
    def teachers(self) -> dict[str, Teacher]:
        """Those whose banks are asked for."""
        known = teachers(self.source.pool.images.shape[-1], quick=self.quick)
        return {name: teacher for name, teacher in known.items() if set(teacher.adapted) & set(self.banks)}

    def every_draw(self) -> list[Draw]:
        """Draw by draw, so that a stopped experiment has every number of labels."""
        return [Draw(labels=labels, number=number) for number in range(self.draws) for labels in self.labels]

    # pool

    def learn_pool(self) -> None:
        """Train each generator on the pool, and pre-train the classifier on it."""
        pool = self.source.pool.without_labels()
        for name in self._taken([*self.teachers, PRETRAINED], "pool"):
            if name == PRETRAINED:
                if not self.weights.exists():
                    steps = {"steps": 2, "batch_size": 8} if self.quick else {}
                    pretrain_classifier(pool, out=self.weights, progress=self.progress, **steps)
                continue
            teacher = self.teachers[name]
            recipe = Recipe(kind=teacher.kind, network=teacher.network)
            at_size = self._for_kind(teacher.kind, pool)
            generator = recipe.untrained(at_size)
            generator.fit(at_size, out=self.pool_run(name), progress=self.progress, **teacher.pool)

    def pool_run(self, name: str) -> Path:
        """Of the generator that was trained on the pool."""
        return self.out / "pool" / name

    @property
    def weights(self) -> Path:
        """Of the classifier that was pre-trained on the pool."""
        return self.out / "pool" / "classifier.safetensors"

    # banks

    def fill_banks(self) -> None:
        """Adapt each generator to each draw, and fill a bank with it."""
        jobs = [
            (draw.labels, draw.number, name, bank)
            for draw in self.every_draw()
            for name, teacher in self.teachers.items()
            for bank in teacher.adapted
            if bank in self.banks
        ]
        for labels, number, name, bank in self._taken(jobs, "banks"):
            self.make_bank(Draw(labels=labels, number=number), name, bank)

    def make_bank(self, draw: Draw, name: str, bank: str) -> SyntheticBank:
        """The bank of a draw; made where it is not there yet."""
        folder = draw.folder(self.out)
        train, _ = draw.of(self.source)
        filled = folder / "banks" / bank
        if not (filled / "bank.index.json").exists():
            teacher, run = self.teachers[name], folder / "runs" / bank
            at_size = self._for_kind(teacher.kind, train)
            generator = Recipe(kind=teacher.kind, weights=self.pool_run(name)).untrained(at_size)
            settings = teacher.adapted[bank]
            generator.fit(at_size, out=run, seed=draw.number, warm_start=True, progress=False, **settings)
            counts = dict.fromkeys(train.classes, 4 if self.quick else BANK)
            fill_bank(load_generator(run), counts=counts, out=filled, seed=draw.number, progress=False)
        return resized_bank(SyntheticBank.load(filled), train.images.shape[-1])

    def _for_kind(self, kind: str, patches: PatchDataset) -> PatchDataset:
        """At a size that the generator draws: a power of two for a DCGAN."""
        side = patches.images.shape[-1]
        power = 1 << (side - 1).bit_length()
        return patches.resized(power) if kind == "dcgan" and side != power else patches

    # runs

    def train_classifiers(self) -> None:
        """Every arm on every draw."""
        for draw in self.every_draw():
            train, validation = draw.of(self.source)
            made = {
                bank: self.make_bank(draw, name, bank)
                for name, teacher in self.teachers.items()
                for bank in teacher.adapted
                if bank in self.banks
            }
            for name, arms, protocol in self.comparisons():
                evaluate(
                    (train, validation, self.source.test),
                    banks=made,
                    arms=arms,
                    seeds=(draw.number,),
                    protocol=replace(protocol, batch_size=min(protocol.batch_size, len(train))),
                    out=draw.folder(self.out) / name,
                    progress=self.progress,
                )

    def comparisons(self) -> Iterator[tuple[str, tuple[str, ...], Protocol]]:
        """The comparisons of each draw: a folder's name, its arms, and how they are trained."""
        every = tuple(with_bank(arm, bank) for bank in self.banks for arm in OF_EVERY_BANK)
        one = tuple(with_bank(arm, self.bank) for arm in OF_ONE_BANK)
        yield "scratch", (*PLAIN, *every, *one), self.protocol
        arms = tuple(arm if arm == "baseline" else with_bank(arm, self.bank) for arm in WITH_PRETRAINED)
        yield PRETRAINED, arms, replace(self.protocol, weights=str(self.weights))

    # report

    def report(self) -> None:
        """Write the curves' numbers, the tables and the figure, of the draws that are finished."""
        found = {}
        for labels in self.labels:
            folders = [Draw(labels=labels, number=number).folder(self.out) for number in range(self.draws)]
            done = [folder for folder in folders if all((folder / name / "results.json").exists() for name in FAMILIES)]
            if done:
                kept = {name: [Results.load(folder / name) for folder in done] for name in FAMILIES}
                found[str(labels)] = compared(joined(kept["scratch"]), joined(kept[PRETRAINED]))
        if not found:
            raise InputError(f"{self.out}: no draw is finished; run the stage 'runs' first")
        write_report(found, self.out, test=self.source.test)
        print((self.out / "curves.md").read_text())

    def _taken(self, items: Sequence[Any], kind: str) -> Iterator[Any]:
        locks = self.out / "locks"
        return take_turns(items, lock=lambda item: locks / f"{kind}-{str(item).translate(_PLAIN_NAME)}.lock")


_PLAIN_NAME = str.maketrans(dict.fromkeys(" ,'()/", "_"))

QUICK = Protocol(steps=4, batch_size=4, validate_every=2)


def label_counts(text: str) -> list[int | str]:
    """``5,10,paper`` as counts."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word != PAPER and not word.isdecimal():
            raise InputError(f"--labels: expected numbers of labels a class or {PAPER!r}, got {word!r}")
    return [word if word == PAPER else int(word) for word in words]


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, help="phantom, liver:CT.npz, or an .npz")
    options.add_argument("--size", type=int, help="side of the patches; left out, at most 32")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--labels", default=",".join(map(str, LABELS)), help=f"a class, or {PAPER}")
    options.add_argument("--draws", type=int, default=10)
    options.add_argument("--banks", default="dcgan,adm,adm-classes", help="ways of making one")
    options.add_argument("--bank", default="adm", help="the one that everything is tried with")
    options.add_argument("--only", default=",".join(STAGES), help="stages")
    options.add_argument("--quick", action="store_true", help="only see whether it runs")
    options.add_argument("--processes", type=int, default=1, help="how many share the work")
    options.add_argument("--no-progress", action="store_true")
    return options


def main() -> None:
    given = parser().parse_args()
    if given.processes > 1:
        sys.exit(in_several_processes(given.processes))
    stages, banks = (text.split(",") for text in (given.only, given.banks))
    for word, words, known in (
        ("stage", stages, STAGES),
        ("bank", [*banks, given.bank], [name for each in teachers(32, quick=True).values() for name in each.adapted]),
    ):
        for unknown in set(words) - set(known):
            raise InputError(f"no {word} {unknown!r}; there are {', '.join(known)}")
    experiment = Experiment(
        source=open_source(given.data, size=given.size, folder=given.out / "data"),
        out=given.out,
        labels=label_counts(given.labels),
        draws=given.draws,
        bank=given.bank,
        banks=banks,
        protocol=QUICK if given.quick else PROTOCOL,
        quick=given.quick,
        progress=not given.no_progress,
    )
    work = {
        "pool": experiment.learn_pool,
        "banks": experiment.fill_banks,
        "runs": experiment.train_classifiers,
        "report": experiment.report,
    }
    for stage in STAGES:
        if stage in stages:
            work[stage]()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"few_labels: {error}")
