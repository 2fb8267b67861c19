"""Modeled lesions of known truth in real liver parenchyma: a benchmark with a real scanner's noise."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.data.drawn_lesions import CLASSES, PAPER_COUNTS, DrawnLesions
from genmix_transforms.data.liver_lesions import draw_lesion, render_footprint
from genmix_transforms.data.liver_parenchyma import SURFACE
from genmix_transforms.data.liver_slices import LiverSlices, LiverWindows, Place
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.phantom_lesions import DIAMETERS
from genmix_transforms.data.phantom_scanner import Array
from genmix_transforms.data.splitting import SPLITS, SplitName
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed

_NAME = "LiverLesionSimulator"

# What a random stream is for: the first word of its seed, apart from the phantom's.
_PATIENTS, _LESIONS = 10, 11


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedLesion:
    """A lesion in its window, and the truth about it.

    Args:
        image: ``(size, size)``, float32, HU, neither windowed nor rounded.
        background: ``(size, size)``, float32, HU: the same window before the lesion was placed.
        coverage: ``(size, size)``, float32 in [0, 1], the lesion's share of each pixel; where it is 0, ``image`` is
            ``background``.
        label: the class.
        diameter: the longest, of the modeled lesion, mm; by partial volume less may be seen.
        place: slice, row and column of the lesion's center in the source; pixel ``(size // 2, size // 2)`` here.
    """

    image: Array
    background: Array
    coverage: Array
    label: str
    diameter: float
    place: Place

    @property
    def mask(self) -> NDArray[np.bool_]:
        """``(size, size)``: the pixels that are lesion by half or more."""
        covered: NDArray[np.bool_] = self.coverage >= 0.5
        return covered


@dataclass(frozen=True, eq=False)
class LiverLesionSimulator(DrawnLesions):
    """Focal liver lesions drawn into real livers: cysts, hemangiomas and metastases of known truth.

    The parenchyma, its vessels and the scanner's noise are real; the lesions are those of
    :class:`~genmix_transforms.data.LesionPhantom`. With a public liver CT (LiTS, Medical Segmentation Decathlon task 3)
    it stands in for the paper's private data set, with that set's split sizes and class counts. It is *no* substitute
    for clinical data: what the lesions look like is a model.

    - *Window*: ``size`` x ``size`` pixels of one slice as they are, not resampled, the lesion in the middle. The lesion
      and a margin of 2 mm lie in parenchyma; the window may reach beyond the liver, but not beyond the slice.
    - *Parenchyma*: pixels of the mask, more than 2 pixels off its border, whose brightness after smoothing is within
      15 HU (or 1.2 standard deviations of the noise) of the liver's median. A window in which 5 or more pixels
      of the liver are darker is not used: it may show a lesion that was there before.
    - *Lesion*: as large as the phantom's (6 to 40 mm), its contrast relative to the parenchyma about it, averaged over
      a slice of 3 to 5 mm and blurred by a point spread, so that it shares its border pixels with the liver.
    - *Noise*: that of the window. The lesion replaces what lies under it all but the noise (the image less its smoothed
      self), so that grain, streaks and kernel go on through it. Pixels that it does not cover stay as they are.
    - *Patients*: parted among the splits at random, in the proportion of the paper's (53, 23 and 24 %), whatever the
      counts. A lesion's patient, slice and place depend on its class only through the room that it needs.

    An image depends on the slices, ``size``, ``largest``, ``seed``, split, label and number alone: asking for more
    images changes none of them.

    Args:
        source: the ``.npz`` to read (see :meth:`LiverSlices.open`), or slices in memory.
        size: side of the square windows, pixels, at least 16; at 1.5 mm a pixel, 32 are 48 mm.
        seed: another seed, other lesions in other places; at least 0.
        train: how many cysts, hemangiomas and metastases the training split has; the paper's 433, 70, 178 by default.
        val: the same for the validation split: 115, 30, 157.
        test: the same for the test split: 128, 30, 149.
        largest: longest diameter of a lesion, mm, from 6 to 40. None: 40, or what fits the window if that is less.
        level: center of the window that gray values are stored through, HU.
        width: of that window, HU: ``level - width / 2`` becomes gray 0 and ``level + width / 2`` gray 255 (by default
            0 and 255 HU: a gray value is a Hounsfield unit), what lies beyond is clipped.

    Raises:
        MissingPathError: no such file.
        InputError: slices that cannot be used, fewer than three patients, no room for the largest lesion in some split,
            a size below 16 or larger than the slices, a negative seed, counts that are not three numbers from 0 up, all
            counts 0, or a window without width.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = rng.normal(100, 15, (6, 64, 64)).astype(np.float32)  # in earnest, a CT's
        >>> masks = np.ones(images.shape, dtype=bool)
        >>> slices = LiverSlices(images=images, masks=masks, patients=np.arange(6))
        >>> simulator = LiverLesionSimulator(slices, train=(4, 2, 3), val=(1, 1, 1), test=(1, 1, 1), largest=20)
        >>> simulator.dataset()
        liver lesion simulator: 15 patches, 1 x 32 x 32 (cyst 6, hemangioma 4, metastasis 5)
        >>> simulator.masks().shape
        torch.Size([15, 32, 32])
    """

    source: str | Path | LiverSlices
    _: KW_ONLY
    size: int = 32
    largest: float | None = None
    level: float = 127.5
    width: float = 255.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed, name=f"{_NAME}: seed")
        if not isinstance(self.source, str | Path | LiverSlices):
            raise InputError(
                f"{_NAME}: source must be the path of an .npz or LiverSlices(images=..., masks=..., patients=...), "
                f"got {type(self.source).__name__}"
            )
        if not isinstance(self.source, LiverSlices):
            object.__setattr__(self, "source", LiverSlices.open(self.source))
        self._check_slices()
        object.__setattr__(self, "largest", self._checked_largest())
        for split in SPLITS:
            if sum(getattr(self, split)):
                self._check_room(split)

    @property
    def slices(self) -> LiverSlices:
        """The CT slices that the parenchyma is taken from."""
        assert isinstance(self.source, LiverSlices)
        return self.source

    @cached_property
    def patients(self) -> dict[str, tuple[int, ...] | tuple[str, ...]]:
        """The patients of each split, by the names that the slices give them."""
        names = np.unique(self.slices.patients)
        order = np.random.default_rng([_PATIENTS, self.seed]).permutation(len(names))
        ends = np.cumsum(share_out(len(names), [sum(counts) for counts in PAPER_COUNTS.values()]))
        parts = np.split(order, ends[:-1])
        return {split: tuple(names[np.sort(part)].tolist()) for split, part in zip(SPLITS, parts, strict=True)}

    def lesion(self, label: int | str, number: int, *, split: SplitName = "train") -> SimulatedLesion:
        """Draw one lesion into a window.

        Args:
            label: the class, by name or by its index in cyst, hemangioma, metastasis.
            number: which lesion of that class and split, from 0 up; it may lie beyond the counts of the data set.
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            The window with the lesion, the window before, and the truth.

        Raises:
            InputError: no such class, split or number, or no room for it (only in a split whose counts are 0).
        """
        split_index, label_index, number = self._asked("lesion", label, number, split)
        rng = np.random.default_rng([_LESIONS, split_index, label_index, number, self.seed])
        name = CLASSES[label_index]
        outline, thickness = draw_lesion(name, rng, largest=self._largest)
        place = self._windows.find(self._slices_of[split], outline.diameter, rng)
        if place is None:
            raise self._no_room(split, outline.diameter)
        window = self._windows.cut(place)
        spacing = self.slices.spacing_of(place.slice)
        footprint = render_footprint(
            name,
            outline,
            rng,
            thickness=thickness,
            level=float(window.structure[disc(self.size, outline.radius / spacing)].mean()),
            size=self.size,
            pixel_spacing=spacing,
        )
        # A feeding vessel ends where the liver does; the lesion itself lies further in.
        fade = np.clip(window.depth / np.float32(SURFACE), 0, 1)
        coverage, content = footprint.coverage * fade, footprint.content * fade
        # What the lesion covers it replaces, all but the noise, which goes on through it.
        image = window.image + content + coverage * (window.noise - window.image)
        return SimulatedLesion(
            image=np.where(coverage > 0, image, window.image),
            background=window.image,
            coverage=coverage,
            label=name,
            diameter=outline.diameter,
            place=place,
        )

    def render(self, label: int | str, number: int, *, split: SplitName = "train") -> Array:
        """Draw one window: :meth:`lesion`'s image, ``(size, size)``, float32, HU, neither windowed nor rounded."""
        return self.lesion(label, number, split=split).image

    def dataset(self) -> PatchDataset:
        """Draw all lesions of all splits.

        Returns:
            uint8 ``(N, 1, size, size)`` through the window; sorted by split, class and number; ``official`` has the
            split, ``groups`` the patient, who is in one split only.
        """
        patients = self.slices.patients[[lesion.place.slice for lesion in self.lesions]]
        source = f"windows of {self.slices.name}, {len(np.unique(patients))} patients"
        return self._patches(
            (lesion.image for lesion in self.lesions),
            patients,
            name="liver lesion simulator",
            notes=(f"modelled lesions in real liver: {source}",),
        )

    def masks(self) -> Tensor:
        """Which pixels are lesion by half or more: bool ``(N, size, size)``, in the order of :meth:`dataset`."""
        return torch.from_numpy(np.stack([lesion.mask for lesion in self.lesions]))

    @cached_property
    def lesions(self) -> tuple[SimulatedLesion, ...]:
        """All lesions of all splits, in the order of :meth:`dataset`; drawn once."""
        return tuple(self.lesion(label, number, split=SPLITS[split]) for split, label, number in self._each())

    @property
    def _largest(self) -> float:
        assert self.largest is not None
        return self.largest

    def _check_slices(self) -> None:
        count, *shape = self.slices.images.shape
        if self.size > min(shape):
            raise InputError(
                f"{_NAME}: size {self.size} is larger than the slices of {self.slices.name}, "
                f"{shape[0]} x {shape[1]} pixels; give a smaller one"
            )
        if (patients := len(np.unique(self.slices.patients))) < len(SPLITS):
            raise InputError(
                f"{_NAME}: {self.slices.name} has {count} slices of {patients} patients; at least {len(SPLITS)} "
                f"patients are needed, for none is in two of {', '.join(SPLITS)}"
            )

    def _checked_largest(self) -> float:
        smallest, greatest = DIAMETERS
        fits = (self.size - 4) * float(np.asarray(self.slices.pixel_spacing).min())
        if fits < smallest:
            raise InputError(
                f"{_NAME}: a window of {self.size} pixels holds lesions of {fits:.3g} mm, and the smallest has "
                f"{smallest:g} mm; give a larger size"
            )
        greatest = min(greatest, fits)
        if self.largest is None:
            return greatest
        if not isinstance(self.largest, Real) or not smallest <= self.largest <= greatest:
            raise InputError(
                f"{_NAME}: largest must be a diameter from {smallest:g} to {greatest:.3g} mm (what a window of "
                f"{self.size} pixels holds), got {self.largest!r}"
            )
        return float(self.largest)

    def _check_room(self, split: SplitName) -> None:
        if not any(len(self._windows.sites(where, self._largest)) for where in self._slices_of[split].tolist()):
            raise self._no_room(split, self._largest)

    def _no_room(self, split: SplitName, diameter: float) -> InputError:
        fits = self._windows.largest_fitting(self._slices_of[split], least=DIAMETERS[0], most=diameter)
        way_out = (
            f"give more patients, or another seed (which parts them otherwise), or largest={fits}, which fits"
            if fits
            else "give more patients, a smaller size, or another seed (which parts them otherwise)"
        )
        return InputError(
            f"{_NAME}: none of the {len(self.patients[split])} patients of the {split} split has parenchyma for a "
            f"lesion of {diameter:.3g} mm in a window of {self.size} pixels; {way_out}"
        )

    @cached_property
    def _slices_of(self) -> dict[str, NDArray[np.int64]]:
        """The slices of each split."""
        return {
            split: np.flatnonzero(np.isin(self.slices.patients, patients)) for split, patients in self.patients.items()
        }

    @cached_property
    def _windows(self) -> LiverWindows:
        return LiverWindows(slices=self.slices, size=self.size, largest=self._largest)


def share_out(count: int, weights: Sequence[int]) -> NDArray[np.int64]:
    """Share ``count`` out in proportion to ``weights``: whole numbers, each at least 1, by the largest remainders."""
    exact = np.asarray(weights) * (count / sum(weights))
    shares = np.maximum(exact.astype(np.int64), 1)
    while shares.sum() != count:
        step = 1 if shares.sum() < count else -1
        miss = step * (exact - shares)
        if step < 0:
            miss[shares == 1] = -np.inf
        shares[int(np.argmax(miss))] += step
    return shares


def disc(size: int, radius: float) -> NDArray[np.bool_]:
    """The pixels of a window within ``radius`` pixels of its center, ``(size, size)``, at least that one."""
    axis = np.arange(size) - size // 2
    inside: NDArray[np.bool_] = np.hypot(axis[:, None], axis[None, :]) <= radius
    return inside
