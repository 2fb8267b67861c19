"""The bank of synthetic images: in memory or mapped from disk, in sharded safetensors that are checked."""

from typing import TYPE_CHECKING

from genmix_transforms.lazy import load_lazily

if TYPE_CHECKING:
    from genmix_transforms.bank.blending import BankDataset, ExactShares
    from genmix_transforms.bank.rows import Flag
    from genmix_transforms.bank.synthetic_bank import SyntheticBank
    from genmix_transforms.bank.writing import BankWriter

__all__ = ["BankDataset", "BankWriter", "ExactShares", "Flag", "SyntheticBank"]

__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "BankDataset": "genmix_transforms.bank.blending",
        "BankWriter": "genmix_transforms.bank.writing",
        "ExactShares": "genmix_transforms.bank.blending",
        "Flag": "genmix_transforms.bank.rows",
        "SyntheticBank": "genmix_transforms.bank.synthetic_bank",
    },
)
