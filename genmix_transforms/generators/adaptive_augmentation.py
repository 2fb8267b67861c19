"""How often the discriminator's images are augmented, held so that it does not learn the training images by heart.

Karras et al., "Training Generative Adversarial Networks with Limited Data" (arXiv 2006.06676), section 3.1: the mean
sign of the discriminator's logits of real images says how much it overfits; it is held at a target by the probability
of every augmentation. The augmentations are those of :mod:`genmix_transforms.generators.augmentation`.
"""

from typing import Any

import torch
from torch import Tensor

INTERVAL = 4
"""Batches between two changes of the probability."""


class AdaptiveAugmentation:
    """The probability ``p`` that an image goes through an augmentation, as a control loop on the device.

    Every :data:`INTERVAL` batches ``p`` rises if the mean sign since the last change is above the target, and falls if
    it is below, by as much as takes it from 0 to 1 in ``ramp`` images.

    Args:
        target: mean sign of the real images' logits to hold; 0.6 in the paper.
        ramp: images in which ``p`` could go from 0 to 1; 500,000 in the paper.
        device: where the logits will be.
    """

    def __init__(self, *, target: float = 0.6, ramp: float = 500_000, device: torch.device | str = "cpu") -> None:
        self.target = target
        self.ramp = ramp
        self.p: Tensor = torch.zeros((), device=device)
        self._signs = torch.zeros((), device=device)
        self._images = 0
        self._batches = 0

    @torch.no_grad()
    def update(self, logits: Tensor, *, batch: int) -> None:
        """Take note of the real images' logits ``(n,)``, of a step of ``batch`` images on all processes together."""
        self._signs += logits.sign().float().mean()
        self._images += batch
        self._batches += 1
        if self._batches == INTERVAL:
            step = torch.sign(self._signs / self._batches - self.target) * (self._images / self.ramp)
            self.p.add_(step).clamp_(0, 1)
            self._signs.zero_()
            self._images = self._batches = 0

    def state_dict(self) -> dict[str, Any]:
        """The probability, and what has been seen since its last change."""
        return {"p": self.p, "signs": self._signs, "images": self._images, "batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.p.copy_(state["p"])
        self._signs.copy_(state["signs"])
        self._images = state["images"]
        self._batches = state["batches"]


def thin_out(draw: dict[str, Tensor], *, p: Tensor | float, size: int) -> dict[str, Tensor]:
    """Undo each augmentation of a draw, image by image and independently, with probability ``1 - p``.

    Args:
        draw: from :func:`genmix_transforms.generators.augmentation.draw_augmentation`.
        p: probability that an augmentation stays.
        size: the longer side of the images in pixels: a hole that is undone goes where no pixel is.
    """
    count = len(draw["brightness"])
    kept = torch.rand(5, count, device=draw["brightness"].device) < p
    return {
        "brightness": torch.where(kept[0], draw["brightness"], 0.0),
        "saturation": torch.where(kept[1], draw["saturation"], 1.0),
        "contrast": torch.where(kept[2], draw["contrast"], 1.0),
        "shift": torch.where(kept[3, :, None], draw["shift"], 0),
        "hole": torch.where(kept[4, :, None], draw["hole"], -4 * size),
    }
