"""Writing a bank: shard by shard, and after each, or at the end, a manifest that names what is whole."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from genmix_transforms.bank.checks import check_classes, check_sources, check_tensors, check_window
from genmix_transforms.bank.manifest import (
    INDEX,
    LOCK,
    MAX_SHARDS,
    Manifest,
    ShardEntry,
    is_bank_file,
    is_shard_name,
    now,
    read_manifest,
    shard_name,
    write_manifest,
)
from genmix_transforms.bank.row_buffer import RowBuffer
from genmix_transforms.bank.shards import Rows, images_per_shard, shard_fill, write_shard
from genmix_transforms.errors import CorruptFileError, InputError, OverwriteError
from genmix_transforms.files.checks import check_output_folder


class BankWriter:
    """Writes images into a bank on disk, without ever holding more than a shard of them.

    Shards are immutable files; the manifest, replaced as a whole, names those that count. Whatever happens (Ctrl-C,
    kill -9, a full disk), the bank is as its last manifest says, and the next writer removes what was left over. One
    process writes at a time; any number may read, and find new shards with ``bank.refresh()``.

    Args:
        folder: of the bank; made if need be.
        classes: class names; a label is an index into them.
        image_shape: ``(C, *spatial)``.
        pixel_dtype: uint8 or uint16.
        labels: "index": whole numbers; "probabilities": a row of ``len(classes)`` an image.
        window: for CT, the Hounsfield units of the lowest and the highest pixel value.
        provenance: where the images come from; a list of such, if :meth:`add` is told which image comes from which.
        append: add to the bank that is there.
        overwrite: replace the bank that is there, in the moment when this one is whole.
        publish: "shard": each shard counts as soon as it is whole; "close": all of them, at the end, or none.
        shard_bytes: a shard is closed before it grows past this many bytes of pixels; None: 256 MiB.

    Raises:
        InputError: arguments that make no bank, or that the bank to append to does not have.
        OverwriteError: the folder holds a bank (and neither append nor overwrite), something else, or another writer.

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
        self.folder = Path(folder).absolute()
        self._sources = check_sources(provenance)
        self._given = Manifest(
            classes=check_classes(classes),
            dtype=str(pixel_dtype).removeprefix("torch."),
            shape=tuple(image_shape),
            labels=labels,
            sources=self._sources,
            window=check_window(window),
        )
        # Of no images, but of their shape and type: refused now what would be refused with the first image.
        check_tensors(
            torch.empty(0, *self._given.shape, dtype=pixel_dtype),
            torch.empty((0,) if labels == "index" else (0, len(self._given.classes)), dtype=torch.int64),
            self._given.classes,
        )
        self._append, self._overwrite, self._publish = append, overwrite, publish
        self._per_shard = images_per_shard(self._given.shape, pixel_dtype, shard_bytes=shard_bytes)
        self._waiting = RowBuffer(self._per_shard)
        self._unpublished: list[ShardEntry] = []
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(only_writer(self.folder))
            before = bank_to_change(self.folder, append=self._append, overwrite=self._overwrite)
            self._begin(before)
            self._held = undo.pop_all()
        return self

    def _begin(self, before: Manifest | None) -> None:
        self._retired = () if before is None or self._append else before.shards
        if before is None or not self._append:
            remove_orphans(self.folder, before)
            generation = 0 if before is None else before.generation
            self.manifest = replace(self._given, generation=generation)
            self._source_numbers = torch.arange(len(self._sources), dtype=torch.int32)
        else:
            check_same_kind(self.folder, before, self._given)
            remove_orphans(self.folder, before)
            sources = list(before.sources)
            for source in self._sources:
                if source not in sources:
                    sources.append(source)
            self._source_numbers = torch.tensor([sources.index(source) for source in self._sources], dtype=torch.int32)
            self.manifest = replace(before, sources=tuple(sources))
        shards = before.shards if before is not None else ()
        self._next = 1 + max((shard.number for shard in shards), default=-1)

    def add(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        seeds: Tensor | None = None,
        source: Tensor | None = None,
        distance: Tensor | None = None,
        flags: Tensor | None = None,
    ) -> None:
        """Add images; a shard is written whenever there are enough for one.

        Args:
            images: ``(n, C, *spatial)``, of the writer's dtype.
            labels: ``(n,)`` whole numbers or ``(n, K)`` probabilities, as the writer was told.
            seeds: int64 ``(n,)``; -1 or None: from no seed.
            source: ``(n,)``: index into the list given as provenance; None: 0.
            distance: float32 ``(n,)`` to the nearest real image; NaN or None: not measured.
            flags: uint8 ``(n,)``, see :class:`~genmix_transforms.bank.flags.Flag`.

        Raises:
            InputError: other shapes, dtypes or labels; nothing of it has been added then.
        """
        labels = check_tensors(images, labels, self._given.classes)
        kind = "index" if labels.ndim == 1 else "probabilities"
        got = (tuple(images.shape[1:]), images.dtype, kind)
        if got != (self._given.shape, self._given.pixel_dtype, self._given.labels):
            raise InputError(
                f"BankWriter: made for {self._given.shape} {self._given.pixel_dtype} images and labels of kind "
                f"{self._given.labels!r}, got {got[0]} {got[1]} and {got[2]!r}"
            )
        rows = Rows.complete(images, labels, seeds=seeds, source=source, distance=distance, flags=flags).checked()
        if len(images) and not 0 <= int(rows.source.min()) <= int(rows.source.max()) < len(self._sources):
            raise InputError(f"BankWriter: source must be from 0 to {len(self._sources) - 1}")
        rows = rows._replace(source=self._source_numbers[rows.source.long()])
        while len(rows.images):
            rows = self._waiting.add(rows)
            if self._waiting.is_full:
                self._write()

    def _write(self) -> None:
        if self._next >= MAX_SHARDS:
            raise InputError(f"BankWriter: {self.folder} has had {MAX_SHARDS:,} shards; write a new bank")
        name = self.folder / shard_name(self._next)
        self._unpublished.append(write_shard(name, self._waiting.rows, classes=self._given.classes))
        self._waiting.clear()
        self._next += 1
        if self._publish == "shard" and not self._retired:
            self._write_manifest()

    def _write_manifest(self) -> None:
        shards = (*self.manifest.shards, *self._unpublished)
        self.manifest = replace(self.manifest, shards=shards, generation=self.manifest.generation + 1, created=now())
        write_manifest(self.folder, self.manifest)
        self._unpublished = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            try:
                if kind is None:
                    self._finish()
            except BaseException:
                self._leave_nothing()
                raise
            if kind is not None:
                self._leave_nothing()

    def _finish(self) -> None:
        if len(self._waiting):
            self._write()
        if self._unpublished or not (self.folder / INDEX).exists() or (self._overwrite and self._retired):
            self._write_manifest()
        for entry in self._retired:
            # Readers that have it mapped keep it: a file's name goes first, the file with its last reader.
            (self.folder / entry.file).unlink(missing_ok=True)

    def _leave_nothing(self) -> None:
        """Of what no manifest names."""
        remove_orphans(self.folder, read_manifest(self.folder) if (self.folder / INDEX).exists() else None)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Be the folder's one writer; the system ends it when the process is killed.

    A folder that is made for it and stays empty is removed again.

    Raises:
        OverwriteError: another process writes there, or the folder cannot be one.
    """
    check_output_folder(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise OverwriteError(f"{folder}: another process is writing this bank; wait for it, or stop it") from error
    except OSError as error:
        raise OverwriteError(f"{folder}: {LOCK} cannot be locked ({error.strerror}); is it a file of yours?") from error
    try:
        yield
    finally:
        if not (folder / INDEX).exists() and folder.exists():
            (folder / LOCK).unlink(missing_ok=True)
            if made and not any(folder.iterdir()):
                folder.rmdir()
        lock.release()


def bank_to_change(folder: Path, *, append: bool, overwrite: bool) -> Manifest | None:
    """The manifest of the bank in ``folder``; None where there is none yet.

    Raises:
        OverwriteError: a bank, and neither append nor overwrite; or files that are no bank's.
    """
    files = [file.name for file in folder.iterdir() if file.name != LOCK]
    if INDEX not in files:
        foreign = sorted(name for name in files if not is_bank_file(name))
        if foreign:
            raise OverwriteError(f"{folder}: holds other files and no bank ({foreign[0]}); give another folder")
        begun = sorted(name for name in files if is_shard_name(name))
        if begun and not overwrite and any(fill_of(folder / name) for name in begun):
            raise OverwriteError(
                f"{folder}: holds {begun[0]} of a fill that has not finished; run it again, overwrite, or give another"
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
    if append and manifest.shards_to_come:
        raise OverwriteError(
            f"{folder}: {manifest.shards_to_come} shards of a fill are still to come; finish it first, by the same "
            "command"
        )
    return manifest


def check_same_kind(folder: Path, bank: Manifest, given: Manifest) -> None:
    """Refuse to append what the bank does not hold the like of."""
    for name in ("classes", "dtype", "shape", "labels", "window"):
        before, now_given = getattr(bank, name), getattr(given, name)
        if before != now_given:
            raise InputError(f"{folder}: the bank's {name} are {before}, what is to be added has {now_given}")


def remove_orphans(folder: Path, manifest: Manifest | None) -> None:
    """Remove what killed writers left: shards that no manifest names, and temporary files."""
    named = set() if manifest is None else {shard.file for shard in manifest.shards}
    for file in folder.iterdir():
        if is_bank_file(file.name) and file.name not in named and file.name not in (INDEX, LOCK):
            if file.is_dir() and not file.is_symlink():
                raise OverwriteError(f"{file}: a folder with a shard's name; move it, or give another folder")
            file.unlink(missing_ok=True)


def fill_of(path: Path) -> str | None:
    """The fill that a file is a shard of; None: of none, or it is no shard."""
    try:
        return shard_fill(path)
    except CorruptFileError:
        return None
