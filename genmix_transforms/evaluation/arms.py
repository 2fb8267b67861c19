"""The arms of a comparison by their names: what each is built from, which there are, and what is tuned for each.

The name of an arm is its kind, after a colon the name of the bank that it draws from where there are several, and after
each @ an option that it has for itself: ``genmix:dcgan@pairing=same``, ``blend@0.25``.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arm_kinds import ARMS as ARMS
from genmix_transforms.evaluation.arm_kinds import DEFAULT_ARMS as DEFAULT_ARMS
from genmix_transforms.evaluation.arm_kinds import KINDS as KINDS
from genmix_transforms.evaluation.arm_kinds import Arm as Arm
from genmix_transforms.evaluation.arm_kinds import ArmKind as ArmKind
from genmix_transforms.evaluation.arm_kinds import Batch as Batch
from genmix_transforms.evaluation.arm_kinds import Setting as Setting
from genmix_transforms.evaluation.arm_names import ONLY_BANK as ONLY_BANK
from genmix_transforms.evaluation.arm_names import OWN, ArmName
from genmix_transforms.evaluation.arm_names import arm_name as arm_name
from genmix_transforms.evaluation.arm_names import split_arm_name as split_arm_name
from genmix_transforms.evaluation.bank_choice import at_random, most_confident
from genmix_transforms.evaluation.normalisation import Normalisation as Normalisation
from genmix_transforms.evaluation.phases import Phases
from genmix_transforms.evaluation.protocol import GRID, Protocol
from genmix_transforms.settings import Option, check_names

EACH = "all"
"""The value that stands for each of an option's words, an arm for each: ``genmix@pairing=all``."""

_WHY_NOT = {
    "synthetic_weight": "where an image is a mixture, lambda weighs the synthetic part's loss: alpha sets it",
    "aux_norm": "it tells synthetic images from real ones, and here an image is both, or real, or all are synthetic",
    "balance": "GenMix draws classes by its pairing: pairing=balanced, or pairing=inverse",
}
"""Why an arm with a bank has not all options that others have."""


def arm_kind(name: str) -> ArmKind:
    """The kind of an arm; an unknown one is an InputError that lists all."""
    kind, bank = split_arm_name(name)
    if kind not in KINDS:
        raise InputError(f"no arm {name!r}; there are {', '.join(ARMS)}")
    if bank and not KINDS[kind].needs_bank:
        raise InputError(f"no arm {name!r}: {kind!r} draws from no bank of synthetic images")
    return KINDS[kind]


# Options that an arm has for itself


def given_options(name: str) -> dict[str, Any]:
    """The options that an arm's name gives, by the fields of the protocol.

    Raises:
        InputError: no such arm, an option that it has not, or a value that cannot be.

    Example:
        >>> given_options("blend@0.25@keep_by=random")
        {'blend_share': 0.25, 'keep_by': 'random'}
    """
    kind, found = arm_kind(name), {}
    for option, text in ArmName.parse(name).options:
        setting = _option_of(name, kind, option)
        if setting.name in found:
            raise InputError(f"the arm {name!r}: {setting.name} is given twice")
        try:
            value = setting.parse(text)
            found[setting.name] = setting.check(value, name=setting.name)
        except InputError as error:
            raise InputError(f"the arm {name!r}: {error}") from error
    return found


def _option_of(name: str, kind: ArmKind, option: str) -> Option:
    """The field of the protocol that an arm calls by this name."""
    if option == OWN:
        if kind.knob not in kind.options:
            raise InputError(f"the arm {name!r}: {split_arm_name(name)[0]!r} has no option of its own")
        option = kind.knob
    option = option.replace("-", "_")
    if kind.needs_bank and option in _WHY_NOT and option not in kind.options:
        raise InputError(f"the arm {name!r} has no option {option}: {_WHY_NOT[option]}")
    check_names({option: None}, kind.options, name=f"the arm {name!r}")
    return next(setting for setting in Protocol.options() if setting.name == option)


def own_protocol(name: str, protocol: Protocol) -> Protocol:
    """The protocol of one arm: with the options that its name gives, and without those that are of other arms alone.

    Raises:
        InputError: see :func:`given_options`; values that do not go together.

    Example:
        >>> own = own_protocol("blend@0.25", Protocol(blend_share=0.4, keep=0.5, alpha=1.0))
        >>> own.blend_share, own.keep, own.alpha
        (0.25, 0.5, 0.3)
    """
    given, kind = given_options(name), arm_kind(name)
    foreign = {option for other in KINDS.values() for option in other.options} - set(kind.options)
    defaults = {field.name: field.default for field in fields(protocol) if field.name in foreign}
    try:
        own = replace(protocol, **{**defaults, **given})
    except InputError as error:
        raise InputError(f"the arm {name!r}: {error}") from error
    if kind.from_pool and own.pool_weights is not None:
        own = replace(own, weights=own.pool_weights, pool_weights=None)
    if "keep_by" in given and own.keep == 1:
        raise InputError(f"the arm {name!r}: keep_by says what keep drops; give keep too, below 1, such as @keep=0.5")
    return own


def own_setting(name: str, setting: Setting) -> Setting:
    """The setting of one arm: its own protocol, and values as the weights want them that its classifier starts from."""
    own = own_protocol(name, setting.protocol)
    if own.weights is None:
        return replace(setting, protocol=own)
    return replace(setting, protocol=own, normalisation=Normalisation.none(len(setting.normalisation.mean)))


def phases_of(name: str, protocol: Protocol) -> Phases:
    """The phases of an arm's training, by its own protocol in steps."""
    kind = arm_kind(name)
    return Phases.of(protocol, part=kind.part, restarts=kind.restarts)


# Which arms there are


def expand_arms(arms: Iterable[str], banks: Collection[str], protocol: Protocol | None = None) -> tuple[str, ...]:
    """Every kind that needs a bank and names none, once for each bank by name; ``all``, once for each word.

    An arm that comes of ``all`` is left out where the same one is asked for by name.

    Args:
        arms: names of arms or kinds.
        banks: the banks' names; with an unnamed one among them, a kind stands for that one.
        protocol: of the comparison; None: the defaults.

    Raises:
        InputError: an unknown arm, or one of a bank that is not there.

    Example:
        >>> expand_arms(["baseline", "blend", "genmix:adm"], ["dcgan", "adm"])
        ('baseline', 'blend:dcgan', 'blend:adm', 'genmix:adm')
        >>> expand_arms(["genmix", "genmix@pairing=all"], [])[:2]
        ('genmix', 'genmix@pairing=balanced')
    """
    found: list[tuple[str, bool]] = []
    for arm in arms:
        name, kind = ArmName.parse(arm), arm_kind(arm)
        if name.bank and name.bank not in banks:
            known = ", ".join(other for other in banks if other) or "none with a name"
            raise InputError(f"the arm {arm!r}: no bank {name.bank!r}; there are {known} (--bank {name.bank}=FOLDER)")
        several = kind.needs_bank and not name.bank and banks and ONLY_BANK not in banks
        for one in [name.of_bank(bank) for bank in banks] if several else [name]:
            words = _each_word(arm, kind, one)
            found += [(str(each), len(words) > 1) for each in words]
    asked = {arm_identity(arm, protocol or Protocol()) for arm, made in found if not made}
    return tuple(arm for arm, made in found if not made or arm_identity(arm, protocol or Protocol()) not in asked)


def _each_word(arm: str, kind: ArmKind, name: ArmName) -> list[ArmName]:
    """An arm for each word of the options whose value is ``all``."""
    names = [name]
    for place, (option, value) in enumerate(name.options):
        if value != EACH:
            continue
        setting = _option_of(arm, kind, option)
        words = ("false", "true") if setting.type is bool else setting.choices
        if not words:
            raise InputError(f"the arm {arm!r}: {setting.name} is a number; {EACH} stands for each word of an option")
        names = [
            replace(one, options=(*one.options[:place], (option, word), *one.options[place + 1 :]))
            for one in names
            for word in words
        ]
    return names


def check_arms(arms: Sequence[str], protocol: Protocol | None = None) -> tuple[str, ...]:
    """The arms' names, each known, with options that can be, and there once.

    Args:
        arms: names.
        protocol: whose options they have where their names give none; None: the defaults.

    Raises:
        InputError: an unknown arm or option, a value that cannot be, an arm that is there twice under two names.
    """
    if isinstance(arms, str):
        raise InputError(f"arms must be a list of names, got the text {arms!r}; give ({arms!r},)")
    arms = tuple(arms)
    if not arms:
        raise InputError("no arms to compare")
    for arm in arms:
        given = given_options(arm)
        if arm_kind(arm).from_pool and given.get("pool_weights", (protocol or Protocol()).pool_weights) is None:
            raise InputError(
                f"the arm {arm!r} needs weights that its classifier starts from: --pool-weights FILE "
                "(pool_weights=), which genmix pretrain-classifier makes of a pool of images without labels"
            )
    if len(set(arms)) != len(arms):
        raise InputError(f"every arm once, got {', '.join(arms)}")
    same: dict[tuple[Any, ...], str] = {}
    for arm in arms:
        what = arm_identity(arm, protocol or Protocol())
        if what in same:
            raise InputError(f"every arm once: {same[what]!r} and {arm!r} are the same arm; leave one out")
        same[what] = arm
    return arms


def arm_identity(name: str, protocol: Protocol) -> tuple[Any, ...]:
    """Equal for names of the same arm; one whose option is tuned is another than one with that value.

    Example:
        >>> arm_identity("blend", Protocol()) == arm_identity("blend@0.5", Protocol())
        True
    """
    knob, _ = tuned_option(name)
    return (*split_arm_name(name), own_protocol(name, protocol), knob if protocol.tune else None)


def order_arms(
    arms: Sequence[str], banks: Collection[str], missing: Mapping[str, str], protocol: Protocol | None = None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """All arms in the order of the table, and those of them that stay empty, with the reason.

    Args:
        arms: names of arms or kinds.
        banks: names of the banks that are there.
        missing: names of those that are not, and why.
        protocol: of the comparison; None: the defaults.

    Raises:
        InputError: arms that are unknown, there twice, or draw from a bank that nobody gave.
    """
    both = sorted(set(banks) & set(missing))
    if both:
        raise InputError(f"{', '.join(both)}: a bank is there or missing, not both")
    if missing and ONLY_BANK in banks:
        raise InputError("missing names banks: give those that are there by name too (banks=)")
    if isinstance(arms, str):
        check_arms(arms)
    order = check_arms(expand_arms(arms, [*banks, *missing], protocol), protocol)
    for arm in order:
        check_bank_given(arm, [*banks, *missing])
    empty = {arm: missing[name] for arm in order if (name := split_arm_name(arm)[1]) in missing}
    if len(empty) == len(order):
        raise InputError(f"no arm is left to compare: {', '.join(order)} are all missing")
    return order, empty


def with_recipe(
    arms: Sequence[str], chosen: str, banks: Collection[str], protocol: Protocol
) -> tuple[tuple[str, ...], str]:
    """Arms with a chosen one among them: last, unless it is there, under this name or another.

    Args:
        arms: names of arms or kinds.
        chosen: the name of an arm.
        banks: the banks' names.
        protocol: of the comparison.

    Returns:
        The names of all arms, and that of the chosen one among them.

    Example:
        >>> with_recipe(["baseline", "blend"], "blend@0.5", [""], Protocol())
        (('baseline', 'blend'), 'blend')
        >>> with_recipe(["baseline"], "blend@0.5", [""], Protocol())
        (('baseline', 'blend@0.5'), 'blend@0.5')
    """
    expanded = expand_arms([arms] if isinstance(arms, str) else arms, banks, protocol)
    what = arm_identity(chosen, protocol)
    same = [arm for arm in expanded if arm_identity(arm, protocol) == what]
    return (expanded, same[0]) if same else ((*expanded, chosen), chosen)


def check_bank_given(name: str, banks: Collection[str]) -> None:
    """Raise an InputError if the arm draws from a bank that is not among these."""
    _, bank = split_arm_name(name)
    if arm_kind(name).needs_bank and bank not in banks:
        raise InputError(
            f"the arm {name!r} needs a bank of synthetic images: give one (--bank), or leave the arm out (--arms)"
        )


# What each is built from


def build_arm(name: str, setting: Setting) -> Arm:
    """Make an arm: of one with two phases, that of the first; in the second, batches are the baseline's.

    Raises:
        InputError: no such arm, an arm that needs a bank without one, or a bank it cannot use.

    Example:
        >>> setting = Setting(protocol=Protocol(), class_counts={"cyst": 2, "metastasis": 2},
        ...                   normalisation=Normalisation(mean=(0.5,), std=(0.5,)))
        >>> batch = build_arm("baseline", setting)(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
        >>> batch.labels.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    kind = arm_kind(name)
    setting = own_setting(name, setting)
    if kind.needs_real:
        if setting.real is None:
            raise InputError(f"the arm {name!r} draws from the training set: the setting has none")
        return kind.build(setting, setting.real)
    if not kind.needs_bank:
        return kind.build(setting, None)
    _, bank = split_arm_name(name)
    check_bank_given(name, setting.banks)
    if not len(setting.banks[bank]):
        raise InputError(f"the arm {name!r}: the bank is empty")
    try:
        return kind.build(setting, _kept(name, setting))
    except InputError as error:
        raise InputError(str(error) if name in str(error) else f"the arm {name!r}: {error}") from error


def _kept(name: str, setting: Setting) -> Any:
    """The images of its bank that an arm draws from."""
    _, bank = split_arm_name(name)
    protocol, whole = setting.protocol, setting.banks[bank]
    if protocol.keep == 1:
        return whole
    if protocol.keep_by == "random":
        return at_random(whole, keep=protocol.keep)
    if bank not in setting.confidence:
        raise InputError(
            f"the arm {name!r} keeps what a classifier is surest of, and nobody has asked it: evaluate does, or "
            "genmix_transforms.evaluation.confidence"
        )
    return most_confident(whole, setting.confidence[bank], keep=protocol.keep)


def asks_confidence(name: str, protocol: Protocol) -> bool:
    """Whether an arm keeps the images of its bank that a classifier is surest of."""
    own = own_protocol(name, protocol)
    return arm_kind(name).needs_bank and own.keep < 1 and own.keep_by == "confidence"


def as_if_equally_sure(setting: Setting) -> Setting:
    """The setting as if a classifier were as sure of every image: enough to check arms and to time them."""
    return replace(setting, confidence={name: torch.zeros(len(bank)) for name, bank in setting.banks.items()})


# Tuning: an arm that is searched beside one that is not wins by the search.

TUNING_SEED = 2**31 - 1
"""Of the trials' weights, data order and draws: none of the seeds whose scores are reported."""

_COMMON = "baseline"


def tuned_option(name: str) -> tuple[str, tuple[float, ...]]:
    """The option that is tuned for an arm, and its grid.

    It is the kind's own, or where the arm's name gives that a value, what is tuned for the baseline: every arm searches
    as many values.

    Example:
        >>> tuned_option("blend")[0], tuned_option("blend@keep_by=random")[0], tuned_option("blend@0.25")[0]
        ('blend_share', 'blend_share', 'weight_decay')
    """
    kind = arm_kind(name)
    if kind.knob in given_options(name):
        kind = KINDS[_COMMON]
    return kind.knob, kind.grid


def trial_values(arm: str, count: int) -> tuple[float, ...]:
    """The values that an arm tries: so many of its grid, its ends among them; none for a count of 0.

    Example:
        >>> trial_values("blend", 3), trial_values("genmix", 0)
        ((0.1, 0.3, 0.5), ())
    """
    if not count:
        return ()
    _, grid = tuned_option(arm)
    return tuple(grid[round(number * (GRID - 1) / (count - 1))] for number in range(count))


def with_value(protocol: Protocol, arm: str, value: float | None) -> Protocol:
    """The protocol of a run that is not tuned further: with that value of what is tuned, or, for None, its own.

    Example:
        >>> with_value(Protocol(tune=3), "blend", 0.1).blend_share
        0.1
    """
    if value is None:
        return replace(protocol, tune=0)
    knob, _ = tuned_option(arm)
    whole = next(field.type for field in fields(protocol) if field.name == knob) is int
    changes: dict[str, Any] = {knob: int(value) if whole else value}
    return replace(protocol, tune=0, **changes)


def choose(trials: Mapping[float, float]) -> float:
    """The value with the best validation score; of several, the one that changes the images least.

    Args:
        trials: the macro F1 on the validation part, by value.

    Example:
        >>> choose({0.5: 0.7, 0.1: 0.6, 0.3: 0.7})
        0.3
    """
    return min(trials, key=lambda value: (-trials[value], value))
