"""One training step of a StyleGAN, at whatever growth the schedule says."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.generators.adaptive_augmentation import AdaptiveAugmentation, thin_out
from genmix_transforms.generators.augmentation import diff_augment, draw_augmentation
from genmix_transforms.generators.ema import MovingAverage
from genmix_transforms.generators.state import Stateful
from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.growth import fade_at, level_at, resolution_at
from genmix_transforms.generators.stylegan.layers import double, halve
from genmix_transforms.generators.stylegan.losses import discriminator_loss, generator_loss, r1_penalty
from genmix_transforms.generators.stylegan.network import StyleGANNetwork
from genmix_transforms.generators.stylegan.schedule import GrowingSchedule, learning_rate_factor, r1_weight

if TYPE_CHECKING:
    from genmix_transforms.generators.stylegan.generator import StyleGAN

BETAS = (0.0, 0.99)
"""Of Adam (Karras et al. 2019, appendix C)."""


class StyleGANTraining:
    """The networks, optimisers, average and controllers of one StyleGAN in training.

    Args:
        generator: what is trained; its network's weights are where the training starts.
        discriminator: trained with it, on the same device.
        schedule: of the growth.
        batch_size: images in a step, all processes together.
        learning_rate: of Adam up to 64 pixels; larger images learn faster, see ``learning_rate_factor``.
        gamma: weight of R1; None: from resolution and batch.
        r1_interval: steps between R1 penalties, each then so many times as heavy.
        style_mixing: probability that an image has the styles of two latents.
        augment: the DiffAugment policy of what the discriminator sees; empty for none.
        adaptive: how often to augment; None: always.
        mirror: show real images mirrored half of the time.
        ema_half_life: images after which a weight counts for half in the average that is sampled from.
        padding: pixels added left (and on top) and right (and below) of the real images, to the networks' resolution.
        gather: makes of one process's values those of all; what is tracked over batches is then the same on all.
        compiled: run the networks through ``torch.compile`` (but for R1, whose second derivative it cannot take).
    """

    def __init__(
        self,
        generator: "StyleGAN",
        discriminator: StyleGANDiscriminator,
        *,
        schedule: GrowingSchedule,
        batch_size: int,
        learning_rate: float = 0.001,
        gamma: float | None = None,
        r1_interval: int = 1,
        style_mixing: float = 0.9,
        augment: Sequence[str] = (),
        adaptive: AdaptiveAugmentation | None = None,
        mirror: bool = False,
        ema_half_life: float = 10_000,
        padding: tuple[int, int] = (0, 0),
        compiled: bool = False,
        gather: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> None:
        self.generator = generator
        self.average = MovingAverage(generator.network, half_life=ema_half_life)
        self.network = generator.network
        self.discriminator = discriminator
        for network in (self.network, self.discriminator):
            network.train().requires_grad_(True)
            network.to(memory_format=torch.channels_last)
        # With a penalty every k steps only, Adam's clock for the discriminator is set back by k / (k + 1), so that the
        # steps with and without it together move as far as before (Karras et al., arXiv 1912.04958, appendix B).
        lag = r1_interval / (r1_interval + 1) if r1_interval > 1 else 1.0
        self._rates = {"generator": learning_rate, "discriminator": learning_rate * lag}
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=learning_rate, betas=BETAS, fused=True)
        self.discriminator_optimiser = torch.optim.Adam(
            self.discriminator.parameters(),
            lr=learning_rate * lag,
            betas=(BETAS[0] ** lag, BETAS[1] ** lag),
            fused=True,
        )
        self.schedule = schedule
        self.batch_size = batch_size
        self.gamma = gamma
        self.r1_interval = r1_interval
        self.style_mixing = style_mixing
        self.augment = tuple(augment)
        self.adaptive = adaptive
        self.mirror = mirror
        self.padding = padding
        self._gather = gather
        self._synthesis: Callable[..., Tensor] = self.network.synthesis
        self._judge: Callable[..., Tensor] = self.discriminator
        if compiled:
            self._synthesis, self._judge = torch.compile(self._synthesis), torch.compile(self._judge)

    def state_objects(self) -> Mapping[str, Stateful]:
        """Both networks, both optimisers, the average, the growth, and the strength of the augmentation."""
        return {
            "generator": self.network,
            "discriminator": self.discriminator,
            "generator_optimiser": self.optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
            "average": self.average,
            "schedule": self.schedule,
            **({"augmentation": self.adaptive} if self.adaptive else {}),
        }

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
        due = (images_seen // self.batch_size) % self.r1_interval == 0
        penalty = torch.zeros((), device=images.device)
        if due:
            # A penalty on a gradient needs the precision: bf16 has three digits.
            with torch.autocast(images.device.type, enabled=False):
                real_seen = real_seen.float().requires_grad_(True)
                real = self.discriminator(real_seen, labels, growth=stage, fade=fade)
                penalty = r1_penalty(real, real_seen) * self.r1_interval
            fake = self._judge(synthetic_seen, labels, growth=stage, fade=fade)
        else:
            both = torch.cat([real_seen, synthetic_seen.to(real_seen.dtype)])
            real, fake = self._judge(both, labels.repeat(2), growth=stage, fade=fade).chunk(2)
        loss = discriminator_loss(real, fake)
        gamma = r1_weight(resolution, self.batch_size) if self.gamma is None else self.gamma
        self.discriminator_optimiser.zero_grad(set_to_none=True)
        (loss + gamma / 2 * penalty if due else loss).backward()
        self.discriminator_optimiser.step()

        self.discriminator.requires_grad_(False)
        painter_loss = generator_loss(self._judge(self._augmented(synthetic), labels, growth=stage, fade=fade))
        self.optimiser.zero_grad(set_to_none=True)
        painter_loss.backward()
        self.optimiser.step()

        self.average.update(self.network, batch=self.batch_size, images_seen=images_seen)
        cast(StyleGANNetwork, self.average.average).growth.fill_(growth)
        values = {"discriminator": loss, "generator": painter_loss, "r1": penalty}
        real = self._gather(real.detach().float())
        values["real_sign"] = real.sign().mean()
        if self.adaptive:
            self.adaptive.update(real, batch=self.batch_size)
            values["augment_p"] = self.adaptive.p.clone()
        return values

    def result(self) -> StyleGANNetwork:
        """The network with the averaged weights: what is sampled from."""
        return cast(StyleGANNetwork, self.average.average)

    def _begin_phase(self, phase: int) -> None:
        """Set the learning rates, and forget Adam's moments: they belong to other images than those now shown."""
        factor = learning_rate_factor(self.schedule.resolution_of(phase))
        for name, optimiser in (("generator", self.optimiser), ("discriminator", self.discriminator_optimiser)):
            optimiser.state.clear()
            for group in optimiser.param_groups:
                group["lr"] = self._rates[name] * factor

    def _real(self, images: Tensor, *, growth: float, fade: Tensor) -> Tensor:
        """Real images as the networks see them now: padded, mirrored, and brought to the resolution."""
        before, after = self.padding
        if before or after:
            images = F.pad(images, (before, after, before, after), mode="reflect")
        if self.mirror:
            flip = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(flip, images.flip(-1), images)
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
        cutoff = torch.where(uniform[1] < self.style_mixing, cutoff, layers)
        coarse = torch.arange(layers, device=device) < cutoff[:, None]
        w = torch.where(coarse[:, :, None], first[:, None], second[:, None])
        noise = [torch.randn(count, 1, side, side, device=device) for side in sides]
        return self._synthesis(w, noise, growth=growth, fade=fade)

    def _augmented(self, images: Tensor) -> Tensor:
        if not self.augment:
            return images
        draw = draw_augmentation(images)
        if self.adaptive:
            draw = thin_out(draw, p=self.adaptive.p, size=images.shape[-1])
        return diff_augment(images, draw, policy=self.augment).contiguous(memory_format=torch.channels_last)
