"""The bank of synthetic images: in memory or mapped from disk, in sharded safetensors that are checked."""

from genmix_transforms.bank.blending import BankDataset, ExactShares
from genmix_transforms.bank.rows import Flag
from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.bank.writing import BankWriter

__all__ = ["BankDataset", "BankWriter", "ExactShares", "Flag", "SyntheticBank"]
