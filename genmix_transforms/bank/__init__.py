"""The bank of synthetic images: in memory or mapped from disk, in sharded safetensors that are checked."""

from typing import TYPE_CHECKING

from genmix_transforms.lazy import load_lazily

if TYPE_CHECKING:
    from genmix_transforms.bank.blending import BankDataset, ExactShares
    from genmix_transforms.bank.card import bank_card
    from genmix_transforms.bank.exporting import export_parquet, export_png, export_webdataset
    from genmix_transforms.bank.hub import download_bank, push_to_hub
    from genmix_transforms.bank.importing import from_datasets
    from genmix_transforms.bank.merging import merge_banks
    from genmix_transforms.bank.rows import Flag
    from genmix_transforms.bank.synthetic_bank import SyntheticBank
    from genmix_transforms.bank.writing import BankWriter

__all__ = [
    "BankDataset",
    "BankWriter",
    "ExactShares",
    "Flag",
    "SyntheticBank",
    "bank_card",
    "download_bank",
    "export_parquet",
    "export_png",
    "export_webdataset",
    "from_datasets",
    "merge_banks",
    "push_to_hub",
]

__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "BankDataset": "genmix_transforms.bank.blending",
        "BankWriter": "genmix_transforms.bank.writing",
        "ExactShares": "genmix_transforms.bank.blending",
        "Flag": "genmix_transforms.bank.rows",
        "SyntheticBank": "genmix_transforms.bank.synthetic_bank",
        "bank_card": "genmix_transforms.bank.card",
        "download_bank": "genmix_transforms.bank.hub",
        "export_parquet": "genmix_transforms.bank.exporting",
        "export_png": "genmix_transforms.bank.exporting",
        "export_webdataset": "genmix_transforms.bank.exporting",
        "from_datasets": "genmix_transforms.bank.importing",
        "merge_banks": "genmix_transforms.bank.merging",
        "push_to_hub": "genmix_transforms.bank.hub",
    },
)
