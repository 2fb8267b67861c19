"""How real a bank's images are: KID, FID where it means something, precision, recall, density and coverage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.halving import Halving, Numbers
from genmix_transforms.evaluation.audit.measured import Measured, from_draws

NEAREST = 5
"""Neighbors that make an image's neighborhood: Naeem et al.'s choice."""

IMAGES_PER_FEATURE = 2
"""A covariance of D features from fewer than so many times D images is mostly noise."""


class Prdc(NamedTuple):
    """Precision, recall, density and coverage."""

    precision: float
    """Share of synthetic images within the neighborhood of some real one: 0 to 1."""
    recall: float
    """Share of real images within the neighborhood of some synthetic one: 0 to 1."""
    density: float
    """How many real neighborhoods a synthetic image lies in, over ``k``: about 1 for real images."""
    coverage: float
    """Share of real images that have a synthetic one in their neighborhood: 0 to 1."""


def prdc(real: Tensor, synthetic: Tensor, *, nearest: int = NEAREST) -> Prdc:
    """Precision, recall, density and coverage of features.

    Args:
        real: ``(N, D)``.
        synthetic: ``(M, D)``.
        nearest: k: an image's neighborhood reaches to its k-th nearest neighbor of its own kind.

    Raises:
        InputError: no more than ``nearest`` images of a kind, or features of different lengths.

    Source: Kynkäänniemi et al., arXiv 1904.06991, section 2 (precision, recall); Naeem et al., arXiv 2002.09797, Eq. 3
        and 4 (density, coverage).

    Example:
        >>> points = torch.arange(8.0)[:, None] ** 2
        >>> prdc(points, points, nearest=2)
        Prdc(precision=1.0, recall=1.0, density=1.0, coverage=1.0)
    """
    _check(real, synthetic)
    real, synthetic = real.double(), synthetic.double()
    return _prdc(distances(real, real), distances(synthetic, synthetic), distances(real, synthetic), nearest)


def distances(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared Euclidean distances ``(N, M)``, by one matrix product; those of equal rows are 0.

    Example:
        >>> distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])).item()
        25.0
    """
    # Features of ReLUs are all positive: without their common mean the differences are not lost in the sums.
    center = theirs.mean(dim=0)
    ours, theirs = ours - center, theirs - center
    own, other = ours.square().sum(dim=1), theirs.square().sum(dim=1)
    squared = own[:, None] + other[None] - 2 * (ours @ theirs.T)
    # What rounding makes of 1 + 1 - 2 is no distance.
    return torch.where(squared <= 1e-12 * (own[:, None] + other[None]), torch.zeros_like(squared), squared)


def _prdc(real: Tensor, synthetic: Tensor, between: Tensor, nearest: int) -> Prdc:
    if min(between.shape) <= nearest:
        raise InputError(
            f"prdc: a neighborhood of {nearest} neighbors takes at least {nearest + 1} images of each kind, got "
            f"{between.shape[0]} real and {between.shape[1]} synthetic ones"
        )
    real_radius = real.kthvalue(nearest + 1, dim=1).values  # an image's nearest one is itself
    synthetic_radius = synthetic.kthvalue(nearest + 1, dim=1).values
    inside = between < real_radius[:, None]
    return Prdc(
        precision=inside.any(dim=0).double().mean().item(),
        recall=(between < synthetic_radius[None]).any(dim=1).double().mean().item(),
        density=inside.sum(dim=0).double().mean().item() / nearest,
        coverage=(between.min(dim=1).values < real_radius).double().mean().item(),
    )


def kid(real: Tensor, synthetic: Tensor) -> float:
    """The kernel distance of features: the unbiased estimate of the squared maximum mean discrepancy.

    The kernel is ``(x . y / D + 1) ** 3``. It is 0 on average for images of one distribution, and may be negative.

    Args:
        real: ``(N, D)``, at least 2 images.
        synthetic: ``(M, D)``, likewise.

    Raises:
        InputError: fewer images, or features of different lengths.

    Source: Binkowski et al., arXiv 1801.01401, section 4.

    Example:
        >>> kid(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [1.0]]))
        7.0
    """
    _check(real, synthetic)
    real, synthetic = real.double(), synthetic.double()
    return _kid(kernel(real, real), kernel(synthetic, synthetic), kernel(real, synthetic))


def kernel(ours: Tensor, theirs: Tensor) -> Tensor:
    """KID's kernel of features ``(N, D)`` and ``(M, D)``: ``(N, M)``."""
    return (ours @ theirs.T / ours.shape[1] + 1) ** 3


def _kid(real: Tensor, synthetic: Tensor, between: Tensor) -> float:
    def without_self(values: Tensor) -> float:
        count = len(values)
        return (values.sum() - values.diagonal().sum()).item() / (count * (count - 1))

    return without_self(real) + without_self(synthetic) - 2 * between.mean().item()


def fid(real: Tensor, synthetic: Tensor) -> float:
    """The Fréchet distance of features, where there are enough images for their covariance.

    Args:
        real: ``(N, D)``.
        synthetic: ``(M, D)``.

    Raises:
        InputError: fewer than 2 D images of a kind: the covariances are then mostly noise, and FID with them; or
            features of different lengths.

    Source: Heusel et al., arXiv 1706.08500, Eq. 6.

    Example:
        >>> points = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> round(fid(points, points + 2), 6)
        12.0
    """
    _check(real, synthetic)
    if reason := fid_refused(min(len(real), len(synthetic)), real.shape[1]):
        raise InputError(f"fid: {reason}")
    real, synthetic = real.double(), synthetic.double()
    ours, theirs = torch.cov(real.T).reshape(real.shape[1], -1), torch.cov(synthetic.T).reshape(real.shape[1], -1)
    # The trace of the root of a product of covariances, by symmetric matrices alone.
    values, vectors = torch.linalg.eigh(ours)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    crossed = torch.linalg.eigvalsh(root @ theirs @ root).clamp_min(0).sqrt().sum()
    apart = (real.mean(dim=0) - synthetic.mean(dim=0)).square().sum()
    return float(apart + ours.trace() + theirs.trace() - 2 * crossed)


def fid_refused(images: int, features: int) -> str:
    """Why there is no FID from so many images of a kind; empty if there is one.

    Example:
        >>> fid_refused(3000, 1280), fid_refused(100, 1280)[:36]
        ('', 'FID of 1280 features needs at least ')
    """
    least = IMAGES_PER_FEATURE * features
    if images >= least:
        return ""
    return (
        f"FID of {features} features needs at least {least} images of each kind, there are {images}: their covariance "
        "would be mostly noise; KID has no such limit"
    )


def _check(real: Tensor, synthetic: Tensor) -> None:
    if real.ndim != 2 or synthetic.ndim != 2 or real.shape[1] != synthetic.shape[1]:
        raise InputError(
            f"features must be (N, D) and (M, D), got {tuple(real.shape)} and {tuple(synthetic.shape)}: take both with "
            "one extractor"
        )
    if min(len(real), len(synthetic)) < 2:
        raise InputError(f"features of at least 2 images of each kind, got {len(real)} and {len(synthetic)}")


# Over many halvings


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """Distances and kernels of all images, so that a draw is only a choice of rows and columns.

    Args:
        real: number of real images; they come before the bank's.
        squared: distances, ``(N + M, N + M)``.
        kernel: of KID, likewise.
        features: float64 ``(N + M, D)``.
    """

    real: int
    squared: Tensor
    kernel: Tensor
    features: Tensor

    @classmethod
    def of(cls, real: Tensor, synthetic: Tensor) -> "Tables":
        """The tables of features ``(N, D)`` and ``(M, D)``."""
        _check(real, synthetic)
        together = torch.cat([real, synthetic]).double()
        return cls(
            real=len(real),
            squared=distances(together, together),
            kernel=kernel(together, together),
            features=together,
        )

    def sides(self, half: Halving) -> tuple[Numbers, Numbers, Numbers]:
        """Rows of real images, of the bank's, and of other real images."""
        return half.reference, half.bank + self.real, half.real

    @staticmethod
    def blocks(table: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A table of the first rows among themselves, of the second, and of both."""
        return table[first][:, first], table[second][:, second], table[first][:, second]


def measure_fidelity(tables: Tables, halves: Sequence[Halving], *, nearest: int = NEAREST) -> tuple[Measured, ...]:
    """KID, precision, recall, density, coverage and FID of a bank, each beside that of two halves of the real images.

    Args:
        tables: of the features of all images.
        halves: of :func:`genmix_transforms.evaluation.audit.halving.halvings`.
        nearest: see :func:`prdc`.

    Returns:
        Six numbers. One for which there are too few images is refused, with the reason.
    """
    images = min((len(half.reference) for half in halves), default=0)
    if images < 2:
        reason = "a half has fewer than 2 images: too few patients, or too few images in the bank"
        return tuple(Measured(name=name, refused=reason) for name in ("KID x 1000", *Prdc._fields, "FID"))
    pairs = [tuple(torch.from_numpy(side) for side in tables.sides(half)) for half in halves]
    found = [_over(pairs, lambda a, b: 1000 * _kid(*tables.blocks(tables.kernel, a, b)), name="KID x 1000")]
    if images <= nearest:
        reason = (
            f"a neighborhood of {nearest} neighbors takes more than {nearest} images on each side, there are {images}"
        )
        found += [Measured(name=name, refused=reason) for name in Prdc._fields]
    else:
        drawn = [
            [_prdc(*tables.blocks(tables.squared, one[0], one[side]), nearest) for one in pairs] for side in (1, 2)
        ]
        for number, name in enumerate(Prdc._fields):
            ours, real = ([one[number] for one in side] for side in drawn)
            found.append(from_draws(name, ours, real, better="like real" if name == "density" else "high"))
    if reason := fid_refused(images, tables.features.shape[1]):
        found.append(Measured(name="FID", better="low", refused=reason))
    else:
        features = tables.features
        found.append(_over(pairs[:_FID_DRAWS], lambda a, b: fid(features[a], features[b]), name="FID"))
    return tuple(found)


_FID_DRAWS = 10
"""Each takes seconds."""

_Sides = tuple[Tensor, ...]
"""Numbers of rows of the tables: real images, the bank's, other real images."""


def _over(pairs: Sequence[_Sides], number: Callable[[Tensor, Tensor], float], *, name: str) -> Measured:
    """A distance to real images: of the bank, and of other real images."""
    ours = [number(reference, bank) for reference, bank, _ in pairs]
    return from_draws(name, ours, [number(reference, real) for reference, _, real in pairs], better="low")
