"""Merging: several banks become one; labels go by the names of their classes, sources are renumbered."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmix_transforms.bank.checks import check_classes
from genmix_transforms.bank.manifest import FORMAT_VERSION, Manifest, ShardEntry, read_manifest
from genmix_transforms.bank.shards import KEPT_ON_CPU, Rows, Shard
from genmix_transforms.bank.shared_work import shared_work
from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.errors import CorruptFileError, InputError, OverwriteError
from genmix_transforms.files.progress import progress_bar

log = logging.getLogger(__name__)

Column = NDArray[Any]


def merge_banks(
    folders: Sequence[str | Path],
    *,
    out: str | Path,
    classes: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> SyntheticBank:
    """Merge banks on disk into a new one. Run again with the same arguments, it goes on where it stopped.

    Each shard of a bank becomes one shard of the new bank: it is read once, held to its checksum, and written with its
    labels re-mapped by name: that takes the memory of two shards (256 MiB each, as they are by default), however large
    the banks. Under ``torchrun``, ``accelerate launch`` or in a Slurm array each process takes its share of the shards,
    without communication; the files are the same for any number of processes.

    Args:
        folders: of the banks, which must have the same image shape, pixel type, window and kind of labels. They stay as
            they are.
        out: the new bank's folder.
        classes: names, in the order that the new bank is to have them; None: the first bank's, then those that the
            others add, in the order in which they come.
        overwrite: throw away the bank in ``out``.
        progress: show a bar.

    Returns:
        The new bank, opened from ``out``.

    Raises:
        InputError: no such banks, banks that do not fit together (the message names the first that does not), one that
            is still being filled, images of a class that ``classes`` does not name, or the same images in two banks:
            equal shards, or images that the same generator has drawn from the same seed.
        OverwriteError: ``out`` is one of the banks, or holds something else.
        CorruptFileError: a shard that is not what was written; the message names it.
        UnfinishedBankError: this process's share is done, and others are still at theirs.

    Example:
        >>> images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        >>> SyntheticBank(images, torch.tensor([0, 1]), classes=["cyst", "metastasis"]).save("one")
        >>> SyntheticBank(images, torch.tensor([0, 1]), classes=["metastasis", "normal"]).save("two")
        >>> merge_banks(["one", "two"], out="both", progress=False).class_counts
        {'cyst': 1, 'metastasis': 2, 'normal': 1}
    """
    if isinstance(folders, str | Path) or not isinstance(folders, Sequence):
        raise InputError(f"merge_banks: folders must be a list of banks' folders, got {folders!r}")
    paths, out = [Path(folder) for folder in folders], Path(out)
    _check_folders(paths, out)
    parts = [_Part.on_disk(path) for path in paths]
    union = _Union.of(parts, classes=classes)
    _check_shards_differ(parts)
    _check_images_differ(parts)
    work_list = [(number, entry) for number, part in enumerate(parts) for entry in part.kind.shards]
    if not work_list:
        raise InputError("merge_banks: the banks hold no images: fill them first")
    with shared_work(
        out,
        union.kind,
        identity=_identity(union, parts),
        total=len(work_list),
        other="that was not merged from these, as they are now",
        overwrite=overwrite,
    ) as work:
        if work.was_done:
            log.info("%s: merged already", out)
        missing = work.missing
        bar = progress_bar(
            total=len(work.mine),
            initial=len(work.mine) - len(missing),
            unit="shard",
            desc=str(out),
            disable=not progress or work.was_done or work.mine.start > 0,
        )
        with bar:
            for number in missing:
                bank, entry = work_list[number]
                rows = _whole_shard(paths[bank], entry, parts[bank].kind)
                work.write(number, union.renumbered(bank, rows))
                work.publish_now_and_then()
                bar.update()
    return SyntheticBank.load(out)


def merge_in_memory(banks: Sequence[SyntheticBank], *, classes: Sequence[str] | None = None) -> SyntheticBank:
    """Merge banks in memory, on the first one's device: see :meth:`SyntheticBank.merge`."""
    for number, bank in enumerate(banks):
        if not isinstance(bank, SyntheticBank):
            raise InputError(f"merge: banks must be SyntheticBanks, got a {type(bank).__name__}")
        if any(bank is other for other in banks[:number]):
            raise InputError("merge: the same bank is given twice: each of its images would be in the new one twice")
    parts = [_Part.in_memory(bank, f"bank {number}") for number, bank in enumerate(banks, start=1)]
    union = _Union.of(parts, classes=classes)
    _check_images_differ(parts)
    device = banks[0].device
    rows = Rows.together([union.renumbered(number, _all_rows(bank)) for number, bank in enumerate(banks)])
    return SyntheticBank(
        rows.images.to(device),
        rows.labels.to(device),
        classes=union.kind.classes,
        **{name: getattr(rows, name) for name in KEPT_ON_CPU},
        window=union.kind.window,
        provenance=union.kind.sources,
    )


@dataclass(frozen=True)
class _Part:
    """One of the banks to merge.

    Args:
        name: for messages.
        kind: classes, image shape and so on; of a bank on disk its manifest.
        class_counts: images of each class.
        where: the bank itself, or its folder.
    """

    name: str
    kind: Manifest
    class_counts: tuple[int, ...]
    where: SyntheticBank | Path

    @classmethod
    def on_disk(cls, folder: Path) -> "_Part":
        manifest = read_manifest(folder)
        if manifest.shards_to_come:
            raise InputError(
                f"{folder}: {manifest.shards_to_come} shards are still to come; finish that bank first, by the same "
                "command that began it"
            )
        for entry in manifest.shards:
            Shard(folder, entry, manifest)  # there and of its size: told now, and not after hours of merging
        return cls(str(folder), manifest, manifest.class_counts, folder)

    @classmethod
    def in_memory(cls, bank: SyntheticBank, name: str) -> "_Part":
        kind = Manifest(
            classes=bank.classes,
            dtype=str(bank.pixel_dtype).removeprefix("torch."),
            shape=bank.image_shape,
            labels="index" if bank.labels.ndim == 1 else "probabilities",
            sources=bank.sources,
            window=bank.window,
        )
        return cls(name, kind, tuple(bank.class_count.tolist()), bank)

    def known(self) -> Iterator[tuple[Column, Column, Column]]:
        """Labels (the most probable class), sources and seeds of all images, piece by piece."""
        if isinstance(self.where, SyntheticBank):
            labels = np.repeat(np.arange(len(self.class_counts)), self.class_counts)
            yield labels, self.where.source.numpy(), self.where.seeds.numpy()
        else:
            for entry in self.kind.shards:
                shard = Shard(self.where, entry, self.kind)
                labels = np.repeat(np.arange(len(entry.class_counts)), entry.class_counts)
                yield labels, shard.column("source"), shard.column("seeds")


@dataclass(frozen=True)
class _Union:
    """The bank that several become.

    Args:
        kind: its classes, image shape, sources and so on, without shards.
        places: for each bank, of each of its classes the number in the union; -1: it has no image.
        sources: for each bank, of each of its sources the number in the union.
    """

    kind: Manifest
    places: tuple[Tensor, ...]
    sources: tuple[Tensor, ...]

    @classmethod
    def of(cls, parts: Sequence[_Part], *, classes: Sequence[str] | None) -> "_Union":
        _check_one_kind(parts)
        if classes is None:
            names = tuple(dict.fromkeys(name for part in parts for name in part.kind.classes))
        else:
            names = check_classes(classes)
            _check_all_named(parts, names)
        sources: list[Mapping[str, Any]] = []
        for source in (source for part in parts for source in part.kind.sources):
            if source not in sources:
                sources.append(source)
        first = parts[0].kind
        return cls(
            Manifest(
                classes=names,
                dtype=first.dtype,
                shape=first.shape,
                labels=first.labels,
                sources=tuple(sources),
                window=first.window,
            ),
            tuple(
                torch.tensor([names.index(name) if name in names else -1 for name in part.kind.classes])
                for part in parts
            ),
            tuple(
                torch.tensor([sources.index(source) for source in part.kind.sources], dtype=torch.int32)
                for part in parts
            ),
        )

    def renumbered(self, bank: int, rows: Rows) -> Rows:
        """One bank's rows with the union's labels and sources."""
        place, labels = self.places[bank], rows.labels
        if labels.ndim == 1:
            labels = place[labels]
        else:
            labels = labels.new_zeros(len(labels), len(self.kind.classes)).index_copy(1, place, labels)
        return rows._replace(labels=labels, source=self.sources[bank][rows.source.long()])


def _check_folders(paths: Sequence[Path], out: Path) -> None:
    if not paths:
        raise InputError("merge_banks: no banks given")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise InputError(f"merge_banks: {path} is given twice: each of its images would be in the new bank twice")
        seen.add(path.resolve())
    if out.resolve() in seen:
        raise OverwriteError(f"{out}: is one of the banks to merge; give another folder to write")


def _check_one_kind(parts: Sequence[_Part]) -> None:
    first, *others = parts
    for part in others:
        differ = [
            f"{text} {getattr(first.kind, name)} and {getattr(part.kind, name)}"
            for name, text in (
                ("shape", "image shape"),
                ("dtype", "pixel type"),
                ("window", "window"),
                ("labels", "labels as"),
            )
            if getattr(first.kind, name) != getattr(part.kind, name)
        ]
        if differ:
            raise InputError(
                f"{first.name} and {part.name} cannot be merged, their images are not of one kind: {'; '.join(differ)}"
            )


def _check_all_named(parts: Sequence[_Part], names: Sequence[str]) -> None:
    for part in parts:
        for name, count in zip(part.kind.classes, part.class_counts, strict=True):
            # A class without images can be left out. Of probabilities, other classes' images may have some of it.
            if name not in names and (count or part.kind.labels == "probabilities"):
                raise InputError(
                    f"{part.name} has {count} images of {name}, which is not among the classes given "
                    f"({', '.join(names)}); name it, or leave these images out first: bank.drop(classes=[{name!r}])"
                )


def _check_shards_differ(parts: Sequence[_Part]) -> None:
    seen: dict[tuple[str, int], Path] = {}
    for part in parts:
        here = {(entry.xxh3, entry.bytes): Path(part.name) / entry.file for entry in part.kind.shards}
        for checksum, file in here.items():
            if checksum in seen:
                raise InputError(
                    f"{seen[checksum]} and {file} are one and the same: their images would be in the new bank twice; "
                    "leave out one of the banks"
                )
        seen.update(here)


def _check_images_differ(parts: Sequence[_Part]) -> None:
    """Refuse an image that is in two banks: drawn by the same generator, of the same class, from the same seed.

    Costs nothing where no two banks have a generator in common; else 8 bytes for each image that these have drawn.
    """
    drawn = [{_generator(source) for source in part.kind.sources} - {None} for part in parts]
    common = {one for number, some in enumerate(drawn) for one in some if any(one in other for other in drawn[:number])}
    seen: dict[tuple[str, str], list[tuple[str, Column]]] = {}
    for part, generators in zip(parts, drawn, strict=True):
        if not generators & common:
            continue
        for key, seeds in _seeds(part, common).items():
            for name, before in seen.get(key, []):
                twice = np.intersect1d(before, seeds)
                if len(twice):
                    raise InputError(
                        f"{name} and {part.name}: {len(twice)} images of {key[1]} are in both, drawn by the same "
                        f"generator from the same seeds (the first from {twice[0]}); leave one of the banks out, or "
                        "fill one with another seed"
                    )
            seen.setdefault(key, []).append((part.name, seeds))


def _seeds(part: _Part, generators: Iterable[str | None]) -> dict[tuple[str, str], Column]:
    """The seeds of a bank's images, by generator and name of the class."""
    found: dict[tuple[str, str], list[Column]] = {}
    by_source = [_generator(source) for source in part.kind.sources]
    for labels, source, seeds in part.known():
        for number, generator in enumerate(by_source):
            if generator is None or generator not in generators:
                continue
            of_it = (source == number) & (seeds >= 0)
            for label in np.unique(labels[of_it]).tolist():
                found.setdefault((generator, part.kind.classes[label]), []).append(seeds[of_it & (labels == label)])
    return {key: np.unique(np.concatenate(several)) for key, several in found.items()}


def _generator(source: Mapping[str, Any]) -> str | None:
    """What determines, with class and seed, an image of this source; None: nothing is known that does."""
    generator = source.get("generator")
    if not isinstance(generator, Mapping) or "weights" not in generator:
        return None
    return json.dumps([generator.get(name) for name in ("kind", "weights", "config")], sort_keys=True)


def _identity(union: _Union, parts: Sequence[_Part]) -> str:
    """A hash of all that determines the new shards' bytes."""
    content = [
        "merge",
        FORMAT_VERSION,
        union.kind.classes,
        union.kind.sources,
        union.kind.window,
        [place.tolist() for place in (*union.places, *union.sources)],
        [[(entry.xxh3, entry.bytes) for entry in part.kind.shards] for part in parts],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _whole_shard(folder: Path, entry: ShardEntry, manifest: Manifest) -> Rows:
    """A shard's rows, if they are those that were written."""
    shard = Shard(folder, entry, manifest)
    if shard.xxh3() != entry.xxh3:
        raise CorruptFileError(
            f"{shard.path}: not the bytes that were written; fill the bank again, or take it from its copy, and merge "
            "then"
        )
    rows = Rows(**{name: torch.from_numpy(shard.column(name)) for name in Rows._fields})
    if not 0 <= int(rows.source.min()) <= int(rows.source.max()) < len(manifest.sources):
        raise CorruptFileError(f"{shard.path}: of a source that the manifest does not have")
    return rows


def _all_rows(bank: SyntheticBank) -> Rows:
    """A bank's rows on the CPU; one that is on disk stays there."""
    index = torch.arange(len(bank), device=bank.device if bank.resident else "cpu")
    columns = {name: getattr(bank, name) for name in KEPT_ON_CPU}
    return Rows(bank.rows(index).cpu(), bank.labels.cpu(), **columns)
