"""The discriminator of a GAN: kept beside the weights, and taken up by a fine-tuning."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import DCGAN, StyleGAN, load_generator
from genmix_transforms.generators.adversarial_generator import DISCRIMINATOR, AdversarialGenerator
from genmix_transforms.generators.folder import write_weights
from genmix_transforms.generators.processes import Processes

Patches = Callable[..., PatchDataset]
OPTIONS: dict[type[AdversarialGenerator], dict[str, Any]] = {
    DCGAN: {"resolution": 16, "base_width": 4},
    StyleGAN: {"resolution": 16, "fmap_base": 64, "latent_size": 16},
}
pytestmark = pytest.mark.parametrize("kind", OPTIONS)


def untrained(kind: type[AdversarialGenerator], patches: PatchDataset) -> AdversarialGenerator:
    return kind(classes=patches.classes, **OPTIONS[kind])  # type: ignore[call-arg]


def fit(generator: AdversarialGenerator, patches: PatchDataset, out: Path, **options: Any) -> AdversarialGenerator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few images: what these tests are made of
        return generator.fit(patches, out=out, **{"steps": 4, "batch_size": 4, "progress": False, **options})


def begun(generator: AdversarialGenerator, patches: PatchDataset, *, warm_start: bool = True) -> torch.nn.Module:
    """The discriminator that its next training begins with."""
    processes = Processes.join("cpu")
    settings = generator.choose_settings({"batch_size": 4, "steps": 4}, warm_start=warm_start)
    settings = generator.resolve(settings, patches, warm_start=warm_start, processes=processes)
    trainee: Any = generator.make_trainee(settings, patches, seed=9, warm_start=warm_start, processes=processes)
    found: torch.nn.Module = trainee.discriminator
    return found.eval()


def test_fine_tuning_goes_on_with_it(kind: type[AdversarialGenerator], tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    trained = fit(untrained(kind, patches), patches, tmp_path)
    saved = safetensors.torch.load_file(tmp_path / DISCRIMINATOR)
    loaded = load_generator(tmp_path)
    assert isinstance(loaded, kind)
    for generator in (trained, loaded):
        state = begun(generator, patches).state_dict()
        assert saved.keys() == state.keys()
        assert all(torch.equal(state[name], value) for name, value in saved.items())
    anew = begun(loaded, patches, warm_start=False).state_dict()
    assert any(not torch.equal(anew[name], value) for name, value in saved.items())


def test_other_classes_begin_with_the_score_that_all_images_got(
    kind: type[AdversarialGenerator], tiny_patches: Patches, tmp_path: Path
) -> None:
    patches = tiny_patches()
    pool = patches.without_labels()
    trained = fit(untrained(kind, pool), pool, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = kind.adapted_to(tmp_path, patches)
        new, old = begun(made, patches), begun(trained, pool)
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        before = old(images, torch.zeros(4, dtype=torch.int64))
        for label in range(len(patches.classes)):
            torch.testing.assert_close(new(images, torch.full((4,), label)), before)


def test_a_training_that_started_with_another_one_is_not_resumed(
    kind: type[AdversarialGenerator], tiny_patches: Patches, tmp_path: Path
) -> None:
    patches = tiny_patches()
    trained = fit(untrained(kind, patches), patches, tmp_path / "first")
    fit(trained.with_network(trained.network), patches, tmp_path / "second", warm_start=True)  # with a new one
    with pytest.raises(
        InputError, match=r"second: holds a run with other settings \(options.discriminator: None there, "
    ):
        fit(load_generator(tmp_path / "first"), patches, tmp_path / "second", warm_start=True)  # type: ignore[arg-type]


def test_a_folder_holds_that_of_its_own_weights(
    kind: type[AdversarialGenerator], tiny_patches: Patches, tmp_path: Path
) -> None:
    patches = tiny_patches()
    fit(untrained(kind, patches), patches, tmp_path)
    untrained(kind, patches).save_pretrained(tmp_path, overwrite=True)
    assert not (tmp_path / DISCRIMINATOR).exists()  # it was never trained
    write_weights(tmp_path / DISCRIMINATOR, {"main.0.weight": torch.zeros(2)}, provenance={})
    with pytest.raises(InputError, match=rf"{DISCRIMINATOR}: not the discriminator that config.json describes"):
        load_generator(tmp_path)
