"""Drawing from a StyleGAN with the styles of several seeds: mixed, and on the way between them."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.stylegan.generator import StyleGAN


def mix_styles(
    generator: StyleGAN,
    *,
    label: int,
    coarse_seeds: Sequence[int],
    fine_seeds: Sequence[int],
    crossover: int | None = None,
) -> Tensor:
    """Draw images with the coarse styles of one seed and the fine styles of another, both of one class.

    Args:
        generator: a StyleGAN.
        label: the class of all.
        coarse_seeds: of the layers before ``crossover`` (and of the noise).
        fine_seeds: of the layers from ``crossover`` on.
        crossover: the first fine layer, two layers a resolution from 4 pixels on; None: half of them.

    Returns:
        ``(len(coarse_seeds), len(fine_seeds), C, H, W)``: a row for each coarse seed, a column for each fine one.

    Raises:
        InputError: no seeds, or a crossover that leaves one of them nothing.

    Source: Karras, Laine, Aila (arXiv 1812.04948), section 3.1 and figure 3.

    Example:
        >>> from genmix_transforms.generators import StyleGAN
        >>> generator = StyleGAN(classes=["cyst", "metastasis"], resolution=16, fmap_base=64, latent_size=16)
        >>> mix_styles(generator, label=0, coarse_seeds=[1, 2], fine_seeds=[3, 4, 5]).shape
        torch.Size([2, 3, 1, 16, 16])
    """
    layers = generator.network.layer_count
    crossover = layers // 2 if crossover is None else crossover
    crossover = whole_number(crossover, name="mix_styles: crossover", least=1, most=layers - 1)
    if not coarse_seeds or not fine_seeds:
        raise InputError("mix_styles: expected at least one coarse and one fine seed")
    coarse = generator.styles([label] * len(coarse_seeds), coarse_seeds)
    fine = generator.styles([label] * len(fine_seeds), fine_seeds)
    rows = coarse.repeat_interleave(len(fine), dim=0)
    columns = fine.repeat(len(coarse), 1, 1)
    styles = torch.cat([rows[:, :crossover], columns[:, crossover:]], dim=1)
    noise_seeds = [seed for seed in coarse_seeds for _ in fine_seeds]
    images = generator.paint(styles, noise_seeds)
    return images.view(len(coarse), len(fine), *images.shape[1:])


def interpolate(generator: StyleGAN, *, label: int, seeds: Sequence[int], frames: int = 8) -> Tensor:
    """Walk in a straight line through w, from the image of each seed to that of the next.

    Args:
        generator: a StyleGAN.
        label: the class of all.
        seeds: at least two; the noise is that of the first throughout, so that only the styles move.
        frames: images from one seed to the next, both included.

    Returns:
        ``(len(seeds) - 1, frames, C, H, W)``: a row from each seed to the next.

    Raises:
        InputError: fewer than two seeds or frames.

    Example:
        >>> from genmix_transforms.generators import StyleGAN
        >>> generator = StyleGAN(classes=["cyst", "metastasis"], resolution=16, fmap_base=64, latent_size=16)
        >>> interpolate(generator, label=1, seeds=[1, 2, 3], frames=5).shape
        torch.Size([2, 5, 1, 16, 16])
    """
    whole_number(frames, name="interpolate: frames", least=2)
    if len(seeds) < 2:
        raise InputError(f"interpolate: expected at least two seeds to go between, got {len(seeds)}")
    ends = generator.styles([label] * len(seeds), seeds)
    way = torch.linspace(0, 1, frames)[:, None, None]
    styles = torch.cat([torch.lerp(start, stop, way) for start, stop in pairwise(ends)])
    images = generator.paint(styles, [seeds[0]] * len(styles))
    return images.view(len(seeds) - 1, frames, *images.shape[1:])
