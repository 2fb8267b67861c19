"""The training of an ADM: what of the network is trained, one step on noisy images, and the averaged network."""

import copy
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.class_rows import put_in_rows, take_out_rows
from genmix_transforms.generators.adm.configuration import ADMConfiguration
from genmix_transforms.generators.adm.loss import BOUND_WEIGHT, HybridLoss
from genmix_transforms.generators.adm.settings import ADMSettings
from genmix_transforms.generators.adm.timesteps import UniformTimesteps
from genmix_transforms.generators.augmentation import mirrored
from genmix_transforms.generators.ema import MovingAverage, half_life_of
from genmix_transforms.generators.frozen import FrozenWeights
from genmix_transforms.generators.lora import add_adapters, merge_adapters
from genmix_transforms.generators.state import Stateful

_ENDS = ("class_embedding", "conv_in", "conv_norm_out", "conv_out")
"""What new classes and channels change: trained whole, whatever else is."""

_BYTES_TRAINED = 16
"""Of a trained number: the gradient, AdamW's two moments and the average, in float32."""

_SHARE_FOR_ACTIVATIONS = 0.5
"""Of the device's free memory, which the rest must leave over."""


class ADMTraining:
    """A network in training, its optimizer, its average, and what it learns of the timesteps.

    The network is on the device of ``loss``, as :func:`prepare_for_tuning` left it; ``label_dropout`` is a number.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        configuration: ADMConfiguration,
        settings: ADMSettings,
        loss: HybridLoss,
        timesteps: UniformTimesteps,
    ) -> None:
        self.network = network
        self.configuration = configuration
        self.settings = settings
        self.loss = loss
        self.timesteps = timesteps
        self._trained = nn.ParameterList(trained(network))
        self.frozen: FrozenWeights = FrozenWeights(network, trained=self._trained)
        self.average: MovingAverage = MovingAverage(
            self._trained,
            half_life=half_life_of(settings.ema_decay, batch_size=settings.batch_size),
            device=place_average(self._trained, settings.ema_device),
        )
        self.optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            self._trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )

    def state_objects(self) -> Mapping[str, Stateful]:
        """The network, or what of it is trained if that is but some rows, the optimizer, the average, the timesteps."""
        part: nn.Module = (
            self.network.get_submodule("class_embedding") if self.settings.tune == "classes" else self.network
        )
        return {
            "network": part,
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
        with self.frozen.narrow(images.device):
            return self._step(images, labels, images_seen)

    def _step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        settings, count = self.settings, len(images)
        if settings.mirror:
            images = mirrored(images)
        if settings.label_dropout:
            hidden = torch.rand(count, device=labels.device) < settings.label_dropout
            labels = torch.where(hidden, torch.full_like(labels, self.configuration.num_classes), labels)
        timesteps, weights = self.timesteps.draw(count)
        added = torch.randn_like(images)
        terms = []
        try:
            for part in parts(count, settings.accumulate):
                squared, bits = self.losses(images[part], labels[part], timesteps[part], added[part])
                each = self._sum(squared, bits)
                (each * weights[part]).sum().div(count).backward()
                terms.append((squared.detach(), None if bits is None else bits.detach()))
            self.optimiser.step()
        except torch.OutOfMemoryError as error:
            raise InputError(
                "ADM.fit: the device's memory is too small for one step; share it among more parts (accumulate), keep "
                "fewer activations (gradient_checkpointing), compute in bf16 (mixed_precision), keep the average "
                "elsewhere (ema_device='cpu'), tune 'attention', 'lora' or 'classes', or take smaller images"
            ) from error
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(self._trained, batch=settings.batch_size, images_seen=images_seen)
        squared = torch.cat([term for term, _ in terms])
        bits = torch.cat([term for _, term in terms if term is not None]) if terms[0][1] is not None else None
        self.timesteps.update(timesteps, self._sum(squared, bits))
        values = {"mse": (weights * squared).mean()}
        return values if bits is None else {**values, "bits_per_dim": self.loss.count * (weights * bits).mean()}

    def losses(self, images: Tensor, labels: Tensor, timesteps: Tensor, added: Tensor) -> tuple[Tensor, Tensor | None]:
        """The two parts of the loss of each image: see :meth:`HybridLoss.__call__`."""
        told = labels if self.configuration.class_cond else None
        noisy = self.loss.noisy(images, added, timesteps)
        prediction = self.network(noisy, timesteps, class_labels=told, return_dict=False)[0]
        return self.loss(prediction, images, added, timesteps)

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


def prepare_for_tuning(
    network: nn.Module,
    tune: Literal["all", "attention", "lora", "classes"],
    *,
    classes: int = 1,
    lora_rank: int = 8,
    seed: int = 0,
) -> None:
    """Mark what is to be trained, in place, and set the network's mode.

    With "attention" and "lora" both ends are trained too; for "lora", adapters are put into the attention first. With
    "classes" only the rows of the ``classes`` are, and the network computes as it does when images are drawn: without
    dropout, which would be noise in what nothing can adapt to it.

    Raises:
        MissingExtraError: "lora" without peft.
    """
    network.train(tune != "classes")
    network.requires_grad_(tune == "all")
    if tune == "all":
        return
    if tune == "classes":
        put_in_rows(network, classes=classes)
        return
    if tune == "lora":
        add_adapters(network, rank=lora_rank, seed=seed, name="default")  # as checkpoints of earlier releases call them
    else:
        for module in network.modules():
            if isinstance(module, Attention):
                module.requires_grad_(True)
    for name in _ENDS:
        end = getattr(network, name, None)
        if end is not None:
            end.requires_grad_(True)


def trained(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def with_weights(network: nn.Module, values: list[Tensor]) -> nn.Module:
    """A copy of a network in training with these values for what is trained: plain, adapters and rows put in."""
    other = copy.deepcopy(network).to(trained(network)[0].device)  # where frozen weights need not be in a training
    with torch.no_grad():
        for parameter, value in zip(trained(other), values, strict=True):
            parameter.copy_(value)
    merge_adapters(other)
    take_out_rows(other)
    return other.eval().requires_grad_(False)


def place_average(parameters: nn.ParameterList, given: str) -> torch.device | None:
    """Where the averaged weights are kept; None: beside those in training.

    With "auto" they go to the CPU if a GPU would have too little memory left for the activations.
    """
    if given != "auto":
        return torch.device(given)
    device = parameters[0].device
    if device.type != "cuda":
        return None
    # What this process's allocator holds and does not use is free too.
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + unused
    needed = _BYTES_TRAINED * sum(parameter.numel() for parameter in parameters)
    return torch.device("cpu") if needed > (1 - _SHARE_FOR_ACTIVATIONS) * free else None
