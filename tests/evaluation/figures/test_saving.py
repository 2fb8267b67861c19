"""All figures of a comparison in a folder: which are drawn, from which numbers, and what is said with them."""

import numpy as np
import pytest
import torch

from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.evaluation.figures import FeaturePoints, save_figures, saving
from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.results import Results
from genmix_transforms.evaluation.runs import Run
from genmix_transforms.transforms import GenMix

CLASSES = ("cyst", "hemangioma", "metastasis")
ARMS = ("baseline", "blend:adm", "genmix:adm", "genmix-real", "repeat")


def results(arms=ARMS, *, folds=2, seeds=3, **options):
    """Classifiers that are right in about seven cases of ten; labels differ from fold to fold."""
    labels = [np.random.default_rng(fold).integers(0, 3, 40) for fold in range(folds)]
    runs = []
    for place, arm in enumerate(arms):
        for fold in range(folds):
            for seed in range(seeds):
                random = np.random.default_rng([place, fold, seed])
                wrong = random.random(40) < 0.3
                predicted = torch.from_numpy(np.where(wrong, random.integers(0, 3, 40), labels[fold]))
                runs.append(
                    Run(
                        arm=arm,
                        seed=seed,
                        fold=fold,
                        steps=1,
                        best_step=1,
                        validation_macro_f1=0.5,
                        seconds=1.0,
                        scores=score(predicted, torch.from_numpy(labels[fold]), num_classes=3),
                        predictions=tuple(predicted.tolist()),
                    )
                )
    return Results(
        classes=CLASSES,
        runs=tuple(runs),
        labels=tuple(tuple(fold.tolist()) for fold in labels),
        data={"name": "shapes", "fingerprints": {"train": "0123456789abcdef"}},
        versions={"genmix_transforms": "9.9", "torch": "2.0", "device": "cpu"},
        **options,
    )


@pytest.fixture(scope="module")
def found():
    return results(missing={"genmix:ldm": "no weights"})


@pytest.fixture
def drawn(monkeypatch):
    """What each figure was asked to draw, by name; the drawing itself has tests of its own."""
    asked = {}
    for name in ("scores", "confusion", "forest", "examples", "tsne", "evolution"):
        monkeypatch.setattr(
            saving, f"{name}_figure", lambda *given, name=name, **options: asked.setdefault(name, (given, options))
        )
    monkeypatch.setattr(saving, "rendered", lambda figure, kind, *, description, dpi: f"{kind} {description}".encode())
    return asked


def test_files_are_whole_and_said_what_they_are(found, tmp_path):
    paths = save_figures(found, tmp_path / "new", formats=("pdf", "png"), dpi=60)
    names = [path.name for path in paths]
    assert names == [
        "scores.pdf",
        "scores.png",
        "forest.pdf",
        "forest.png",
        "confusion.pdf",
        "confusion.png",
        "figures.md",
    ]
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(names)
    assert paths[0].read_bytes().startswith(b"%PDF")
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_the_numbers_are_those_of_the_results(found, drawn, tmp_path):
    save_figures(found, tmp_path)
    (seeds,), options = drawn["scores"]
    assert list(seeds) == list(ARMS)
    for arm, estimates in found.summary().items():
        one = estimates["macro_f1"]
        assert np.mean(seeds[arm]) == pytest.approx(one.mean)
        assert len(seeds[arm]) == 3
        assert options["intervals"][arm] == (one.low, one.high)
    assert options["missing"] == {"genmix:ldm": "no weights"}
    (families,), _ = drawn["forest"]
    assert {title: [row.arm for row in rows] for title, rows in families.items()} == {
        "baseline": list(ARMS[1:]),
        "the arm that has the same images blended in": ["genmix:adm", "genmix-real"],
    }


def test_confusions_are_of_all_folds_and_a_matrix_a_seed(found, drawn, tmp_path):
    save_figures(found, tmp_path)
    (confusions, classes), _ = drawn["confusion"]
    assert classes == CLASSES
    for arm in ARMS:
        assert confusions[arm].shape == (3, 3, 3)
        for seed in range(3):
            folds = [np.array(run.scores.confusion) for run in found.runs if (run.arm, run.seed) == (arm, seed)]
            assert np.array_equal(confusions[arm][seed], sum(folds))


def test_one_reference_is_named(drawn, tmp_path):
    save_figures(results(("baseline", "blend", "genmix")), tmp_path)
    assert list(drawn["forest"][0][0]) == ["baseline", "blend"]


def test_one_arm_has_nothing_to_compare(drawn, tmp_path):
    paths = save_figures(results(("mixup",)), tmp_path, formats=["svg"])
    assert [path.name for path in paths] == ["scores.svg", "confusion.svg", "figures.md"]
    assert "forest" not in drawn


def test_with_more_at_hand_more_is_drawn(found, drawn, tmp_path, shapes):
    genmix = {"ADM": GenMix(shapes.bank())}
    points = {"baseline": FeaturePoints(features=np.zeros((6, 2)), labels=[0] * 6, kinds=["real"] * 6)}
    train = shapes.patches(9)
    paths = save_figures(found, tmp_path, train=train, genmix=genmix, points=points, run="run", formats=["png"])
    assert [path.stem for path in paths] == [
        "scores",
        "forest",
        "confusion",
        "examples",
        "tsne",
        "evolution",
        "figures",
    ]
    assert drawn["examples"] == ((train, genmix), {})
    assert drawn["tsne"] == ((points, CLASSES), {})
    assert drawn["evolution"] == (("run",), {})


def test_where_the_numbers_come_from_is_on_the_page_and_in_the_files(found, drawn, tmp_path):
    paths = save_figures(found, tmp_path)
    line = "Data shapes; training set 0123456789ab; 80 test cases, 3 seeds; 2 folds; genmix_transforms 9.9; torch 2.0."
    assert saving.provenance(found) == line
    assert all(line in path.read_text(encoding="utf-8") for path in paths)
    page = paths[-1].read_text(encoding="utf-8")
    assert page.endswith(line + "\n")
    assert "![forest](forest.png)" in page
    assert "[pdf](forest.pdf), [svg](forest.svg), [png](forest.png)" in page


def test_results_that_know_little_say_little():
    bare = results(("mixup",), folds=1, seeds=1)
    bare = Results(classes=bare.classes, runs=bare.runs, labels=bare.labels)
    assert saving.provenance(bare) == "40 test cases, 1 seed."


def test_nothing_is_written_when_a_figure_cannot_be_drawn(found, tmp_path, shapes):
    small = GenMix(shapes.bank(size=24))
    with pytest.raises(InputError, match="ADM: the patches are"):
        save_figures(found, tmp_path / "new", train=shapes.patches(9), genmix={"ADM": small})
    assert not (tmp_path / "new").exists()


def test_what_cannot_work(found, tmp_path, shapes):
    (tmp_path / "file").touch()
    for options, message in (
        ({"formats": "png"}, "formats must be some of pdf, svg, png, got 'png'"),
        ({"formats": ["jpg"]}, "formats must be some of pdf, svg, png"),
        ({"formats": []}, "formats must be some of"),
        ({"dpi": 10}, "dpi must be a whole number, at least 50"),
        ({"train": shapes.patches(9)}, "needs train and genmix"),
        ({"genmix": {}}, "needs train and genmix"),
    ):
        with pytest.raises(InputError, match=message):
            save_figures(found, tmp_path / "new", **options)
    with pytest.raises(OverwriteError, match="is a file"):
        save_figures(found, tmp_path / "file")
    with pytest.raises(InputError, match="the results have no runs"):
        save_figures(Results(classes=CLASSES, runs=(), labels=()), tmp_path)
