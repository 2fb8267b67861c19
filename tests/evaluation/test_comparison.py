"""The whole comparison: its runs, what is kept of them, and what makes a kept one run again."""

import json
import warnings

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import ARMS, Protocol, comparison, evaluate
from genmix_transforms.evaluation.training import run_arm


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
    assert results.warnings == ()
    alone = run_arm("genmix", splits, matched, quick, 1, device="cpu")
    assert outcomes(results)["genmix", 1] == (alone.predictions, alone.best_step, alone.validation_macro_f1)


def test_neither_other_arms_nor_other_seeds_change_a_run(splits, matched, quick):
    everything = outcomes(compare(splits, matched, quick))
    some = outcomes(compare(splits, matched, quick, arms=["genmix", "mixup"], seeds=1))
    assert list(some) == [("genmix", 0), ("mixup", 0)]
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
    kept = {path.name for path in (tmp_path / "results" / "runs").iterdir()}
    assert kept == {f"{arm}-{seed}.json" for arm, seed in done}
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


def test_another_version_runs_again(splits, quick, tmp_path, trained, monkeypatch):
    compare(splits, None, quick, out=tmp_path, arms=("baseline",), seeds=1)
    monkeypatch.setattr("genmix_transforms.__version__", "99.0")
    results = compare(splits, None, quick, out=tmp_path, arms=("baseline",), seeds=1)
    assert trained == [("baseline", 0)] * 2
    assert results.versions["genmix_transforms"] == "99.0"


def test_a_damaged_run_is_run_again(splits, quick, tmp_path, trained):
    compare(splits, None, quick, out=tmp_path, arms=("baseline",))
    (tmp_path / "runs" / "baseline-1.json").write_text("{")
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
            assert "C:" not in text


def test_arms_without_a_bank_describe_none(splits, matched, quick):
    assert compare(splits, matched, quick, arms=("baseline",), seeds=1).bank is None


def test_a_hash_of_a_banks_content():
    images, labels = torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2), torch.tensor([0, 1])
    bank = SyntheticBank(images, labels, classes=["a", "b"])
    found = comparison.content_hash(bank)
    assert found == comparison.content_hash(SyntheticBank(images, labels, classes=["a", "b"], provenance={"x": 1}))
    for other in (
        SyntheticBank(images.flip(0), labels, classes=["a", "b"]),
        SyntheticBank(images, 1 - labels, classes=["a", "b"]),
        SyntheticBank(images, labels, classes=["b", "a"]),
        SyntheticBank(images.view(2, 1, 4, 1), labels, classes=["a", "b"]),
    ):
        assert comparison.content_hash(other) != found


@pytest.mark.parametrize("seeds", [0, -1, 1.5, True, "5"])
def test_seeds_that_are_none(splits, quick, trained, seeds):
    with pytest.raises(InputError, match="seeds must be a whole number, at least 1"):
        compare(splits, None, quick, arms=("baseline",), seeds=seeds)
    assert trained == []


def test_nothing_starts_before_everything_is_checked(splits, shapes, quick, tmp_path, trained):
    for options, message in (
        ({"arms": ("baseline", "augmix")}, "no arm 'augmix'"),
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
    with pytest.raises(InputError, match="taken: the results need a folder, and a file stands there"):
        compare(splits, None, quick, arms=("baseline",), out=tmp_path / "taken")
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="runs: the results need a folder"):
        compare(splits, None, quick, arms=("baseline",), out=tmp_path)
    assert trained == []


def test_the_progress_bar_counts_runs(splits, quick, capsys):
    compare(splits, None, quick, arms=("baseline",), progress=True)
    assert "2/2" in capsys.readouterr().err
    compare(splits, None, quick, arms=("baseline",))
    assert capsys.readouterr().err == ""
