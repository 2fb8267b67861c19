"""DCGAN: sampling by label and seed, fitting, saving, and what it refuses."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import DCGAN, load_generator

Patches = Callable[..., PatchDataset]
GENERATOR = DCGAN(classes=["a", "b"], resolution=16, base_width=4, latent_size=8)


def test_full_width_images_do_not_depend_on_their_neighbours_or_the_threads() -> None:
    generator = DCGAN(classes=["a"], resolution=64)
    together = generator.sample([0] * 40, list(range(40)))
    for seed in (0, 17, 31, 32, 39):
        assert torch.equal(generator.sample([0], [seed])[0], together[seed])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(generator.sample([0] * 40, list(range(40))), together)
    finally:
        torch.set_num_threads(threads)


def test_sixteen_bits() -> None:
    generator = DCGAN(classes=["a"], resolution=16, base_width=4, bits=16)
    wide = generator.sample([0, 0], [1, 2])
    assert wide.dtype == torch.uint16
    narrow = DCGAN(classes=["a"], resolution=16, base_width=4).sample([0, 0], [1, 2])
    assert ((wide.to(torch.int32).float() / 257) - narrow.float()).abs().max() <= 0.5 + 1e-3


def fit(generator: DCGAN, patches: PatchDataset, out: Path, **options: Any) -> DCGAN:
    defaults = {"steps": 6, "batch_size": 4, "checkpoint_every": 12, "progress": False, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few images: what these tests are made of
        return generator.fit(patches, out=out, **{**defaults, **options})


def test_a_warm_start_goes_on_from_the_weights_there_are(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    fit(DCGAN(classes=patches.classes, resolution=16, base_width=4), patches, tmp_path / "first", steps=40)
    first = load_generator(tmp_path / "first")
    start = first.network.main[0].weight.clone()
    assert isinstance(first, DCGAN)
    tuned = fit(first, patches, tmp_path / "second", steps=1, warm_start=True)
    assert (tuned.network.main[0].weight - start).abs().max() < 0.01  # one step away, not drawn anew


def test_bf16_trains(tiny_patches: Patches, tmp_path: Path) -> None:
    generator = DCGAN(classes=("cyst", "metastasis"), resolution=16, base_width=4)
    fit(generator, tiny_patches(), tmp_path, mixed_precision="bf16")
    assert all(value.dtype != torch.bfloat16 for value in generator.network.state_dict().values())
    assert all(torch.isfinite(value).all() for value in generator.network.state_dict().values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 28}, r"power of two from 16 to 256, got 28; bring the images to 32 pixels \(--size 32"),
        ({"resolution": 512}, "got 512; bring the images to 256"),
        ({"resolution": 8}, "got 8; bring the images to 16"),
        ({"channels": 0}, "channels must be a whole number, at least 1, got 0"),
        ({"base_width": 0}, "DCGAN: base_width must be a whole number, from 1 to 8192, got 0"),
        ({"latent_size": 0}, "latent_size must be a whole number, from 1 to 65536, got 0"),
        ({"resolution": "64"}, "resolution must be a whole number, at least 1, got '64'"),
        ({"base_width": 4.5}, "base_width must be a whole number"),
        ({"dimensions": 4}, "DCGAN: dimensions must be 2 for images or 3 for volumes, got 4"),
        ({"dimensions": 3, "resolution": 20}, "got 20; bring the images to 32"),
        ({"base_widht": 4}, "DCGAN: no such option: base_widht; did you mean base_width"),
    ],
)
def test_networks_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DCGAN(**{"classes": ["a"], **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0}, "DCGAN.fit: learning_rate must be above 0 and at most 10, got 0"),
        ({"ema_half_life": 0}, "ema_half_life must be positive"),
        ({"ema_half_life": float("nan")}, "ema_half_life must be positive, got nan"),
        ({"augment": ("blur",)}, "augment must be one of color, translation, cutout, got 'blur'"),
    ],
)
def test_fits_that_cannot_be(options: dict[str, Any], message: str, tiny_patches: Patches, tmp_path: Path) -> None:
    generator = DCGAN(classes=("cyst", "metastasis"), resolution=16, base_width=4)
    with pytest.raises(InputError, match=message):
        fit(generator, tiny_patches(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_removed_generator_is_written_again_by_the_finished_run(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    first = fit(DCGAN(classes=patches.classes, resolution=16, base_width=4), patches, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").unlink()
    again = fit(DCGAN(classes=patches.classes, resolution=16, base_width=4), patches, tmp_path)
    assert again.weights_hash == first.weights_hash == load_generator(tmp_path).weights_hash


def test_images_have_the_config_they_always_had_and_volumes_say_their_dimensions() -> None:
    assert "dimensions" not in GENERATOR.config
    volumes = DCGAN(classes=["a"], resolution=16, base_width=2, dimensions=3)
    assert volumes.config["dimensions"] == volumes.dimensions == 3
    assert volumes.image_shape == (1, 16, 16, 16)
    assert DCGAN(**volumes.config).image_shape == volumes.image_shape


def test_weights_of_images_are_not_made_into_weights_of_volumes(tiny_patches: Patches, tmp_path: Path) -> None:
    images, volumes = tiny_patches(), tiny_patches(dimensions=3)
    DCGAN.for_patches(images, base_width=2).save_pretrained(tmp_path / "images")
    DCGAN.for_patches(volumes, base_width=2).save_pretrained(tmp_path / "volumes")
    for source, patches, message in (
        ("images", volumes, r"network draws images of 1 x 16 x 16, the data has volumes of 1 x 16 x 16 x 16, and"),
        ("volumes", images, r"network draws volumes of 1 x 16 x 16 x 16, the data has images of 1 x 16 x 16, and"),
    ):
        for data in (patches, patches.without_labels()):
            with pytest.raises(InputError, match=f"DCGAN: the {message} .* train a network for the data from scratch"):
                DCGAN.adapted_to(tmp_path / source, data)


def test_volumes_that_are_no_cubes_are_told_the_way_out(tiny_patches: Patches) -> None:
    volumes = tiny_patches(dimensions=3)
    flat = PatchDataset(images=volumes.images[:, :, :8], labels=volumes.labels, classes=volumes.classes)
    with pytest.raises(InputError, match="patches are 8x16x16, and a DCGAN draws cubes: give --size .with --fit crop"):
        DCGAN.for_patches(flat)
    assert DCGAN.for_patches(flat.resized(16), base_width=2).image_shape == (1, 16, 16, 16)


def test_bf16_trains_volumes(tiny_patches: Patches, tmp_path: Path) -> None:
    volumes = tiny_patches(4, dimensions=3)
    generator = DCGAN.for_patches(volumes, base_width=2)
    fit(generator, volumes, tmp_path, mixed_precision="bf16", steps=1)
    assert all(torch.isfinite(value).all() for value in generator.network.state_dict().values())
