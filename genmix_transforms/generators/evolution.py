"""How the images of fixed seeds change while a generator is trained, as one figure: the paper's Fig. 2."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.sheet import draw_sheet

COLUMNS = 8
ROWS = 6
"""About as many: at least one for each class, of the first twelve classes."""
MOST_CLASSES = 12


class Evolution:
    """A row for each seed and class, a column for each time; its state goes into the checkpoints.

    Columns are added for ever and thinned out as they come: the first and the last stay, and between them those that
    lie farthest apart.

    Args:
        classes: the class names.
        batch_size: images in a step: the columns are headed by steps.

    Example:
        >>> import torch
        >>> evolution = Evolution(["cyst", "metastasis"], batch_size=8)
        >>> for images_seen in (0, 800, 1600):
        ...     evolution.add(images_seen, [torch.zeros(8, 1, 16, 16, dtype=torch.uint8)] * 2)
        >>> evolution.images_seen, len(evolution.rows())
        ([0, 800, 1600], 6)
    """

    def __init__(self, classes: Sequence[str], *, batch_size: int) -> None:
        self.classes: tuple[str, ...] = tuple(classes)[:MOST_CLASSES]
        self.batch_size = batch_size
        self.seeds: int = max(1, ROWS // len(self.classes))
        self.images_seen: list[int] = []
        self._images: list[list[Tensor]] = []  # of each time: of each class (seeds, C, *spatial)

    def add(self, images_seen: int, images: Sequence[Tensor]) -> None:
        """Add a column.

        Args:
            images_seen: when; later than the columns before.
            images: for each class ``(n, C, *spatial)``, of the same seeds each time.

        Raises:
            InputError: no later than the column before.
        """
        if self.images_seen and images_seen <= self.images_seen[-1]:
            raise InputError(f"evolution: {images_seen} images seen come after {self.images_seen[-1]}")
        self.images_seen.append(images_seen)
        self._images.append([some[: self.seeds].detach().cpu().clone() for some in images[: len(self.classes)]])
        if len(self.images_seen) > COLUMNS:
            times = self.images_seen
            gaps = [times[number + 1] - times[number - 1] for number in range(1, len(times) - 1)]
            least = 1 + gaps.index(min(gaps))
            del self.images_seen[least], self._images[least]

    def rows(self) -> list[tuple[str, list[Tensor]]]:
        """The figure's rows: a class name and an image ``(C, *spatial)`` for each column."""
        return [
            (name, [column[label][seed] for column in self._images])
            for label, name in enumerate(self.classes)
            for seed in range(len(self._images[0][label]) if self._images else 0)
        ]

    def picture(self) -> Image.Image:
        """Draw the figure; volumes show their middle slices."""
        headings = [(f"{seen // self.batch_size:,} steps" if seen else "before", 1) for seen in self.images_seen]
        rows = self.rows()
        return draw_sheet([torch.stack(images) for _, images in rows], [name for name, _ in rows], headings=headings)

    def state_dict(self) -> dict[str, Any]:
        """The columns."""
        return {"images_seen": list(self.images_seen), "images": [list(column) for column in self._images]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them up."""
        self.images_seen = list(state["images_seen"])
        self._images = [list(column) for column in state["images"]]
