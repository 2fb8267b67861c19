"""Drawing from a StyleGAN: styles and images by label and seed; styles of two seeds mixed, and the way between them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.pixels import to_pixels
from genmix_transforms.generators.randomness import noise
from genmix_transforms.generators.stylegan.network import StyleGANNetwork
from genmix_transforms.generators.stylegan.schedule import resolution_at


class Painter(Protocol):
    """What takes styles from seeds and paints images in them: a StyleGAN."""

    @property
    def network(self) -> StyleGANNetwork:
        """What images are drawn from."""
        ...

    def styles(self, labels: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """w of every layer, ``(n, layers, latent_size)``."""
        ...

    def paint(self, styles: Tensor, seeds: Sequence[int]) -> Tensor:
        """Images in these styles, ``(n, C, H, W)``."""
        ...


def chunk_size(network: StyleGANNetwork) -> int:
    """Images of one pass through the network.

    Always whole chunks: convolutions of another batch size may round otherwise, and then an image would depend on who
    was drawn with it. Fewer of large images, to spare memory.
    """
    return min(32, max(1, 32 * 64**2 // resolution_at(network.full_growth) ** 2))


@torch.no_grad()
def draw_styles(network: StyleGANNetwork, labels: Tensor, seeds: Tensor, *, psi: float, cutoff: int | None) -> Tensor:
    """The w of images, float32 ``(n, layers, latent_size)`` on the CPU, truncated as ``network.truncate`` does it.

    Labels and seeds are int64 ``(n,)``.
    """
    network.eval()
    device, chunk = network.mean_w.device, chunk_size(network)
    styles = torch.empty(len(labels), network.layer_count, network.latent_size)
    for start in range(0, len(labels), chunk):
        some = slice(start, min(start + chunk, len(labels)))
        latents = _whole(noise(seeds[some].tolist(), (network.latent_size,)), chunk).to(device)
        own = _whole(labels[some], chunk).to(device)
        w = network.truncate(network.broadcast(network.mapping(latents, own)), own, psi=psi, cutoff=cutoff)
        styles[some] = w[: some.stop - start].cpu()
    return styles


@torch.no_grad()
def paint_images(
    network: StyleGANNetwork, styles: Tensor, seeds: Tensor, *, channels: int, size: int, dtype: torch.dtype
) -> Tensor:
    """Images ``(n, channels, size, size)`` of an integer ``dtype`` on the CPU, in the styles of :func:`draw_styles`.

    The noise follows from the seeds, int64 ``(n,)``. Images smaller than the network's are the middle of its own.
    """
    network.eval()
    device, chunk = network.mean_w.device, chunk_size(network)
    before = (resolution_at(network.full_growth) - size) // 2
    inside = slice(before, before + size)
    images = torch.empty(len(styles), channels, size, size, dtype=dtype)
    for start in range(0, len(styles), chunk):
        some = slice(start, min(start + chunk, len(styles)))
        own = seeds[some].tolist()
        maps = [
            _whole(noise(own, (1, side, side), stream=1 + layer), chunk).to(device)
            for layer, side in enumerate(network.noise_sides(float(network.growth)))
        ]
        values = network.paint(_whole(styles[some], chunk).to(device), noise=maps)
        images[some] = to_pixels(values[: some.stop - start, :, inside, inside], dtype).cpu()
    return images


def _whole(rows: Tensor, chunk: int) -> Tensor:
    """Rows, filled up with zeros to a whole chunk."""
    whole = rows.new_zeros(chunk, *rows.shape[1:])
    whole[: len(rows)] = rows
    return whole


def mix_styles(
    generator: Painter,
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


def interpolate(generator: Painter, *, label: int, seeds: Sequence[int], frames: int = 8) -> Tensor:
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
