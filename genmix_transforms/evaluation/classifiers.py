"""The classifiers that the arms train, from scratch: a small network, or any of torchvision's."""

import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError

SMALL = "small"
SMALL_WIDTHS = (24, 48, 96, 192)
SMALLEST_SIZE = 16

# They return their auxiliary heads too while they train.
_SEVERAL_OUTPUTS = frozenset({"googlenet", "inception_v3"})


class SmallClassifier(nn.Sequential):
    """Four stages of convolution, batch normalisation and ReLU, then the mean over the image: 0.22 million parameters.

    For patches of 28 to 128 pixels. The first convolution has 5x5 weights and a stride of 2: at full resolution that
    stage alone would take most of the time on a CPU.

    Args:
        channels: of the images.
        classes: how many.
    """

    def __init__(self, *, channels: int, classes: int) -> None:
        first, *rest = SMALL_WIDTHS
        layers = [
            nn.Conv2d(channels, first, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        ]
        width = first
        for wider in rest:
            layers += [
                nn.MaxPool2d(2),
                nn.Conv2d(width, wider, 3, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.ReLU(inplace=True),
            ]
            width = wider
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class GreyAsColour(nn.Module):
    """A network for colour images, given grey ones: the channel is repeated."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, 1, H, W)`` to logits ``(N, K)``."""
        logits: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


def build_classifier(name: str, *, channels: int, classes: int, size: tuple[int, int], seed: int) -> nn.Module:
    """Build a classifier with fresh random weights. Nothing is downloaded.

    Args:
        name: "small", or a classification model of torchvision: "resnet18", "vgg16", ...
        channels: of the images; torchvision's networks take 3, and 1 by repeating it.
        classes: how many.
        size: height and width of the images in pixels.
        seed: of the weights; torch's global generator stays as it was.

    Returns:
        On the CPU, in training mode: images ``(N, channels, H, W)`` to logits ``(N, classes)``.

    Raises:
        InputError: no such network, or one that cannot take such images.

    Example:
        >>> build_classifier("small", channels=1, classes=3, size=(32, 32), seed=0)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 3])
    """
    if classes < 2:
        raise InputError(f"a classifier needs at least 2 classes, got {classes}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == SMALL:
            if min(size) < SMALLEST_SIZE:
                raise InputError(
                    f"the classifier 'small' takes patches of at least {SMALLEST_SIZE} pixels, got "
                    f"{size[0]}x{size[1]}; resize them (--size 32)"
                )
            return SmallClassifier(channels=channels, classes=classes)
        network = _torchvision_network(name, channels=channels, classes=classes)
        _try_out(name, network, shape=(channels, *size))
    return network


def _torchvision_network(name: str, *, channels: int, classes: int) -> nn.Module:
    from torchvision import models

    names = [known for known in models.list_models(module=models) if known not in _SEVERAL_OUTPUTS]
    if name not in names:
        raise InputError(
            f"no classifier {name!r}; there is 'small', and of torchvision's classification models resnet18, vgg16, "
            f"efficientnet_b0 and {len(names) - 3} others"
        )
    if channels not in (1, 3):
        raise InputError(
            f"the classifier {name!r} takes images of 1 or 3 channels, got {channels}; 'small' takes any number"
        )
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return GreyAsColour(network) if channels == 1 else network


@torch.no_grad()
def _try_out(name: str, network: nn.Module, *, shape: tuple[int, ...]) -> None:
    """Networks differ in the sizes they take, and say so in ways of their own: found before any training."""
    network.eval()
    try:
        network(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"the classifier {name!r} cannot take images of {shape[0]} x {shape[1]} x {shape[2]} ({error}); "
            "resize the images, or choose another"
        ) from error
    network.train()
