"""Training a StyleGAN through the loop: exact resumes, warm starts, and what is refused before any work."""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import PerClass, StyleGAN, load_generator
from genmix_transforms.generators.stylegan.fitting import PRESETS
from genmix_transforms.generators.stylegan.training import StyleGANTraining

Patches = Callable[..., PatchDataset]
TinyStyleGAN = Callable[..., StyleGAN]


def fit(generator: StyleGAN, patches: PatchDataset, out: Path, **options: Any) -> StyleGAN:
    defaults = {"steps": 6, "batch_size": 4, "checkpoint_every": 12, "progress": False, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few images: what these tests are made of
        return generator.fit(patches, out=out, **{**defaults, **options})


def test_fit_saves_what_it_returns(tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path) -> None:
    generator = tiny_stylegan(psi=0.9)
    before = generator.weights_hash
    assert fit(generator, tiny_patches(), tmp_path) is generator
    assert generator.weights_hash != before
    loaded = load_generator(tmp_path)
    assert loaded.config == generator.config
    assert loaded.weights_hash == generator.weights_hash
    assert loaded.provenance == generator.provenance
    assert loaded.provenance["training_set"]["class_counts"] == {"cyst": 12, "metastasis": 12}
    assert torch.equal(loaded.sample([0, 1], [5, 5]), generator.sample([0, 1], [5, 5]))


# 72 images are 3 phases: 0-23 at 8 pixels, 24-47 fading, 48-71 at 16.
@pytest.mark.parametrize("stop_at", [28, 36, 44, 48, 60], ids=["begun fade", "fade", "late fade", "boundary", "grown"])
def test_a_broken_run_ends_as_an_unbroken_one(
    stop_at: int,
    tiny_patches: Patches,
    tiny_stylegan: TinyStyleGAN,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"steps": 18, "checkpoint_every": 4, "augment_target": -0.9, "augment_ramp": 100, "r1_interval": 3}
    whole = fit(tiny_stylegan(), tiny_patches(), tmp_path / "whole", **options)
    step = StyleGANTraining.training_step

    def power_cut(self: StyleGANTraining, images: Any, labels: Any, images_seen: int) -> Any:
        if images_seen == stop_at:
            raise RuntimeError("power cut")
        return step(self, images, labels, images_seen)

    monkeypatch.setattr(StyleGANTraining, "training_step", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tiny_stylegan(), tiny_patches(), tmp_path / "broken", **options)
    monkeypatch.undo()
    growth = load_generator(tmp_path / "broken").network.growth.item()
    assert growth == pytest.approx(min(1 + max(0, stop_at - 4 - 24) / 24, 2), abs=1e-6)  # as the snapshot before had
    again = fit(tiny_stylegan(), tiny_patches(), tmp_path / "broken", **options)
    assert again.weights_hash == whole.weights_hash
    states = [next((tmp_path / name / "training").glob("state-*")).read_bytes() for name in ("whole", "broken")]
    assert states[0] == states[1]  # optimisers, average, growth and augmentation too
    logs = [(tmp_path / name / "training/losses.jsonl").read_text() for name in ("whole", "broken")]
    assert logs[0] == logs[1]
    assert json.loads(logs[0].splitlines()[-1])["augment_p"] > 0  # the control loop was at work


def test_a_prolonged_run_keeps_its_phases(tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path) -> None:
    fit(tiny_stylegan(), tiny_patches(), tmp_path, steps=6)
    longer = fit(tiny_stylegan(), tiny_patches(), tmp_path, steps=30)
    assert longer.network.growth.item() == 2  # with new phases of 40 images it would have gone back to 8 pixels
    record = json.loads((tmp_path / "training/checkpoint.json").read_text())
    assert '["phase_images", 8.0]' in json.dumps(record["outline"])


def test_the_seed_decides_everything(tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path) -> None:
    hashes = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)  # the global random numbers do not matter
        hashes.append(fit(tiny_stylegan(), tiny_patches(), tmp_path / str(number), seed=seed).weights_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_warm_start_goes_on_fully_grown_from_the_weights_there_are(
    tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path
) -> None:
    first = fit(tiny_stylegan(), tiny_patches(), tmp_path / "first", steps=12)
    start = first.network.synthesis.to_rgb[2].weight.clone()
    tuned = fit(first, tiny_patches(), tmp_path / "second", steps=1, warm_start=True)
    assert (tuned.network.synthesis.to_rgb[2].weight - start).abs().max() < 0.01  # one step away, not drawn anew
    assert tuned.network.growth.item() == 2
    assert tuned.provenance["options"]["start_resolution"] == 16


def test_one_network_for_each_class(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    tiny = {"resolution": 16, "fmap_base": 32, "fmap_max": 4, "latent_size": 4, "mapping_layers": 1}
    generator = PerClass.of(StyleGAN, classes=patches.classes, **tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator.fit(patches, out=tmp_path, steps=2, batch_size=4, device="cpu", progress=False)
    loaded = load_generator(tmp_path)
    assert torch.equal(loaded.sample([0, 1], [3, 3]), generator.sample([0, 1], [3, 3]))
    assert [member.network.mapping.embedding for member in generator.members] == [None, None]


def test_padding_is_said_aloud(tiny_patches: Patches, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    patches = tiny_patches(size=20)
    generator = StyleGAN(classes=patches.classes, resolution=20, fmap_base=32, fmap_max=4, latent_size=4)
    with caplog.at_level(logging.WARNING):
        fit(generator, patches, tmp_path, steps=1)
    assert "20 pixels are no power of two: trained at 32 on mirrored borders, and cropped back" in caplog.text
    assert load_generator(tmp_path).sample([0], [1]).shape == (1, 1, 20, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "fast"}, "preset must be one of stylegan, paper, got 'fast'"),
        ({"learning_rate": 0}, "learning_rate must be positive, got 0"),
        ({"ema_half_life": float("nan")}, "ema_half_life must be positive, got nan"),
        ({"augment_ramp": -1}, "augment_ramp must be positive"),
        ({"gamma": -1}, "gamma must not be negative, got -1"),
        ({"r1_interval": 0}, "r1_interval must be a whole number, at least 1"),
        ({"style_mixing": 1.1}, "style_mixing must be a probability, got 1.1"),
        ({"growing_share": 1.0}, "growing_share must lie between 0 and 1, got 1.0"),
        ({"start_resolution": 12}, "start_resolution must be a power of two from 8 to the networks' 16, got 12"),
        ({"start_resolution": 32}, "from 8 to the networks' 16, got 32"),
        ({"augment_target": 1.5}, "augment_target must lie between -1 and 1"),
        ({"augment_target": 0.6, "augment": ()}, r"nothing to adapt with augment=\(\)"),
        ({"batch_size": 6}, "has 6 images, which groups of 4 do not divide .*: give a multiple of 4, or another"),
        ({"minibatch_group": 3}, "has 4 images, which groups of 3 do not divide"),
        ({"steps": 1.5}, "steps must be a whole number, at least 1, got 1.5"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number, from 0 to"),
        ({"augment": ("blur",)}, "expected any of color, translation, cutout"),
        ({"device": "gpu"}, "no device 'gpu' here"),
        ({"stepz": 3}, "no such option: stepz"),
    ],
)
def test_fits_that_cannot_be(
    options: dict[str, Any], message: str, tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fit(tiny_stylegan(), tiny_patches(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_data_that_does_not_fit(tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path) -> None:
    oblong = tiny_patches()
    oblong = PatchDataset(images=oblong.images[..., :12], labels=oblong.labels, classes=oblong.classes)
    for patches, message in (
        (oblong, "made for 1 x 16 x 16 torch.uint8 images, the data has 1 x 16 x 12"),
        (tiny_patches(size=32), "the data has 1 x 32 x 32"),
        (tiny_patches(channels=3), r"open it with size=16, channels=1"),
        (tiny_patches(classes=("a", "b")), "made for the classes cyst, metastasis, the data has a, b"),
    ):
        with pytest.raises(InputError, match=message):
            fit(tiny_stylegan(), patches, tmp_path / "run")


def test_a_run_of_another_network_is_not_gone_on_with(
    tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path
) -> None:
    fit(tiny_stylegan(), tiny_patches(), tmp_path)
    with pytest.raises(InputError, match=r"other settings \(options.config.fmap_max: 8 there, 4 now\)"):
        fit(tiny_stylegan(fmap_max=4), tiny_patches(), tmp_path)
    with pytest.raises(InputError, match=r"options.growing_share: None there, 0.5 now"):
        fit(tiny_stylegan(), tiny_patches(), tmp_path, growing_share=0.5)


def test_the_presets_are_the_papers() -> None:
    paper = PRESETS["paper"]
    assert (paper.steps, paper.batch_size, paper.learning_rate, paper.gamma) == (70_000, 8, 0.001, 10.0)
    assert PRESETS["stylegan"].learning_rate == 0.001
