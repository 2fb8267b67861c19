"""``genmix train adm`` and ``genmix train adm-classifier``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.generators import ADM, load_generator
from genmix_transforms.generators.adm import NoisyClassifier

Genmix = Callable[..., Any]

FLAGS = {
    "image_size": 8, "num_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "attention_resolutions": [4],
    "num_head_channels": 32, "learn_sigma": True, "class_cond": True, "diffusion_steps": 30,
}  # fmt: skip
TINY = "--size 8 --steps 2 --batch-size 4 --device cpu".split()


@pytest.fixture
def flags(tmp_path: Path) -> Path:
    file = tmp_path / "flags.json"
    file.write_text(json.dumps(FLAGS))
    return file


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """Somebody else's: three classes, colour, 16 pixels."""
    flags = {**FLAGS, "image_size": 16, "attention_resolutions": [8]}
    ADM(classes=["a", "b", "c"], channels=3, configuration=flags, sampler={"steps": 2}).save_pretrained(
        tmp_path / "pretrained"
    )
    return tmp_path / "pretrained"


def test_from_scratch(genmix: Genmix, discs: Path, flags: Path, tmp_path: Path) -> None:
    options = "--learning-rate 0.001 --ema-decay 0.99 --mirror --timesteps loss-second-moment --label-dropout 0.2"
    outcome = genmix(
        *["-q", "train", "adm", "--data", discs, "--out", tmp_path / "run", "--configuration", flags, *TINY],
        *[*options.split(), "--accumulate", 2, "--gradient-checkpointing", "--mixed-precision", "bf16", "--seed", 3],
        *["--weight-decay", 0.01, "--checkpoint-every", 4, "--ema-device", "cpu"],
    )
    assert outcome.code == 0, outcome.err
    assert "24 to train (bright 12, dark 12)" in outcome.out
    assert f"genmix fill {tmp_path / 'run'}" in outcome.out
    generator = load_generator(tmp_path / "run")
    assert isinstance(generator, ADM)
    assert generator.configuration.null_class
    record = generator.provenance
    configuration = record["options"].pop("configuration")
    assert (configuration["image_size"], configuration["channels"], configuration["num_classes"]) == (8, 1, 2)
    assert record["options"] == {
        "kind": "adm",
        "classes": ["bright", "dark"],
        "learning_rate": 0.001,
        "weight_decay": 0.01,
        "ema_decay": 0.99,
        "label_dropout": 0.2,
        "mirror": True,
        "timesteps": "loss-second-moment",
        "tune": "all",
    }
    assert (record["seed"], record["batch_size"], record["mixed_precision"], record["steps"]) == (3, 4, "bf16", 2)
    assert (tmp_path / "run/evolution.png").exists()


def test_fine_tuned_to_other_classes_channels_and_size(
    genmix: Genmix, discs: Path, pretrained: Path, tmp_path: Path
) -> None:
    command = ["train", "adm", "--data", discs, "--out", tmp_path / "run", "--init", pretrained, *TINY]
    outcome = genmix(*command, "--tune", "attention")
    assert outcome.code == 0, outcome.err
    generator = load_generator(tmp_path / "run")
    assert generator.classes == ("bright", "dark")
    assert generator.image_shape == (1, 8, 8)
    assert "adapted_from" in generator.provenance["started_from"]
    before = (tmp_path / "run/unet/diffusion_pytorch_model.safetensors").read_bytes()
    assert genmix("-q", *command, "--tune", "attention").code == 0  # nothing left to do
    assert (tmp_path / "run/unet/diffusion_pytorch_model.safetensors").read_bytes() == before
    refused = genmix("-q", *command, "--tune", "all")
    assert refused.code == 2
    assert "options.tune: 'attention' there, 'all' now" in refused.err


def test_the_classifier_and_the_generator_it_guides(genmix: Genmix, discs: Path, flags: Path, tmp_path: Path) -> None:
    ADM(classes=["bright", "dark"], channels=1, configuration=FLAGS, sampler={"steps": 2}).save_pretrained(
        tmp_path / "adm"
    )
    command = [
        *["-q", "train", "adm-classifier", "--data", discs, "--generator", tmp_path / "adm", *TINY],
        *["--out", tmp_path / "classifier", "--guided", tmp_path / "guided", "--scale", 1.5],
    ]
    outcome = genmix(*command)
    assert outcome.code == 0, outcome.err
    assert f"genmix fill {tmp_path / 'guided'}" in outcome.out
    classifier = NoisyClassifier.from_pretrained(tmp_path / "classifier")
    assert classifier.config["num_classes"] == 2
    guided = load_generator(tmp_path / "guided")
    assert isinstance(guided, ADM)
    assert guided.sampler.classifier_scale == 1.5
    assert guided.classifier is not None
    again = genmix(*command)
    assert again.code == 2
    assert "holds a generator already" in again.err
    wider = tmp_path / "wider.json"
    wider.write_text(json.dumps({**FLAGS, "num_channels": 64}))
    other = genmix(*command[:-4], "--configuration", wider, "--restart")
    assert other.code == 0, other.err
    assert NoisyClassifier.from_pretrained(tmp_path / "classifier").config["num_channels"] == 64


def test_a_classifier_of_the_few_guides_what_was_trained_without_labels(
    genmix: Genmix, discs: Path, tmp_path: Path
) -> None:
    flags = {**FLAGS, "class_cond": False}
    ADM(classes=["unlabelled"], channels=1, configuration=flags, sampler={"steps": 2}).save_pretrained(tmp_path / "adm")
    outcome = genmix(
        *["-q", "train", "adm-classifier", "--data", discs, "--generator", tmp_path / "adm", *TINY],
        *["--out", tmp_path / "classifier", "--guided", tmp_path / "guided"],
    )
    assert outcome.code == 0, outcome.err
    filled = genmix("-q", "fill", tmp_path / "guided", "--out", tmp_path / "bank", "--counts", "bright=2,dark=3")
    assert filled.code == 0, filled.err
    assert SyntheticBank.load(tmp_path / "bank").class_counts == {"bright": 2, "dark": 3}


def test_a_dry_run_of_the_classifier_trains_nothing(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    ADM(classes=["bright", "dark"], channels=1, configuration=FLAGS, sampler={"steps": 2}).save_pretrained(
        tmp_path / "adm"
    )
    command = ["-q", "train", "adm-classifier", "--data", discs, "--generator", tmp_path / "adm", *TINY]
    outcome = genmix(*command, "--out", tmp_path / "classifier", "--augment", "none", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert not (tmp_path / "classifier").exists()
    config = tmp_path / "config.yaml"
    config.write_text(outcome.out)
    assert genmix("-q", "train", "adm-classifier", "--config", config).code == 0
    record = json.loads((tmp_path / "classifier/training/checkpoint.json").read_text())
    assert record["options"]["augment"] == []
    assert record["options"]["learning_rate"] == 3e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--size 9", "the size must be a multiple of 2, got 9; bring the images to 10 pixels"),
        ("--preset quick", "preset must be one of adm, fine-tune, classes, paper, got 'quick'"),
        ("--size 8 --batch-size 4 --tune lora", "give warm_start=True (--init FOLDER)"),
        ("--ema-decay 1", "ema_decay must be above 0 and below 1"),
        ("--device gpu", "no device 'gpu' here"),
    ],
)
def test_what_cannot_work(genmix: Genmix, discs: Path, flags: Path, tmp_path: Path, options: str, message: str) -> None:
    outcome = genmix(
        "-q", "train", "adm", "--data", discs, "--out", tmp_path / "run", "--configuration", flags, *options.split()
    )
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "run").exists()


def test_what_is_no_adm_to_start_from(genmix: Genmix, discs: Path, flags: Path, tmp_path: Path) -> None:
    command = ["-q", "train", "adm", "--data", discs, "--size", 16, "--out", tmp_path / "run", "--device", "cpu"]
    missing = genmix(*command, "--init", tmp_path / "nothing")
    assert missing.code == 2
    assert "no such folder" in missing.err
    gan = ["-q", "train", "dcgan", "--data", discs, "--size", 16, "--steps", 1, "--batch-size", 4, "--base-width", 2]
    assert genmix(*gan, "--out", tmp_path / "gan", "--device", "cpu").code == 0
    other = genmix(*command, "--init", tmp_path / "gan")
    assert other.code == 2
    assert "a dcgan generator, not a adm" in other.err
    both = genmix(*command, "--init", tmp_path / "gan", "--configuration", flags)
    assert "--init brings its own network; leave --configuration out" in both.err
