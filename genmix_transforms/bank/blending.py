"""Training on a bank's images as they are, blended with real ones: as a dataset, and in batches with exact shares."""

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
    """The images as a torch Dataset of ``(image, label)``, for training on real and synthetic images together.

    Args:
        bank: of the images.
        transform: of an image, uint8 or uint16 ``(C, *spatial)``; None: none.

    See :class:`~genmix_transforms.bank.ExactShares` for so many of each in every batch.
    """
    return BankDataset(bank, transform)


def shares(batch_size: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """How many images of a batch each source gives, by the largest remainder.

    Every source gets its fraction of the batch rounded down; the images still missing go to those that lost most by it,
    of equals to the first.

    Args:
        batch_size: images in a batch.
        fractions: of each source, not negative, with the sum 1.

    Returns:
        Whole numbers whose sum is ``batch_size``.

    Raises:
        InputError: no fractions of 1, or a fraction so small that the batch would hold nothing of its source.

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

    For ``DataLoader(ConcatDataset([real, synthetic]), batch_sampler=ExactShares(...))``. In a batch the first source's
    images stand first, then the second's, and so on.

    An epoch is one pass over the first source, the real images, each once in random order. The others are gone through
    in one random order after another, which run on from epoch to epoch: however many batches have been drawn, the
    uses of any two images of such a source differ by one at most. Every epoch, and every place in it, follows from the
    seed alone: worker processes change nothing.

    Training processes take turns: with ``processes`` of them the batches of rank r are number r, r + processes, ... of
    one list, the same for any number of them. So that all ranks get as many, the last few batches (fewer than
    ``processes``) are left out, or with ``drop_last=False`` the epoch's first ones are given once more.

    Args:
        sizes: images in each source, in the order of the ``ConcatDataset``.
        per_batch: images of each source in a batch (of one process); of the first at least 1. See :func:`shares`.
        seed: of all orders; from 0 to 2**63 - 1.
        drop_last: leave out the real images that do not fill a batch, other ones in each epoch. False: fill the last
            batch with the images that came first, so that the shares are exact in this one too and no image is missed.
        rank: the number of this process.
        processes: how many train together.

    Raises:
        InputError: counts that make no batch; the message says which.

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
        """Go through ``epoch`` next; call it before each. The epoch that :meth:`load_state_dict` has set goes on."""
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
        """Where the run is, the same on all ranks, so that one checkpoint serves all.

        Args:
            done: batches that the training loop is through with, on this rank, since the epoch's beginning. None: as
                many as have been drawn. A DataLoader with workers draws ahead of the loop: give ``done`` there, or the
                resumed run leaves those batches out.

        Returns:
            Numbers and lists of them, as JSON can hold: the epoch, the batches done on all ranks, and what they are of.

        Raises:
            InputError: more ``done`` than the epoch has.
        """
        done = whole_number(self._drawn if done is None else done, name="ExactShares: done", least=0, most=len(self))
        return {"epoch": self.epoch, "batches": done * self.processes, **deepcopy(self._identity)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the next pass gives what is left of its epoch. The number of processes may be another.

        Raises:
            InputError: a state of other data, shares or another seed, or one that does not end with a whole number of
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
