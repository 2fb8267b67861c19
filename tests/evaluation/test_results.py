"""The results: what is computed from the runs, and that it survives the disk."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.results import Results, blended_arm
from genmix_transforms.evaluation.runs import Run, RunCache, finished_name, read_finished
from genmix_transforms.evaluation.statistics import differences, estimate, holm
from tests.evaluation.made_results import LABELS, PREDICTIONS, make_many, make_results, make_runs

FILES = {"results.csv", "summary.csv", "differences.csv", "results.json", "results.md", "results.tex"}


def test_the_summary_is_over_the_seeds_of_each_arm_on_all_folds_together():
    summary = make_results().summary()
    assert list(summary) == ["baseline", "genmix"]
    assert summary["baseline"]["accuracy"].mean == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert summary["baseline"]["accuracy"].sd == pytest.approx(statistics.stdev([5 / 6, 3 / 6]))
    assert summary["genmix"]["sensitivity_metastasis"].mean == pytest.approx(0.75)
    assert summary["genmix"]["specificity_metastasis"].mean == 1
    # F1 of each fold alone would be of one class.
    assert summary["baseline"]["macro_f1"].mean == pytest.approx(((6 / 7 + 4 / 5) / 2 + (4 / 7 + 2 / 5) / 2) / 2)


def test_the_summary_is_the_statistics_own():
    results = make_many({"baseline": 0.4, "genmix": 0.2})
    assert results.summary()["genmix"]["auc"] == estimate(results.resampled["genmix"], "auc")


def test_families():
    arms = [
        "baseline",
        "mixup",
        "repeat",
        "genmix-real",
        "blend:dcgan",
        "genmix:dcgan",
        "genmix-union:dcgan",
        "genmix:adm",
    ]
    results = make_many(dict.fromkeys(arms, 0.3), seeds=2)
    found = results.differences()
    assert [(one.arm, one.reference) for one in found["baseline"]] == [(arm, "baseline") for arm in arms[1:]]
    assert [(one.arm, one.reference) for one in found["blend"]] == [
        ("genmix-real", "repeat"),
        ("genmix:dcgan", "blend:dcgan"),
        ("genmix-union:dcgan", "blend:dcgan"),
    ]
    for family in found.values():
        assert [one.p for one in family] == list(holm([one.p_single for one in family]))
    assert {one.metric for family in results.differences("accuracy").values() for one in family} == {"accuracy"}


def test_families_of_which_nothing_is_there():
    assert make_many({"mixup": 0.1, "genmix": 0.1}).differences() == {}
    assert list(make_many({"mixup": 0.1, "blend": 0.1, "genmix": 0.1}).differences()) == ["blend"]
    assert make_many({"baseline": 0.1}).differences() == {}


def test_against_any_arm():
    results = make_many({"baseline": 0.4, "repeat": 0.3, "genmix": 0.1})
    found = results.against("repeat")
    assert found == differences(results.resampled, [("baseline", "repeat"), ("genmix", "repeat")])
    with pytest.raises(InputError, match="no arm 'mixup' to compare with; there are baseline, repeat, genmix"):
        results.against("mixup")


@pytest.mark.parametrize(
    ("arm", "other"),
    [
        ("genmix", "blend"),
        ("genmix:adm", "blend:adm"),
        ("genmix-union:a:b", "blend:a:b"),
        ("genmix-real", "repeat"),
        ("blend", None),
        ("genmixed", None),
    ],
)
def test_the_blended_arm(arm, other):
    assert blended_arm(arm) == other


def test_tuned_values():
    runs = [
        *make_runs("mixup", 0, PREDICTIONS["genmix", 0], knobs=(0.4, 0.1)),
        *make_runs("mixup", 1, PREDICTIONS["genmix", 0], knobs=(0.2, 0.4)),
        *make_runs("baseline", 0, PREDICTIONS["genmix", 0]),
    ]
    results = make_results(runs=runs)
    assert results.knobs("mixup") == (0.1, 0.2, 0.4)
    assert results.knobs("baseline") == ()


def test_the_order_of_the_table():
    missing = {"genmix:ldm": "no weights"}
    assert make_results(missing=missing).order == ("baseline", "genmix", "genmix:ldm")
    results = make_results(missing=missing, order=("genmix:ldm", "genmix", "baseline"))
    assert results.arms == ("genmix", "baseline")
    assert list(results.summary()) == ["genmix", "baseline"]


def test_groups_lose_their_names_and_stay_groups():
    results = make_results(groups=((1017, 1017, 4, 4), (99, 5)))
    assert results.groups == ((0, 0, 1, 1), (2, 3))
    assert results.outcomes["genmix"].groups.tolist() == [0, 0, 1, 1, 2, 3]
    assert "1017" not in json.dumps(results.to_dict())


def test_the_files(tmp_path):
    results = make_results(
        classes=("cyst", "meta,stasis", "polyp"), warnings=("careful",), missing={"genmix:ldm": "no weights"}
    )
    folder = tmp_path / "new" / "folder"
    results.save(folder)
    assert {path.name for path in folder.iterdir()} == FILES
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], int(row["seed"]), int(row["fold"])) for row in rows] == [
        (arm, seed, fold) for arm, seed in PREDICTIONS for fold in (0, 1)
    ]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([3 / 4, 1, 2 / 4, 1 / 2, 1, 1, 1, 1 / 2])
    assert float(rows[0]["specificity_meta,stasis"]) == pytest.approx(3 / 4)
    assert (rows[0]["sensitivity_polyp"], rows[0]["auc"], rows[0]["knob"]) == ("", "", "")
    assert (rows[2]["steps"], rows[2]["best_step"], rows[2]["seconds"]) == ("100", "51", "1.25")
    assert (folder / "results.md").read_text(encoding="utf-8") == results.to_markdown()
    assert (folder / "results.tex").read_text(encoding="utf-8") == results.to_latex()


def test_the_summary_file(tmp_path):
    results = make_results(classes=("cyst", "metastasis", "polyp"), missing={"genmix:ldm": "no weights, yet"})
    results.save(tmp_path)
    with open(tmp_path / "summary.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    summary = {(row["arm"], row["metric"]): row for row in rows}
    assert len(summary) == 2 * 10 + 1
    found = results.summary()["baseline"]["accuracy"]
    for name in ("mean", "low", "high", "sd", "standard_error", "margin"):
        assert float(summary["baseline", "accuracy"][name]) == pytest.approx(getattr(found, name), abs=1e-6)
    assert summary["genmix", "sensitivity_polyp"]["mean"] == ""
    assert summary["genmix", "accuracy"]["seeds"] == "2"
    assert (rows[-1]["arm"], rows[-1]["mean"], rows[-1]["missing"]) == ("genmix:ldm", "", "no weights, yet")


def test_the_differences_file(tmp_path):
    results = make_many({"baseline": 0.4, "blend": 0.3, "genmix": 0.1})
    results.save(tmp_path)
    with open(tmp_path / "differences.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["metric"], row["family"], row["arm"], row["reference"]) for row in rows] == [
        (metric, *pair)
        for metric in ("accuracy", "macro_f1", "balanced_accuracy", "auc")
        for pair in (
            ("baseline", "blend", "baseline"),
            ("baseline", "genmix", "baseline"),
            ("blend", "genmix", "blend"),
        )
    ]
    found = results.differences("auc")["blend"][0]
    for name in ("difference", "low", "high", "standard_error", "p", "p_single", "detectable"):
        assert float(rows[-1][name]) == pytest.approx(getattr(found, name), abs=1e-6)


def test_the_json_is_strict_and_whole(tmp_path):
    results = make_results(
        classes=("cyst", "metastasis", "polyp"), data={"name": "x", "shape": [1], "counts": {}}, missing={"a": "b"}
    )
    results.save(tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert content == results.to_dict()
    assert Run.from_dict(content["runs"][2]).predictions == (0, 0, 1, 1)
    assert content["summary"]["genmix"]["accuracy"]["mean"] == pytest.approx((1 + 5 / 6) / 2)
    assert content["summary"]["genmix"]["auc"]["mean"] is None
    assert content["differences"]["macro_f1"]["baseline"][0]["reference"] == "baseline"


def test_results_are_read_again(tmp_path):
    results = make_many(
        {"baseline": 0.4, "genmix:dcgan": 0.1},
        groups=(tuple(number // 2 for number in range(60)),),
        data={"name": "liver", "shape": [1, 16, 16], "counts": {"train": {"cyst": 3}}},
        banks={"dcgan": {"counts": {"cyst": 5}, "trained_on": "this training set"}},
        protocol={"steps": 100},
        missing={"genmix:ldm": "no weights"},
        order=("baseline", "genmix:ldm", "genmix:dcgan"),
        warnings=("careful",),
        versions={"torch": "2"},
    )
    results.save(tmp_path)
    found = Results.load(tmp_path)
    assert found.to_dict() == results.to_dict()
    assert found.to_markdown() == results.to_markdown()
    assert found.order == results.order
    found.save(tmp_path / "again")
    assert (tmp_path / "again" / "results.json").read_bytes() == (tmp_path / "results.json").read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"classes": ["a"], "runs": 5}', '{"runs": NaN}'])
def test_what_is_not_results(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results.json: no results of this version .*; evaluate again"):
        Results.load(tmp_path)


def test_no_results_there(tmp_path):
    with pytest.raises(MissingPathError, match="no results there; give the folder that evaluate wrote"):
        Results.load(tmp_path)


def test_saving_again_replaces(tmp_path):
    make_results().save(tmp_path)
    make_results([("genmix", 0)]).save(tmp_path)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_nothing_to_show(tmp_path):
    results = make_results([], missing={"genmix": "no bank"})
    assert results.arms == ()
    assert results.differences() == {}
    results.save(tmp_path)
    assert Results.load(tmp_path).order == ("genmix",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": {"genmix": "lost"}}, "genmix: an arm is missing or has runs, not both"),
        ({"order": ("genmix",)}, "order must name every arm once, baseline, genmix, got genmix"),
        ({"order": ("genmix", "baseline", "baseline")}, "order must name every arm once"),
        ({"labels": LABELS[:1]}, "a run of fold 1, but there are 1 folds"),
        ({"labels": ((0, 0), (1, 1))}, "4 predictions for 2 test cases"),
        ({"groups": ((0,), (1, 2))}, "every test case needs a group"),
    ],
)
def test_what_is_no_comparison(options, message):
    with pytest.raises(InputError, match=message):
        make_results(**options)


def test_a_run_that_is_missing():
    with pytest.raises(InputError, match="arm 'genmix', seed 1: no run of fold 1"):
        make_results(runs=make_results().runs[:-1])


def test_results_of_an_earlier_release_open():
    """Written by the last release before settings were fields; the same results, file and cached run."""
    folder = Path(__file__).parent / "written_before"
    results = Results.load(folder)
    assert results.to_dict() == json.loads((folder / "results.json").read_text())
    # What it says is said still; what has come since has its default.
    assert Protocol(**results.protocol).to_dict() == {**Protocol().to_dict(), **results.protocol}
    run = next(run for run in results.runs if (run.arm, run.seed) == ("genmix", 1))
    key = json.loads((folder / "runs" / "genmix-fold0-seed1.json").read_text())["key"]
    assert RunCache(folder / "runs").get("genmix", 1, key=key).to_dict() == run.to_dict()
    trial = folder / "trials" / finished_name("genmix", 0, "0.1")
    key = json.loads(trial.read_text())["key"]
    assert read_finished(trial, lambda kept: kept["validation_macro_f1"], key=key) is not None
