"""Runs and their cache: found again with the same key, and never a damaged one."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.runs import (
    Run,
    RunCache,
    finished_name,
    kept_probabilities,
    read_finished,
    readable_json,
    run_key,
    write_finished,
)


@pytest.fixture
def run():
    # The test set lacks class 2: its sensitivity is NaN.
    predictions = (0, 1, 2, 0)
    return Run(
        arm="genmix",
        fold=1,
        seed=3,
        steps=100,
        best_step=75,
        validation_macro_f1=0.625,
        scores=score(torch.tensor(predictions), torch.tensor([0, 1, 1, 1]), num_classes=3),
        predictions=predictions,
        probabilities=((0.5, 0.25, 0.25), (0.1, 0.8, 0.1), (0.0, 1e-9, 1.0), (1.0, 0.0, 0.0)),
        knob=0.3,
        seconds=1.5,
    )


def test_a_run_survives_json(run):
    text = json.dumps(run.to_dict(), allow_nan=False)
    found = Run.from_dict(json.loads(text))
    assert found.to_dict() == run.to_dict()
    for field in ("arm", "fold", "seed", "knob", "predictions", "probabilities"):
        assert getattr(found, field) == getattr(run, field)
    assert found.scores.confusion == run.scores.confusion


def test_what_a_run_need_not_have(run):
    plain = replace(run, fold=0, probabilities=(), knob=None)
    assert Run.from_dict(plain.to_dict()).to_dict() == plain.to_dict()
    assert plain.to_dict()["knob"] is None


def test_kept_probabilities_keep_the_order_of_small_ones():
    exact = torch.tensor([[1 / 3, 2 / 3], [1.23456789e-9, 1.0], [1.23457e-12, 1.0]], dtype=torch.float64)
    assert kept_probabilities(exact) == ((0.333333, 0.666667), (1.23457e-9, 1.0), (1.23457e-12, 1.0))


entries = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text('[]{}",\\\n 1'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('[]",\n '), inner),
)


@given(entries)
def test_readable_json_says_the_same(content):
    assert json.loads(readable_json(content)) == content


def test_lists_of_numbers_stand_on_one_line():
    text = readable_json({"rows": [[1, 2.5], [None, 3]], "names": ["a", "b"], "none": []})
    assert text.splitlines() == [
        "{", '  "rows": [', "    [1, 2.5],", "    [null, 3]", "  ],",
        '  "names": [', '    "a",', '    "b"', "  ],", '  "none": []', "}",
    ]  # fmt: skip


def test_keys_tell_dependencies_apart_but_not_their_order():
    key = run_key({"arm": "genmix", "protocol": {"steps": 3, "alpha": 0.3}})
    assert key == run_key({"protocol": {"alpha": 0.3, "steps": 3}, "arm": "genmix"})
    assert key != run_key({"arm": "genmix", "protocol": {"steps": 4, "alpha": 0.3}})
    assert len(key) == 64


def test_a_kept_run_is_found_again(tmp_path, run):
    cache = RunCache(tmp_path / "runs")
    assert cache.get("genmix", 3, fold=1, key="k") is None
    cache.put(run, key="k")
    assert cache.get("genmix", 3, fold=1, key="k").to_dict() == run.to_dict()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["genmix-fold1-seed3.json"]


def test_another_key_another_seed_another_arm_another_fold(tmp_path, run):
    cache = RunCache(tmp_path)
    cache.put(run, key="k")
    assert cache.get("genmix", 3, fold=1, key="other") is None
    assert cache.get("genmix", 4, fold=1, key="k") is None
    assert cache.get("blend", 3, fold=1, key="k") is None
    assert cache.get("genmix", 3, fold=0, key="k") is None
    assert cache.get("genmix", 3, key="k") is None  # fold 0


@pytest.mark.parametrize("arm", ["genmix:dcgan", "genmix:../up", "blend:a b/c*?", "genmix:größer"])
def test_an_arm_may_have_any_name(tmp_path, run, arm):
    cache = RunCache(tmp_path)
    cache.put(replace(run, arm=arm), key="k")
    assert cache.get(arm, 3, fold=1, key="k").arm == arm
    assert cache.path(arm, 3, fold=1).parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [cache.path(arm, 3, fold=1).name]
    assert cache.path(arm, 3).name.isascii()
    assert not set(":*?/ ") & set(cache.path(arm, 3).name)


def test_a_new_run_replaces_the_old_one(tmp_path, run):
    cache = RunCache(tmp_path)
    cache.put(run, key="old")
    cache.put(replace(run, best_step=50), key="new")
    assert cache.get("genmix", 3, fold=1, key="old") is None
    assert cache.get("genmix", 3, fold=1, key="new").best_step == 50


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"key": "k"}', '{"key": "k", "arm": 5}', "\x00"])
def test_a_damaged_file_is_no_run(tmp_path, run, damage):
    cache = RunCache(tmp_path)
    cache.put(run, key="k")
    (tmp_path / "genmix-fold1-seed3.json").write_text(damage)
    assert cache.get("genmix", 3, fold=1, key="k") is None


@pytest.mark.parametrize("field", ["scores", "predictions", "probabilities", "seed", "fold", "knob"])
def test_a_file_that_lacks_something_is_no_run(tmp_path, run, field):
    cache = RunCache(tmp_path)
    cache.put(run, key="k")
    path = tmp_path / "genmix-fold1-seed3.json"
    content = json.loads(path.read_text())
    del content[field]
    path.write_text(json.dumps(content))
    assert cache.get("genmix", 3, fold=1, key="k") is None


def test_a_file_under_another_runs_name_is_no_run(tmp_path, run):
    cache = RunCache(tmp_path)
    cache.put(run, key="k")
    (tmp_path / "genmix-fold1-seed3.json").rename(tmp_path / "genmix-fold1-seed4.json")
    assert cache.get("genmix", 4, fold=1, key="k") is None


def test_what_is_kept_is_found_by_what_it_depends_on(tmp_path):
    path = tmp_path / "trials" / finished_name("genmix:a/b", 1, "0.1")
    assert path.parent == tmp_path / "trials"

    def read(key):
        return read_finished(path, lambda found: float(found["validation_macro_f1"]), key=key)

    assert read("a") is None
    write_finished(path, {"validation_macro_f1": 0.625}, key="a")
    assert read("a") == 0.625
    assert read("b") is None
    for damage in ("{", "[]", '{"key": "a"}', '{"key": "a", "validation_macro_f1": "much"}'):
        path.write_text(damage)
        assert read("a") is None
