"""What may be merged, and into what: classes by name, sources renumbered, no image twice. Banks in memory into one."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.bank.manifest import Manifest
from genmix_transforms.bank.rows import Bank, Rows, check_classes, union_of_sources
from genmix_transforms.errors import InputError


class _InMemory(Bank, Protocol):
    """A bank that can be read as a whole, and made of rows."""

    def __init__(self, **columns: Any) -> None: ...

    @property
    def device(self) -> torch.device:
        """Where the images are."""

    def in_memory(self) -> Rows:
        """All rows."""


Merges = TypeVar("Merges", bound=_InMemory)


@dataclass(frozen=True)
class Union:
    """The bank that several become.

    Args:
        kind: its classes, image shape, sources and so on, without shards.
        classes: for each bank its classes.
        sources: for each bank, of each of its sources the number in the union.
    """

    kind: Manifest
    classes: tuple[tuple[str, ...], ...]
    sources: tuple[Tensor, ...]

    @classmethod
    def of(cls, banks: Mapping[str, Bank], *, classes: Sequence[str] | None) -> "Union":
        """The bank that these become.

        Args:
            banks: by their names in messages.
            classes: of the new bank; None: all that the banks have.

        Raises:
            InputError: they are not of one kind, have images of a class that ``classes`` does not name, or an image is
                in two of them.
        """
        _check_one_kind(banks)
        if classes is None:
            names = tuple(dict.fromkeys(name for bank in banks.values() for name in bank.classes))
        else:
            names = check_classes(classes)
            _check_all_named(banks, names)
        _refuse_images_twice(banks)
        sources, numbers = union_of_sources(*(bank.sources for bank in banks.values()))
        kind = replace(Manifest.of(next(iter(banks.values()))), classes=names, sources=sources)
        return cls(kind, tuple(bank.classes for bank in banks.values()), tuple(numbers))

    def renumbered(self, bank: int, rows: Rows) -> Rows:
        """One bank's rows with the union's labels and sources."""
        rows = rows.relabelled(self.classes[bank], self.kind.classes)
        return rows._replace(source=self.sources[bank][rows.source.long()])


def merge(bank: Merges, *others: Merges, classes: Sequence[str] | None = None) -> Merges:
    """This bank's images and those of others, in memory; labels are re-mapped by the names of their classes.

    Within a class this bank's images stand first. Sources are those of all, each once. Where labels are
    probabilities, a class that a bank does not know has none. For banks larger than memory, see
    :func:`~genmix_transforms.bank.merging.merge_banks`.

    Args:
        bank: the first; the new bank is on its device.
        others: banks of the same image shape, pixel type, window, kind of labels and mask classes.
        classes: names, in the order that the new bank is to have them; None: this bank's, then those that the
            others add, in the order in which they come.

    Raises:
        InputError: banks that do not fit together (the message names the first that does not), images of a class
            that ``classes`` does not name, or an image that is in two of the banks: drawn by the same generator
            from the same seed.

    Example:
        >>> from genmix_transforms import SyntheticBank
        >>> images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        >>> one = SyntheticBank(images, torch.tensor([0, 1]), classes=["cyst", "metastasis"])
        >>> two = SyntheticBank(images, torch.tensor([0, 1]), classes=["metastasis", "normal"])
        >>> one.merge(two).class_counts
        {'cyst': 1, 'metastasis': 2, 'normal': 1}
    """
    for number, other in enumerate(others):
        if not isinstance(other, type(bank)):
            raise InputError(f"merge: banks must be SyntheticBanks, got a {type(other).__name__}")
        if any(other is before for before in (bank, *others[:number])):
            raise InputError("merge: the same bank is given twice: each of its images would be in the new one twice")
    banks = (bank, *others)
    union = Union.of({f"bank {number}": one for number, one in enumerate(banks, start=1)}, classes=classes)
    rows = Rows.together([union.renumbered(number, one.in_memory().on_cpu()) for number, one in enumerate(banks)])
    columns: dict[str, Any] = dict(rows.columns)
    columns |= {name: columns[name].to(bank.device) for name in ("images", "labels", "masks") if name in columns}
    kind = union.kind
    return type(bank)(
        **columns,
        classes=kind.classes,
        window=kind.window,
        provenance=kind.sources,
        mask_classes=kind.mask_classes,
    )


def _check_one_kind(banks: Mapping[str, Bank]) -> None:
    texts = {"image_shape": "image shape", "pixel_dtype": "pixel type", "window": "window", "label_kind": "labels as"}
    texts["mask_classes"] = "mask classes"
    (first_name, first), *others = banks.items()
    for name, bank in others:
        differ = [
            f"{text} {getattr(first, what)} and {getattr(bank, what)}".replace("torch.", "")
            for what, text in texts.items()
            if getattr(first, what) != getattr(bank, what)
        ]
        if differ:
            raise InputError(
                f"{first_name} and {name} cannot be merged, their images are not of one kind: {'; '.join(differ)}"
            )


def _check_all_named(banks: Mapping[str, Bank], names: Sequence[str]) -> None:
    for bank_name, bank in banks.items():
        for name, count in zip(bank.classes, bank.class_count.tolist(), strict=True):
            # A class without images can be left out. Of probabilities, other classes' images may have some of it.
            if name not in names and (count or bank.label_kind == "probabilities"):
                raise InputError(
                    f"{bank_name} has {count} images of {name}, which is not among the classes given "
                    f"({', '.join(names)}); name it, or leave these images out first: bank.drop(classes=[{name!r}])"
                )


def _refuse_images_twice(banks: Mapping[str, Bank]) -> None:
    """Refuse an image that is in two banks: drawn by the same generator, of the same class, from the same seed.

    Costs nothing where no two banks have a generator in common; else 20 bytes for each image of those that have.
    """
    drawn = [{_generator(source) for source in bank.sources} - {None} for bank in banks.values()]
    common = {one for number, some in enumerate(drawn) for one in some if any(one in other for other in drawn[:number])}
    seen: dict[tuple[str, str], list[tuple[str, NDArray[np.int64]]]] = {}
    for (name, bank), generators in zip(banks.items(), drawn, strict=True):
        if not generators & common:
            continue
        for key, seeds in _seeds(bank, common).items():
            for other, before in seen.get(key, []):
                twice = np.intersect1d(before, seeds)
                if len(twice):
                    raise InputError(
                        f"{other} and {name}: {len(twice)} images of {key[1]} are in both, drawn by the same "
                        f"generator from the same seeds (the first from {twice[0]}); leave one of the banks out, or "
                        "fill one with another seed"
                    )
            seen.setdefault(key, []).append((name, seeds))


def _seeds(bank: Bank, generators: Collection[str | None]) -> dict[tuple[str, str], NDArray[np.int64]]:
    """The seeds of a bank's images, by generator and name of the class."""
    found: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    counts = bank.class_count.cpu().numpy()
    labels = np.repeat(np.arange(len(counts)), counts)
    source, seeds = bank.column("source").numpy(), bank.column("seeds").numpy()
    for number, generator in enumerate(map(_generator, bank.sources)):
        if generator is not None and generator in generators:
            of_it = (source == number) & (seeds >= 0)
            for label in np.unique(labels[of_it]).tolist():
                found.setdefault((generator, bank.classes[label]), []).append(seeds[of_it & (labels == label)])
    return {key: np.unique(np.concatenate(several)) for key, several in found.items()}


def _generator(source: Mapping[str, Any]) -> str | None:
    """What determines, with class and seed, an image of this source; None: nothing is known that does."""
    generator = source.get("generator")
    if not isinstance(generator, Mapping) or "weights" not in generator:
        return None
    facts = [*(generator.get(name) for name in ("kind", "weights", "config")), source.get("soft")]
    return json.dumps(facts, sort_keys=True)
