"""``genmix train textual-inversion``, and ``genmix fill`` after it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.generators import TextualInversion, load_generator
from tests.generators.textual_inversion.tiny_pipelines import save_ldm

Genmix = Callable[..., Any]

TINY = "--size 16 --steps 2 --batch-size 4 --vectors 2 --device cpu".split()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ldm(tmp_path_factory.mktemp("base") / "tiny-ldm")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samplers of one step: the sheets are drawn with the published number otherwise."""
    from genmix_transforms.generators.textual_inversion.settings import SamplerSettings

    one_step = {name: {**preset, "steps": 1} for name, preset in SamplerSettings.SAMPLERS.items()}
    monkeypatch.setattr(SamplerSettings, "SAMPLERS", one_step)


def test_trained_and_filled(genmix: Genmix, discs: Path, base: Path, tmp_path: Path, fast: None) -> None:
    options = "--learning-rate 0.01 --mirror --accumulate 2 --gradient-checkpointing --mixed-precision bf16 --seed 3"
    outcome = genmix(
        *["train", "textual-inversion", "--data", discs, "--out", tmp_path / "run", "--base", base, *TINY],
        *["--sampler", "fast", "--initial-words", "bright=lung cyst, dark=breast", "--modality", "ultrasound"],
        *["--prompt", "a scan of {}", "--no-cache-latents", "--no-one-template-a-step", *options.split()],
        *["--weight-decay", 0.01, "--checkpoint-every", 4],
    )
    assert outcome.code == 0, outcome.err
    assert "24 to train (bright 12, dark 12)" in outcome.out
    assert f"genmix fill {tmp_path / 'run'}" in outcome.out
    generator = load_generator(tmp_path / "run")
    assert isinstance(generator, TextualInversion)
    assert generator.initial_words == {"bright": "lung cyst", "dark": "breast"}
    assert (generator.prompt, generator.templates[0]) == ("a scan of {}", "ultrasound image of {}")
    assert generator.sampler.method == "dpmsolver++"
    record = generator.provenance
    assert {name: record["options"][name] for name in ("learning_rate", "weight_decay", "mirror", "tune")} == {
        "learning_rate": 0.01, "weight_decay": 0.01, "mirror": True, "tune": "embeddings",
    }  # fmt: skip
    assert record["options"]["one_template_a_step"] is False
    assert (record["seed"], record["batch_size"], record["mixed_precision"], record["steps"]) == (3, 4, "bf16", 2)
    filled = genmix("fill", tmp_path / "run", "--counts", "bright=2,dark=1", "--out", tmp_path / "bank")
    assert filled.code == 0, filled.err
    assert "drawn in colour and turned grey: the channels differ by" in filled.out
    bank = SyntheticBank.load(tmp_path / "bank")
    assert bank.class_counts == {"bright": 2, "dark": 1}
    assert bank.images.shape == (3, 1, 16, 16)


def test_a_base_model_elsewhere(genmix: Genmix, discs: Path, base: Path, tmp_path: Path, fast: None) -> None:
    shutil.copytree(base, tmp_path / "here")
    command = ["-q", "train", "textual-inversion", "--data", discs, "--out", tmp_path / "run", *TINY]
    assert genmix(*command, "--base", tmp_path / "here").code == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    fill = ["-q", "fill", tmp_path / "run", "--counts", "dark=1", "--out", tmp_path / "bank"]
    lost = genmix(*fill)
    assert lost.code == 2
    assert "learned for the base model here, which is no longer at" in lost.err
    assert genmix(*fill, "--base", tmp_path / "there").code == 0
    other = save_ldm(tmp_path / "other", seed=1)
    refused = genmix(*fill, "--base", other)
    assert refused.code == 2
    assert "has other weights" in refused.err


def test_going_on_to_lora(genmix: Genmix, discs: Path, base: Path, tmp_path: Path, fast: None) -> None:
    pytest.importorskip("peft")
    command = ["-q", "train", "textual-inversion", "--data", discs]
    assert genmix(*command, "--base", base, "--out", tmp_path / "first", *TINY).code == 0
    rest = "--size 16 --steps 2 --batch-size 4 --device cpu --sampler fast".split()
    lora = ["--tune", "lora", "--lora-rank", 2, "--lora-learning-rate", 0.01, "--lora-after", 1]
    outcome = genmix(*command, "--init", tmp_path / "first", "--out", tmp_path / "second", *rest, *lora)
    assert outcome.code == 0, outcome.err
    generator = load_generator(tmp_path / "second")
    assert isinstance(generator, TextualInversion)
    assert generator.sampler.method == "dpmsolver++"
    assert (tmp_path / "second/unet_lora/pytorch_lora_weights.safetensors").exists()
    assert generator.provenance["started_from"]["steps"] == 2
    assert generator.provenance["options"]["lora_after"] == 1
    both = genmix(*command, "--init", tmp_path / "first", "--out", tmp_path / "third", *TINY)
    assert both.code == 2
    assert "first brings its own vectors; leave vectors out" in both.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--preset quick", "preset must be one of gal, paper, got 'quick'"),
        ("--sampler slow", "sampler: must be one of paper, fast"),
        ("--templates none-of-it", "a template needs exactly one {}"),
        ("--initial-words cyst", "--initial-words: expected NAME=VALUE, with commas between several, got 'cyst'"),
        ("--initial-words cyst=lung", "initial_words for cyst, and the classes are bright, dark"),
        ("--vectors 90", "vectors must be a whole number, from 1 to 75, got 90"),
        ("--vectors 1000000", "vectors must be a whole number, from 1 to 75, got 1000000"),
        ("--vectors 70", "with the 70 vectors of class"),
        ("--device gpu", "no device 'gpu' here"),
        ("--tune lora --steps 1 --lora-after 1", "lora_after must be below the number of steps, 1"),
        ("--base /no/such/folder", "base model /no/such/folder: no such folder"),
        ("--revision main", "a folder has no revisions"),
        ("--channels 3 --size 16 --accumulate 5", "a batch of 4 cannot be shared into 5 parts"),
    ],
)
def test_what_cannot_work(genmix: Genmix, discs: Path, base: Path, tmp_path: Path, options: str, message: str) -> None:
    command = ["-q", "train", "textual-inversion", "--data", discs, "--out", tmp_path / "run", "--base", base, *TINY]
    outcome = genmix(*command, *options.split())
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "run").exists()
