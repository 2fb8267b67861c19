"""Bring a trained StyleGAN to other images: fewer or more pixels, other channels, classes where it had none.

The rule, so that fine-tuning starts from as much of what was learned as there is:

*Resolution.* The mapping network, the constant and every block up to the new resolution are kept, with the ToRGB (and
the discriminator's FromRGB) that belongs to it. So the image is, exactly, what the original made at that resolution on
its way up. Blocks above it are left out. Blocks that the original never had are drawn with the seed; until training
grows into them, images are the original's, doubled.

*Channels.* Colour to grey: ToRGB gives the luma (ITU-R 601: 0.299, 0.587, 0.114), so the image is, exactly, the grey
version of the original's; the discriminator sees the grey in all three. Grey to colour: the grey in all three, and the
discriminator sees their luma. Between other numbers of channels: the mean of the old in each of the new.

*Classes.* A network without classes gets vectors of ones, which multiply the latent: every class starts as the
original, with its mean w, and the discriminator with its score. A network with classes keeps their number, in their
order, under other names if need be.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.generator import StyleGAN
from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.schedule import doublings, resolution_at

LUMA = (0.299, 0.587, 0.114)


def adapt_stylegan(
    generator: StyleGAN,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> StyleGAN:
    """A StyleGAN for other images, that starts from the weights of this one.

    Args:
        generator: stays as it is.
        resolution: side of the images in pixels; None: as it is.
        channels: of the images; None: as it is.
        classes: class names; None: as they are.
        seed: of the weights of blocks that this one does not have.

    Returns:
        A new StyleGAN, on the CPU; with a discriminator if this one has one.

    Raises:
        InputError: another number of classes than a class-conditional network knows, or a resolution at which the
            weights cannot make an image.

    Example:
        >>> grey = adapt_stylegan(StyleGAN(classes=["face"], resolution=32, channels=3, fmap_base=64, latent_size=16),
        ...                       resolution=16, channels=1, classes=["cyst", "metastasis"])
        >>> grey.sample(labels=[0, 1], seeds=[7, 8]).shape
        torch.Size([2, 1, 16, 16])
    """
    config = generator.config
    for name, value in (("resolution", resolution), ("channels", channels), ("classes", classes)):
        config[name] = config[name] if value is None else value
    before = generator.classes
    if len(before) == 1 and len(config["classes"]) > 1:
        config["conditioning"] = "multiply"
    new = StyleGAN(**config)
    if len(before) > 1 and len(new.classes) != len(before):
        raise InputError(
            f"the network knows {len(before)} classes ({', '.join(before)[:200]}), and was to be adapted to "
            f"{len(new.classes)} ({', '.join(new.classes)[:200]}): name as many, or take a network without classes"
        )
    full, old_full = doublings(new.network_resolution), doublings(generator.network_resolution)
    kept = min(full, old_full)
    without = generator.provenance.get("without_to_rgb", [])
    if resolution_at(kept) in without:
        raise InputError(
            f"the file had a ToRGB for {generator.network_resolution} pixels alone, and the blocks for "
            f"{resolution_at(kept)} pixels make no image without one: adapt to {generator.network_resolution} or more"
        )
    initialise(new.network, seed=seed)
    mixing = _mixing(generator.image_shape[0], new.image_shape[0])
    old = {name: tensor.cpu() for name, tensor in generator.network.state_dict().items()}
    state = _kept(new.network.state_dict(), old)
    for level in range(kept + 1):
        weight, bias = f"synthesis.to_rgb.{level}.weight", f"synthesis.to_rgb.{level}.bias"
        state[weight] = torch.einsum("nc,cwhv->nwhv", mixing, old[weight])
        state[bias] = mixing @ old[bias]
    state["mean_w"] = old["mean_w"].expand(len(new.classes), -1).clone()
    if len(before) == 1 and len(new.classes) > 1:
        state["mapping.embedding.weight"] = torch.ones_like(state["mapping.embedding.weight"])
    state["growth"] = old["growth"].clamp(max=float(full))
    new.network.load_state_dict(state)
    if generator.discriminator is not None:
        new.discriminator = new.new_discriminator()
        initialise(new.discriminator, seed=seed + 1)
        _adapt_discriminator(new.discriminator, generator.discriminator, kept=kept, classes=len(new.classes))
    new.provenance = dict(generator.provenance)
    if new.config != generator.config:
        keys = ("resolution", "channels", "classes")
        new.provenance["adapted_from"] = {key: generator.config[key] for key in keys}
    if without:
        new.provenance["without_to_rgb"] = without
    return new


def _mixing(old: int, new: int) -> Tensor:
    """``(new, old)``: the new channels as sums of the old."""
    if old == new:
        return torch.eye(new)
    if (old, new) == (3, 1):
        return torch.tensor([LUMA])
    return torch.full((new, old), 1 / old)


def _adapt_discriminator(new: StyleGANDiscriminator, old: StyleGANDiscriminator, *, kept: int, classes: int) -> None:
    before = {name: tensor.cpu() for name, tensor in old.state_dict().items()}
    state = _kept(new.state_dict(), before)
    channels, old_channels = (len(side["from_rgb.0.weight"][0]) for side in (new.state_dict(), before))
    # What the new images look like to the old network. A weight counts for less, the more channels there are.
    seeing = _mixing(channels, old_channels) * (channels / old_channels) ** 0.5
    for level in range(kept + 1):
        weight = before[f"from_rgb.{level}.weight"]
        state[f"from_rgb.{level}.weight"] = torch.einsum("wohv,on->wnhv", weight, seeing)
    for name in ("last.score.weight", "last.score.bias"):
        state[name] = before[name].expand(classes, *before[name].shape[1:]).clone()
    new.load_state_dict(state)


def _kept(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The new state, with the old tensors wherever they fit: blocks go by their level, so they are the same's."""
    return {
        name: (old[name] if name in old and old[name].shape == tensor.shape else tensor).clone()
        for name, tensor in new.items()
    }
