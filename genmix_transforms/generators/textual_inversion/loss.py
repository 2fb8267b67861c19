"""The loss of a latent diffusion model: how wrong it is about noise that was put into a latent."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.parts import PREDICTIONS


class NoiseLoss:
    """The squared error of a U-Net's prediction (Rombach et al., arXiv 2112.10752, equation 2).

    Args:
        scheduler_config: of the base model: its noise schedule, and what the U-Net predicts: the noise ("epsilon"), or
            the velocity ("v_prediction"; Salimans, Ho, arXiv 2202.00512, section 4).
        device: of the latents.

    Raises:
        InputError: the U-Net predicts something else.
    """

    def __init__(self, scheduler_config: Mapping[str, Any], *, device: str | torch.device = "cpu") -> None:
        self.prediction = scheduler_config.get("prediction_type", "epsilon")
        if self.prediction not in PREDICTIONS:
            raise InputError(
                f"the base model predicts {self.prediction!r} (prediction_type); embeddings can be learned for one "
                f"that predicts {' or '.join(PREDICTIONS)}"
            )
        left: Tensor = DDPMScheduler.from_config(dict(scheduler_config)).alphas_cumprod
        self.signal = left.sqrt().float().to(device)  # sqrt(alpha-bar) at each timestep
        self.noise = (1 - left).sqrt().float().to(device)

    @property
    def timesteps(self) -> int:
        """How many there are."""
        return len(self.signal)

    def noisy(self, latents: Tensor, added: Tensor, timesteps: Tensor) -> Tensor:
        """Latents ``(n, C, h, w)`` with noise of their timesteps ``(n,)`` in them."""
        return _wide(self.signal[timesteps]) * latents + _wide(self.noise[timesteps]) * added

    def target(self, latents: Tensor, added: Tensor, timesteps: Tensor) -> Tensor:
        """What the U-Net should have said."""
        if self.prediction == "epsilon":
            return added
        return _wide(self.signal[timesteps]) * added - _wide(self.noise[timesteps]) * latents

    def __call__(self, prediction: Tensor, latents: Tensor, added: Tensor, timesteps: Tensor) -> Tensor:
        """The squared error of each image, ``(n,)``, mean over its latent; float32 whatever the prediction is."""
        return (prediction.float() - self.target(latents, added, timesteps)).square().flatten(1).mean(1)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]
