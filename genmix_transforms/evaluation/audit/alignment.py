"""The exact comparison of candidates: turned, zoomed and shifted until they lie best, by FFT cross-correlation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from genmix_transforms.evaluation.audit.correlation import Candidates
from genmix_transforms.evaluation.audit.transformations import (
    FLIPS_AND_QUARTERS,
    WARPS,
    box,
    flip_and_turn,
    margin,
    warp,
)

_CROSS = ((-1, 0), (1, 0), (0, -1), (0, 1))
_STEPS = (
    (2.5, 0.035, (*_CROSS, (-1, -1), (-1, 1), (1, -1), (1, 1))),
    (1.2, 0.016, _CROSS),
)
"""Degrees and shares of zoom to the sides of the best so far, and which sides: half of the coarse grid's spacing, then
half of that."""

_WORTH = 1e-3
"""By so much more a turned or zoomed image must correlate: what is upright is said to be upright."""

_SOME = 256
"""Pairs that are aligned at a time."""


@dataclass(frozen=True)
class Aligned:
    """How well pairs correlate where they lie best, and how that is.

    Args:
        correlation: float32 ``(P,)``, from -1 to 1, the one that is largest in its absolute value.
        angle: float32 ``(P,)``, degrees.
        zoom: float32 ``(P,)``, times.
        shift: float32 ``(P, 2)``, down and right, as shares of the side.
    """

    correlation: Tensor
    angle: Tensor
    zoom: Tensor
    shift: Tensor

    def take(self, index: Tensor) -> "Aligned":
        """Some of the pairs."""
        return Aligned(self.correlation[index], self.angle[index], self.zoom[index], self.shift[index])

    def replaced(self, index: Tensor, by: "Aligned") -> "Aligned":
        """The same with some pairs measured otherwise."""
        changed = Aligned(*(getattr(self, name).clone() for name in self.__dataclass_fields__))
        for name in self.__dataclass_fields__:
            getattr(changed, name)[index] = getattr(by, name)
        return changed


def align(queries: Tensor, references: Tensor, candidates: Candidates, *, warped: bool) -> Aligned:
    """Turn, zoom and shift each candidate's query until it correlates best with its reference.

    Args:
        queries: detail, float32 ``(N, C, S, S)``.
        references: detail, float32 ``(M, C, S, S)``.
        candidates: pairs of both, of one part each.
        warped: try turns and zooms about those of the coarse search too; otherwise shifts alone.
    """
    count, device = len(candidates.query), queries.device
    values = torch.zeros(5, count, device=device)
    for part in candidates.part.unique().tolist():
        for turned in range(FLIPS_AND_QUARTERS):
            wanted = (candidates.part == part) & (candidates.turned == turned)
            for some in wanted.nonzero().flatten().split(_SOME):
                if not len(some):
                    continue
                pairs = candidates.take(some)
                lying = flip_and_turn(queries[pairs.query], turned)
                values[:, some] = _best(lying, references[pairs.reference], pairs.warped, part, warped)
    return Aligned(values[0], values[1], values[2], values[3:].T.contiguous())


def _best(lying: Tensor, over: Tensor, start: Tensor, part: int, warped: bool) -> Tensor:
    correlation = _Correlation(over, part)
    grid = torch.tensor(WARPS, device=lying.device)[start]
    best = _measure(correlation, lying, grid[:, 0], grid[:, 1])
    if not warped:
        return _between_pixels(correlation, lying, best) if part else best
    for turn, zoom, sides in _STEPS:
        angle_here, zoom_here = best[1].clone(), best[2].clone()
        for turns, zooms in sides:
            tried = _measure(correlation, lying, angle_here + turns * turn, zoom_here * (1 + zooms * zoom))
            best = torch.where(tried[0].abs() > best[0].abs() + _WORTH, tried, best)
    return _between_pixels(correlation, lying, best)


def _between_pixels(correlation: "_Correlation", lying: Tensor, best: Tensor) -> Tensor:
    """The same with shifts by half pixels, at the turn and zoom that are best already."""
    angle, zoom = best[1].clone(), best[2].clone()
    for move in ((0.5, 0.0), (0.0, 0.5), (0.5, 0.5)):
        tried = _measure(correlation, lying, angle, zoom, move=move)
        best = torch.where(tried[0].abs() > best[0].abs(), tried, best)
    return best


def _measure(
    correlation: "_Correlation", lying: Tensor, angle: Tensor, zoom: Tensor, *, move: tuple[float, float] = (0.0, 0.0)
) -> Tensor:
    still = move == (0.0, 0.0) and bool(((angle == 0) & (zoom == 1)).all())
    value, shift = correlation.of(lying if still else warp(lying, angle, zoom, move=move))
    down, right = (shift[:, axis] + move[axis] / correlation.side for axis in (0, 1))
    return torch.stack([value, angle, zoom, down, right])


class _Correlation:
    """Normalized cross-correlation of templates with one part of each of as many images, at every shift.

    Means and lengths are those of what lies under the template (Lewis, "Fast normalized cross-correlation", 1995).
    """

    def __init__(self, over: Tensor, part: int) -> None:
        self.side = over.shape[-1]
        self.border = margin(self.side)
        self.rows, self.columns = box(part, self.side, self.border)
        mask = torch.zeros(self.side, self.side, device=over.device)
        mask[self.rows, self.columns] = 1
        self.size = int(mask.sum()) * over.shape[1]
        self.spectrum = torch.fft.rfft2(over)
        under = torch.fft.rfft2(mask).conj()
        total = self._near(self.spectrum.sum(dim=1) * under)
        squares = self._near(torch.fft.rfft2(over.square().sum(dim=1)) * under)
        self.length = (squares - total.square() / self.size).clamp_min(0).sqrt()

    def _near(self, spectrum: Tensor) -> Tensor:
        """The values at shifts from -border to border: the template never leaves the image, so nothing wraps."""
        values: Tensor = torch.fft.irfft2(spectrum, s=(self.side, self.side))
        near = torch.arange(-self.border, self.border + 1, device=values.device) % self.side
        return values[:, near][:, :, near]

    def of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The correlation that is largest in its absolute value ``(P,)``, and its shift ``(P, 2)``."""
        inner = images[..., self.rows, self.columns]
        inner = inner - inner.mean(dim=(1, 2, 3), keepdim=True)
        template = torch.zeros_like(images)
        template[..., self.rows, self.columns] = inner
        length = template.flatten(1).norm(dim=1)[:, None, None] * self.length
        products = self._near((self.spectrum * torch.fft.rfft2(template).conj()).sum(dim=1))
        # Where either is flat there is nothing to correlate.
        values = torch.where(length > 1e-2, products / length.clamp_min(1e-2), torch.zeros_like(products)).flatten(1)
        place = values.abs().argmax(dim=1)
        width = 2 * self.border + 1
        shift = torch.stack([place // width, place % width], dim=1) - self.border
        return values.gather(1, place[:, None])[:, 0].clamp(-1, 1), shift / self.side
