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

from few_labels_banks import FACES, LATENT, WAYS, Teacher, teachers
from few_labels_data import PAPER, PAPER_TRAIN, PAPER_VALIDATION, Source, open_source
from few_labels_report import BASELINE, compared, joined, under_one_name, write_report
from few_labels_views import Latent
from table1 import in_several_processes

from genmix_transforms import SyntheticBank
from genmix_transforms.data import PatchDataset, few_labels
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Protocol, Results, choose_recipe, evaluate, preset, pretrain_classifier
from genmix_transforms.evaluation.sharing import take_turns

LABELS = (5, 10, 25, 50, 100)
BANK = 100
"""Synthetic images of each class."""

RECIPE, POOL_RECIPE = "recipe", "pool-recipe"
"""What a draw chooses for itself; and what it chooses if it may also start from the pool's weights."""

STAGES = ("pool", "banks", "runs", RECIPE, POOL_RECIPE, "report")
SCRATCH, PRETRAINED, MORE_ARMS = "scratch", "pretrained", "more"
"""Comparisons of a draw: from random weights, from weights that know the pool, and of more arms and other banks."""


PLAIN = ("baseline", "classical", "mixup", "repeat", "pretrain-repeat")
"""Arms without synthetic images, for every number of labels."""

OF_THE_BANK = ("blend@0.25", "genmix", "pretrain")
"""Arms of one bank, ``--bank``, for every number of labels."""

OF_MORE_BANKS = ("blend@0.25", "genmix", "pretrain")
"""Arms of every other bank, for the numbers of ``--full`` alone, in as many draws as the other numbers have."""

MORE_PLAIN = ("balanced-mixup", "genmix-real")
MORE = (
    "genmix-union", "blend@0.1", "blend@0.5", "genmix@alpha=1", "genmix@pairing=balanced", "genmix@pairing=same",
    "genmix@pairing=other", "genmix@pairing=inverse", "genmix-first", "blend-mixup", "blend@0.25@keep=0.5",
    "blend@0.25@keep=0.5@keep_by=random", "blend@0.25@synthetic_weight=0.5",
    "blend@0.25@aux_norm=true",
)  # fmt: skip
"""More arms of the bank, likewise."""

BALANCING = ("blend@0.25@balance=equal", "genmix@pairing=inverse")
"""More arms of the bank for the paper's counts, whose classes are not equally many."""

PROTOCOL = preset("few-labels")
"""How every classifier is trained; a batch is no larger than the training set."""

WITH_PRETRAINED = ("baseline", "blend@0.25", "genmix", "pretrain")
"""Arms whose classifier was pre-trained on the pool."""


def tested(recipe: str) -> str:
    """The comparison of a draw that tests what it chose: the name of its folder."""
    return f"{recipe}/tested"


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
    """What is asked, on which data, and where it is kept.

    Args:
        source: the data.
        out: a folder for everything.
        labels: numbers of labels.
        draws: of each number.
        full: numbers of labels of which there are ``full_draws`` draws; in ``draws`` of them more is tried.
        bank: the way of making the bank that is tried everywhere.
        banks: all ways; the others are tried for the numbers of ``full``.
        teachers: the generators of those ways, by name.
        protocol: how classifiers are trained.
    """

    source: Source
    out: Path
    labels: Sequence[int | str]
    draws: int
    full: Sequence[int | str]
    full_draws: int
    bank: str
    banks: Sequence[str]
    teachers: Mapping[str, Teacher]
    protocol: Protocol
    quick: bool = False
    progress: bool = True

    def every_draw(self) -> list[Draw]:
        """Draw by draw, so that a stopped experiment has every number of labels."""
        return [
            Draw(labels=labels, number=number)
            for number in range(max(self.draws, self.full_draws))
            for labels in self.labels
            if number < self.draws_of(labels)
        ]

    def draws_of(self, labels: int | str) -> int:
        """How many there are of a number of labels."""
        return self.full_draws if labels in self.full else self.draws

    def banks_of(self, draw: Draw) -> list[str]:
        """The ways that are tried with a draw, the bank's first."""
        others = [bank for bank in self.banks if bank != self.bank]
        return [self.bank, *(others if self._is_full(draw) else [])]

    def _is_full(self, draw: Draw) -> bool:
        """Whether every arm and bank is tried with it."""
        return draw.labels in self.full and draw.number < self.draws

    # pool

    def learn_pool(self) -> None:
        """Train each generator on the pool, and pre-train the classifier on it."""
        pool = self.source.pool.without_labels()
        for name in self._taken([*self.teachers, PRETRAINED], "pool"):
            if name != PRETRAINED:
                self.teachers[name].learn(pool, out=self.out / "pool" / name, progress=self.progress)
            elif not self.weights.exists():
                steps: dict[str, Any] = {"steps": 2, "batch_size": 8} if self.quick else {}
                pretrain_classifier(pool, out=self.weights, progress=self.progress, **steps)

    @property
    def weights(self) -> Path:
        """Of the classifier that was pre-trained on the pool."""
        return self.out / "pool" / "classifier.safetensors"

    # banks

    def fill_banks(self) -> None:
        """Adapt each generator to each draw, and fill a bank with it."""
        jobs = [(draw.labels, draw.number, bank) for draw in self.every_draw() for bank in self.banks_of(draw)]
        for labels, number, bank in self._taken(jobs, "banks"):
            self.make_bank(Draw(labels=labels, number=number), bank)

    def make_bank(self, draw: Draw, bank: str) -> SyntheticBank:
        """The bank of a draw; made where it is not there yet."""
        name = next(name for name, teacher in self.teachers.items() if bank in teacher.ways)
        folder = draw.folder(self.out)
        train, validation = draw.of(self.source)
        return self.teachers[name].bank(
            bank,
            (train, validation, self.source.test),
            judge=self._fitting(replace(self.protocol, weights=str(self.weights)), train),
            pool_run=self.out / "pool" / name,
            run=folder / "runs" / bank,
            out=folder / "banks" / bank,
            per_class=4 if self.quick else BANK,
            seed=draw.number,
        )

    # runs

    def train_classifiers(self) -> None:
        """Every arm on every draw."""
        for draw in self._taken(self.every_draw(), "runs"):
            banks = {bank: self.make_bank(draw, bank) for bank in self.banks_of(draw)}
            for name, arms, protocol in self.comparisons(draw):
                self._evaluate(draw, arms, banks=banks, protocol=protocol, out=draw.folder(self.out) / name)

    def comparisons(self, draw: Draw) -> Iterator[tuple[str, tuple[str, ...], Protocol]]:
        """The comparisons of a draw: a folder's name, its arms, and how they are trained."""
        first, *others = self.banks_of(draw)
        arms = [*PLAIN, *(with_bank(arm, first) for arm in OF_THE_BANK)]
        if draw.labels == PAPER:
            arms += [with_bank(arm, first) for arm in BALANCING]
        yield SCRATCH, tuple(arms), self.protocol
        known = tuple(arm if arm == BASELINE else with_bank(arm, first) for arm in WITH_PRETRAINED)
        yield PRETRAINED, known, replace(self.protocol, weights=str(self.weights))
        if self._is_full(draw):
            more = [*MORE_PLAIN, *(with_bank(arm, first) for arm in MORE)]
            more += [with_bank(arm, bank) for bank in others for arm in OF_MORE_BANKS]
            yield MORE_ARMS, (BASELINE, *more), self.protocol

    def _evaluate(
        self, draw: Draw, arms: Sequence[str], *, banks: Mapping[str, SyntheticBank], protocol: Protocol, out: Path
    ) -> None:
        train, validation = draw.of(self.source)
        used = {name: bank for name, bank in banks.items() if any(f":{name}" in arm for arm in arms)}
        evaluate(
            (train, validation, self.source.test),
            banks=used,
            arms=arms,
            seeds=(draw.number,),
            protocol=self._fitting(protocol, train),
            out=out,
            progress=self.progress,
        )

    def _fitting(self, protocol: Protocol, train: PatchDataset) -> Protocol:
        return replace(protocol, batch_size=min(protocol.batch_size, len(train)))

    # recipe

    def choose_recipes(self) -> None:
        """Let each draw choose its recipe on its own validation images, and test that beside the baseline."""
        self._choose(RECIPE, self.protocol)

    def choose_with_pool(self) -> None:
        """The same with one candidate more: the classifier that knows the pool."""
        self._choose(POOL_RECIPE, replace(self.protocol, pool_weights=str(self.weights)))

    def _choose(self, name: str, protocol: Protocol) -> None:
        for draw in self._taken([draw for draw in self.every_draw() if draw.labels in self.full], name):
            train, validation = draw.of(self.source)
            banks = {self.bank: self.make_bank(draw, self.bank)}
            chosen = choose_recipe(
                (train, validation, self.source.test),
                banks=banks,
                protocol=self._fitting(protocol, train),
                seed=draw.number,
                out=draw.folder(self.out) / name,
                progress=self.progress,
            )
            arms = tuple(dict.fromkeys([BASELINE, chosen.arm]))
            self._evaluate(draw, arms, banks=banks, protocol=protocol, out=draw.folder(self.out) / tested(name))

    # report

    def report(self) -> None:
        """Write the curves' numbers, the tables and the figure, of the draws that are finished."""
        found = {}
        for labels in self.labels:
            draws = [Draw(labels=labels, number=number) for number in range(self.draws_of(labels))]
            families = [SCRATCH, PRETRAINED]
            if labels in self.full:
                families += [tested(RECIPE), tested(POOL_RECIPE), MORE_ARMS]
            kept = {name: self._finished(draws, name) for name in families}
            if kept[SCRATCH] and kept[PRETRAINED]:
                scratch, pretrained, *more = (joined(results) for results in kept.values() if results)
                found[str(labels)] = compared(scratch, pretrained, *more, bank=self.bank)
        if not found:
            raise InputError(f"{self.out}: no draw is finished; run the stages 'runs' and 'recipe' first")
        write_report(found, self.out, test=self.source.test)
        print((self.out / "curves.md").read_text())

    def _finished(self, draws: Sequence[Draw], name: str) -> list[Results]:
        folders = [draw.folder(self.out) / name for draw in draws]
        found = [Results.load(folder) for folder in folders if (folder / "results.json").exists()]
        recipe = next((recipe for recipe in (RECIPE, POOL_RECIPE) if name == tested(recipe)), None)
        return found if recipe is None else [under_one_name(results, recipe) for results in found]

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
    options.add_argument(
        "--pool", type=Path, help="an .npz of other images for the pool, instead of a part of the data"
    )
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--labels", default=",".join(map(str, LABELS)), help=f"a class, or {PAPER}")
    options.add_argument("--draws", type=int, default=10)
    options.add_argument(
        "--full", default="25", help="numbers of labels for which the recipe, every arm and bank is tried"
    )
    options.add_argument("--full-draws", type=int, default=20)
    options.add_argument("--banks", default=",".join(WAYS), help=f"ways of making one; also {FACES} and {LATENT}")
    options.add_argument("--bank", default="dcgan", help="the one that is tried everywhere")
    options.add_argument("--faces", type=Path, help="a converted DCGAN of 64 x 64 color images, for the way 'faces'")
    options.add_argument("--taef2", type=Path, help="a folder with TAEF2's weights, for the way 'latent'")
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
    source = open_source(given.data, size=given.size, folder=given.out / "data", pool=given.pool)
    latent = given.taef2 and Latent.load(given.taef2, like=source.pool, kept=given.out / "data" / "latents.safetensors")
    known = teachers(source.pool.images.shape[-1], quick=given.quick, faces=given.faces, latent=latent)
    ways = [way for teacher in known.values() for way in teacher.ways]
    for word, words, among in (("stage", stages, STAGES), ("bank", [*banks, given.bank], ways)):
        for unknown in set(words) - set(among):
            raise InputError(f"no {word} {unknown!r}; there are {', '.join(among)}")
    labels = label_counts(given.labels)
    experiment = Experiment(
        source=source,
        out=given.out,
        labels=labels,
        draws=given.draws,
        full=label_counts(given.full),
        full_draws=given.full_draws,
        bank=given.bank,
        banks=banks,
        teachers={name: teacher for name, teacher in known.items() if {given.bank, *banks} & set(teacher.ways)},
        protocol=QUICK if given.quick else PROTOCOL,
        quick=given.quick,
        progress=not given.no_progress,
    )
    work = {
        "pool": experiment.learn_pool,
        "banks": experiment.fill_banks,
        "runs": experiment.train_classifiers,
        RECIPE: experiment.choose_recipes,
        POOL_RECIPE: experiment.choose_with_pool,
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
