"""The latents of the training images: the autoencoder's distribution of each, computed once or at every step."""

import logging

import torch
from torch import Tensor

from genmix_transforms.bank.rows import take_rows
from genmix_transforms.files.progress import progress_bar
from genmix_transforms.generators.augmentation import mirrored
from genmix_transforms.generators.fast_math import fast_math
from genmix_transforms.generators.pixels import to_signed_unit
from genmix_transforms.generators.textual_inversion.images import to_colour, to_size
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion

log: logging.Logger = logging.getLogger(__name__)

ENCODED_TOGETHER = 8
MOST_BESIDE_THE_MODEL = 2 * 2**30
"""Bytes of cached distributions that stay on the model's device; more are kept on the CPU."""


class Posteriors:
    """Mean and standard deviation of the latents of images, as the autoencoder has them, whenever they are asked for.

    An autoencoder gives a distribution, not a point: what is learned from is drawn anew at every step, cached or not.

    Args:
        model: the base model, on the device.
        images: the training set's pixels, ``(N, C, S, S)``, on any device.
    """

    def __init__(self, model: LatentDiffusion, images: Tensor) -> None:
        self.model = model
        self.images = images

    def prepare(self, *, progress: bool) -> None:
        """Nothing is computed beforehand."""

    def __call__(self, index: Tensor, mirror: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means and standard deviations, each ``(n, C, h, w)``, on the model's device.

        Args:
            index: of the images, int64 ``(n,)``, on the CPU.
            mirror: bool ``(n,)``, on the CPU: those to take mirrored left to right; None: none.
        """
        pixels = take_rows(self.images, index.to(self.images.device, non_blocking=True))
        images = to_signed_unit(pixels.to(self.model.device))
        if mirror is not None:
            images = mirrored(images, which=mirror.to(images.device, non_blocking=True))
        return self.encode(images)

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of images ``(n, C, S, S)`` in [-1, 1], brought to three channels and the model's native size."""
        # In full precision whatever the training's is: an autoencoder's small errors are seen in every image.
        device = self.model.device
        with torch.autocast(device.type, enabled=False), fast_math(device, False):
            return self.model.encode_images(to_colour(to_size(images, self.model.native_size)))


class CachedPosteriors(Posteriors):
    """The same, computed once, in batches; mirrored images too, which are encoded apart.

    An autoencoder's latent of a mirrored image is not the mirrored latent.

    Args:
        model: see :class:`Posteriors`.
        images: see there.
        mirror: whether mirrored images will be asked for.
    """

    def __init__(self, model: LatentDiffusion, images: Tensor, *, mirror: bool) -> None:
        super().__init__(model, images)
        self.mirror = mirror
        self._cached: tuple[Tensor, Tensor] | None = None

    def prepare(self, *, progress: bool) -> None:
        """Compute them all, unless that is done; the first call that needs them does it otherwise.

        Args:
            progress: show a bar.
        """
        if self._cached is not None:
            return
        sides = 2 if self.mirror else 1
        count, shape = sides * len(self.images), self.model.latent_shape
        size = 2 * count * shape[0] * shape[1] * shape[2] * 4
        device = self.model.device if size <= MOST_BESIDE_THE_MODEL else torch.device("cpu")
        log.info("latents of %s images: %.1f MiB on %s", count, size / 2**20, device)
        means, stds = torch.empty(count, *shape, device=device), torch.empty(count, *shape, device=device)
        with progress_bar(total=count, unit="img", desc="latents", leave=False, disable=not progress) as bar:
            for side in range(sides):
                for start in range(0, len(self.images), ENCODED_TOGETHER):
                    pixels = self.images[start : start + ENCODED_TOGETHER].to(self.model.device)
                    images = to_signed_unit(pixels)
                    first = side * len(self.images) + start
                    here = slice(first, first + len(images))
                    means[here], stds[here] = self.encode(images.flip(-1) if side else images)
                    bar.update(len(images))
        self._cached = means, stds

    def __call__(self, index: Tensor, mirror: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Posteriors.__call__`."""
        self.prepare(progress=False)
        assert self._cached is not None
        mean, std = self._cached
        place = index if mirror is None else index + len(self.images) * mirror
        place = place.to(mean.device, non_blocking=True)
        device = self.model.device
        return mean[place].to(device, non_blocking=True), std[place].to(device, non_blocking=True)
