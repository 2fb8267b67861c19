"""Auxiliary batch normalization: synthetic images have statistics and affine weights of their own while training."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError

_BatchNorm = nn.modules.batchnorm._BatchNorm


class AuxiliaryNorms:
    """A second batch normalization beside every one of a network, for the synthetic images of a batch.

    In training mode each image is normalized by the statistics of its own kind in the batch, which also move that
    kind's running statistics, and scaled by its kind's affine weights. In evaluation mode there is the main one alone,
    which no synthetic image has touched.

    Args:
        network: whose batch normalizations are replaced, in place. Their weights and statistics become the main ones;
            the second ones start as copies.

    Raises:
        InputError: a network that has no batch normalization, or whose batch normalization does not learn statistics.

    Attributes:
        synthetic: bool ``(N,)``: which images of the next batch are synthetic; None: none is.

    Source: auxiliary batch normalization is that of AdvProp (Xie et al., CVPR 2020, section 4), for synthetic images
    that of arXiv 2312.02253.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        >>> norms = AuxiliaryNorms(network)
        >>> norms.synthetic = torch.tensor([True, False, False])
        >>> network(torch.rand(3, 1, 8, 8)).shape
        torch.Size([3, 2, 6, 6])
        >>> type(norms.removed()[1]).__name__
        'BatchNorm2d'
    """

    def __init__(self, network: nn.Module) -> None:
        check_norms(network)
        self.network = network
        self.synthetic: Tensor | None = None
        for name, module in list(network.named_modules()):
            if isinstance(module, _BatchNorm):
                network.set_submodule(name, _TwoNorms(module, self))

    def removed(self) -> nn.Module:
        """The network with the main batch normalizations alone, as it is tested."""
        for name, module in list(self.network.named_modules()):
            if isinstance(module, _TwoNorms):
                self.network.set_submodule(name, module.main)
        return self.network


def check_norms(network: nn.Module) -> None:
    """Raise an InputError if a network, in training mode, has no batch normalization that learns statistics."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise InputError(
            "aux_norm: this classifier has no batch normalization; leave it out, or take another (--classifier small)"
        )
    if not all(norm.training and norm.momentum is not None and norm.affine for norm in norms):
        raise InputError(
            "aux_norm: this classifier's batch normalization keeps the statistics of its pre-training, for real and "
            "synthetic images alike; leave it out, or take a classifier without pre-trained weights"
        )


class _TwoNorms(nn.Module):
    """A batch normalization, and one for the images that are marked as synthetic."""

    def __init__(self, main: _BatchNorm, which: AuxiliaryNorms) -> None:
        super().__init__()
        self.main = main
        self.auxiliary = deepcopy(main)
        # Not a submodule: it holds the network that this is a part of.
        object.__setattr__(self, "which", which)

    def forward(self, values: Tensor) -> Tensor:
        synthetic: Tensor | None = self.which.synthetic  # type: ignore[union-attr, assignment]
        if not self.training or synthetic is None:
            normalised: Tensor = self.main(values)
            return normalised
        of_image = synthetic.view(-1, *[1] * (values.ndim - 1))
        real = _normalise_some(self.main, values, ~of_image)
        return torch.where(of_image, _normalise_some(self.auxiliary, values, of_image), real)


def _normalise_some(norm: _BatchNorm, values: Tensor, chosen: Tensor) -> Tensor:
    """All images by the statistics of the chosen ones, which move the running statistics.

    What ``norm(values[chosen])`` is for the chosen. Sums over a mask, so that the host need not know how many they are.
    """
    axes = [0, *range(2, values.ndim)]
    shape = (1, -1, *[1] * (values.ndim - 2))
    x, weights = values.float(), chosen.float()
    pixels = values[0, 0].numel()
    count = weights.sum() * pixels
    some = count.clamp(min=1)
    mean = (x * weights).sum(dim=axes) / some
    variance = ((x - mean.view(shape)).square() * weights).sum(dim=axes) / some
    assert norm.momentum is not None  # check_norms has looked
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        # Nothing moves where no image was chosen.
        pull = norm.momentum * (count > 0)
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), pull)
        norm.running_var.lerp_((variance * some / (some - 1).clamp(min=1)).to(norm.running_var.dtype), pull)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += count > 0
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return ((x - mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)).to(values.dtype)
