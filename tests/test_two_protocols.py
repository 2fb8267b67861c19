"""The benchmark that holds one protocol against another: what it pairs, and what cannot be paired."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from genmix_transforms.data import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Fold, Protocol, evaluate_folds
from genmix_transforms.evaluation.tables import difference_rows

QUICK = Protocol(steps=6, batch_size=8, validate_every=3)


@pytest.fixture
def script(load_benchmarks):
    """The benchmark as a module."""
    return load_benchmarks("two_protocols")["two_protocols"]


def results_of(protocol, *, arms=("baseline", "mixup", "repeat"), split_seed=0):
    rng = np.random.default_rng(0)
    labels = torch.arange(60) % 2
    images = torch.from_numpy(rng.integers(0, 160, (60, 1, 16, 16)).astype(np.uint8)) + 60 * labels.view(-1, 1, 1, 1)
    patches = PatchDataset(images=images.to(torch.uint8), labels=labels, classes=("dark", "bright"))
    folds = [Fold(splits=splits) for splits in patches.folds(2, seed=split_seed)]
    return evaluate_folds(folds, arms=arms, seeds=3, protocol=protocol, device="cpu", progress=False)


@pytest.fixture(scope="module")
def short():
    return results_of(QUICK)


@pytest.fixture(scope="module")
def longer():
    return results_of(replace(QUICK, steps=12), arms=("mixup", "baseline"))


def test_a_protocol_does_not_differ_from_itself(script, short):
    assert script.changed(short, short) == {}
    found = script.apart(short, short)
    assert list(found) == ["baseline", "mixup", "repeat"]
    assert {(one.difference, one.low, one.high, one.p) for one in found.values()} == {(0.0, 0.0, 0.0, 1.0)}


def test_differences_are_those_of_the_means_and_turn_round_with_the_order(script, short, longer):
    assert script.changed(short, longer) == {"steps": (6, 12)}
    found, back = script.apart(short, longer), script.apart(longer, short)
    assert list(found) == ["baseline", "mixup"]
    for arm, one in found.items():
        before, after = (results.summary()[arm]["macro_f1"].mean for results in (short, longer))
        assert one.difference == pytest.approx(after - before)
        assert one.low <= one.difference <= one.high
        assert back[arm].difference == pytest.approx(-one.difference)
        assert one.seeds == 3
    assert any(one.difference != 0 for one in found.values())


def test_two_folders_to_a_table(script, short, longer, monkeypatch, capsys, tmp_path):
    short.save(tmp_path / "short")
    longer.save(tmp_path / "longer")
    monkeypatch.setattr(sys, "argv", ["two_protocols.py", str(tmp_path / "short"), str(tmp_path / "longer")])
    script.main()
    printed = capsys.readouterr().out
    assert "steps: 6, then 12" in printed
    one = script.apart(short, longer)["mixup"]
    mean = 100 * short.summary()["mixup"]["macro_f1"].mean
    (row,) = (line for line in printed.splitlines() if line.startswith("| mixup |"))
    assert row.startswith(f"| mixup | {mean:.1f} | ")
    assert row.split(" | ")[3] == difference_rows([one])[1][2]
    assert "Mean of 3 seeds" in printed


def test_what_cannot_be_paired(script, short):
    with pytest.raises(InputError, match="different test cases"):
        script.apart(short, results_of(QUICK, arms=("baseline",), split_seed=1))
    with pytest.raises(InputError, match="no arm in common: baseline, mixup, repeat and augmix"):
        script.apart(short, results_of(QUICK, arms=("augmix",)))
