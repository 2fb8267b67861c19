"""``genmix train dcgan``."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genmix_transforms.generators import DCGAN, PerClass, load_generator

Genmix = Callable[..., Any]


def different(count: int, height: int, width: int) -> np.ndarray:
    """Images that differ: copies of one would stay together in a split."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, height, width))


def test_a_run(genmix: Genmix, discs: Path, tiny_options: list[str], tmp_path: Path) -> None:
    outcome = genmix("-q", "train", "dcgan", "--data", discs, "--size", 16, "--out", tmp_path / "run", *tiny_options)
    assert outcome.code == 0, outcome.err
    assert "20x20" in outcome.out
    assert "to 16x16" in outcome.out
    assert "split with seed 0: 24 to train (bright 12, dark 12), 12 to validate, 12 to test" in outcome.out
    assert f"genmix fill {tmp_path / 'run'}" in outcome.out  # what to do next
    generator = load_generator(tmp_path / "run")
    assert isinstance(generator, DCGAN)
    assert generator.config["base_width"] == 4
    assert generator.classes == ("bright", "dark")
    assert generator.provenance["training_set"]["class_counts"] == {"bright": 12, "dark": 12}


def test_run_again_it_has_nothing_to_do_and_other_settings_are_refused(
    genmix: Genmix, discs: Path, tiny_options: list[str], tmp_path: Path
) -> None:
    command = ["-q", "train", "dcgan", "--data", discs, "--size", 16, "--out", tmp_path / "run", *tiny_options]
    assert genmix(*command).code == 0
    before = (tmp_path / "run/model.safetensors").read_bytes()
    assert genmix(*command).code == 0
    assert (tmp_path / "run/model.safetensors").read_bytes() == before
    refused = genmix(*command, "--seed", 5)
    assert refused.code == 2
    assert "holds a run with other settings (seed: 0 there, 5 now)" in refused.err
    assert genmix(*command, "--seed", 5, "--restart").code == 0
    assert (tmp_path / "run/model.safetensors").read_bytes() != before


def test_options_become_the_python_arguments(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    options = (
        "--steps 2 --batch-size 6 --learning-rate 0.01 --augment cutout --ema-half-life 50 --seed 9 --base-width 2"
    )
    outcome = genmix(
        *["-q", "train", "dcgan", "--data", discs, "--size", 16, "--out", tmp_path / "run", "--device", "cpu"],
        *[*options.split(), "--mixed-precision", "bf16", "--checkpoint-every", 6, "--all-data"],
    )
    assert outcome.code == 0, outcome.err
    record = load_generator(tmp_path / "run").provenance
    assert record["options"] == {
        "kind": "dcgan",
        "config": {
            "classes": ["bright", "dark"],
            "resolution": 16,
            "channels": 1,
            "base_width": 2,
            "latent_size": 100,
            "bits": 8,
        },
        "learning_rate": 0.01,
        "betas": [0.5, 0.999],
        "augment": ["cutout"],
        "ema_half_life": 50.0,
    }
    assert (record["seed"], record["batch_size"], record["images_seen"]) == (9, 6, 12)
    assert record["mixed_precision"] == "bf16"
    assert record["training_set"]["class_counts"] == {"bright": 24, "dark": 24}
    assert len(list((tmp_path / "run/samples").iterdir())) == 2


def test_the_papers_preset_and_way(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    outcome = genmix(
        *["-q", "train", "dcgan", "--data", discs, "--size", 16, "--out", tmp_path / "run", "--device", "cpu"],
        *["--preset", "paper", "--steps", 2, "--base-width", 2, "--per-class"],
    )
    assert outcome.code == 0, outcome.err
    generator = load_generator(tmp_path / "run")
    assert isinstance(generator, PerClass)
    for member in generator.members:
        assert member.provenance["options"]["learning_rate"] == 0.001
        assert member.provenance["batch_size"] == 8


def test_another_split_seed_another_training_set(
    genmix: Genmix, discs: Path, tiny_options: list[str], tmp_path: Path
) -> None:
    prints = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        options = ["--size", 16, "--split-seed", seed, "--out", out, *tiny_options]
        assert genmix("-q", "train", "dcgan", "--data", discs, *options).code == 0
        prints.append(load_generator(out).provenance["training_set"]["fingerprint"])
    assert prints[0] != prints[1]


def make_bad_inputs(folder: Path) -> dict[str, tuple[list[object], str]]:
    """What users get wrong, and what they are told."""
    (folder / "empty").mkdir()
    for name in ("one/cyst", "sizes/cyst", "sizes/metastasis", "corrupt/cyst", "corrupt/metastasis"):
        (folder / name).mkdir(parents=True)
    Image.new("L", (16, 16)).save(folder / "one/cyst/a.png")
    Image.new("L", (16, 16)).save(folder / "sizes/cyst/a.png")
    Image.new("L", (20, 16)).save(folder / "sizes/metastasis/b.png")
    Image.new("L", (16, 16)).save(folder / "corrupt/cyst/a.png")
    (folder / "corrupt/metastasis/broken.png").write_bytes((folder / "corrupt/cyst/a.png").read_bytes()[:40])
    (folder / "labels.csv").write_text("path,label\nnone.png,cyst\nnil.png,metastasis\n")
    np.savez(folder / "objects.npz", images=np.array([{"a": 1}], dtype=object), labels=np.array([0]))
    np.savez(folder / "odd.npz", images=different(8, 28, 28), labels=np.arange(8) % 2)
    np.savez(folder / "oblong.npz", images=different(8, 16, 32), labels=np.arange(8) % 2)
    return {
        "no such path": (["--data", folder / "nowhere"], "no such file or folder"),
        "an empty folder": (["--data", folder / "empty"], "empty"),
        "one class": (["--data", folder / "one"], "at least two"),
        "different sizes": (["--data", folder / "sizes"], "--size"),
        "images that do not exist": (["--data", folder / "labels.csv"], "none.png"),
        "objects": (["--data", folder / "objects.npz"], "never unpickled"),
        "a corrupt image": (["--data", folder / "corrupt"], "broken.png"),
        "no power of two": (["--data", folder / "odd.npz"], "power of two from 16 to 256, got 28"),
        "no power of two asked for": (["--data", folder / "odd.npz", "--size", 48], "got 48; bring the images to 64"),
        "no square": (["--data", folder / "oblong.npz"], "16x32, and a DCGAN draws squares: give --size"),
        "no such augmentation": (["--data", folder / "odd.npz", "--size", 32, "--augment", "blur"], "got 'blur'"),
        "a negative seed": (["--data", folder / "odd.npz", "--size", 32, "--seed", -1], "seed must be a whole number"),
        "a negative split seed": (
            ["--data", folder / "odd.npz", "--size", 32, "--split-seed", -1],
            "split's seed must be",
        ),
        "no such device": (["--data", folder / "odd.npz", "--size", 32, "--device", "gpu"], "no device 'gpu' here"),
        "no such preset": (["--data", folder / "odd.npz", "--size", 32, "--preset", "best"], "one of dcgan, paper"),
    }


def test_bad_input_is_said_before_any_work(genmix: Genmix, tmp_path: Path) -> None:
    for what, (arguments, message) in make_bad_inputs(tmp_path).items():
        outcome = genmix("-q", "train", "dcgan", "--device", "cpu", *arguments, "--out", tmp_path / "run")
        assert outcome.code == 2, what
        said = [line for line in outcome.err.splitlines() if not line.startswith("warning:")]
        assert len(said) == 1, (what, outcome.err)
        assert message in said[0], what
        assert not (tmp_path / "run").exists(), what


def test_the_command_it_proposes_can_be_pasted(
    genmix: Genmix, discs: Path, tiny_options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "ein ö weg"
    outcome = genmix("-q", "train", "dcgan", "--data", discs, "--size", 16, "--out", out, *tiny_options)
    assert shlex.split(outcome.out.splitlines()[-1]) == ["genmix", "fill", str(out), "--out", "banks/ein ö weg"]


@pytest.mark.parametrize(("option", "value"), [("--fit", "stretch"), ("--mixed-precision", "fp16")])
def test_choices_are_listed(option: str, value: str, genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    outcome = genmix("train", "dcgan", "--data", discs, "--out", tmp_path / "run", option, value)
    assert outcome.code == 2
    assert "is not one of" in outcome.err
