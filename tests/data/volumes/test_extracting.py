"""From a folder to a data set: what is written, what is never written, and that a kill changes nothing."""

import json
import os
import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary

from genmix_transforms.data import open_dataset
from genmix_transforms.data.volumes import extract_patches
from genmix_transforms.data.volumes.pseudonyms import Pseudonyms
from genmix_transforms.data.volumes.writing import write_nifti, write_segmentation
from genmix_transforms.errors import InputError, MissingPathError, OverwriteError
from genmix_transforms.files.locking import locked
from tests.data.volumes.made_scans import (
    KEY,
    SHAPE,
    SPACING,
    ball,
    change,
    points_of,
    slices_of,
    write_ct,
    write_ct_nifti,
)


@pytest.fixture
def scans(tmp_path):
    """Four NIfTI scans of three patients, on three days, with lesions of two classes."""
    rows = ["scan,patient,date,label"]
    for number, (patient, date, label) in enumerate(
        [
            ("p1", "20200105", "cyst"),
            ("p2", "20190101", "cyst"),
            ("p1", "20200107", "other"),
            ("p3", "20190101", "other"),
        ]
    ):
        write_ct_nifti(tmp_path / "scans", f"s{number}", shift=10 * number)
        rows.append(f"scans/s{number}.nii.gz,{patient},{date},{label}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    return tmp_path / "scans"


def extract(scans, out, **options):
    return extract_patches(
        scans, out=scans.parent / out, key=KEY, table=scans.parent / "table.csv", **{"size": 16, **options}
    )


def test_an_archive(scans):
    done = extract(scans, "patches.npz")
    assert (done.class_counts, done.scans, done.patients) == ({"cyst": 2, "other": 2}, 4, 3)
    assert done.faults == ()
    content = np.load(scans.parent / "patches.npz")
    assert content["images"].shape == (4, 16, 16)
    assert content["images"].dtype == np.uint16
    assert content["window"].tolist() == [-1024, 3071]
    names = Pseudonyms(KEY)
    order = np.argsort([names("series", f"s{number}.nii.gz") for number in range(4)])
    expected = [("p1", "20200105", 1), ("p2", "20190101", 0), ("p1", "20200107", 2), ("p3", "20190101", 0)]
    for row, number in enumerate(order):
        patient, date, rank = expected[number]
        assert content["patient"][row] == names("patient", patient)
        assert content["date"][row] == names("date", date)
        assert content["date_rank"][row] == rank
        assert content["slice"][row] == 4
        assert content["diameter_mm"][row] == pytest.approx(8, abs=0.8)
    assert not (scans.parent / "patches.npz.parts").exists()


def test_what_is_written_is_read(scans):
    extract(scans, "patches.npz")
    extract(scans, "pngs", window=(40, 400))
    archive = open_dataset(scans.parent / "patches.npz", window=(40, 400))
    folder = open_dataset(scans.parent / "pngs" / "patches.csv")
    assert archive.classes == folder.classes == ("cyst", "other")
    assert archive.window == folder.window == (-160, 240)
    assert len(archive.groups.unique()) == len(folder.groups.unique()) == 3
    assert np.abs(archive.images.numpy().astype(int) - folder.images.numpy()).max() <= 1


def test_several_processes_write_the_same_bytes(scans):
    extract(scans, "one.npz")
    extract(scans, "two.npz", workers=2)
    assert (scans.parent / "one.npz").read_bytes() == (scans.parent / "two.npz").read_bytes()


@pytest.mark.parametrize("kind", ["2.5d", "3d"])
def test_channels_and_cubes_are_archives(scans, kind):
    extract(scans, "patches.npz", kind=kind)
    images = np.load(scans.parent / "patches.npz")["images"]
    assert images.shape == ((4, 16, 16, 3) if kind == "2.5d" else (4, 16, 16, 16))
    if kind == "2.5d":
        assert open_dataset(scans.parent / "patches.npz").images.shape == (4, 3, 16, 16)
    with pytest.raises(InputError, match=r"are no PNGs; give a name with \.npz"):
        extract(scans, "pngs", kind=kind)


def test_masks_are_kept(scans):
    """In the archive, in the folder, and read again: the class of each pixel, of whatever scan it is."""
    points = points_of()
    two = ball(points, points[4, 6, 6], 3.0) + 2 * ball(points, points[4, 13, 14], 2.0)
    write_nifti(scans / "s0_mask.nii.gz", two.astype(np.uint8), spacing=SPACING)
    options = {"labels": {"1": "cyst", "2": "adenoma"}, "window": (40, 400), "size": 24, "spacing": 0.8}
    for out in ("patches.npz", "pngs"):
        extract_patches(scans, out=scans.parent / out, key=KEY, keep_masks=True, **options)
    content = np.load(scans.parent / "patches.npz")
    assert content["mask_classes"].tolist() == ["background", "adenoma", "cyst"]
    assert content["masks"].shape == content["images"].shape == (5, 24, 24)
    names = content["label_names"][content["labels"]]
    for name, mask, diameter in zip(names, content["masks"], content["diameter_mm"], strict=True):
        there = (mask == content["mask_classes"].tolist().index(name)).sum() * 0.8**2
        assert there == pytest.approx(np.pi * diameter**2 / 4, rel=0.25)
    assert sum(len(np.unique(mask)) == 3 for mask in content["masks"]) == 2  # both lesions in the patches of either
    archive = open_dataset(scans.parent / "patches.npz", masks=True)
    folder = open_dataset(scans.parent / "pngs" / "patches.csv", masks=True)
    assert archive.mask_classes == folder.mask_classes == ("background", "adenoma", "cyst")
    assert np.array_equal(archive.masks, folder.masks)
    extract_patches(scans, out=scans.parent / "without.npz", key=KEY, **options)
    assert np.array_equal(np.load(scans.parent / "without.npz")["images"], content["images"])


def test_masks_of_an_earlier_run_do_not_stay(scans):
    extract(scans, "pngs", window=(40, 400), keep_masks=True)
    assert len(list((scans.parent / "pngs" / "masks").iterdir())) == 4
    extract(scans, "pngs", window=(40, 400), overwrite=True)
    assert sorted(path.name for path in (scans.parent / "pngs").iterdir()) == ["images", "patches.csv"]


def test_a_class_that_is_called_as_what_is_no_lesion(scans):
    with pytest.raises(InputError, match="labels: 'background' is what masks call pixels without a lesion"):
        extract_patches(scans, out=scans.parent / "a.npz", key=KEY, keep_masks=True, labels={"1": "background"})
    table = scans.parent / "table.csv"
    table.write_text(table.read_text().replace("other", "background"))
    with pytest.raises(InputError, match=r"s2\.nii\.gz: the class 'background' is what masks call pixels without"):
        extract(scans, "a.npz", keep_masks=True)
    assert extract(scans, "a.npz").class_counts == {"background": 2, "cyst": 2}


@pytest.mark.parametrize("kind", ["2.5d", "3d"])
def test_masks_of_channels_and_cubes(scans, kind):
    extract(scans, "patches.npz", kind=kind, keep_masks=True)
    content = np.load(scans.parent / "patches.npz")
    assert content["masks"].shape == ((4, 16, 16) if kind == "2.5d" else (4, 16, 16, 16))
    if kind == "2.5d":
        assert open_dataset(scans.parent / "patches.npz", masks=True).masks.max() == 2


def test_classes_by_mask_value(scans):
    points = points_of()
    labels = ball(points, points[2, 5, 5], 1.5) + 2 * ball(points, points[6, 12, 12], 2.0)
    write_nifti(scans / "s0_mask.nii.gz", labels.astype(np.uint8), spacing=SPACING)
    done = extract_patches(scans, out=scans.parent / "a.npz", key=KEY, size=16, labels={"2": "tumor"})
    assert done.class_counts == {"tumor": 1}
    assert len(done.faults) == 3
    assert done.faults[0] == ("s1.nii.gz", "no lesion of the values that are asked for in its mask")
    done = extract_patches(scans, out=scans.parent / "b.npz", key=KEY, size=16, smallest=3.0)
    assert done.class_counts == {"1": 3, "2": 1}
    assert done.faults == ()
    assert any("4 scans name no patient (s0.nii.gz)" in note for note in done.notes)


def test_bad_scans_are_named_and_the_rest_is_done(scans):
    write_nifti(scans / "s1_mask.nii.gz", np.zeros(SHAPE, np.uint8), spacing=SPACING)
    done = extract(scans, "patches.npz")
    assert done.scans == 3
    assert done.faults == (("s1.nii.gz", "an empty mask: no voxel of it is of a lesion"),)
    write_ct_nifti(scans, "s1", shift=10)  # mended: the same call reads it
    assert extract(scans, "patches.npz").scans == 4
    extract(scans, "anew.npz")
    assert (scans.parent / "patches.npz").read_bytes() == (scans.parent / "anew.npz").read_bytes()


def test_refused_before_any_work(scans, tmp_path):
    with pytest.raises(InputError, match="extract_patches: no such option: sise; did you mean size"):
        extract(scans, "a.npz", sise=3)
    with pytest.raises(InputError, match="the key has 5 characters"):
        extract_patches(scans, out=tmp_path / "a.npz", key="short")
    with pytest.raises(InputError, match="workers"):
        extract(scans, "a.npz", workers=0)
    with pytest.raises(MissingPathError, match="no such folder"):
        extract_patches(tmp_path / "none", out=tmp_path / "a.npz", key=KEY)
    extract(scans, "a.npz")
    with pytest.raises(OverwriteError, match=r"a\.npz is there already"):
        extract(scans, "a.npz")
    extract(scans, "a.npz", overwrite=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(OverwriteError, match="a folder with other files in it"):
        extract(scans, "full")
    assert not list(tmp_path.glob("*.parts"))


def test_a_restart_takes_nothing_from_another_process(scans, tmp_path):
    parts = tmp_path / "a.npz.parts"
    parts.mkdir()
    (parts / "made.npz").write_text("by another process")
    with locked(parts / ".lock", busy="busy"), pytest.raises(InputError, match="another process is working on it"):
        extract(scans, "a.npz", restart=True)
    assert (parts / "made.npz").exists()
    assert extract(scans, "a.npz", restart=True).dated == 4
    assert not parts.exists()


def test_none_of_them(scans, tmp_path):
    for file in scans.glob("*_mask*"):
        file.unlink()
    with pytest.raises(InputError, match=r"none of its 4 scans gave a patch:\n  s0.nii.gz: no mask found for it"):
        extract(scans, "a.npz")
    assert not list(tmp_path.glob("a.npz*"))


def test_magnetic_resonance_needs_a_window(tmp_path):
    slices = write_ct(tmp_path / "scans" / "mr")
    labels = ball(points_of(), points_of()[4, 10, 11])
    write_segmentation(tmp_path / "scans" / "mr" / "seg.dcm", slices, labels, classes=["a"], identity="a")
    for file in slices_of(tmp_path / "scans" / "mr"):
        if file.name != "seg.dcm":
            change(file, lambda header: setattr(header, "Modality", "MR"))
    with pytest.raises(InputError, match="no CT, so that its values are no Hounsfield units; give the window"):
        extract_patches(tmp_path / "scans", out=tmp_path / "a.npz", key=KEY)
    done = extract_patches(tmp_path / "scans", out=tmp_path / "a.npz", key=KEY, window=(0, 200))
    assert done.class_counts == {"1": 1}


# --- nothing that identifies anyone

_SECRET = "SECRET"
_DAY = "19610413"
_TEXT = {"PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE"}


def plant(header):
    """Names, numbers, days and paths in every element that a file may have."""
    for number, (tag, (vr, vm, _, retired, keyword)) in enumerate(DicomDictionary.items()):
        if not keyword or retired or keyword in header or tag >> 16 in (0, 2, 0x28) or vm.startswith("0"):
            continue
        if vr in _TEXT:
            setattr(header, keyword, f"{_SECRET}{number}"[:16])
        elif vr == "DA":
            setattr(header, keyword, _DAY)
        elif vr == "DT":
            setattr(header, keyword, f"{_DAY}101112")
    header.PatientName, header.PatientID = f"{_SECRET}^Jane", f"{_SECRET}-4711"
    header.StudyDate = header.AcquisitionDate = header.PatientBirthDate = _DAY
    header.SeriesDescription = f"/data/{_SECRET}/burned"
    header.BurnedInAnnotation = "YES"
    header.add_new(0x00091001, "LO", f"{_SECRET} private")


def every_byte(path: Path):
    """All that is written below a path: names, raw bytes, and what compressed archives hold."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        yield file.name.encode()
        yield file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    yield name.encode()
                    yield archive.read(name)


@pytest.mark.parametrize("out", ["patches.npz", "pngs"])
def test_nothing_that_is_written_names_anyone(tmp_path, out):
    scans = tmp_path / f"{_SECRET}-hospital"
    for name in ("one", "two"):
        folder = scans / f"{_SECRET} {name}"
        write_ct(folder, identity=name)
        for file in slices_of(folder):
            change(file, plant)
        slices = [pydicom.dcmread(file) for file in slices_of(folder)]
        for header in slices:  # highdicom copies what it checks
            for keyword in ("PatientAge", "TimezoneOffsetFromUTC"):
                header.pop(keyword, None)
        write_nifti(folder / "mask.nii.gz", ball(points_of(), points_of()[4, 10, 11]), spacing=SPACING)
    uid = slices[0].SeriesInstanceUID
    slices_of(scans / f"{_SECRET} two")[4].unlink()  # one that fails, so that its parts stay
    done = extract_patches(scans, out=tmp_path / out, key=KEY, size=16, window=(40, 400))
    assert done.scans == 1
    assert len(done.faults) == 1
    assert any("1 scans say that text is burned into their pixels" in note for note in done.notes)
    assert (tmp_path / f"{out}.parts").is_dir()
    words = [_SECRET, _DAY, uid, KEY, str(tmp_path), "Jane", "4711"]
    written = [content for path in (tmp_path / out, tmp_path / f"{out}.parts") for content in every_byte(path)]
    assert sum(map(len, written)) > 500
    for content in written:
        for word in words:
            for encoding in ("utf-8", "utf-16-le", "utf-32-le", "utf-32-be"):
                assert word.encode(encoding) not in content
    assert Pseudonyms(KEY)("patient", f"{_SECRET}-4711").encode("utf-32-le") in b"".join(written) or out == "pngs"


# --- killed


def killed_at(moment, scans, out):
    """Run in a process that dies at the n-th rename; returns whether it came to its end."""
    child = os.fork()
    if child == 0:
        replace, count = os.replace, 0

        def dying(*arguments):
            nonlocal count
            if count == moment:
                os._exit(9)
            count += 1
            replace(*arguments)

        os.replace = dying
        try:
            extract(scans, out, window=(40, 400))
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 0


@pytest.mark.parametrize("out", ["patches.npz", "pngs"])
def test_killed_at_every_moment_it_ends_with_the_same_bytes(scans, out):
    extract(scans, f"whole-{out}", window=(40, 400))
    expected = dict(zip(("names", "bytes"), _content(scans.parent / f"whole-{out}"), strict=True))
    moments = 0
    while not killed_at(moments, scans, out):
        moments += 1
        assert moments < 40
        assert not (scans.parent / out).is_file()
    assert moments >= 3
    assert dict(zip(("names", "bytes"), _content(scans.parent / out), strict=True)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("out", ["patches.npz", "pngs"])
def test_several_processes_killed_at_any_moment_end_with_the_same_bytes(tmp_path, out):
    """The first process is killed, by SIGKILL; the others follow it. Then the same call goes on."""
    for number in range(20):
        write_ct_nifti(tmp_path / "scans", f"s{number:02}", value=1 + number % 2, shift=number)
    options = {"key": KEY, "size": 16, "window": (40, 400), "workers": 2}
    extract_patches(tmp_path / "scans", out=tmp_path / f"whole-{out}", **{**options, "workers": 1})
    parts, rng = tmp_path / f"{out}.parts", random.Random(0)
    command = [sys.executable, "-c", _RUN, str(tmp_path / "scans"), str(tmp_path / out), json.dumps(options)]
    seen = []
    for after in (0, 5, 12):
        process = subprocess.Popen(command, start_new_session=True)
        while len(list(parts.glob("*.npz"))) < after or not parts.exists():
            assert process.poll() is None, "it came to its end before it was killed"
            time.sleep(0.005)
        time.sleep(rng.random() * 0.03)
        process.kill()
        process.wait()
        _wait_for_all_of(process.pid)
        assert not (tmp_path / out).is_file()
        assert not (tmp_path / out / "patches.csv").exists()
        seen.append(len(list(parts.glob("*.npz"))))
    assert seen == sorted(seen)
    assert seen[-1] >= 12
    extract_patches(tmp_path / "scans", out=tmp_path / out, **options)
    assert _content(tmp_path / out) == _content(tmp_path / f"whole-{out}")
    assert not parts.exists()


_RUN = """
import json, sys
from genmix_transforms.data.volumes import extract_patches
if __name__ == "__main__":
    extract_patches(sys.argv[1], out=sys.argv[2], **json.loads(sys.argv[3]))
"""


def _wait_for_all_of(session: int) -> None:
    """Until no process of a session is left: those that worked for one that was killed end by themselves."""
    for _ in range(12_000):
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("processes outlive the one that started them")


def _content(path):
    if path.is_file():
        return [], [path.read_bytes()]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [file.relative_to(path).as_posix() for file in files], [file.read_bytes() for file in files]


def test_other_settings_do_not_go_on_with_what_is_there(scans):
    assert not killed_at(2, scans, "a.npz")
    with pytest.raises(InputError, match="made with another key or other settings; give those to go on"):
        extract(scans, "a.npz", window=(40, 500))
    with pytest.raises(InputError, match="made with another key"):
        extract_patches(scans, out=scans.parent / "a.npz", key=KEY + "!", size=16, window=(40, 400))
    assert extract(scans, "a.npz", window=(40, 500), restart=True).scans == 4
