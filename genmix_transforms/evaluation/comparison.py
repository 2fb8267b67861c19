"""The comparison: every arm with every seed on every fold; each run is stored as soon as it is done."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arm_names import arm_name
from genmix_transforms.evaluation.arms import (
    DEFAULT_ARMS,
    TUNING_SEED,
    Setting,
    arm_kind,
    as_if_equally_sure,
    asks_confidence,
    choose,
    order_arms,
    split_arm_name,
    trial_values,
    tuned_option,
    with_recipe,
    with_value,
)
from genmix_transforms.evaluation.checks import (
    Fold,
    check_folds,
    check_seeds,
    doubts_of_folds,
    few_seeds,
    name_banks,
    prepare,
)
from genmix_transforms.evaluation.confidence import JUDGE, measure_confidence, remembered, train_judge
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.provenance import (
    content_hash,
    describe_banks,
    describe_data,
    describe_protocol,
    describe_training,
    versions,
)
from genmix_transforms.evaluation.recipe_choice import ChosenRecipe
from genmix_transforms.evaluation.results import Results
from genmix_transforms.evaluation.runs import (
    Run,
    RunCache,
    as_prediction,
    finished_name,
    read_finished,
    run_key,
    write_finished,
)
from genmix_transforms.evaluation.sharing import take_turns
from genmix_transforms.evaluation.training import train_and_test, train_network
from genmix_transforms.files.checks import check_output_folder
from genmix_transforms.files.progress import progress_bar
from genmix_transforms.generators.estimate import duration_text
from genmix_transforms.generators.processes import own_device

_RUNS, _TRIALS, _CONFIDENCE, _LOCKS = "runs", "trials", "confidence", "locks"

T = TypeVar("T")


def evaluate(
    splits: Splits,
    *,
    bank: SyntheticBank | None = None,
    banks: Mapping[str, SyntheticBank] | None = None,
    arms: Sequence[str] = DEFAULT_ARMS,
    seeds: int | Sequence[int] = 5,
    protocol: Protocol | None = None,
    missing: Mapping[str, str] | None = None,
    recipe: ChosenRecipe | None = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Results:
    """Compare classifiers trained with and without synthetic images.

    Every arm takes the same number of optimizer steps at the same batch size. For each seed, it starts from the same
    weights and sees the real images in the same order. The test set is used only for the final score.

    Args:
        splits: train, validation and test, as ``patches.split(seed=0)`` returns them.
        bank: a bank of synthetic images, for the arms that use one. Its labels are mapped by class name.
        banks: several banks, by name. The arms are then called "blend:NAME", "genmix:NAME" and so on.
        arms: names from :data:`genmix_transforms.evaluation.ARMS`, optionally with options: "blend@0.25",
            "genmix@pairing=same". With ``banks``, an arm that needs a bank and names none is run with each bank.
        seeds: the number of seeds, which are then 0 to ``seeds`` - 1, or the seeds themselves. Differences as in the
            paper need at least 5.
        protocol: how to train; None: the defaults of :class:`Protocol`.
        missing: banks that could not be made, by name, with the reasons; their arms are shown empty in the table, with
            the reason.
        recipe: a result of :func:`genmix_transforms.evaluation.choose_recipe` for these splits. Its arm is added to
            ``arms`` if needed, and the results say what was chosen and why.
        out: a folder for the results (see :meth:`Results.save`) and, in ``runs/``, each finished run: the same call
            again goes on where it was stopped, and a second process with the same call shares the work. A run whose
            data, bank, options or versions have changed is run again. None: keep nothing.
        device: None: the GPU where there is one.
        progress: show a bar.

    Returns:
        The scores of every run, and their means, intervals and differences over the seeds.

    Raises:
        InputError: anything that cannot work, before the first run; a bank whose generator was trained on test images.

    Warns:
        UserWarning: doubts about the comparison, such as a bank whose generator was trained on images other than
            ``train`` (the results repeat it).

    Source: Lee, Lee, Hong (arXiv 2405.20650), section 3 and Table 1.

    Example:
        >>> from genmix_transforms.data import PatchDataset
        >>> pixels = torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8)
        >>> patches = PatchDataset(images=pixels, labels=torch.arange(60) % 2, classes=("cyst", "metastasis"))
        >>> quick = Protocol(steps=3)
        >>> results = evaluate(patches.split(), arms=("baseline", "mixup"), seeds=2, protocol=quick, progress=False)
        >>> len(results.runs), results.arms
        (4, ('baseline', 'mixup'))
    """
    return evaluate_folds(
        [Fold(splits=splits, banks=name_banks(bank, banks))],
        arms=arms,
        seeds=seeds,
        protocol=protocol,
        missing=missing,
        recipe=recipe,
        out=out,
        device=device,
        progress=progress,
    )


def evaluate_folds(
    folds: Sequence[Fold],
    *,
    arms: Sequence[str] = DEFAULT_ARMS,
    seeds: int | Sequence[int] = 5,
    protocol: Protocol | None = None,
    missing: Mapping[str, str] | None = None,
    foreign_banks: bool = False,
    recipe: ChosenRecipe | None = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Results:
    """Compare classifiers by cross-validation: every image is tested once with each seed.

    The scores of a seed are computed from its predictions for all folds together.

    Args:
        folds: folds from :meth:`genmix_transforms.data.PatchDataset.folds`, each with its banks. A generator must not
            have seen the test images of its fold, so every fold needs its own
            (:func:`genmix_transforms.evaluation.bank_making.make_banks` trains them).
        arms: see :func:`evaluate`.
        seeds: of each arm on each fold: how many, or which.
        protocol: how to train.
        missing: banks that could not be made, by name, and why.
        foreign_banks: allow banks whose generator was not trained on the fold's training part, even on test images; the
            results say so.
        recipe: see :func:`evaluate`; only with a single fold.
        out: a folder for the results.
        device: None: the GPU where there is one.
        progress: show a bar.

    Raises:
        InputError: anything that cannot work, before the first run; a bank whose generator was trained on images that
            its fold tests; with several folds also groups that two parts of a fold share.

    Example:
        >>> from genmix_transforms.data import PatchDataset
        >>> pixels = torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8)
        >>> patches = PatchDataset(images=pixels, labels=torch.arange(60) % 2, classes=("cyst", "metastasis"))
        >>> folds = [Fold(splits=splits) for splits in patches.folds(3)]
        >>> results = evaluate_folds(folds, arms=("baseline",), seeds=1, protocol=Protocol(steps=3), progress=False)
        >>> len(results.runs), results.outcomes["baseline"].predictions.shape
        (3, (1, 60))
    """
    row = ""
    if recipe is not None:
        if len(folds) > 1:
            raise InputError(f"a recipe is chosen for one split, got {len(folds)} folds; compare without one")
        arms, row = with_recipe(arms, recipe.arm, [*folds[0].banks, *(missing or {})], protocol or Protocol())
    plan = Plan.of(
        folds,
        arms=arms,
        seeds=seeds,
        protocol=protocol or Protocol(),
        missing=missing,
        foreign_banks=foreign_banks,
        out=out,
        device=device,
    )
    for doubt in plan.doubts:
        warnings.warn(doubt, stacklevel=3 if len(folds) == 1 else 2)
    count = len(plan.trials()) + len(plan.jobs())
    with progress_bar(total=count, desc="evaluating", unit="run", disable=not progress) as bar:
        runs = plan.run(plan.tune(bar), bar)
    order, settings = plan.order, plan.settings
    results = Results(
        classes=folds[0].splits[0].classes,
        runs=tuple(sorted(runs, key=lambda run: (order.index(run.arm), run.fold, run.seed))),
        labels=tuple(tuple(map(as_prediction, fold.splits[2].label_rows.tolist())) for fold in folds),
        groups=_groups(folds),
        protocol=describe_protocol(settings[0].protocol),
        data=describe_data([fold.splits for fold in folds], settings[0]),
        missing=plan.empty,
        recipe=None if recipe is None else {"row": row, **recipe.to_dict()},
        order=order,
        warnings=plan.doubts,
        versions=versions(plan.device),
        **describe_banks(plan.arms, folds, settings),
    )
    if plan.folder is not None:
        results.save(plan.folder)
    return results


def _groups(folds: Sequence[Fold]) -> tuple[tuple[int, ...], ...]:
    groups = [fold.splits[2].groups for fold in folds]
    return tuple(tuple(group.tolist()) for group in groups if group is not None) if None not in groups else ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison that has been checked: all trainings of it, and where the finished ones are.

    Args:
        folds: with their banks.
        settings: of each fold, what its arms are built from.
        order: all arms, in the order of the table.
        empty: those of them that stay empty, with the reason.
        seeds: of each arm.
        doubts: what does not stop it but belongs beside its results.
        device: where to train.
        folder: of the results; None: nothing is kept.
    """

    folds: Sequence[Fold]
    settings: Sequence[Setting]
    order: tuple[str, ...]
    empty: Mapping[str, str]
    seeds: tuple[int, ...]
    doubts: tuple[str, ...]
    device: torch.device
    folder: Path | None = None
    _known: dict[tuple[int, str], Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        folds: Sequence[Fold],
        *,
        arms: Sequence[str],
        seeds: int | Sequence[int],
        protocol: Protocol,
        missing: Mapping[str, str] | None = None,
        foreign_banks: bool = False,
        out: str | Path | None = None,
        device: str | torch.device | None = None,
    ) -> "Plan":
        """Check everything that :func:`evaluate_folds` is given; its arguments are the same.

        Raises:
            InputError: anything that would fail later.
        """
        chosen_seeds = check_seeds(seeds)
        where = own_device(device)
        folder = None if out is None else Path(out)
        if folder is not None:
            for path in (folder, *(folder / name for name in (_RUNS, _TRIALS, _CONFIDENCE, _LOCKS))):
                check_output_folder(path)
        check_folds(folds, foreign_banks=foreign_banks)
        order, empty = order_arms(arms, folds[0].banks, missing or {}, protocol)
        present = tuple(arm for arm in order if arm not in empty)
        settings = [prepare(present, fold.splits, fold.banks, protocol, device=where) for fold in folds]
        return cls(
            folds=folds,
            settings=settings,
            order=order,
            empty=empty,
            seeds=chosen_seeds,
            doubts=(*doubts_of_folds(present, folds, settings), *few_seeds(len(chosen_seeds))),
            device=where,
            folder=folder,
        )

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that are trained."""
        return tuple(arm for arm in self.order if arm not in self.empty)

    def trials(self) -> list[tuple[int, str, float]]:
        """Fold, arm and value of every trial of the tuning."""
        count = self.settings[0].protocol.tune
        return [
            (number, arm, value)
            for number in range(len(self.folds))
            for arm in self.arms
            for value in trial_values(arm, count)
        ]

    def jobs(self) -> list[tuple[int, int, str]]:
        """Seed, fold and arm of every run; seed by seed, so that a comparison stopped half way has all arms."""
        return [(seed, number, arm) for seed in self.seeds for number in range(len(self.folds)) for arm in self.arms]

    def estimate(self) -> str:
        """How many trainings there are, and about how long they take here: a few steps of every arm are timed."""
        splits = self.folds[0].splits
        whole = self.settings[0].protocol.for_training_set(len(splits[0])).steps
        seconds = 0.0
        for arm in self.arms:
            times = []
            for steps in (1, 3):
                protocol = replace(self.settings[0].protocol, epochs=None, steps=steps, patience=None, tune=0)
                started = time.perf_counter()
                setting = replace(as_if_equally_sure(self.settings[0]), protocol=protocol)
                train_network(arm, splits, setting, 0, device=self.device)
                times.append(time.perf_counter() - started)
            seconds += times[0] + (whole - 1) * max(0.0, times[1] - times[0]) / 2
        count = len(self.trials()) + len(self.jobs())
        return (
            f"{count} trainings of {whole:,} steps, {len(self.trials())} of them to tune: about "
            f"{duration_text(seconds / len(self.arms) * count)} here"
        )

    def tune(self, bar: Any) -> dict[tuple[int, str], float | None]:
        """The value of each arm's option on each fold, by fold and arm; None where nothing is tuned."""
        scores: dict[tuple[int, str], dict[float, float]] = {}
        for number, arm, value in self._taken(self.trials(), "trial"):
            bar.set_postfix_str(f"tuning {arm}, {tuned_option(arm)[0]} {value:g}, fold {number}")
            setting = self._setting(number, arm, value)
            key = run_key(self._dependencies(arm, TUNING_SEED, number, setting.protocol))
            kept = None if self.folder is None else self.folder / _TRIALS / finished_name(arm, number, f"{value:g}")
            score = read_finished(kept, lambda found: float(found["validation_macro_f1"]), key=key) if kept else None
            if score is None:
                setting = self._with_confidence(setting, number, arm)
                trained = train_network(arm, self.folds[number].splits, setting, TUNING_SEED, device=self.device)
                score = trained.validation_macro_f1
                if kept:
                    found = {"arm": arm, "fold": number, "value": value, "validation_macro_f1": score}
                    write_finished(kept, found, key=key)
            scores.setdefault((number, arm), {})[value] = score
            bar.update()
        return {
            (number, arm): choose(scores[number, arm]) if scores else None
            for number in range(len(self.folds))
            for arm in self.arms
        }

    def run(self, knobs: Mapping[tuple[int, str], float | None], bar: Any) -> list[Run]:
        """Every run, from the cache or from a training."""
        cache = None if self.folder is None else RunCache(self.folder / _RUNS)
        runs = []
        for seed, number, arm in self._taken(self.jobs(), "run"):
            bar.set_postfix_str(f"{arm}, seed {seed}, fold {number}")
            knob = knobs[number, arm]
            setting = self._setting(number, arm, knob)
            key = run_key(self._dependencies(arm, seed, number, setting.protocol))
            run = cache.get(arm, seed, fold=number, key=key) if cache else None
            if run is None:
                splits, setting = self.folds[number].splits, self._with_confidence(setting, number, arm)
                run = train_and_test(arm, splits, setting, seed, device=self.device, fold=number, knob=knob)
                if cache:
                    cache.put(run, key=key)
            # A run without tuning that had the same value by itself is the same run.
            runs.append(replace(run, knob=knob))
            bar.update()
        return runs

    def _taken(self, items: Iterable[T], kind: str) -> Iterator[T]:
        """The items, each while no other process is at it."""
        if self.folder is None:
            return iter(items)
        locks = self.folder / _LOCKS
        return take_turns(items, lock=lambda item: locks / f"{run_key({kind: list(item)})[:32]}.lock")  # type: ignore[call-overload]

    def _setting(self, number: int, arm: str, value: float | None) -> Setting:
        setting = self.settings[number]
        return replace(setting, protocol=with_value(setting.protocol, arm, value))

    def _dependencies(self, arm: str, seed: int, number: int, protocol: Protocol) -> dict[str, Any]:
        """Everything one run depends on."""
        return describe_training(
            arm,
            seed,
            protocol,
            images=len(self.folds[number].splits[0]),
            data=[self._fingerprint(number, part) for part in range(3)],
            bank=self._bank_hash(number, split_arm_name(arm)[1]) if arm_kind(arm).needs_bank else None,
            device=self.device,
        )

    def _with_confidence(self, setting: Setting, number: int, arm: str) -> Setting:
        """With what the arm's filter goes by, where it has one."""
        if not asks_confidence(arm, setting.protocol):
            return setting
        _, bank = split_arm_name(arm)
        found = self._once(number, f"confidence {bank}", lambda: self._confidence(number, bank))
        return replace(setting, confidence={bank: found})

    def _confidence(self, number: int, bank: str) -> Tensor:
        """Of a bank's images, by the judge of its fold: from its file, or by a training, the fold's only one."""

        def measure() -> Tensor:
            splits = self.folds[number].splits
            judge = self._once(number, "judge", lambda: train_judge(splits, setting, device=self.device))
            return measure_confidence(judge, setting.banks[bank], setting)

        setting = self._setting(number, JUDGE, None)
        if self.folder is None:
            return measure()
        judge = self._dependencies(JUDGE, TUNING_SEED, number, setting.protocol)
        key = run_key({"judge": judge, "bank": self._bank_hash(number, bank)})
        kept = self.folder / _CONFIDENCE / finished_name(arm_name("bank", bank), number, "confidence")
        found: Tensor
        for _ in self._taken([(number, bank)], "confidence"):
            found = remembered(kept, measure, key=key)
        return found

    def _fingerprint(self, number: int, part: int) -> str:
        return self._once(number, f"part {part}", lambda: self.folds[number].splits[part].fingerprint)

    def _bank_hash(self, number: int, name: str) -> str:
        return self._once(number, f"bank {name}", lambda: content_hash(self.settings[number].banks[name]))

    def _once(self, number: int, what: str, make: Callable[[], T]) -> T:
        if (number, what) not in self._known:
            self._known[number, what] = make()
        found: T = self._known[number, what]
        return found
