"""Patches as the base model takes them, and its images as patches: color and gray, and the two sizes.

Both ways between the sizes by cubic convolution (Keys' kernel with a = -0.5), stretched by the factor of the reduction
when an image is made smaller, so that it averages what it leaves out: the same as Pillow's ``Image.BICUBIC``, which the
published recipes resize with, but on floats. Results are clipped to [-1, 1], for the kernel overshoots at edges.
"""

from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.files.checks import whole_number


def to_colour(images: Tensor) -> Tensor:
    """Images ``(n, C, H, W)`` of one channel or three to three: the one is repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def to_grey(images: Tensor) -> tuple[Tensor, Tensor]:
    """Color images to one channel: the mean of the three.

    The plain mean is the inverse of repeating, and of all gray images it is the one nearest to the three channels.
    The luminance that photographs are turned gray with weighs green five to eight times blue, which is about eyes: in a
    gray image that a model has drawn in color, each channel is the same measurement with another error.

    Args:
        images: ``(n, 3, H, W)`` in [-1, 1].

    Returns:
        Images ``(n, 1, H, W)``, and how far the channels differ, ``(n,)``: the largest less the smallest at a pixel,
        mean over the image, as a share of the range; 0 is gray.
    """
    spread = (images.amax(1) - images.amin(1)).flatten(1).mean(1) / 2
    return images.mean(1, keepdim=True), spread


class ChannelSpread:
    """How far the channels of images differed that were turned gray: counted as they are drawn.

    Attributes:
        images: how many.
        largest: spread of an image, as :func:`to_grey` counts it.

    Example:
        >>> import torch
        >>> spread = ChannelSpread()
        >>> spread.add(torch.tensor([0.01, 0.03]))
        >>> spread.images, round(spread.mean, 3), round(spread.largest, 3)
        (2, 0.02, 0.03)
    """

    def __init__(self) -> None:
        self.images: int = 0
        self.largest: float = 0.0
        self._sum = 0.0

    def add(self, spread: Tensor) -> None:
        """Count images in: their spreads, ``(n,)``."""
        if len(spread):
            self.images += len(spread)
            self._sum += float(spread.double().sum())
            self.largest = max(self.largest, float(spread.max()))

    @property
    def mean(self) -> float:
        """Over the images; 0 where there are none."""
        return self._sum / max(1, self.images)

    def __str__(self) -> str:
        return (
            f"drawn in colour and turned grey: the channels differ by {self.mean:.1%} of the range on average, by "
            f"{self.largest:.1%} at most ({self.images} images)"
        )


def to_size(images: Tensor, size: int) -> Tensor:
    """Patches at the size that a base model was trained on, or its images at the size of the patches.

    Clipped first, as a base model's own pipeline clips its images, and after.

    Args:
        images: float ``(N, C, S, S)``, around [-1, 1].
        size: side in pixels: ``LatentDiffusion.native_size``, or that of the patches.

    Returns:
        ``(N, C, size, size)`` in [-1, 1].

    Example:
        >>> import torch
        >>> to_size(torch.zeros(2, 1, 64, 64), 256).shape
        torch.Size([2, 1, 256, 256])
    """
    whole_number(size, name="size", least=1)
    images = images.clamp(-1, 1)
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp_(-1, 1)


to_native_size = to_patch_size = to_size  # the names of earlier releases
