"""The benchmark that rebuilds Table 1: what it asks for, what it leaves empty, and that it goes on where it stopped."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from genmix_transforms.errors import InputError

PRESETS = ("small", "scratch", "fast", "paper", "trial")


@pytest.fixture
def scripts(load_benchmarks):
    """The benchmark's files as modules."""
    return load_benchmarks("table1_generators", "table1_data", "table1", "table1_cost", "timing", "evaluate_speed")


@pytest.fixture
def data(tmp_path):
    """Bright and dark patches of 16 pixels, 60 of each."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = rng.integers(0, 100, (120, 16, 16)) + 100 * labels[:, None, None]
    np.savez(tmp_path / "data.npz", images=images.astype(np.uint8), labels=labels, label_names=["dark", "bright"])
    return tmp_path / "data.npz"


def call(scripts, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["table1.py", *map(str, arguments)])
    scripts["table1"].main()
    return capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:very few images")
def test_from_data_to_the_table(scripts, monkeypatch, capsys, data, tmp_path):
    out = tmp_path / "out"
    arguments = ["--data", data, "--preset", "trial", "--folds", 2, "--seeds", 2, "--generators", "dcgan,adm"]
    arguments += ["--out", out, "--device", "cpu", "--no-progress"]
    printed = call(scripts, monkeypatch, capsys, *arguments, "--only-generators")
    assert "fold 1, dcgan: 60 images" in printed or "fold 1, dcgan: 4" in printed
    assert not (out / "results.json").exists()
    assert (out / "fold-1" / "banks" / "dcgan" / "bank.index.json").exists()
    kept = (out / "fold-1" / "runs" / "dcgan" / "model.safetensors").stat().st_mtime_ns

    printed = call(scripts, monkeypatch, capsys, *arguments)
    results = json.loads((out / "results.json").read_text())
    plain = ["baseline", "mixup", "augmix", "classical", "repeat", "genmix-real"]
    assert set(results["order"]) == {
        *plain,
        *(f"{kind}:{bank}" for kind in ("blend", "genmix", "genmix-union") for bank in ("dcgan", "adm")),
    }
    assert set(results["missing"]) == {"blend:adm", "genmix:adm", "genmix-union:adm"}
    assert all("--weights adm=FOLDER" in reason for reason in results["missing"].values())
    assert results["banks"]["dcgan"]["trained_on"] == "each fold's training set"
    assert len(results["runs"]) == (len(plain) + 3) * 2 * 2
    assert all(run["knob"] is not None and run["steps"] == 4 for run in results["runs"])
    assert sum(len(fold) for fold in results["labels"]) == 120
    assert r"\toprule" in (out / "results.tex").read_text()

    from genmix_transforms.evaluation import comparison

    monkeypatch.setattr(comparison, "train_and_test", lambda *args, **options: pytest.fail("trained again"))
    monkeypatch.setattr(comparison, "train_network", lambda *args, **options: pytest.fail("tuned again"))
    assert call(scripts, monkeypatch, capsys, *arguments).endswith(printed[printed.index("\n\n") :])
    assert kept <= (out / "fold-1" / "runs" / "dcgan" / "model.safetensors").stat().st_mtime_ns


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("side", [28, 64, 128])
def test_recipes_fit_the_patches(scripts, shapes_of, preset, side):
    patches = shapes_of(side)
    for name, recipe in scripts["table1_generators"].GENERATORS[preset](side).items():
        if name in scripts["table1_generators"].NEEDS_WEIGHTS or (preset in ("paper", "fast") and side == 128):
            continue
        at_size = patches if recipe.size is None else patches.resized(recipe.size)
        if preset in ("paper", "fast") and name != "dcgan":
            continue  # hundreds of millions of weights
        generator = recipe.untrained(at_size)
        assert generator.image_shape == (1, *at_size.images.shape[2:])
        assert recipe.training["steps"] > 0


@pytest.fixture
def shapes_of():
    from genmix_transforms.data import PatchDataset

    def make(side):
        images = torch.zeros(6, 1, side, side, dtype=torch.uint8)
        return PatchDataset(images=images, labels=torch.arange(6) % 3, classes=("a", "b", "c"))

    return make


def test_scratch_is_what_evaluate_does_unless_told_and_takes_the_generators_of_small(scripts):
    from genmix_transforms.evaluation import Protocol, preset

    protocol_of = scripts["table1"].protocol_of
    assert protocol_of("scratch") == Protocol(tune=preset("small").tune)
    assert protocol_of("small") == preset("small")
    generators = scripts["table1_generators"].GENERATORS
    assert set(generators) == set(PRESETS)
    assert generators["scratch"](64) == generators["small"](64)
    with pytest.raises(InputError, match="preset must be one of scratch, paper, small, fast, few-labels, got 'large'"):
        protocol_of("large")


def test_the_papers_stylegan_is_trained_as_published(scripts):
    from genmix_transforms.generators.stylegan.settings import StyleGANSettings

    recipe = scripts["table1_generators"].GENERATORS["paper"](64)["stylegan"]
    chosen = StyleGANSettings.of(recipe.training, name="test")
    published = StyleGANSettings.of({"preset": "paper", "mixed_precision": "bf16"}, name="test")
    assert chosen == published
    assert (chosen.gamma, chosen.r1_interval, chosen.augment) == (10.0, 1, ())


def test_what_needs_weights_stays_empty_without(scripts):
    choose = scripts["table1"].choose_recipes
    names = ["dcgan", "adm", "textual-inversion", "ti-standin"]
    recipes, missing = choose(names, preset="small", side=64, weights={})
    assert list(recipes) == ["dcgan"]
    assert list(missing) == ["adm", "textual-inversion", "ti-standin"]
    recipes, missing = choose(names, preset="small", side=64, weights={"adm": "runs/imagenet", "ti-standin": "ldm"})
    assert recipes["adm"].weights == "runs/imagenet"
    assert recipes["ti-standin"].network["base"] == "ldm"
    # A stand-in is a row of its own.
    assert list(missing) == ["textual-inversion"]


def test_generators_in_another_precision(scripts):
    choose = scripts["table1"].choose_recipes
    names = ["dcgan", "adm-scratch"]
    as_it_is, _ = choose(names, preset="small", side=64, weights={})
    assert [recipe.training.get("mixed_precision", "no") for recipe in as_it_is.values()] == ["bf16", "no"]
    for precision in ("no", "bf16"):
        changed, _ = choose(names, preset="small", side=64, weights={}, precision=precision)
        for name in names:
            expected = {**as_it_is[name].training, "mixed_precision": precision}
            assert changed[name] == replace(as_it_is[name], training=expected)


def test_what_is_asked_for_wrongly(scripts):
    choose = scripts["table1"].choose_recipes
    with pytest.raises(InputError, match="no generator 'gan' in the preset small; there are dcgan, stylegan"):
        choose(["gan"], preset="small", side=64, weights={})
    with pytest.raises(InputError, match="no generator 'vae'"):
        choose(["dcgan"], preset="small", side=64, weights={"vae": "x"})
    with pytest.raises(InputError, match="expected NAME=FOLDER, got 'runs/x'"):
        scripts["table1"].pairs(["runs/x"])


def test_processes_that_share_the_work_take_the_gpus_in_turn(scripts, monkeypatch):
    from genmix_transforms.generators.processes import own_device

    words = ["--data", "d.npz", "--processes", "3", "--figures", "--device", "cuda", "--seeds", "2"]
    shares = scripts["table1"].shared_among(3, words)
    common = ["--data", "d.npz", "--seeds", "2", "--no-progress"]
    assert [given for given, _ in shares] == [[*common, "--figures"], common, common]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken = [str(own_device(environment=environment)) for _, environment in shares]
    assert taken == ["cuda:0", "cuda:1", "cuda:0"]
    for device in ("cuda:1", "cpu"):  # whoever names one, means it
        ((given, _),) = scripts["table1"].shared_among(1, ["--processes", "1", "--device", device])
        assert given == ["--device", device, "--no-progress"]


def test_data_is_brought_to_what_the_preset_is_sized_for(scripts, tmp_path):
    images = np.zeros((6, 40, 40), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(6) % 2)

    def side(**options):
        options = {"size": None, "largest": None, "seed": 0, "group_key": None, **options}
        return scripts["table1_data"].open_data(str(tmp_path / "d.npz"), **options).images.shape[-1]

    assert side() == 40
    assert side(largest=64) == 40
    assert side(largest=32) == 32
    assert side(largest=32, size=48) == 48


def test_speed_has_a_row_for_each_rival(scripts, monkeypatch, capsys, data):
    arguments = ["--data", str(data), "--size", "16", "--steps", "2", "--batch-size", "4", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["evaluate_speed.py", *arguments, "--classifiers", "small", "--device", "cpu"])
    scripts["evaluate_speed"].main()
    printed = capsys.readouterr().out
    for heading in ("### small, baseline", "### small, mixup", "### small, classical"):
        assert heading in printed
    assert printed.count("| reference loop |") == 3
    assert printed.count("| side by side |") == 1
    assert "fails" not in printed


def cost(scripts, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["table1_cost.py", *map(str, arguments)])
    scripts["table1_cost"].main()
    return capsys.readouterr().out


def test_the_steps_of_a_table_are_counted(scripts, monkeypatch, capsys, data):
    asked = ["--data", data, "--folds", 2, "--seeds", 3, "--device", "cpu", "--counts", "--generators", "dcgan,adm"]
    printed = cost(scripts, monkeypatch, capsys, *asked, "--preset", "paper")
    # A DCGAN for each of two classes; 6 plain arms and 3 with the bank, 3 seeds and 5 trials, on 2 folds.
    assert "| dcgan | 2 | 140,000 |  |  |" in printed
    count = int(printed.split(" training images")[0])
    assert f"| classifier (vgg16) | {9 * 2 * 8} | {100 * -(-count // 8):,} |  |  |" in printed
    assert "adm is not counted: the paper's ADM is pre-trained" in printed
    assert "hours in all" not in printed


def test_the_time_of_a_table_is_that_of_its_steps(scripts, monkeypatch, capsys, data):
    asked = ["--data", data, "--seeds", 2, "--device", "cpu", "--generators", "dcgan", "--preset", "trial"]
    monkeypatch.setattr(scripts["table1_cost"], "seconds_a_step", lambda row, **options: 1.0)
    printed = cost(scripts, monkeypatch, capsys, *asked)
    # 4 steps of the DCGAN, and 9 arms, 2 seeds and 2 trials, 4 steps each.
    assert f"{(4 + 9 * 4 * 4) / 3600:.2f} hours in all" in printed
    with pytest.raises(InputError, match="--steps: expected two numbers, the second larger"):
        cost(scripts, monkeypatch, capsys, *asked, "--steps", "20,10")


def test_a_step_is_timed_without_what_is_done_once(scripts, monkeypatch):
    module = scripts["table1_cost"]
    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])

    def train(steps):
        clock[0] += 100 + 2 * 0.5 * steps

    row = module.Row(name="two networks", trainings=1, steps=10, train=train, networks=2)
    assert module.seconds_a_step(row, few=5, many=25, device=torch.device("cpu")) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("network", "multiplications"),
    [
        (torch.nn.Conv2d(4, 6, 3, padding=1, bias=False), 2 * 4 * 6 * 9 * 64),
        (torch.nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), 2 * 4 * 9 * 64),
        (torch.nn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False), 2 * 4 * 6 * 16 * 64),
        (torch.nn.Linear(8, 5, bias=False), 2 * 4 * 8 * 8 * 5),
    ],
)
def test_operations_are_those_of_the_textbook(scripts, network, multiplications):
    """Two a multiplication with its sum; a training step is the forward pass and two gradients as long."""
    images = torch.ones(2, 4, 8, 8, requires_grad=True)
    setting_up = torch.nn.Linear(64, 64)

    def train(steps):
        setting_up(torch.ones(3, 64))
        for _ in range(steps):
            network(images).sum().backward()

    row = scripts["table1_cost"].Row(name="one", trainings=1, steps=10, train=train)
    assert scripts["table1_cost"].operations_a_step(row, few=1, many=4) == 3 * 2 * multiplications


def test_the_operations_of_a_table_are_those_of_its_steps(scripts, monkeypatch, capsys, data):
    asked = ["--data", data, "--seeds", 2, "--device", "cpu", "--generators", "dcgan", "--preset", "trial"]
    monkeypatch.setattr(scripts["table1_cost"], "operations_a_step", lambda row, **options: 25e12)
    printed = cost(scripts, monkeypatch, capsys, *asked, "--operations")
    assert "| dcgan | 1 | 4 | 25000.0 | 0.1 |" in printed
    assert "| 36 | 4 | 25000.0 | 3.6 |" in printed
    assert "hours" not in printed


def test_figures_are_drawn_with_what_was_tuned(scripts, monkeypatch, shapes_of, tmp_path):
    """Each shown arm's classifier is trained once more, with the value that its run of seed 0 had."""
    asked = {}
    module = scripts["table1"]

    def pretend(arm, splits, setting, seed, *, device):
        asked[arm] = (setting.protocol.weight_decay, setting.protocol.tune, seed)
        return torch.nn.Module()

    class Run:
        arm, fold, seed, knob = "baseline", 0, 0, 0.05

    class FakeResults:
        arms, runs = ("baseline",), (Run,)

    monkeypatch.setattr(
        module, "train_network", lambda *args, **options: type("T", (), {"network": pretend(*args, **options)})
    )
    monkeypatch.setattr(module, "feature_points", lambda *args, **options: "points")
    saved = {}
    monkeypatch.setattr(module, "save_figures", lambda results, folder, **options: saved.update(options, folder=folder))
    splits = (shapes_of(16),) * 3
    trial = replace(module.protocol_of("trial"), weight_decay=0.01)
    module.draw_figures(FakeResults, splits, {}, trial, out=tmp_path, device="cpu")
    assert asked == {"baseline": (0.05, 0, 0)}
    assert saved == {"points": {"baseline": "points"}, "run": None, "folder": tmp_path / "figures"}
