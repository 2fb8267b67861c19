"""A bank's images as a torch dataset: to train on them as they are, alone or blended with real ones."""

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from genmix_transforms.errors import InputError

if TYPE_CHECKING:  # the bank makes the dataset, and not the other way round
    from genmix_transforms.bank.synthetic_bank import SyntheticBank


class BankDataset(Dataset[tuple[Any, int | Tensor]]):
    """The images and labels of a bank, one by one, as torchvision's datasets give theirs.

    An item is ``(image, label)``: the image a uint8 or uint16 tensor ``(C, *spatial)``, or what ``transform`` makes of
    it; the label an int, or a float32 tensor ``(K,)`` where the bank's labels are probabilities. Only the images asked
    for are read: of a bank on disk no other.

    Args:
        bank: on the CPU, or on disk. Its order (sorted by class) is the dataset's.
        transform: of one image; torchvision's ``v2`` transforms take the tensor as it is.

    Raises:
        InputError: no bank, a bank on an accelerator (a DataLoader's workers could not read it), or a transform that
            cannot be called.

    Attributes:
        bank, transform: as above.

    Example:
        >>> from genmix_transforms import SyntheticBank
        >>> images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 8, 8)
        >>> bank = SyntheticBank(images, torch.tensor([0, 1, 1]), classes=["cyst", "metastasis"])
        >>> dataset = BankDataset(bank, transform=lambda image: image / 255)
        >>> image, label = dataset[2]
        >>> image.shape, image.dtype, dataset.classes[label]
        (torch.Size([1, 8, 8]), torch.float32, 'metastasis')
    """

    def __init__(self, bank: "SyntheticBank", transform: Callable[[Tensor], Any] | None = None) -> None:
        super().__init__()
        if not hasattr(bank, "rows"):
            raise InputError(
                f"BankDataset: bank must be a SyntheticBank, got {type(bank).__name__}; "
                "open a saved one with SyntheticBank.load(folder)"
            )
        if bank.labels.device.type != "cpu":
            raise InputError(
                f"BankDataset: the bank is on {bank.labels.device}, where a DataLoader's workers cannot read it; "
                "load it with device='cpu', and bring batches to the device"
            )
        if transform is not None and not callable(transform):
            raise InputError(
                f"BankDataset: transform must be a function of one image, or None, got {type(transform).__name__}"
            )
        self.bank = bank
        self.transform = transform

    def __len__(self) -> int:
        return len(self.bank)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.bank.class_counts.items())
        return f"BankDataset of {len(self)} images ({counts})"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of their indices."""
        return self.bank.classes

    @property
    def targets(self) -> Tensor:
        """All labels: int64 ``(N,)``, or float32 ``(N, K)`` of probabilities."""
        return self.bank.labels

    def __getitem__(self, index: int) -> tuple[Any, int | Tensor]:
        """One image and its label; a negative ``index`` counts from the end.

        Raises:
            IndexError: there is no such image.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int | Tensor]]:
        """Several items by one read of the bank: what a DataLoader calls for a batch.

        Raises:
            IndexError: there is no such image.
        """
        index = torch.tensor([self._position(number) for number in indices], dtype=torch.int64)
        images, labels = self.bank.rows(index), self.bank.labels[index]
        return [
            (
                image if self.transform is None else self.transform(image),
                int(label) if label.ndim == 0 else label,
            )
            for image, label in zip(images.unbind(), labels.unbind(), strict=True)
        ]

    def _position(self, index: int) -> int:
        number, count = operator.index(index), len(self)
        if not -count <= number < count:
            # IndexError, and not one of ours: it is what ends a plain loop over the dataset.
            raise IndexError(f"BankDataset: image {number} of {count}")
        return number % count
