"""DCGAN: sampling by label and seed, fitting, saving, and what it refuses."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import DCGAN, load_generator
from genmix_transforms.generators.dcgan.network import DCGANDiscriminator
from genmix_transforms.generators.folder import write_weights
from genmix_transforms.generators.processes import Processes

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


DISCRIMINATOR = "discriminator.safetensors"


def discriminator(generator: DCGAN, patches: PatchDataset, *, warm_start: bool = True) -> DCGANDiscriminator:
    """The one that its next training begins with."""
    settings = generator.choose_settings({"batch_size": 4}, warm_start=warm_start)
    processes = Processes.join("cpu")
    return generator.make_trainee(
        settings, patches, seed=9, warm_start=warm_start, processes=processes
    ).discriminator.eval()


def test_fine_tuning_goes_on_with_the_discriminator(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    trained = fit(DCGAN(classes=patches.classes, resolution=16, base_width=4), patches, tmp_path / "first", steps=40)
    saved = safetensors.torch.load_file(tmp_path / "first" / DISCRIMINATOR)
    loaded = load_generator(tmp_path / "first")
    assert isinstance(loaded, DCGAN)
    for generator in (trained, loaded):
        assert generator.weights_hash == trained.weights_hash
        begun = discriminator(generator, patches).state_dict()
        assert saved.keys() == begun.keys()
        assert all(torch.equal(begun[name], value) for name, value in saved.items())
    anew = discriminator(loaded, patches, warm_start=False).state_dict()
    assert not torch.equal(anew["main.0.weight"], saved["main.0.weight"])


def test_for_other_classes_the_discriminator_begins_with_the_score_that_it_gave_all(
    tiny_patches: Patches, tmp_path: Path
) -> None:
    patches = tiny_patches()
    pool = patches.without_labels()
    trained = fit(DCGAN(classes=pool.classes, resolution=16, base_width=4), pool, tmp_path / "pool")
    made = DCGAN.adapted_to(tmp_path / "pool", patches)
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        before = discriminator(trained, pool)(images, torch.zeros(3, dtype=torch.int64))
        for label in range(len(patches.classes)):
            assert torch.equal(discriminator(made, patches)(images, torch.full((3,), label)), before)


def test_what_is_saved_beside_the_weights_is_the_generators_own(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    fit(DCGAN(classes=patches.classes, resolution=16, base_width=4), patches, tmp_path)
    DCGAN(classes=patches.classes, resolution=16, base_width=4).save_pretrained(tmp_path, overwrite=True)
    assert not (tmp_path / DISCRIMINATOR).exists()  # it was never trained
    write_weights(tmp_path / DISCRIMINATOR, {"main.0.weight": torch.zeros(2)}, provenance={})
    with pytest.raises(InputError, match=rf"{DISCRIMINATOR}: not the weights that config.json describes"):
        load_generator(tmp_path)
