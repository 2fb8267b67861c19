"""One training step of Textual Inversion: noisy latents, prompts with the classes' tokens, and the rows that move."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators.frozen import FrozenWeights
from genmix_transforms.generators.lora import adapter_parameters, adapter_state, add_adapters
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.state import Stateful
from genmix_transforms.generators.textual_inversion.base_model import check_noise_schedule
from genmix_transforms.generators.textual_inversion.latents import CachedPosteriors, Posteriors
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.rows import ClassRows
from genmix_transforms.generators.textual_inversion.settings import LEARNING_RATES, TextualInversionSettings


def resolve_settings(
    settings: TextualInversionSettings, model: LatentDiffusion, *, warm_start: bool, processes: Processes
) -> TextualInversionSettings:
    """Check settings against the base model and the processes, and fill in the learning rate of the model's family.

    Args:
        settings: how embeddings are learned.
        model: the base model, with the adapters of an earlier training if it has any.
        warm_start: whether the training goes on from those.
        processes: who trains together.

    Raises:
        InputError: settings that do not fit.
    """
    if model.unet.dtype != torch.float32:
        raise InputError(
            f"TextualInversion.fit: the base model is held in {model.unet.dtype}, to be drawn from and not learned "
            "for (its norms and its autoencoder have lost digits, and it is no longer the model that it was by its "
            "hash): open it in float32; mixed_precision='bf16' computes in bfloat16, and the device then holds the "
            "large weights in bfloat16 alone"
        )
    if settings.accumulate > max(1, settings.batch_size // processes.count):
        raise InputError(
            f"TextualInversion.fit: a batch of {settings.batch_size} cannot be shared into {settings.accumulate} parts "
            f"in each of {processes.count} processes; give a smaller accumulate"
        )
    adapters = adapter_state(model.unet)
    if adapters and not warm_start:
        raise InputError(
            "TextualInversion.fit: the U-Net has adapters from an earlier training: give warm_start=True "
            "(--init FOLDER) to go on from them, or make a new generator"
        )
    if adapters and settings.tune == "lora":
        rank = min(min(value.shape[:2]) for value in adapters.values())
        if rank != settings.lora_rank:
            raise InputError(
                f"TextualInversion.fit: the U-Net has adapters of rank {rank}, and lora_rank is {settings.lora_rank}; "
                f"give lora_rank={rank}"
            )
    if settings.learning_rate is not None:
        return settings
    return replace(settings, learning_rate=LEARNING_RATES[model.family])


def model_to_train(model: LatentDiffusion, settings: TextualInversionSettings, *, seed: int) -> LatentDiffusion:
    """The base model; if adapters are trained, with a U-Net of its own that has them.

    Args:
        model: the base model.
        settings: as :func:`resolve_settings` returned them.
        seed: of new adapters.
    """
    if settings.tune == "lora":
        unet: Any = copy.deepcopy(model.unet)
        model = model.with_unet(unet)  # first, so that the base model's hash is taken without adapters
        if not adapter_parameters(unet):
            add_adapters(unet, rank=settings.lora_rank, seed=seed)
    if settings.gradient_checkpointing:  # without gradients, when images are drawn, it has no effect
        model.unet.enable_gradient_checkpointing()
    else:
        model.unet.disable_gradient_checkpointing()
    return model


class TextualInversionTraining:
    """The classes' rows in training, adapters if there are any, and their optimizer.

    A step reads nothing from the device. Which prompts and rows it takes follows from the classes of the batch; these
    it looks up on the CPU, where the data's order is known, instead of asking the device for the loop's labels. So it
    knows the other processes' classes too.

    Args:
        model: the base model, on the device of ``processes``, with adapters in its U-Net if they are trained.
        embeddings: of each class ``(V, D)``: what the rows begin as.
        prompts: ids of every class's prompts, one for each template, ``(K, templates, 77)``.
        dataset: the training set.
        order: the loop's order of its images.
        settings: how they are trained; the learning rate is a number.
        processes: who trains together.

    Source: Gal et al., "An Image is Worth One Word" (arXiv 2208.01618), equation 2, for all classes in one run.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        *,
        embeddings: Mapping[str, Tensor],
        prompts: Tensor,
        dataset: PatchDataset,
        order: Callable[[int, int], Tensor],
        settings: TextualInversionSettings,
        processes: Processes,
    ) -> None:
        self.model = model
        self.classes: tuple[str, ...] = tuple(embeddings)
        self.prompts = prompts
        self.labels: Tensor = dataset.labels
        self.posteriors: CachedPosteriors | Posteriors = (
            CachedPosteriors(model, dataset.images, mirror=settings.mirror)
            if settings.cache_latents
            else Posteriors(model, dataset.images.to(processes.device))
        )
        self.order = order
        self.settings = settings
        self.processes = processes
        self.rows: ClassRows = ClassRows(list(embeddings.values())).to(model.device)
        self.adapters: Adapters | None = Adapters(model.unet) if settings.tune == "lora" else None
        trained = [] if self.adapters is None else self.adapters.parameters
        self.frozen: FrozenWeights = FrozenWeights(model.unet, model.text_encoder, trained=trained)
        self.loss: NoiseLoss = NoiseLoss(model.scheduler_config, device=model.device)
        groups: list[dict[str, Any]] = [
            {
                "params": list(self.rows.parameters()),
                "lr": settings.learning_rate,
                "weight_decay": settings.weight_decay,
            }
        ]
        if self.adapters is not None:
            groups.append({"params": self.adapters.parameters, "lr": settings.lora_learning_rate, "weight_decay": 0.0})
        self.optimiser: torch.optim.Optimizer = torch.optim.AdamW(groups)

    def state_objects(self) -> Mapping[str, Stateful]:
        """The rows, the optimizer, and the adapters."""
        objects: dict[str, Stateful] = {"rows": self.rows, "optimiser": self.optimiser}
        return objects if self.adapters is None else {**objects, "adapters": self.adapters}

    def prepare(self, *, progress: bool) -> None:
        """Compute what the steps look up: cached latents."""
        self.posteriors.prepare(progress=progress)

    def inputs(self, index: Tensor) -> Tensor:
        """The loop's indices as they are: the latents are looked up, or computed, and no pixels are needed."""
        return index

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """Take one step.

        Args:
            images: not read, and the labels neither: see :meth:`batch`.
            labels: not read.
            images_seen: before this step.

        Returns:
            "mse", the error in what the U-Net predicts.
        """
        with self.frozen.narrow(self.processes.device):
            return self._step(images_seen)

    def _step(self, images_seen: int) -> Mapping[str, Tensor]:
        index, classes, present = self.batch(images_seen)
        count, device = len(index), self.processes.device
        mirrored = torch.rand(count) < 0.5 if self.settings.mirror else None
        prompts, which = self.choose_prompts(classes)
        mean, std = self.posteriors(index, mirrored)
        # By shape: randn_like would draw in the order of the memory, which is another when the mean comes from a cache.
        latents = mean + std * torch.randn(mean.shape, device=device)
        added = torch.randn(mean.shape, device=device)
        timesteps = torch.randint(0, self.loss.timesteps, (count,), device=device)
        noisy = self.loss.noisy(latents, added, timesteps)
        if self.adapters is not None:
            self.adapters.learn(images_seen // self.settings.batch_size >= self.settings.lora_after)

        # What was chosen on the CPU is sent without waiting for the device to come to it.
        prompts, which = prompts.to(device, non_blocking=True), which.to(device, non_blocking=True)
        contexts = self.model.encode_text(prompts, rows=self.rows(present))
        # Cut here, so that the text encoder is gone through once, forth and back, in however many parts the batch is.
        shown = contexts.detach().float().requires_grad_()
        errors = []
        for part in torch.arange(count, device=device).tensor_split(self.settings.accumulate):
            prediction = self.model.denoise(noisy[part], timesteps[part], shown[which[part]])
            each = self.loss(prediction, latents[part], added[part], timesteps[part])
            (each.sum() / count).backward()
            errors.append(each.detach())
        assert shown.grad is not None  # every image has a prompt
        contexts.backward(shown.grad.to(contexts.dtype))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {"mse": torch.cat(errors).mean()}

    def batch(self, images_seen: int) -> tuple[Tensor, Tensor, list[bool]]:
        """The batch that the loop shows next, from the data's order alone.

        Args:
            images_seen: before this step, by all processes together.

        Returns:
            This process's indices into the training set and their labels, int64 ``(n,)`` on the CPU, and whether the
            batch has images of each class: that of all processes, whose gradients are averaged.
        """
        size = self.settings.batch_size
        everyone = self.order(images_seen, images_seen + size)
        present = torch.bincount(self.labels[everyone], minlength=len(self.classes)) > 0
        share = size // self.processes.count
        index = everyone[self.processes.rank * share :][:share]
        return index, self.labels[index], present.tolist()

    def choose_prompts(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the prompts of a step, and find those that are the same.

        Args:
            classes: the images' labels, on the CPU: int64 ``(n,)``.

        Returns:
            Ids of the distinct prompts, ``(P, 77)``, and for each image which is its own, ``(n,)``, both on the CPU.
            Encoding each once is exact: a prompt's hidden states do not depend on the others', and the gradients of all
            images that share it add up.
        """
        number, templates = self.prompts.shape[:2]
        if self.settings.one_template_a_step:
            drawn = torch.randint(0, templates, (number,))[classes]
        else:
            drawn = torch.randint(0, templates, (len(classes),))
        distinct, which = (classes * templates + drawn).unique(return_inverse=True)
        return self.prompts.flatten(0, 1)[distinct], which

    def whole_model(self) -> LatentDiffusion:
        """The base model with its own weights on the device, adapters included, to draw from."""
        return self.model.to(self.processes.device)

    def result(self) -> dict[str, Tensor]:
        """The embeddings as they stand now; copies."""
        return dict(zip(self.classes, self.rows.values(), strict=True))


class Adapters:
    """The low-rank changes in a U-Net: that part of its state which is trained.

    Args:
        unet: as :func:`add_adapters` left it.
    """

    def __init__(self, unet: nn.Module) -> None:
        self._named = {name: value for name, value in unet.named_parameters() if ".lora_" in name}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All of them."""
        return list(self._named.values())

    def learn(self, now: bool) -> None:
        """Whether gradients reach them from now on."""
        for parameter in self._named.values():
            parameter.requires_grad_(now)

    def state_dict(self) -> dict[str, Tensor]:
        """By their names in the U-Net."""
        return {name: value.detach() for name, value in self._named.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up a saved state."""
        for name, value in self._named.items():
            value.copy_(state[name])


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
        check_noise_schedule(scheduler_config, name="training")
        self.prediction: Any = scheduler_config.get("prediction_type", "epsilon")
        left: Tensor = DDPMScheduler.from_config(dict(scheduler_config)).alphas_cumprod
        self.signal: Tensor = left.sqrt().float().to(device)  # sqrt(alpha-bar) at each timestep
        self.noise: Tensor = (1 - left).sqrt().float().to(device)

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
