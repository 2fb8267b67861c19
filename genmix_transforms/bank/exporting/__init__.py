"""Banks out: PNG folders, WebDataset shards and Parquet files, for those who train with other engines.

All three work piece by piece, and their folder appears whole or not at all. Equal banks give equal bytes (as long as
Pillow and pyarrow stay the same: they decide how pixels are packed).
"""

from genmix_transforms.bank.exporting.parquet import export_parquet
from genmix_transforms.bank.exporting.png_folder import export_png
from genmix_transforms.bank.exporting.tar_shards import export_webdataset

__all__ = ["export_parquet", "export_png", "export_webdataset"]
