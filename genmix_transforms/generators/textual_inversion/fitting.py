"""A whole training of a Textual Inversion: put together, and handed to the loop."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.textual_inversion.latents import CachedPosteriors, Posteriors
from genmix_transforms.generators.textual_inversion.lora import adapter_state, add_adapters
from genmix_transforms.generators.textual_inversion.settings import TrainingSettings
from genmix_transforms.generators.textual_inversion.training import TextualInversionTraining
from genmix_transforms.generators.training import train

if TYPE_CHECKING:
    from genmix_transforms.generators.textual_inversion.generator import TextualInversion
    from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion


def fit_textual_inversion(
    generator: "TextualInversion",
    dataset: PatchDataset,
    *,
    out: str | Path,
    settings: TrainingSettings,
    seed: int,
    warm_start: bool,
    restart: bool,
    device: str | torch.device | None,
    progress: bool,
) -> "TextualInversion":
    """Train, and return the generator as it stands at the end; :meth:`TextualInversion.fit` says the rest."""
    seed = check_seed(seed)
    schedule = settings.schedule
    generator.check_trainable_on(dataset)
    if generator.model.unet.dtype != torch.float32:
        raise InputError(
            f"TextualInversion.fit: the base model is held in {generator.model.unet.dtype}, to be drawn from and "
            "not learned for: open it in float32; mixed_precision='bf16' computes in bfloat16"
        )
    processes = Processes.join(device)
    if settings.accumulate > max(1, schedule.batch_size // processes.count):
        raise InputError(
            f"TextualInversion.fit: a batch of {schedule.batch_size} cannot be shared into {settings.accumulate} parts "
            f"in each of {processes.count} processes; give a smaller accumulate"
        )
    started_from = {"weights": generator.weights_hash, **generator.provenance} if warm_start else None
    learner = generator if warm_start else generator.with_embeddings(generator.initial_embeddings(seed))
    before = generator.device
    model = _model_to_train(generator, settings, seed=seed, warm_start=warm_start).to(processes.device)
    try:
        if settings.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        posteriors = (
            CachedPosteriors(model, dataset.images, mirror=settings.mirror, progress=progress and processes.is_main)
            if settings.cache_latents
            else Posteriors(model, dataset.images.to(processes.device))
        )
        training = TextualInversionTraining(
            learner, model, settings=settings, posteriors=posteriors, processes=processes
        )
        train(
            training,
            dataset,
            out=out,
            snapshot=lambda: learner.with_embeddings(training.result(), model=model),
            steps=schedule.steps,
            batch_size=schedule.batch_size,
            seed=seed,
            options={
                "kind": generator.kind,
                **{name: value for name, value in generator.config.items() if name not in ("sampler", "bits")},
                "learning_rate": settings.rate(model.family),
                "weight_decay": settings.weight_decay,
                "mirror": settings.mirror,
                "one_template_a_step": settings.one_template_a_step,
                "tune": settings.tune,
                **(_lora_options(settings) if settings.tune == "lora" else {}),
                **({"started_from": started_from["weights"]} if started_from else {}),
            },
            checkpoint_every=settings.checkpoint_every,
            mixed_precision=settings.mixed_precision,
            restart=restart,
            progress=progress,
            processes=processes,
            started_from=started_from,
            evolution=Evolution(generator.classes, batch_size=schedule.batch_size),
            inputs=lambda index: index,  # the training looks latents up, and has no use for pixels
        )
        return learner.with_embeddings(training.result(), model=model)
    finally:
        if settings.gradient_checkpointing:
            model.unet.disable_gradient_checkpointing()
        model.to(before)


def _lora_options(settings: TrainingSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in ("lora_rank", "lora_learning_rate", "lora_after")}


def _model_to_train(
    generator: "TextualInversion", settings: TrainingSettings, *, seed: int, warm_start: bool
) -> "LatentDiffusion":
    """The base model; if adapters are trained, with a U-Net of its own that has them."""
    model, there = generator.model, adapter_state(generator.model.unet)
    if there and not warm_start:
        raise InputError(
            "TextualInversion.fit: the U-Net has adapters from an earlier training: give warm_start=True "
            "(--init FOLDER) to go on from them, or make a new generator"
        )
    if settings.tune != "lora":
        return model
    unet: Any = copy.deepcopy(model.unet)
    if there:
        rank = min(min(value.shape[:2]) for value in there.values())
        if rank != settings.lora_rank:
            raise InputError(
                f"TextualInversion.fit: the U-Net has adapters of rank {rank}, and lora_rank is {settings.lora_rank}; "
                f"give lora_rank={rank}"
            )
    model = model.with_unet(unet)  # first, so that the base model's hash is taken without adapters
    if not there:
        add_adapters(unet, rank=settings.lora_rank, seed=seed)
    return model
