"""``genmix split``: the file, what is said, and what is refused before any image is read."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genmix_transforms.data import open_dataset, readers

Genmix = Callable[..., Any]


def test_an_npz(discs: Path, tmp_path: Path, genmix: Genmix) -> None:
    outcome = genmix("split", discs, "--out", tmp_path / "new" / "split.csv", "--seed", 3)
    assert outcome.code == 0, outcome.err
    assert "discs.npz: 48 patches (bright 24, dark 24)" in outcome.out
    assert "16x16" not in outcome.out
    assert "split.csv: 24 to train (bright 12, dark 12), 12 to validate, 12 to test" in outcome.out
    assert f"genmix train dcgan --data {discs} --split {tmp_path / 'new' / 'split.csv'} --out runs/dcgan" in outcome.out
    patches = open_dataset(discs, size=32)
    parts = patches.with_split(tmp_path / "new" / "split.csv").split()
    for part, expected in zip(parts, patches.split(seed=3), strict=True):
        assert torch.equal(part.images, expected.images)


def test_a_folder_of_images_of_any_size(tmp_path: Path, genmix: Genmix) -> None:
    random = np.random.default_rng(0)
    for number in range(16):
        folder = tmp_path / "set" / ("cyst", "solid")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20 + number, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    assert genmix("split", tmp_path / "set", "--out", tmp_path / "split.csv").code == 0
    with open(tmp_path / "split.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {f"{('cyst', 'solid')[n % 2]}/{n}.png" for n in range(16)}
    assert [row["class"] for row in rows] == ["cyst"] * 8 + ["solid"] * 8
    assert len(open_dataset(tmp_path / "set", size=8, channels=3).with_split(tmp_path / "split.csv").split()[0]) == 8


def test_groups_folds_and_fractions(tmp_path: Path, genmix: Genmix) -> None:
    images = np.random.default_rng(0).integers(0, 256, (48, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(48) % 2, hospital=np.arange(48) // 4)
    data = ("split", tmp_path / "set.npz", "--group-key", "hospital")
    outcome = genmix(*data, "--out", tmp_path / "{fold}.csv", "--folds", 3, "--validation", "0.5")
    assert outcome.code == 0, outcome.err
    assert "groups from 'hospital': 12 groups" in outcome.out
    assert outcome.out.count("16 to train (0 8, 1 8), 16 to validate, 16 to test") == 3
    assert f"--split {tmp_path / '0.csv'} --out" in outcome.out
    assert genmix(*data, "--out", tmp_path / "split.csv", "--fractions", "0.25,0.25,0.5").code == 0
    patches = open_dataset(tmp_path / "set.npz", group_key="hospital").with_split(tmp_path / "split.csv")
    assert [len(part) for part in patches.split()] == [12, 12, 24]


def test_exact_copies_in_two_parts_are_counted(tmp_path: Path, genmix: Genmix) -> None:
    images = np.arange(8, dtype=np.uint8).repeat(256).reshape(8, 16, 16)
    images[6] = images[0]
    split = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(8) % 2, split=split)
    outcome = genmix("split", tmp_path / "set.npz", "--out", tmp_path / "split.csv")
    assert "1 images are in more than one part as exact copies (the same origin in the file)" in outcome.out
    assert "as the source is split; --no-official splits anew" in outcome.out


def test_by_date(tmp_path: Path, genmix: Genmix) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16), dtype=np.uint8)
    dates = [f"2024-01-{31 - number:02}" for number in range(16)]
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(16) % 2, date=dates, patient=np.arange(16) // 2)
    outcome = genmix("split", tmp_path / "set.npz", "--out", tmp_path / "split.csv", "--by", "date")
    assert outcome.code == 0, outcome.err
    parts = open_dataset(tmp_path / "set.npz").with_split(tmp_path / "split.csv").official
    assert parts is not None
    assert parts.tolist() == [2] * 4 + [1] * 4 + [0] * 8
    outcome = genmix("split", tmp_path / "set.npz", "--out", tmp_path / "{fold}.csv", "--folds", 2, "--by", "date")
    assert "--folds are by group; leave --by date out" in outcome.err


def test_a_split_that_parts_patients_is_refused(tmp_path: Path, genmix: Genmix) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
    images[7] = images[0] // 2 + 20
    split = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    patients = [0, 1, 2, 3, 3, 4, 5, 6]
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(8) % 2, split=split, patient=patients)
    command = ("split", tmp_path / "set.npz", "--out", tmp_path / "split.csv")
    outcome = genmix(*command)
    assert outcome.code == 2
    assert "a split that leaks: 1 groups (patients) have patches in more than one part; 1 patches have a" in outcome.err
    assert not (tmp_path / "split.csv").exists()
    outcome = genmix(*command, "--allow-leaks")
    assert outcome.code == 0, outcome.err
    assert "1 patches have a near-duplicate in another part, such as patches 0 and 7: scores may be" in outcome.out
    outcome = genmix(*command, "--no-official", "--overwrite")
    assert outcome.code == 0, outcome.err
    assert "groups (patients) have patches" not in outcome.out


def test_a_file_is_replaced_only_if_told_to(discs: Path, tmp_path: Path, genmix: Genmix) -> None:
    (tmp_path / "split.csv").write_text("mine")
    outcome = genmix("split", discs, "--out", tmp_path / "split.csv")
    assert outcome.code == 2
    assert "split.csv is there already; give another name, or overwrite (--overwrite)" in outcome.err
    assert (tmp_path / "split.csv").read_text() == "mine"
    assert genmix("split", discs, "--out", tmp_path / "split.csv", "--overwrite").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "split.txt"], "a split is saved as .csv"),
        (["--out", "split.csv", "--folds", 3], "each fold has its own file"),
        (["--out", "split.csv", "--fractions", "a,b,c"], "--fractions: expected numbers, such as 0.5,0.25,0.25"),
        (["--out", "split.csv", "--fractions", "0.5,0.6,0.1"], "fractions must be 3 shares that sum to 1"),
        (["--out", "split.csv", "--seed", -1], "seed must be a whole number"),
        (["--out", "{fold}.csv", "--folds", 1], "the number of folds must be a whole number, at least 2"),
        (["--out", "{fold}.csv", "--folds", 3, "--validation", 1], "validation must be a share between 0 and 1"),
    ],
)
def test_wrong_options_are_told_before_the_data_is_read(
    options: list[object], message: str, discs: Path, genmix: Genmix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(readers, "read_archive", lambda *_: pytest.fail("read"))
    outcome = genmix("split", discs, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert not list(tmp_path.iterdir())


def test_several_labels_an_image(genmix: Genmix, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((40, 3)) < 0.4).astype(np.uint8)
    images = rng.integers(0, 256, (40, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=targets, label_names=["Effusion", "Mass", "Nodule"])
    outcome = genmix("split", tmp_path / "set.npz", "--out", tmp_path / "split.csv")
    assert outcome.code == 0, outcome.err
    proposed = outcome.out.splitlines()[-1].split()
    assert proposed[:3] == ["genmix", "train", "dcgan"]
    assert proposed[-1] == "--unlabelled"  # without it, a generator refuses such data
    options = [part if part != "split.csv" else str(tmp_path / "split.csv") for part in proposed[1:]]
    outcome = genmix(*options, "--dry-run", "--size", 16, "--steps", 1, "--batch-size", 4, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    refused = genmix(*options[:-1], "--dry-run", "--size", 16, "--steps", 1, "--batch-size", 4, "--device", "cpu")
    assert refused.code == 2
    assert "this needs one label an image" in refused.err
