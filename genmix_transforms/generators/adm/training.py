"""One training step of an ADM: noisy images of all kinds of noise, and the averaged network."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genmix_transforms.generators.adm.loss import BOUND_WEIGHT, HybridLoss
from genmix_transforms.generators.adm.settings import TrainingSettings, label_dropout
from genmix_transforms.generators.adm.timesteps import TimestepSampler
from genmix_transforms.generators.adm.tuning import trained, with_weights
from genmix_transforms.generators.augmentation import mirrored
from genmix_transforms.generators.ema import MovingAverage, half_life_of
from genmix_transforms.generators.state import Stateful

if TYPE_CHECKING:
    from genmix_transforms.generators.adm.generator import ADM


class ADMTraining:
    """A network in training, its optimiser, its average, and what it learns of the timesteps.

    Args:
        generator: what is trained.
        network: its weights, on the device, as :func:`prepare_for_tuning` left them.
        settings: see there.
        loss: on the same device.
        timesteps: what draws them.
        ema_device: where the average is kept; None: beside the network.
    """

    def __init__(
        self,
        generator: "ADM",
        network: nn.Module,
        *,
        settings: TrainingSettings,
        loss: HybridLoss,
        timesteps: TimestepSampler,
        ema_device: torch.device | None = None,
    ) -> None:
        self.generator = generator
        self.network = network
        self.settings = settings
        self.loss = loss
        self.timesteps = timesteps
        self.label_dropout = label_dropout(generator, settings)
        self._trained = nn.ParameterList(trained(network))
        schedule = settings.schedule
        self.average = MovingAverage(
            self._trained,
            half_life=half_life_of(settings.ema_decay, batch_size=schedule.batch_size),
            device=ema_device,
        )
        self.optimiser = torch.optim.AdamW(
            self._trained, lr=schedule.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def state_objects(self) -> Mapping[str, Stateful]:
        """The network, the optimiser, the average and the timesteps' losses."""
        return {
            "network": self.network,
            "optimiser": self.optimiser,
            "average": self.average,
            "timesteps": self.timesteps,
        }

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One step on noisy images of all kinds of noise.

        Returns:
            "mse", the error in the noise; and, of a network that tells the variance, "bits_per_dim": the variational
            bound, as the mean of a term estimates it.
        """
        count = len(images)
        if self.settings.mirror:
            images = mirrored(images)
        if self.label_dropout:
            hidden = torch.rand(count, device=labels.device) < self.label_dropout
            labels = torch.where(hidden, torch.full_like(labels, self.generator.configuration.num_classes), labels)
        timesteps, weights = self.timesteps.draw(count)
        added = torch.randn_like(images)
        terms = []
        for part in parts(count, self.settings.accumulate):
            squared, bits = self.losses(images[part], labels[part], timesteps[part], added[part])
            each = self._sum(squared, bits)
            (each * weights[part]).sum().div(count).backward()
            terms.append((squared.detach(), None if bits is None else bits.detach()))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(self._trained, batch=self.settings.schedule.batch_size, images_seen=images_seen)
        squared = torch.cat([term for term, _ in terms])
        bits = torch.cat([term for _, term in terms if term is not None]) if terms[0][1] is not None else None
        self.timesteps.update(timesteps, self._sum(squared, bits))
        values = {"mse": (weights * squared).mean()}
        return values if bits is None else {**values, "bits_per_dim": self.loss.count * (weights * bits).mean()}

    def losses(self, images: Tensor, labels: Tensor, timesteps: Tensor, added: Tensor) -> tuple[Tensor, Tensor | None]:
        """The two parts of the loss of each image."""
        told = labels if self.generator.configuration.class_cond else None
        return noise_losses(self.network, self.loss, images, told, timesteps, added)

    def _sum(self, squared: Tensor, bits: Tensor | None) -> Tensor:
        # L_vlb is the sum of all terms: one of them stands for as many as there are timesteps.
        return squared if bits is None else squared + BOUND_WEIGHT * self.loss.count * bits

    def result(self) -> nn.Module:
        """The network with the averaged weights: a copy, for which the gradients have left room."""
        return with_weights(self.network, list(self.average.average.parameters()))


def parts(count: int, number: int) -> Iterator[slice]:
    """``count`` images in ``number`` parts, as even as can be."""
    for part in range(number):
        yield slice(part * count // number, (part + 1) * count // number)


def noise_losses(
    network: nn.Module,
    loss: HybridLoss,
    images: Tensor,
    labels: Tensor | None,
    timesteps: Tensor,
    added: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """What the network says of noisy images, judged: see :meth:`HybridLoss.__call__`."""
    noisy = loss.noisy(images, added, timesteps)
    prediction = network(noisy, timesteps, class_labels=labels, return_dict=False)[0]
    return loss(prediction, images, added, timesteps)
