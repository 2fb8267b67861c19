"""From a folder of scans to a data set of patches: scan by scan, in several processes, and on from where it stopped."""

import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genmix_transforms.data.volumes.assembling import MANIFEST, assemble, can_be_png
from genmix_transforms.data.volumes.one_scan import Done, extract_scan, prepare_process
from genmix_transforms.data.volumes.pseudonyms import Pseudonyms
from genmix_transforms.data.volumes.scans import Scan, find_scans
from genmix_transforms.data.volumes.settings import BACKGROUND, PatchSettings
from genmix_transforms.errors import InputError, MissingExtraError, OverwriteError
from genmix_transforms.files.atomic import remove_leftovers, write_json
from genmix_transforms.files.checks import check_output_folder, whole_number
from genmix_transforms.files.locking import locked
from genmix_transforms.files.mask_files import IMAGES, INFO, MASKS
from genmix_transforms.files.progress import progress_bar

_OTHER_FILES = {".csv", ".png", ".npy", ".zip", ".h5", ".hdf5", ".nii", ".gz", ".parquet"}
"""Names of files that are not written, and of no folder that anyone means."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What came of a folder of scans. The names of scans in it are for the user's eyes: they are written nowhere.

    Args:
        out: what was written.
        class_counts: patches of each class.
        scans: how many gave patches.
        patients: how many patients these are of.
        faults: the scans that gave none, with the reason.
        notes: what a user should know of the others.
        dated: how many of the scans that gave patches say when they were acquired.
    """

    out: Path
    class_counts: dict[str, int]
    scans: int
    patients: int
    faults: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    dated: int = 0


def extract_patches(
    scans: str | Path,
    *,
    out: str | Path,
    key: str,
    masks: str | Path | None = None,
    table: str | Path | None = None,
    workers: int = 1,
    restart: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> Extraction:
    """Cut patches around the lesions of DICOM series and NIfTI volumes.

    What is written names nobody: pixels, sizes in mm, and keyed hashes in place of patient, series and date
    (:class:`~genmix_transforms.data.volumes.pseudonyms.Pseudonyms`), with the rank of the date among all, so that a
    split by date is possible. No header, no path, no key. What stands *in* the pixels stays there: text that was burned
    in lies in the patch if it lies beside the lesion; headers that say so are counted.

    It may be stopped at any moment; the same call goes on, and ends with the same bytes. What is done lies in
    ``OUT.parts``, which goes when all scans are done. Scans that cannot be used are named at the end; ``OUT.parts``
    then stays, and once they are mended the same call reads these alone.

    Args:
        scans: a folder with DICOM series and NIfTI volumes in it, see
            :func:`~genmix_transforms.data.volumes.scans.find_scans`.
        out: an ``.npz``, or a folder for PNGs and ``patches.csv``; :func:`genmix_transforms.data.open_dataset` reads
            both.
        key: of the pseudonyms, at least 16 characters.
        masks: a folder with the masks, where they lie apart.
        table: a CSV that says of each scan its mask, class, patient or date.
        workers: processes; each holds one scan at a time.
        restart: throw away what an earlier call has left undone.
        overwrite: replace ``out``.
        **settings: the fields of :class:`PatchSettings`.

    Raises:
        MissingPathError: no such folder or table.
        OverwriteError: ``out`` is there already.
        InputError: settings that cannot be, no scans, none that can be used, or parts that another key or other
            settings have made.

    Example:
        >>> extract_patches("scans", out="patches.npz", key=key, window=(40, 400))  # doctest: +SKIP
    """
    options = PatchSettings.of(settings, name="extract_patches")
    names = Pseudonyms(key)
    whole_number(workers, name="workers", least=1)
    _need_libraries()
    out = Path(out)
    _check_out(out, options, overwrite=overwrite)
    found = find_scans(
        Path(scans), masks=None if masks is None else Path(masks), table=None if table is None else Path(table)
    )
    if options.keep_masks:
        _refuse_background(found)
    parts = out.with_name(f"{out.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    with locked(parts / ".lock", busy=f"{parts}: another process is working on it; wait for it, or stop it"):
        remove_leftovers(parts)
        if restart:  # nothing of another process's that is at it
            for file in (*parts.glob("*.npz"), *parts.glob("settings.json")):
                file.unlink()
        _check_same(parts, options, names)
        done = _extract_all(found, parts, options, names, workers=workers)
        useful = [scan for scan in found if done[scan.identity].patches]
        faults = tuple((scan.shown, done[scan.identity].fault) for scan in found if done[scan.identity].fault)
        if not useful:
            shutil.rmtree(parts)
            listed = "".join(f"\n  {shown}: {fault}" for shown, fault in faults[:10])
            raise InputError(f"{scans}: none of its {len(found)} scans gave a patch:{listed}")
        counts = assemble(_in_order(useful, parts, names), out, options)
    if not faults:
        shutil.rmtree(parts)
    return Extraction(
        out=out,
        class_counts=counts,
        scans=len(useful),
        patients=len({scan.patient or scan.identity for scan in useful}),
        faults=faults,
        notes=_notes(useful, done),
        dated=sum(bool(scan.date) for scan in useful),
    )


def _need_libraries() -> None:
    try:
        import highdicom  # noqa: F401
        import nibabel  # noqa: F401
        import pydicom  # noqa: F401
        import SimpleITK  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"scans are read by pydicom, nibabel, highdicom and SimpleITK, and {error.name} is not installed: "
            "pip install 'genmix-transforms[volumes]'"
        ) from error


def _check_out(out: Path, options: PatchSettings, *, overwrite: bool) -> None:
    check_output_folder(out.parent)
    is_archive = out.suffix.lower() == ".npz"
    if out.suffix.lower() in _OTHER_FILES and not out.exists():
        raise InputError(
            f"{out}: patches are written as an .npz, or as a folder of PNGs with a patches.csv in it; give a "
            "name with .npz, or one of a folder"
        )
    if not is_archive and not can_be_png(options):
        raise InputError(
            f"{out}: {options.kind} patches of {options.channels} channels are no PNGs; give a name with .npz"
        )
    there = out.is_file() if is_archive else (out / MANIFEST).is_file()
    if (is_archive and out.is_dir()) or (not is_archive and out.exists() and not out.is_dir()):
        raise OverwriteError(f"{out} already exists, with a different kind of data; choose another name")
    goes_on = out.with_name(f"{out.name}.parts").is_dir()
    if there and not overwrite and not goes_on:
        raise OverwriteError(f"{out} is there already; give another name, or overwrite it (--overwrite)")
    if not is_archive and out.is_dir() and not there and not goes_on and any(out.iterdir()):
        raise OverwriteError(f"{out}: a folder with other files in it; give a new one")
    if there and overwrite and not goes_on and not is_archive:
        for folder in (IMAGES, MASKS):
            shutil.rmtree(out / folder, ignore_errors=True)
        (out / INFO).unlink(missing_ok=True)


def _refuse_background(found: Sequence[Scan]) -> None:
    for scan in found:
        if BACKGROUND in scan.classes.values():
            raise InputError(
                f"{scan.shown}: the class {BACKGROUND!r} is what masks call pixels without a lesion; give it another "
                "name in the table, or leave keep_masks out"
            )


def _check_same(parts: Path, options: PatchSettings, names: Pseudonyms) -> None:
    """Refuse to go on with what another key or other settings have made."""
    file = parts / "settings.json"
    # Keyed, so that it tells nothing to whoever finds it.
    ours = {"settings": names("settings", json.dumps(options.to_json(), sort_keys=True))}
    if not file.exists():
        write_json(file, ours)
    elif json.loads(file.read_text(encoding="utf-8")) != ours:
        raise InputError(
            f"{parts}: made with another key or other settings; give those to go on, or --restart to throw it away"
        )


def _part(scan: Scan, parts: Path, names: Pseudonyms) -> Path:
    """Where the patches of a scan lie. With its class and mask, so that a corrected table makes them anew."""
    said = hashlib.sha256(repr((sorted(scan.classes.items()), scan.mask and scan.mask.name)).encode()).hexdigest()
    return parts / f"{names('series', scan.identity)}-{names('said', said)[:8]}.npz"


def _extract_all(
    found: Sequence[Scan], parts: Path, options: PatchSettings, names: Pseudonyms, *, workers: int
) -> dict[str, Done]:
    """Do what is not done yet."""
    from genmix_transforms.files.arrays import read_npz

    done = {}
    to_do = []
    for scan in found:
        path = _part(scan, parts, names)
        if path.exists():
            done[scan.identity] = Done(patches=len(read_npz(path)["slice"]))
        else:
            to_do.append((scan, path))
    with progress_bar(total=len(found), initial=len(done), desc="cutting patches", unit="scan") as bar:
        for identity, result in _results(to_do, options, workers=min(workers, max(1, len(to_do)))):
            done[identity] = result
            bar.update()
    return done


def _results(to_do: Sequence[tuple[Scan, Path]], options: PatchSettings, *, workers: int) -> Iterator[tuple[str, Done]]:
    if workers == 1:
        for scan, path in to_do:
            yield scan.identity, extract_scan(scan, path, options)
        return
    with _pool(workers) as pool:
        futures = {pool.submit(extract_scan, scan, path, options): scan.identity for scan, path in to_do}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process was killed while it read a scan, perhaps for want of memory; run the same command again, "
                "with fewer workers"
            ) from error


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # Spawned: a fork of a process that has threads (torch has) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=prepare_process)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(useful: Sequence[Scan], parts: Path, names: Pseudonyms) -> list[tuple[Path, str, str, str]]:
    """For each scan its file and pseudonyms. In the order of these: that of the folder says too much."""
    rank = {date: place for place, date in enumerate(sorted({scan.date for scan in useful if scan.date}))}
    listed = [
        (
            _part(scan, parts, names),
            names("series", scan.identity),
            names("patient", scan.patient or f"of {scan.identity}"),
            f"{names('date', scan.date)}:{rank[scan.date]}" if scan.date else "",
        )
        for scan in useful
    ]
    return sorted(listed, key=lambda item: item[1])


def _notes(useful: Sequence[Scan], done: dict[str, Done]) -> tuple[str, ...]:
    notes = [f"{scan.shown}: {note}" for scan in useful for note in done[scan.identity].notes]
    if burned := [scan.shown for scan in useful if scan.burned_in]:
        notes.append(
            f"{len(burned)} scans say that text is burned into their pixels ({burned[0]}): look at their patches "
            "before you share them"
        )
    if nobody := [scan.shown for scan in useful if not scan.patient]:
        notes.append(
            f"{len(nobody)} scans name no patient ({nobody[0]}): each counts as one of its own; a table says who is "
            "who (--table, column patient)"
        )
    return tuple(notes)
