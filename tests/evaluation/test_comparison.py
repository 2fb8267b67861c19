"""The whole comparison: its runs, what is kept of them, and what makes a kept one run again."""

import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data import MultiLabelPatches
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Fold, Protocol, comparison, evaluate, evaluate_folds, training
from genmix_transforms.evaluation.arms import ARMS as EVERY_ARM
from genmix_transforms.evaluation.arms import DEFAULT_ARMS as ARMS
from genmix_transforms.evaluation.arms import KINDS, TUNING_SEED, trial_values
from genmix_transforms.evaluation.checks import prepare
from genmix_transforms.evaluation.runs import RunCache
from genmix_transforms.evaluation.training import train_and_test


@pytest.fixture
def quick():
    return Protocol(steps=3, batch_size=4, validate_every=3)


@pytest.fixture
def trained(monkeypatch):
    """Which (arm, seed) pairs were really trained."""
    pairs = []
    original = comparison.train_and_test

    def recording(arm, splits, setting, seed, **options):
        pairs.append((arm, seed))
        return original(arm, splits, setting, seed, **options)

    monkeypatch.setattr(comparison, "train_and_test", recording)
    return pairs


@pytest.fixture
def matched(shapes):
    """A bank as large as the training set: nothing to warn of."""
    return shapes.bank(90)


def compare(splits, bank, protocol, **options):
    options = {"device": "cpu", "progress": False, "seeds": 2, **options}
    return evaluate(splits, bank=bank, protocol=protocol, **options)


def outcomes(results):
    return {(run.arm, run.seed): (run.predictions, run.best_step, run.validation_macro_f1) for run in results.runs}


def test_every_arm_with_every_seed(splits, matched, quick):
    results = compare(splits, matched, quick)
    assert [(run.arm, run.seed) for run in results.runs] == [(arm, seed) for arm in ARMS for seed in (0, 1)]
    assert results.arms == ARMS
    assert results.classes == splits[0].classes
    (doubt,) = results.warnings
    assert "2 seeds are too few" in doubt
    assert doubt in " ".join(results.table().split())
    assert doubt in results.to_markdown()
    cpu = torch.device("cpu")
    setting = prepare(("genmix",), splits, {"": matched}, quick, device=cpu)
    alone = train_and_test("genmix", splits, setting, 1, device=cpu)
    assert outcomes(results)["genmix", 1] == (alone.predictions, alone.best_step, alone.validation_macro_f1)


def test_neither_other_arms_nor_other_seeds_change_a_run(splits, matched, quick):
    everything = outcomes(compare(splits, matched, quick))
    some = outcomes(compare(splits, matched, quick, arms=["genmix", "mixup"], seeds=(1,)))
    assert list(some) == [("genmix", 1), ("mixup", 1)]
    assert all(everything[pair] == some[pair] for pair in some)


def test_a_stopped_comparison_goes_on(splits, matched, quick, tmp_path, monkeypatch, trained):
    recording = comparison.train_and_test

    def killed(arm, splits, setting, seed, **options):
        if (arm, seed) == ("blend", 1):
            raise KeyboardInterrupt
        return recording(arm, splits, setting, seed, **options)

    monkeypatch.setattr(comparison, "train_and_test", killed)
    with pytest.raises(KeyboardInterrupt):
        compare(splits, matched, quick, out=tmp_path / "results")
    done = [(arm, 0) for arm in ARMS] + [("baseline", 1), ("mixup", 1)]
    assert trained == done
    cache = RunCache(tmp_path / "results" / "runs")
    assert set(cache.folder.iterdir()) == {cache.path(arm, seed) for arm, seed in done}
    assert not (tmp_path / "results" / "results.json").exists()

    monkeypatch.setattr(comparison, "train_and_test", recording)
    trained.clear()
    results = compare(splits, matched, quick, out=tmp_path / "results")
    assert trained == [("blend", 1), ("genmix", 1)]
    assert outcomes(results) == outcomes(compare(splits, matched, quick))


def test_a_finished_comparison_trains_nothing(splits, matched, quick, tmp_path, trained):
    first = compare(splits, matched, quick, out=tmp_path)
    trained.clear()
    again = compare(splits, matched, quick, out=tmp_path)
    assert trained == []
    assert again.to_dict() == first.to_dict()
    compare(splits, matched, quick, out=tmp_path, seeds=3, arms=("baseline",))
    assert trained == [("baseline", 2)]


def test_what_makes_a_run_run_again(splits, matched, quick, tmp_path, trained, shapes):
    train, val, test = splits

    def again(some_splits=splits, some_bank=matched, **changed):
        compare(splits, matched, quick, out=tmp_path, seeds=1)
        trained.clear()
        protocol = Protocol(**{**quick.to_dict(), **changed})
        compare(some_splits, some_bank, protocol, out=tmp_path, seeds=1)
        found = [arm for arm, _ in trained]
        trained.clear()
        return found

    assert again() == []
    # An option of one arm is none of the others' business.
    assert again(alpha=0.5) == ["genmix"]
    assert again(pairing="same") == ["genmix"]
    assert again(blend_share=0.25) == ["blend"]
    assert again(mixup_alpha=1.0) == ["mixup"]
    assert again(learning_rate=0.01) == list(ARMS)
    assert again(steps=2) == list(ARMS)
    assert again(some_splits=(train, val, test.subset(torch.arange(30)))) == list(ARMS)
    assert again(some_splits=(train, test, val)) == list(ARMS)
    assert again(some_bank=shapes.bank(90, seed=5)) == ["blend", "genmix"]
    # The same bank from another place is the same bank.
    assert again(some_bank=SyntheticBank(matched.images, matched.labels, classes=matched.classes)) == []


def test_an_arm_that_draws_in_another_way_runs_again(splits, matched, quick, tmp_path, trained, monkeypatch):
    compare(splits, matched, quick, out=tmp_path, seeds=1)
    trained.clear()
    monkeypatch.setitem(KINDS, "mixup", replace(KINDS["mixup"], revision=KINDS["mixup"].revision + 1))
    compare(splits, matched, quick, out=tmp_path, seeds=1)
    assert trained == [("mixup", 0)]


def test_another_version_runs_again(splits, quick, tmp_path, trained, monkeypatch):
    compare(splits, None, quick, out=tmp_path, arms=("baseline",), seeds=1)
    monkeypatch.setattr("genmix_transforms.__version__", "99.0")
    results = compare(splits, None, quick, out=tmp_path, arms=("baseline",), seeds=1)
    assert trained == [("baseline", 0)] * 2
    assert results.versions["genmix_transforms"] == "99.0"


def test_a_damaged_run_is_run_again(splits, quick, tmp_path, trained):
    compare(splits, None, quick, out=tmp_path, arms=("baseline",))
    RunCache(tmp_path / "runs").path("baseline", 1).write_text("{")
    compare(splits, None, quick, out=tmp_path, arms=("baseline",))
    assert trained == [("baseline", 0), ("baseline", 1), ("baseline", 1)]


def test_a_bank_from_another_training_set_is_said_aloud_and_written_down(splits, shapes, quick, tmp_path):
    bank = shapes.bank(90, provenance={"training_set": {"fingerprint": "0" * 64}})
    with pytest.warns(UserWarning, match="trained on another set than this training set"):
        results = compare(splits, bank, quick, out=tmp_path, seeds=1)
    assert results.bank["trained_on"] == "another set"
    assert "leaked" in json.loads((tmp_path / "results.json").read_text())["warnings"][0]
    assert "leaked" in (tmp_path / "results.md").read_text()
    assert "leaked" in results.table()


def test_a_bank_whose_generator_saw_test_images_stops_it_before_any_work(splits, shapes, quick, tmp_path, trained):
    bank = shapes.bank(90, provenance={"training_set": splits[2].training_set()})
    with pytest.raises(InputError, match="trained on 60 of the 60 test images"):
        compare(splits, bank, quick, out=tmp_path / "results")
    assert trained == []
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("known", [True, False])
def test_a_sound_comparison_warns_of_nothing(splits, shapes, quick, known):
    provenance = {"training_set": {"fingerprint": splits[0].fingerprint}} if known else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        results = compare(splits, shapes.bank(90, provenance=provenance), quick, seeds=1, arms=("blend", "genmix"))
    assert results.bank["trained_on"] == ("this training set" if known else "not recorded")


def test_results_tell_counts_and_facts_but_no_paths(splits, shapes, quick, tmp_path):
    provenance = {
        "generator": {"kind": "dcgan", "weights": "sha256:12", "source": str(tmp_path), "config": {"a": 1}},
        "seed": 7,
        "folder": "/home/someone/bank",
        "drive": r"C:\bank",
    }
    results = compare(splits, shapes.bank(90, provenance=provenance), quick, seeds=1, out=tmp_path)
    assert results.data["counts"]["train"] == {"cyst": 30, "hemangioma": 30, "metastasis": 30}
    assert results.data["shape"] == [1, 16, 16]
    assert results.data["fingerprints"]["test"] == splits[2].fingerprint
    assert results.bank["counts"] == {"cyst": 30, "hemangioma": 30, "metastasis": 30}
    assert results.bank["generator"] == {"kind": "dcgan", "weights": "sha256:12"}
    assert results.bank["seed"] == 7
    for path in tmp_path.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert str(tmp_path) not in text
            assert "/home" not in text
            assert "C:\\" not in text


def test_arms_without_a_bank_describe_none(splits, matched, quick):
    assert compare(splits, matched, quick, arms=("baseline",), seeds=1).bank is None


@pytest.mark.parametrize("seeds", [0, -1, 1.5, True, "5", 10**9])
def test_seeds_that_are_none(splits, quick, trained, seeds):
    with pytest.raises(InputError, match="seeds must be a whole number, from 1 to 10000"):
        compare(splits, None, quick, arms=("baseline",), seeds=seeds)
    assert trained == []


def test_nothing_starts_before_everything_is_checked(splits, shapes, quick, tmp_path, trained):
    for options, message in (
        ({"arms": ("baseline", "augmex")}, "no arm 'augmex'"),
        ({"arms": "baseline"}, "arms must be a list"),
        ({}, "needs a bank"),
        ({"bank": shapes.bank(size=20)}, "bank's images are 1 x 20 x 20"),
        ({"bank": shapes.bank(classes=("a", "b", "c"))}, "a, b, c is no class of the data"),
    ):
        with pytest.raises(InputError, match=message):
            compare(splits, options.pop("bank", None), quick, out=tmp_path / "new", **options)
    assert trained == []
    assert not (tmp_path / "new").exists()


def test_a_file_where_the_results_belong(splits, quick, tmp_path, trained):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken: cannot be a folder, for .*taken is a file"):
        compare(splits, None, quick, arms=("baseline",), out=tmp_path / "taken")
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="runs: cannot be a folder, for .*runs is a file"):
        compare(splits, None, quick, arms=("baseline",), out=tmp_path)
    assert trained == []


def test_banks_by_name(splits, shapes, quick):
    dark, bright = shapes.bank(90, seed=1), shapes.bank(90, seed=2)
    results = compare(splits, None, quick, banks={"dark": dark, "bright": bright}, seeds=1)
    assert results.arms == ("baseline", "mixup", "blend:dark", "blend:bright", "genmix:dark", "genmix:bright")
    assert list(results.banks) == ["dark", "bright"]
    assert results.bank is None
    found = outcomes(results)
    # A bank's name changes nothing.
    for name, bank in (("dark", dark), ("bright", bright)):
        alone = outcomes(compare(splits, bank, quick, seeds=1))
        assert found[f"blend:{name}", 0] == alone["blend", 0]
        assert found[f"genmix:{name}", 0] == alone["genmix", 0]


def test_the_same_bank_by_another_name_is_not_trained_again(splits, matched, quick, tmp_path, trained):
    named = {"banks": {"adm": matched}, "arms": ("genmix",), "seeds": 1, "out": tmp_path}
    compare(splits, None, quick, **named)
    keys = [json.loads(path.read_text())["key"] for path in (tmp_path / "runs").iterdir()]
    compare(splits, matched, quick, arms=("genmix",), seeds=1, out=tmp_path)
    assert {json.loads(path.read_text())["key"] for path in (tmp_path / "runs").iterdir()} == set(keys)


def test_a_missing_bank_leaves_its_arms_empty_with_the_reason(splits, matched, quick, trained):
    results = compare(
        splits, None, quick, banks={"dcgan": matched}, missing={"adm": "nobody gave its weights"}, seeds=1
    )
    assert results.order == ("baseline", "mixup", "blend:dcgan", "blend:adm", "genmix:dcgan", "genmix:adm")
    assert results.missing == dict.fromkeys(("blend:adm", "genmix:adm"), "nobody gave its weights")
    assert {arm for arm, _ in trained} == {"baseline", "mixup", "blend:dcgan", "genmix:dcgan"}
    assert "nobody gave its weights" in results.table()


def test_banks_that_cannot_be_told_apart(splits, matched, quick, trained):
    for options, message in (
        ({"bank": matched, "banks": {"a": matched}}, "one bank, or banks by name, not both"),
        ({"banks": {"a:b": matched}}, "a word without a colon and without an @, got 'a:b'"),
        ({"banks": {"a": matched}, "missing": {"a": "why"}}, "a: a bank is there or missing, not both"),
        ({"bank": matched, "missing": {"a": "why"}}, "give those that are there by name too"),
        ({"missing": {"a": "why"}, "arms": ("genmix",)}, "no arm is left to compare"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(splits, protocol=quick, progress=False, device="cpu", **options)
    assert trained == []


@pytest.fixture
def folds(shapes):
    return [
        Fold(
            splits=splits,
            banks={"a": shapes.bank(90, provenance={"training_set": {"fingerprint": splits[0].fingerprint}})},
        )
        for splits in shapes.patches(60).folds(3)
    ]


def test_every_image_is_tested_once_a_seed(folds, quick, tmp_path):
    options = {"protocol": quick, "seeds": 2, "progress": False, "device": "cpu", "out": tmp_path}
    results = evaluate_folds(folds, arms=("baseline", "genmix"), **options)
    assert results.arms == ("baseline", "genmix:a")
    assert len(results.runs) == 2 * 3 * 2
    assert results.outcomes["genmix:a"].predictions.shape == (2, 60)
    assert results.data["counts"] == {"3 folds": {"cyst": 20, "hemangioma": 20, "metastasis": 20}}
    assert results.banks["a"]["trained_on"] == "each fold's training set"
    assert [warning[:7] for warning in results.warnings] == ["2 seeds"]
    # A fold is a split like any other.
    alone = evaluate(folds[1].splits, banks=folds[1].banks, arms=("genmix",), **{**options, "out": None})
    of_fold = [run for run in results.runs if run.fold == 1 and run.arm == "genmix:a"]
    assert [run.predictions for run in of_fold] == [run.predictions for run in alone.runs]


def test_a_bank_that_has_seen_what_a_fold_tests(folds, quick, trained):
    swapped = [folds[0], Fold(splits=folds[1].splits, banks=folds[0].banks), folds[2]]
    options = {"protocol": quick, "seeds": 1, "progress": False, "device": "cpu", "arms": ("genmix",)}
    with pytest.raises(InputError, match="fold 1: the generator of the bank 'a' was trained on another set"):
        evaluate_folds(swapped, **options)
    assert trained == []
    with pytest.warns(UserWarning, match="fold 1: the bank 'a': its generator was trained on another set"):
        results = evaluate_folds(swapped, foreign_banks=True, **options)
    assert results.banks["a"]["trained_on"] == "another set"
    assert results.warnings[0].startswith("fold 1: ")


@pytest.fixture
def steps_taken(monkeypatch):
    """Optimiser steps by kind of work: (arm, whether it was a trial of the tuning)."""
    taken = {}
    train_network = comparison.train_network

    def counting(arm, splits, setting, seed, **options):
        found = train_network(arm, splits, setting, seed, **options)
        taken.setdefault((arm, seed == TUNING_SEED), []).append(found.steps)
        return found

    monkeypatch.setattr(comparison, "train_network", counting)
    monkeypatch.setattr(training, "train_network", counting)
    return taken


def test_every_arm_has_the_same_steps_and_the_same_budget_of_tuning(splits, matched, quick, pool_weights, steps_taken):
    tuned = replace(quick, tune=3, pool_weights=pool_weights)
    results = compare(splits, matched, tuned, arms=EVERY_ARM, seeds=2)
    assert {arm for arm, _ in steps_taken} == set(EVERY_ARM)
    for arm in EVERY_ARM:
        assert steps_taken[arm, True] == [3] * 3
        assert steps_taken[arm, False] == [3] * 2
        knobs = {run.knob for run in results.runs if run.arm == arm}
        assert len(knobs) == 1
        assert knobs <= set(trial_values(arm, 3))
    assert results.protocol["tune"] == 3
    assert all(run.knob is None for run in compare(splits, matched, quick, seeds=1).runs)


def test_the_value_with_the_best_validation_is_run(splits, matched, quick, monkeypatch):
    asked = []

    def pretend(arm, splits, setting, seed, **options):
        asked.append((setting.protocol.blend_share, seed))
        scores = {0.1: 0.2, 0.3: 0.9, 0.5: 0.4}
        return SimpleNamespace(validation_macro_f1=scores[setting.protocol.blend_share])

    monkeypatch.setattr(comparison, "train_network", pretend)
    results = compare(splits, matched, replace(quick, tune=3), arms=("blend",), seeds=2)
    assert asked == [(0.1, TUNING_SEED), (0.3, TUNING_SEED), (0.5, TUNING_SEED)]
    assert [run.knob for run in results.runs] == [0.3, 0.3]
    plain = compare(splits, matched, replace(quick, blend_share=0.3), arms=("blend",), seeds=2)
    assert [run.predictions for run in results.runs] == [run.predictions for run in plain.runs]


def test_the_test_part_decides_no_tuning(splits, matched, quick):
    train, val, test = splits
    wrong = replace(test, labels=(test.labels + 1) % 3)
    one, other = (
        compare((train, val, part), matched, replace(quick, tune=3), arms=("genmix", "mixup"), seeds=1)
        for part in (test, wrong)
    )
    assert [run.knob for run in one.runs] == [run.knob for run in other.runs]
    assert [run.predictions for run in one.runs] == [run.predictions for run in other.runs]


def test_a_stopped_tuning_goes_on(splits, matched, quick, tmp_path, monkeypatch):
    tuned = replace(quick, tune=3)
    options = {"arms": ("blend", "genmix"), "seeds": 1}
    original, done = comparison.train_network, []

    def killed(arm, splits, setting, seed, **arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(arm)
        return original(arm, splits, setting, seed, **arguments)

    monkeypatch.setattr(comparison, "train_network", killed)
    with pytest.raises(KeyboardInterrupt):
        compare(splits, matched, tuned, out=tmp_path, **options)
    again = []
    monkeypatch.setattr(
        comparison, "train_network", lambda arm, *args, **named: (again.append(arm), original(arm, *args, **named))[1]
    )
    resumed = compare(splits, matched, tuned, out=tmp_path, **options)
    assert (done, again) == (["blend"] * 3 + ["genmix"], ["genmix"] * 2)
    whole = compare(splits, matched, tuned, **options)
    assert outcomes(resumed) == outcomes(whole)
    assert [run.knob for run in resumed.runs] == [run.knob for run in whole.runs]


def test_the_progress_bar_counts_runs(splits, quick, capsys):
    compare(splits, None, quick, arms=("baseline",), progress=True)
    assert "2/2" in capsys.readouterr().err
    compare(splits, None, quick, arms=("baseline",))
    assert capsys.readouterr().err == ""


# Banks filtered by a classifier's confidence


@pytest.fixture
def judges(monkeypatch):
    """How often a classifier was trained to be asked."""
    asked = []
    original = comparison.train_judge
    monkeypatch.setattr(
        comparison, "train_judge", lambda *args, **named: (asked.append(1), original(*args, **named))[1]
    )
    return asked


FILTERED = ("blend", "blend@keep=0.5", "genmix@keep=0.5", "blend@keep=0.5@keep_by=random")


def test_one_classifier_is_asked_and_remembered(splits, matched, quick, tmp_path, trained, judges, shapes):
    results = compare(splits, matched, quick, arms=FILTERED, seeds=1, out=tmp_path)
    assert results.arms == FILTERED
    assert len(judges) == 1
    (kept,) = (tmp_path / "confidence").iterdir()
    asked = json.loads(kept.read_text())["confidence"]
    assert len(asked) == len(matched)
    assert all(0 <= value <= 1 for value in asked)
    whole = outcomes(results)
    assert len({run.probabilities for run in results.runs}) == 4
    # What was found is kept: for further seeds, and for runs that are lost.
    RunCache(tmp_path / "runs").path("genmix@keep=0.5", 0).unlink()
    trained.clear()
    again = compare(splits, matched, quick, arms=FILTERED, seeds=1, out=tmp_path)
    assert trained == [("genmix@keep=0.5", 0)]
    assert outcomes(again) == whole == outcomes(compare(splits, matched, quick, arms=FILTERED, seeds=1))
    assert len(judges) == 2  # the second one kept nothing
    # Another bank or another training is asked anew.
    compare(splits, shapes.bank(90, seed=5), quick, arms=FILTERED, seeds=1, out=tmp_path)
    compare(splits, matched, replace(quick, steps=2), arms=FILTERED, seeds=1, out=tmp_path)
    assert len(judges) == 4


def test_the_filter_never_looks_at_the_test_part(splits, matched, quick):
    train_part, val, test = splits
    other = replace(test, images=255 - test.images, labels=(test.labels + 1) % 3)
    arms = ("blend@keep=0.5",)
    one, two = (compare((train_part, val, part), matched, quick, arms=arms, seeds=1) for part in (test, other))
    assert one.runs[0].validation_macro_f1 == two.runs[0].validation_macro_f1
    assert one.runs[0].best_step == two.runs[0].best_step


def test_tuning_beside_fixed_options(splits, matched, quick):
    results = compare(splits, matched, replace(quick, tune=2), arms=("blend", "blend@0.25", "pretrain"), seeds=1)
    assert {run.arm: run.knob in trial_values(run.arm, 2) for run in results.runs} == dict.fromkeys(results.arms, True)
    assert results.knobs("blend@0.25")[0] in trial_values("baseline", 2)


def test_an_option_by_name_is_the_option(splits, matched, quick):
    named = compare(splits, matched, quick, arms=("genmix@pairing=same",), seeds=1)
    (plain,) = compare(splits, matched, replace(quick, pairing="same"), arms=("genmix",), seeds=1).runs
    assert named.runs[0].predictions == plain.predictions
    assert "genmix@pairing=same" in named.table()
    assert r"genmix@pairing=same" in named.to_latex()


# Several labels an image


@pytest.fixture
def several(splits):
    """The same images; a second class is drawn for each at random."""
    random = torch.Generator().manual_seed(0)

    def with_several(part):
        targets = torch.nn.functional.one_hot(part.labels, len(part.classes)).to(torch.uint8)
        targets |= (torch.rand(targets.shape, generator=random) < 0.3).to(torch.uint8)
        return MultiLabelPatches(images=part.images, targets=targets, classes=part.classes, name=part.name)

    return tuple(map(with_several, splits))


def test_several_labels_an_image(several, matched, quick, tmp_path):
    arms = ("baseline", "mixup", "blend", "genmix", "genmix-real", "repeat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = compare(several, matched, quick, arms=arms, out=tmp_path / "out")
    summary = results.summary()["genmix"]
    classes = several[0].classes
    assert {f"auc_{name}" for name in classes} <= set(summary)
    aucs = [summary[f"auc_{name}"].mean for name in classes]
    assert summary["auc"].mean == pytest.approx(sum(aucs) / len(aucs))
    assert summary["macro_f1"].mean == pytest.approx(
        sum(run.scores.macro_f1 for run in results.runs if run.arm == "genmix") / 2
    )
    run = results.runs[0]
    assert len(run.predictions[0]) == len(classes)
    # Yes or no for each class: probabilities of an image need not sum to 1.
    assert max(abs(sum(row) - 1) for row in run.probabilities) > 1e-3
    again = type(results).load(tmp_path / "out")
    assert str(again.summary()) == str(results.summary())  # as text: NaN is not equal to itself
    assert "sens/spec/AUC" in results.table()
    assert f"auc_{classes[0]}" in (tmp_path / "out/summary.csv").read_text()


@pytest.mark.parametrize("arm", ["balanced-mixup", "genmix@pairing=same", "blend@balance=equal", "blend@keep=0.5"])
def test_what_goes_by_the_one_class_of_an_image(several, matched, quick, arm):
    with pytest.raises(InputError, match="goes by the one class of an image, and here an image has several labels"):
        compare(several, matched, quick, arms=("baseline", arm))


def test_parts_are_of_one_kind(several, splits, matched, quick):
    with pytest.raises(InputError, match="same labels: train has several an image, test has one an image"):
        compare((*several[:2], splits[2]), matched, quick)
