"""Between the size of the patches and the size that the base model was trained on.

Both ways by cubic convolution (Keys' kernel with a = -0.5), stretched by the factor of the reduction when an image is
made smaller, so that it averages what it leaves out: the same as Pillow's ``Image.BICUBIC``, which the published
recipes resize with, but on floats. Results are clipped to [-1, 1], for the kernel overshoots at edges.
"""

from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.files.checks import whole_number


def to_native_size(images: Tensor, size: int) -> Tensor:
    """Patches at the size that a base model was trained on.

    Args:
        images: float ``(N, C, S, S)`` in [-1, 1].
        size: side in pixels: ``LatentDiffusion.native_size``.

    Returns:
        ``(N, C, size, size)`` in [-1, 1].

    Example:
        >>> import torch
        >>> to_native_size(torch.zeros(2, 1, 64, 64), 256).shape
        torch.Size([2, 1, 256, 256])
    """
    return _resize(images, size)


def to_patch_size(images: Tensor, size: int) -> Tensor:
    """A base model's images at the size of the patches: clipped first, as its own pipeline clips them, then averaged.

    Args:
        images: float ``(N, C, S, S)`` around [-1, 1].
        size: side of the patches in pixels.

    Returns:
        ``(N, C, size, size)`` in [-1, 1].
    """
    return _resize(images, size)


def _resize(images: Tensor, size: int) -> Tensor:
    whole_number(size, name="size", least=1)
    images = images.clamp(-1, 1)
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp_(-1, 1)
