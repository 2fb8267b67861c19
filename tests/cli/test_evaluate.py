"""``genmix evaluate``."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from genmix_transforms import SyntheticBank
from genmix_transforms.cli.main import main
from genmix_transforms.data import open_dataset

Genmix = Callable[..., Any]
SHORT = "--seeds 2 --steps 3 --batch-size 8 --device cpu".split()


def save_bank(folder: Path, *, classes: tuple[str, ...] = ("bright", "dark"), size: int = 20) -> Path:
    images = torch.randint(0, 256, (10, 1, size, size), dtype=torch.uint8)
    SyntheticBank(images, torch.arange(10) % len(classes), classes=classes).save(folder)
    return folder


def test_the_table_and_the_files(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    bank = save_bank(tmp_path / "bank")
    outcome = genmix("-q", "evaluate", "--data", discs, "--bank", bank, "--out", tmp_path / "results", *SHORT)
    assert outcome.code == 0, outcome.err
    for word in ("arm", "Acc", "F1", "bright", "dark", "sens/spec"):
        assert word in outcome.out
    rows = [line.split()[0] for line in outcome.out.splitlines() if line.split()]
    arms = ["baseline", "mixup", "blend", "genmix"]
    assert [row for row in rows if row in arms][:4] == arms
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert results["protocol"]["steps"] == 3
    assert len((tmp_path / "results/results.csv").read_text().splitlines()) == 1 + 4 * 2


def test_options_become_the_protocols(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    bank = save_bank(tmp_path / "bank")
    options = {
        "alpha": 0.5,
        "pairing": "same",
        "real_partner": 0.25,
        "blend_share": 0.3,
        "mixup_alpha": 0.4,
        "learning_rate": 0.01,
        "batch_size": 6,
        "steps": 2,
        "classifier": "small",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    outcome = genmix(
        *["-q", "evaluate", "--data", discs, "--bank", bank, "--out", tmp_path / "results", "--arms", "genmix"],
        *[*arguments, "--flips", "--seeds", 1, "--device", "cpu"],
    )
    assert outcome.code == 0, outcome.err
    protocol = json.loads((tmp_path / "results/results.json").read_text())["protocol"]
    assert {name: protocol[name] for name in options} == options
    assert protocol["flips"] is True


def save_patches(file: Path, *, count: int = 60) -> Path:
    """Patches of 20 pixels without a split of their own."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = rng.integers(0, 100, (count, 20, 20)) + 100 * labels[:, None, None]
    np.savez(file, images=images.astype(np.uint8), labels=labels, label_names=["bright", "dark"])
    return file


def test_several_banks_by_name(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    banks = [save_bank(tmp_path / name) for name in ("one", "two")]
    outcome = genmix(
        *["-q", "evaluate", "--data", discs, "--out", tmp_path / "results", "--arms", "baseline,blend,genmix:b"],
        *["--bank", f"a={banks[0]}", "--bank", f"b={banks[1]}", *SHORT],
    )
    assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert results["order"] == ["baseline", "blend:a", "blend:b", "genmix:b"]
    assert sorted(results["banks"]) == ["a", "b"]


def test_options_by_arm(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    bank = save_bank(tmp_path / "bank")
    outcome = genmix(
        *["-q", "evaluate", "--data", discs, "--out", tmp_path / "results", "--bank", f"a={bank}", "--seeds", 1],
        *["--arms", "baseline,blend@0.25,genmix@pairing=all", "--steps", 1, "--batch-size", 4, "--device", "cpu"],
    )
    assert outcome.code == 0, outcome.err
    order = json.loads((tmp_path / "results/results.json").read_text())["order"]
    pairings = ("any", "balanced", "same", "other", "inverse")
    assert order == ["baseline", "blend:a@0.25", *(f"genmix:a@pairing={pairing}" for pairing in pairings)]
    assert "genmix:a@pairing=inverse" in outcome.out


def test_a_recipe_beside_the_asked_arms(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    asked = [
        *["-q", "evaluate", "--data", discs, "--out", tmp_path / "results", "--arms", "baseline", "--preset"],
        *["few-labels", "--recipe", "mixup,repeat", "--budget", 9, "--steps", 2, "--seeds", 1, "--device", "cpu"],
    ]
    planned = genmix(*asked, "--dry-run")
    assert planned.code == 0, planned.err
    assert "at most 9 trainings to choose a recipe among mixup, repeat" in planned.out
    assert not (tmp_path / "results").exists()
    outcome = genmix(*asked)
    assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "results/results.json").read_text())
    chosen = results["recipe"]
    assert chosen["sentence"] in outcome.out
    assert [one["arm"] for one in chosen["candidates"]] == ["baseline", "mixup", "repeat"]
    assert results["order"] == list(dict.fromkeys(["baseline", chosen["arm"]]))
    assert f"The recipe is the row {chosen['arm']}." in outcome.out
    assert json.loads((tmp_path / "results/recipe.json").read_text())["arm"] == chosen["arm"]


def test_folds_each_with_its_bank(genmix: Genmix, tmp_path: Path) -> None:
    data = save_patches(tmp_path / "patches.npz")
    for number in range(3):
        save_bank(tmp_path / f"fold-{number}")
    outcome = genmix(
        *["-q", "evaluate", "--data", data, "--out", tmp_path / "results", "--arms", "baseline,genmix"],
        *["--folds", 3, "--bank", f"x={tmp_path}/fold-{{fold}}", *SHORT],
    )
    assert outcome.code == 0, outcome.err
    assert "3 folds with seed 0" in outcome.out
    assert "fold 2: 30 to train" in outcome.out
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert results["order"] == ["baseline", "genmix:x"]
    assert sorted((run["arm"], run["fold"], run["seed"]) for run in results["runs"]) == [
        (arm, fold, seed) for arm in ("baseline", "genmix:x") for fold in range(3) for seed in range(2)
    ]
    assert sum(len(fold) for fold in results["labels"]) == 60


def test_a_preset_and_what_changes_it(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    outcome = genmix(
        *["-q", "evaluate", "--data", discs, "--out", tmp_path / "results", "--arms", "baseline,mixup"],
        *["--preset", "paper", "--classifier", "small", "--weights", "none", "--tune", 2, *SHORT],
    )
    assert outcome.code == 0, outcome.err
    protocol = json.loads((tmp_path / "results/results.json").read_text())["protocol"]
    # The paper's, but for what was said.
    assert (protocol["learning_rate"], protocol["schedule"], protocol["patience"]) == (0.0002, "constant", 20)
    assert (protocol["classifier"], protocol["weights"], protocol["tune"]) == ("small", None, 2)
    assert (protocol["steps"], protocol["epochs"], protocol["batch_size"]) == (3, None, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bank", "BANK", "--bank", "BANK"], "each of several banks needs its own name: --bank NAME=FOLDER"),
        (["--bank", "a=BANK", "--bank", "a=BANK"], "each of several banks needs its own name"),
        (["--bank", "a:b=BANK"], "a bank's name must be a word without a colon"),
        (["--bank", "a=BANK", "--folds", "3"], "give --bank a=FOLDER with {fold} in it"),
        (["--bank", "BANK", "--folds", "2"], "2 folds need a bank each"),
        (["--folds", "0"], "--folds must be a whole number, from 1 to 1000, got 0"),
        (["--preset", "large"], "preset must be one of scratch, paper, small, fast, few-labels, got 'large'"),
        (["--tune", "1", "--arms", "baseline"], "tune must be 0"),
        (["--recipe", "auto", "--arms", "baseline", "--folds", "2"], "a recipe is chosen for one split"),
        (["--recipe", "auto", "--arms", "baseline", "--budget", "10"], "give 11 at least (--budget 11)"),
        (["--recipe", "baseline", "--arms", "baseline"], "nothing to choose from"),
        (["--recipe", "blend@0.1", "--arms", "baseline"], "the arm 'blend@0.1' needs a bank"),
        (["--weights", "none.pth", "--classifier", "resnet18", "--arms", "baseline"], "no such file of weights"),
    ],
)
def test_banks_and_presets_that_cannot_be(
    options: list[str], message: str, genmix: Genmix, discs: Path, tmp_path: Path
) -> None:
    bank = str(save_bank(tmp_path / "bank"))
    outcome = genmix(
        *["-q", "evaluate", "--data", discs, "--out", tmp_path / "results", "--device", "cpu"],
        *[option.replace("BANK", bank) for option in options],
    )
    assert outcome.code == 2, outcome.err
    assert message in " ".join(outcome.err.split())
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "0"], "evaluate: alpha must be positive, got 0"),
        (["--alpha", "-1"], "evaluate: alpha must be positive, got -1"),
        (["--arms", "baseline,genmax"], "no arm 'genmax'; there are baseline, mixup"),
        (["--arms", "mixup,mixup"], "every arm once, got mixup, mixup"),
        (["--seeds", "0"], "seeds must be a whole number, from 1 to 10000, got 0"),
        (["--seeds", "1000000000"], "seeds must be a whole number, from 1 to 10000, got 1000000000"),
        (["--folds", "1000000000"], "--folds must be a whole number, from 1 to 1000"),
        (["--batch-size", "1000000000"], "batch_size must be a whole number, from 2 to 65536, got 1000000000"),
        (["--input-size", "1000000000"], "input_size must be a whole number, from 16 to 4096"),
        (["--learning-rate", "1e9"], "learning_rate must be above 0 and at most 10"),
        (["--pairing", "random"], "'any', 'balanced', 'same', 'other', 'inverse'"),
        (["--classifier", "resnet19"], "no classifier 'resnet19'"),
        (["--weights", "none.pth", "--classifier", "resnet18"], "no such file of weights"),
        (["--weights", "imagenet"], "the classifier 'small' has no weights of ImageNet"),
        (["--arms", "baseline,blend@1.5"], "the arm 'blend@1.5': blend_share must be above 0 and at most 1"),
        (["--arms", "baseline,genmix@pairng=same"], "no such option: pairng; did you mean pairing?"),
        (["--arms", "blend,blend@0.5"], "'blend' and 'blend@0.5' are the same arm"),
        (["--arms", "genmix"], "needs a bank"),
        (["--preset", "large"], "preset must be one of"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_what_the_options_have_wrong_is_said_before_the_data_is_read(
    options: list[str], message: str, genmix: Genmix, tmp_path: Path
) -> None:
    arms = [] if "--arms" in options else ["--arms", "baseline"]
    outcome = genmix("-q", "evaluate", "--data", "no-such-data.npz", "--out", tmp_path / "results", *arms, *options)
    assert outcome.code == 2, outcome.err
    assert message in " ".join(outcome.err.replace("\u2502", " ").split())
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("bank", "message"), [({"classes": ("bright", "grey")}, "grey"), ({"size": 16}, "16"), (None, "needs a bank")]
)
def test_bad_banks_before_any_work(
    bank: dict[str, Any] | None, message: str, genmix: Genmix, discs: Path, tmp_path: Path
) -> None:
    with_bank = [] if bank is None else ["--bank", save_bank(tmp_path / "bank", **bank)]
    outcome = genmix("-q", "evaluate", "--data", discs, *with_bank, "--out", tmp_path / "results", "--device", "cpu")
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert not (tmp_path / "results/runs").exists()


def test_a_bank_whose_generator_saw_the_test_part_is_refused(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    patches = open_dataset(discs)
    bank = SyntheticBank(
        patches.images, patches.labels, classes=patches.classes, provenance={"training_set": patches.training_set()}
    )
    bank.save(tmp_path / "bank")
    outcome = genmix(
        "-q", "evaluate", "--data", discs, "--bank", tmp_path / "bank", "--out", tmp_path / "results", *SHORT
    )
    assert outcome.code == 2, outcome.err
    assert "its generator was trained on" in outcome.err
    assert "--split split.csv" in outcome.err
    assert not (tmp_path / "results").exists()


def test_rare_settings_are_set_by_name_and_not_in_the_help(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    outcome = genmix(
        *["-q", "evaluate", "--data", discs, "--out", tmp_path / "results", "--arms", "baseline", "--seeds", 1],
        *["--batch-size", 8, "--set", "epochs=1", "--set", "patience=4", "--set", "precision=bf16"],
        *["--set", "weight_decay=0.5"],
    )
    assert outcome.code == 0, outcome.err
    protocol = json.loads((tmp_path / "results/results.json").read_text())["protocol"]
    asked = {"epochs": 1, "patience": 4, "precision": "bf16", "weight_decay": 0.5}
    assert {name: protocol[name] for name in asked} == asked
    told = genmix("evaluate", "--help").out
    assert "--learning-rate" in told
    assert "--weight-decay" not in told


def test_two_seeds_are_said_to_be_too_few_before_the_work_and_beside_the_table(
    genmix: Genmix, discs: Path, tmp_path: Path
) -> None:
    outcome = genmix("-q", "evaluate", "--data", discs, "--arms", "baseline", "--out", tmp_path / "results", *SHORT)
    assert outcome.code == 0, outcome.err
    for text in (outcome.err, outcome.out, (tmp_path / "results/results.md").read_text()):
        assert "2 seeds are too few to know how much trainings of one arm differ" in " ".join(text.split())
        assert "--seeds 5" in " ".join(text.split())


def _run_in_the_background(arguments: list[str], said: Path) -> None:
    """The command as a shell runs it with ``&`` in a script: Ctrl-C is ignored."""
    with open(said, "w") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.argv = ["genmix", *arguments]
    main()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_in_the_background_it_can_be_stopped_and_gone_on_with(
    sign: signal.Signals, discs: Path, tmp_path: Path
) -> None:
    out, said = tmp_path / "results", tmp_path / "said.txt"
    arguments = ["-q", "evaluate", "--data", str(discs), "--out", str(out)]
    arguments += "--arms baseline --seeds 400 --steps 20 --batch-size 4 --device cpu".split()
    # Forked: an interpreter's start takes longer than all the rest.
    process = multiprocessing.get_context("fork").Process(target=_run_in_the_background, args=(arguments, said))
    process.start()
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("runs/*.json")) and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.is_alive(), said.read_text()
        assert process.pid is not None
        os.kill(process.pid, sign)
        process.join(timeout=120)
        assert process.exitcode == 128 + sign, said.read_text()
    finally:
        process.kill()
        process.join()
    assert "stopped; run the same command again to go on" in said.read_text()
    assert "Traceback" not in said.read_text()
    kept = list(out.glob("runs/*.json"))
    assert 0 < len(kept) < 400
    assert all(json.loads(path.read_text())["arm"] == "baseline" for path in kept)


def test_a_dry_run_checks_and_estimates_and_leaves_nothing(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    bank = save_bank(tmp_path / "bank")
    asked = ["evaluate", "--data", discs, "--bank", bank, "--out", tmp_path / "results", "--preset", "small"]
    asked += ["--classifier", "small", "--weights", "none", "--batch-size", 8, "--seeds", 3, "--device", "cpu"]
    outcome = genmix("-q", *asked, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "24 trainings of 150 steps, 12 of them to tune: about" in outcome.out
    assert "3 seeds are too few" in outcome.out
    assert not (tmp_path / "results").exists()
    (tmp_path / "again.yaml").write_text(outcome.out)
    settings = yaml.safe_load(outcome.out)
    wanted = {"preset": "small", "classifier": "small", "weights": "none", "learning_rate": 0.0003, "batch_size": 8}
    assert {name: settings[name] for name in wanted} == wanted
    again = genmix("-q", "evaluate", "--config", tmp_path / "again.yaml", "--dry-run")
    assert again.code == 0, again.err
    assert yaml.safe_load(again.out) == settings


def test_a_dry_run_refuses_what_the_run_would(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    bank = save_bank(tmp_path / "bank", size=16)
    outcome = genmix("evaluate", "--data", discs, "--bank", bank, "--out", tmp_path / "results", "--dry-run")
    assert outcome.code == 2
    assert "resize one to the other" in outcome.err


def test_the_split_comes_from_a_file(genmix: Genmix, tmp_path: Path) -> None:
    data = save_patches(tmp_path / "patches.npz")
    genmix("-q", "split", data, "--out", tmp_path / "split.csv", "--seed", 3)
    asked = ["-q", "evaluate", "--data", data, "--arms", "baseline", *SHORT]
    for name, how in (("file", ["--split", tmp_path / "split.csv"]), ("seed", ["--split-seed", 3])):
        outcome = genmix(*asked, "--out", tmp_path / name, *how)
        assert outcome.code == 0, outcome.err
    one, other = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("file", "seed"))
    assert one["data"]["fingerprints"] == other["data"]["fingerprints"]


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    """PNGs and a CSV with a column a class; an image may have both, or none."""
    rng = np.random.default_rng(0)
    rows = ["path,split,patient,Effusion,Nodule"]
    (tmp_path / "chest").mkdir()
    for number in range(48):
        effusion, nodule = number % 2, number // 2 % 2
        pixels = rng.integers(0, 60, (20, 20)) + 90 * effusion
        pixels[8:12, 8:12] += 90 * nodule
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "chest" / f"{number}.png")
        rows.append(
            f"{number}.png,{('train', 'train', 'val', 'test')[number // 12]},p{number // 4},{effusion},{nodule}"
        )
    (tmp_path / "chest" / "chest.csv").write_text("\n".join(rows))
    return tmp_path / "chest" / "chest.csv"


def test_several_labels_an_image(genmix: Genmix, chest: Path, tmp_path: Path) -> None:
    bank = save_bank(tmp_path / "bank", classes=("Nodule", "Effusion"))  # by name, in whatever order
    asked = ["-q", "evaluate", "--data", chest, "--bank", bank, "--out", tmp_path / "results"]
    outcome = genmix(*asked, "--arms", "baseline,blend,genmix", *SHORT)
    assert outcome.code == 0, outcome.err
    for word in ("F1", "AUC", "Effusion", "Nodule", "sens/spec/AUC"):
        assert word in outcome.out
    rows = {line.split()[0]: line for line in outcome.out.splitlines() if line.split()}
    assert {"baseline", "blend", "genmix"} <= rows.keys()
    summary = (tmp_path / "results/summary.csv").read_text()
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert len(results["runs"]) == 6
    for name in ("macro_f1", "auc_Effusion", "auc_Nodule"):
        (line,) = [line for line in summary.splitlines() if line.startswith(f"genmix,{name},")]
        assert 0 <= float(line.split(",")[2]) <= 1


def test_an_arm_that_goes_by_the_one_class_of_an_image(genmix: Genmix, chest: Path, tmp_path: Path) -> None:
    bank = save_bank(tmp_path / "bank", classes=("Effusion", "Nodule"))
    asked = ["-q", "evaluate", "--data", chest, "--bank", bank, "--out", tmp_path / "results", *SHORT]
    outcome = genmix(*asked, "--arms", "baseline,genmix@pairing=same")
    assert outcome.code == 2
    assert "here an image has several labels" in outcome.err
    assert not (tmp_path / "results").exists()
