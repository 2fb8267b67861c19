"""StyleGAN: sizes, saving, training through the loop, fine-tuning, and what is refused before any work."""

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
from genmix_transforms.generators.stylegan.training import StyleGANTraining

Patches = Callable[..., PatchDataset]
TinyStyleGAN = Callable[..., StyleGAN]
GENERATOR = StyleGAN(classes=["a", "b"], resolution=16, fmap_base=64, fmap_max=8, latent_size=8)
with torch.no_grad():  # untrained, the noise has no strength, and the mean is nowhere
    for _layer in GENERATOR.network.synthesis.layers:
        _layer.noise_strength.fill_(0.5)
    GENERATOR.network.mean_w.copy_(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("size", [9, 13, 16, 20, 28])
def test_other_sizes_are_cropped_back(size: int) -> None:
    generator = StyleGAN(classes=["a"], resolution=size, fmap_base=32, fmap_max=4, latent_size=4)
    side = generator.network_resolution
    assert side == (16 if size <= 16 else 32)
    assert generator.sample([0, 0], [1, 2]).shape == (2, 1, size, size)
    before, after = generator.padding
    assert before + size + after == side
    assert after - before in (0, 1)


def test_sixteen_bits_and_other_channels() -> None:
    wide = StyleGAN(classes=["a"], resolution=16, channels=5, fmap_base=32, fmap_max=4, latent_size=4, bits=16)
    assert wide.sample([0], [1]).dtype == torch.uint16
    assert wide.sample([], []).shape == (0, 5, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 8}, "resolution must be a whole number, from 9 to 1024, got 8"),
        ({"resolution": 1025}, "from 9 to 1024, got 1025"),
        ({"resolution": (64, 32)}, "resolution must be a whole number"),
        ({"channels": 0}, "channels must be a whole number, at least 1, got 0"),
        ({"fmap_base": 0}, "fmap_base must be a whole number, from 1 to 1048576, got 0"),
        ({"fmap_max": 1.5}, "fmap_max must be a whole number"),
        ({"latent_size": 0}, "latent_size must be a whole number, from 1 to 8192"),
        ({"mapping_layers": 0}, "mapping_layers must be a whole number, from 1 to 100"),
        ({"conditioning": "add"}, "conditioning must be one of multiply, concatenate, got 'add'"),
        ({"psi": float("nan")}, "psi must be above -10 and below 10, got nan"),
        ({"psi": "0.7"}, "psi must be a number, above -10 and below 10, got '0.7'"),
        ({"cutoff": -1}, "cutoff must be a whole number, at least 0, got -1"),
        ({"norm_epsilon": 0}, "norm_epsilon must be above 0 and below 1, got 0"),
        ({"spi": 0.7}, "StyleGAN: no such option: spi; did you mean psi"),
    ],
)
def test_networks_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StyleGAN(**{"classes": ["a"], "resolution": 16, **options})


def test_weights_of_another_resolution_or_class_count(tiny_stylegan: TinyStyleGAN, tmp_path: Path) -> None:
    tiny_stylegan().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key, value in (("resolution", 32), ("classes", ["a", "b", "c"]), ("channels", 3)):
        other = {**config, "config": {**config["config"], key: value}}
        (tmp_path / "config.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match=r"not the weights that config.json describes"):
            load_generator(tmp_path)


def test_styles_of_another_network(tiny_stylegan: TinyStyleGAN) -> None:
    with pytest.raises(InputError, match=r"styles must be \(n, 6, 8\), got \(1, 4, 8\)"):
        GENERATOR.paint(torch.zeros(1, 4, 8), [0])
    with pytest.raises(InputError, match="one seed for each label, got 1 labels and 2 seeds"):
        GENERATOR.paint(torch.zeros(1, 6, 8), [0, 1])


def fit(generator: StyleGAN, patches: PatchDataset, out: Path, **options: Any) -> StyleGAN:
    defaults = {"steps": 6, "batch_size": 4, "checkpoint_every": 12, "progress": False, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few images: what these tests are made of
        return generator.fit(patches, out=out, **{**defaults, **options})


# 72 images are 3 phases: 0-23 at 8 pixels, 24-47 fading, 48-71 at 16.
BREAKABLE = {"steps": 18, "checkpoint_every": 4, "augment_target": -0.9, "augment_ramp": 100, "r1_interval": 3}


@pytest.fixture(scope="module")
def whole(tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unbroken run. Not to be written to."""
    out = tmp_path_factory.mktemp("unbroken") / "whole"
    fit(tiny_stylegan(), tiny_patches(), out, **BREAKABLE)
    return out


@pytest.mark.parametrize("stop_at", [28, 48, 60], ids=["fade", "boundary", "grown"])
def test_a_broken_run_ends_as_an_unbroken_one(
    stop_at: int,
    whole: Path,
    tiny_patches: Patches,
    tiny_stylegan: TinyStyleGAN,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = StyleGANTraining.training_step

    def power_cut(self: StyleGANTraining, images: Any, labels: Any, images_seen: int) -> Any:
        if images_seen == stop_at:
            raise RuntimeError("power cut")
        return step(self, images, labels, images_seen)

    monkeypatch.setattr(StyleGANTraining, "training_step", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tiny_stylegan(), tiny_patches(), tmp_path / "broken", **BREAKABLE)
    monkeypatch.undo()
    growth = load_generator(tmp_path / "broken").network.growth.item()
    assert growth == pytest.approx(min(1 + max(0, stop_at - 4 - 24) / 24, 2), abs=1e-6)  # as the snapshot before had
    again = fit(tiny_stylegan(), tiny_patches(), tmp_path / "broken", **BREAKABLE)
    assert again.weights_hash == load_generator(whole).weights_hash
    states = [next((run / "training").glob("state-*")).read_bytes() for run in (whole, tmp_path / "broken")]
    assert states[0] == states[1]  # optimisers, average, growth and augmentation too
    logs = [(run / "training/losses.jsonl").read_text() for run in (whole, tmp_path / "broken")]
    assert logs[0] == logs[1]
    assert json.loads(logs[0].splitlines()[-1])["augment_p"] > 0  # the control loop was at work


def test_a_prolonged_run_keeps_its_phases(tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path) -> None:
    fit(tiny_stylegan(), tiny_patches(), tmp_path, steps=6)
    longer = fit(tiny_stylegan(), tiny_patches(), tmp_path, steps=30)
    assert longer.network.growth.item() == 2  # with new phases of 40 images it would have gone back to 8 pixels
    record = json.loads((tmp_path / "training/checkpoint.json").read_text())
    assert '["phase_images", 8.0]' in json.dumps(record["outline"])


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


def test_fits_that_cannot_be(tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path) -> None:
    for options, message in (
        ({"learning_rate": 0}, r"StyleGAN\.fit: learning_rate must be above 0"),
        ({"start_resolution": 32}, "from 8 to the networks' 16, got 32"),
        ({"batch_size": 6}, "has 6 images, which groups of 4 do not divide"),
    ):
        with pytest.raises(InputError, match=message):
            fit(tiny_stylegan(), tiny_patches(), tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()


def test_a_run_of_another_network_is_not_gone_on_with(
    tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path
) -> None:
    fit(tiny_stylegan(), tiny_patches(), tmp_path)
    with pytest.raises(InputError, match=r"other settings \(options.config.fmap_max: 8 there, 4 now\)"):
        fit(tiny_stylegan(fmap_max=4), tiny_patches(), tmp_path)
    with pytest.raises(InputError, match=r"options.growing_share: None there, 0.5 now"):
        fit(tiny_stylegan(), tiny_patches(), tmp_path, growing_share=0.5)


def test_a_resumed_run_may_truncate_otherwise(
    tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path
) -> None:
    """Training knows no truncation; and the default was 0.7 once."""
    first = fit(tiny_stylegan(psi=0.7), tiny_patches(), tmp_path)
    again = fit(tiny_stylegan(), tiny_patches(), tmp_path, steps=6)
    assert again.weights_hash == first.weights_hash
    assert load_generator(tmp_path).config["psi"] == 1.0


def test_a_saved_generator_keeps_its_truncation(tiny_stylegan: TinyStyleGAN, tmp_path: Path) -> None:
    tiny_stylegan(psi=0.7, cutoff=None).save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert (loaded.config["psi"], loaded.config["cutoff"]) == (0.7, None)


def test_fine_tuning_takes_what_the_weights_leave_open_and_refuses_what_they_fix(
    tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path
) -> None:
    source = tiny_stylegan(psi=0.7)
    source.save_pretrained(tmp_path)
    wide = tiny_patches(size=32, channels=3)
    adapted = StyleGAN.adapted_to(tmp_path, wide)
    assert (adapted.image_shape, adapted.classes, adapted.psi) == ((3, 32, 32), wide.classes, 0.7)
    other = StyleGAN.adapted_to(tmp_path, wide, psi=1.0, cutoff=None, fmap_base=64, conditioning="multiply")
    assert (other.psi, other.cutoff) == (1.0, None)
    assert other.weights_hash == adapted.weights_hash
    for options, message in (
        ({"fmap_base": 4096}, "its weights have fmap_base 64, and 4096 was asked for"),
        ({"latent_size": 512}, "its weights have latent_size 8, and 512 was asked for"),
        ({"mapping_layers": 8}, "mapping_layers 2, and 8"),
        ({"conditioning": "concatenate"}, "conditioning 'multiply', and 'concatenate'"),
        ({"norm_epsilon": 1e-5}, "norm_epsilon 1e-08, and 1e-05"),
        ({"spi": 1}, "no such option: spi; did you mean psi"),
    ):
        with pytest.raises(InputError, match=message):
            StyleGAN.adapted_to(tmp_path, wide, **options)


def test_sixteen_bits_are_fine_tuned_from_eight(
    tiny_patches: Patches, tiny_stylegan: TinyStyleGAN, tmp_path: Path
) -> None:
    tiny_stylegan().save_pretrained(tmp_path)
    patches = tiny_patches()
    deep = PatchDataset(images=patches.images.to(torch.uint16), labels=patches.labels, classes=patches.classes)
    assert StyleGAN.adapted_to(tmp_path, deep).pixel_dtype == torch.uint16
