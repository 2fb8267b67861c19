"""Patches with several labels each: a row of 0 and 1, a column a class, for every patch."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.data.labelling import UNLABELLED
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiLabelPatches(PatchDataset):
    """Patches of which each has any number of labels, none included.

    Everything that a :class:`PatchDataset` does without asking for *the* label of a patch works: splits and folds
    (stratified by every class), subsets, other sizes, files, ``genmix evaluate``. What needs one label a patch
    (generators, ``few_labels``, the audit, the choice of a recipe) refuses with a sentence.

    Args:
        targets: ``(N, K)``, uint8, 1 where a patch has the class of the column; in place of ``labels``.

    Raises:
        InputError: shapes or dtypes do not fit together, values other than 0 and 1; or ``labels`` are asked for.

    Example:
        >>> targets = torch.tensor([[1, 1], [1, 0], [0, 0]], dtype=torch.uint8)
        >>> images = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
        >>> patches = MultiLabelPatches(images=images, targets=targets, classes=("effusion", "nodule"))
        >>> patches.class_counts
        {'effusion': 2, 'nodule': 1}
    """

    targets: Tensor
    labels: Tensor = field(init=False, repr=False)

    def __getattr__(self, name: str) -> Any:
        if name == "labels":
            raise InputError(
                f"{self.name}: its images have several labels each (targets, a column a class), and this needs one "
                "label an image; GenMix, splits and evaluate take several; a generator can be trained on the images as "
                "one class (patches.without_labels(), --unlabelled)"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _check_labels(self) -> None:
        expected = (len(self), len(self.classes))
        if tuple(self.targets.shape) != expected or self.targets.dtype != torch.uint8:
            raise InputError(
                f"{self.name}: targets must be uint8 of shape {expected}, a row an image and a column a class, got "
                f"{self.targets.dtype} of shape {tuple(self.targets.shape)}"
            )
        if self.targets.numel() and int(self.targets.max()) > 1:
            raise InputError(f"{self.name}: targets must be 0 or 1, got {int(self.targets.max())}")

    def _columns(self) -> dict[str, Tensor]:
        found = {key: getattr(self, key) for key in ("groups", "official", "source_hashes", "dates", "series")}
        return {key: tensor for key, tensor in found.items() if tensor is not None}

    def _rows(self) -> dict[str, Tensor]:
        return {**super()._rows(), "targets": self.targets}

    def __repr__(self) -> str:
        return f"{super().__repr__()}; several labels an image"

    @property
    def label_rows(self) -> Tensor:
        """The targets as float32."""
        return self.targets.float()

    @property
    def label_keys(self) -> Tensor:
        """int64 ``(N,)``: equal for patches with the same labels."""
        keys: Tensor = torch.unique(self.targets, dim=0, return_inverse=True)[1]
        return keys

    @property
    def class_counts(self) -> dict[str, int]:
        """How many patches have each class, ``{name: n}``, in the order of ``classes``."""
        return dict(zip(self.classes, self.targets.sum(dim=0, dtype=torch.int64).tolist(), strict=True))

    def _strata(self) -> NDArray[np.int64]:
        rows = self.targets.numpy().astype(np.int64)
        return np.column_stack([rows, rows.sum(axis=1) == 0])  # patches without any are to be shared out as well

    def _label_texts(self) -> list[str]:
        return [
            "|".join(name for name, has in zip(self.classes, row, strict=True) if has) for row in self.targets.tolist()
        ]

    def _label_arrays(self) -> dict[str, NDArray[Any]]:
        return {"labels": self.targets.numpy(), "label_names": np.array(self.classes)}

    def of_class(self, name: str) -> PatchDataset:
        """Refused: a patch that has one class may have others.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.name}: images have several labels each, so none are of {name!r} alone; "
            "patches.subset(index) takes those that you choose by patches.targets"
        )

    def without_labels(self) -> PatchDataset:
        """The same patches as a pool to pre-train on: of one class, "unlabelled"."""
        columns: dict[str, Any] = {**self._columns()}
        return PatchDataset(
            images=self.images,
            labels=torch.zeros(len(self), dtype=torch.int64),
            classes=(UNLABELLED,),
            paths=self.paths,
            name=self.name,
            notes=self.notes,
            window=self.window,
            masks=self.masks,
            mask_classes=self.mask_classes,
            **columns,
        )


def with_labels(
    *, labels: NDArray[np.int64] | None, targets: Tensor | None, classes: tuple[str, ...], **options: Any
) -> PatchDataset:
    """Patches with one label each, int64 ``(N,)``, or with several, uint8 ``(N, K)``: whichever is given."""
    if targets is not None:
        return MultiLabelPatches(targets=targets, classes=classes, **options)
    assert labels is not None
    return PatchDataset(labels=torch.from_numpy(labels), classes=classes, **options)
