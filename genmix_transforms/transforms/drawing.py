"""From uniform numbers to a draw: lambdas and partners. Written once for torch and for NumPy.

On the CPU the draws of a batch are a few dozen numbers, and what a step costs is the number of operations, each of
which NumPy starts in a third of torch's time. Elsewhere, and in a compiled graph, the same lines run on tensors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.errors import InputError

Value = TypeVar("Value")

Array = Any
"""A torch tensor or a NumPy array."""

COLUMNS = 5
"""Uniform numbers a sample: for its lambda, its image, whether it is mixed, its class, whether its partner is real.

All five whatever the options: a seed gives a sample the same lambda and the same image with any of them.
"""


class Draw(NamedTuple):
    """What is random about one call: tensors, or arrays where :func:`draw` was given arrays."""

    lam: Array
    """float32 ``(N,)``, the partner's weight; 0 where nothing is mixed."""
    index: Array
    """int64 ``(N,)``, the partner's row in the bank or, where ``from_batch``, in the batch."""
    from_batch: Array | None
    """bool ``(N,)``; None: no partner is of the batch."""


class Params(dict[str, Any]):
    """A draw by name, as ``make_params`` returns it: ``lam``, ``index``, ``from_batch`` and ``labels``, all tensors.

    It remembers the draw that it was made from. As long as it still holds that draw's own tensors, unwritten, their
    rows need not be looked for again; whoever replaces one of them, or writes into it, is followed.

    Args:
        drawn: tensors.
        labels: those that were drawn for.
        bank_size: how many images the bank has that was drawn from.
    """

    __slots__ = ("_bank_size", "_drawn", "_from_batch")

    def __init__(self, drawn: Draw, labels: Tensor, *, bank_size: int) -> None:
        lam, index, from_batch = drawn
        if from_batch is None:
            from_batch = torch.zeros_like(index, dtype=torch.bool)
        super().__init__(lam=lam, index=index, from_batch=from_batch, labels=labels)
        self._drawn, self._from_batch, self._bank_size = drawn, from_batch, bank_size

    def unchanged(self, count: int, bank_size: int) -> Draw | None:
        """Return the draw, if it is still what this dict says, and fits so many images and so large a bank."""
        (lam, index, _), from_batch = self._drawn, self._from_batch
        same = self.get("lam") is lam and self.get("index") is index and self.get("from_batch") is from_batch
        if not same or lam.shape[0] != count or self._bank_size > bank_size:
            return None
        # In a graph nothing is written into them, and inference mode counts no writes.
        if not torch.compiler.is_compiling() and (index.is_inference() or index._version or from_batch._version):
            return None
        return self._drawn

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def draw_of(params: Mapping[str, Any], count: int, *, bank_size: int, device: torch.device) -> Draw:
    """Return the draw in a dict of tensors, whoever made it, such that it can be applied.

    Args:
        params: what ``make_params`` or ``GenMix.draw`` returned, or a GenMix's ``params``.
        count: N.
        bank_size: how many images the bank has.
        device: of the batch.

    Returns:
        Tensors on that device. Where a look at them would make the host wait (CUDA), or cannot be had (under
        ``torch.compile``), a row beyond the bank or the batch gets a lambda of NaN, which no loss overlooks.

    Raises:
        InputError: tensors missing or of another length; on the CPU, rows beyond the bank or the batch.
    """
    if isinstance(params, Params):
        known = params.unchanged(count, bank_size)
        if known is not None:
            return known
    given = {name: params[name] for name in Draw._fields if isinstance(params.get(name), Tensor)}
    if len(given) < len(Draw._fields) or any(tensor.shape != (count,) for tensor in given.values()):
        got = {name: tuple(tensor.shape) for name, tensor in given.items()}
        raise InputError(
            f"GenMix: params must have the tensors {', '.join(Draw._fields)}, each of shape ({count},), got {got}; "
            "take the params of a call with as many images"
        )
    lam, index, from_batch = (
        given[name].to(device, dtype)
        for name, dtype in (("lam", torch.float32), ("index", torch.int64), ("from_batch", torch.bool))
    )
    inside = (index >= 0) & (index < torch.where(from_batch, count, bank_size))
    if device.type != "cpu" or torch.compiler.is_compiling():
        return Draw(torch.where(inside, lam, torch.nan), torch.where(inside, index, 0), from_batch)
    if not bool(inside.all()):
        raise InputError(
            f"GenMix: params point outside the bank ({bank_size} images) or the batch ({count}): "
            "they were drawn with another bank"
        )
    return Draw(lam, index, from_batch if bool(from_batch.any()) else None)


class Classes(NamedTuple):
    """Where the classes are in the bank, and how often each is drawn: all tensors, or all arrays."""

    cumulative: Array
    """float32 ``(K, K)``, the rows of the pairing matrix, cumulated."""
    start: Array
    """int64 ``(K,)``, where each class begins in the bank."""
    count: Array
    """int64 ``(K,)``, how many images it has."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The constants of the draw.

    Raises:
        InputError: values out of range.
    """

    alpha: float
    """Of Beta(alpha, 1)."""
    p: float
    """The probability that a sample is mixed."""
    per_sample: bool
    """A lambda for each sample, or one for the batch."""
    real_partner: float
    """The share of samples whose partner is of the batch."""
    some_have_no_partner: bool = False
    """Rows of the pairing matrix may sum to less than 1; the rest stays unmixed."""

    def __post_init__(self) -> None:
        if not 0 < _number(self.alpha) < math.inf:
            raise InputError(f"GenMix: alpha must be a positive number, got {self.alpha!r}; the paper's is 0.3")
        for name in ("p", "real_partner"):
            value = getattr(self, name)
            if not 0 <= _number(value) <= 1:
                raise InputError(f"GenMix: {name} is a probability, from 0 to 1, got {value!r}")
        for name in ("alpha", "p", "real_partner"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("per_sample", "some_have_no_partner"):
            object.__setattr__(self, name, bool(getattr(self, name)))


class Option(Generic[Value]):
    """One of the draw's constants, as an attribute that can be set at any time, and is checked when it is."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Value:
        return cast(Value, self if instance is None else getattr(instance._options, self._name))

    def __set__(self, instance: Any, value: Value) -> None:
        instance._options = replace(instance._options, **{self._name: value})


def draw(uniform: Array, labels: Array, classes: Classes | None, bank_size: int, options: Options) -> Draw:
    """Turn uniform numbers into a draw.

    Args:
        uniform: float64 (or float32) ``(N, COLUMNS)`` in [0, 1).
        labels: class indices ``(N,)`` within their range, or float rows ``(N, K)``.
        classes: tensors or arrays, as ``uniform`` and ``labels`` are; None: every image of the bank equally often.
        bank_size: how many images the bank has.
        options: of the GenMix.
    """
    xp: ModuleType = torch if isinstance(uniform, Tensor) else np
    first = uniform if options.per_sample else uniform[:1]
    count = uniform.shape[0]
    lam = _cast(first[:, 0] ** (1 / options.alpha), xp.float32)
    if options.p < 1:
        lam = xp.where(first[:, 2] < options.p, lam, 0.0)
    if not options.per_sample:
        lam = xp.tile(lam, (count,))
    image_draw = uniform[:, 1]
    from_batch = found = None
    if classes is None:
        index = _cast(image_draw * bank_size, xp.int64)
        if uniform.dtype.itemsize == 4:
            index = xp.clip(index, 0, bank_size - 1)  # of 24 bits and 16 million images the product may round up
    else:
        index, found = draw_partner(
            row_of(labels, classes.cumulative),
            classes.start,
            classes.count,
            class_draw=uniform[:, 3],
            image_draw=image_draw,
            mass=row_mass(labels) if options.some_have_no_partner else None,
        )
    if options.real_partner:
        from_batch = uniform[:, 4] < options.real_partner
        # Any of the other images of the batch: 1 to N - 1 places on.
        steps = xp.clip(_cast(image_draw * (count - 1), xp.int64), 0, max(0, count - 2)) + 1
        own_index = (xp.cumsum(xp.ones_like(steps), 0) - 1 + steps) % max(1, count)
        index = xp.where(from_batch, own_index, index)
    if found is not None and options.some_have_no_partner:
        lam = xp.where(found if from_batch is None else found | from_batch, lam, 0.0)
    return Draw(lam, index, from_batch)


def row_of(labels: Array, matrix: Array) -> Array:
    """Compute each sample's weights of the partner classes: its labels' weighted sum of the matrix's rows, ``(N, K)``.

    Args:
        labels: class indices ``(N,)``; or float ``(N, K)``, whose rows need not sum to 1 (multi-hot).
        matrix: ``(K, K)``; row-stochastic, or its rows cumulated.
    """
    if labels.ndim == 1:
        return matrix[labels]
    # In double precision, which autocast leaves alone.
    precise = _precise(labels)
    return _cast(labels, precise) @ _cast(matrix, precise)


def row_mass(labels: Array) -> Array | float:
    """Compute what each sample's labels sum to, which is 1 for class indices."""
    return 1.0 if labels.ndim == 1 else _cast(labels, _precise(labels)).sum(1)


def draw_partner(
    cumulative: Array,
    class_start: Array,
    class_count: Array,
    *,
    class_draw: Array,
    image_draw: Array,
    mass: Array | float | None = None,
) -> tuple[Array, Array]:
    """Draw first the class of a partner, then an image of that class, uniformly.

    Args:
        cumulative: ``(N, K)``, the classes' weights, cumulated; they need not end at 1. A row that ends at 0 (a sample
            that has none of the labels) draws from the whole bank.
        class_start: int64 ``(K,)``, where each class begins in the bank.
        class_count: int64 ``(K,)``, how many images it has.
        class_draw: ``(N,)``, uniform in [0, 1).
        image_draw: likewise.
        mass: what a row would end at if no partner were to be left out; None: what it ends at.

    Returns:
        The rows, int64 ``(N,)``; and, bool ``(N,)``, which samples have a partner: all, unless ``mass`` says otherwise.
    """
    xp: ModuleType = torch if isinstance(class_draw, Tensor) else np
    cumulative = _cast(cumulative, class_draw.dtype)
    total = cumulative[:, -1]
    whole_bank = _cast(xp.cumsum(class_count, 0), class_draw.dtype)
    asked = total if mass is None else mass
    nothing = ~(total > 0) if mass is None else ~(asked + 0 * total > 0)
    cumulative = xp.where(nothing[:, None], whole_bank, cumulative)
    target = class_draw * xp.where(nothing, whole_bank[-1], asked)
    # The first class whose cumulated weight passes the target: a class of weight 0 is never the first to pass it.
    chosen = (cumulative <= target[:, None]).sum(1)
    classes = class_count.shape[0]
    found = chosen < classes
    chosen = xp.clip(chosen, 0, classes - 1)
    index = class_start[chosen] + _cast(image_draw * class_count[chosen], xp.int64)
    # Labels that are no numbers must not lead outside the bank: on CUDA that would stop the process.
    return xp.minimum(xp.clip(index, 0, None), class_start[-1] + class_count[-1] - 1), found


def _precise(values: Array) -> Any:
    if isinstance(values, Tensor):
        return torch.float32 if values.device.type == "mps" else torch.float64
    return np.float64


def _cast(values: Array, dtype: Any) -> Array:
    return values.to(dtype) if isinstance(values, Tensor) else values.astype(dtype)


def _number(value: object) -> float:
    """Return a Python or NumPy number as a float; anything else as NaN, which is in no range."""
    return float(value) if isinstance(value, Real) else math.nan
