"""Banks out, for those who train with other engines: see :mod:`~genmix_transforms.bank.exporting.formats`."""

from genmix_transforms.bank.exporting.formats import export_parquet, export_png, export_webdataset

__all__ = ["export_parquet", "export_png", "export_webdataset"]
