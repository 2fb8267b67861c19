"""The DCGAN networks, held against the PyTorch DCGAN example's layout written out here by hand."""

import pytest
import torch
from torch import nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.dcgan.network import (
    DCGANDiscriminator,
    DCGANNetwork,
    adapt_classes,
    initialise,
    stage_widths,
)


def example_generator(channels: int) -> nn.Sequential:
    """The example's generator, layer by layer as its paper's Figure 1 has it."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride, padding in ((100, 512, 1, 0), (512, 256, 2, 1), (256, 128, 2, 1), (128, 64, 2, 1)):
        layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False))
        layers.extend([nn.BatchNorm2d(outputs), nn.ReLU()])
    layers.extend([nn.ConvTranspose2d(64, channels, 4, 2, 1, bias=False), nn.Tanh()])
    return nn.Sequential(*layers)


def example_discriminator(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for inputs, outputs in ((64, 128), (128, 256), (256, 512)):
        layers.extend([nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)])
    layers.append(nn.Conv2d(512, 1, 4, 1, 0, bias=False))
    return nn.Sequential(*layers)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameter_counts_are_the_published_ones() -> None:
    assert parameters(DCGANNetwork(channels=3)) == 3_576_704
    assert parameters(DCGANDiscriminator(channels=3)) == 2_765_568


@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_logits_equal_the_examples(channels: int) -> None:
    ours, theirs = DCGANNetwork(channels=channels), example_generator(channels)
    theirs.load_state_dict({name.removeprefix("main."): value for name, value in ours.state_dict().items()})
    latents, labels = torch.randn(4, 100), torch.zeros(4, dtype=torch.int64)
    images = ours(latents, labels)
    assert torch.allclose(images, theirs(latents[:, :, None, None]), atol=1e-6)
    judge, other = DCGANDiscriminator(channels=channels), example_discriminator(channels)
    other.load_state_dict({name.removeprefix("main."): value for name, value in judge.state_dict().items()})
    assert torch.allclose(judge(images, labels), other(images).flatten(), atol=1e-5)


@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256])
@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (2, 3)])
def test_every_size(resolution: int, channels: int, classes: int) -> None:
    network = DCGANNetwork(resolution=resolution, channels=channels, classes=classes, base_width=2, latent_size=5)
    labels = torch.arange(3) % classes
    images = network(torch.randn(3, 5), labels)
    assert images.shape == (3, channels, resolution, resolution)
    assert images.abs().max() <= 1
    judge = DCGANDiscriminator(resolution=resolution, channels=channels, classes=classes, base_width=2)
    assert judge(images, labels).shape == (3,)


def plain_volume_generator(channels: int) -> nn.Sequential:
    """A generator of volumes of 16 pixels, written out: the example's layers with three dimensions."""
    return nn.Sequential(
        nn.ConvTranspose3d(12, 8, 4, 1, 0, bias=False), nn.BatchNorm3d(8), nn.ReLU(),
        nn.ConvTranspose3d(8, 4, 4, 2, 1, bias=False), nn.BatchNorm3d(4), nn.ReLU(),
        nn.ConvTranspose3d(4, channels, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def plain_volume_discriminator(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, 4, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
        nn.Conv3d(4, 8, 4, 2, 1, bias=False), nn.BatchNorm3d(8), nn.LeakyReLU(0.2),
        nn.Conv3d(8, 1, 4, 1, 0, bias=False),
    )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 2])
def test_volumes_and_their_logits_equal_those_of_plain_layers(channels: int) -> None:
    sizes = {"resolution": 16, "channels": channels, "base_width": 4, "dimensions": 3}
    ours, theirs = DCGANNetwork(latent_size=12, **sizes), plain_volume_generator(channels)  # type: ignore[arg-type]
    initialise(ours, seed=0)
    assert parameters(ours) == parameters(theirs) == 64 * (12 * 8 + 8 * 4 + 4 * channels) + 2 * (8 + 4)
    theirs.load_state_dict({name.removeprefix("main."): value for name, value in ours.state_dict().items()})
    latents, labels = torch.randn(3, 12), torch.zeros(3, dtype=torch.int64)
    volumes = ours(latents, labels)
    assert volumes.shape == (3, channels, 16, 16, 16)
    assert torch.allclose(volumes, theirs(latents.view(3, 12, 1, 1, 1)), atol=1e-6)
    judge, other = DCGANDiscriminator(**sizes), plain_volume_discriminator(channels)  # type: ignore[arg-type]
    initialise(judge, seed=0)
    assert parameters(judge) == parameters(other) == 64 * (4 * channels + 4 * 8 + 8) + 2 * 8
    other.load_state_dict({name.removeprefix("main."): value for name, value in judge.state_dict().items()})
    assert torch.allclose(judge(volumes, labels), other(volumes).flatten(), atol=1e-5)


def test_volumes_of_several_classes_and_a_larger_size() -> None:
    network = DCGANNetwork(resolution=32, classes=3, base_width=2, latent_size=5, dimensions=3)
    labels = torch.tensor([0, 2])
    volumes = network(torch.randn(2, 5), labels)
    assert volumes.shape == (2, 1, 32, 32, 32)
    assert DCGANDiscriminator(resolution=32, classes=3, base_width=2, dimensions=3)(volumes, labels).shape == (2,)


def test_widths_double_up_to_eight_times() -> None:
    assert stage_widths(16, 64) == [64, 128]
    assert stage_widths(64, 64) == [64, 128, 256, 512]
    assert stage_widths(256, 32) == [32, 64, 128, 256, 256, 256]


def test_the_class_changes_the_image_and_the_score() -> None:
    torch.manual_seed(0)
    network = DCGANNetwork(resolution=16, classes=2, base_width=4).eval()
    latents = torch.randn(1, 100)
    one, other = (network(latents, torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(one, other)
    judge = DCGANDiscriminator(resolution=16, classes=2, base_width=4).eval()
    scores = [judge(one, torch.tensor([label])) for label in (0, 1)]
    assert scores[0] != scores[1]


def test_the_class_gives_no_picture_without_a_latent() -> None:
    # Appended instead of multiplied, the class alone would make one picture of each class, and training takes that way.
    network = DCGANNetwork(resolution=16, classes=2, base_width=4).eval()
    nothing = network(torch.zeros(2, 100), torch.tensor([0, 1]))
    assert torch.equal(nothing[0], nothing[1])


def test_weights_are_drawn_as_in_the_paper_and_by_seed() -> None:
    network, again, other = (DCGANNetwork(classes=3) for _ in range(3))
    for module, seed in ((network, 3), (again, 3), (other, 4)):
        initialise(module, seed=seed)
    assert network.main[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert network.main[1].weight.mean().item() == pytest.approx(1, abs=0.01)
    assert network.main[1].weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert network.embedding is not None
    assert network.embedding.weight.std().item() == pytest.approx(1, rel=0.15)
    assert torch.equal(network.main[0].weight, again.main[0].weight)
    assert not torch.equal(network.main[0].weight, other.main[0].weight)


def tiny(classes: int, *, seed: int = 0) -> DCGANNetwork:
    network = DCGANNetwork(resolution=16, classes=classes, latent_size=6, base_width=2)
    initialise(network, seed=seed)
    return network.eval()


def adapted(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[DCGANNetwork, DCGANNetwork]:
    before, after = tiny(len(old), seed=3), tiny(len(new))
    adapt_classes(after, before, new_classes=new, old_classes=old)
    return before, after


def test_each_class_begins_as_a_network_without_classes() -> None:
    before, after = adapted(("unlabelled",), ("cyst", "metastasis", "hemangioma"))
    latents = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        drawn = before(latents, torch.zeros(4, dtype=torch.int64))
        for label in range(3):
            assert torch.equal(after(latents, torch.full((4,), label)), drawn)


@pytest.mark.parametrize(
    ("new", "rows"),
    [
        (("b", "c"), [1, 2]),  # some of its names
        (("c", "a", "b"), [2, 0, 1]),  # in another order
        (("x", "y", "z"), [0, 1, 2]),  # as many others
        (("c", "y", "a"), [0, 1, 2]),  # names that do not all go on mean others
    ],
)
def test_names_keep_their_vectors(new: tuple[str, ...], rows: list[int]) -> None:
    before, after = adapted(("a", "b", "c"), new)
    assert before.embedding is not None
    assert after.embedding is not None
    assert torch.equal(after.embedding.weight, before.embedding.weight[rows])
    assert torch.equal(after.main[0].weight, before.main[0].weight)


def test_a_network_without_classes_may_call_its_images_otherwise() -> None:
    before, after = adapted(("unlabelled",), ("cyst",))
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in after.state_dict().items())


def test_classes_that_cannot_be_had() -> None:
    with pytest.raises(InputError, match=r"knows 2 classes \(a, b\), and was to be fine-tuned on 3 \(a, b, c\)"):
        adapted(("a", "b"), ("a", "b", "c"))
    with pytest.raises(InputError, match="was to be fine-tuned on unlabelled alone"):
        adapted(("a", "b"), ("unlabelled",))
