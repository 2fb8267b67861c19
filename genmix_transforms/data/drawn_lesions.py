"""Drawn lesions of three classes, by number, in splits of chosen counts: what the phantom and the simulator share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.phantom_lesions import LESIONS
from genmix_transforms.data.phantom_scanner import Array
from genmix_transforms.data.splitting import SPLITS, SplitName
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.files.progress import progress_bar

CLASSES = tuple(LESIONS)
"""Cyst, hemangioma, metastasis: the paper's three classes, in its order."""

PAPER_COUNTS = {"train": (433, 70, 178), "val": (115, 30, 157), "test": (128, 30, 149)}
"""Lesions of each class in the paper's splits: 681, 302 and 307, together 1,290."""

SMALLEST_SIZE = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnLesions:
    """A model that draws lesion ``number`` of a class and a split, and a data set of as many as are asked for.

    The fields are those of :class:`~genmix_transforms.data.LesionPhantom`.

    Raises:
        InputError: a size below 16, a negative seed, counts that are not three numbers from 0 up, all counts 0, or a
            window without width.
    """

    size: int
    seed: int = 0
    train: Sequence[int] = PAPER_COUNTS["train"]
    val: Sequence[int] = PAPER_COUNTS["val"]
    test: Sequence[int] = PAPER_COUNTS["test"]
    level: float
    width: float

    def __post_init__(self) -> None:
        name = type(self).__name__
        whole_number(self.size, name=f"{name}: size", least=SMALLEST_SIZE)
        whole_number(self.seed, name=f"{name}: seed", least=0)
        if not (np.isfinite(self.level) and np.isfinite(self.width) and self.width > 0):
            raise InputError(
                f"{name}: the window must have a finite level and a width above 0 HU, "
                f"got level {self.level} and width {self.width}"
            )
        for split in SPLITS:
            object.__setattr__(self, split, _checked_counts(f"{name}: {split}", getattr(self, split)))
        if not self.wanted:
            raise InputError(f"{name}: all counts are 0; ask for some lesions")

    @cached_property
    def wanted(self) -> tuple[tuple[int, int, int], ...]:
        """Split, class and number of each lesion of the data set, in its order."""
        return tuple(
            (split, label, number)
            for split, name in enumerate(SPLITS)
            for label, count in enumerate(getattr(self, name))
            for number in range(count)
        )

    def _each(self) -> Iterable[tuple[int, int, int]]:
        """The wanted lesions, with a bar if drawing them takes a while."""
        bar: Iterable[tuple[int, int, int]] = progress_bar(
            self.wanted, desc="drawing lesions", unit="img", disable=len(self.wanted) < 200
        )
        return bar

    def _asked(self, method: str, label: int | str, number: int, split: SplitName) -> tuple[int, int, int]:
        """What a request means as indices of split and class, and the number; or an InputError."""
        name = f"{type(self).__name__}.{method}"
        if isinstance(label, str) and label in CLASSES:
            label = CLASSES.index(label)
        if isinstance(label, str | bool) or label not in range(len(CLASSES)):
            names = ", ".join(f"{number} {name}" for number, name in enumerate(CLASSES))
            raise InputError(f"{name}: label must be a class or its index ({names}), got {label!r}")
        if split not in SPLITS:
            raise InputError(f"{name}: split must be one of {', '.join(SPLITS)}, got {split!r}")
        return SPLITS.index(split), int(label), whole_number(number, name=f"{name}: number", least=0)

    def _patches(
        self,
        hounsfield: Iterable[Array],
        groups: NDArray[np.generic],
        *,
        name: str,
        notes: tuple[str, ...] = (),
        source_hashes: Tensor | None = None,
    ) -> PatchDataset:
        """The wanted lesions, each ``(size, size)`` in HU, as patches through the window; ``groups`` ``(N, ...)``."""
        low = self.level - self.width / 2
        images = np.empty((len(self.wanted), 1, self.size, self.size), dtype=np.uint8)
        for image, drawn in zip(images, hounsfield, strict=True):
            image[0] = np.clip(np.rint((drawn - low) * (255 / self.width)), 0, 255)
        split_of, label_of, _ = torch.tensor(self.wanted, dtype=torch.int64).unbind(dim=1)
        _, group_of = np.unique(groups, axis=0, return_inverse=True)
        return PatchDataset(
            images=torch.from_numpy(images),
            labels=label_of.contiguous(),
            classes=CLASSES,
            groups=torch.from_numpy(group_of.reshape(-1).astype(np.int64)),
            official=split_of.contiguous(),
            name=name,
            notes=(*notes, f"grey 0 to 255 is {low:g} to {low + self.width:g} HU"),
            source_hashes=source_hashes,
        )


def _checked_counts(name: str, counts: Sequence[int]) -> tuple[int, ...]:
    """How many lesions of each class a split shall have, or an InputError."""
    try:
        if len(counts) == len(CLASSES):
            return tuple(whole_number(count, name=name, least=0) for count in counts)
    except (TypeError, InputError):
        pass
    raise InputError(
        f"{name} must be {len(CLASSES)} whole numbers from 0 up, how many of {', '.join(CLASSES)}, got {counts}"
    )
