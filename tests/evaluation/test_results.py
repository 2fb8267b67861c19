"""The results: the numbers of the table, and files that others can read."""

import csv
import json
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.results import Results, Spread
from genmix_transforms.evaluation.runs import Run

LABELS = torch.tensor([0, 0, 0, 0, 1, 1])
PREDICTIONS = {
    ("baseline", 0): [0, 0, 0, 1, 1, 1],
    ("baseline", 1): [0, 0, 1, 1, 1, 0],
    ("genmix", 0): [0, 0, 0, 0, 1, 1],
    ("genmix", 1): [0, 0, 0, 0, 1, 0],
}


def make_results(pairs=tuple(PREDICTIONS), *, classes=("cyst", "metastasis"), **options):
    runs = tuple(
        Run(
            arm=arm,
            seed=seed,
            steps=100,
            best_step=50 + seed,
            validation_macro_f1=0.5,
            scores=score(torch.tensor(PREDICTIONS[arm, seed]), LABELS, num_classes=len(classes)),
            predictions=tuple(PREDICTIONS[arm, seed]),
            seconds=1.25,
        )
        for arm, seed in pairs
    )
    return Results(classes=classes, runs=runs, **options)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_mean_and_sample_deviation(values):
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(statistics.fmean(values))
    assert spread.sd == pytest.approx(statistics.stdev(values))
    assert spread.seeds == len(values)
    assert Spread.of([float("nan"), *values]) == spread


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.7, 0.8], "75.0 ± 7.1"),
        ([0.7234], "72.3"),
        ([1.0, 1.0, 1.0], "100.0 ± 0.0"),
        ([float("nan")], "-"),
        ([], "-"),
        ([float("nan"), 0.5], "50.0"),
    ],
)
def test_in_per_cent(values, text):
    assert Spread.of(values).percent() == text


def test_the_summary_is_over_the_seeds_of_each_arm():
    summary = make_results().summary()
    assert list(summary) == ["baseline", "genmix"]
    assert summary["baseline"]["accuracy"].mean == pytest.approx((5 / 6 + 3 / 6) / 2)
    assert summary["baseline"]["accuracy"].sd == pytest.approx(statistics.stdev([5 / 6, 3 / 6]))
    assert summary["genmix"]["sensitivity_metastasis"].mean == pytest.approx(0.75)
    assert summary["genmix"]["specificity_metastasis"].mean == 1


def test_the_table_on_the_screen():
    lines = make_results().table().splitlines()
    assert lines[0].split() == ["arm", "Acc", "F1", "Bal", "Acc", "cyst", "sens/spec", "metastasis", "sens/spec"]
    assert lines[1].split() == [
        "baseline",
        "66.7±23.6",
        "65.7±24.2",
        "68.8±26.5",
        "62.5±17.7/75.0±35.4",
        "75.0±35.4/62.5±17.7",
    ]
    assert lines[2].split()[0] == "genmix"
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[4] == (
        "Per cent. Mean and standard deviation over 2 seeds, 6 test images. F1: macro; Bal Acc: balanced accuracy."
    )
    # Columns are aligned to the right, under their headings.
    assert lines[0].index("Acc") + 3 == lines[1].index("23.6") + 4


def test_notes_follow_the_table():
    results = make_results(warnings=("the bank is strange",))
    assert results.table().endswith("Note: the bank is strange.")
    assert "**Note:** the bank is strange.\n" in results.to_markdown()


def test_a_class_the_test_set_lacks_has_a_dash():
    results = make_results(classes=("cyst", "metastasis", "polyp"))
    assert results.table().splitlines()[1].split()[-1] == "-/100.0±0.0"
    assert results.to_dict()["summary"]["genmix"]["sensitivity_polyp"] == {"mean": None, "sd": None, "seeds": 0}


def test_the_table_in_markdown():
    results = make_results(
        classes=("cyst", "meta|stasis"),
        data={"name": "liver", "shape": [1, 16, 16], "counts": {"train": {"cyst": 3}, "test": {"cyst": 4}}},
        bank={"counts": {"cyst": 5}, "trained_on": "this training set"},
        protocol={"steps": 100},
        versions={"torch": "2"},
    )
    lines = results.to_markdown().splitlines()
    assert lines[0] == r"| arm | Acc | F1 | Bal Acc | cyst sens / spec | meta\|stasis sens / spec |"
    assert lines[1] == "|---|---:|---:|---:|---:|---:|"
    assert lines[2] == (
        "| baseline | 66.7 ± 23.6 | 65.7 ± 24.2 | 68.8 ± 26.5 | 62.5 ± 17.7 / 75.0 ± 35.4 | 75.0 ± 35.4 / 62.5 ± 17.7 |"
    )
    assert "Data: liver, 1 x 16 x 16; train cyst 3; test cyst 4." in lines
    assert "Bank: cyst 5; its generator was trained on: this training set." in lines
    assert "Protocol: steps 100." in lines
    assert "Made with torch 2." in lines


def test_one_seed_has_no_deviation():
    results = make_results([("baseline", 0)])
    assert "±" not in results.table()
    assert "1 seed, 6 test images" in results.table()


def test_the_files(tmp_path):
    results = make_results(classes=("cyst", "meta,stasis", "polyp"), warnings=("careful",))
    results.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == {"results.csv", "summary.csv", "results.json", "results.md"}
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], int(row["seed"])) for row in rows] == list(PREDICTIONS)
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([5 / 6, 3 / 6, 1, 5 / 6], abs=1e-6)
    assert float(rows[0]["specificity_meta,stasis"]) == pytest.approx(3 / 4)
    assert rows[0]["sensitivity_polyp"] == ""
    assert (rows[1]["steps"], rows[1]["best_step"], rows[1]["seconds"]) == ("100", "51", "1.25")
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        summary = {(row["arm"], row["metric"]): row for row in csv.DictReader(file)}
    assert len(summary) == 2 * 9
    assert float(summary["baseline", "accuracy"]["mean"]) == pytest.approx(4 / 6, abs=1e-6)
    assert float(summary["baseline", "accuracy"]["sd"]) == pytest.approx(statistics.stdev([5 / 6, 3 / 6]), abs=1e-6)
    assert summary["genmix", "sensitivity_polyp"]["mean"] == ""
    assert summary["genmix", "accuracy"]["seeds"] == "2"
    assert (folder / "results.md").read_text(encoding="utf-8") == results.to_markdown()


def test_the_json_is_strict_and_whole(tmp_path):
    results = make_results(classes=("cyst", "metastasis", "polyp"), data={"name": "x", "shape": [1], "counts": {}})
    results.save(tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert content == results.to_dict()
    assert Run.from_dict(content["runs"][1]).predictions == tuple(PREDICTIONS["baseline", 1])
    assert content["summary"]["genmix"]["accuracy"]["mean"] == pytest.approx((1 + 5 / 6) / 2)


def test_saving_again_replaces(tmp_path):
    make_results().save(tmp_path)
    make_results([("genmix", 0)]).save(tmp_path)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2


def test_nothing_to_show():
    results = make_results([])
    assert results.arms == ()
    assert results.table().splitlines()[0].split()[0] == "arm"
