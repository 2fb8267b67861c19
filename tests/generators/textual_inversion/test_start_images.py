"""Start images: the seed alone chooses, among the patches of the image's own class; nothing of it is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.base_model import find_base_model, open_base_model
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.settings import SamplerSettings
from genmix_transforms.generators.textual_inversion.start_images import StartImages

CLASSES = ("cyst", "tumour")


def patches(*, channels: int = 1, size: int = 16, classes: tuple[str, ...] = CLASSES, count: int = 30) -> PatchDataset:
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % len(classes)
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=random)
    return PatchDataset(images=images, labels=labels, classes=classes)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2**63 - 1)), min_size=1, max_size=20))
def test_the_seed_alone_chooses(asked: list[tuple[int, int]]) -> None:
    start = StartImages(patches(), classes=CLASSES)
    labels, seeds = (torch.tensor(values) for values in zip(*asked, strict=True))
    chosen = start.choose(labels, seeds)
    assert torch.equal(start.patches.labels[chosen], labels)
    for number, (label, seed) in enumerate(asked):
        # The documented rule: labels are 0, 1, 0, 1, ..., so the n-th of a class is number 2 n + label.
        place = int(np.random.Generator(np.random.Philox(key=[seed, 2**63])).integers(15))
        assert int(chosen[number]) == 2 * place + label


def test_every_patch_of_the_class_is_as_likely() -> None:
    start = StartImages(patches(count=20), classes=CLASSES)
    for seeds in (torch.arange(2000), torch.arange(2000) * 10 + 2**33):  # also seeds that all share a factor
        counts = torch.bincount(start.choose(torch.ones(2000, dtype=torch.int64), seeds), minlength=20)
        assert counts[::2].sum() == 0
        # 200 each, standard deviation 13.
        assert 140 < int(counts[1::2].min()) <= int(counts[1::2].max()) < 260


def test_classes_go_by_name() -> None:
    ours = StartImages(patches(classes=("normal", "tumour", "cyst")), classes=CLASSES)
    chosen = ours.choose(torch.tensor([0] * 20 + [1] * 20), torch.arange(40))
    assert ours.patches.labels[chosen].tolist() == [2] * 20 + [1] * 20


@pytest.mark.parametrize("channels", [1, 3])
def test_latents_are_what_the_autoencoder_sees(ldm: LatentDiffusion, channels: int) -> None:
    """Of the patch at the model's own size, in three channels, by itself: the mean, with no noise."""
    start = StartImages(patches(channels=channels, size=32), classes=CLASSES)  # tiny models have 32 pixels
    labels, seeds = torch.tensor([0, 1, 1]), torch.tensor([5, 6, 7])
    found = start.latents(ldm, labels, seeds)
    assert found.shape == (3, *ldm.latent_shape)
    assert found.dtype == torch.float32
    images = start.patches.images[start.choose(labels, seeds)].float() / 127.5 - 1
    with torch.no_grad():
        mean, deviation = ldm.encode_images(images.expand(-1, 3, -1, -1))
    assert torch.allclose(found, mean, atol=1e-5)
    assert deviation.min() > 0
    backwards = start.latents(ldm, labels.flip(0), seeds.flip(0))
    alone = StartImages(start.patches, classes=CLASSES).latents(ldm, labels[2:], seeds[2:])
    assert torch.equal(backwards.flip(0), found)
    assert torch.equal(alone[0], found[2])


def test_each_patch_is_looked_at_once(ldm: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    encode = ldm.encode_images
    monkeypatch.setattr(ldm, "encode_images", lambda images: (sizes.append(tuple(images.shape)), encode(images))[1])
    start = StartImages(patches(count=4), classes=CLASSES)
    for _ in range(3):
        start.latents(ldm, torch.tensor([0] * 20), torch.arange(20))
    assert sizes == [(1, 3, 32, 32)] * 2


def test_another_model_sees_something_else(ldm: LatentDiffusion, stable_diffusion_folder: Path) -> None:
    start = StartImages(patches(count=4), classes=CLASSES)
    labels, seeds = torch.tensor([0, 1]), torch.tensor([1, 2])
    first = start.latents(ldm, labels, seeds)
    other = open_base_model(find_base_model(stable_diffusion_folder))
    with torch.no_grad():
        for parameter in other.autoencoder.parameters():
            parameter.mul_(1.5)
    assert not torch.equal(start.latents(other, labels, seeds), first)
    assert torch.equal(start.latents(ldm, labels, seeds), first)


def test_what_a_bank_records() -> None:
    start = StartImages(patches(), classes=CLASSES)
    assert start.describe(SamplerSettings(strength=0.6)) == {
        "fingerprint": start.patches.fingerprint,
        "class_counts": {"cyst": 15, "tumour": 15},
        "strength": 0.6,
    }


def test_a_set_that_cannot_start_them() -> None:
    with pytest.raises(
        InputError, match="patches has no image of class normal to start from; its classes are cyst, tumour"
    ):
        StartImages(patches(), classes=("cyst", "normal"))
    with pytest.raises(InputError, match="expected a PatchDataset, got a list"):
        StartImages([1, 2], classes=CLASSES)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 or 3 channels are expected, patches has 2"):
        StartImages(patches(channels=2), classes=CLASSES)
