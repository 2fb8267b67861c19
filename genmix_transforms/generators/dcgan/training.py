"""One training step of a DCGAN: non-saturating loss on logits, augmented discriminator, averaged generator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.generators.augmentation import diff_augment, draw_augmentation
from genmix_transforms.generators.dcgan.network import DCGANDiscriminator
from genmix_transforms.generators.ema import MovingAverage
from genmix_transforms.generators.state import Stateful

if TYPE_CHECKING:
    from genmix_transforms.generators.dcgan.generator import DCGAN


@dataclass(frozen=True)
class Schedule:
    """A named training schedule."""

    steps: int  # optimiser iterations
    batch_size: int  # images, all processes together
    learning_rate: float  # of Adam, both networks


PRESETS = {
    # Radford et al., section 4: learning rate 0.0002 ("0.001, we found, was too high"), betas 0.5 and 0.999. The batch
    # is not theirs (128) but one that suits a few hundred images.
    "dcgan": Schedule(steps=20_000, batch_size=32, learning_rate=0.0002),
    # Lee et al. (arXiv 2405.20650), section 3.1: 70,000 iterations, batch 8, learning rate 0.001.
    "paper": Schedule(steps=70_000, batch_size=8, learning_rate=0.001),
}


class DCGANTraining:
    """The networks, optimisers and average of one DCGAN in training.

    Args:
        generator: what is trained; its network's weights are where the training starts.
        discriminator: trained with it, on the same device.
        learning_rate: of Adam, for both networks.
        betas: of Adam.
        augment: the DiffAugment policy of what the discriminator sees; empty for none.
        ema_half_life: images after which a weight counts for half in the average that is sampled from.
    """

    def __init__(
        self,
        generator: "DCGAN",
        discriminator: DCGANDiscriminator,
        *,
        learning_rate: float,
        betas: tuple[float, float],
        augment: Sequence[str],
        ema_half_life: float,
    ) -> None:
        self.generator = generator
        self.average = MovingAverage(generator.network, half_life=ema_half_life)
        self.network = generator.network
        self.discriminator = discriminator
        for network in (self.network, self.discriminator):
            network.train().requires_grad_(True)
            network.to(memory_format=torch.channels_last)
        self.optimiser, self.discriminator_optimiser = (
            torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas, fused=True)
            for network in (self.network, self.discriminator)
        )
        self.augment = tuple(augment)

    def state_objects(self) -> Mapping[str, Stateful]:
        """Both networks, both optimisers, and the average."""
        return {
            "generator": self.network,
            "discriminator": self.discriminator,
            "generator_optimiser": self.optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
            "average": self.average,
        }

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One step of the discriminator, then one of the generator, on the same synthetic batch.

        The classes of the synthetic batch are those of the real one, so that both show the same mixture.
        """
        discriminator = self.discriminator
        synthetic = self.network(torch.randn(len(images), self.network.latent_size, device=images.device), labels)

        discriminator.requires_grad_(True)
        # Two passes, so that BatchNorm sees real and synthetic images apart; one backward for both.
        real_logits = discriminator(self._augmented(images), labels).float()
        synthetic_logits = discriminator(self._augmented(synthetic.detach()), labels).float()
        discriminator_loss = F.softplus(-real_logits).mean() + F.softplus(synthetic_logits).mean()
        self.discriminator_optimiser.zero_grad(set_to_none=True)
        discriminator_loss.backward()
        self.discriminator_optimiser.step()

        discriminator.requires_grad_(False)
        generator_loss = F.softplus(-discriminator(self._augmented(synthetic), labels).float()).mean()
        self.optimiser.zero_grad(set_to_none=True)
        generator_loss.backward()
        self.optimiser.step()

        self.average.update(self.network, batch=len(images), images_seen=images_seen)
        return {"discriminator": discriminator_loss, "generator": generator_loss}

    def result(self) -> nn.Module:
        """The network with the averaged weights: what is sampled from."""
        return self.average.average

    def _augmented(self, images: Tensor) -> Tensor:
        if not self.augment:
            return images
        return diff_augment(images, draw_augmentation(images), policy=self.augment)
