"""GenMix, and the pure functions it is made of."""

from genmix_transforms.transforms.genmix import GenMix

__all__ = ["GenMix"]
