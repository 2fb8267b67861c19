"""The bank of synthetic images: in memory or mapped from disk, in sharded safetensors that are checked."""

from genmix_transforms.bank.dataset import BankDataset
from genmix_transforms.bank.flags import Flag
from genmix_transforms.bank.shares import ExactShares
from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.bank.writer import BankWriter

__all__ = ["BankDataset", "BankWriter", "ExactShares", "Flag", "SyntheticBank"]
