"""What a recipe's search has chosen: the arm, the gain to expect, one sentence, and the lines of Python to use it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genmix_transforms.evaluation.arm_kinds import UNION_SHARE
from genmix_transforms.evaluation.arm_names import ONLY_BANK, ArmName
from genmix_transforms.evaluation.arms import arm_kind
from genmix_transforms.evaluation.metrics import plain_data
from genmix_transforms.evaluation.recipe_search import BASELINE, Candidate

_MIXES = ("genmix", "genmix-union")
"""The arms that are GenMix and nothing else."""


@dataclass(frozen=True, kw_only=True)
class ChosenRecipe:
    """What :func:`genmix_transforms.evaluation.choose_recipe` returns.

    Args:
        arm: the name of the chosen arm; the default where no candidate is better beyond chance.
        options: the chosen arm's own options, by the fields of :class:`Protocol`.
        halves: what each half of the validation cases chose: ``gain`` is the mean of what these bring.
        gain: in macro F1 over the default, as a fraction; 0 where both halves chose the default.
        low: lower end of its 95 % interval, over seeds and cases.
        high: upper end.
        p: two-sided.
        chance: the rule: a candidate is chosen where ``gain`` is positive and ``p / 2`` below this.
        candidates: what the search saw of each arm, the default first. These are too good, the best most of all.
        left_out: candidates that this bank cannot make, and why.
        trainings: that the choice took.
        images: in the validation part.
        budget: the trainings that were allowed.
        seed: of the choice.
        default: the arm that is chosen if no candidate is better beyond chance: "baseline", or "pool".
    """

    arm: str
    options: Mapping[str, Any] = field(default_factory=dict)
    halves: tuple[str, str]
    gain: float
    low: float
    high: float
    p: float
    chance: float
    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    trainings: int
    images: int
    budget: int
    seed: int
    default: str = BASELINE

    @property
    def sentence(self) -> str:
        """What was chosen, and what gain with which interval to expect.

        Example:
            >>> chosen = ChosenRecipe(arm="pretrain:adm@0.5", halves=("pretrain:adm@0.5",) * 2, gain=0.031, low=0.004,
            ...                       high=0.057, p=0.02, chance=0.05, candidates=(), trainings=24, images=75, budget=24,
            ...                       seed=0)
            >>> print(chosen.sentence)
            Chose pretrain@0.5 on bank 'adm': on validation data +3.1 points of macro F1 over the baseline (95 % interval +0.4 to +5.7), from 24 trainings on 75 validation images.
        """  # noqa: E501
        interval = f"{_points(self.gain)} points of macro F1"
        sure = f"(95 % interval {_points(self.low)} to {_points(self.high)})"
        work = f"from {self.trainings} trainings on {self.images} validation images."
        default = "the baseline" if self.default == BASELINE else _text(self.default)
        if self.arm != self.default:
            over = "the baseline" if self.default == BASELINE else self.default
            return f"Chose {_text(self.arm)}: on validation data {interval} over {over} {sure}, {work}"
        if set(self.halves) == {self.default}:
            return f"Chose {default}: both halves of the validation data have it above all candidates, {work}"
        best = " and ".join(_text(arm) for arm in dict.fromkeys(self.halves) if arm != self.default)
        return (
            f"Chose {default}: no candidate is better than it beyond chance; the best found, {best}, brought "
            f"{interval} {sure} on validation data, {work}"
        )

    @property
    def code(self) -> str:
        """Lines of Python to use the chosen arm.

        Example:
            >>> chosen = ChosenRecipe(arm="genmix@alpha=1", options={"alpha": 1.0, "pairing": "any"}, gain=0.03,
            ...                       low=0.01, high=0.05, p=0.01, halves=("genmix@alpha=1", "genmix@alpha=0.3"),
            ...                       chance=0.05, candidates=(), trainings=32, images=75, budget=32, seed=0)
            >>> print(chosen.code)
            genmix = GenMix(bank, alpha=1.0, pairing='any')
            images, labels = genmix(images, labels)
        """
        if self.arm == BASELINE:
            return "# Train on the real images as they are."
        name = ArmName.parse(self.arm)
        bank = "bank" if name.bank == ONLY_BANK else f"banks[{name.bank!r}]"
        if name.kind in _MIXES and self.options.get("keep", 1) == 1:
            given = {option: self.options[option] for option in ("alpha", "pairing") if option in self.options}
            given |= {option: value for option in ("real_partner", "p") if (value := self._changed(option)) is not None}
            if name.kind == "genmix-union":
                given["real_partner"] = UNION_SHARE
            more = ", class_counts=train.class_counts" if given.get("pairing") == "inverse" else ""
            options = ", ".join(f"{option}={value!r}" for option, value in given.items())
            return f"genmix = GenMix({bank}, {options}{more})\nimages, labels = genmix(images, labels)"
        banks = (
            "" if not arm_kind(self.arm).needs_bank else ", bank=bank" if name.bank == ONLY_BANK else ", banks=banks"
        )
        return f"results = evaluate(splits{banks}, arms=({BASELINE!r}, {self.arm!r}), protocol=protocol)"

    def _changed(self, option: str) -> Any:
        """An option's value where GenMix has another by default; None where it has the same."""
        value = self.options.get(option)
        return None if value is None or value == {"real_partner": 0.0, "p": 1.0}[option] else value

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it, with the sentence and the code."""
        return {**plain_data(self), "sentence": self.sentence, "code": self.code}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "ChosenRecipe":
        """The inverse of :meth:`to_dict`."""
        given = {name: value for name, value in content.items() if name not in ("sentence", "code")}
        first, second = content["halves"]
        return cls(
            **{
                **given,
                "halves": (str(first), str(second)),
                "candidates": tuple(Candidate(**candidate) for candidate in content["candidates"]),
            }
        )


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"


def _text(arm: str) -> str:
    """An arm as a sentence names it: its bank behind it."""
    name = ArmName.parse(arm)
    if arm_kind(arm).from_pool:
        return f"{arm} (real images alone, from the classifier that was pre-trained on the pool)"
    return arm if name.bank == ONLY_BANK else f"{name.of_bank(ONLY_BANK)} on bank {name.bank!r}"
