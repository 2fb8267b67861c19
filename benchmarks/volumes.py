"""What `genmix patches` takes: memory for many DICOM series, and whether a run that is killed ends with the same bytes.

    python benchmarks/volumes.py memory --series 1000 --large 2
    python benchmarks/volumes.py kills --series 200 --kills 20

`memory` runs the command in a process of its own and prints the most memory that the process had at any time (its peak
resident set, the libraries included). The series are small, so that a laptop has them on disk; `--large` of them have
the size of an abdominal CT (300 slices of 512 x 512), since a scan is held whole while its patches are cut.

`kills` runs to the end once, then again with SIGKILL at moments spread over the series, and compares the archives.
"""

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom

from genmix_transforms.data.volumes import extract_patches
from genmix_transforms.data.volumes.writing import write_nifti, write_series

KEY = "a key for benchmarks alone"
SMALL = (3, 32, 32)
TINY = (5, 16, 16)
LARGE = (300, 512, 512)
SPACING = (3.0, 0.8, 0.8)
OPTIONS = {"size": 32, "labels": {"1": "cyst", "2": "metastasis"}}


def shape(text: str) -> tuple[int, int, int]:
    """Of a volume, ``40,256,256``."""
    slices, rows, columns = map(int, text.split(","))
    return slices, rows, columns


def write_scan(folder: Path, number: int, shape: tuple[int, int, int]) -> None:
    """A series of noise with a ball of other values in the middle, and its mask."""
    rng = np.random.default_rng(number)
    grid = np.ogrid[tuple(slice(0, count) for count in shape)]
    away = sum(((axis - count / 2) * step) ** 2 for axis, count, step in zip(grid, shape, SPACING, strict=True))
    ball = np.asarray(away <= 5.0**2)
    voxels = rng.integers(60, 140, shape, dtype=np.int16)
    voxels[ball] -= 60
    write_series(folder, voxels, spacing=SPACING, identity=str(number), PatientID=f"{number:08}", StudyDate="20240301")
    write_nifti(folder / "mask.nii.gz", (ball * (1 + number % 2)).astype(np.uint8), spacing=SPACING)


def write_scans(folder: Path, *, series: int, shape: tuple[int, int, int], large: int = 0) -> None:
    """Series of their own numbers and patients; the small ones show the same, which takes a second and not minutes."""
    for number in range(large):
        write_scan(folder / f"large-{number:05}", number, LARGE)
    for number in range(2):
        write_scan(folder / f"{number:05}", series + number, shape)
    for number in range(2, series - large):
        copy_scan(folder / f"{number % 2:05}", folder / f"{number:05}")


def copy_scan(scan: Path, copy: Path) -> None:
    """A scan with another series number and another patient, of the same length."""
    copy.mkdir()
    for file in scan.iterdir():
        content = file.read_bytes()
        if file.suffix == ".dcm":
            header = pydicom.dcmread(file, stop_before_pixels=True)
            uid, patient = header.SeriesInstanceUID, header.PatientID
            content = content.replace(uid.encode(), f"{uid[:-6]}9{copy.name}".encode())
            content = content.replace(patient.encode(), f"{int(copy.name) // 2:0{len(patient)}}".encode())
        (copy / file.name).write_bytes(content)


def measure_memory(work: Path, *, series: int, shape: tuple[int, int, int], large: int, workers: int) -> None:
    # In a process of its own: to the system, the peak of a process counts for those that it starts.
    writer = multiprocessing.get_context("fork").Process(
        target=write_scans, args=(work / "scans",), kwargs={"series": series, "shape": shape, "large": large}
    )
    writer.start()
    writer.join()
    out = work / "patches.npz"
    command = [sys.executable, "-m", "genmix_transforms", "patches", str(work / "scans"), "--out", str(out)]
    command += ["--size", "64", "--labels", "1=cyst,2=metastasis", "--workers", str(workers)]
    start = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, "GENMIX_KEY": KEY}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"genmix patches failed:\n{said}")
    unit = 1 if sys.platform == "darwin" else 1024
    with np.load(out) as content:
        patches = len(content["labels"])
    print(f"{series} series ({large} of them {'x'.join(map(str, LARGE))}, the others {'x'.join(map(str, shape))})")
    print(f"{patches} patches in {seconds:.0f} s, {usage.ru_utime + usage.ru_stime:.0f} s of a core, {workers} workers")
    print(f"peak memory of the main process: {usage.ru_maxrss * unit / 1e6:.0f} MB")


def finished(parts: Path) -> int:
    return len(list(parts.glob("*.npz")))


def run_and_kill(scans: Path, out: Path, *, after: int, rng: random.Random) -> bool:
    """Run in a child that is killed when so many series are done, at any moment of the next; whether it was killed."""
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        try:
            extract_patches(scans, out=out, key=KEY, **OPTIONS)
        except BaseException:
            os._exit(1)
        os._exit(0)
    while finished(out.with_name(f"{out.name}.parts")) < after:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, "the run failed"
            return False
        time.sleep(0.01)
    time.sleep(rng.random() * 0.03)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def measure_kills(work: Path, *, series: int, kills: int) -> None:
    write_scans(work / "scans", series=series, shape=TINY)
    extract_patches(work / "scans", out=work / "whole.npz", key=KEY, **OPTIONS)
    out, rng = work / "killed.npz", random.Random(0)
    killed, seen = 0, []
    for number in range(kills):
        after = round(series * (number + 0.5) / kills)
        killed += run_and_kill(work / "scans", out, after=after, rng=rng)
        assert not out.exists(), "a killed run left an archive under its final name"
        seen.append(finished(out.with_name(f"{out.name}.parts")))
    extract_patches(work / "scans", out=out, key=KEY, **OPTIONS)
    same = out.read_bytes() == (work / "whole.npz").read_bytes()
    left = [path.name for path in work.iterdir() if path.name not in ("scans", "whole.npz", "killed.npz")]
    print(f"{series} series, killed {killed} of {kills} times, with {seen} series done")
    print(f"the same bytes: {same}; left beside them: {left or 'nothing'}")
    if not same:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "kills"])
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--shape", type=shape, default=SMALL, help="of the others: SLICES,ROWS,COLUMNS (memory)")
    parser.add_argument("--large", type=int, default=0, help="of them as large as an abdominal CT")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "memory":
            sizes = {"series": options.series, "shape": options.shape, "large": options.large}
            measure_memory(Path(folder), **sizes, workers=options.workers)
        else:
            measure_kills(Path(folder), series=options.series, kills=options.kills)


if __name__ == "__main__":
    main()
