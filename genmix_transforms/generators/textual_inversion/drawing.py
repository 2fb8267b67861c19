"""From labels and seeds to pixels: the base model's images, grey where they should be, at the size of the patches."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.pixels import to_pixels
from genmix_transforms.generators.textual_inversion.grey import to_grey
from genmix_transforms.generators.textual_inversion.resizing import to_patch_size
from genmix_transforms.generators.textual_inversion.sampling import draw_images

if TYPE_CHECKING:
    from genmix_transforms.generators.textual_inversion.generator import TextualInversion


@torch.no_grad()
def draw_pixels(generator: "TextualInversion", labels: Tensor, seeds: Tensor) -> Tensor:
    """What :meth:`TextualInversion.sample` returns, for labels and seeds that have been checked.

    Args:
        generator: whose sampler, vectors and start images are taken; its ``channel_spread`` counts the grey images.
        labels: int64 ``(n,)``.
        seeds: int64 ``(n,)``.

    Returns:
        ``(n, C, S, S)``, uint8 or uint16, on the CPU.
    """
    images = torch.empty(len(labels), *generator.image_shape, dtype=generator.pixel_dtype)
    start = _start(generator, labels, seeds)
    if not len(labels):
        return images
    batches = draw_images(
        generator.model,
        contexts=generator.contexts(),
        which=labels,
        negative=generator.negative_context(),
        seeds=seeds,
        settings=generator.sampler,
        start=start,
    )
    for here, values in batches:
        values = values.float().clamp(-1, 1)
        if generator.image_shape[0] == 1:
            values, spread = to_grey(values)
            generator.channel_spread.add(spread.cpu())
        images[here] = to_pixels(to_patch_size(values, generator.image_shape[1]), generator.pixel_dtype).cpu()
    return images


def _start(generator: "TextualInversion", labels: Tensor, seeds: Tensor) -> Callable[[Tensor], Tensor] | None:
    """From places among the labels to the latents of the real images that these begin with; None: from noise."""
    real = generator.start_images
    if real is not None:
        return lambda places: real.latents(generator.model, labels[places], seeds[places])
    if generator.sampler.strength < 1:
        raise InputError(
            f"TextualInversion: the sampler starts from real images (strength {generator.sampler.strength}), and there "
            "are none: give the training set with with_start_images(patches), or strength 1"
        )
    return None
