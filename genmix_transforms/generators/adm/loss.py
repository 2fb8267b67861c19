"""The hybrid loss: the noise by mean squared error, the variance by the variational bound."""

import math

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.noise_schedule import NoiseSchedule, widest_float

LEAST_PROBABILITY = 1e-12
"""Of a pixel's bin, as in the original: where nothing is left, the logarithm stops falling, and the gradient too."""

BOUND_WEIGHT = 0.001
"""Lambda of ``L_hybrid = L_simple + lambda L_vlb``: small, so that the bound leads the variance and nothing else."""


class HybridLoss:
    """The loss of a network that tells the noise and, with twice the channels, the variance too.

    The bound's terms have the mean detached: they teach the variance alone. They are computed from the error in the
    noise, to which the distance of the means is proportional, and not from the means: that is the same number without
    the cancellation of two large ones.

    Args:
        schedule: all timesteps.
        device: where the images will be.
        levels: of a pixel, 256 or 65536: the first term is the probability of its bin.

    Raises:
        InputError: a schedule of fewer than two timesteps, which has no posterior variance.

    Source: Nichol, Dhariwal (arXiv 2102.09672), equations 4 to 7, 15 and 16; the bins, Ho, Jain, Abbeel (arXiv
    2006.11239), equation 13.

    Example:
        >>> loss = HybridLoss(NoiseSchedule.named("linear", 1000))
        >>> images, added = torch.zeros(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
        >>> timesteps = torch.tensor([3, 700])
        >>> noisy = loss.noisy(images, added, timesteps)  # what the network sees
        >>> perfect = torch.cat([added, torch.zeros_like(added)], dim=1)
        >>> squared, bits = loss(perfect, images, added, timesteps)
        >>> squared.tolist(), bits.shape
        ([0.0, 0.0], torch.Size([2]))
    """

    def __init__(self, schedule: NoiseSchedule, *, device: str | torch.device = "cpu", levels: int = 256) -> None:
        if len(schedule) < 2:
            raise InputError(f"ADM: training needs at least 2 timesteps (diffusion_steps), got {len(schedule)}")
        self.count: int = len(schedule)
        self._half_bin = 1 / (levels - 1)
        left, betas = schedule.alphas_cumprod, schedule.betas
        # Computed in float64 on the CPU; images in float32 see the same numbers from a float32 table.
        dtype = widest_float(device)
        self._image_share = left.sqrt().to(device, dtype)
        self._noise_share = (1 - left).sqrt().to(device, dtype)
        self._low = schedule.posterior_log_variance.to(device, dtype)
        self._high = betas.log().to(device, dtype)
        self._mean_share = (betas / ((1 - betas) * (1 - left)).sqrt()).to(device, dtype)

    def noisy(self, images: Tensor, added: Tensor, timesteps: Tensor) -> Tensor:
        """``x_t``: a draw from ``q(x_t | x_0)``.

        Args:
            images: ``x_0``, ``(N, C, H, W)``, in [-1, 1].
            added: standard normal noise of that shape.
            timesteps: int64 ``(N,)``, from 0.
        """
        return _at(self._image_share, timesteps, images) * images + _at(self._noise_share, timesteps, images) * added

    def __call__(
        self, prediction: Tensor, images: Tensor, added: Tensor, timesteps: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The two parts of the loss, for each image.

        Args:
            prediction: what the network said of ``x_t``: the noise ``(N, C, H, W)``, or noise and variance
                ``(N, 2 C, H, W)``. Half precision is taken up to float32.
            images: ``x_0``, ``(N, C, H, W)``, in [-1, 1].
            added: the noise in ``x_t``.
            timesteps: int64 ``(N,)``.

        Returns:
            The mean squared error ``(N,)``; and ``L_t``, the bound's term of that timestep, in bits per dimension
            ``(N,)``: its sum over all timesteps is the bound. None for a network that tells no variance.
        """
        prediction = prediction if prediction.dtype == torch.float64 else prediction.float()
        channels = images.shape[1]
        error = prediction[:, :channels] - added
        squared = error.square().mean((1, 2, 3))
        if prediction.shape[1] == channels:
            return squared, None
        return squared, self._bound(error.detach(), prediction[:, channels:], images, timesteps)

    def _bound(self, error: Tensor, variance: Tensor, images: Tensor, timesteps: Tensor) -> Tensor:
        low, high = _at(self._low, timesteps, error), _at(self._high, timesteps, error)
        log_variance = low + (variance + 1) / 2 * (high - low)
        distance = _at(self._mean_share, timesteps, error) * error  # of the posterior's mean from the network's
        divergence = 0.5 * (
            log_variance - low - 1 + (low - log_variance).exp() + distance.square() * (-log_variance).exp()
        )
        surprise = self._surprise(images, distance, log_variance)
        first = (timesteps == 0).view(-1, 1, 1, 1)
        return torch.where(first, surprise, divergence).mean((1, 2, 3)) / math.log(2)

    def _surprise(self, images: Tensor, distance: Tensor, log_variance: Tensor) -> Tensor:
        """``-log p(x_0 | x_1)``: a normal distribution, cut into the bins of the pixels, the outermost open."""
        precision = (-0.5 * log_variance).exp()
        above = torch.special.ndtr((distance + self._half_bin) * precision)
        below = torch.special.ndtr((distance - self._half_bin) * precision)
        edge = 1 - self._half_bin / 2
        above = torch.where(images > edge, torch.ones_like(above), above)
        below = torch.where(images < -edge, torch.zeros_like(below), below)
        return -(above - below).clamp(min=LEAST_PROBABILITY).log()


def _at(table: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    """A number for each image, shaped to be multiplied with it."""
    return table[timesteps].to(like.dtype).view(-1, 1, 1, 1)
