"""The DCGAN networks: Radford, Metz, Chintala (arXiv 1511.06434), for any power-of-two size from 16 to 256.

At 64 pixels and with one class they are, name for name, the networks of the PyTorch DCGAN example. For volumes each
layer is the same with three dimensions in place of two.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.class_embedding import ClassEmbedding

Dimensions = Literal[2, 3]
"""Of an image without its channels: 2 for images ``(C, H, W)``, 3 for volumes ``(C, D, H, W)``."""


class Layers(NamedTuple):
    """The layers that a network is made of."""

    convolution: type[nn.Conv2d | nn.Conv3d]
    transposed: type[nn.ConvTranspose2d | nn.ConvTranspose3d]
    norm: type[nn.BatchNorm2d | nn.BatchNorm3d]


LAYERS: dict[Dimensions, Layers] = {
    2: Layers(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d),
    3: Layers(nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d),
}


def stage_widths(resolution: int, base_width: int) -> list[int]:
    """Channels at each resolution from ``resolution / 2`` down to 4: doubling, at most eight times the base."""
    return [base_width * min(2**stage, 8) for stage in range(resolution.bit_length() - 3)]


class DCGANNetwork(nn.Module):
    """The generator network. With more than one class, a learned vector of the class multiplies the latent."""

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 1,
        classes: int = 1,
        latent_size: int = 100,
        base_width: int = 64,
        dimensions: Dimensions = 2,
    ) -> None:
        super().__init__()
        self.latent_size: int = latent_size
        self.dimensions: Dimensions = dimensions
        _, transposed, norm = LAYERS[dimensions]
        # The class multiplies the latent and is not appended to it: appended, it is a way to a picture that needs no
        # latent, and the network takes it. Measured on 391 ultrasound patches at 32 pixels: after 24,000 images the
        # pixels' standard deviation within a class is 3 gray levels appended and 33 multiplied; the real patches' is
        # 38.
        self.embedding: ClassEmbedding | None = ClassEmbedding(classes, latent_size) if classes > 1 else None
        widths = stage_widths(resolution, base_width)[::-1]
        inputs = latent_size
        layers: list[nn.Module] = []
        for stage, width in enumerate(widths):
            stride, padding = (1, 0) if stage == 0 else (2, 1)
            layers += [transposed(inputs, width, 4, stride, padding, bias=False), norm(width)]
            layers += [nn.ReLU(inplace=True)]
            inputs = width
        layers += [transposed(inputs, channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.main: nn.Sequential = nn.Sequential(*layers)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents ``(N, latent_size)`` and labels, int64 ``(N,)`` or rows of weights ``(N, K)``, to images in [-1, 1].

        The images are ``(N, C, H, W)``, the volumes ``(N, C, D, H, W)``.
        """
        if self.embedding is not None:
            latents = latents * self.embedding(labels)
        images: Tensor = self.main(latents[(..., *[None] * self.dimensions)])
        return images


class DCGANDiscriminator(nn.Module):
    """The discriminator network: one score for each class, of which the image's own counts."""

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 1,
        classes: int = 1,
        base_width: int = 64,
        dimensions: Dimensions = 2,
    ) -> None:
        super().__init__()
        convolution, _, norm = LAYERS[dimensions]
        layers: list[nn.Module] = []
        inputs = channels
        for stage, width in enumerate(stage_widths(resolution, base_width)):
            layers += [convolution(inputs, width, 4, 2, 1, bias=False)]
            layers += [norm(width)] if stage > 0 else []
            layers += [nn.LeakyReLU(0.2, inplace=True)]
            inputs = width
        layers += [convolution(inputs, classes, 4, 1, 0, bias=False)]
        self.main: nn.Sequential = nn.Sequential(*layers)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images or volumes in [-1, 1] and labels int64 ``(N,)`` to logits ``(N,)``: positive for real."""
        scores: Tensor = self.main(images).flatten(1)
        return scores.gather(1, labels[:, None]).squeeze(1)


def class_sources(new_classes: Sequence[str], old_classes: Sequence[str]) -> list[int]:
    """Which old class each new class begins as, when a network is given other classes.

    With one old class, every new class begins as that one. Otherwise each name keeps its place; as many other names
    take over the places in their order.

    Raises:
        InputError: names that it does not know, and another number of them than it knows.
    """
    if len(old_classes) == 1:
        return [0] * len(new_classes)
    if len(new_classes) == 1:
        raise InputError(
            f"the network knows the classes {', '.join(old_classes)}, and was to be fine-tuned on {new_classes[0]} "
            "alone: a network of one class is trained from scratch"
        )
    names = new_classes if set(new_classes) <= set(old_classes) else old_classes
    if len(names) != len(new_classes):
        raise InputError(
            f"the network knows {len(old_classes)} classes ({', '.join(old_classes)}), and was to be fine-tuned on "
            f"{len(new_classes)} ({', '.join(new_classes)}): name as many, or some of these, or start from a "
            "network without classes"
        )
    return [list(old_classes).index(name) for name in names]


@torch.no_grad()
def adapt_classes(
    new: DCGANNetwork, old: DCGANNetwork, *, new_classes: Sequence[str], old_classes: Sequence[str]
) -> None:
    """Give a network the weights of one that differs in its classes alone; see :func:`class_sources`.

    A network without classes gets vectors of ones, which multiply the latent: every class starts as the original.
    """
    sources, state = class_sources(new_classes, old_classes), old.state_dict()
    if new.embedding is not None:
        known = torch.ones(1, old.latent_size) if old.embedding is None else old.embedding.weight
        state["embedding.weight"] = known[sources].clone()
    new.load_state_dict(state)


@torch.no_grad()
def adapt_scores(
    new: DCGANDiscriminator, old: DCGANDiscriminator, *, new_classes: Sequence[str], old_classes: Sequence[str]
) -> None:
    """Give a discriminator the weights of one that differs in its classes alone; see :func:`class_sources`."""
    state = old.state_dict()
    last = list(state)[-1]
    state[last] = state[last][class_sources(new_classes, old_classes)].clone()
    new.load_state_dict(state)


@torch.no_grad()
def initialise(network: nn.Module, *, seed: int) -> None:
    """Draw the weights as the DCGAN paper does: convolutions N(0, 0.02), BatchNorm N(1, 0.02) and 0; classes N(0, 1).

    Always on the CPU and in the same order, so that a seed gives the same network everywhere.
    """
    random = torch.Generator().manual_seed(seed)

    def draw(parameter: Tensor, mean: float, deviation: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=random) * deviation + mean)

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)):
            draw(module.weight, 0.0, 0.02)
        elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            draw(module.weight, 1.0, 0.02)
            module.bias.zero_()
            module.reset_running_stats()
        elif isinstance(module, nn.Embedding):
            draw(module.weight, 0.0, 1.0)
