"""One training step of a DCGAN: non-saturating loss on logits, augmented discriminator, averaged generator."""

from collections.abc import Mapping

import torch
from torch import Tensor

from genmix_transforms.generators.adversarial import AdversarialTraining, discriminator_loss, generator_loss
from genmix_transforms.generators.augmentation import diff_augment, draw_augmentation
from genmix_transforms.generators.dcgan.network import DCGANDiscriminator, DCGANNetwork
from genmix_transforms.generators.dcgan.settings import DCGANSettings


class DCGANTraining(AdversarialTraining):
    """One DCGAN in training; see :class:`AdversarialTraining`."""

    network: DCGANNetwork
    discriminator: DCGANDiscriminator

    discriminator_optimiser: torch.optim.Optimizer
    optimiser: torch.optim.Optimizer

    def __init__(self, network: DCGANNetwork, discriminator: DCGANDiscriminator, *, settings: DCGANSettings) -> None:
        super().__init__(network, discriminator, ema_half_life=settings.ema_half_life)
        self.settings = settings
        self.optimiser, self.discriminator_optimiser = (
            torch.optim.Adam(each.parameters(), lr=settings.learning_rate, betas=settings.betas, fused=True)
            for each in (self.network, self.discriminator)
        )

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One step of the discriminator, then one of the generator, on the same synthetic batch.

        The classes of the synthetic batch are those of the real one, so that both show the same mixture.
        """
        discriminator = self.discriminator
        synthetic = self.network(torch.randn(len(images), self.network.latent_size, device=images.device), labels)

        discriminator.requires_grad_(True)
        # Two passes, so that BatchNorm sees real and synthetic images apart; one backward for both.
        real = discriminator(self._augmented(images), labels)
        loss = discriminator_loss(real, discriminator(self._augmented(synthetic.detach()), labels))
        self.take_step(self.discriminator_optimiser, loss)

        discriminator.requires_grad_(False)
        painter_loss = generator_loss(discriminator(self._augmented(synthetic), labels))
        self.take_step(self.optimiser, painter_loss)

        self.average.update(self.network, batch=self.settings.batch_size, images_seen=images_seen)
        return {"discriminator": loss, "generator": painter_loss}

    def _augmented(self, images: Tensor) -> Tensor:
        if not self.settings.augment:
            return images
        return diff_augment(images, draw_augmentation(images), policy=self.settings.augment)
