"""What all GANs train alike: two networks, the non-saturating losses, and the average that images are drawn from."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.generators.ema import MovingAverage
from genmix_transforms.generators.state import Stateful


class AdversarialTraining:
    """The networks and the average of one GAN in training; a kind adds the optimizers and the step.

    Args:
        network: what is trained; its weights are where the training starts.
        discriminator: trained with it, on the same device.
        ema_half_life: of the average, in images.
    """

    optimiser: torch.optim.Optimizer
    discriminator_optimiser: torch.optim.Optimizer

    def __init__(self, network: nn.Module, discriminator: nn.Module, *, ema_half_life: float) -> None:
        self.network = network
        self.discriminator = discriminator
        for each in (network, discriminator):
            each.train().requires_grad_(True)
            each.to(memory_format=_layout(each))
        # After the change of layout: an average of the same strides takes the fast path of a step.
        self.average: MovingAverage = MovingAverage(network, half_life=ema_half_life)

    def state_objects(self) -> Mapping[str, Stateful]:
        """Both networks, both optimizers, and the average."""
        return {
            "generator": self.network,
            "discriminator": self.discriminator,
            "generator_optimiser": self.optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
            "average": self.average,
        }

    @staticmethod
    def take_step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        """Move what the optimizer trains by the gradient of the loss."""
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def result(self) -> nn.Module:
        """The averaged network, which is what images are drawn from."""
        return self.average.average


def _layout(network: nn.Module) -> torch.memory_format:
    """Channels last, as kernels of convolutions of two or of three dimensions have it."""
    volumes = any(parameter.ndim == 5 for parameter in network.parameters())
    return torch.channels_last_3d if volumes else torch.channels_last


def discriminator_loss(real: Tensor, synthetic: Tensor) -> Tensor:
    """``softplus(-D(x)) + softplus(D(G(z)))``, means over the batch, from logits ``(N,)``."""
    return F.softplus(-real.float()).mean() + F.softplus(synthetic.float()).mean()


def generator_loss(synthetic: Tensor) -> Tensor:
    """The non-saturating ``softplus(-D(G(z)))``, mean over the batch, from logits ``(N,)``."""
    return F.softplus(-synthetic.float()).mean()
