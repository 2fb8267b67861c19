"""Training on a bank's images without mixing: the bank as a dataset, and batches with exact shares of sources."""

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from fractions import Fraction
from math import isclose, isfinite
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from genmix_transforms.bank.rows import Bank
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed, whole_number


class _Trainable(Bank, Protocol):
    """A bank whose labels are in memory."""

    labels: Tensor


class BankDataset(Dataset[tuple[Any, int | Tensor]]):
    """A dataset of the images and labels of a bank, in the form of torchvision's datasets.

    An item is ``(image, label)``. The image is a uint8 or uint16 tensor ``(C, *spatial)``, or the result of
    ``transform``. The label is an int, or a float32 tensor ``(K,)`` if the bank's labels are probabilities. From a bank
    on disk, only the requested images are read.

    Args:
        bank: a bank on the CPU or on disk. The dataset has its order (sorted by class).
        transform: a transform of one image, such as torchvision's ``v2`` transforms.

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

    def __init__(self, bank: _Trainable, transform: Callable[[Tensor], Any] | None = None) -> None:
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
        counts = ", ".join(
            f"{name} {count}" for name, count in zip(self.classes, self.bank.class_count.tolist(), strict=True)
        )
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
        changed = images if self.transform is None else map(self.transform, images)
        return [(image, int(label) if label.ndim == 0 else label) for image, label in zip(changed, labels, strict=True)]

    def _position(self, index: int) -> int:
        number, count = operator.index(index), len(self)
        if not -count <= number < count:
            # IndexError, and not one of ours: it is what ends a plain loop over the dataset.
            raise IndexError(f"BankDataset: image {number} of {count}")
        return number % count


def as_dataset(bank: _Trainable, transform: Callable[[Tensor], Any] | None = None) -> BankDataset:
    """Return the images as a torch Dataset of ``(image, label)``, to train on real and synthetic images together.

    Args:
        bank: of the images.
        transform: a transform of an image, uint8 or uint16 ``(C, *spatial)``; None: no transform.

    To put a fixed number of each into every batch, see :class:`~genmix_transforms.bank.ExactShares`.
    """
    return BankDataset(bank, transform)


def shares(batch_size: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """Compute how many images of a batch come from each source, by the largest remainder.

    Every source gets its fraction of the batch, rounded down. The remaining images go to the sources that lost most by
    rounding; among equals, to the first.

    Args:
        batch_size: images in a batch.
        fractions: of each source, not negative, with the sum 1.

    Returns:
        Whole numbers whose sum is ``batch_size``.

    Raises:
        InputError: fractions that do not sum to 1, or a fraction so small that its source would have no image in the
            batch.

    Example:
        >>> shares(16, (0.7, 0.3))
        (11, 5)
    """
    batch_size = whole_number(batch_size, name="batch_size", least=1)
    try:
        given = [float(fraction) for fraction in fractions]
    except (TypeError, ValueError) as error:
        raise InputError(f"shares: fractions must be numbers, one a source, got {fractions!r}") from error
    if not given or not all(isfinite(share) and share >= 0 for share in given) or not isclose(sum(given), 1):
        raise InputError(f"shares: fractions must not be negative and sum to 1, got {tuple(given)}")
    # As decimals, the way they were written: 0.15 of 10 is 1.5 here, and equal remainders are equal.
    decimals = [Fraction(str(share)) for share in given]
    quotas = [batch_size * share / sum(decimals) for share in decimals]
    counts = [int(quota) for quota in quotas]
    by_loss = sorted(range(len(quotas)), key=lambda source: counts[source] - quotas[source])
    for source in by_loss[: batch_size - sum(counts)]:
        counts[source] += 1
    for share, count in zip(given, counts, strict=True):
        if share and not count:
            raise InputError(
                f"shares: {share:g} of a batch of {batch_size} is not one image; take larger batches, or 0 for none"
            )
    return tuple(counts)


class ExactShares(Sampler[list[int]]):
    """Batches with a fixed number of images from each of several datasets, joined by ``ConcatDataset``.

    For ``DataLoader(ConcatDataset([real, synthetic]), batch_sampler=ExactShares(...))``. In a batch, the images of the
    first source come first, then those of the second, and so on.

    An epoch is one pass over the first source, the real images, each once in random order. The other sources are used
    in one random order after another, which continue across epochs: at any time, the numbers of uses of any two images
    of such a source differ by at most one. Every epoch, and every position in it, depends only on the seed, not on
    worker processes.

    Training processes take turns: rank r gets the batches number r, r + processes, ... of one list, which is the same
    for any number of processes. To give all ranks the same number of batches, the last few (fewer than ``processes``)
    are left out, or with ``drop_last=False`` the first ones of the epoch are repeated.

    Args:
        sizes: images in each source, in the order of the ``ConcatDataset``.
        per_batch: images of each source in a batch (of one process); of the first at least 1. See :func:`shares`.
        seed: of all orders; from 0 to 2**63 - 1.
        drop_last: leave out the real images that do not fill a batch, different ones in each epoch. False: fill the
            last batch with the first images of the epoch, so that its shares are exact, too, and no image is missed.
        rank: the number of this process.
        processes: the number of training processes.

    Raises:
        InputError: invalid counts; the message says which.

    Attributes:
        epoch: the one that the next pass goes through.
        batch_size: the sum of ``per_batch``.

    Memory: 8 bytes for each image of each source, for the order it is gone through in.

    Example:
        >>> sampler = ExactShares(sizes=[6, 100], per_batch=[2, 1])
        >>> [[index < 6 for index in batch] for batch in sampler]
        [[True, True, False], [True, True, False], [True, True, False]]
    """

    def __init__(
        self,
        sizes: Sequence[int],
        per_batch: Sequence[int],
        *,
        seed: int = 0,
        drop_last: bool = True,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__()
        self.sizes: tuple[int, ...] = _counts(sizes, name="sizes")
        self.per_batch: tuple[int, ...] = _counts(per_batch, name="per_batch")
        if not self.sizes or len(self.sizes) != len(self.per_batch):
            raise InputError(
                "ExactShares: sizes and per_batch must have one number for each source, "
                f"got {len(self.sizes)} and {len(self.per_batch)}"
            )
        if self.per_batch[0] < 1:
            raise InputError(
                "ExactShares: per_batch must take at least 1 of the first source, whose images make the epoch; "
                f"got {self.per_batch}"
            )
        for source, (size, count) in enumerate(zip(self.sizes, self.per_batch, strict=True)):
            if count and not size:
                raise InputError(f"ExactShares: source {source} is to give {count} images a batch, and has none")
        self.seed: int = check_seed(seed, name="ExactShares: seed")
        self.drop_last: bool = bool(drop_last)
        self.processes: int = whole_number(processes, name="ExactShares: processes", least=1)
        self.rank: int = whole_number(rank, name="ExactShares: rank", least=0, most=self.processes - 1)
        self.batch_size: int = sum(self.per_batch)
        # What the images follow from, apart from epoch and place.
        self._identity: dict[str, Any] = {
            "sizes": list(self.sizes),
            "per_batch": list(self.per_batch),
            "seed": self.seed,
            "drop_last": self.drop_last,
        }
        self._in_list = self.sizes[0] // self.per_batch[0] if drop_last else -(-self.sizes[0] // self.per_batch[0])
        if not len(self):
            raise InputError(
                f"ExactShares: the first source has {self.sizes[0]} images, fewer than {self.per_batch[0]} for each of "
                f"{self.processes} processes; take smaller batches, or drop_last=False"
            )
        self.epoch: int = 0
        self._start = 0
        self._drawn = 0
        self._gone_through: int | None = None
        self._warned = False
        self._offsets = np.cumsum((0, *self.sizes)).tolist()
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return self._in_list // self.processes if self.drop_last else -(-self._in_list // self.processes)

    @property
    def sampler(self) -> "ExactShares":
        """Itself: here Lightning and Accelerate look for the ``set_epoch`` that they call before each epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch`` with the next pass; call it before each epoch. An epoch set by :meth:`load_state_dict`
        continues."""
        epoch = whole_number(epoch, name="ExactShares: epoch", least=0)
        if epoch != self.epoch:
            self.epoch, self._start, self._drawn = epoch, 0, 0

    def __iter__(self) -> Iterator[list[int]]:
        """The rest of the epoch: all of it, unless :meth:`load_state_dict` has set a place in it."""
        epoch = self.epoch
        if self._gone_through == epoch and not self._warned:
            self._warned = True
            warnings.warn(
                f"ExactShares: epoch {epoch} is gone through again, with the same images in the same order; "
                "call set_epoch(epoch) before each",
                stacklevel=2,
            )
        for number in range(self._start, len(self)):
            batch = self._batch(epoch, (self.rank + number * self.processes) % self._in_list)
            self._drawn = number + 1
            yield batch
        self._gone_through = epoch

    def _batch(self, epoch: int, number: int) -> list[int]:
        batch: list[int] = []
        for source, count in enumerate(self.per_batch):
            # The first source begins anew with each epoch, the others run on.
            start = (number if source == 0 else epoch * self._in_list + number) * count
            for position in range(start, start + count):
                cycle, place = divmod(position, self.sizes[source])
                order = self._order(source, epoch if source == 0 else cycle)
                batch.append(int(order[place]) + self._offsets[source])
        return batch

    def _order(self, source: int, cycle: int) -> NDArray[np.int64]:
        kept, order = self._orders.get(source, (None, None))
        if order is None or kept != cycle:
            # The counter's highest word: the streams of two cycles never meet.
            stream = np.random.Philox(key=[self.seed, source], counter=[0, 0, 0, cycle])
            order = np.random.Generator(stream).permutation(self.sizes[source])
            self._orders[source] = cycle, order
        return order

    def state_dict(self, done: int | None = None) -> dict[str, Any]:
        """The position of the run. It is the same on all ranks, so one checkpoint is enough.

        Args:
            done: batches that the training loop has finished on this rank since the start of the epoch. None: as many
                as have been drawn. A DataLoader with workers draws ahead of the loop: pass ``done`` in this case, or
                the resumed run skips those batches.

        Returns:
            Numbers and lists that JSON can store: the epoch, the batches done on all ranks, and what they consist of.

        Raises:
            InputError: ``done`` is more than the epoch has.
        """
        done = whole_number(self._drawn if done is None else done, name="ExactShares: done", least=0, most=len(self))
        return {"epoch": self.epoch, "batches": done * self.processes, **deepcopy(self._identity)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state: the next pass gives the rest of its epoch. The number of processes may differ.

        Raises:
            InputError: a state with different data, shares or seed, or one that does not end with a whole number of
                batches for each process.
        """
        missing = sorted({"epoch", "batches", *self._identity} - set(state))
        if missing:
            raise InputError(f"ExactShares: no state of a sampler: {', '.join(missing)} missing")
        for name, own in self._identity.items():
            if state[name] != own:
                raise InputError(
                    f"ExactShares: the state is of {name} {state[name]}, this sampler of {own}: "
                    "the images would differ; make the sampler as it was, or start an epoch again with set_epoch"
                )
        epoch = whole_number(state["epoch"], name="ExactShares: epoch", least=0)
        batches = whole_number(state["batches"], name="ExactShares: batches", least=0)
        if batches % self.processes:
            raise InputError(
                f"ExactShares: {batches} batches are done, which {self.processes} processes cannot have shared evenly; "
                "go on with the earlier number of processes, or begin the next epoch with set_epoch"
            )
        self.epoch, self._start = epoch, batches // self.processes
        self._drawn = min(self._start, len(self))
        self._gone_through = None


def _counts(values: Sequence[int], *, name: str) -> tuple[int, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise InputError(f"ExactShares: {name} must be a list of numbers, one for each source, got {values!r}")
    return tuple(
        whole_number(value, name=f"ExactShares: {name}[{source}]", least=0) for source, value in enumerate(values)
    )
