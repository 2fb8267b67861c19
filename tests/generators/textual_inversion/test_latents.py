"""The latents' distributions: the same whether cached or computed, mirrored ones apart, drawn anew each time."""

import pytest
import torch

from genmix_transforms.generators.textual_inversion import latents
from genmix_transforms.generators.textual_inversion.latents import CachedPosteriors, Posteriors
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion

IMAGES = torch.randint(0, 256, (11, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
INDEX = torch.tensor([3, 3, 10, 0])
MIRRORED = torch.tensor([True, False, True, False])


@pytest.mark.parametrize("mirrored", [None, MIRRORED])
@pytest.mark.parametrize("place", ["beside", "on the CPU"])
def test_the_cache_holds_what_would_be_computed(
    ldm: LatentDiffusion, mirrored: torch.Tensor | None, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "on the CPU":
        monkeypatch.setattr(latents, "MOST_BESIDE_THE_MODEL", 0)
    cached = CachedPosteriors(ldm, IMAGES, mirror=mirrored is not None)(INDEX, mirrored)
    computed = Posteriors(ldm, IMAGES)(INDEX, mirrored)
    for there, here in zip(cached, computed, strict=True):
        assert there.shape == (4, 4, 4, 4)
        assert there.dtype == torch.float32
        assert torch.allclose(there, here, atol=1e-6)


def test_what_is_encoded(ldm: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grey patches of 16 pixels as images of 32 in three channels."""
    shown = []
    encode = LatentDiffusion.encode_images

    def keep(self: LatentDiffusion, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shown.append(images)
        return encode(self, images)

    monkeypatch.setattr(LatentDiffusion, "encode_images", keep)
    Posteriors(ldm, IMAGES)(INDEX, MIRRORED)
    (images,) = shown
    assert images.shape == (4, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 2])
    assert -1 <= images.min() < images.max() <= 1
    assert torch.allclose(images[0], images[1].flip(-1), atol=1e-5)
    assert torch.allclose(images.mean((1, 2, 3)), IMAGES[INDEX].float().mean((1, 2, 3)) / 127.5 - 1, atol=0.02)


def test_a_mirrored_image_has_a_latent_of_its_own(ldm: LatentDiffusion) -> None:
    cache = CachedPosteriors(ldm, IMAGES, mirror=True)
    mean, _ = cache(INDEX, torch.zeros(4, dtype=torch.bool))
    mirrored, _ = cache(INDEX, torch.ones(4, dtype=torch.bool))
    assert (mirrored.flip(-1) - mean).abs().max() > 1e-3


def test_each_image_is_encoded_once(ldm: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    encode = Posteriors.encode
    monkeypatch.setattr(
        Posteriors, "encode", lambda self, pixels: (counts.append(len(pixels)), encode(self, pixels))[1]
    )
    cache = CachedPosteriors(ldm, IMAGES, mirror=True)
    assert counts == []  # a run that is over already, or is refused, asks for none
    for _ in range(3):
        cache(INDEX, MIRRORED)
    assert counts == [8, 3, 8, 3]


def test_the_autoencoder_works_in_full_precision_whatever_the_training_does(ldm: LatentDiffusion) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean, std = Posteriors(ldm, IMAGES)(INDEX)
    expected = Posteriors(ldm, IMAGES)(INDEX)
    assert torch.equal(mean, expected[0])
    assert torch.equal(std, expected[1])


def test_sixteen_bits(ldm: LatentDiffusion) -> None:
    wide = (IMAGES.to(torch.int32) * 257).to(torch.uint16)
    expected, _ = Posteriors(ldm, IMAGES)(INDEX, MIRRORED)
    for posteriors in (CachedPosteriors(ldm, wide, mirror=True), Posteriors(ldm, wide)):
        assert torch.allclose(posteriors(INDEX, MIRRORED)[0], expected, atol=1e-6)
