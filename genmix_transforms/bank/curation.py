"""Curation: other banks made of a bank's images. Nothing on disk changes before the new bank is saved.

These are functions of a bank, and :class:`~genmix_transforms.bank.SyntheticBank` has each as a method. Each gives a new
bank, and leaves the old one as it is. Everything that is known of an image (seed, source, distance, flags) goes with
it, and a bank on disk stays there: none of its images is read.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.bank.rows import Bank
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed, whole_number

Mask = Tensor | NDArray[np.bool_] | Sequence[bool]
Numbers = Tensor | NDArray[np.int64] | Sequence[int]
Values = Tensor | NDArray[np.float64] | Sequence[float]


class _TakesImages(Bank, Protocol):
    """A bank that makes another of some of its images."""

    def take(self, index: Tensor) -> Self:
        """The bank of some images, given by their numbers."""


Takes = TypeVar("Takes", bound=_TakesImages)


def select(
    bank: Takes,
    *,
    classes: Sequence[str] | None = None,
    mask: Mask | None = None,
    min_distance: float | None = None,
    max_distance: float | None = None,
    min_confidence: float | None = None,
    confidence: Values | None = None,
    flags: int | None = None,
    without_flags: int | None = None,
    sources: int | Sequence[int] | None = None,
) -> Takes:
    """The images that fulfill all that is asked.

    The list of classes stays as it is: a label means what it meant, and a class that has no image left counts 0.
    So the new bank fits the data set that the old one fitted.

    Args:
        bank: to choose from.
        classes: names: images of these classes (by the most probable one, where labels are probabilities).
        mask: bool ``(N,)``: True for an image to keep.
        min_distance: images at least so far from the nearest real one: against near copies.
        max_distance: images at most so far from it: against what looks like nothing real.
        min_confidence: images whose label a classifier of real images is at least so sure of, 0 to 1.
        confidence: floats ``(N,)``: how sure it is of each image's label, in the bank's order; with min_confidence. It
            is given, and not kept in the bank: it belongs to one classifier of one split. ``genmix bank select`` reads
            it from a file, :meth:`genmix_transforms.evaluation.audit.labels.LabelHonesty.save` writes that.
        flags: images that have any of these bits, see :class:`~genmix_transforms.bank.Flag`.
        without_flags: images that have none of these bits.
        sources: a number, or several: images of these of the bank's ``sources``.

    Raises:
        InputError: nothing is asked, or something that the bank does not have; no image fulfills it (nothing can be
            drawn from an empty bank); or a distance is asked of images that nobody has measured. Leave those out
            with ``mask=~bank.distance.isnan()``.

    Example:
        >>> from genmix_transforms import SyntheticBank
        >>> from genmix_transforms.bank import Flag
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> flags = torch.tensor([0, Flag.REJECTED, 0, 0], dtype=torch.uint8)
        >>> distance = torch.tensor([0.5, 0.6, 0.01, 0.7])
        >>> bank = SyntheticBank(
        ...     images, torch.tensor([0, 0, 1, 1]), classes=["cyst", "metastasis"], flags=flags, distance=distance
        ... )
        >>> bank.select(without_flags=Flag.REJECTED, min_distance=0.1).class_counts
        {'cyst': 1, 'metastasis': 1}
        >>> bank.select(classes=["cyst"]).class_counts
        {'cyst': 2, 'metastasis': 0}
    """
    asked: dict[str, Any] = {"classes": classes, "mask": mask}
    asked |= {"min_distance": min_distance, "max_distance": max_distance}
    asked |= {"flags": flags, "without_flags": without_flags, "sources": sources}
    if (min_confidence is None) != (confidence is None):
        raise InputError(
            "select: min_confidence is a bound, and confidence holds the value of each image: give both or neither"
        )
    if confidence is not None and min_confidence is not None:
        asked["min_confidence"] = (min_confidence, confidence)
    return _remaining(bank, "select", _wanted(bank, "select", asked))


def drop(
    bank: Takes,
    *,
    index: Numbers | None = None,
    classes: Sequence[str] | None = None,
    mask: Mask | None = None,
    flags: int | None = None,
    sources: int | Sequence[int] | None = None,
) -> Takes:
    """The images without those that fulfill all that is asked: what :meth:`select` leaves out.

    Args:
        bank: to choose from.
        index: int64 ``(n,)``: the numbers of images, as in ``bank.rows(index)``.
        classes: names: images of these classes. The list of classes stays, see :meth:`select`.
        mask: bool ``(N,)``: True for an image to leave out.
        flags: images that have any of these bits, see :class:`~genmix_transforms.bank.Flag`.
        sources: a number, or several: images of these of the bank's ``sources``.

    Raises:
        InputError: nothing is asked, or something that the bank does not have; or no image would be left.

    Example:
        >>> from genmix_transforms import SyntheticBank
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([0, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> bank.drop(index=[0, 3]).class_counts
        {'cyst': 1, 'metastasis': 1}
    """
    asked = {"index": index, "classes": classes, "mask": mask, "flags": flags, "sources": sources}
    return _remaining(bank, "drop", ~_wanted(bank, "drop", asked))


def subsample(bank: Takes, n: int, *, seed: int, per_class: bool = False) -> Takes:
    """Some images at random, none of them twice.

    Which ones follows from the seed and the bank's order alone, not from its device, nor from whether it is in
    memory. For one seed a class's images are taken in one order: of 20, the first 10 are those of ``n=10``.

    Args:
        bank: to choose from.
        n: how many: in all, shared out among the classes in their proportions by the largest remainder.
        seed: from 0 to 2**63 - 1; another one, other images.
        per_class: ``n`` of each class that has any, instead.

    Raises:
        InputError: more than there are.

    Example:
        >>> from genmix_transforms import SyntheticBank
        >>> images = torch.zeros(9, 1, 8, 8, dtype=torch.uint8)
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1])
        >>> bank = SyntheticBank(images, labels, classes=["cyst", "metastasis"])
        >>> bank.subsample(3, seed=0).class_counts
        {'cyst': 1, 'metastasis': 2}
        >>> bank.subsample(3, seed=0, per_class=True).class_counts
        {'cyst': 3, 'metastasis': 3}
    """
    n = whole_number(n, name="subsample: n", least=1)
    if per_class:
        return _drawn_of_each(bank, n, seed=seed, name="subsample")
    if n > len(bank):
        raise InputError(f"subsample: the bank has {len(bank)} images, and none is taken twice; got n={n}")
    return _drawn(bank, largest_remainder(bank.class_count.cpu().numpy(), n), seed=seed, name="subsample")


def balance(bank: Takes, n: int | None = None, *, seed: int) -> Takes:
    """As many images of each class that has any, taken at random, none of them twice.

    To mix classes equally often without giving images away, leave the bank as it is and let
    ``GenMix(bank, pairing="balanced")`` draw them so.

    Args:
        bank: to choose from.
        n: of each class; None: as many as the smallest class has.
        seed: from 0 to 2**63 - 1; another one, other images.

    Raises:
        InputError: more than a class has, or a bank without images.

    Example:
        >>> from genmix_transforms import SyntheticBank
        >>> images = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
        >>> labels = torch.tensor([0, 1, 1, 1, 1])
        >>> bank = SyntheticBank(images, labels, classes=["cyst", "metastasis", "normal"])
        >>> bank.balance(seed=0).class_counts
        {'cyst': 1, 'metastasis': 1, 'normal': 0}
    """
    if not len(bank):
        raise InputError("balance: a bank without images has none to choose from: fill it first")
    smallest = min(count for count in bank.class_count.tolist() if count)
    n = smallest if n is None else whole_number(n, name="balance: n", least=1)
    return _drawn_of_each(bank, n, seed=seed, name="balance")


def _remaining(bank: Takes, name: str, wanted: Tensor) -> Takes:
    if not bool(wanted.any()):
        what = "no image fulfils all of that" if name == "select" else "no image would be left"
        raise InputError(f"{name}: of the bank's {len(bank)} images, {what}; an empty bank cannot be drawn from")
    return bank.take(wanted.nonzero().flatten())


def _drawn_of_each(bank: Takes, n: int, *, seed: int, name: str) -> Takes:
    """Draw ``n`` images of each class that has any."""
    counts = bank.class_count.tolist()
    short = [f"{one} {count}" for one, count in zip(bank.classes, counts, strict=True) if 0 < count < n]
    if short:
        raise InputError(f"{name}: not every class has {n} images, and none is taken twice: {', '.join(short)}")
    return _drawn(bank, [n if count else 0 for count in counts], seed=seed, name=name)


def _drawn(bank: Takes, counts: Iterable[int], *, seed: int, name: str) -> Takes:
    """Draw so many images of each class, each class's from a random stream of its own."""
    seed = check_seed(seed, name=f"{name}: seed")
    drawn, start = [], 0
    for label, (size, count) in enumerate(zip(bank.class_count.tolist(), counts, strict=True)):
        if count:
            random = np.random.Generator(np.random.Philox(key=[seed, label]))
            drawn.append(start + random.permutation(size)[:count])
        start += size
    return bank.take(torch.from_numpy(np.sort(np.concatenate(drawn))))


def _wanted(bank: Bank, name: str, asked: Mapping[str, Any]) -> Tensor:
    """Mark, bool ``(N,)`` on the CPU, the images that fulfill all that is asked."""
    if all(value is None for value in asked.values()):
        raise InputError(f"{name}: say which images: give at least one of {', '.join(asked)}")
    wanted = torch.ones(len(bank), dtype=torch.bool)
    for kind, fulfils in _CRITERIA.items():
        if asked.get(kind) is not None:
            wanted &= fulfils(bank, name, asked[kind])
    bounds = asked.get("min_distance"), asked.get("max_distance")
    if bounds != (None, None):  # last: only of the images that are left must the distance be known
        wanted &= _by_distance(bank, name, wanted, *bounds)
    return wanted


def _by_classes(bank: Bank, name: str, classes: Sequence[str]) -> Tensor:
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise InputError(f"{name}: classes must be a list of names, got {classes!r}")
    unknown = [str(one) for one in classes if one not in bank.classes]
    if unknown:
        raise InputError(f"{name}: the bank's classes are {', '.join(bank.classes)}; not {', '.join(unknown)}")
    # Sorted by class: a class is one run of images.
    return torch.tensor([one in classes for one in bank.classes]).repeat_interleave(bank.class_count.cpu())


def _by_mask(bank: Bank, name: str, mask: Mask) -> Tensor:
    given = _tensor(mask)
    if given is None or given.dtype != torch.bool or given.shape != (len(bank),):
        raise InputError(
            f"{name}: mask must be bool of shape ({len(bank)},), got {_described(mask, given)}; images "
            f"are given by their numbers {'with index=' if name == 'drop' else 'to bank.take(index)'}"
        )
    return given


def _by_index(bank: Bank, name: str, index: Numbers) -> Tensor:
    given = _tensor(index)
    if given is None or given.ndim != 1 or (len(given) and given.dtype != torch.int64):
        raise InputError(f"{name}: index must be numbers, int64 of shape (n,), got {_described(index, given)}")
    given = given.long()
    if len(given) and not 0 <= int(given.min()) <= int(given.max()) < len(bank):
        raise InputError(
            f"{name}: images have the numbers 0 to {len(bank) - 1}, got {int(given.min())} to {int(given.max())}"
        )
    return torch.zeros(len(bank), dtype=torch.bool).index_fill(0, given, True)


def _by_flags(bank: Bank, name: str, flags: int, *, argument: str = "flags") -> Tensor:
    bits = whole_number(flags, name=f"{name}: {argument}", least=1, most=255)
    return (bank.column("flags") & bits).bool()


def _by_without_flags(bank: Bank, name: str, flags: int) -> Tensor:
    return ~_by_flags(bank, name, flags, argument="without_flags")


def _by_sources(bank: Bank, name: str, sources: int | Sequence[int]) -> Tensor:
    several = list(sources) if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]
    numbers = [
        whole_number(one, name=f"{name}: a number of the bank's sources", least=0, most=len(bank.sources) - 1)
        for one in several
    ]
    return torch.isin(bank.column("source"), torch.tensor(numbers, dtype=torch.int32))


def _by_distance(bank: Bank, name: str, wanted: Tensor, least: float | None, most: float | None) -> Tensor:
    least = 0.0 if least is None else _bound(least, f"{name}: min_distance")
    most = math.inf if most is None else _bound(most, f"{name}: max_distance")
    if least > most:
        raise InputError(f"{name}: min_distance {least:g} is larger than max_distance {most:g}")
    distance = bank.column("distance")
    unknown = int((wanted & distance.isnan()).sum())
    if unknown:
        raise InputError(
            f"{name}: the distance of {unknown} of {int(wanted.sum())} images was never measured, so nobody "
            "knows whether they are far enough; measure it, or leave them out with mask=~bank.distance.isnan()"
        )
    return (distance >= least) & (distance <= most)


def _by_confidence(bank: Bank, name: str, asked: tuple[float, Values]) -> Tensor:
    least = _bound(asked[0], f"{name}: min_confidence")
    given = _tensor(asked[1])
    if least > 1:
        raise InputError(f"{name}: min_confidence is a probability, from 0 to 1, got {least:g}")
    if given is None or given.shape != (len(bank),) or not given.is_floating_point():
        raise InputError(
            f"{name}: confidence must be floats of shape ({len(bank)},), one an image in the bank's order, got "
            f"{_described(asked[1], given)}"
        )
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise InputError(f"{name}: confidence must be probabilities, from 0 to 1")
    return given.double() >= least


def _bound(value: Any, name: str) -> float:
    try:
        bound = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        bound = math.nan
    if not bound >= 0:
        raise InputError(f"{name} must be a number, at least 0, got {value!r}")
    return bound


_CRITERIA: Mapping[str, Callable[[Bank, str, Any], Tensor]] = {
    "index": _by_index,
    "classes": _by_classes,
    "mask": _by_mask,
    "flags": _by_flags,
    "without_flags": _by_without_flags,
    "sources": _by_sources,
    "min_confidence": _by_confidence,
}


def _tensor(value: Any) -> Tensor | None:
    """Make a tensor on the CPU of what was given; None if it cannot be one."""
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return None


def _described(value: Any, tensor: Tensor | None) -> str:
    if tensor is None:
        return repr(value)[:80]
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def largest_remainder(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """``total`` shared out in the proportions of ``counts``, none given more than it has."""
    if counts.sum() <= total:
        return counts
    exact = counts * (total / counts.sum())
    shares: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    order = np.argsort(shares - exact, kind="stable")[: total - int(shares.sum())]
    shares[order] += 1
    return shares
