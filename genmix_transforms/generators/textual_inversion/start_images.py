"""Real images to start from (SDEdit): which one an image begins with follows from its seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators.pixels import to_signed_unit
from genmix_transforms.generators.textual_inversion.images import to_colour, to_size
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.settings import SamplerSettings

STREAM = 2**63
"""The stream of a seed that chooses; noise is drawn from the streams of the steps, 0 to some hundreds."""


class StartImages:
    """The real images that synthetic ones begin with, each of its own class.

    An image of class c and seed s begins with one of the patches of class c, every one as likely as another: the one at
    place ``Generator(Philox(key=[s, 2**63])).integers(n)`` of the class's n patches, in the order of the set (NumPy's
    generators). Another set, order or number of patches is another start; the batch is not.

    The latents are the means of what the autoencoder sees in the patches: nothing is drawn. Each is computed once, by
    itself, and kept.

    Args:
        patches: the real ones: the training set, never the test set. Their classes may come in another order than the
            generator's, and may be more.
        classes: the generator's.

    Raises:
        InputError: a class without patches.

    Source: Meng et al. (SDEdit, arXiv 2108.01073); Trabucco et al. (DA-Fusion, arXiv 2302.07944) augment so.
    """

    def __init__(self, patches: PatchDataset, *, classes: Sequence[str]) -> None:
        if not isinstance(patches, PatchDataset):
            raise InputError(f"start images: expected a PatchDataset, got a {type(patches).__name__}")
        counts = patches.class_counts
        empty = [name for name in classes if not counts.get(name)]
        if empty:
            raise InputError(
                f"start images: {patches.name} has no image of class {', '.join(empty)} to start from; "
                f"its classes are {', '.join(patches.classes)}"
            )
        if patches.images.shape[1] not in (1, 3):
            raise InputError(
                f"start images: 1 or 3 channels are expected, {patches.name} has {patches.images.shape[1]}"
            )
        self.patches = patches
        self.classes: tuple[str, ...] = tuple(classes)
        self._places = [torch.nonzero(patches.labels == patches.classes.index(name)).flatten() for name in classes]
        self._latents: dict[int, Tensor] = {}
        self._seen_by: LatentDiffusion | None = None

    def choose(self, labels: Tensor, seeds: Tensor) -> Tensor:
        """Which patch each image begins with.

        Args:
            labels: int64 ``(n,)``, indices into ``classes``.
            seeds: int64 ``(n,)``, non-negative.

        Returns:
            Indices into the patches, int64 ``(n,)``.
        """
        chosen = []
        for label, seed in zip(labels.tolist(), seeds.tolist(), strict=True):
            random = np.random.Generator(np.random.Philox(key=[seed, STREAM]))
            chosen.append(int(self._places[label][int(random.integers(len(self._places[label])))]))
        return torch.tensor(chosen, dtype=torch.int64)

    @torch.no_grad()
    def latents(self, model: LatentDiffusion, labels: Tensor, seeds: Tensor) -> Tensor:
        """What :func:`draw_images` starts from: scaled latents ``(n, C, h, w)``, float32, on the CPU.

        Args:
            model: whose autoencoder looks at the patches.
            labels: int64 ``(n,)``, indices into ``classes``.
            seeds: int64 ``(n,)``, non-negative.
        """
        if self._seen_by is not model:
            self._latents, self._seen_by = {}, model
        chosen = self.choose(labels, seeds).tolist()
        for place in chosen:
            if place not in self._latents:
                self._latents[place] = self._encode(model, self.patches.images[place])
        return torch.stack([self._latents[place] for place in chosen])

    def describe(self, settings: SamplerSettings) -> dict[str, Any]:
        """What a bank is to record: the set's fingerprint and counts, and how far the images went from it."""
        return {
            "fingerprint": self.patches.fingerprint,
            "class_counts": self.patches.class_counts,
            "strength": settings.strength,
        }

    def _encode(self, model: LatentDiffusion, image: Tensor) -> Tensor:
        # By itself: in a batch, the last bits could depend on the others.
        values = to_colour(to_size(to_signed_unit(image[None]), model.native_size))
        mean, _ = model.encode_images(values.to(model.device, model.unet.dtype))
        return mean[0].float().cpu()
