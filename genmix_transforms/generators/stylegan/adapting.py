"""Weights of a trained StyleGAN for other images: fewer or more pixels, other channels, classes where it had none.

The rule, so that fine-tuning starts from as much of what was learned as there is:

*Resolution.* The mapping network, the constant and every block up to the new resolution are kept, with the ToRGB (and
the discriminator's FromRGB) that belongs to it. So the image is, exactly, what the original made at that resolution on
its way up. Blocks above it are left out. Blocks that the original never had are drawn with the seed; until training
grows into them, images are the original's, doubled.

*Channels.* Color to gray: ToRGB gives the luma (ITU-R 601: 0.299, 0.587, 0.114), so the image is, exactly, the gray
version of the original's; the discriminator sees the gray in all three. Gray to color: the gray in all three, and the
discriminator sees their luma. Between other numbers of channels: the mean of the old in each of the new.

*Classes.* A network without classes gets vectors of ones, which multiply the latent: every class starts as the
original, with its mean w, and the discriminator with its score. A network with classes keeps their number, in their
order, under other names if need be.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.network import StyleGANNetwork

LUMA = (0.299, 0.587, 0.114)


def adapt_network(new: StyleGANNetwork, old: StyleGANNetwork) -> None:
    """Give a new network, which is initialized, the weights of an old one wherever they fit."""
    before = {name: tensor.cpu() for name, tensor in old.state_dict().items()}
    state = _kept(new.state_dict(), before)
    mixing = _mixing(*(len(side["synthesis.to_rgb.0.bias"]) for side in (before, state)))
    for level in range(min(new.full_growth, old.full_growth) + 1):
        weight, bias = f"synthesis.to_rgb.{level}.weight", f"synthesis.to_rgb.{level}.bias"
        state[weight] = torch.einsum("nc,cwhv->nwhv", mixing, before[weight])
        state[bias] = mixing @ before[bias]
    state["mean_w"] = before["mean_w"].expand(len(new.mean_w), -1).clone()
    if len(old.mean_w) == 1 < len(new.mean_w):
        state["mapping.embedding.weight"] = torch.ones_like(state["mapping.embedding.weight"])
    state["growth"] = before["growth"].clamp(max=float(new.full_growth))
    new.load_state_dict(state)


def adapt_discriminator(new: StyleGANDiscriminator, old: StyleGANDiscriminator) -> None:
    """The same of a discriminator."""
    before = {name: tensor.cpu() for name, tensor in old.state_dict().items()}
    state = _kept(new.state_dict(), before)
    channels, old_channels = (len(side["from_rgb.0.weight"][0]) for side in (new.state_dict(), before))
    # What the new images look like to the old network. A weight counts for less, the more channels there are.
    seeing = _mixing(channels, old_channels) * (channels / old_channels) ** 0.5
    for level in range(min(new.full_growth, old.full_growth) + 1):
        weight = before[f"from_rgb.{level}.weight"]
        state[f"from_rgb.{level}.weight"] = torch.einsum("wohv,on->wnhv", weight, seeing)
    for name in ("last.score.weight", "last.score.bias"):
        state[name] = before[name].expand(len(state[name]), *before[name].shape[1:]).clone()
    new.load_state_dict(state)


def _mixing(old: int, new: int) -> Tensor:
    """``(new, old)``: the new channels as sums of the old."""
    if old == new:
        return torch.eye(new)
    if (old, new) == (3, 1):
        return torch.tensor([LUMA])
    return torch.full((new, old), 1 / old)


def _kept(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The new state, with the old tensors wherever they fit: blocks go by their level, so they are the same's."""
    return {
        name: (old[name] if name in old and old[name].shape == tensor.shape else tensor).clone()
        for name, tensor in new.items()
    }
