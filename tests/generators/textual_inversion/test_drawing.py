"""From labels and seeds to pixels: grey and its spread, and real images to start from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import TextualInversion, load_generator
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion
from tests.generators.textual_inversion.tiny_generators import make_ti


@pytest.fixture(scope="module")
def generator(ldm: LatentDiffusion) -> TextualInversion:
    return make_ti(ldm)


def test_grey_is_the_mean_of_the_channels_and_says_how_far_they_differed(ldm: LatentDiffusion) -> None:
    grey, colour = make_ti(ldm), make_ti(ldm, channels=3)
    one, three = grey.sample([0, 1], [5, 6]), colour.sample([0, 1], [5, 6])
    assert (three.float().mean(1, keepdim=True) - one.float()).abs().max() <= 1
    assert grey.channel_spread.images == 2
    assert 0 < grey.channel_spread.mean <= grey.channel_spread.largest <= 1
    native = make_ti(ldm, channels=3, resolution=32).sample([0, 1], [5, 6]).float()  # counted before it is made smaller
    spread = (native.amax(1) - native.amin(1)).mean() / 255
    assert grey.channel_spread.mean == pytest.approx(float(spread), abs=0.004)
    assert colour.channel_spread.images == 0
    assert grey.with_sampler(steps=3).channel_spread.images == 0


def test_real_images_to_start_from(generator: TextualInversion, tiny_patches: Any, tmp_path: Path) -> None:
    patches: PatchDataset = tiny_patches()
    started = generator.with_start_images(patches, strength=0.5)
    assert started.sampler.strength == 0.5
    images = started.sample([0, 1], [5, 6])
    assert not torch.equal(images, generator.sample([0, 1], [5, 6]))
    assert torch.equal(started.sample([1], [6])[0], images[1])
    assert started.config["start_images"] == patches.fingerprint
    assert started.describe()["start_images"]["strength"] == 0.5
    assert "start_images" not in generator.config
    # They do not travel with the generator, which then says what it lacks.
    started.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert isinstance(loaded, TextualInversion)
    with pytest.raises(
        InputError, match=r"starts from real images \(strength 0.5\), and there are none: give the train"
    ):
        loaded.sample([0], [5])
    assert torch.equal(loaded.with_start_images(patches, strength=0.5).sample([0, 1], [5, 6]), images)
    free = started.with_start_images(None)
    assert free.config == generator.config
    assert torch.equal(free.sample([0], [5]), generator.sample([0], [5]))
