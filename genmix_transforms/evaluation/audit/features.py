"""What images are compared by: features of a network, the user's own or one of ours, or the pixels.

There is no silent fall-back: a distance in the features of one network says nothing beside one in another's, so an
audit on a machine without the extra must not look like one on a machine with it. Whoever has no network asks for
``"pixels"``, and the report says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.classifiers import IMAGENET, LITE0, last_layer, pretrained_network
from genmix_transforms.files.images import HIGHEST_PIXEL

PIXELS = "pixels"
LITE0_SIDE, PIXEL_SIDE = 128, 16
_BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureExtractor:
    """Images to features.

    Args:
        name: of the features, for the report.
        function: images in [0, 1], float32 ``(n, C, H, W)``, to values ``(n, ...)``.
        device: where the function computes.

    Example:
        >>> images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        >>> FeatureExtractor(name="mean", function=lambda values: values.mean(dim=(2, 3)))(images).shape
        torch.Size([2, 1])
    """

    name: str
    function: Callable[[Tensor], Tensor]
    device: torch.device = torch.device("cpu")  # noqa: RUF009

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Integer images ``(N, C, H, W)`` to features, float32 ``(N, D)``, on the CPU.

        Raises:
            InputError: not such images, or features that are not one finite row an image.
        """
        if images.ndim != 4 or images.dtype not in HIGHEST_PIXEL:
            raise InputError(
                f"features: images must be uint8 or uint16 of shape (N, C, H, W), got {images.dtype} of shape "
                f"{tuple(images.shape)}"
            )
        found = []
        for part in images.split(_BATCH):
            values = self.function(part.to(self.device).float() / HIGHEST_PIXEL[images.dtype])
            if not isinstance(values, Tensor) or len(values) != len(part):
                raise InputError(f"features: {self.name} must give one row an image")
            found.append(values.flatten(1).float().cpu())
        features = torch.cat(found) if found else torch.empty(0, 0)
        if not bool(features.isfinite().all()):
            raise InputError(f"features: {self.name} gives values that are no finite numbers")
        return features


def pixel_features(*, side: int = PIXEL_SIDE) -> FeatureExtractor:
    """The pixels themselves, averaged down to ``side`` x ``side``.

    Example:
        >>> pixel_features(side=4)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([2, 16])
    """

    def small(images: Tensor) -> Tensor:
        return images if max(images.shape[-2:]) <= side else _resized(images, side)

    return FeatureExtractor(name=f"pixels at {side} x {side}", function=small)


def lite0_features(*, side: int = LITE0_SIDE, device: str | torch.device = "cpu") -> FeatureExtractor:
    """The 1280 values before the last layer of EfficientNet-Lite0, with its weights of ImageNet.

    Args:
        side: to which images are brought, in pixels.
        device: where to compute.

    Raises:
        InputError: the extra ``classifiers``, which ships the weights, is not installed.
    """
    try:
        network = pretrained_network(LITE0, classes=2, weights=IMAGENET)
    except InputError as error:
        raise InputError(f'{error}; or compare pixels (features="pixels"), which says less') from error
    return _of_network(network, name=f"EfficientNet-Lite0 (ImageNet) at {side} x {side}", side=side, device=device)


def torchvision_features(
    name: str, weights: str | Path, *, side: int = 224, device: str | torch.device = "cpu"
) -> FeatureExtractor:
    """What the last layer of a network of torchvision is given, with weights from a file.

    Args:
        name: of a classification model: "resnet18", ...
        weights: a file, ``.safetensors`` or a state dict of ``torch.save``.
        side: to which images are brought, in pixels.
        device: where to compute.

    Raises:
        MissingPathError: no such file.
        InputError: no such network, or not its weights.
    """
    from torchvision import models

    if name not in models.list_models(module=models):
        raise InputError(f"features: torchvision has no classification model {name!r}; resnet18 is one")
    network = pretrained_network(name, classes=2, weights=str(weights))
    return _of_network(network, name=f"{name} ({Path(weights).name}) at {side} x {side}", side=side, device=device)


def module_features(module: nn.Module, *, name: str, device: str | torch.device = "cpu") -> FeatureExtractor:
    """What a network of the user's own gives, in evaluation mode; it is left as it was.

    Args:
        module: images in [0, 1], float32 ``(n, C, H, W)``, to ``(n, ...)``. It normalizes and resizes as it needs.
        name: for the report.
        device: where the module is.

    Example:
        >>> module_features(nn.Flatten(), name="flat")(torch.zeros(2, 1, 4, 4, dtype=torch.uint8)).shape
        torch.Size([2, 16])
    """

    def run(images: Tensor) -> Tensor:
        modes = {part: part.training for part in module.modules()}
        module.eval()
        try:
            values: Tensor = module(images)
        finally:
            for part, mode in modes.items():
                part.training = mode
        return values

    return FeatureExtractor(name=name, function=run, device=torch.device(device))


def feature_extractor(
    features: "str | FeatureExtractor | nn.Module", *, device: str | torch.device = "cpu"
) -> FeatureExtractor:
    """Features by name, or as given.

    Args:
        features: "efficientnet_lite0", "pixels", a network of torchvision with a file of its weights
            ("resnet18:weights.safetensors"), an extractor, or a module of the user's own.
        device: where a network that is named computes, and where a module is.

    Raises:
        InputError: another name, a file that is not there, or a package that is missing.

    Example:
        >>> feature_extractor("pixels").name
        'pixels at 16 x 16'
    """
    if isinstance(features, FeatureExtractor):
        return features
    if isinstance(features, nn.Module):
        return module_features(features, name=type(features).__name__, device=device)
    if features == PIXELS:
        return pixel_features()
    if features == LITE0:
        return lite0_features(device=device)
    network, colon, weights = features.partition(":")
    if colon and network and weights:
        return torchvision_features(network, weights, device=device)
    raise InputError(
        f"features must be {LITE0!r}, {PIXELS!r}, a network of torchvision with its file of weights "
        f"(resnet18:FILE), a module of your own, or what torchvision_features gives, got {features!r}"
    )


def remembering(extractor: FeatureExtractor) -> FeatureExtractor:
    """The same features, each image's computed once: for who asks of the same images again.

    Args:
        extractor: any; its features are kept as float32, 5 KB an image for EfficientNet-Lite0.

    Example:
        >>> asked = []
        >>> def count(images: Tensor) -> Tensor:
        ...     asked.append(len(images))
        ...     return images.flatten(1)
        >>> images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
        >>> found = remembering(FeatureExtractor(name="mine", function=count))
        >>> found(images).shape, found(images).shape, asked
        (torch.Size([2, 16]), torch.Size([2, 16]), [1])
    """
    kept: dict[str, Tensor] = {}

    def run(images: Tensor) -> Tensor:
        keys = [xxhash.xxh3_128_hexdigest(image.numpy().tobytes()) for image in images.cpu()]
        new = {key: number for number, key in enumerate(keys) if key not in kept}
        if new:
            values = extractor.function(images[list(new.values())])
            if isinstance(values, Tensor) and values.ndim >= 2 and len(values) == len(new):
                kept.update(zip(new, values.flatten(1).float().cpu(), strict=True))
            else:
                return values  # which the caller refuses
        return torch.stack([kept[key] for key in keys])

    return FeatureExtractor(name=extractor.name, function=run, device=extractor.device)


def _of_network(network: nn.Module, *, name: str, side: int, device: str | torch.device) -> FeatureExtractor:
    """What the network's last dense layer is given."""
    where = torch.device(device)
    network.eval().to(where)
    caught: list[Tensor] = []
    last = last_layer(network)

    def run(images: Tensor) -> Tensor:
        if images.shape[1] not in (1, 3):
            raise InputError(f"features: {name} takes images of 1 or 3 channels, got {images.shape[1]}")
        hook = last.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
        try:
            network(_resized(images.expand(-1, 3, -1, -1), side))
            return caught[-1]
        finally:
            hook.remove()
            caught.clear()

    return FeatureExtractor(name=name, function=run, device=where)


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
