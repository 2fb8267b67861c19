"""One DCGAN step: losses, who is moved by which, augmentation, and that it learns."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators import DCGAN
from genmix_transforms.generators.dcgan.network import DCGANDiscriminator, initialise
from genmix_transforms.generators.dcgan.settings import DCGANSettings
from genmix_transforms.generators.dcgan.training import DCGANTraining
from genmix_transforms.generators.pixels import to_signed_unit

TinyDCGAN = Callable[..., DCGAN]


def make(generator: DCGAN, *, augment: tuple[str, ...] = (), learning_rate: float = 2e-4) -> DCGANTraining:
    judge = DCGANDiscriminator(resolution=16, classes=len(generator.classes), base_width=4)
    initialise(judge, seed=1)
    return DCGANTraining(
        generator.network,
        judge,
        settings=DCGANSettings.of(
            {"learning_rate": learning_rate, "augment": augment, "ema_half_life": 100}, name="test"
        ),
    )


def test_the_losses_are_the_non_saturating_ones(tiny_dcgan: TinyDCGAN) -> None:
    training = make(tiny_dcgan())
    images, labels = torch.rand(8, 1, 16, 16) * 2 - 1, torch.arange(8) % 2
    torch.manual_seed(3)
    latents = torch.randn(8, 8)
    with torch.no_grad():
        synthetic = training.network(latents, labels)
        real = training.discriminator(images, labels)
        fake = training.discriminator(synthetic, labels)
        probability = torch.sigmoid
        expected = -(probability(real).log() + (1 - probability(fake)).log()).mean()
    torch.manual_seed(3)
    losses = training.training_step(images, labels, 0)
    assert losses["discriminator"].item() == pytest.approx(expected.item(), abs=1e-5)
    with torch.no_grad():  # the generator is judged by the discriminator after its step
        training.discriminator.train()
    assert losses["generator"].item() == pytest.approx(math.log(2), abs=0.7)


def test_each_network_is_moved_by_its_own_loss_alone(tiny_dcgan: TinyDCGAN) -> None:
    training = make(tiny_dcgan())
    images, labels = torch.rand(8, 1, 16, 16) * 2 - 1, torch.arange(8) % 2
    moved: dict[str, list[torch.Tensor]] = {}

    def watch(name: str, optimiser: torch.optim.Optimizer) -> None:
        def hook(optimiser: torch.optim.Optimizer, *_: object) -> None:
            moved[name] = [parameter.grad.clone() for group in optimiser.param_groups for parameter in group["params"]]

        optimiser.register_step_pre_hook(hook)

    watch("generator", training.optimiser)
    watch("discriminator", training.discriminator_optimiser)
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in training.discriminator.state_dict().items()}
    training.training_step(images, labels, 0)

    # The discriminator's gradient, computed apart: nothing of the generator's loss is in it.
    judge = DCGANDiscriminator(resolution=16, classes=2, base_width=4)
    judge.load_state_dict(before)
    reference = make(tiny_dcgan())
    torch.manual_seed(0)
    synthetic = reference.network(torch.randn(8, 8), labels).detach()
    loss = F.softplus(-judge(images, labels)).mean() + F.softplus(judge(synthetic, labels)).mean()
    expected = torch.autograd.grad(loss, list(judge.parameters()))
    for got, want in zip(moved["discriminator"], expected, strict=True):
        assert torch.allclose(got, want, atol=1e-6)
    assert all(gradient.abs().sum() > 0 for gradient in moved["generator"])


def test_only_the_discriminators_view_is_augmented(tiny_dcgan: TinyDCGAN) -> None:
    seen: list[torch.Tensor] = []
    training = make(tiny_dcgan(), augment=("translation", "cutout"))
    training.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    training.training_step(torch.ones(8, 1, 16, 16), torch.zeros(8, dtype=torch.int64), 0)
    assert len(seen) == 3  # real, synthetic, and synthetic again for the generator
    holes = (seen[0] == 0).flatten(1).float().mean(1)
    assert (holes > 0).all()
    assert holes.std() > 0  # each image its own hole
    assert seen[2].requires_grad  # the generator learns through the augmentation


def test_the_snapshot_is_the_average(tiny_dcgan: TinyDCGAN) -> None:
    training = make(tiny_dcgan(), learning_rate=0.01)
    for step in range(3):
        training.training_step(torch.rand(8, 1, 16, 16), torch.arange(8) % 2, step * 8)
    assert training.result() is training.average.average
    assert not torch.equal(training.result().main[0].weight, training.network.main[0].weight)


def test_it_learns_what_tells_the_classes_apart(
    tiny_dcgan: TinyDCGAN, tiny_patches: Callable[..., PatchDataset]
) -> None:
    patches = tiny_patches(48)
    generator = tiny_dcgan(base_width=8)
    training = make_wide(generator)
    images = to_signed_unit(patches.images)
    for step in range(250):
        torch.manual_seed(step)
        index = torch.randint(0, len(patches), (16,))
        training.training_step(images[index], patches.labels[index], step * 16)
    drawn = generator.with_network(training.result()).sample([0] * 32 + [1] * 32, list(range(64))).float()
    real = [
        patches.images[patches.labels == label].float().mean() for label in (0, 1)
    ]  # discs are dark, their reverse bright
    means = [drawn[:32].mean(), drawn[32:].mean()]
    assert real[1] - real[0] > 80
    assert means[1] - means[0] > 50
    assert drawn[:32].std(0).mean() > 5  # and images of a class differ


def make_wide(generator: DCGAN) -> DCGANTraining:
    judge = DCGANDiscriminator(resolution=16, classes=2, base_width=8)
    initialise(judge, seed=1)
    settings = DCGANSettings.of({"learning_rate": 1e-3, "augment": ("translation",), "ema_half_life": 500}, name="test")
    return DCGANTraining(generator.network, judge, settings=settings)
