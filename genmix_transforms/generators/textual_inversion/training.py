"""One training step of Textual Inversion: noisy latents, prompts with the classes' tokens, and the rows that move."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.state import Stateful
from genmix_transforms.generators.textual_inversion.class_rows import ClassRows
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion
from genmix_transforms.generators.textual_inversion.latents import Posteriors
from genmix_transforms.generators.textual_inversion.loss import NoiseLoss
from genmix_transforms.generators.textual_inversion.settings import TrainingSettings

if TYPE_CHECKING:
    from genmix_transforms.generators.textual_inversion.generator import TextualInversion


class TextualInversionTraining:
    """The classes' rows in training, adapters if there are any, and their optimiser.

    Args:
        generator: what is trained.
        model: the base model, on the device, with adapters in its U-Net if they are trained.
        settings: see there.
        posteriors: from indices into the training set to latents' distributions.
        processes: who trains together.

    Source: Gal et al., "An Image is Worth One Word" (arXiv 2208.01618), equation 2, for all classes in one run.
    """

    def __init__(
        self,
        generator: "TextualInversion",
        model: LatentDiffusion,
        *,
        settings: TrainingSettings,
        posteriors: Posteriors,
        processes: Processes | None = None,
    ) -> None:
        self.generator = generator
        self.model = model
        self.settings = settings
        self.posteriors = posteriors
        self.processes = processes or Processes(0, 1, model.device)
        self.rows = ClassRows(list(generator.embeddings.values())).to(model.device)
        self.adapters = Adapters(model.unet) if settings.tune == "lora" else None
        self.loss = NoiseLoss(model.scheduler_config, device=model.device)
        self.prompts = generator.prompt_ids().to(model.device)  # (K, templates, 77)
        groups: list[dict[str, Any]] = [
            {
                "params": list(self.rows.parameters()),
                "lr": settings.rate(model.family),
                "weight_decay": settings.weight_decay,
            }
        ]
        if self.adapters is not None:
            groups.append({"params": self.adapters.parameters, "lr": settings.lora_learning_rate, "weight_decay": 0.0})
        self.optimiser = torch.optim.AdamW(groups)

    def state_objects(self) -> Mapping[str, Stateful]:
        """The rows, the optimiser, and the adapters."""
        objects: dict[str, Stateful] = {"rows": self.rows, "optimiser": self.optimiser}
        return objects if self.adapters is None else {**objects, "adapters": self.adapters}

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One step.

        Args:
            images: indices into the training set, int64 ``(n,)``: the latents are looked up, or computed.
            labels: int64 ``(n,)``.
            images_seen: before this step.

        Returns:
            "mse", the error in what the U-Net predicts.
        """
        count, device = len(labels), self.model.device
        mirrored = torch.rand(count, device=device) < 0.5 if self.settings.mirror else None
        classes = labels.cpu()
        prompts, which = self.choose_prompts(classes)
        mean, std = self.posteriors(images, mirrored)
        # By shape: randn_like would draw in the order of the memory, which is another when the mean comes from a cache.
        latents = mean + std * torch.randn(mean.shape, device=device)
        added = torch.randn(mean.shape, device=device)
        timesteps = torch.randint(0, self.loss.timesteps, (count,), device=device)
        noisy = self.loss.noisy(latents, added, timesteps)
        if self.adapters is not None:
            self.adapters.learn(images_seen // self.settings.schedule.batch_size >= self.settings.lora_after)

        contexts = self.model.encode_text(prompts, rows=self.rows(self.present(classes)))
        # Cut here, so that the text encoder is gone through once, forth and back, in however many parts the batch is.
        shown = contexts.detach().float().requires_grad_()
        which = which.to(device)
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

    def choose_prompts(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the prompts of a step, and find those that are the same.

        Args:
            classes: the images' labels, on the CPU: int64 ``(n,)``.

        Returns:
            Ids of the distinct prompts, ``(P, 77)``, and for each image which is its own, ``(n,)`` on the CPU. Encoding
            each once is exact: a prompt's hidden states do not depend on the others', and the gradients of all images
            that share it add up.
        """
        number, templates = self.prompts.shape[:2]
        if self.settings.one_template_a_step:
            drawn = torch.randint(0, templates, (number,))[classes]
        else:
            drawn = torch.randint(0, templates, (len(classes),))
        distinct, which = (classes * templates + drawn).unique(return_inverse=True)
        return self.prompts.flatten(0, 1)[distinct.to(self.prompts.device)], which

    def present(self, classes: Tensor) -> list[bool]:
        """Whether the batch has images of each class, that of all processes: their gradients are averaged in step."""
        here = torch.bincount(classes, minlength=len(self.generator.classes)) > 0
        if self.processes.count > 1:
            everyone = self.processes.gather(here.to(self.processes.device, torch.uint8)[None])
            here = everyone.any(0)
        return [bool(value) for value in here.tolist()]

    def result(self) -> dict[str, Tensor]:
        """Each class's rows as they stand now."""
        return dict(zip(self.generator.classes, self.rows.values(), strict=True))


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
