"""A procedural CT model of focal liver lesions: the embedded default data set, with nothing to download."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.data.drawn_lesions import CLASSES, PAPER_COUNTS, DrawnLesions
from genmix_transforms.data.identity import text_hashes
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.phantom_lesions import LESIONS, Liver, Outline, paint_parenchyma, paint_vessels
from genmix_transforms.data.phantom_scanner import SLICE_LEVELS, Array, DrawnScan, Grid, Scan, crop
from genmix_transforms.data.splitting import SPLITS, SplitName
from genmix_transforms.errors import InputError
from genmix_transforms.files.memory import check_image_memory

_NAME = "lesion phantom"

LESIONS_PER_PATIENT = (0.25, 0.23, 0.22, 0.30)
"""Shares of patients with 1, 2, 3 and 4 lesions: 2.57 on average, as the paper's 1,290 lesions of 502 patients."""

SAME_CLASS = 0.6
"""Chance that a patient's further lesion is of the first one's class whatever the prevalence: lesions come in kind."""

# What a random stream is for: the first word of its seed. The user's seed, which may be long, stands last, so that no
# two streams share a seed sequence.
_PATIENTS, _SCANS, _IMAGES = range(3)

_DAYS_OF_SPLIT = 300


@dataclass(frozen=True, kw_only=True)
class LesionPhantom(DrawnLesions):
    """Focal liver lesions in portal-venous CT, drawn by a model: cysts, hemangiomas and metastases.

    It stands in for the paper's private data set with that set's split sizes and class counts, so that everything in
    this package can be tried without a download. It is *no* substitute for clinical data: accuracies on it say
    whether a method works as built, not how well it would do in a hospital.

    What is modeled, in millimeters and Hounsfield units (HU), one axial slice through the middle of each lesion:

    - *Liver*: parenchyma of 100 HU (10 HU standard deviation between patients), faintly uneven; branching veins 30 to
      60 HU brighter, along the slice and across it.
    - *Cyst*: 0 to 20 HU without texture, round, sharp border; one in five dense (20 to 55 HU) and often less sharp.
    - *Hemangioma*: bright (140 to 200 HU) discontinuous nodules along the wall around a hypodense center, lobulated,
      often with a feeding vessel; one in four barely nodular, some small ones evenly filled.
    - *Metastasis*: 40 to 75 HU behind an indistinct, ragged border; uneven, half of them necrotic, two in
      five with a rim; one in four homogeneous.
    - *Size*: diameters of 6 to 40 mm, log-normal, medians 11 mm (cysts) and 17 mm: sizes overlap, and
      slices of 3 to 5 mm average a small lesion with the liver above and below it (partial volume), so that small
      lesions look alike.
    - *Scanner*: pixels of 0.5 to 0.8 mm as in the paper, a point spread, and noise with the spectrum of filtered
      back-projection. In parenchyma at 1.5 mm a pixel its standard deviation is 13 HU (5 to 95 % of patients: 9 to 19)
      and neighbors correlate by 0.44 along rows and 0.38 along columns; in real scans, mostly of thinner slices, the
      same figures are 17 HU (9 to 25), 0.50 and 0.38 (each after its slow trend is taken out).

    The patch is the lesion's bounding box with a margin, as the paper's patches are cropped around lesions: its side is
    1.2 diameters + 12 mm (19 to 60 mm), so a small lesion stays the smaller one in its patch. The scene is rendered
    on the CT matrix and then resampled, so every ``size`` shows the same content, noise included. Not modeled: other
    phases than the portal-venous, the liver's surface and neighbors, several lesions in one patch, motion, metal.

    An image depends on ``seed``, split, label and number alone: asking for more images, or for another size, changes
    none of them.

    Args:
        size: side of the square patches, pixels, at least 16.
        seed: another seed, other patients; at least 0.
        train: how many cysts, hemangiomas and metastases the training split has; the paper's 433, 70, 178 by default.
        val: the same for the validation split: 115, 30, 157.
        test: the same for the test split: 128, 30, 149.
        level: center of the window that gray values are stored through, HU.
        width: of that window, HU: ``level - width / 2`` becomes gray 0 and ``level + width / 2`` gray 255 (by default
            -40 and 220 HU, 1.02 HU a gray value), what lies beyond is clipped.
        noise: factor of the noise's standard deviation, from 0 (none) up; 1: as in real scans.
        enlarge: factor of the lesions' diameters, above 0; 1: as in patients. With ``noise=0.3, enlarge=1.6`` anyone
            tells the classes apart by eye.

    Raises:
        InputError: a size below 16, a negative seed, counts that are not three numbers from 0 up, all counts 0, a
            window without width, negative noise, or ``enlarge`` not above 0.

    Example:
        >>> phantom = LesionPhantom(size=32, train=(4, 2, 3), val=(1, 1, 1), test=(1, 1, 1))
        >>> phantom.dataset()
        lesion phantom: 15 patches, 1 x 32 x 32 (cyst 6, hemangioma 4, metastasis 5)
        >>> phantom.render("cyst", 0).shape
        (32, 32)
    """

    size: int = 64
    level: float = 90.0
    width: float = 260.0
    noise: float = 1.0
    enlarge: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (np.isfinite(self.noise) and self.noise >= 0):
            raise InputError(f"LesionPhantom: noise must be a finite factor from 0 up, got {self.noise}")
        if not (np.isfinite(self.enlarge) and self.enlarge > 0):
            raise InputError(f"LesionPhantom: enlarge must be a finite factor above 0, got {self.enlarge}")

    def render(self, label: int | str, number: int, *, split: SplitName = "train") -> Array:
        """Draw one patch.

        Args:
            label: the class, by name or by its index in cyst, hemangioma, metastasis.
            number: which lesion of that class and split, from 0 up; it may lie beyond the counts of the data set.
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            ``(size, size)``, float32, HU, neither windowed nor clipped.

        Raises:
            InputError: no such class, split or number.

        Example:
            >>> bool(LesionPhantom().render("cyst", 0)[32, 32] < 60)
            True
        """
        split_index, label_index, number = self._asked("render", label, number, split)
        scan, liver, outline, rng = self._drawn(split_index, label_index, number)
        grid = scan.grid(outline.patch_side)
        planes = _painted(label_index, grid, outline, liver, rng)
        return crop(scan.acquire(planes, grid, rng), grid, self.size)

    def scan(self, label: int | str, number: int, *, split: SplitName = "train") -> DrawnScan:
        """Draw a lesion with the liver around it as a scan of several slices, and its mask.

        It is a lesion of the same class, patient and outline as :meth:`render` draws, in another piece of liver.

        Args:
            label: as for :meth:`render`.
            number: likewise.
            split: likewise.

        Raises:
            InputError: no such class, split or number.

        Example:
            >>> scan = LesionPhantom().scan("cyst", 0)
            >>> scan.voxels.shape == scan.mask.shape, scan.voxels.dtype, np.unique(scan.mask).tolist()
            (True, dtype('int16'), [0, 1])
        """
        split_index, label_index, number = self._asked("scan", label, number, split)
        patient = int(patients_of(self.seed, split_index, label_index, number + 1)[number])
        scan, liver, outline, rng = self._drawn(split_index, label_index, number)
        slices = 2 * int(np.ceil(outline.patch_side / 2 / scan.slice_thickness)) + 1
        grid = scan.grid(outline.patch_side, slices=slices)
        planes = _painted(label_index, grid, outline, liver, rng)
        parts = planes.reshape(slices, SLICE_LEVELS, grid.count, grid.count)
        inside = outline.depth(grid).reshape(parts.shape) > 0
        return DrawnScan(
            voxels=np.rint([scan.acquire(part, grid, rng) for part in parts]).astype(np.int16),
            # Half of the slice's thickness at least, as whoever draws a contour decides.
            mask=((inside.mean(axis=1) >= 0.5) * (label_index + 1)).astype(np.uint8),
            spacing=(scan.slice_thickness, scan.pixel_spacing, scan.pixel_spacing),
            name=f"{split}-{CLASSES[label_index]}-{number:04}",
            patient=f"phantom-{self.seed}-{split}-{patient:04}",
            # Who trains came first, who tests last, as in the paper's split by date.
            day=_DAYS_OF_SPLIT * split_index + patient % _DAYS_OF_SPLIT,
        )

    def _drawn(self, split: int, label: int, number: int) -> tuple[Scan, Liver, Outline, np.random.Generator]:
        """How the lesion's patient is scanned, the liver, the outline, and the random stream of what is painted."""
        patient = int(patients_of(self.seed, split, label, number + 1)[number])
        scan, liver = draw_patient(self.seed, split, patient)
        rng = np.random.default_rng([_IMAGES, split, label, number, self.seed])
        outline = LESIONS[CLASSES[label]][0](rng)
        return (
            replace(scan, noise=self.noise * scan.noise),
            liver,
            replace(outline, diameter=self.enlarge * outline.diameter),
            rng,
        )

    def write_scans(self, folder: str | Path, *, format: Literal["dicom", "nifti"] = "dicom") -> None:
        """Write all lesions of all splits as scans, each with its mask: what ``genmix patches`` reads.

        A lesion is a scan of its own: a DICOM series with a DICOM-SEG, in a folder, or two NIfTI files. Mask values are
        1 (cyst), 2 (hemangioma) and 3 (metastasis). Needs the extra ``volumes``.

        Args:
            folder: a new one, or an empty one.
            format: "dicom" or "nifti". NIfTI files say neither who nor when: ``scans.csv`` beside them does.

        Raises:
            OverwriteError: the folder has files in it.
            InputError: another format.

        Example:
            >>> phantom = LesionPhantom(train=(1, 0, 1), val=(1, 0, 1), test=(1, 0, 1))
            >>> phantom.write_scans("scans")  # doctest: +SKIP
        """
        from genmix_transforms.data.volumes.writing import write_drawn

        write_drawn(
            (self.scan(label, number, split=SPLITS[split]) for split, label, number in self._each()),
            Path(folder),
            format=format,
            classes=CLASSES,
        )

    def dataset(self) -> PatchDataset:
        """Draw all patches of all splits.

        Returns:
            uint8 ``(N, 1, size, size)`` through the window; sorted by split, class and number; ``official`` has the
            split, ``groups`` the patient (1 to 4 lesions, of one or several classes, all in one split).
        """
        check_image_memory((len(self.wanted), 1, self.size, self.size), itemsize=1, name=_NAME)
        streams = {
            (split, label): patients_of(self.seed, split, label, getattr(self, SPLITS[split])[label])
            for split, label, _ in self.wanted
        }
        return self._patches(
            (self.render(label, number, split=SPLITS[split]) for split, label, number in self._each()),
            np.array([(split, streams[split, label][number]) for split, label, number in self.wanted]),
            name=_NAME,
            # Of what is drawn, whatever the size and the window: a split of the phantom is one for every size.
            source_hashes=text_hashes(
                f"{_NAME} {self.seed}: {split} {label} {number}" for split, label, number in self.wanted
            ),
        )


def _painted(label: int, grid: Grid, outline: Outline, liver: Liver, rng: np.random.Generator) -> Array:
    """The lesion in its liver on the planes of a grid, HU."""
    planes = paint_parenchyma(grid, liver, rng)
    paint_vessels(planes, grid, liver, rng)
    LESIONS[CLASSES[label]][1](planes, grid, outline, liver, rng)
    return planes


def draw_patient(seed: int, split: int, patient: int) -> tuple[Scan, Liver]:
    """How patient number ``patient`` of a split was scanned, and the liver: the same for all lesions of the patient."""
    rng = np.random.default_rng([_SCANS, split, patient, seed])
    scan = Scan(
        pixel_spacing=float(rng.uniform(0.5, 0.8)),
        slice_thickness=float(rng.uniform(3, 5)),
        blur=float(rng.uniform(0.4, 0.6)),
        noise=float(np.clip(15 * np.exp(0.25 * rng.standard_normal()), 7, 26)),
        cutoff=float(rng.uniform(0.18, 0.26)),
        anisotropy=float(rng.uniform(1.0, 1.2)),
    )
    parenchyma = float(np.clip(rng.normal(100, 10), 75, 130))
    return scan, Liver(parenchyma=parenchyma, vessels=parenchyma + float(rng.uniform(30, 60)))


def patients_of(seed: int, split: int, label: int, count: int) -> NDArray[np.int64]:
    """The patients of the first lesions of a class.

    Patients come in a stream of their own, each with its 1 to 4 lesions; lesion number k of a class is the k-th of that
    class in the stream. Counts then only say where to stop, so that no count changes whose lesion another one is.

    Returns:
        ``(count or more,)``, int64, numbers of the patients, ascending.
    """
    patients = 256
    while len(_stream(seed, split, patients)[label]) < count:
        patients *= 2
    return _stream(seed, split, patients)[label]


@lru_cache(maxsize=64)
def _stream(seed: int, split: int, patients: int) -> tuple[NDArray[np.int64], ...]:
    """For each class, the patient of each of its lesions, among the first so many patients of a split."""
    most = len(LESIONS_PER_PATIENT)
    # A row a patient: with more patients, the first ones stay as they were.
    draws = np.random.default_rng([_PATIENTS, split, seed]).random((patients, 1 + 2 * most))
    lesions = 1 + np.searchsorted(np.cumsum(LESIONS_PER_PATIENT)[:-1], draws[:, 0], side="right")
    counts = np.cumsum(PAPER_COUNTS[SPLITS[split]])
    label = np.searchsorted(counts[:-1] / counts[-1], draws[:, 1 : 1 + most], side="right")
    label = np.where(draws[:, 1 + most :] < SAME_CLASS, label[:, :1], label)
    patient, slot = np.nonzero(np.arange(most) < lesions[:, None])
    return tuple(patient[label[patient, slot] == number] for number in range(len(CLASSES)))
