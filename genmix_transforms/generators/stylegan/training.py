"""One training step of a StyleGAN, at whatever growth the schedule says: losses, rates, and what is compiled."""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators.adaptive_augmentation import AdaptiveAugmentation, thin_out
from genmix_transforms.generators.adversarial import AdversarialTraining, discriminator_loss, generator_loss
from genmix_transforms.generators.augmentation import diff_augment, draw_augmentation, mirrored
from genmix_transforms.generators.state import Stateful
from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.layers import double, halve
from genmix_transforms.generators.stylegan.network import StyleGANNetwork
from genmix_transforms.generators.stylegan.schedule import (
    GrowingSchedule,
    doublings,
    fade_at,
    level_at,
    resolution_at,
)
from genmix_transforms.generators.stylegan.settings import StyleGANSettings

BETAS = (0.0, 0.99)
"""Of Adam (Karras et al. 2019, appendix C)."""

FASTER = {128: 1.5, 256: 2.0, 512: 3.0, 1024: 3.0}
"""What the learning rate is multiplied by at a resolution; 1 at smaller ones (Karras et al. 2019, appendix C)."""


class StyleGANTraining(AdversarialTraining):
    """One StyleGAN in training; see :class:`AdversarialTraining`.

    Args:
        settings: how they are trained; ``start_resolution`` None stands for 8.
        padding: pixels added left (and on top) and right (and below) of the real images, to the networks' resolution.
        gather: makes of one process's values those of all; what is tracked over batches is then the same on all.
    """

    network: StyleGANNetwork
    discriminator: StyleGANDiscriminator

    def __init__(
        self,
        network: StyleGANNetwork,
        discriminator: StyleGANDiscriminator,
        *,
        settings: StyleGANSettings,
        padding: tuple[int, int] = (0, 0),
        gather: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> None:
        super().__init__(network, discriminator, ema_half_life=settings.ema_half_life)
        self.settings = settings
        # With a penalty every k steps only, Adam's clock for the discriminator is set back by k / (k + 1), so that the
        # steps with and without it together move as far as before (Karras et al., arXiv 1912.04958, appendix B).
        rate, interval = settings.learning_rate, settings.r1_interval
        lag = interval / (interval + 1) if interval > 1 else 1.0
        self._rates = {"generator": rate, "discriminator": rate * lag}
        self.optimiser: torch.optim.Optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS, fused=True)
        self.discriminator_optimiser: torch.optim.Optimizer = torch.optim.Adam(
            discriminator.parameters(), lr=rate * lag, betas=(BETAS[0] ** lag, BETAS[1] ** lag), fused=True
        )
        self.schedule: GrowingSchedule = GrowingSchedule(
            start=doublings(settings.start_resolution or 8),
            full=network.full_growth,
            images=settings.steps * settings.batch_size,
            growing_share=settings.growing_share,
        )
        self.adaptive: AdaptiveAugmentation | None = None
        if settings.augment_target is not None:
            self.adaptive = AdaptiveAugmentation(
                target=settings.augment_target, ramp=settings.augment_ramp, device=network.mean_w.device
            )
        self.padding = padding
        self._gather = gather
        self._synthesis: Callable[..., Tensor] = network.synthesis
        self._judge: Callable[..., Tensor] = discriminator
        if settings.compiled:
            self._compile()

    def state_objects(self) -> Mapping[str, Stateful]:
        """Both networks, both optimizers, the average, the growth, and the strength of the augmentation."""
        own: dict[str, Stateful] = {"schedule": self.schedule}
        if self.adaptive:
            own["augmentation"] = self.adaptive
        return {**super().state_objects(), **own}

    def training_step(self, images: Tensor, labels: Tensor, images_seen: int) -> Mapping[str, Tensor]:
        """One step of the discriminator, then one of the generator, on the same synthetic batch.

        The classes of the synthetic batch are those of the real one, so that both show the same mixture.
        """
        growth = self.schedule.growth_at(images_seen)
        if self.schedule.enter(images_seen):
            self._begin_phase(self.schedule.phase_at(images_seen))
        resolution = resolution_at(growth)
        # torch.compile makes a graph for every new number: the fade is a tensor, and the growth says only that there
        # is one.
        level = level_at(growth)
        stage = float(level) if growth == level else level - 0.5
        fade = torch.full((), fade_at(growth), device=images.device)

        images = self._real(images, growth=growth, fade=fade)
        synthetic = self._synthetic(labels, growth=stage, fade=fade)

        self.discriminator.requires_grad_(True)
        real_seen, synthetic_seen = self._augmented(images), self._augmented(synthetic.detach())
        batch_size, interval = self.settings.batch_size, self.settings.r1_interval
        due = (images_seen // batch_size) % interval == 0
        penalty = torch.zeros((), device=images.device)
        if due:
            # A penalty on a gradient needs the precision: bf16 has three digits.
            with torch.autocast(images.device.type, enabled=False):
                real_seen = real_seen.float().requires_grad_(True)
                real = self.discriminator(real_seen, labels, growth=stage, fade=fade)
                penalty = r1_penalty(real, real_seen) * interval
            fake = self._judge(synthetic_seen, labels, growth=stage, fade=fade)
        else:
            both = torch.cat([real_seen, synthetic_seen.to(real_seen.dtype)])
            real, fake = self._judge(both, labels.repeat(2), growth=stage, fade=fade).chunk(2)
        loss = discriminator_loss(real, fake)
        gamma = r1_weight(resolution, batch_size) if self.settings.gamma is None else self.settings.gamma
        self.take_step(self.discriminator_optimiser, loss + gamma / 2 * penalty if due else loss)

        self.discriminator.requires_grad_(False)
        painter_loss = generator_loss(self._judge(self._augmented(synthetic), labels, growth=stage, fade=fade))
        self.take_step(self.optimiser, painter_loss)

        self.average.update(self.network, batch=batch_size, images_seen=images_seen)
        self.result().growth.fill_(growth)
        values = {"discriminator": loss, "generator": painter_loss, "r1": penalty}
        real = self._gather(real.detach().float())
        values["real_sign"] = real.sign().mean()
        if self.adaptive:
            self.adaptive.update(real, batch=batch_size)
            values["augment_p"] = self.adaptive.p.clone()
        return values

    def result(self) -> StyleGANNetwork:
        """The averaged network, which is what images are drawn from."""
        return cast(StyleGANNetwork, self.average.average)

    def _compile(self) -> None:
        """Compile both networks, for one phase of the growth.

        A phase takes one graph of the synthesis and three of the discriminator: for both kinds of images, for the
        synthetic ones alone, and for the generator's step, in which its weights take no gradient. (A fade whose first
        step still shows the smaller images takes those of that step too.) PyTorch makes no more than eight of one
        function and then runs it as it is; so the graphs of the phase before are forgotten. ``fullgraph`` makes an
        error of what could not be compiled.
        """
        torch.compiler.reset()
        self._synthesis, self._judge = (
            torch.compile(network, dynamic=False, fullgraph=True)
            for network in (self.network.synthesis, self.discriminator)
        )

    def _begin_phase(self, phase: int) -> None:
        """Set the learning rates, and forget Adam's moments: they belong to other images than those now shown."""
        if self.settings.compiled:
            self._compile()
        factor = FASTER.get(self.schedule.resolution_of(phase), 1.0)
        for name, optimiser in (("generator", self.optimiser), ("discriminator", self.discriminator_optimiser)):
            optimiser.state.clear()
            for group in optimiser.param_groups:
                group["lr"] = self._rates[name] * factor

    def _real(self, images: Tensor, *, growth: float, fade: Tensor) -> Tensor:
        """Real images as the networks see them now: padded, mirrored, and brought to the resolution."""
        before, after = self.padding
        if before or after:
            images = F.pad(images, (before, after, before, after), mode="reflect")
        if self.settings.mirror:
            images = mirrored(images)
        for _ in range(self.network.full_growth - level_at(growth)):
            images = halve(images)
        if growth != level_at(growth):
            images = torch.lerp(double(halve(images)), images, fade)
        return images.contiguous(memory_format=torch.channels_last)

    def _synthetic(self, labels: Tensor, *, growth: float, fade: Tensor) -> Tensor:
        """Synthetic images of these classes, many of them in the styles of two latents of one class."""
        network, count, device = self.network, len(labels), labels.device
        layers = len(sides := network.noise_sides(growth))
        latents = torch.randn(2 * count, network.latent_size, device=device)
        with torch.autocast(device.type, enabled=False):
            first, second = network.mapping(latents, labels.repeat(2)).chunk(2)
        network.track_mean_w(self._gather(first.detach()), self._gather(labels))
        uniform = torch.rand(2, count, device=device)
        cutoff = 1 + torch.floor(uniform[0] * (layers - 1))
        cutoff = torch.where(uniform[1] < self.settings.style_mixing, cutoff, layers)
        coarse = torch.arange(layers, device=device) < cutoff[:, None]
        w = torch.where(coarse[:, :, None], first[:, None], second[:, None])
        noise = [torch.randn(count, 1, side, side, device=device) for side in sides]
        return self._synthesis(w, noise, growth=growth, fade=fade)

    def _augmented(self, images: Tensor) -> Tensor:
        if not self.settings.augment:
            return images
        draw = draw_augmentation(images)
        if self.adaptive:
            draw = thin_out(draw, p=self.adaptive.p, size=images.shape[-1])
        return diff_augment(images, draw, policy=self.settings.augment).contiguous(memory_format=torch.channels_last)


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """The squared norm of the discriminator's gradient at real images, mean over the batch; differentiable.

    The logits ``(N,)`` are those of ``images``, whose gradient is on; each is of its own image alone, but for the
    minibatch deviation.

    Source: Mescheder, Geiger, Nowozin (arXiv 1801.04406), eq. (9), without the factor gamma / 2.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def r1_weight(resolution: int, batch_size: int) -> float:
    """A weight gamma of R1 that fits a resolution and a batch: ``0.0002 * resolution ** 2 / batch_size``.

    The gradient's squared norm sums over the pixels, so that the weight grows with them. Source: Karras et al.,
    "Training Generative Adversarial Networks with Limited Data" (arXiv 2006.06676), appendix C.
    """
    return 0.0002 * resolution**2 / batch_size
