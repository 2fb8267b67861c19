"""What a classifier has made of an image when only its last layer is left."""

import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number

_WITH_WEIGHTS = (nn.Linear, nn.modules.conv._ConvNd)


@torch.no_grad()
def features(network: nn.Module, images: Tensor, *, batch_size: int = 128) -> Tensor:
    """The input of the network's last layer: a row of features for each image.

    The last layer is the ``nn.Linear`` or convolution that runs last, whatever its name; where it sees a map of
    features (SqueezeNet), the mean over the map is taken.

    Args:
        network: any classifier: :class:`~genmix_transforms.evaluation.classifiers.SmallClassifier`, torchvision's,
            EfficientNet-Lite. It works in ``eval()`` and is back in its mode afterwards.
        images: normalised as for training, float ``(N, C, H, W)``; each batch is moved to the network's device.
        batch_size: images at a time.

    Returns:
        float32 ``(N, D)``, on the CPU.

    Raises:
        InputError: no images, or a network without such a layer.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> features(network, torch.zeros(5, 1, 2, 2)).shape
        torch.Size([5, 3])
    """
    batch_size = whole_number(batch_size, name="batch_size", least=1)
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise InputError(
            f"features: images must be float (N, C, H, W), N at least 1, got {images.dtype} {tuple(images.shape)}"
        )
    last: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        last[:] = [inputs[0]]

    layers = [module for module in network.modules() if isinstance(module, _WITH_WEIGHTS)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    modes = {module: module.training for module in network.modules()}
    weight = next(network.parameters(), None)
    found = []
    try:
        network.eval()
        for batch in images.split(batch_size):
            last.clear()
            network(batch if weight is None else batch.to(weight.device, weight.dtype))
            if not last:
                raise InputError("features: the network has no linear layer and no convolution to take the input of")
            rows = last[0].flatten(2).mean(dim=2) if last[0].ndim > 2 else last[0]
            found.append(rows.float().cpu().clone())
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(found)
