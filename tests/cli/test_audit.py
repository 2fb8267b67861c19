"""``genmix audit``: the verdict first, the report on disk, and every bad input in one sentence."""

import json

import numpy as np
import pytest
import torch

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.data import open_dataset

CLASSES = ["bright", "dark"]
QUICK = "--set calibration=20 --features pixels --draws 3 --no-train --no-tsne --device cpu".split()


def shapes(count, *, seed):
    """Discs of 16 pixels, bright and dark ones, each of another place and with other noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    grid, center = np.arange(16), random.integers(5, 11, (count, 2))
    distance = (grid[None, :, None] - center[:, :1, None]) ** 2 + (grid[None, None] - center[:, 1:, None]) ** 2
    values = 120 + np.where(labels == 0, 60, -60)[:, None, None] * (distance < 12) + random.normal(0, 8, distance.shape)
    return values.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    images, labels = shapes(120, seed=0)
    path = tmp_path_factory.mktemp("data") / "cohort.npz"
    np.savez(path, images=images, labels=labels, label_names=np.array(CLASSES), groups=np.arange(120) // 2 + 70_000)
    return path


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """30 images of each class of their own, and 5 training images of each."""
    train = open_dataset(data).split()[0]
    images, labels = shapes(60, seed=1)
    copied = torch.cat([(train.labels == number).nonzero().flatten()[:5] for number in (0, 1)])
    bank = SyntheticBank(
        torch.cat([torch.from_numpy(images)[:, None], train.images[copied]]),
        torch.cat([torch.from_numpy(labels), train.labels[copied]]),
        classes=CLASSES,
    )
    folder = tmp_path_factory.mktemp("bank") / "bank"
    bank.save(folder)
    return folder


def test_the_verdict_comes_first_and_the_report_lies_in_the_folder(genmix, folder, data, tmp_path):
    out, marked = tmp_path / "audit", tmp_path / "marked"
    outcome = genmix("audit", folder, "--data", data, "--out", out, "--marked", marked, *QUICK)
    assert outcome.code == 0, outcome.err
    content = json.loads((out / "audit.json").read_text())
    assert content["copies"]["near_copies"] >= 10
    verdict = content["verdict"]["text"]
    lines = [line for line in outcome.out.splitlines() if line]
    assert lines[next(number for number, line in enumerate(lines) if "to train" in line) + 1] == verdict
    assert "Are patients' images copied?" in outcome.out
    page = (out / "report.html").read_text()
    assert "70000" not in page
    assert not (out / "confidence.json").exists()
    assert int((SyntheticBank.load(marked).flags & Flag.NEAR_COPY != 0).sum()) == content["copies"]["near_copies"]
    again = genmix("audit", folder, "--data", data, "--out", out, *QUICK)
    assert again.code == 2
    assert "report.html is there already: give another folder, or --overwrite" in again.err


def test_json_is_all_there_is_on_the_standard_output(genmix, folder, data):
    outcome = genmix("audit", folder, "--data", data, "--json", "--no-copies", *QUICK)
    assert outcome.code == 0, outcome.err
    content = json.loads(outcome.out)
    assert content["copies"] is None
    assert content["settings"]["draws"] == 3


def test_bad_input_is_one_sentence_and_nothing_is_written(genmix, folder, data, tmp_path):
    bank = SyntheticBank.load(folder)
    others = {
        "renamed": SyntheticBank(bank.images, bank.labels, classes=["bright", "other"]),
        "few": bank.take(torch.arange(38)),
        "empty": bank.select(classes=["dark"]).with_classes(CLASSES),
    }
    for name, other in others.items():
        other.save(tmp_path / name)
    images, labels = shapes(16, seed=2)
    np.savez(tmp_path / "small.npz", images=images, labels=labels, label_names=np.array(CLASSES))
    out = tmp_path / "out"
    for bank_folder, source, more, message in [
        (tmp_path / "none", data, [], "no such bank"),
        (folder, tmp_path / "none.npz", [], "none.npz"),
        (tmp_path / "renamed", data, [], "other"),
        (tmp_path / "few", data, [], "the bank has fewer than 10 images of a class (dark 3)"),
        (tmp_path / "empty", data, [], "the bank has no image of bright"),
        (folder, tmp_path / "small.npz", [], "images of a class"),
        (folder, data, ["--size", "24"], "the bank's images are 1 x 16 x 16"),
        (folder, data, ["--features", "vgg"], "features must be"),
        (folder, data, ["--features", "resnet18:none.pt"], "none.pt"),
        (folder, data, ["--share", "1"], "share must be at least 0 and below 1"),
        (folder, data, ["--no-copies", "--pool", data], "--pool is searched for copies"),
        (folder, data, ["--pool", tmp_path / "none.npz"], "none.npz"),
        (folder, data, ["--no-copies", "--marked", tmp_path / "m"], "leave --no-copies out"),
        (folder, data, ["--out", data], "cannot be a folder"),
    ]:
        outcome = genmix("audit", bank_folder, "--data", source, "--out", out, *QUICK, *more)
        assert outcome.code == 2, (message, outcome.err)
        assert message in outcome.err
        assert len([line for line in outcome.err.splitlines() if line.startswith("genmix: ")]) == 1
        assert not out.exists()


def test_copies_of_a_pool_are_looked_for(genmix, folder, data, tmp_path):
    images = shapes(60, seed=1)[0]
    np.savez(tmp_path / "pool.npz", images=images)
    out = tmp_path / "audit"
    outcome = genmix("audit", folder, "--data", data, "--pool", tmp_path / "pool.npz", "--out", out, *QUICK)
    assert outcome.code == 0, outcome.err
    content = json.loads((out / "audit.json").read_text())
    assert content["data"]["pool"]["images"] == 60
    trained = content["data"]["train"]["images"]
    assert sum(row["nearest"] >= trained for row in content["copies"]["copies"]) == 60
    checked = genmix("bank", "check", folder, "--data", data, "--pool", tmp_path / "pool.npz")
    assert checked.code == 0, checked.err
    assert "of the pool" in checked.out


def test_without_groups_that_is_said(genmix, folder, data, tmp_path):
    with np.load(data) as content:
        np.savez(tmp_path / "plain.npz", **{key: content[key] for key in ("images", "labels", "label_names")})
    outcome = genmix("audit", folder, "--data", tmp_path / "plain.npz", "--no-copies", *QUICK)
    assert outcome.code == 0, outcome.err
    assert "patients cannot be told apart" in outcome.out
