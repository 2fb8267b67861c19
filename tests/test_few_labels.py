"""The benchmark of the few-shot curve: parts without common images, the same draws for all, and its report."""

import json
import sys

import numpy as np
import pytest
import torch

from genmix_transforms import SyntheticBank
from genmix_transforms.data import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Results
from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.runs import Run

NAMES = (
    "few_labels_data", "few_labels_views", "few_labels_banks", "few_labels_report", "table1_generators", "table1_data",
    "table1", "few_labels", "few_labels_priors",
)  # fmt: skip
PARTS = ("pool", "labelled", "validation", "test")


@pytest.fixture
def scripts(load_benchmarks):
    """The benchmark's files as modules."""
    return load_benchmarks(*NAMES)


@pytest.fixture
def data(tmp_path):
    """Bright and dark patches of 16 pixels, 80 of each, two of a patient."""
    rng = np.random.default_rng(0)
    labels = np.arange(160) // 2 % 2
    images = rng.integers(0, 100, (160, 16, 16)) + 100 * labels[:, None, None]
    np.savez(
        tmp_path / "data.npz",
        images=images.astype(np.uint8),
        labels=labels,
        label_names=["dark", "bright"],
        patient=np.arange(160) // 2,
    )
    return tmp_path / "data.npz"


def call(scripts, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["few_labels.py", *map(str, arguments), "--no-progress"])
    scripts["few_labels"].main()
    return capsys.readouterr().out


def test_no_patient_is_in_two_parts_and_every_image_in_one(scripts, data, tmp_path):
    source = scripts["few_labels_data"].open_source(str(data), size=None, folder=tmp_path / "parts")
    parts = [getattr(source, name) for name in PARTS]
    patients = [set(part.groups.tolist()) for part in parts]
    images = [set(part.origins.tolist()) for part in parts]
    assert sum(map(len, images)) == len(set().union(*images)) == 160
    assert all(min(part.class_counts.values()) > 5 for part in parts)
    with np.load(data) as arrays:
        assert sum(map(len, patients)) == len(set().union(*patients)) == len(np.unique(arrays["patient"]))
    again = scripts["few_labels_data"].open_source(str(data), size=None, folder=tmp_path / "parts")
    assert [part.fingerprint for part in parts] == [getattr(again, name).fingerprint for name in PARTS]


def test_a_pool_from_another_place(scripts, data, tmp_path):
    other = tmp_path / "other.npz"
    pixels = np.random.default_rng(3).integers(0, 256, (10, 20, 20), dtype=np.uint8)
    np.savez(other, images=pixels, labels=np.arange(10) % 2, label_names=["a", "b"])
    opening = scripts["few_labels_data"].open_source
    usual = opening(str(data), size=None, folder=tmp_path / "usual")
    source = opening(str(data), size=None, folder=tmp_path / "parts", pool=other)
    assert source.pool.images.shape == (10, 1, 16, 16)
    assert source.test.images.equal(usual.test.images)
    with pytest.raises(InputError, match=r"\d+ of its images are in the part 'labelled'"):
        opening(str(data), size=None, folder=tmp_path / "leak", pool=data)


def test_medmnists_test_set_grows_by_training_images_that_nothing_else_has(scripts, tmp_path):
    rng = np.random.default_rng(1)
    arrays = {}
    for split, count in (("train", 100), ("val", 20), ("test", 30)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None]
    arrays["val_images"][0] = arrays["train_images"][0]  # as PneumoniaMNIST has some
    np.savez(tmp_path / "mnist.npz", **arrays)
    source = scripts["few_labels_data"].open_source(str(tmp_path / "mnist.npz"), size=None, folder=tmp_path / "parts")
    images = [set(getattr(source, name).origins.tolist()) for name in PARTS]
    assert sum(map(len, images)) == len(set().union(*images)) == 149
    assert [len(part) for part in images] == [40, 20, 20, 69]


@pytest.mark.filterwarnings("ignore")  # of so few images, there is much to say
def test_from_data_to_the_curves(scripts, monkeypatch, capsys, data, tmp_path):
    out = tmp_path / "out"
    arguments = ["--data", data, "--out", out, "--labels", "4,6", "--draws", 1, "--full", 6, "--full-draws", 2]
    arguments += ["--banks", "dcgan,adm-guided", "--quick"]
    with pytest.raises(InputError, match="no draw is finished"):
        call(scripts, monkeypatch, capsys, *arguments, "--only", "report")
    printed = call(scripts, monkeypatch, capsys, *arguments)
    curves = json.loads((out / "curves.json").read_text())
    assert list(curves) == ["4", "6"]
    script = scripts["few_labels"]
    few = {*script.PLAIN, *(script.with_bank(arm, "dcgan") for arm in script.OF_THE_BANK)}
    known = {
        f"pretrained {script.with_bank(arm, 'dcgan') if arm != 'baseline' else arm}" for arm in script.WITH_PRETRAINED
    }
    more = {script.with_bank(arm, "dcgan") for arm in script.MORE} | {*script.MORE_PLAIN, "recipe", "pool-recipe"}
    others = {script.with_bank(arm, "adm-guided") for arm in script.OF_MORE_BANKS}
    assert set(curves["4"]["scores"]) == few | known
    assert set(curves["6"]["scores"]) == few | known | more | others
    assert [point["draws"] for point in curves.values()] == [1, 2]
    seeds = {one["arm"]: one["seeds"] for one in curves["6"]["differences"]["arms"]}
    assert {seeds[arm] for arm in few - {"baseline"}} == {2}
    # As many as the other numbers of labels have.
    assert {seeds[arm] for arm in (more | others) - {"recipe", "pool-recipe"}} == {1}
    assert len(curves["4"]["differences"]["arms"]) == len(few) - 1
    small, large = (Results.load(out / f"labels-{labels}" / "draw-0" / "scratch") for labels in (4, 6))
    assert small.data["counts"]["train"] == {"dark": 4, "bright": 4}
    assert large.data["counts"]["train"] == {"dark": 6, "bright": 6}
    assert {run.seed for run in small.runs} == {0}
    assert len({run.steps for run in small.runs}) == 1
    assert "pretrained genmix:dcgan | pretrained baseline" in printed
    assert (out / "curves.png").stat().st_size > 10_000

    monkeypatch.setattr(scripts["few_labels_banks"], "fill_bank", lambda *args, **options: pytest.fail("filled again"))
    monkeypatch.setattr(script, "pretrain_classifier", lambda *args, **options: pytest.fail("pre-trained again"))
    assert call(scripts, monkeypatch, capsys, *arguments).endswith(printed[printed.index("Macro F1") :])


@pytest.mark.filterwarnings("ignore")  # of so few images, there is much to say
@pytest.mark.parametrize("way", ["dcgan-soft", "dcgan-labelled", "adm", "adm-classes"])
def test_a_bank_of_every_way(scripts, tmp_path, way):
    pixels = torch.randint(0, 256, (12, 1, 16, 16), dtype=torch.uint8)
    others = [
        PatchDataset(
            images=torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8),
            labels=torch.arange(4) % 2,
            classes=("dark", "bright"),
        )
        for _ in range(2)
    ]
    patches = PatchDataset(images=pixels, labels=torch.arange(12) % 2, classes=("dark", "bright"))
    known = scripts["few_labels_banks"].teachers(16, quick=True)
    teacher = next(teacher for teacher in known.values() if way in teacher.ways)
    teacher.learn(patches.without_labels(), out=tmp_path / "pool", progress=False)
    folders = {"pool_run": tmp_path / "pool", "run": tmp_path / "run", "out": tmp_path / "bank"}
    judge = scripts["few_labels"].QUICK
    bank = teacher.bank(way, (patches, *others), judge=judge, **folders, per_class=3, seed=5)
    assert bank.image_shape == (1, 16, 16)
    assert bank.classes == ("dark", "bright")
    assert len(bank) == (24 if way == "dcgan-labelled" else 6)
    assert (bank.soft_labels is not None) == (way in ("dcgan-soft", "dcgan-labelled"))


@pytest.mark.parametrize(("view", "shape"), [("Folded", (4, 8, 8)), ("Plain", (1, 16, 16))])
def test_what_is_seen_comes_back(scripts, view, shape):
    """Without any loss where the size is a power of two."""
    pixels = torch.randint(0, 256, (6, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    patches = PatchDataset(images=pixels, labels=torch.arange(6) % 2, classes=("dark", "bright"))
    looking = getattr(scripts["few_labels_views"], view)()
    seen = looking.of(patches)
    assert seen.images.shape[1:] == shape
    assert torch.equal(seen.origins, patches.origins)
    bank = SyntheticBank(seen.images, seen.labels, classes=["dark", "bright"])
    assert torch.equal(looking.back(bank, 16).images, pixels[torch.argsort(patches.labels, stable=True)])


def test_colored_patches_come_back_gray(scripts):
    pixels = torch.full((2, 1, 16, 16), 77, dtype=torch.uint8)
    patches = PatchDataset(images=pixels, labels=torch.arange(2), classes=("dark", "bright"))
    looking = scripts["few_labels_views"].Colored(32)
    seen = looking.of(patches)
    assert seen.images.shape == (2, 3, 32, 32)
    assert torch.equal(
        looking.back(SyntheticBank(seen.images, seen.labels, classes=["dark", "bright"]), 16).images, pixels
    )


def test_latents_are_an_eighth_of_the_side_and_bytes(scripts, tmp_path):
    """The networks have random weights here; their layout is that of the published files."""
    views = scripts["few_labels_views"]
    for name in ("encoder", "decoder"):
        torch.save(getattr(views, name)().state_dict(), tmp_path / f"taef2_{name}.pth")
    pixels = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    patches = PatchDataset(images=pixels, labels=torch.arange(4) % 2, classes=("dark", "bright"))
    looking = views.Latent.load(tmp_path, like=patches, kept=tmp_path / "kept.safetensors", side=32)
    seen = looking.of(patches)
    assert seen.images.shape == (4, 32, 4, 4)
    assert seen.images.dtype == torch.uint8
    assert looking.back(SyntheticBank(seen.images, seen.labels, classes=["dark", "bright"]), 16).images.shape == (
        4,
        1,
        16,
        16,
    )


def test_a_difference_of_known_size_is_reported(scripts):
    """Three draws; the arm is right in every case, the baseline in all but a tenth."""
    labels = torch.arange(600) % 2
    wrong = labels.clone()
    wrong[:60] = 1 - wrong[:60]

    def run(arm, seed, predictions):
        return Run(
            arm=arm, seed=seed, steps=1, best_step=1, validation_macro_f1=0.5, seconds=1.0,
            predictions=tuple(predictions.tolist()), scores=score(predictions, labels, num_classes=2),
        )  # fmt: skip

    def results(seed, arms):
        return Results(
            classes=("dark", "bright"),
            runs=tuple(run(arm, seed, predictions) for arm, predictions in arms.items()),
            labels=(tuple(labels.tolist()),),
        )

    report = scripts["few_labels_report"]
    scratch = [results(seed, {"baseline": wrong, "mixup": labels}) for seed in range(3)]
    pretrained = [results(seed, {"baseline": wrong}) for seed in range(3)]
    chose = [report.under_one_name(results(seed, {"baseline": wrong, "mixup": labels}), "recipe") for seed in range(2)]
    chose.append(report.under_one_name(results(2, {"baseline": wrong}), "recipe"))  # this one chose the baseline
    parts = [report.joined(each) for each in (scratch, pretrained, chose)]
    point = report.compared(*parts, bank="dcgan")
    (found,) = point.differences["arms"]
    assert (found.arm, found.difference) == ("mixup", pytest.approx(0.1))
    assert found.p < 0.05
    assert point.differences["pool"][0].difference == 0
    assert point.differences["recipe"][0].difference == pytest.approx(0.2 / 3)
    assert point.draws == 3
    assert "controls" not in point.differences  # none of those arms is there

    few = report.compared(*parts[:2], bank="dcgan")  # nothing was chosen with 5 labels
    lines = report.markdown({"5": few, "25": point}, test=range(600))
    assert "| arm | less | 5 | 25 |" in lines
    assert "| mixup | baseline | **+10.0 (" in next(line for line in lines if line.startswith("| mixup | baseline |"))
    assert next(line for line in lines if line.startswith("| recipe | baseline |")).startswith(
        "| recipe | baseline |  | +6.7 ("
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "five"], "expected numbers of labels a class or 'paper', got 'five'"),
        (["--only", "pools"], "no stage 'pools'; there are pool, banks, runs, recipe, pool-recipe, report"),
        (["--bank", "gan"], "no bank 'gan'; there are dcgan, dcgan-soft, dcgan-labelled, adm"),
        (["--labels", "400", "--only", "runs"], "400 labels of 'dark' are asked for, but only"),
    ],
)
def test_what_cannot_be(scripts, monkeypatch, capsys, data, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        call(scripts, monkeypatch, capsys, "--data", data, "--out", tmp_path / "out", *arguments)


def test_probabilities_learned_from_unequal_classes_are_those_of_equal_ones(scripts):
    """Bayes' rule on densities that are known: nine of ten training images are of the first class."""
    x = np.linspace(-3, 3, 61)
    densities = np.exp(-((x[:, None] - np.array([-1.0, 1.0])) ** 2) / 2)
    learned, wanted = (densities * shares / (densities * shares).sum(1, keepdims=True) for shares in ((9, 1), (1, 1)))
    corrected = scripts["few_labels_priors"].for_equal_classes(learned, np.array([90.0, 10.0]))
    np.testing.assert_allclose(corrected, wanted, rtol=1e-12)
    assert (learned[x > 0.1].argmax(1) == 0).any()
    assert (corrected[x > 0.1].argmax(1) == 1).all()


def test_gains_are_means_over_draws_with_students_interval(scripts):
    stats = pytest.importorskip("scipy.stats")
    found = {"baseline": [(0.5, 0.6, 0.7), (0.6, 0.6, 0.7), (0.7, 0.6, 0.7)]}
    found["genmix"] = [(0.51, 0.6, 0.7), (0.63, 0.6, 0.7), (0.72, 0.6, 0.7)]
    row = scripts["few_labels_priors"].table(found).splitlines()[-1]
    low, high = stats.t.interval(0.95, 2, loc=2, scale=1 / np.sqrt(3))
    assert row.split(" | ")[2] == f"+2.0 ({low:+.1f} to {high:+.1f})"
