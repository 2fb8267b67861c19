"""Writing a bank: shard by shard, with a manifest of the complete shards after each shard or at the end."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor

from genmix_transforms.bank.manifest import (
    INDEX,
    LOCK,
    MAX_SHARDS,
    Manifest,
    ShardEntry,
    holds_rows,
    is_bank_file,
    now,
    read_manifest,
    refuse_unfinished,
    shard_name,
    write_manifest,
)
from genmix_transforms.bank.rows import (
    Rows,
    check_classes,
    check_mask_classes,
    check_masks,
    check_sources,
    check_tensors,
    check_window,
    union_of_sources,
)
from genmix_transforms.bank.shard import images_per_shard, write_shard
from genmix_transforms.errors import CorruptFileError, InputError, OverwriteError
from genmix_transforms.files.checks import check_output_folder
from genmix_transforms.files.locking import locked

PATIENCE = 10.0
"""Seconds that a process waits for another which looks whether it is alone."""


class BankWriter:
    """Write images to a bank on disk, holding no more than one shard of them in memory.

    Shards are immutable files. The manifest names the valid ones and is replaced as a whole. After any interruption
    (Ctrl-C, kill -9, a full disk), the bank is what its last manifest says, and the next writer removes leftover files.
    One process writes at a time. Any number of processes may read, and find new shards with ``bank.refresh()``.

    Args:
        folder: the folder of the bank; created if needed.
        classes: class names; a label is an index into them.
        image_shape: ``(C, *spatial)``.
        pixel_dtype: uint8 or uint16.
        labels: "index": integers; "probabilities": a row of ``len(classes)`` values per image.
        window: for CT, the Hounsfield units of the lowest and the highest pixel value.
        mask_classes: the names of the masks' pixel values, from 0 on, if each image has a mask; None: none has one.
        provenance: where the images come from; a list, if :meth:`add` gets the index of each image's source.
        append: add to an existing bank.
        overwrite: replace an existing bank once this one is complete.
        publish: "shard": add each shard to the manifest as soon as it is complete; "close": add all at the end, or
            none.
        shard_bytes: a shard is closed before it grows past this many bytes of pixels; None: 256 MiB.

    Raises:
        InputError: invalid arguments, or arguments that do not match the bank to append to.
        OverwriteError: the folder holds a bank (and neither append nor overwrite), shards without a manifest (unless
            overwrite), something else, or another writer.

    Example:
        >>> import tempfile
        >>> images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with BankWriter(folder, classes=["cyst", "metastasis"], image_shape=(1, 8, 8)) as writer:
        ...         writer.add(images, torch.tensor([0, 1, 1]))
        ...     writer.manifest.class_counts
        (1, 2)
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        classes: Sequence[str],
        image_shape: Sequence[int],
        pixel_dtype: torch.dtype = torch.uint8,
        labels: Literal["index", "probabilities"] = "index",
        window: tuple[float, float] | None = None,
        mask_classes: Sequence[str] | None = None,
        provenance: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        append: bool = False,
        overwrite: bool = False,
        publish: Literal["shard", "close"] = "shard",
        shard_bytes: int | None = None,
    ) -> None:
        if append and overwrite:
            raise InputError("BankWriter: append and overwrite exclude each other")
        if publish not in ("shard", "close"):
            raise InputError(f"BankWriter: publish must be 'shard' or 'close', got {publish!r}")
        if labels not in ("index", "probabilities"):
            raise InputError(f"BankWriter: labels must be 'index' or 'probabilities', got {labels!r}")
        self.folder: Path = Path(folder).absolute()
        self._given = Manifest(
            classes=check_classes(classes),
            dtype=str(pixel_dtype).removeprefix("torch."),
            shape=tuple(image_shape),
            labels=labels,
            sources=check_sources(provenance),
            window=check_window(window),
            mask_classes=None if mask_classes is None else check_mask_classes(mask_classes),
        )
        # Of no images, but of their shape and type: refused now what would be refused with the first image.
        check_tensors(
            torch.empty(0, *self._given.shape, dtype=pixel_dtype),
            torch.empty((0,) if labels == "index" else (0, len(self._given.classes)), dtype=torch.int64),
            self._given.classes,
        )
        self.manifest: Manifest = self._given
        self._append, self._overwrite, self._publish = append, overwrite, publish
        self._waiting = _RowBuffer(images_per_shard(self._given.shape, pixel_dtype, shard_bytes=shard_bytes))
        self._unpublished: list[ShardEntry] = []
        self._retired: tuple[ShardEntry, ...] = ()
        self._lock: ExitStack | None = None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(only_writer(self.folder))
            self._begin(bank_to_change(self.folder, append=self._append, overwrite=self._overwrite))
            self._lock = undo.pop_all()
        return self

    def _begin(self, before: Manifest | None) -> None:
        given = self._given
        if before is not None and self._append:
            check_same_kind(self.folder, before, given)
            sources, (_, self._source_numbers) = union_of_sources(before.sources, given.sources)
            self.manifest = replace(before, sources=sources)
        else:
            _, (self._source_numbers,) = union_of_sources(given.sources)
            generation = 0 if before is None else before.generation
            self.manifest = replace(given, generation=generation)
            self._retired = () if before is None else before.shards
        remove_orphans(self.folder, set() if before is None else {shard.file for shard in before.shards})
        self._first = self._next = 1 + max((shard.number for shard in before.shards), default=-1) if before else 0

    def add(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        seeds: Tensor | None = None,
        source: Tensor | None = None,
        distance: Tensor | None = None,
        flags: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> None:
        """Add images. A shard is written whenever there are enough images for one.

        Args:
            images: ``(n, C, *spatial)``, of the writer's dtype.
            labels: integers ``(n,)`` or probabilities ``(n, K)``, depending on the writer's ``labels``.
            seeds: int64 ``(n,)``; -1 or None: no seed.
            source: ``(n,)``: indices into the list passed as provenance; None: 0.
            distance: float32 ``(n,)`` to the nearest real image; NaN or None: not measured.
            flags: uint8 ``(n,)``, see :class:`~genmix_transforms.bank.Flag`.
            masks: uint8 ``(n, *spatial)``, if the writer has ``mask_classes``; else None.

        Raises:
            InputError: wrong shapes, dtypes or labels, in which case nothing is added; or the writer is not open.
        """
        if self._lock is None:
            raise InputError(
                f"BankWriter: {self.folder} is not open for writing; add within `with BankWriter(...) as writer:`"
            )
        labels = check_tensors(images, labels, self._given.classes)
        kind = "index" if labels.ndim == 1 else "probabilities"
        got = (tuple(images.shape[1:]), images.dtype, kind)
        if got != (self._given.shape, self._given.pixel_dtype, self._given.labels):
            raise InputError(
                f"BankWriter: made for {self._given.shape} {self._given.pixel_dtype} images and labels of kind "
                f"{self._given.labels!r}, got {got[0]} {got[1]} and {got[2]!r}"
            )
        if (masks is None) != (self._given.mask_classes is None):
            raise InputError(
                "BankWriter: every image of a bank has a mask, or none has: give mask_classes to the writer and masks "
                "with each add, or neither"
            )
        check_masks(images, masks, self._given.mask_classes)
        rows = Rows.complete(images, labels, seeds=seeds, source=source, distance=distance, flags=flags, masks=masks)
        rows = rows.checked(sources=len(self._given.sources))
        rows = rows._replace(source=self._source_numbers[rows.source.long()])
        while len(rows.images):
            rows = self._waiting.add(rows)
            if self._waiting.is_full:
                self._write()

    def _write(self) -> None:
        if self._next >= MAX_SHARDS:
            raise InputError(f"BankWriter: {self.folder} has had {MAX_SHARDS:,} shards; write a new bank")
        name = self.folder / shard_name(self._next)
        self._next += 1
        self._unpublished.append(write_shard(name, self._waiting.rows, classes=self._given.classes))
        self._waiting.clear()
        if self._publish == "shard" and not self._retired:
            self._write_manifest()

    def _write_manifest(self) -> None:
        shards = (*self.manifest.shards, *self._unpublished)
        manifest = replace(self.manifest, shards=shards, generation=self.manifest.generation + 1, created=now())
        write_manifest(self.folder, manifest)
        self.manifest, self._unpublished = manifest, []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        lock, self._lock = self._lock, None
        with lock:
            try:
                if kind is None:
                    self._finish()
            except BaseException:
                self._remove_unnamed()
                raise
            if kind is not None:
                self._remove_unnamed()

    def _remove_unnamed(self) -> None:
        """After an error, remove what this writer has written or replaced, and no manifest names."""
        # As the disk has it: the error may have come between the writing of the manifest and our taking note of it.
        shards = read_manifest(self.folder).shards if (self.folder / INDEX).exists() else ()
        ours = {shard_name(number) for number in range(self._first, self._next)} | {old.file for old in self._retired}
        for file in sorted(ours - {shard.file for shard in shards}):
            (self.folder / file).unlink(missing_ok=True)

    def _finish(self) -> None:
        if len(self._waiting):
            self._write()
        if self._unpublished or not (self.folder / INDEX).exists() or (self._overwrite and self._retired):
            self._write_manifest()
        for entry in self._retired:
            # Readers that have it mapped keep it: a file's name goes first, the file with its last reader.
            (self.folder / entry.file).unlink(missing_ok=True)


class _RowBuffer:
    """Memory for a shard's rows, filled again and again: fresh memory costs more than what is done with it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: Rows | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether no row more fits in."""
        return self._count == self._capacity

    @property
    def rows(self) -> Rows:
        """What is in it, until it is filled again."""
        assert self._held is not None  # asked for when there is something
        return self._held.take(slice(0, self._count))

    def add(self, rows: Rows) -> Rows:
        """Take as many rows as fit in, and return the rest."""
        some = min(len(rows.images), self._capacity - self._count)
        held = self._with_room(rows, self._count + some).columns
        for name, new in rows.columns.items():
            held[name][self._count : self._count + some] = new[:some]
        self._count += some
        return rows.take(slice(some, None))

    def clear(self) -> None:
        """Forget what is in it; the memory stays."""
        self._count = 0

    def _with_room(self, like: Rows, needed: int) -> Rows:
        held = self._held
        if held is None or len(held.images) < needed:
            size = min(self._capacity, max(256, 2 * needed))
            self._held = Rows(
                **{name: torch.empty(size, *like.shape[1:], dtype=like.dtype) for name, like in like.columns.items()}
            )
            if held is not None:
                for name, old in held.columns.items():
                    self._held.columns[name][: self._count] = old[: self._count]
        assert self._held is not None
        return self._held


# The folder: who may write there, and what is there already


@contextmanager
def only_writer(folder: Path, *, rank: int | None = None) -> Iterator[None]:
    """Be the folder's one writer; the system ends it when the process is killed.

    A folder that is made for it and stays empty is removed again.

    Args:
        folder: of the bank; made if need be.
        rank: of a process that writes planned shards together with others: it is the only one of its number then, and
            no other kind of writer is there. None: nobody else is.

    Raises:
        OverwriteError: another process writes there, or the folder cannot be one.
    """
    check_output_folder(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another process is writing this bank; wait for it, or stop it"
    own = folder / (LOCK if rank is None else f".bank.{rank}.lock")
    with locked(own, busy=busy):
        try:
            if rank is None:
                for others in folder.glob(".bank.[0-9]*.lock"):
                    with locked(others, busy=busy):
                        others.unlink(missing_ok=True)
            else:
                # The other ranks look as briefly: they may be met here, and are waited for.
                with locked(folder / LOCK, busy=busy, patience=PATIENCE):
                    pass
            yield
        finally:
            has_bank = (folder / INDEX).exists()
            if rank is not None or not has_bank:
                with suppress(OSError):  # not every system removes a file that is open
                    own.unlink()
            if made and not has_bank and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()


def bank_to_change(folder: Path, *, append: bool, overwrite: bool) -> Manifest | None:
    """The manifest of the bank in ``folder``; None where there is none, or none that can be read is overwritten.

    Raises:
        OverwriteError: a bank, and neither append nor overwrite; shards without a manifest, and no overwrite; or files
            that are no bank's.
    """
    has_bank, shards = look_into(folder)
    if not has_bank:
        if shards and not overwrite:
            raise OverwriteError(
                f"{folder}: holds {shards[0]} and no {INDEX}: a bank whose copy is not whole, or a fill that has not "
                "finished; bring the manifest, run that fill again, or give another folder; overwrite=True throws the "
                f"{len(shards)} files away"
            )
        return None
    if not append and not overwrite:
        raise OverwriteError(f"{folder}: holds a bank already; give another folder, append, or overwrite=True")
    try:
        manifest = read_manifest(folder)
    except CorruptFileError:
        if append:
            raise
        return None
    if append:
        refuse_unfinished(folder, manifest, error=OverwriteError)
    return manifest


def look_into(folder: Path) -> tuple[bool, list[str]]:
    """Whether there is a manifest, and which shards and rows kept for them there are, named by it or not.

    Raises:
        OverwriteError: no manifest, but files that are no bank's.
    """
    names = sorted(file.name for file in folder.iterdir())
    has_bank = INDEX in names
    foreign = [name for name in names if not is_bank_file(name)]
    if foreign and not has_bank:
        raise OverwriteError(f"{folder}: holds other files and no bank ({foreign[0]}); give another folder")
    return has_bank, [name for name in names if holds_rows(name)]


def check_same_kind(folder: Path, bank: Manifest, given: Manifest) -> None:
    """Refuse to append what the bank does not hold the like of.

    Raises:
        InputError: other classes, another pixel type, shape, kind of labels or window, or other mask classes.
    """
    for name in ("classes", "dtype", "shape", "labels", "window", "mask_classes"):
        before, now_given = getattr(bank, name), getattr(given, name)
        if before != now_given:
            raise InputError(f"{folder}: the bank's {name} are {before}, what is to be added has {now_given}")


def remove_orphans(folder: Path, named: Collection[str]) -> None:
    """Remove what killed writers left: shards and kept rows that are not among the named ones, and temporary files.

    Call it as the only writer.

    Raises:
        OverwriteError: a folder has a shard's name.
    """
    for file in folder.iterdir():
        if (holds_rows(file.name) and file.name not in named) or (is_bank_file(file.name) and file.suffix == ".tmp"):
            if file.is_dir() and not file.is_symlink():
                raise OverwriteError(f"{file}: a folder with a shard's name; move it, or give another folder")
            file.unlink(missing_ok=True)
