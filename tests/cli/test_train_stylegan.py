"""``genmix train stylegan``."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genmix_transforms import SyntheticBank
from genmix_transforms.generators import PerClass, StyleGAN, load_generator

Genmix = Callable[..., Any]
TRAIN = ["-q", "train", "stylegan"]


def different(count: int, height: int, width: int) -> np.ndarray:
    """Images that differ: copies of one would stay together in a split."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, height, width))


def test_a_run_and_a_bank(genmix: Genmix, discs: Path, tiny_stylegan_options: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = genmix(*TRAIN, "--data", discs, "--size", 16, "--out", run, *tiny_stylegan_options)
    assert outcome.code == 0, outcome.err
    assert "24 to train (bright 12, dark 12)" in outcome.out
    proposed = shlex.split(outcome.out.splitlines()[-1])
    assert proposed == ["genmix", "fill", str(run), "--out", "banks/run"]
    generator = load_generator(run)
    assert isinstance(generator, StyleGAN)
    assert (generator.config["fmap_base"], generator.config["fmap_max"]) == (64, 8)
    assert genmix("-q", *proposed[1:3], "--out", tmp_path / "bank", "--device", "cpu").code == 0
    bank = SyntheticBank.load(tmp_path / "bank")
    assert bank.class_counts == {"bright": 12, "dark": 12}
    assert bank.images.shape == (24, 1, 16, 16)


def test_options_become_the_python_arguments(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    options = (
        "--steps 2 --batch-size 6 --learning-rate 0.01 --gamma 2 --r1-interval 4 --style-mixing 0.5 "
        "--start-resolution 16 --growing-share 0.5 --minibatch-group 3 --augment cutout --augment-target 0.5 "
        "--augment-ramp 1000 --mirror --ema-half-life 50 --seed 9 --fmap-base 32 --fmap-max 4 --latent-size 6 "
        "--mapping-layers 1 --conditioning concatenate --psi 0.5 --cutoff 3 --mixed-precision bf16"
    )
    outcome = genmix(
        *[*TRAIN, "--data", discs, "--size", 16, "--out", tmp_path / "run", "--device", "cpu"],
        *[*options.split(), "--checkpoint-every", 6, "--all-data"],
    )
    assert outcome.code == 0, outcome.err
    generator = load_generator(tmp_path / "run")
    record, config = generator.provenance, generator.config
    assert config["classes"] == ["bright", "dark"]
    trained = record["options"].pop("config")
    assert trained == {name: value for name, value in config.items() if name not in ("psi", "cutoff")}
    expected = {"resolution": 16, "channels": 1, "fmap_base": 32, "fmap_max": 4, "latent_size": 6, "mapping_layers": 1}
    expected |= {"conditioning": "concatenate", "psi": 0.5, "cutoff": 3, "bits": 8}
    assert {key: config[key] for key in expected} == expected
    assert record["options"] == {
        "kind": "stylegan",
        "learning_rate": 0.01,
        "gamma": 2.0,
        "r1_interval": 4,
        "style_mixing": 0.5,
        "start_resolution": 16,
        "growing_share": 0.5,
        "minibatch_group": 3,
        "augment": ["cutout"],
        "augment_target": 0.5,
        "augment_ramp": 1000.0,
        "mirror": True,
        "ema_half_life": 50.0,
    }
    assert (record["seed"], record["batch_size"], record["images_seen"]) == (9, 6, 12)
    assert record["mixed_precision"] == "bf16"
    assert record["training_set"]["class_counts"] == {"bright": 24, "dark": 24}
    assert len(list((tmp_path / "run/samples").iterdir())) == 2


def test_the_papers_preset_and_way(
    genmix: Genmix, discs: Path, tiny_stylegan_options: list[str], tmp_path: Path
) -> None:
    options = [option for option in tiny_stylegan_options if option not in ("--batch-size", "4", "--steps")]
    outcome = genmix(
        *[*TRAIN, "--data", discs, "--size", 16, "--out", tmp_path / "run", *options],
        *["--preset", "paper", "--steps", 1, "--per-class"],
    )
    assert outcome.code == 0, outcome.err
    generator = load_generator(tmp_path / "run")
    assert isinstance(generator, PerClass)
    for member in generator.members:
        assert member.provenance["options"]["learning_rate"] == 0.001
        assert member.provenance["options"]["gamma"] == 10.0
        assert member.provenance["options"]["r1_interval"] == 1
        assert member.provenance["options"]["augment"] == []
        assert member.provenance["batch_size"] == 8


def test_fine_tuning(genmix: Genmix, discs: Path, tiny_stylegan_options: list[str], tmp_path: Path) -> None:
    data = ["--data", discs, "--size", 16, *tiny_stylegan_options]
    assert genmix(*TRAIN, *data, "--out", tmp_path / "first").code == 0
    first = load_generator(tmp_path / "first")
    tuned = genmix(*TRAIN, *data, "--out", tmp_path / "tuned", "--init", tmp_path / "first", "--seed", 3)
    assert tuned.code == 0, tuned.err
    provenance = load_generator(tmp_path / "tuned").provenance
    assert provenance["started_from"]["weights"] == first.weights_hash
    assert provenance["options"]["start_resolution"] == 16
    refused = genmix(*TRAIN, *data, "--out", tmp_path / "no", "--init", tmp_path / "first", "--fmap-base", 4096)
    assert refused.code == 2
    assert "its weights have fmap_base 64, and 4096 was asked for" in refused.err
    varied = genmix(*TRAIN, *data, "--out", tmp_path / "psi", "--init", tmp_path / "first", "--psi", 0.5)
    assert varied.code == 0, varied.err
    assert load_generator(tmp_path / "psi").config["psi"] == 0.5
    wide = ["--data", discs, "--size", 32, "--channels", 3, *tiny_stylegan_options, "--init", tmp_path / "first"]
    assert genmix(*TRAIN, *wide, "--out", tmp_path / "wide").code == 0
    adapted = load_generator(tmp_path / "wide")
    assert adapted.image_shape == (3, 32, 32)
    assert adapted.provenance["options"]["start_resolution"] == 16  # grows from where the weights stand


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "oblong.npz"], "16x32, and a StyleGAN draws squares: give --size"),
        (["--data", "odd.npz", "--batch-size", 6], "groups of 4 do not divide"),
        (["--data", "odd.npz", "--size", 8], "resolution must be a whole number, from 9 to 1024, got 8"),
        (["--data", "odd.npz", "--preset", "best"], "preset must be one of stylegan, paper"),
        (["--data", "odd.npz", "--augment", "blur"], "got 'blur'"),
        (["--data", "odd.npz", "--init", "nowhere"], "nowhere: no such folder"),
        (["--data", "odd.npz", "--init", "x", "--per-class"], "--init or --per-class, not both"),
    ],
)
def test_bad_input_is_said_before_any_work(
    arguments: list[object],
    message: str,
    genmix: Genmix,
    tiny_stylegan_options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = np.arange(40) % 2
    np.savez("odd.npz", images=different(40, 28, 28), labels=labels)
    np.savez("oblong.npz", images=different(40, 16, 32), labels=labels)
    outcome = genmix(*TRAIN, *tiny_stylegan_options, *arguments, "--out", tmp_path / "run")
    assert outcome.code == 2
    said = [line for line in outcome.err.splitlines() if not line.startswith("warning:")]
    assert len(said) == 1, outcome.err
    assert message in said[0]
    assert not (tmp_path / "run").exists()


def test_padding_is_said_aloud(genmix: Genmix, discs: Path, tiny_stylegan_options: list[str], tmp_path: Path) -> None:
    outcome = genmix(*TRAIN, "--data", discs, "--out", tmp_path / "run", *tiny_stylegan_options, "--steps", 1)
    assert outcome.code == 0, outcome.err
    assert "20 pixels are no power of two: trained at 32 on mirrored borders" in outcome.err
    assert load_generator(tmp_path / "run").image_shape == (1, 20, 20)


def test_words_that_are_none_are_refused_with_those_there_are(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    outcome = genmix(*TRAIN, "--data", discs, "--out", tmp_path / "run", "--conditioning", "add")
    assert outcome.code == 2
    assert "'add' is not one of 'multiply', 'concatenate'" in outcome.err
    assert not (tmp_path / "run").exists()
