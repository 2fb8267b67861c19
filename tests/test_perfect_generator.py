"""The benchmark that has real images for a bank: the halves of a training part, and what is trained on which."""

import json
import sys

import numpy as np
import pytest
import torch

from genmix_transforms.data import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import comparison

NAMES = ("table1_generators", "table1_data", "table1", "ablations", "perfect_generator")


@pytest.fixture
def script(load_benchmarks):
    """The benchmark as a module."""
    return load_benchmarks(*NAMES)["perfect_generator"]


@pytest.fixture
def patches():
    """120 patches of 16 pixels, two of each patient, a third of them bright; no two alike."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(60) % 3 == 0, 2).astype(np.int64)
    images = rng.integers(0, 100, (120, 1, 16, 16)) + 100 * labels[:, None, None, None]
    return PatchDataset(
        images=torch.from_numpy(images.astype(np.uint8)),
        labels=torch.from_numpy(labels),
        classes=("dark", "bright"),
        groups=torch.arange(60).repeat_interleave(2),
    )


def test_the_halves_are_the_training_part(script, patches):
    splits = patches.folds(2, seed=0)[0]
    train, validation, test = splits
    fold = script.half_of_it_unseen(splits, seed=0)
    first, bank = fold.splits[0], fold.banks["unseen"]
    assert fold.splits[1:] == (validation, test)
    both = torch.cat([first.images, bank.images])
    order, expected = (images.flatten(1).unique(dim=0) for images in (both, train.images))
    assert torch.equal(order, expected)
    assert len(both) == len(train)
    assert abs(len(first) - len(bank)) <= 4
    # The bank's patients are none of the classifier's, and classes come as often in either half.
    patients = [
        {int(train.groups[(train.images == image).flatten(1).all(dim=1)].item()) for image in part}
        for part in (first.images, bank.images)
    ]
    assert not patients[0] & patients[1]
    for name, count in first.class_counts.items():
        assert abs(count - bank.class_counts[name]) <= 2


def test_another_seed_other_halves(script, patches):
    train = patches.folds(2, seed=0)[0][0]
    one, again, other = (script.halves(train, seed=seed)[0].images for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert one.shape != other.shape or not torch.equal(one, other)


def call(script, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["perfect_generator.py", *map(str, arguments)])
    script.main()
    return capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:arm 'blend")
def test_from_data_to_differences(script, monkeypatch, capsys, patches, tmp_path):
    patches.save_npz(tmp_path / "data.npz")
    arguments = ["--data", tmp_path / "data.npz", "--preset", "trial", "--folds", 2, "--seeds", 2]
    arguments += ["--out", tmp_path / "out", "--device", "cpu", "--no-progress"]
    printed = call(script, monkeypatch, capsys, *arguments)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert tuple(results["order"]) == script.ARMS
    assert len(results["runs"]) == len(script.ARMS) * 2 * 2
    assert {run["knob"] for run in results["runs"]} == {None}
    # Nothing is trained on more than the halves: what is tested is whole.
    assert sum(results["banks"]["unseen"]["counts"].values()) < 60
    assert sum(len(fold) for fold in results["labels"]) == 120
    for control in script.CONTROLS:
        assert f"Difference in F1 from {control}, points:\narm " in printed
    assert "(fold 1, train), first half: " in printed

    monkeypatch.setattr(comparison, "train_and_test", lambda *args, **options: pytest.fail("trained again"))
    assert call(script, monkeypatch, capsys, *arguments, "--figures") == printed
    assert (tmp_path / "out" / "figures" / "forest.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_patients_for_two_halves(script, patches):
    few = patches.subset(torch.arange(2))
    with pytest.raises(InputError, match="too few"):
        script.halves(few, seed=0)
