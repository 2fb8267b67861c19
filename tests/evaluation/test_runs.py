"""Runs and their cache: found again with the same key, and never a damaged one."""

import json
from dataclasses import replace

import pytest
import torch

from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.runs import Run, RunCache, run_key


@pytest.fixture
def run():
    # The test set lacks class 2: its sensitivity is NaN.
    predictions = (0, 1, 2, 0)
    return Run(
        arm="genmix",
        seed=3,
        steps=100,
        best_step=75,
        validation_macro_f1=0.625,
        scores=score(torch.tensor(predictions), torch.tensor([0, 1, 1, 1]), num_classes=3),
        predictions=predictions,
        seconds=1.5,
    )


def test_a_run_survives_json(run):
    text = json.dumps(run.to_dict(), allow_nan=False)
    found = Run.from_dict(json.loads(text))
    assert found.to_dict() == run.to_dict()
    assert found.predictions == run.predictions
    assert found.scores.confusion == run.scores.confusion


def test_keys_tell_dependencies_apart_but_not_their_order():
    key = run_key({"arm": "genmix", "protocol": {"steps": 3, "alpha": 0.3}})
    assert key == run_key({"protocol": {"alpha": 0.3, "steps": 3}, "arm": "genmix"})
    assert key != run_key({"arm": "genmix", "protocol": {"steps": 4, "alpha": 0.3}})
    assert len(key) == 64


def test_a_kept_run_is_found_again(tmp_path, run):
    cache = RunCache(tmp_path / "runs")
    assert cache.get("genmix", 3, key="k") is None
    cache.put(run, key="k")
    assert cache.get("genmix", 3, key="k").to_dict() == run.to_dict()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["genmix-3.json"]


def test_another_key_another_seed_another_arm(tmp_path, run):
    cache = RunCache(tmp_path)
    cache.put(run, key="k")
    assert cache.get("genmix", 3, key="other") is None
    assert cache.get("genmix", 4, key="k") is None
    assert cache.get("blend", 3, key="k") is None


def test_a_new_run_replaces_the_old_one(tmp_path, run):
    cache = RunCache(tmp_path)
    cache.put(run, key="old")
    cache.put(replace(run, best_step=50), key="new")
    assert cache.get("genmix", 3, key="old") is None
    assert cache.get("genmix", 3, key="new").best_step == 50


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"key": "k"}', '{"key": "k", "arm": 5}', "\x00"])
def test_a_damaged_file_is_no_run(tmp_path, run, damage):
    cache = RunCache(tmp_path)
    cache.put(run, key="k")
    (tmp_path / "genmix-3.json").write_text(damage)
    assert cache.get("genmix", 3, key="k") is None


@pytest.mark.parametrize("field", ["scores", "predictions", "seed", "best_step"])
def test_a_file_that_lacks_something_is_no_run(tmp_path, run, field):
    cache = RunCache(tmp_path)
    cache.put(run, key="k")
    path = tmp_path / "genmix-3.json"
    content = json.loads(path.read_text())
    del content[field]
    path.write_text(json.dumps(content))
    assert cache.get("genmix", 3, key="k") is None


def test_a_file_under_another_runs_name_is_no_run(tmp_path, run):
    cache = RunCache(tmp_path)
    cache.put(run, key="k")
    (tmp_path / "genmix-3.json").rename(tmp_path / "genmix-4.json")
    assert cache.get("genmix", 4, key="k") is None
