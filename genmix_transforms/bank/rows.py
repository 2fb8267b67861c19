"""What a bank is made of: images and all that is known of each, and whether they fit together."""

import json
import math
from collections.abc import Mapping, Sequence
from enum import IntFlag
from typing import Any, Literal, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import name_fault
from genmix_transforms.files.images import HIGHEST_PIXEL

PIXEL_DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16}
"""The pixel types there are, by name."""

LabelKind = Literal["index", "probabilities"]
"""A class index, or a row of class probabilities, an image."""

DESCRIPTIONS = {"seeds": torch.int64, "source": torch.int32, "distance": torch.float32, "flags": torch.uint8}
"""The columns that no training step reads, and their types. They stay on the CPU."""


class Flag(IntFlag):
    """The bits of an image's flags. The upper four are the user's own.

    Example:
        >>> import torch
        >>> flags = torch.tensor([0, 1, 5], dtype=torch.uint8)
        >>> (flags & Flag.NEAR_COPY).bool()
        tensor([False,  True,  True])
    """

    NEAR_COPY = 1
    """Nearer to a real training image than real images are to each other."""
    DUPLICATE = 2
    """The same as another image of the bank, or nearly."""
    REJECTED = 4
    """Somebody has looked at it, and would not use it."""
    OUTLIER = 8
    """Unlike any real image."""
    USER_1 = 16
    USER_2 = 32
    USER_3 = 64
    USER_4 = 128


class Rows(NamedTuple):
    """Images in memory, and all that is known of each."""

    images: Tensor
    """``(n, C, *spatial)``, uint8 or uint16."""
    labels: Tensor
    """int64 ``(n,)``, or float32 ``(n, K)``."""
    seeds: Tensor
    """int64 ``(n,)``; -1: from no seed."""
    source: Tensor
    """int32 ``(n,)``: index into the bank's sources."""
    distance: Tensor
    """float32 ``(n,)``: to the nearest real image; NaN where nobody has measured."""
    flags: Tensor
    """uint8 ``(n,)``, see :class:`Flag`."""
    masks: Tensor | None = None
    """uint8 ``(n, *spatial)``: the mask class of each pixel; None: the bank has no masks."""

    @property
    def columns(self) -> dict[str, Tensor]:
        """The columns that there are, by name."""
        return {name: column for name, column in self._asdict().items() if column is not None}

    @classmethod
    def complete(
        cls,
        images: Tensor,
        labels: Tensor,
        *,
        seeds: Tensor | None = None,
        source: Tensor | None = None,
        distance: Tensor | None = None,
        flags: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Self:
        """Fill in the columns that are not given: they say that nothing is known."""
        count = len(images)
        return cls(
            images,
            labels,
            torch.full((count,), -1, dtype=torch.int64) if seeds is None else seeds,
            torch.zeros(count, dtype=torch.int32) if source is None else source,
            torch.full((count,), torch.nan) if distance is None else distance,
            torch.zeros(count, dtype=torch.uint8) if flags is None else flags,
            masks,
        )

    def checked(self, *, sources: int) -> Self:
        """Bring the descriptions to the CPU, if each has the dtype, the length and the range that it must have.

        Args:
            sources: how many sources the bank has.

        Raises:
            InputError: a column that does not; the message names it.
        """
        count, columns = len(self.images), {}
        for name, dtype in DESCRIPTIONS.items():
            column = getattr(self, name)
            if not isinstance(column, Tensor) or tuple(column.shape) != (count,) or column.dtype != dtype:
                got = f"{column.dtype} of shape {tuple(column.shape)}" if isinstance(column, Tensor) else repr(column)
                expected = str(dtype).removeprefix("torch.")
                raise InputError(f"SyntheticBank: {name} must be {expected} of shape ({count},), got {got}")
            columns[name] = column.detach().cpu()
        if bool((columns["distance"] < 0).any()):
            raise InputError("SyntheticBank: distance must not be negative")
        source = columns["source"]
        if count and not 0 <= int(source.min()) <= int(source.max()) < sources:
            raise InputError(f"SyntheticBank: source must be from 0 to {sources - 1}, the provenances given")
        return self._replace(**columns)

    def relabelled(self, before: Sequence[str], after: Sequence[str]) -> Self:
        """The rows with their labels re-mapped, by name, from one list of classes to another.

        Args:
            before: the class names that the labels are indices into, or columns of.
            after: the new ones; they lack no class that an image has.
        """
        place = torch.tensor([after.index(name) if name in after else 0 for name in before], device=self.labels.device)
        if self.labels.ndim == 1:
            return self._replace(labels=place[self.labels])
        return self._replace(
            labels=self.labels.new_zeros(len(self.labels), len(after)).index_copy(1, place, self.labels)
        )

    def on_cpu(self) -> Self:
        """The rows on the CPU."""
        return type(self)(**{name: column.cpu() for name, column in self.columns.items()})

    @property
    def index_labels(self) -> Tensor:
        """int64 ``(n,)``: the label, or the most probable class."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(dim=1)

    def take(self, index: Tensor | slice) -> Self:
        """Choose some of the rows, or their order. The columns may be on several devices."""
        columns = self.columns
        if isinstance(index, slice):
            return type(self)(**{name: column[index] for name, column in columns.items()})
        here = {device: index.to(device) for device in {column.device for column in columns.values()}}
        return type(self)(**{name: take_rows(column, here[column.device]) for name, column in columns.items()})

    def sorted_by_class(self) -> Self:
        """The rows class by class; within a class in the order they had."""
        labels = self.index_labels
        if bool((labels[1:] >= labels[:-1]).all()):
            return self
        return self.take(self.class_order())

    def class_order(self) -> Tensor:
        """Which row stands where when they are :meth:`sorted_by_class`, int64 ``(n,)``."""
        return torch.argsort(self.index_labels, stable=True)

    @classmethod
    def together(cls, several: Sequence[Self]) -> Self:
        """One after the other; all of them have masks, or none."""
        if len(several) == 1:
            return several[0]
        columns = [rows.columns for rows in several]
        return cls(**{name: torch.cat([one[name] for one in columns]) for name in columns[0]})


class Bank(Protocol):
    """What whoever reads a bank may count on, be it in memory or on disk."""

    classes: tuple[str, ...]
    """The class names, in the order of their indices."""
    class_count: Tensor
    """int64 ``(K,)``: images of each class. They lie class by class."""
    sources: tuple[Mapping[str, Any], ...]
    """Where images come from; an image's ``source`` is an index into these."""
    window: tuple[float, float] | None
    """For CT, the Hounsfield units of the lowest and the highest pixel value."""
    image_shape: tuple[int, ...]
    """``(C, *spatial)`` of an image."""
    pixel_dtype: torch.dtype
    """uint8 or uint16."""
    label_kind: LabelKind
    """Whether labels are class indices or rows of probabilities."""
    mask_classes: tuple[str, ...] | None
    """What the pixel values of masks mean, from 0 on; None: the bank has no masks."""

    def __len__(self) -> int:
        """How many images there are."""

    def column(self, name: str) -> Tensor:
        """One of :data:`DESCRIPTIONS`, ``(N,)``, on the CPU."""

    def rows(self, index: Tensor) -> Tensor:
        """Images by their numbers, int64 ``(n,)``: ``(n, C, *spatial)``."""


def take_rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows of a tensor by their numbers, on any device.

    Not all releases of PyTorch have a CUDA kernel that gathers uint16; the same bits as int16 are gathered by all.

    Args:
        values: ``(N, ...)``, of any dtype.
        index: int64 ``(n,)``, on the same device.

    Example:
        >>> take_rows(torch.tensor([5, 65535], dtype=torch.uint16), torch.tensor([1, 1, 0])).tolist()
        [65535, 65535, 5]
    """
    if values.dtype != torch.uint16:
        return values.index_select(0, index)
    return values.view(torch.int16).index_select(0, index).view(torch.uint16)


def check_classes(classes: Sequence[str], *, argument: str = "classes") -> tuple[str, ...]:
    """The class names as a tuple.

    Args:
        classes: the names.
        argument: what messages call them.

    Raises:
        InputError: no list of different names.
    """
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"SyntheticBank: {argument} must be a list of names, got {classes!r}")
    classes = tuple(classes)
    if not classes or len(set(classes)) != len(classes):
        raise InputError(f"SyntheticBank: {argument} must be different names, at least one, got {classes!r}")
    for name in classes:
        if fault := name_fault(name):
            raise InputError(f"SyntheticBank: class name {name!r}: {fault}")
    return classes


MOST_MASK_CLASSES = 256
"""As many as a uint8 pixel tells apart."""


def check_mask_classes(names: Sequence[str]) -> tuple[str, ...]:
    """The names of the mask classes as a tuple.

    Raises:
        InputError: no list of 2 to 256 different names.
    """
    names = check_classes(names, argument="mask_classes")
    if not 2 <= len(names) <= MOST_MASK_CLASSES:
        raise InputError(
            f"SyntheticBank: mask_classes must be 2 to {MOST_MASK_CLASSES} names, the background's among them, such as "
            f"['background', 'lesion'], got {len(names)}"
        )
    return names


def check_masks(images: Tensor, masks: Tensor | None, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Check masks against their images, and return the names of the mask classes; None: there are no masks.

    Args:
        images: ``(N, C, *spatial)``.
        masks: uint8 ``(N, *spatial)``: the mask class of each pixel; None: none.
        names: of the mask classes; None: numbers, as many as the highest pixel asks for, at least two.

    Raises:
        InputError: another shape, dtype or device than the images need, names without masks, or pixels without a name.
    """
    if masks is None:
        if names is not None:
            raise InputError("SyntheticBank: mask_classes name the pixel values of masks; give masks= as well")
        return None
    expected = (len(images), *images.shape[2:])
    if not isinstance(masks, Tensor) or masks.dtype != torch.uint8 or tuple(masks.shape) != expected:
        got = f"{masks.dtype} of shape {tuple(masks.shape)}" if isinstance(masks, Tensor) else type(masks).__name__
        raise InputError(
            f"SyntheticBank: masks must be uint8 class numbers of shape {expected}, one an image and without channels, "
            f"got {got}; masks of 0 and 1 come there with masks.squeeze(1).to(torch.uint8)"
        )
    if masks.device != images.device:
        raise InputError(f"SyntheticBank: images are on {images.device}, masks on {masks.device}: bring them together")
    highest = int(masks.max()) if masks.numel() else 0
    if names is None:
        return tuple(str(number) for number in range(max(2, highest + 1)))
    names = check_mask_classes(names)
    if highest >= len(names):
        raise InputError(
            f"SyntheticBank: masks run up to {highest}, but there are {len(names)} mask_classes ({', '.join(names)}); "
            "pixels to ignore need a class of their own"
        )
    return names


def check_tensors(images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Tensor:
    """Check images and labels against each other, and return the labels as int64 ``(N,)`` or float32 ``(N, K)``.

    Raises:
        InputError: not so; the message says how.
    """
    if not isinstance(images, Tensor) or images.dtype not in PIXEL_DTYPES.values() or images.ndim < 3:
        raise InputError(
            "SyntheticBank: images must be a uint8 or uint16 tensor of shape (N, C, *spatial), got "
            + (
                f"{images.dtype} of shape {tuple(images.shape)}"
                if isinstance(images, Tensor)
                else type(images).__name__
            )
            + "; bring floats in [0, 1] there with (images * 255).round().to(torch.uint8)"
        )
    if not isinstance(labels, Tensor) or labels.ndim not in (1, 2) or len(labels) != len(images):
        raise InputError(
            f"SyntheticBank: labels must be a tensor of shape ({len(images)},) or ({len(images)}, {len(classes)}), got "
            + (f"{tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__)
        )
    if labels.device != images.device:
        raise InputError(
            f"SyntheticBank: images are on {images.device}, labels on {labels.device}: bring them together"
        )
    if labels.ndim == 1:
        if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
            raise InputError(f"SyntheticBank: labels of shape (N,) must be whole numbers, got {labels.dtype}")
        labels = labels.long()
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise InputError(
                f"SyntheticBank: labels run from {int(labels.min())} to {int(labels.max())}, "
                f"but there are {len(classes)} classes ({', '.join(classes)})"
            )
        return labels
    if labels.shape[1] != len(classes):
        raise InputError(
            f"SyntheticBank: labels of shape (N, K) need a column a class, got {labels.shape[1]} columns "
            f"for {len(classes)} classes ({', '.join(classes)})"
        )
    labels = labels.float()
    if not bool(torch.isfinite(labels).all()) or bool((labels < 0).any()):
        raise InputError("SyntheticBank: label probabilities must be finite and not negative")
    return labels


def check_window(window: tuple[float, float] | None) -> tuple[float, float] | None:
    """The window as two floats.

    Raises:
        InputError: not two finite numbers, the lower first.
    """
    if window is None:
        return None
    try:
        low, high = map(float, window)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            "SyntheticBank: window must be the Hounsfield units of the lowest and the highest pixel value, "
            f"such as (-100.0, 200.0), got {window!r}"
        )
    return low, high


def check_same_window(bank: tuple[float, float] | None, real: tuple[float, float] | None, *, who: str) -> None:
    """Refuse a bank whose gray values stand for other Hounsfield units than those of the real images.

    Args:
        bank: its window; None: the bank does not say.
        real: that of the real images; None: nobody says.
        who: begins the message.

    Raises:
        InputError: both are known, and an end of one lies more than 1 % of the width from that of the other.

    Example:
        >>> check_same_window((-160.0, 240.0), None, who="GenMix")
    """
    if bank is None or real is None:
        return
    if max(abs(one - other) for one, other in zip(bank, real, strict=True)) > 0.01 * (real[1] - real[0]):
        raise InputError(
            f"{who}: the bank's gray values are {bank[0]:g} to {bank[1]:g} HU, those of the real images {real[0]:g} to "
            f"{real[1]:g} HU: the same tissue has another brightness in each. Open the real images with the window of "
            f"the bank (level {(bank[0] + bank[1]) / 2:g}, width {bank[1] - bank[0]:g}), or fill a bank from them"
        )


def check_sources(provenance: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> tuple[dict[str, Any], ...]:
    """The provenance as a tuple of dicts, one a source.

    Raises:
        InputError: something that JSON cannot hold, which would only show when the bank is saved.
    """
    several = [provenance or {}] if provenance is None or isinstance(provenance, Mapping) else list(provenance)
    try:
        sources = tuple(json.loads(json.dumps(dict(source), allow_nan=False)) for source in several)
        json.dumps(sources, ensure_ascii=False).encode()  # a file name that is not Unicode
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"SyntheticBank: provenance must be a dict of what JSON can hold: texts, numbers, lists, dicts ({error})"
        ) from error
    if not sources:
        raise InputError("SyntheticBank: a list of provenances needs at least one")
    return sources


def union_of_sources(*several: Sequence[Mapping[str, Any]]) -> tuple[tuple[Mapping[str, Any], ...], list[Tensor]]:
    """The sources of several banks, each once; and for each bank, of each of its sources the number in the union."""
    union: list[Mapping[str, Any]] = []
    for source in (source for sources in several for source in sources):
        if source not in union:
            union.append(source)
    numbers = [torch.tensor([union.index(source) for source in sources], dtype=torch.int32) for sources in several]
    return tuple(union), numbers


def places_by_name(bank: Sequence[str], data: Sequence[str], *, counts: Sequence[int] | None) -> list[int]:
    """For each class of the data its number in the bank; -1: the bank does not know it.

    Args:
        bank: its class names.
        data: those of the data.
        counts: the bank's images of each class: one of which it has none need not be among the data's. None: labels
            are probabilities, and any image may have some of any class.

    Raises:
        InputError: the bank has a class that the data has not.
    """
    unknown = [name for place, name in enumerate(bank) if name not in data and (counts is None or counts[place])]
    if unknown:
        raise InputError(
            f"the bank's classes are {', '.join(bank)}, the data's {', '.join(data)}: "
            f"{', '.join(unknown)} is no class of the data; rename the bank's classes or take another bank"
        )
    return [bank.index(name) if name in bank else -1 for name in data]


def normalised_unit(
    bank: Bank, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[Tensor, Tensor]:
    """How a pixel becomes a value of the user's normalized batches: ``value = pixel * scale + shift``.

    Args:
        bank: of the pixels.
        mean: of the user's ``v2.Normalize``, one for each channel or one for all; None: 0.
        std: likewise; None: 1. With neither, values are in [0, 1].

    Returns:
        ``scale`` and ``shift``, float32 ``(C, 1, ...)``, on the CPU.

    Raises:
        InputError: not finite, not one or one a channel, or a ``std`` that is not positive.
    """
    channels, dimensions = bank.image_shape[0], len(bank.image_shape)
    values = []
    for name, given, default in (("mean", mean, 0.0), ("std", std, 1.0)):
        try:
            tensor = torch.as_tensor(default if given is None else given, dtype=torch.float64, device="cpu").flatten()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{name} must be numbers, one a channel, got {given!r}") from error
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{name} must be finite, got {given!r}")
        if len(tensor) not in (1, channels):
            raise InputError(
                f"{name} must have one value, or one for each of the bank's {channels} channels, got {len(tensor)}"
            )
        values.append(tensor.expand(channels).reshape(channels, *[1] * (dimensions - 1)))
    if not bool((values[1] > 0).all()):
        raise InputError(f"std must be positive, got {std}")
    return (1 / (HIGHEST_PIXEL[bank.pixel_dtype] * values[1])).float(), (0.0 - values[0] / values[1]).float()
