"""Real, synthetic and mixed patches of every class and generator on one page: the paper's Fig. 3."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import style
from genmix_transforms.evaluation.figures.mixing import (
    Mixed,
    check_alike,
    choose,
    hard_labels,
    in_eight_bits,
    mix,
    rows_of,
    to_pixels,
)
from genmix_transforms.files.checks import check_seed, whole_number
from genmix_transforms.files.sheet import as_pictures
from genmix_transforms.transforms import GenMix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Millimeters
_MARGIN, _GAP, _CLASS_GAP, _GENERATOR_GAP, _HEADING, _NOTE = 24.0, 0.6, 3.0, 2.5, 5.0, 3.2
_LARGEST = 24.0
_LETTER = 0.95
"""The width of a letter of a note."""


def examples_figure(
    train: PatchDataset, genmix: Mapping[str, GenMix], *, per_class: int = 3, seed: int = 0
) -> "Figure":
    """Real patches of each class, and for each generator synthetic ones and what GenMix makes of the real ones.

    A mixed patch stands in the column of its real one. The note below it says with what weight ``lam`` a partner of
    which class is in it ("real" where it came from the batch). A class with too few images leaves its places white.
    Volumes show their middle slices, and so do stacks of five or seven slices (2.5-D); stacks of three are shown as
    colors.

    Args:
        train: the real patches.
        genmix: the transform of each generator by the name to show, in the order of the rows; the synthetic patches are
            of its bank. Each is left as it was.
        per_class: patches of each class and kind.
        seed: which patches are shown, and the draws of the mix.

    Returns:
        A page-wide figure of matplotlib, see :func:`save_figure`.

    Raises:
        InputError: no generator, classes or shapes that do not fit together, or numbers out of range.
        MissingExtraError: matplotlib is not installed.

    Source: Lee, Lee, Hong (arXiv 2405.20650), Fig. 3.

    Example:
        >>> from genmix_transforms import SyntheticBank
        >>> train = PatchDataset(images=torch.zeros(2, 1, 16, 16, dtype=torch.uint8), labels=torch.tensor([0, 1]),
        ...                      classes=("cyst", "metastasis"))
        >>> bank = SyntheticBank(train.images, train.labels, classes=train.classes)
        >>> figure = examples_figure(train, {"DCGAN": GenMix(bank)}, per_class=1)
        >>> figure.savefig("examples.pdf")
    """
    per_class, seed = whole_number(per_class, name="per_class", least=1), check_seed(seed)
    _check(train, genmix)
    classes = range(len(train.classes))
    random = np.random.default_rng(seed)
    chosen = [choose(train.labels == number, per_class, random) for number in classes]
    # All classes in one batch: a partner from the batch is then not always of the same class.
    everything = torch.cat(chosen)
    images, labels = train.images[everything], train.labels[everything]
    blocks = [len(some) for some in chosen]
    with style.house_style():
        page = _Page(len(train.classes), per_class, len(genmix))
        page.headings(train.classes)
        page.row("real", in_eight_bits(images), blocks)
        for name, transform in genmix.items():
            bank_labels = hard_labels(transform.bank)
            drawn = [
                choose(bank_labels == number, per_class, np.random.default_rng([seed, number])) for number in classes
            ]
            mixed = mix(images, labels, transform, seed=seed % 2**32)
            page.generator(name)
            page.row(
                "synthetic", in_eight_bits(rows_of(transform.bank, torch.cat(drawn))), [len(some) for some in drawn]
            )
            page.row("GenMix", to_pixels(mixed.values), blocks, notes=_notes(mixed, labels, transform, train.classes))
        return style.finished(page.figure)


def _check(train: PatchDataset, genmix: Mapping[str, GenMix]) -> None:
    if not isinstance(genmix, Mapping) or not genmix:
        raise InputError('examples_figure: genmix must be a transform for each generator, {"DCGAN": GenMix(bank)}')
    if not len(train):
        raise InputError("examples_figure: no real patches")
    for name, transform in genmix.items():
        check_alike(train, transform.bank, what=name)


def _notes(mixed: Mixed, labels: Tensor, genmix: GenMix, classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """What to write below each mixed patch: weight and partner; and the weight alone, for patches that are smaller."""
    bank_labels = hard_labels(genmix.bank)
    found = []
    for lam, index, from_batch in zip(mixed.lam.tolist(), mixed.index.tolist(), mixed.from_batch.tolist(), strict=True):
        partner = f"real {classes[labels[index]]}" if from_batch else classes[bank_labels[index]]
        found.append((f"{style.LAMBDA} {lam:.2f} {partner}", f"{style.LAMBDA} {lam:.2f}"))
    return found


class _Page:
    """A figure whose coordinates are millimeters from its upper left corner, filled row by row."""

    def __init__(self, classes: int, per_class: int, generators: int) -> None:
        columns = classes * per_class
        room = style.WIDTH - _MARGIN - (classes - 1) * _CLASS_GAP - (columns - classes) * _GAP
        self.side = min(_LARGEST, room / columns)
        self.per_class = per_class
        height = _HEADING + self.side + generators * (2 * self.side + _GAP + _GENERATOR_GAP + _NOTE) + 1
        block = per_class * (self.side + _GAP) - _GAP
        width = _MARGIN + classes * block + (classes - 1) * _CLASS_GAP
        self.figure = style.new_figure(height=height, width=width, layout="none")
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        style.bare(self.axes)
        self.y = _HEADING

    def left(self, label: int, place: int) -> float:
        """Where the patch of a class begins."""
        block = self.per_class * (self.side + _GAP) - _GAP
        return _MARGIN + label * (block + _CLASS_GAP) + place * (self.side + _GAP)

    def headings(self, classes: tuple[str, ...]) -> None:
        for label, name in enumerate(classes):
            middle = (self.left(label, 0) + self.left(label, self.per_class - 1) + self.side) / 2
            self.axes.text(middle, _HEADING - 1.3, name, ha="center", va="baseline", weight="bold")

    def generator(self, name: str) -> None:
        """Begin a generator's two rows."""
        self.y += _GENERATOR_GAP
        self.axes.text(3.0, self.y + self.side + _GAP / 2, name, rotation=90, ha="center", va="center", weight="bold")

    def row(self, kind: str, patches: Tensor, blocks: list[int], notes: list[tuple[str, str]] | None = None) -> None:
        """A row of patches, uint8, ``blocks`` of them for each class."""
        patches = as_pictures(patches)
        self.axes.text(_MARGIN - 2, self.y + self.side / 2, kind, ha="right", va="center")
        numbers = iter(range(len(patches)))
        roomy = all(len(whole) * _LETTER <= self.side + _GAP for whole, _ in notes or ())
        for label, count in enumerate(blocks):
            for place in range(count):
                number = next(numbers)
                left = self.left(label, place)
                style.show_patch(self.axes, patches[number], left=left, top=self.y, side=self.side)
                if notes is not None:
                    whole, short = notes[number]
                    note = whole if roomy else short
                    middle = left + self.side / 2
                    self.axes.text(middle, self.y + self.side + 0.6, note, ha="center", va="top", size=5)
        # imshow moves the limits to its picture
        self.axes.set(xlim=(0, self.figure.get_figwidth() * 25.4), ylim=(self.figure.get_figheight() * 25.4, 0))
        self.y += self.side + (_GAP if notes is None else _NOTE)
