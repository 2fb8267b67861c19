"""Sampling: its settings, and the way from noise to images. Every number that an image depends on has its own seed.

The updates are plain functions of float tensors: :func:`ddpm_step`, :func:`ddim_step`. DPM-Solver++ and UniPC are
diffusers'.
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from math import sqrt
from typing import Any, Literal

import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.configuration import ADMConfiguration
from genmix_transforms.generators.adm.noise_schedule import NoiseSchedule, Spacing
from genmix_transforms.generators.sampler_settings import DiffusionSampler
from genmix_transforms.settings import option

LEAST_LOG_SNR = -5.1
"""Where DPM-Solver++ begins on a cosine schedule, whose first steps are so noisy that it would divide by nothing."""


@dataclass(frozen=True, kw_only=True)
class SamplerSettings(DiffusionSampler):
    """How an ADM's images are drawn. Other settings draw other images: they are part of an image's identity.

    Raises:
        InputError: values that cannot work.
    """

    method: Literal["ddpm", "ddim", "dpmsolver++", "unipc"] = option(
        "ddim",
        help="ddpm (ancestral, for 100 to 1000 steps), ddim (deterministic with eta 0), dpmsolver++ or unipc (second "
        "order, for 10 to 50 steps).",
    )
    classifier_scale: float = option(
        0.0, help="Classifier guidance: the scale of the classifier's gradient; 0 is no guidance.", least=0
    )

    @property
    def spacing(self) -> Spacing:
        """Which timesteps the steps are at: the original's for ddpm and ddim."""
        return "leading" if self.method == "ddim" else "linspace"

    def check_network(self, configuration: ADMConfiguration, *, classes: Sequence[str]) -> None:
        """Check that a network of this configuration can be drawn from so.

        Raises:
            InputError: classes that neither it nor a classifier is told, guidance it was not trained for, or more
                steps than it has timesteps.
        """
        if len(classes) > 1 and not configuration.class_cond and not self.classifier_scale:
            raise InputError(
                f"ADM: the network is not told the class (class_cond is false), and the classes are "
                f"{', '.join(classes[:8])}; give one name, set class_cond, adapt(classes=...) the network, or let a "
                "classifier guide it"
            )
        if self.guidance_scale != 1 and not configuration.null_class:
            raise InputError(
                f"ADM: guidance_scale {self.guidance_scale} needs a network that was trained with label dropout "
                "(null_class): this one knows no image without a class"
            )
        if self.steps > configuration.diffusion_steps:
            raise InputError(
                f"ADM: {self.steps} sampling steps of a diffusion that has {configuration.diffusion_steps} timesteps; "
                "give at most as many"
            )


def ddpm_step(
    noisy: Tensor,
    image: Tensor,
    variance: Tensor | None,
    fresh_noise: Tensor | None,
    *,
    schedule: NoiseSchedule,
    index: int,
    gradient: Tensor | None = None,
) -> Tensor:
    """One ancestral step: a draw from ``p(x_(t-1) | x_t)``.

    Args:
        noisy: ``x_t``, ``(N, C, H, W)``; ``image`` is the network's ``x_0``.
        variance: what it says of the variance, -1 for the posterior's and 1 for beta's; None: beta.
        fresh_noise: standard normal; None for the last step, which adds none.
        schedule: of the steps taken.
        index: of this step in it; 0 is the last.
        gradient: of ``log p(y | x_t)`` by ``x_t``, scaled: classifier guidance.

    Source: Ho et al. (arXiv 2006.11239), equation 7; Nichol, Dhariwal (2102.09672), equation 15 for the variance;
    Dhariwal, Nichol (2105.05233), algorithm 1 for the guidance.
    """
    mean = float(schedule.posterior_weight_image[index]) * image + float(schedule.posterior_weight_noisy[index]) * noisy
    smallest = schedule.posterior_log_variance[index]
    if variance is None:
        # As the original has it: beta, and at the end the posterior's, for a better likelihood.
        log_variance = torch.full_like(noisy, float(smallest if index == 0 else schedule.betas[index].log()))
    else:
        share = (variance + 1) / 2
        log_variance = share * float(schedule.betas[index].log()) + (1 - share) * float(smallest)
    if gradient is not None:
        mean = mean + log_variance.exp() * gradient
    return mean if fresh_noise is None else mean + (0.5 * log_variance).exp() * fresh_noise


def ddim_step(
    noisy: Tensor,
    image: Tensor,
    fresh_noise: Tensor | None = None,
    *,
    schedule: NoiseSchedule,
    index: int,
    eta: float = 0.0,
) -> Tensor:
    """One step of DDIM; the arguments are those of :func:`ddpm_step`, and ``eta`` the share of its noise.

    Source: Song, Meng, Ermon (arXiv 2010.02502), equation 12.
    """
    left, left_before = float(schedule.alphas_cumprod[index]), float(schedule.alphas_cumprod_before[index])
    direction = (sqrt(1 / left) * noisy - image) / sqrt(1 / left - 1)
    sigma = eta * sqrt((1 - left_before) / (1 - left)) * sqrt(1 - left / left_before)
    mean = sqrt(left_before) * image + sqrt(1 - left_before - sigma**2) * direction
    return mean if fresh_noise is None else mean + sigma * fresh_noise


@dataclass(frozen=True, eq=False)
class Denoiser:
    """The network as the samplers ask it: from ``x_t`` to the image in it, guided or not.

    The labels, int64 ``(N,)`` or rows of weights ``(N, K)``, are on the network's device; the schedule is that of all
    timesteps.
    """

    network: nn.Module
    labels: Tensor
    _: KW_ONLY
    configuration: ADMConfiguration
    schedule: NoiseSchedule
    settings: SamplerSettings
    classifier: nn.Module | None = None

    def __call__(self, noisy: Tensor, timestep: int) -> tuple[Tensor, Tensor | None]:
        """``x_0``, clipped to [-1, 1], and what the network says of the variance (None if it does not)."""
        predicted, variance = self._predict(noisy, timestep), None
        if self.configuration.learn_sigma:
            predicted, variance = predicted.chunk(2, dim=1)
        left = float(self.schedule.alphas_cumprod[timestep])
        image = sqrt(1 / left) * noisy - sqrt(1 / left - 1) * predicted
        return image.clamp_(-1, 1), variance

    def _predict(self, noisy: Tensor, timestep: int) -> Tensor:
        scale = self.settings.guidance_scale
        labels = self.labels if self.configuration.class_cond else None
        if scale == 1 or labels is None:
            return self._pass(noisy, timestep, labels)
        if labels.ndim == 2:
            labels = F.pad(labels, (0, 1))  # the row for "no class" is the last
            none = torch.zeros_like(labels)
            none[:, -1] = 1
        else:
            none = torch.full_like(labels, self.configuration.num_classes)
        with_class, without = self._pass(noisy.repeat(2, 1, 1, 1), timestep, torch.cat([labels, none])).chunk(2)
        channels = noisy.shape[1]
        # The variance is the class's own: it is no direction to go in.
        guided = torch.lerp(without[:, :channels], with_class[:, :channels], scale)
        return torch.cat([guided, with_class[:, channels:]], dim=1)

    def _pass(self, noisy: Tensor, timestep: int, labels: Tensor | None) -> Tensor:
        times = torch.full((len(noisy),), timestep, device=noisy.device)
        with self._precision(noisy.device):
            prediction: Tensor = self.network(noisy, times, class_labels=labels, return_dict=False)[0]
        return prediction.float() if noisy.dtype == torch.float32 else prediction

    def gradient(self, noisy: Tensor, timestep: int) -> Tensor | None:
        """The scaled gradient of ``log p(y | x_t)``; None without classifier guidance.

        Of a soft label it is that of ``sum_k w_k log p(k | x_t)``, the cross-entropy that a classifier learns it with.
        """
        if not self.settings.classifier_scale or self.classifier is None:
            return None
        with torch.enable_grad(), self._precision(noisy.device):
            inputs = noisy.detach().requires_grad_(True)
            times = torch.full((len(noisy),), timestep, device=noisy.device)
            scores = F.log_softmax(self.classifier(inputs, times).float(), dim=1)
            chosen = scores.gather(1, self.labels[:, None]) if self.labels.ndim == 1 else scores * self.labels
            (gradient,) = torch.autograd.grad(chosen.sum(), inputs)
        scaled: Tensor = gradient * self.settings.classifier_scale
        return scaled

    def guided(self, noisy: Tensor, timestep: int) -> Tensor:
        """``x_0`` with the classifier's gradient in it: the score moved, not the mean.

        Source: Dhariwal, Nichol (arXiv 2105.05233), algorithm 2.
        """
        image, _ = self(noisy, timestep)
        gradient = self.gradient(noisy, timestep)
        if gradient is None:
            return image
        left = float(self.schedule.alphas_cumprod[timestep])
        # Not clipped again, as in the original.
        return image + (1 - left) / sqrt(left) * gradient

    def _precision(self, device: torch.device) -> Any:
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bfloat16")


@torch.no_grad()
def draw(denoiser: Denoiser, start: Tensor, fresh_noise: Callable[[int], Tensor]) -> Tensor:
    """Go all the way from standard normal noise ``(N, C, H, W)`` to images of that shape, around [-1, 1].

    ``fresh_noise`` makes of the number of a step, counted from 1, the noise that it adds.
    """
    settings, schedule = denoiser.settings, denoiser.schedule
    if settings.method in ("dpmsolver++", "unipc"):
        return _draw_with_solver(denoiser, start)
    steps = schedule.respaced(settings.steps, spacing=settings.spacing)
    values = start
    for number, index in enumerate(reversed(range(len(steps))), start=1):
        timestep = int(steps.timesteps[index])
        last = index == 0
        if settings.method == "ddpm":
            image, variance = denoiser(values, timestep)
            values = ddpm_step(
                values,
                image,
                variance,
                None if last else fresh_noise(number).to(values.device),
                schedule=steps,
                index=index,
                gradient=denoiser.gradient(values, timestep),
            )
        else:
            image = denoiser.guided(values, timestep)
            added = fresh_noise(number).to(values.device) if settings.eta and not last else None
            values = ddim_step(values, image, added, schedule=steps, index=index, eta=settings.eta)
    return values


def _draw_with_solver(denoiser: Denoiser, start: Tensor) -> Tensor:
    """With a diffusers scheduler, which takes the image that the denoiser sees: it need not know of variances."""
    schedule, settings = denoiser.schedule, denoiser.settings
    common = {
        "num_train_timesteps": len(schedule),
        "trained_betas": schedule.betas.tolist(),
        "prediction_type": "sample",
        "timestep_spacing": "linspace",
        "solver_order": 2,
    }
    if settings.steps > len(schedule):
        schedule.respaced(settings.steps)  # says what is wrong
    if settings.method == "unipc":
        scheduler: Any = UniPCMultistepScheduler(**common)
    else:
        clipped = {"lambda_min_clipped": LEAST_LOG_SNR} if denoiser.configuration.noise_schedule == "cosine" else {}
        scheduler = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **common, **clipped)
    scheduler.set_timesteps(settings.steps)
    if len(scheduler.timesteps.unique()) < settings.steps:
        raise InputError(
            f"sampling: {settings.method} is for few steps: {settings.steps} of {len(schedule)} timesteps would take "
            "some twice; take fewer, or ddim or ddpm"
        )
    values: Tensor = start
    for timestep in scheduler.timesteps:
        image = denoiser.guided(values, int(timestep)).clamp_(-1, 1)
        values = scheduler.step(image, timestep, values, return_dict=False)[0]
    return values
