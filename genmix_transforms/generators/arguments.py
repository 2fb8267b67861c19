"""What users give to every kind of generator: class names, bits, labels and seeds, checked before any work."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError


def check_class_names(classes: Sequence[str], *, name: str) -> tuple[str, ...]:
    """Check class names.

    Args:
        classes: what a user gave.
        name: of the generator, for messages.

    Returns:
        The names as a tuple.

    Raises:
        InputError: a text, something other than names, none at all, or one name twice.

    Example:
        >>> check_class_names(["cyst", "metastasis"], name="VAE")
        ('cyst', 'metastasis')
    """
    if isinstance(classes, str):
        raise InputError(f"{name}: classes must be different names, in a list; got the text {classes!r}")
    classes = tuple(classes)
    if not all(isinstance(word, str) for word in classes):
        raise InputError(f"{name}: classes must be names, got {classes!r}")
    if not classes or len(set(classes)) != len(classes):
        raise InputError(f"{name}: classes must be different names, at least one, got {classes!r}")
    return classes


def check_bits(bits: int, *, name: str) -> torch.dtype:
    """Check the bits of a pixel.

    Args:
        bits: 8 or 16.
        name: of the generator, for messages.

    Returns:
        The dtype of its images: ``torch.uint8`` or ``torch.uint16``.

    Raises:
        InputError: another number.

    Example:
        >>> check_bits(16, name="VAE")
        torch.uint16
    """
    if bits not in (8, 16):
        raise InputError(f"{name}: bits must be 8 or 16, got {bits}")
    return torch.uint8 if bits == 8 else torch.uint16


def shape_of(patches: PatchDataset, *, painter: str, volumes: bool = False) -> dict[str, int]:
    """The resolution, channels and bits of a dataset, as constructors take them; of volumes also the dimensions, 3.

    Args:
        patches: the dataset.
        painter: the kind of generator, for messages.
        volumes: whether that kind draws volumes.

    Raises:
        InputError: patches that are not square, volumes that are no cubes, or volumes for a kind that draws none.
    """
    if not volumes:
        refuse_volumes(patches, painter=painter)
    _, channels, *sides = patches.images.shape
    if len(set(sides)) > 1:
        drawn = "squares" if len(sides) == 2 else "cubes"
        raise InputError(
            f"the patches are {'x'.join(map(str, sides))}, and a {painter} draws {drawn}: give --size (with --fit crop "
            "or pad)"
        )
    shape = {"resolution": sides[0], "channels": channels, "bits": 8 * patches.images.dtype.itemsize}
    return shape if len(sides) == 2 else {**shape, "dimensions": len(sides)}


def refuse_volumes(patches: PatchDataset, *, painter: str) -> None:
    """Refuse volumes ``(N, C, D, H, W)`` for a kind of generator that draws two-dimensional images alone.

    Raises:
        InputError: they are volumes.
    """
    if patches.dimensions != 2:
        raise InputError(
            f"{painter}: draws two-dimensional images, and {patches.name} holds volumes of "
            f"{' x '.join(map(str, patches.images.shape[1:]))}: train a DCGAN, which draws volumes too, or cut 2.5-D "
            "patches from the scans (genmix patches --kind 2.5d)"
        )


def refuse_fixed(source: str | Path, asked: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Refuse options that given weights fix otherwise.

    Args:
        source: where the weights are, for the message.
        asked: options by name; None is one that was left out.
        fixed: the values that the weights have.

    Raises:
        InputError: another value.
    """
    for name, value in asked.items():
        if value is not None and name in fixed and value != fixed[name]:
            raise InputError(
                f"{source}: its weights have {name} {fixed[name]!r}, and {value!r} was asked for; leave {name} out, or "
                "train from scratch"
            )


Labels = Tensor | Sequence[int] | Sequence[Sequence[float]]
"""What :meth:`Generator.sample` takes as labels: indices of classes ``(n,)``, or weights of the classes ``(n, K)``."""

ROW_TOLERANCE = 1e-3
"""How far from 1 the sum of a soft label may be: rows of 16-bit floats round so much."""


def check_labels_and_seeds(
    labels: Labels,
    seeds: Tensor | Sequence[int],
    *,
    classes: Sequence[str],
    refuses_rows: str | None = "this kind takes indices of classes alone",
) -> tuple[Tensor, Tensor]:
    """Check what :meth:`Generator.sample` is given.

    Args:
        labels: ``(n,)``, indices of classes; or floats ``(n, K)``, a row of weights for each image.
        seeds: ``(n,)``, whole numbers, non-negative.
        classes: the names of the K classes.
        refuses_rows: why there can be no rows of weights; None: there can.

    Returns:
        The labels, int64 ``(n,)`` or float32 ``(n, K)``, and the seeds, int64 ``(n,)``; on the CPU.

    Raises:
        InputError: labels that are no classes or no weights, seeds that are negative or no whole numbers, or not one
            seed for each label.

    Example:
        >>> check_labels_and_seeds([0, 1], [7, 8], classes=["cyst", "metastasis"])
        (tensor([0, 1]), tensor([7, 8]))
    """
    try:
        labels = torch.as_tensor(labels, device="cpu")
        seeds = torch.as_tensor(seeds, device="cpu")
        labels, seeds = (
            values.long() if values.dtype in (torch.uint16, torch.uint32, torch.uint64) else values
            for values in (labels, seeds)
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"sample: labels and seeds must be whole numbers below 2**63 ({error})") from error
    soft = labels.ndim == 2 and labels.is_floating_point()
    if soft:
        labels = _checked_rows(labels, classes=classes, refuses=refuses_rows)
    for name, values in (("seeds", seeds),) if soft else (("labels", labels), ("seeds", seeds)):
        if values.ndim != 1 or (values.numel() and (values.is_floating_point() or values.dtype == torch.bool)):
            raise InputError(
                f"sample: {name} must be whole numbers of shape (n,), got {values.dtype} of shape {tuple(values.shape)}"
                + ("; a soft label is a row of floats, one weight a class" if name == "labels" else "")
            )
    if len(labels) != len(seeds):
        raise InputError(f"sample: one seed for each label, got {len(labels)} labels and {len(seeds)} seeds")
    if not soft and labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise InputError(
            f"sample: labels run from {int(labels.min())} to {int(labels.max())}, "
            f"but the classes are {', '.join(f'{number} {name}' for number, name in enumerate(classes))}"
        )
    if seeds.numel() and int(seeds.min()) < 0:
        raise InputError(f"sample: seeds must not be negative, got {int(seeds.min())}")
    return labels if soft else labels.long(), seeds.long()


def _checked_rows(rows: Tensor, *, classes: Sequence[str], refuses: str | None) -> Tensor:
    """Soft labels as float32 ``(n, K)``."""
    if refuses is not None:
        raise InputError(f"sample: labels are rows of weights, and {refuses}: give whole numbers of shape (n,)")
    if rows.shape[1] != len(classes):
        raise InputError(
            f"sample: a soft label needs a weight for each of the {len(classes)} classes ({', '.join(classes)}), "
            f"got rows of {rows.shape[1]}"
        )
    if not bool(rows.isfinite().all()):
        raise InputError("sample: the weights of a soft label must be numbers, got NaN or infinity")
    if bool((rows < 0).any()):
        raise InputError(f"sample: the weights of a soft label must not be negative, got {float(rows.min()):g}")
    sums = rows.double().sum(dim=1)
    wrong = ((sums - 1).abs() > ROW_TOLERANCE).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise InputError(
            f"sample: the weights of a soft label must sum to 1, row {first} sums to {float(sums[first]):g}; divide "
            "each row by its sum"
        )
    return rows.float()
