"""What is marked of an image: bits that are kept with it, for a person or a program to act on."""

from enum import IntFlag


class Flag(IntFlag):
    """The bits of an image's flags. The upper four are the user's own.

    Example:
        >>> import torch
        >>> flags = torch.tensor([0, 1, 5], dtype=torch.uint8)
        >>> (flags & Flag.NEAR_COPY).bool()
        tensor([False,  True,  True])
    """

    NEAR_COPY = 1
    """Nearer to a real training image than real images are to each other."""
    DUPLICATE = 2
    """The same as another image of the bank, or nearly."""
    REJECTED = 4
    """Somebody has looked at it, and would not use it."""
    OUTLIER = 8
    """Unlike any real image."""
    USER_1 = 16
    USER_2 = 32
    USER_3 = 64
    USER_4 = 128
