"""Merging banks on disk, shard by shard, in the memory of two shards."""

import hashlib
import json
from collections.abc import Generator, Sequence
from pathlib import Path

import torch

from genmix_transforms.bank.manifest import FORMAT_VERSION, read_manifest, refuse_unfinished
from genmix_transforms.bank.merge_rules import Union
from genmix_transforms.bank.planned_writing import ShardPlan, Task, write_planned
from genmix_transforms.bank.reading import MappedRows
from genmix_transforms.bank.rows import Rows
from genmix_transforms.bank.shard import Shard
from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.errors import CorruptFileError, InputError, OverwriteError


def merge_banks(
    folders: Sequence[str | Path],
    *,
    out: str | Path,
    classes: Sequence[str] | None = None,
    share: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> SyntheticBank:
    """Merge banks on disk into a new one. Run it again with the same arguments to continue where it stopped.

    Each shard of a bank becomes one shard of the new bank. It is read once, its checksum is verified, and it is written
    with its labels mapped by name. This takes the memory of two shards (256 MiB each by default) for banks of any size.
    With ``torchrun``, ``accelerate launch`` or in a Slurm array, each process takes its share of the shards without
    communication. The files are the same for any number of processes.

    Args:
        folders: of the banks, which must have the same image shape, pixel type, window, kind of labels and mask
            classes. They do not change.
        out: the new bank's folder.
        classes: the class names of the new bank, in order; None: those of the first bank, then those that the others
            add, in order of appearance.
        share: ``(rank, count)``: write every ``count``-th shard from number ``rank`` on; ``(0, 1)``: all of them. None:
            as torchrun, Accelerate or Slurm number the processes.
        overwrite: delete the bank in ``out``.
        progress: show a bar.

    Returns:
        The new bank, opened from ``out``.

    Raises:
        InputError: no such banks, banks that do not match (the message names the first that does not), one that is
            still being filled, images of a class that ``classes`` does not name, or the same images in two banks: equal
            shards, or images that the same generator has drawn from the same seed.
        OverwriteError: ``out`` is one of the banks, or holds something else.
        CorruptFileError: a corrupt shard; the message names it.
        UnfinishedBankError: the share of this process is done, but other processes are still working.

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
    manifests = [read_manifest(path) for path in paths]
    for path, manifest in zip(paths, manifests, strict=True):
        refuse_unfinished(path, manifest)
    # Opened: what is missing is told now, and not after hours of merging.
    banks = [MappedRows(path, manifest) for path, manifest in zip(paths, manifests, strict=True)]
    _check_shards_differ(banks)
    union = Union.of({str(bank.folder): bank for bank in banks}, classes=classes)
    shards = [(number, shard) for number, bank in enumerate(banks) for shard in bank.shards]
    if not shards:
        raise InputError("merge_banks: the banks hold no images: fill them first")

    def make(task: Task) -> Generator[Rows, None, None]:
        for number in task.shards:
            bank, shard = shards[number]
            yield union.renumbered(bank, _whole_shard(banks[bank], shard))
            task.advance(shard.entry.count)

    plan = ShardPlan(
        identity=_identity(union, banks),
        counts=[shard.entry.count for _, shard in shards],
        make=make,
        other="that was not merged from these, as they are now",
    )
    write_planned(out, union.kind, plan, share=share, overwrite=overwrite, progress=progress)
    return SyntheticBank.load(out)


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


def _check_shards_differ(banks: Sequence[MappedRows]) -> None:
    seen: dict[tuple[str, int], Path] = {}
    for bank in banks:
        here = {(shard.entry.xxh3, shard.entry.bytes): shard.path for shard in bank.shards}
        for checksum, file in here.items():
            if checksum in seen:
                raise InputError(
                    f"{seen[checksum]} and {file} are one and the same: their images would be in the new bank twice; "
                    "leave out one of the banks"
                )
        seen.update(here)


def _identity(union: Union, banks: Sequence[MappedRows]) -> str:
    """A hash of all that determines the new shards' bytes."""
    names = union.kind.classes
    content = [
        "merge",
        FORMAT_VERSION,
        union.kind.classes,
        union.kind.sources,
        union.kind.window,
        [
            *([names.index(name) if name in names else -1 for name in classes] for classes in union.classes),
            *(numbers.tolist() for numbers in union.sources),
        ],
        [[(entry.xxh3, entry.bytes) for entry in bank.manifest.shards] for bank in banks],
        *(bank.decisions.verdicts() for bank in banks if bank.decisions.verdicts()),
        *([] if union.kind.mask_classes is None else [union.kind.mask_classes]),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _whole_shard(bank: MappedRows, shard: Shard) -> Rows:
    """A shard's rows, if they are those that were written."""
    if not shard.is_as_written():
        raise CorruptFileError(
            f"{shard.path}: not the bytes that were written; fill the bank again, or take it from its copy, and merge "
            "then"
        )
    names = [name for name in Rows._fields if name != "masks" or bank.mask_classes is not None]
    rows = Rows(**{name: torch.from_numpy(bank.shard_column(shard, name)) for name in names})
    if not 0 <= int(rows.source.min()) <= int(rows.source.max()) < len(bank.sources):
        raise CorruptFileError(f"{shard.path}: of a source that the manifest does not have")
    return rows
