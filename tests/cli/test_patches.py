"""``genmix patches``: from a folder of scans to data that the other commands take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genmix_transforms.data import open_dataset
from tests.data.volumes.made_scans import KEY, write_ct_nifti

Genmix = Callable[..., Any]


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENMIX_KEY", KEY)
    for number in range(3):
        write_ct_nifti(tmp_path / "scans", f"s{number}", value=1 + number % 2)
    return tmp_path / "scans"


def test_patches_of_a_folder(scans: Path, tmp_path: Path, genmix: Genmix) -> None:
    (scans / "s2_mask.nii.gz").unlink()
    out = tmp_path / "patches.npz"
    command = ("patches", scans, "--out", out, "--size", 16, "--window", "40,400", "--labels", "1=cyst,2=tumor")
    outcome = genmix(*command)
    assert outcome.code == 0, outcome.err
    assert "patches.npz: 2 patches (cyst 1, tumor 1) of 2 scans, 2 patients" in outcome.out
    assert "1 scans gave no patches:\n  s2.nii.gz: no mask found for it" in outcome.out
    assert "2 scans name no patient (s0.nii.gz)" in outcome.out
    assert f"split them, by patient:\n  genmix split {out} --out split.csv" in outcome.out  # nobody says when
    patches = open_dataset(out)
    assert patches.class_counts == {"cyst": 1, "tumor": 1}
    assert patches.window == (-160, 240)
    write_ct_nifti(scans, "s2")
    outcome = genmix(*command)  # goes on
    assert "3 patches (cyst 2, tumor 1) of 3 scans" in outcome.out
    assert genmix(*command).code == 2  # all is done
    assert genmix(*command, "--overwrite", "--kind", "2.5d").code == 0
    assert np.load(out)["images"].shape == (3, 16, 16, 3)


def test_patches_with_their_masks(scans: Path, tmp_path: Path, genmix: Genmix) -> None:
    command = ("patches", scans, "--out", tmp_path / "pngs", "--size", 16, "--window", "40,400", "--keep-masks")
    outcome = genmix(*command, "--labels", "1=cyst,2=tumor")
    assert outcome.code == 0, outcome.err
    patches = open_dataset(tmp_path / "pngs" / "patches.csv", masks=True)
    assert patches.masks is not None
    assert patches.mask_classes == ("background", "cyst", "tumor")
    for label, mask in zip(patches.labels, patches.masks, strict=True):
        assert mask.unique().tolist() == [0, 1 + int(label)]
    outcome = genmix(*command, "--overwrite", "--labels", "1=background")
    assert outcome.code == 2
    assert "'background' is what masks call pixels without a lesion" in outcome.err


def test_what_is_proposed_can_be_done(scans: Path, tmp_path: Path, genmix: Genmix) -> None:
    table = tmp_path / "table.csv"
    rows = [f"scans/s{number}.nii.gz,p{number},2024-03-0{number + 1}" for number in range(3)]
    table.write_text("\n".join(["scan,patient,date", *rows]))
    command = ("patches", scans, "--table", table, "--size", 16)
    outcome = genmix(*command, "--out", tmp_path / "dated.npz")
    assert f"by date:\n  genmix split {tmp_path / 'dated.npz'} --by date --out split.csv" in outcome.out
    outcome = genmix("split", tmp_path / "dated.npz", "--by", "date", "--out", tmp_path / "split.csv")
    assert outcome.code == 0, outcome.err
    outcome = genmix(*command, "--out", tmp_path / "cubes.npz", "--kind", "3d")
    assert "cubes are for your own code" in outcome.out
    assert "genmix split" not in outcome.out
    outcome = genmix(*command, "--out", tmp_path / "one.npz", "--labels", "1=lesion,2=lesion")
    assert "of one class: tell lesions apart with --labels or --table" in outcome.out
    assert "genmix split" not in outcome.out


@pytest.mark.parametrize("name", ["patches.csv", "patches.npy", "patches.nii.gz"])
def test_a_name_of_another_file(scans: Path, tmp_path: Path, genmix: Genmix, name: str) -> None:
    outcome = genmix("patches", scans, "--out", tmp_path / name, "--window", "40,400")
    assert outcome.code == 2
    assert "patches are written as an .npz, or as a folder of PNGs" in outcome.err
    assert not list(tmp_path.glob("patches*"))


def test_a_dry_run(scans: Path, tmp_path: Path, genmix: Genmix) -> None:
    outcome = genmix("patches", scans, "--out", tmp_path / "a.npz", "--window", "40,400", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "# 3 scans, 3 of them with a mask" in outcome.out
    assert "window: [40.0, 400.0]" in outcome.out
    assert KEY not in outcome.out
    assert not list(tmp_path.glob("a.npz*"))


def test_refused(scans: Path, tmp_path: Path, genmix: Genmix, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("patches", scans, "--out", tmp_path / "a.npz")
    outcome = genmix(*command, "--spacing", "-1")
    assert outcome.code == 2
    assert "spacing" in outcome.err
    assert "no such folder" in genmix("patches", tmp_path / "no", "--out", tmp_path / "a.npz").err
    assert "--key-file" in genmix(*command, "--key-file", tmp_path / "no").err
    monkeypatch.delenv("GENMIX_KEY")
    outcome = genmix(*command)
    assert outcome.code == 2
    assert "there is no key: set GENMIX_KEY" in outcome.err
