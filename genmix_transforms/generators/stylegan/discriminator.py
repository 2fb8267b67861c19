"""The discriminator: the synthesis in reverse, without styles, and a look at how varied the batch is."""

import torch
from torch import Tensor, nn

from genmix_transforms.generators.stylegan.layers import (
    EPSILON,
    EqualisedConv,
    EqualisedLinear,
    activate,
    blur,
    halve,
)
from genmix_transforms.generators.stylegan.schedule import SMALLEST, channels_up_to, doublings, fade_at, level_at
from genmix_transforms.generators.stylegan.settings import StyleGANNetworkSettings


class DownBlock(nn.Module):
    """Convolution, blur, and a convolution that halves the image; leaky ReLU after both."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv: EqualisedConv = EqualisedConv(inputs, inputs, 3)
        self.conv_down: EqualisedConv = EqualisedConv(inputs, outputs, 3, resample="down")

    def forward(self, values: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H / 2, W / 2)``."""
        return activate(self.conv_down(blur(activate(self.conv(values)))))


class LastBlock(nn.Module):
    """At 4 x 4 pixels: minibatch standard deviation, a convolution, two dense layers."""

    def __init__(self, width: int, outputs: int, *, minibatch_group: int) -> None:
        super().__init__()
        self.minibatch_group: int = minibatch_group
        self.conv: EqualisedConv = EqualisedConv(width + 1, width, 3)
        self.dense: EqualisedLinear = EqualisedLinear(width * SMALLEST * SMALLEST, width)
        self.score: EqualisedLinear = EqualisedLinear(width, outputs, gain=1.0)

    def forward(self, values: Tensor) -> Tensor:
        """``(N, width, 4, 4)`` to scores ``(N, outputs)``."""
        values = append_minibatch_deviation(values, group=self.minibatch_group)
        values = activate(self.conv(values))
        scores: Tensor = self.score(activate(self.dense(values.flatten(1))))
        return scores


class StyleGANDiscriminator(nn.Module):
    """Images ``(N, channels, side, side)`` and labels int64 ``(N,)`` to logits ``(N,)``: positive for real.

    There is one score for each class, of which the image's own counts. It is as wide as the generator's network.
    """

    def __init__(
        self,
        settings: StyleGANNetworkSettings,
        *,
        resolution: int = 64,
        channels: int = 1,
        classes: int = 1,
        minibatch_group: int = 4,
    ) -> None:
        super().__init__()
        self.full_growth: int = doublings(resolution)
        widths = channels_up_to(self.full_growth, fmap_base=settings.fmap_base, fmap_max=settings.fmap_max)
        self.from_rgb: nn.ModuleList = nn.ModuleList(EqualisedConv(channels, width, 1) for width in widths)
        self.blocks: nn.ModuleList = nn.ModuleList(
            DownBlock(widths[level], widths[level - 1]) for level in range(1, self.full_growth + 1)
        )
        self.last: LastBlock = LastBlock(widths[0], classes, minibatch_group=minibatch_group)

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        growth: float | None = None,
        fade: Tensor | float | None = None,
    ) -> Tensor:
        """Judge images of the resolution at ``growth`` (None: fully grown); ``fade`` as in the synthesis."""
        growth = float(self.full_growth) if growth is None else growth
        level = level_at(growth)
        fade = fade_at(growth) if fade is None else fade
        values = activate(self.from_rgb[level](images))
        for here in range(level, 0, -1):
            values = self.blocks[here - 1](values)
            if here == level and growth != level:
                values = torch.lerp(activate(self.from_rgb[level - 1](halve(images))), values, fade)
        scores: Tensor = self.last(values)
        return scores.gather(1, labels[:, None]).squeeze(1)


def append_minibatch_deviation(values: Tensor, *, group: int) -> Tensor:
    """Append a channel that says how varied a group of images is (Karras et al., arXiv 1710.10196, section 3).

    Groups are neighbors in the batch, so that real and synthetic images that share a pass stay apart; a batch is a
    multiple of ``group``, or smaller, and then one group. The channel of ``(N, C + 1, H, W)`` that is new is the
    standard deviation over the group, averaged over channels and pixels.
    """
    count, channels, height, width = values.shape
    group = min(group, count)
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    grouped = wide.reshape(count // group, group, channels, height, width)
    variance = (grouped - grouped.mean(dim=1, keepdim=True)).square().mean(dim=1)
    deviation = (variance + EPSILON).sqrt().mean(dim=(1, 2, 3))
    plane = deviation.to(values.dtype).repeat_interleave(group, output_size=count)
    return torch.cat([values, plane[:, None, None, None].expand(-1, 1, height, width)], dim=1)
