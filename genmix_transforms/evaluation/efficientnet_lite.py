"""EfficientNet-Lite0 with its batch normalization folded into the convolutions."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Each stage: expansion, output channels, kernel, stride of its first block, blocks.
_STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)
_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3
_DROPOUT = 0.2


class EfficientNetLite0(nn.Module):
    """The classifier of 3.4 million weights that has no squeeze-and-excitation and ReLU6 instead of swish.

    There is no batch normalization in it: :meth:`load` multiplies the statistics of the pre-training into the
    convolutions. Statistics of batches of 8 or 16, part of them synthetic, are noise, and their running means would
    not settle within some hundred steps; a network without them trains in two thirds of the time on a CPU.

    Args:
        classes: outputs.

    Source: Tan, Le, "EfficientNet" (arXiv 1905.11946), and tensorflow/tpu's EfficientNet-Lite.
    """

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.stem: _SameConv = _SameConv(3, _STEM, 3, stride=2)
        blocks: list[nn.Module] = []
        width = _STEM
        for expansion, outputs, kernel, stride, count in _STAGES:
            for number in range(count):
                blocks.append(_Block(width, outputs, expansion, kernel, stride if number == 0 else 1))
                width = outputs
        self.blocks: nn.Sequential = nn.Sequential(*blocks)
        self.head: _SameConv = _SameConv(width, _HEAD, 1)
        self.dropout: nn.Dropout = nn.Dropout(_DROPOUT)
        self.fc: nn.Linear = nn.Linear(_HEAD, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, 3, H, W)``, pixel p of 0 to 255 as (p - 127) / 128, to logits ``(N, classes)``."""
        values = F.relu6(self.stem(images), inplace=True)
        values = F.relu6(self.head(self.blocks(values)), inplace=True)
        logits: Tensor = self.fc(self.dropout(values.mean(dim=(2, 3))))
        return logits

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights that ``efficientnet_lite_pytorch`` names so, all but those of the last layer.

        Raises:
            KeyError: a tensor is not there.
            RuntimeError: one is of another shape.
        """
        _fold(weights, "_conv_stem", "_bn0", into=self.stem)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            inside = f"_blocks.{number}."
            if block.expand is not None:
                _fold(weights, f"{inside}_expand_conv", f"{inside}_bn0", into=block.expand)
            _fold(weights, f"{inside}_depthwise_conv", f"{inside}_bn1", into=block.depthwise)
            _fold(weights, f"{inside}_project_conv", f"{inside}_bn2", into=block.project)
        _fold(weights, "_conv_head", "_bn1", into=self.head)


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does for even sizes: with a stride of 2, more at the end than at the start."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            inputs, outputs, kernel, stride=stride, groups=groups, padding=0 if stride == 2 else kernel // 2
        )
        before, after = (kernel - stride) // 2, kernel - stride - (kernel - stride) // 2
        self.margin = (before, after, before, after) if stride == 2 else None

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = super().forward(values if self.margin is None else F.pad(values, self.margin))
        return found


class _Block(nn.Module):
    """Expand, convolve each channel by itself, project."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = _SameConv(inputs, width, 1) if expansion > 1 else None
        self.depthwise = _SameConv(width, width, kernel, stride=stride, groups=width)
        self.project = _SameConv(width, outputs, 1)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, values: Tensor) -> Tensor:
        inside = values if self.expand is None else F.relu6(self.expand(values), inplace=True)
        inside = F.relu6(self.depthwise(inside), inplace=True)
        inside = self.project(inside)
        found: Tensor = values + inside if self.skips else inside
        return found


def _fold(weights: Mapping[str, Tensor], convolution: str, normalisation: str, *, into: nn.Conv2d) -> None:
    scale = weights[f"{normalisation}.weight"] / (weights[f"{normalisation}.running_var"] + _EPSILON).sqrt()
    kernel = weights[f"{convolution}.weight"]
    if kernel.shape != into.weight.shape:
        raise RuntimeError(f"{convolution}.weight is {tuple(kernel.shape)}, expected {tuple(into.weight.shape)}")
    into.weight.copy_(kernel * scale.view(-1, 1, 1, 1))
    assert into.bias is not None
    into.bias.copy_(weights[f"{normalisation}.bias"] - weights[f"{normalisation}.running_mean"] * scale)
