"""The mix of a batch with rows of the bank, computed where it is fastest: one signature, three ways."""

from genmix_transforms.transforms.kernels.dispatch import mix_with_bank
from genmix_transforms.transforms.kernels.units import Units

__all__ = ["Units", "mix_with_bank"]
