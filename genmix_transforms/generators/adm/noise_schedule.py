"""The noise schedule: how much of an image is left at each timestep, and what follows from it. All in float64."""

import math
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.atomic import write_text
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.adm.configuration import NOISE_SCHEDULES, ADMConfiguration, NoiseScheduleName

Spacing = Literal["linspace", "leading"]
"""How the timesteps that are kept lie: from the first to the last, or at multiples of a whole number."""

SPACINGS: tuple[Spacing, ...] = get_args(Spacing)

LARGEST_BETA = 0.999
"""Of the cosine schedule, so that the last steps do not divide by zero."""


class NoiseSchedule:
    """The forward process ``q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)`` and its posterior.

    Args:
        betas: variance added at each step, in (0, 1], the least noisy first; ``(T,)``.
        timesteps: the numbers that the network knows these steps by, int64 ``(T,)``; None: 0 to T - 1.

    Attributes:
        betas: float64 ``(T,)``.
        timesteps: int64 ``(T,)``.

    Source: Ho, Jain, Abbeel (arXiv 2006.11239), equations 4 to 7.

    Example:
        >>> schedule = NoiseSchedule.named("linear", 1000)
        >>> len(schedule), f"{float(schedule.alphas_cumprod[-1]):.2e}"
        (1000, '4.04e-05')
        >>> schedule.respaced(25).timesteps[:3]
        tensor([ 0, 42, 83])
    """

    def __init__(self, betas: Tensor, *, timesteps: Tensor | None = None) -> None:
        self.betas: Tensor = betas.double()
        self.timesteps: Tensor = torch.arange(len(betas)) if timesteps is None else timesteps

    @classmethod
    def named(cls, name: NoiseScheduleName, steps: int = 1000) -> "NoiseSchedule":
        """The schedule of a network.

        Args:
            name: "linear" (Ho et al.: 0.0001 to 0.02, scaled so that any number of steps ends at the same noise), or
                "cosine" (Nichol, Dhariwal, arXiv 2102.09672, equation 17).
            steps: how many.
        """
        whole_number(steps, name="diffusion_steps", least=1)
        if name not in NOISE_SCHEDULES:
            raise InputError(f"noise_schedule must be one of {', '.join(NOISE_SCHEDULES)}, got {name!r}")
        if name == "linear":
            scale = 1000 / steps
            return cls(torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64).clamp_(max=LARGEST_BETA))
        left = [math.cos((step / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(steps + 1)]
        betas = [min(1 - after / before, LARGEST_BETA) for before, after in pairwise(left)]
        return cls(torch.tensor(betas, dtype=torch.float64))

    @classmethod
    def of(cls, configuration: ADMConfiguration) -> "NoiseSchedule":
        """The schedule of a configuration."""
        return cls.named(configuration.noise_schedule, configuration.diffusion_steps)

    def __len__(self) -> int:
        return len(self.betas)

    def respaced(self, steps: int, *, spacing: Spacing = "linspace") -> "NoiseSchedule":
        """The schedule that takes fewer, larger steps through the same noise levels.

        Args:
            steps: how many, at most as many as there are.
            spacing: "linspace" (first and last timestep included; ADM's own for ancestral sampling) or "leading"
                (multiples of the stride from 0 on; DDIM's).

        Raises:
            InputError: more steps than there are timesteps.

        Source: Nichol, Dhariwal (arXiv 2102.09672), section 4.
        """
        kept = spaced_timesteps(len(self), steps, spacing=spacing)
        left = self.alphas_cumprod[kept]
        return NoiseSchedule(1 - left / _shifted(left), timesteps=self.timesteps[kept])

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """``abar_t``: the share of the image's variance that is left."""
        return torch.cumprod(1 - self.betas, dim=0)

    @cached_property
    def alphas_cumprod_before(self) -> Tensor:
        """``abar_(t-1)``, 1 for the first."""
        return _shifted(self.alphas_cumprod)

    @cached_property
    def posterior_variance(self) -> Tensor:
        """Of ``q(x_(t-1) | x_t, x_0)``; 0 for the first step."""
        return self.betas * (1 - self.alphas_cumprod_before) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance(self) -> Tensor:
        """Its logarithm, with the second step's for the first, which is minus infinity."""
        first = self.posterior_variance[1:2] if len(self) > 1 else self.betas
        return torch.cat([first, self.posterior_variance[1:]]).log()

    @cached_property
    def posterior_weight_image(self) -> Tensor:
        """Weight of ``x_0`` in the posterior mean."""
        return self.betas * self.alphas_cumprod_before.sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_weight_noisy(self) -> Tensor:
        """Weight of ``x_t`` in the posterior mean."""
        return (1 - self.alphas_cumprod_before) * (1 - self.betas).sqrt() / (1 - self.alphas_cumprod)


def save_scheduler(folder: Path, configuration: ADMConfiguration) -> None:
    """Write the noise schedule as diffusers' ancestral sampler with the same steps as ours."""
    folder.mkdir(parents=True, exist_ok=True)
    scheduler: Any = DDPMScheduler(
        num_train_timesteps=configuration.diffusion_steps,
        trained_betas=NoiseSchedule.of(configuration).betas.tolist(),
        variance_type="learned_range" if configuration.learn_sigma else "fixed_large",
        timestep_spacing="linspace",
    )
    write_text(folder / "scheduler_config.json", scheduler.to_json_string())


def spaced_timesteps(count: int, steps: int, *, spacing: Spacing = "linspace") -> Tensor:
    """Which of ``count`` timesteps to keep: int64 ``(steps,)``, ascending.

    Example:
        >>> spaced_timesteps(10, 4), spaced_timesteps(10, 5, spacing="leading")
        (tensor([0, 3, 6, 9]), tensor([0, 2, 4, 6, 8]))
    """
    steps = whole_number(steps, name="steps", least=1)
    if steps > count:
        raise InputError(f"sampling: {steps} steps of a diffusion that has {count} timesteps; give at most {count}")
    if spacing == "linspace":
        stride = (count - 1) / (steps - 1) if steps > 1 else 1.0
        return torch.tensor([round(number * stride) for number in range(steps)])
    if spacing == "leading":
        return torch.tensor([number * count // steps for number in range(steps)])
    raise InputError(f"spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}")


def widest_float(device: str | torch.device) -> torch.dtype:
    """float64, or float32 on the devices that have nothing wider (Apple's GPUs)."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def _shifted(left: Tensor) -> Tensor:
    return torch.cat([left.new_ones(1), left[:-1]])
