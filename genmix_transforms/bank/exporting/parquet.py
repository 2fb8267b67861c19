"""A bank as Parquet files with the features of Hugging Face's datasets library."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from genmix_transforms.bank.exporting.new_folder import flush_file, new_folder, write_info
from genmix_transforms.bank.exporting.samples import check_images, encoded_samples, export_bar, row_order
from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.errors import MissingExtraError
from genmix_transforms.files.checks import whole_number

_ROW_GROUP = 100
"""Images of a Parquet row group, the least that a reader fetches: what Hugging Face advises for images."""


def export_parquet(
    bank: SyntheticBank,
    folder: str | Path,
    *,
    images_per_file: int = 10_000,
    seed: int | None = 0,
    overwrite: bool = False,
) -> None:
    """Export a bank as Parquet files, ``train-00000-of-00002.parquet`` and so on, as the datasets library reads them.

    The columns: ``image`` (PNG bytes and a file name; an Image feature), ``label`` (a ClassLabel), ``seed`` (int64),
    ``source`` (int32), ``distance`` (float32; null: unknown), ``flags`` (uint8), and for soft labels ``probabilities``
    (a list of float32 in the order of the classes). The file name in ``image`` is the row in the bank.

    Args:
        bank: images ``(C, H, W)``: C 1, uint8 or uint16; or C 3, uint8.
        folder: must not exist, or be empty, unless ``overwrite``.
        images_per_file: of all but the last.
        seed: of the order: for readers that stream, as in :func:`export_webdataset`. None: the bank's own.
        overwrite: replace the Parquet export that is there.

    Raises:
        InputError: no images, volumes, or pixels that PNG files do not hold.
        OverwriteError: the folder is not empty, and ``overwrite`` is False or what it holds is no such export.
        MissingExtraError: pyarrow is not installed.

    Example:
        >>> import tempfile
        >>> import torch
        >>> images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([1, 0, 1, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_parquet(bank, folder)
        ...     sorted(path.name for path in Path(folder).glob("*.parquet"))
        ['train-00000-of-00001.parquet']
    """
    arrow, parquet = _pyarrow()
    check_images(bank, "export_parquet")
    images_per_file = whole_number(images_per_file, name="export_parquet: images_per_file", least=1)
    parts = row_order(bank, seed).split(images_per_file)
    schema = _schema(arrow, bank)
    with new_folder(folder, "parquet", overwrite=overwrite) as making:
        with export_bar(bank) as bar:
            for number, part in enumerate(parts):
                path = making / f"train-{number:05d}-of-{len(parts):05d}.parquet"
                # No dictionaries: no two images are the same, and the attempt to find some costs memory.
                with parquet.ParquetWriter(path, schema, use_dictionary=False) as writer:
                    for group in part.split(_ROW_GROUP):
                        rows = [
                            {
                                "image": {"bytes": sample.png, "path": f"{sample.row:08d}.png"},
                                "label": sample.label,
                                **sample.facts,
                            }
                            for sample in encoded_samples(bank, group, bar)
                        ]
                        writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                flush_file(path)
        write_info(making, bank, "parquet")


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(
            "export_parquet needs pyarrow: install it with pip install 'genmix-transforms[datasets]'"
        ) from error


def _schema(arrow: Any, bank: SyntheticBank) -> Any:
    """The columns' types, and what the datasets library makes of them: its features, as it writes them itself."""
    kinds = {"seed": "int64", "source": "int32", "distance": "float32", "flags": "uint8"}
    fields = [
        ("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])),
        ("label", arrow.int64()),
        *((name, getattr(arrow, kind)()) for name, kind in kinds.items()),
    ]
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(bank.classes), "_type": "ClassLabel"},
        **{name: {"dtype": kind, "_type": "Value"} for name, kind in kinds.items()},
    }
    if bank.labels.ndim == 2:
        fields.append(("probabilities", arrow.list_(arrow.float32())))
        # "Sequence", which later versions read too, not "List", which earlier ones do not know.
        features["probabilities"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}
    return arrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
