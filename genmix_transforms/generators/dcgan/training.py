"""One training step of a DCGAN: non-saturating loss on logits, augmented discriminator, averaged generator."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.generators.augmentation import diff_augment, draw_augmentation
from genmix_transforms.generators.dcgan.network import DCGANDiscriminator, DCGANNetwork
from genmix_transforms.generators.dcgan.settings import DCGANSettings
from genmix_transforms.generators.ema import MovingAverage
from genmix_transforms.generators.state import Stateful


class DCGANTraining:
    """The networks, optimisers and average of one DCGAN in training.

    Args:
        network: what is trained; its weights are where the training starts.
        discriminator: trained with it, on the same device.
        settings: how they are trained.
    """

    def __init__(self, network: DCGANNetwork, discriminator: DCGANDiscriminator, *, settings: DCGANSettings) -> None:
        self.network = network
        self.discriminator = discriminator
        self.settings = settings
        for each in (self.network, self.discriminator):
            each.train().requires_grad_(True)
            each.to(memory_format=torch.channels_last)
        # After the change of layout: an average of the same strides takes the fast path of a step.
        self.average = MovingAverage(network, half_life=settings.ema_half_life)
        self.optimiser, self.discriminator_optimiser = (
            torch.optim.Adam(each.parameters(), lr=settings.learning_rate, betas=settings.betas, fused=True)
            for each in (self.network, self.discriminator)
        )

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

        self.average.update(self.network, batch=self.settings.batch_size, images_seen=images_seen)
        return {"discriminator": discriminator_loss, "generator": generator_loss}

    def result(self) -> nn.Module:
        """The averaged network, which is what images are drawn from."""
        return self.average.average

    def _augmented(self, images: Tensor) -> Tensor:
        if not self.settings.augment:
            return images
        return diff_augment(images, draw_augmentation(images), policy=self.settings.augment)
