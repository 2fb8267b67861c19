"""Sampling: from noise, or from a noised real image, to images. What each depends on comes from its own seed.

The steps are those of diffusers' schedulers, made from the configuration that the base model came with: ours are the
batches, the noise and the guidance.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.errors import InputError
from genmix_transforms.generators.batches import whole_batches
from genmix_transforms.generators.class_embedding import look_up
from genmix_transforms.generators.textual_inversion.base_model import check_noise_schedule
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.settings import SamplerSettings


def make_scheduler(config: Mapping[str, Any], settings: SamplerSettings) -> Any:
    """A diffusers scheduler with its steps set; its timesteps stay on the CPU, where a step can look them up.

    Args:
        config: the configuration of the scheduler that the base model came with, whatever its kind.
        settings: method and steps.

    Raises:
        InputError: a model that predicts something else, or more steps than it has timesteps.
    """
    check_noise_schedule(config, name="sampling")
    config = dict(config)
    if settings.method == "ddim":
        # Latents have no range to be clipped to; DDIM's default is made for pixels, and configurations of other
        # schedulers do not say that they never clipped.
        unsaid = "clip_sample" not in config or "clip_sample" in config.get("_use_default_values", ())
        scheduler: Any = DDIMScheduler.from_config(config, **({"clip_sample": False} if unsaid else {}))
    elif settings.method == "dpmsolver++":
        scheduler = DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++", solver_order=2)
    else:
        scheduler = UniPCMultistepScheduler.from_config(config, solver_order=2)
    count = int(scheduler.config.num_train_timesteps)
    if settings.steps <= count:
        scheduler.set_timesteps(settings.steps)
        found = scheduler.timesteps
        if len(found.unique()) == settings.steps and 0 <= int(found.min()) <= int(found.max()) < count:
            return scheduler
    raise InputError(
        f"sampling: {settings.steps} steps of {settings.method} do not fit a diffusion of {count} timesteps; take fewer"
    )


@torch.no_grad()
def draw(
    model: LatentDiffusion,
    contexts: Tensor,
    negative: Tensor,
    start: Tensor,
    fresh_noise: Callable[[int], Tensor],
    *,
    settings: SamplerSettings,
    real: Tensor | None = None,
) -> Tensor:
    """Go all the way from noise to images.

    Args:
        model: the base model.
        contexts: of each image's prompt, ``(N, 77, W)``.
        negative: of the negative prompt, ``(77, W)``.
        start: standard normal noise ``(N, C, h, w)``, on the CPU.
        fresh_noise: the number of a step, counted from 1, to the noise that it adds: of the shape of ``start``.
        settings: method, steps, guidance, precision, strength.
        real: scaled latents of real images, ``(N, C, h, w)`` on the CPU, to start from instead of pure noise: they are
            noised as far as the first of the steps taken expects it.

    Returns:
        Images ``(N, 3, H, W)``, float32, around [-1, 1].

    Source: Ho, Salimans (arXiv 2207.12598) for the guidance; Meng et al. (SDEdit, arXiv 2108.01073) for ``real``, with
    diffusers' rule of timesteps (``StableDiffusionImg2ImgPipeline``).
    """
    device, dtype = model.device, model.unet.dtype
    scheduler = make_scheduler(model.scheduler_config, settings)
    timesteps = scheduler.timesteps
    values = start
    if real is not None:
        left_out = settings.steps - settings.steps_taken
        timesteps = timesteps[left_out:]
        if hasattr(scheduler, "set_begin_index"):  # the solvers count their steps
            scheduler.set_begin_index(left_out)
        values = scheduler.add_noise(real, start, timesteps[:1].repeat(len(start)))
    guided = settings.guidance_scale != 1
    if guided:
        contexts = torch.cat([negative.expand_as(contexts), contexts])
    contexts, values = contexts.to(device, dtype), values.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
        for number, timestep in enumerate(timesteps, start=1):
            inputs = (values.repeat(2, 1, 1, 1) if guided else values).to(dtype)
            times = torch.full((len(inputs),), int(timestep), device=device)
            prediction = model.denoise(inputs, times, contexts).float()
            if guided:
                away_from, towards = prediction.chunk(2)
                prediction = away_from + settings.guidance_scale * (towards - away_from)
            extra = {"eta": settings.eta, "variance_noise": fresh_noise(number).to(device)} if settings.eta else {}
            values = scheduler.step(prediction, timestep, values, return_dict=False, **extra)[0]
        return model.decode(values.to(dtype)).float()


def draw_images(
    model: LatentDiffusion,
    *,
    contexts: Tensor,
    which: Tensor,
    negative: Tensor,
    seeds: Tensor,
    settings: SamplerSettings,
    start: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Draw images batch by batch, on the model's device. A batch may be of several prompts.

    Args:
        model: the base model.
        contexts: of the prompts, ``(P, 77, W)``.
        which: int64 ``(n,)``: each image's prompt; or float32 ``(n, P)``: by which weights the prompts' contexts are
            mixed for it.
        negative: of the negative prompt, ``(77, W)``.
        seeds: int64 ``(n,)``, non-negative: all randomness of an image.
        settings: the sampler's.
        start: from places in the whole, int64 ``(b,)``, to the scaled latents ``(b, C, h, w)`` of the real images that
            these begin with; None: from noise.

    Yields:
        Where in the whole the images belong, and they themselves: ``(b, 3, H, W)`` of the model's native size, float32,
        around [-1, 1].

    Raises:
        InputError: a strength without start images; a model that cannot be sampled so.
    """
    if settings.strength < 1 and start is None:
        raise InputError(
            f"TextualInversion: the sampler starts from real images (strength {settings.strength}), and there are "
            "none: give the training set with with_start_images(patches), or strength 1"
        )
    make_scheduler(model.scheduler_config, settings)
    for here, some, begin, fresh in whole_batches(which, seeds, settings.batch_size, model.latent_shape):
        size = here.stop - here.start
        real = None
        if start is not None:
            latents = start(torch.arange(here.start, here.stop)).float().cpu()
            real = F.pad(latents, (0, 0) * 3 + (0, settings.batch_size - size))
        chosen = look_up(contexts, some.to(contexts.device))
        yield here, draw(model, chosen, negative, begin, fresh, settings=settings, real=real)[:size]
