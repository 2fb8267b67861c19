"""The whole network: published sizes, truncation, the tracked mean, and images while it grows."""

import pytest
import torch

from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.network import StyleGANNetwork


def make(**options: object) -> StyleGANNetwork:
    network = StyleGANNetwork(
        **{"resolution": 16, "classes": 2, "latent_size": 8, "fmap_base": 64, "fmap_max": 12, **options}  # type: ignore[arg-type]
    )
    initialise(network, seed=0)
    return network.eval()


@pytest.mark.parametrize(
    ("resolution", "count"), [(1024, 26_219_627), (256, 26_086_229), (128, 25_843_858), (64, 25_137_935)]
)
def test_as_many_parameters_as_published(resolution: int, count: int) -> None:
    with torch.device("meta"):
        network = StyleGANNetwork(resolution=resolution, channels=3)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_an_image_is_mapping_then_synthesis() -> None:
    network = make()
    latents, labels = torch.randn(3, 8), torch.tensor([0, 1, 1])
    noise = [torch.randn(3, 1, side, side) for side in network.noise_sides()]
    w = network.mapping(latents, labels)
    expected = network.synthesis(w[:, None].repeat(1, 6, 1), noise)
    assert torch.equal(network(latents, labels, noise=noise), expected)


def test_truncation_pulls_the_coarse_layers_to_their_classes_mean() -> None:
    network = make()
    network.mean_w.copy_(torch.randn(2, 8))
    w, labels = torch.randn(3, 6, 8), torch.tensor([0, 1, 1])
    out = network.truncate(w, labels, psi=0.7, cutoff=4)
    mean = network.mean_w[labels][:, None]
    assert torch.allclose(out[:, :4], mean + 0.7 * (w[:, :4] - mean), atol=1e-6)
    assert torch.equal(out[:, 4:], w[:, 4:])
    assert torch.allclose(network.truncate(w, labels, psi=0.0), mean.expand(3, 6, 8), atol=1e-6)
    assert torch.equal(network.truncate(w, labels, psi=1.0), w)


def test_the_mean_of_w_follows_the_batches_class_by_class() -> None:
    network = make()
    expected = torch.zeros(2, 8)
    for number in range(20):
        w = torch.randn(4, 8)
        labels = torch.tensor([0, 0, 0, 1]) if number % 2 else torch.zeros(4, dtype=torch.int64)
        network.track_mean_w(w, labels)
        expected[0] = 0.995 * expected[0] + 0.005 * w[labels == 0].mean(dim=0)
        if number % 2:
            expected[1] = 0.995 * expected[1] + 0.005 * w[3]
    assert torch.allclose(network.mean_w, expected, atol=1e-6)


@pytest.mark.parametrize("growth", [1.0, 1.5, 2.0])
def test_a_growing_network_draws_the_full_size(growth: float) -> None:
    network = make()
    network.growth.fill_(growth)
    noise = [torch.randn(2, 1, side, side) for side in network.noise_sides(growth)]
    images = network(torch.randn(2, 8), torch.tensor([0, 1]), noise=noise)
    assert images.shape == (2, 1, 16, 16)
    same = torch.equal(images, images[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert same == (growth == 1.0)  # at 8 pixels each is doubled


def test_noise_has_a_map_for_each_layer() -> None:
    assert make().noise_sides() == [4, 4, 8, 8, 16, 16]
    assert make().noise_sides(0.5) == [4, 4, 8, 8]
