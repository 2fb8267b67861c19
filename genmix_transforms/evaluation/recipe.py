"""The recipe: choose how to use a bank, on validation data alone, within a budget of trainings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arm_kinds import Setting
from genmix_transforms.evaluation.arm_names import arm_name, split_arm_name
from genmix_transforms.evaluation.arms import (
    TUNING_SEED,
    arm_identity,
    arm_kind,
    as_if_equally_sure,
    asks_confidence,
    build_arm,
    check_arms,
    check_bank_given,
    expand_arms,
    own_protocol,
)
from genmix_transforms.evaluation.checks import Fold, check_folds, name_banks, prepare
from genmix_transforms.evaluation.confidence import JUDGE, measure_confidence, remembered, train_judge
from genmix_transforms.evaluation.leakage import Splits, bank_text, seen_images
from genmix_transforms.evaluation.protocol import BUDGET, Protocol
from genmix_transforms.evaluation.provenance import content_hash, describe_training
from genmix_transforms.evaluation.recipe_choice import ChosenRecipe
from genmix_transforms.evaluation.recipe_search import BASELINE, Cases, Job, Trial, plan_rounds, search
from genmix_transforms.evaluation.runs import finished_name, read_finished, readable_json, run_key, write_finished
from genmix_transforms.evaluation.sharing import take_turns
from genmix_transforms.evaluation.training import train_network
from genmix_transforms.files.atomic import write_text
from genmix_transforms.files.checks import check_output_folder, check_seed, whole_number
from genmix_transforms.files.progress import progress_bar
from genmix_transforms.generators.processes import own_device

REAL_CANDIDATES = ("classical", "mixup", "balanced-mixup", "repeat")
"""Arms that need no bank."""

BANK_CANDIDATES = (
    "blend@0.1",
    "blend@0.25",
    "blend@0.25@keep=0.5",
    "pretrain@0.5",
    "genmix@alpha=0.3",
    "genmix@alpha=1",
    "genmix@pairing=balanced",
)
"""Arms of every bank: alpha, share, pairing, filter and use. Shares are low: the best of Pink and Sykes (PMLR
318:954-961, 2026) is a quarter."""

CHANCE = 0.05
"""How often, at most, something is chosen where all candidates equal the baseline."""

_MOST_BUDGET = 10_000
_FOLDER, _LOCKS = "recipe", "locks"
_FIRST_SEED = 2**30
"""Training seeds of a choice begin here: none is that of a run that is reported. What wins by the luck of its seeds
would take it along into the test."""


def choose_recipe(
    splits: Splits,
    *,
    bank: SyntheticBank | None = None,
    banks: Mapping[str, SyntheticBank] | None = None,
    candidates: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    budget: int = BUDGET,
    chance: float = CHANCE,
    seed: int = 0,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> ChosenRecipe:
    """Choose whether and how to use a bank, on validation data alone.

    The candidates are trained on the training part. Each half of the validation cases makes its own choice among them,
    by successive halving over the seeds. The choice is trained with new seeds and scored on the other half, together
    with the baseline with the same seeds. The gain and its interval are therefore not biased by choosing the best of
    many: they use neither the cases nor the seeds of the choice. If the gain is not beyond chance, the default is
    chosen: the baseline, or the arm "pool" if the protocol has ``pool_weights``.

    Args:
        splits: train, validation and test, as ``patches.split(seed=0)`` returns them. The test part is used only to
            refuse a bank whose generator was trained on it.
        bank: a bank of synthetic images.
        banks: several banks, by name.
        candidates: names of arms; None: ``REAL_CANDIDATES``, ``BANK_CANDIDATES`` of each bank, and the baseline if it
            is not the default.
        protocol: how to train, without tuning. None: the defaults of :class:`Protocol`.
        budget: the maximum number of trainings.
        chance: a candidate is chosen if the gain is positive and its one-sided p-value is below this.
        seed: the seed of the halves and the trainings; equal seeds give equal choices.
        out: a folder for the choice (``recipe.json``) and each finished training (``recipe/``). The same call continues
            where it stopped, and a second process with the same call shares the work. None: keep nothing.
        device: None: the GPU where there is one.
        progress: show a bar.

    Returns:
        The choice: ``print(chosen.sentence)``.

    Raises:
        InputError: before the first training: fewer than 2 validation images (of 2 groups) of a class, a budget that is
            too small, no candidates, a bank whose generator was trained on validation or test images, or other invalid
            input.

    Example:
        >>> from genmix_transforms.data import PatchDataset
        >>> pixels = torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8)
        >>> patches = PatchDataset(images=pixels, labels=torch.arange(60) % 2, classes=("cyst", "metastasis"))
        >>> quick = Protocol(steps=2, batch_size=4)
        >>> chosen = choose_recipe(patches.split(), candidates=["mixup"], budget=8, protocol=quick, progress=False)
        >>> chosen.arm in ("baseline", "mixup"), chosen.trainings <= 8
        (True, True)
    """
    plan = RecipePlan.of(
        splits,
        banks=name_banks(bank, banks),
        candidates=candidates,
        protocol=protocol or Protocol(),
        budget=budget,
        chance=chance,
        seed=seed,
        out=out,
        device=device,
    )
    return plan.run(progress=progress)


class RecipePlan:
    """A choice that has been checked: what it is made among, and where the finished trainings are.

    :meth:`of` makes one; its arguments are those of :func:`choose_recipe`.
    """

    cases: Cases
    device: torch.device
    setting: Setting
    splits: Splits
    candidates: tuple[str, ...]
    left_out: Mapping[str, str]
    budget: int
    chance: float
    folder: Path | None
    seed: int

    def __init__(
        self,
        *,
        splits: Splits,
        setting: Setting,
        candidates: tuple[str, ...],
        left_out: Mapping[str, str],
        cases: Cases,
        budget: int,
        chance: float,
        seed: int,
        folder: Path | None,
        device: torch.device,
    ) -> None:
        self.splits, self.setting, self.cases, self.device = splits, setting, cases, device
        self.candidates, self.left_out = candidates, left_out
        self.budget, self.chance, self.seed, self.folder = budget, chance, seed, folder
        self._parts = [part.fingerprint for part in splits[:2]]
        self._hashes: dict[str, str] = {}
        self._confidence: dict[str, Tensor] = {}
        self._judge: Any = None

    @classmethod
    def of(
        cls,
        splits: Splits,
        *,
        banks: Mapping[str, SyntheticBank],
        candidates: Sequence[str] | None,
        protocol: Protocol,
        budget: int,
        chance: float = CHANCE,
        seed: int = 0,
        out: str | Path | None = None,
        device: str | torch.device | None = None,
    ) -> "RecipePlan":
        """Check everything that :func:`choose_recipe` is given.

        Raises:
            InputError: anything that would fail later.
        """
        whole_number(budget, name="budget", least=1, most=_MOST_BUDGET)
        check_seed(seed)
        if isinstance(chance, bool) or not isinstance(chance, (int, float)) or not 0 < chance <= 0.5:
            raise InputError(f"chance must be a number above 0 and at most 0.5, got {chance!r}")
        where, folder = own_device(device), None if out is None else Path(out)
        if folder is not None:
            for path in (folder, folder / _FOLDER, folder / _LOCKS):
                check_output_folder(path)
        check_folds([Fold(splits=splits, banks=banks)])
        for name, bank in banks.items():
            seen = seen_images(bank, splits)
            if seen is not None and seen["val"]:
                raise InputError(
                    f"{bank_text(name)}: its generator was trained on {seen['val']} of the validation images, which a "
                    "recipe is chosen by: its arms would look too good; train it on the training part of this split"
                )
        protocol = replace(protocol, tune=0)
        asked = recipe_candidates(candidates, banks, protocol)
        sources = prepare(_sources(asked), splits, banks, protocol, device=where)
        left_out = {}
        for arm in asked:
            try:
                build_arm(arm, as_if_equally_sure(sources))
            except InputError as error:
                if candidates is not None:
                    raise
                left_out[arm] = str(error)
        chosen_from = tuple(arm for arm in asked if arm not in left_out)
        plan = cls(
            splits=splits,
            setting=prepare((default_arm(protocol), *chosen_from), splits, banks, protocol, device=where),
            candidates=chosen_from,
            left_out=left_out,
            cases=_cases(splits, seed=seed),
            budget=budget,
            chance=float(chance),
            seed=seed,
            folder=folder,
            device=where,
        )
        plan_rounds(len(chosen_from), budget=budget, besides=plan.judges)
        return plan

    @property
    def judges(self) -> int:
        """Trainings that are none of an arm's: of the classifier that a filter asks, 1 or 0."""
        return int(any(asks_confidence(arm, self.setting.protocol) for arm in self.candidates))

    def run(self, *, progress: bool) -> ChosenRecipe:
        """Train, choose, and keep the choice."""
        with progress_bar(total=self.budget, desc="choosing", unit="run", disable=not progress) as bar:
            found = search(
                self.candidates,
                self.cases,
                train=lambda jobs: self._train(jobs, bar),
                budget=self.budget,
                chance=self.chance,
                besides=self.judges,
                default=default_arm(self.setting.protocol),
            )
        gain = found.gain
        own = own_protocol(found.arm, self.setting.protocol)
        chosen = ChosenRecipe(
            arm=found.arm,
            options={name: value for name in arm_kind(found.arm).options if (value := getattr(own, name)) is not None},
            halves=found.halves,
            gain=gain.difference if gain else 0.0,
            low=gain.low if gain else 0.0,
            high=gain.high if gain else 0.0,
            p=gain.p_single if gain else 1.0,
            chance=self.chance,
            candidates=found.candidates,
            left_out=self.left_out,
            trainings=found.trainings,
            images=len(self.splits[1]),
            budget=self.budget,
            seed=self.seed,
            default=default_arm(self.setting.protocol),
        )
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "recipe.json", readable_json(chosen.to_dict()))
        return chosen

    def _train(self, jobs: Sequence[Job], bar: Any) -> dict[Job, Trial]:
        """The trainings of a round, from their files or done now; other processes may share them."""
        folder = self.folder
        taken = (
            iter(jobs)
            if folder is None
            else take_turns(
                jobs, lock=lambda job: folder / _LOCKS / f"{run_key({_FOLDER: [*job, self.seed]})[:32]}.lock"
            )
        )
        trials = {}
        for arm, number in taken:
            bar.set_postfix_str(f"{arm}, seed {number}")
            trials[arm, number] = self._trial(arm, number)
            bar.update()
        return trials

    def _trial(self, arm: str, number: int) -> Trial:
        key = run_key({**self._dependencies(arm, self._seed_of(number)), "halves": self.seed})
        kept = None if self.folder is None else self.folder / _FOLDER / finished_name(arm, 0, f"seed{number}")
        trial = None if kept is None else read_finished(kept, self._read, key=key)
        if trial is None:
            setting = self._with_confidence(arm)
            trained = train_network(arm, self.splits, setting, self._seed_of(number), device=self.device)
            trial = Trial.of({step: found.numpy() for step, found in trained.validations.items()}, self.cases)
            if kept is not None:
                content = {"arm": arm, "seed": number, "predictions": trial.predictions.tolist()}
                write_finished(kept, content, key=key)
        return trial

    def _read(self, content: Mapping[str, Any]) -> Trial:
        predictions = np.array(content["predictions"], dtype=np.int64)
        if predictions.shape != (2, len(self.cases.labels)):
            raise ValueError("a damaged file")
        return Trial(predictions=predictions)

    def _seed_of(self, number: int) -> int:
        """The seed of a training: another for each number and each seed of the choice."""
        drawn = np.random.SeedSequence([self.seed, number]).generate_state(1)[0]
        return _FIRST_SEED + int(drawn) % (TUNING_SEED - _FIRST_SEED)

    def _dependencies(self, arm: str, seed: int) -> dict[str, Any]:
        bank = split_arm_name(arm)[1]
        return describe_training(
            arm,
            seed,
            self.setting.protocol,
            images=len(self.splits[0]),
            data=self._parts,
            bank=self._hash(bank) if arm_kind(arm).needs_bank else None,
            device=self.device,
        )

    def _hash(self, bank: str) -> str:
        if bank not in self._hashes:
            self._hashes[bank] = content_hash(self.setting.banks[bank])
        return self._hashes[bank]

    def _with_confidence(self, arm: str) -> Setting:
        """With what the arm's filter goes by, where it has one."""
        if not asks_confidence(arm, self.setting.protocol):
            return self.setting
        bank = split_arm_name(arm)[1]
        if bank not in self._confidence:
            self._confidence[bank] = self._measure(bank)
        return replace(self.setting, confidence={bank: self._confidence[bank]})

    def _measure(self, bank: str) -> Tensor:
        def measure() -> Tensor:
            if self._judge is None:
                self._judge = train_judge(self.splits, self.setting, device=self.device)
            return measure_confidence(self._judge, self.setting.banks[bank], self.setting)

        if self.folder is None:
            return measure()
        key = run_key({"judge": self._dependencies(JUDGE, TUNING_SEED), "bank": self._hash(bank)})
        kept = self.folder / _FOLDER / finished_name(arm_name("bank", bank), 0, "confidence")
        return remembered(kept, measure, key=key)


def default_arm(protocol: Protocol) -> str:
    """The arm that a candidate must beat: real images alone, with the weights of a pool if there are any.

    With few labels, these weights gained more than anything else that was measured (docs/results/when-it-helps.md). So
    they are used unless the validation part shows that something else is better beyond chance.

    Example:
        >>> default_arm(Protocol()), default_arm(Protocol(pool_weights="small.safetensors"))
        ('baseline', 'pool')
    """
    return BASELINE if protocol.pool_weights is None else "pool"


def recipe_candidates(
    candidates: Sequence[str] | None, banks: Mapping[str, Any], protocol: Protocol
) -> tuple[str, ...]:
    """The arms that a recipe is chosen among, without the default, each once.

    Args:
        candidates: names of arms; None: those that this file lists.
        banks: by name.
        protocol: of the comparison.

    Raises:
        InputError: arms that are unknown or draw from a bank that nobody gave, or nothing to choose from.

    Example:
        >>> recipe_candidates(None, {}, Protocol())
        ('classical', 'mixup', 'balanced-mixup', 'repeat')
        >>> recipe_candidates(["baseline", "blend@0.1"], {"dcgan": None, "adm": None}, Protocol())
        ('blend:dcgan@0.1', 'blend:adm@0.1')
    """
    if isinstance(candidates, str):
        raise InputError(f"candidates must be a list of arms, got the text {candidates!r}; give ({candidates!r},)")
    default = default_arm(protocol)
    asked = [BASELINE, *REAL_CANDIDATES, *(BANK_CANDIDATES if banks else ())] if candidates is None else candidates
    same = arm_identity(default, protocol)
    found: dict[str, Any] = {}
    for arm in expand_arms(asked, banks, protocol):
        check_bank_given(arm, banks)
        what = arm_identity(arm, protocol)
        # Of the package's own list some may be the same arm under this protocol.
        if what != same and (candidates is not None or what not in found.values()):
            found[arm] = what
    if not found:
        raise InputError(
            f"nothing to choose from: a recipe needs candidates other than {default}, such as mixup, or with a bank "
            "blend@0.1"
        )
    return check_arms(tuple(found), protocol)


def _sources(arms: Sequence[str]) -> tuple[str, ...]:
    """Plain arms that draw from what these do: all banks and the real images, asking nothing more of them."""
    blends = dict.fromkeys(arm_name("blend", split_arm_name(arm)[1]) for arm in arms if arm_kind(arm).needs_bank)
    return (BASELINE, *(["repeat"] if any(arm_kind(arm).needs_real for arm in arms) else []), *blends)


def _cases(splits: Splits, *, seed: int) -> Cases:
    train, validation, _ = splits
    lacking = [name for name, count in train.class_counts.items() if count and validation.class_counts[name] < 2]
    if lacking:
        counts = ", ".join(f"{name} {validation.class_counts[name]}" for name in lacking)
        raise InputError(
            f"the validation part is too small to choose a recipe by: {counts}; each class needs 2 images at least, of "
            "2 groups (patients), and a choice that means something needs dozens: give validation a larger share"
        )
    groups = None if validation.groups is None else validation.groups.numpy()
    return Cases.split(validation.labels.numpy(), groups, classes=validation.classes, seed=seed)
