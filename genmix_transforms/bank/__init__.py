"""The bank of synthetic images: one integer tensor in memory, sharded safetensors on disk."""

from genmix_transforms.bank.synthetic_bank import SyntheticBank

__all__ = ["SyntheticBank"]
