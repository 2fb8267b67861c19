"""A StyleGAN for other images starts from what the original had learned, exactly where the rule says so."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan import StyleGAN, adapt_stylegan
from genmix_transforms.generators.stylegan.layers import initialise

LUMA = torch.tensor([0.299, 0.587, 0.114])


def make(*, discriminator: bool = True, **options: Any) -> StyleGAN:
    """A StyleGAN whose every weight says something."""
    generator = StyleGAN(
        **{"classes": ["face"], "resolution": 64, "channels": 3, "fmap_base": 64, "fmap_max": 12, **options},
        latent_size=8,
        mapping_layers=2,
    )
    random = torch.Generator().manual_seed(1)
    sides = [generator.network]
    if discriminator:
        generator.discriminator = generator.new_discriminator()
        initialise(generator.discriminator, seed=2)
        sides.append(generator.discriminator)  # type: ignore[arg-type]
    with torch.no_grad():
        for side in sides:
            for parameter in side.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=random) * 0.3)
        generator.network.mean_w.copy_(torch.randn(generator.network.mean_w.shape, generator=random))
    return generator


def draws(generator: StyleGAN, *, label: int = 0, growth: float | None = None) -> torch.Tensor:
    network = generator.network
    random = torch.Generator().manual_seed(3)
    latents = torch.randn(4, network.latent_size, generator=random)
    noise = [torch.randn(4, 1, side, side, generator=random) for side in network.noise_sides()]
    with torch.no_grad():
        w = network.broadcast(network.mapping(latents, torch.full((4,), label)))
        return network.synthesis(w, noise, growth=growth)


def judges(generator: StyleGAN, images: torch.Tensor, *, label: int = 0, growth: float | None = None) -> torch.Tensor:
    assert generator.discriminator is not None
    with torch.no_grad():
        return generator.discriminator(images, torch.full((len(images),), label), growth=growth)


def test_fewer_pixels_are_the_originals_on_its_way_up() -> None:
    original = make()
    small = adapt_stylegan(original, resolution=16)
    assert small.image_shape == (3, 16, 16)
    assert torch.equal(draws(small), draws(original, growth=2.0))
    images = torch.randn(4, 3, 16, 16)
    assert torch.equal(judges(small, images), judges(original, images, growth=2.0))
    assert original.image_shape == (3, 64, 64)


def test_an_official_network_becomes_one_of_grey_patches_of_several_classes() -> None:
    original = make(resolution=256)
    patches = adapt_stylegan(original, resolution=64, channels=1, classes=["cyst", "metastasis"])
    assert patches.image_shape == (1, 64, 64)
    colour = draws(original, growth=4.0)
    grey = (colour * LUMA[:, None, None]).sum(dim=1, keepdim=True)
    for label in (0, 1):
        assert torch.allclose(draws(patches, label=label), grey, atol=1e-5)
        seen = judges(original, grey.expand(-1, 3, -1, -1), growth=4.0)
        assert torch.allclose(judges(patches, grey, label=label), seen, atol=1e-5)
    assert torch.equal(patches.network.mean_w, original.network.mean_w.expand(2, -1))
    assert patches.settings.conditioning == "multiply"
    assert patches.sample([0, 1], [7, 7]).shape == (2, 1, 64, 64)


def test_what_was_the_image_half_way_up_is_what_the_large_one_shrinks_to() -> None:
    """A network that has only grown to 64 pixels draws at 256 what it drew at 64, doubled: shrunk, it is the same."""
    original = make(resolution=256)
    original.network.growth.fill_(4.0)
    small = adapt_stylegan(original, resolution=64)
    random = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 8, generator=random)
    noise = [torch.randn(2, 1, side, side, generator=random) for side in original.network.noise_sides()]
    labels = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        large = original.network(latents, labels, noise=noise)
        shrunk = torch.nn.functional.avg_pool2d(large, 4)
        assert torch.allclose(small.network(latents, labels, noise=noise[:10]), shrunk, atol=1e-6)


def test_grey_becomes_colour_and_back() -> None:
    original = make(channels=1, resolution=16)
    colour = adapt_stylegan(original, channels=3)
    assert torch.allclose(draws(colour), draws(original).expand(-1, 3, -1, -1), atol=1e-6)
    assert torch.allclose(draws(adapt_stylegan(colour, channels=1)), draws(original), atol=1e-5)
    images = torch.randn(4, 3, 16, 16)
    luma = (images * LUMA[:, None, None]).sum(dim=1, keepdim=True)
    assert torch.allclose(judges(colour, images), judges(original, luma), atol=1e-4)


def test_stacks_take_the_mean() -> None:
    original = make(channels=2, resolution=16)
    stack = adapt_stylegan(original, channels=5)
    assert torch.allclose(draws(stack), draws(original).mean(dim=1, keepdim=True).expand(-1, 5, -1, -1), atol=1e-6)


def test_more_pixels_are_the_originals_doubled_until_they_are_trained() -> None:
    original = make(resolution=16)
    large = adapt_stylegan(original, resolution=64, seed=4)
    assert float(large.network.growth) == 2.0
    small = original.sample([0, 0], [5, 6])
    assert torch.equal(large.sample([0, 0], [5, 6]), small.repeat_interleave(4, 2).repeat_interleave(4, 3))
    other = adapt_stylegan(original, resolution=64, seed=5)
    new = "synthesis.layers.6.conv.weight"
    assert not torch.equal(large.network.state_dict()[new], other.network.state_dict()[new])
    assert torch.equal(
        large.network.state_dict()[new], adapt_stylegan(original, resolution=64, seed=4).network.state_dict()[new]
    )


def test_other_sizes_work_at_the_next_power_of_two() -> None:
    patches = adapt_stylegan(make(), resolution=28)
    assert patches.network_resolution == 32
    assert patches.sample([0], [1]).shape == (1, 3, 28, 28)


def test_classes_of_the_same_number_are_renamed() -> None:
    original = make(classes=["a", "b"], conditioning="concatenate", resolution=16)
    renamed = adapt_stylegan(original, classes=["cyst", "metastasis"])
    assert renamed.classes == ("cyst", "metastasis")
    for label in (0, 1):
        assert torch.equal(draws(renamed, label=label), draws(original, label=label))
        images = torch.randn(4, 3, 16, 16)
        assert torch.equal(judges(renamed, images, label=label), judges(original, images, label=label))
    for classes in (["a"], ["a", "b", "c"]):
        with pytest.raises(InputError, match=r"knows 2 classes \(a, b\), and was to be adapted to"):
            adapt_stylegan(original, classes=classes)


def test_nothing_to_adapt() -> None:
    original = make(discriminator=False)
    original.provenance = {"converted": "x"}
    same = adapt_stylegan(original)
    assert same.discriminator is None
    assert same.provenance == {"converted": "x"}
    assert same.weights_hash == original.weights_hash
    assert adapt_stylegan(original, channels=1).provenance["adapted_from"] == {
        "resolution": 64,
        "channels": 3,
        "classes": ["face"],
    }


def test_an_adapted_network_trains(tiny_patches: Any, tmp_path: Path) -> None:
    patches = adapt_stylegan(make(), resolution=16, channels=1, classes=["cyst", "metastasis"])
    before = draws(patches)
    with pytest.warns(UserWarning, match="very few images"):
        patches.fit(tiny_patches(), out=tmp_path, steps=2, batch_size=4, warm_start=True, device="cpu", progress=False)
    after = draws(patches)
    assert not torch.equal(before, after)
    assert (before - after).abs().mean() < 0.2 * before.std()  # two steps from where it was, not from nowhere


def test_bad_input(nvidia: SimpleNamespace) -> None:
    original = make()
    with pytest.raises(InputError, match="resolution must be a whole number"):
        adapt_stylegan(original, resolution=4)
    with pytest.raises(InputError, match="channels must be a whole number"):
        adapt_stylegan(original, channels=0)
    with pytest.raises(InputError, match="different names"):
        adapt_stylegan(original, classes=["a", "a"])
    original.provenance["without_to_rgb"] = [4, 8, 16, 32]
    with pytest.raises(InputError, match="had a ToRGB for 64 pixels alone, and the blocks for 16 pixels make no image"):
        adapt_stylegan(original, resolution=16)
    assert adapt_stylegan(original, resolution=128).image_shape == (3, 128, 128)
