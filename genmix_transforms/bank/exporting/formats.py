"""Banks out: PNG folders, WebDataset shards and Parquet files, for those who train with other engines.

All three work piece by piece, and their folder appears whole or not at all. Equal banks give equal bytes (as long as
Pillow and pyarrow stay the same: they decide how pixels are packed).
"""

import csv
import io
import json
import tarfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from genmix_transforms.bank.exporting.new_folder import METADATA, flush_file, new_export
from genmix_transforms.bank.exporting.samples import COLUMNS, check_images, encoded_samples, row_order
from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.errors import InputError, MissingExtraError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.files.mask_files import IMAGES, INFO, MASKS

_ROW_GROUP = 100
"""Images of a Parquet row group, the least that a reader fetches: what Hugging Face advises for images."""


def export_png(bank: SyntheticBank, folder: str | Path, *, overwrite: bool = False) -> None:
    """Export a bank as one folder of PNG files a class, with ``metadata.csv``.

    A file is named by its row in the bank, ``cyst/00000042.png``. ``metadata.csv`` has a line an image, in the bank's
    order: ``file_name``, ``label`` (the class's name), ``seed`` (-1: none), ``source`` (index into the sources of
    ``dataset_info.json``), ``distance`` (empty: unknown), ``flags``, and for soft labels ``probabilities``, a JSON list
    in the order of the classes of ``dataset_info.json``. A soft label's image lies with its most probable class.

    Of a bank with masks the class folders are in two folders, ``images/cyst/00000042.png`` and its mask
    ``masks/cyst/00000042.png``, whose gray levels are numbers of the ``mask_classes`` of ``dataset_info.json``;
    ``metadata.csv`` has a column ``mask`` after ``file_name``.

    Args:
        bank: images ``(C, H, W)``: C 1, uint8 or uint16; or C 3, uint8.
        folder: must not exist, or be empty, unless ``overwrite``.
        overwrite: replace the PNG export that is there.

    Raises:
        InputError: no images, volumes, pixels that PNG files do not hold, or a class name that
            no reader would take for a class's folder.
        OverwriteError: the folder is not empty, and ``overwrite`` is False or what it holds is no PNG export.

    Example:
        >>> import tempfile
        >>> images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([1, 0, 1, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_png(bank, folder)
        ...     again = SyntheticBank.from_folder(folder)
        >>> torch.equal(again.images, bank.images)
        True
    """
    check_images(bank, "export_png")
    for name in bank.classes:
        if name.startswith(".") or name in (METADATA, INFO):
            raise InputError(
                f"export_png: a folder for the class {name!r} would be taken for something else, and not be read; "
                "rename the class, or export otherwise"
            )
    soft = ["probabilities"] if bank.labels.ndim == 2 else []
    masked = bank.mask_classes is not None
    with new_export(bank, folder, "png", overwrite=overwrite) as (making, bar):
        for name, count in bank.class_counts.items():
            for parent in (IMAGES, MASKS) if masked else (".",):
                if count:
                    (making / parent / name).mkdir(parents=True)
        with open(making / METADATA, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file_name", *(["mask"] if masked else []), "label", *COLUMNS, *soft])
            for sample in encoded_samples(bank, torch.arange(len(bank)), bar):
                label = bank.classes[sample.label]
                name = f"{label}/{sample.row:08d}.png"
                files = {name: sample.png}
                if sample.mask is not None:
                    files = {f"{IMAGES}/{name}": sample.png, f"{MASKS}/{name}": sample.mask}
                for file_name, content in files.items():
                    (making / file_name).write_bytes(content)
                facts = [sample.facts[column] for column in COLUMNS]  # csv writes None as nothing
                table.writerow([*files, label, *facts, *(json.dumps(sample.facts[column]) for column in soft)])


def export_webdataset(
    bank: SyntheticBank,
    folder: str | Path,
    *,
    images_per_shard: int = 10_000,
    seed: int | None = 0,
    overwrite: bool = False,
) -> None:
    """Export a bank as WebDataset tar shards, ``000000.tar`` and so on.

    An image is three adjacent files, named by its row in the bank: ``00000042.png``, ``.cls`` (its label, a number) and
    ``.json`` (``label``: the class's name, ``seed``, ``source``, ``distance``, ``flags``, and for soft labels
    ``probabilities``); a fourth, ``.mask.png``, where the bank has masks: its gray levels are numbers of the
    ``mask_classes`` of ``dataset_info.json``. The headers hold no time and no user.

    Args:
        bank: images ``(C, H, W)``: C 1, uint8 or uint16; or C 3, uint8.
        folder: must not exist, or be empty, unless ``overwrite``.
        images_per_shard: of all but the last.
        seed: of the order. Tar files are read from front to back, and a bank lies class by class: in its own order
            (None) a reader would see one class after the other.
        overwrite: replace the WebDataset export that is there.

    Raises:
        InputError: no images, volumes, or pixels that PNG files do not hold.
        OverwriteError: the folder is not empty, and ``overwrite`` is False or what it holds is no such export.

    Example:
        >>> import tempfile
        >>> images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([1, 0, 1, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_webdataset(bank, folder, images_per_shard=4)
        ...     sorted(path.name for path in Path(folder).glob("*.tar"))
        ['000000.tar', '000001.tar']
    """
    check_images(bank, "export_webdataset")
    images_per_shard = whole_number(images_per_shard, name="export_webdataset: images_per_shard", least=1)
    parts = row_order(bank, seed).split(images_per_shard)
    with new_export(bank, folder, "webdataset", overwrite=overwrite) as (making, bar):
        for number, part in enumerate(parts):
            path = making / f"{number:06d}.tar"
            with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
                for sample in encoded_samples(bank, part, bar):
                    facts = {"label": bank.classes[sample.label], **sample.facts}
                    _add_to_tar(shard, f"{sample.row:08d}.png", sample.png)
                    if sample.mask is not None:
                        _add_to_tar(shard, f"{sample.row:08d}.mask.png", sample.mask)
                    _add_to_tar(shard, f"{sample.row:08d}.cls", str(sample.label).encode())
                    _add_to_tar(shard, f"{sample.row:08d}.json", json.dumps(facts, ensure_ascii=False).encode())
            flush_file(path)


def _add_to_tar(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # by default: time 0, user and group 0 without names
    member.size, member.mode = len(content), 0o644
    shard.addfile(member, io.BytesIO(content))


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
    (a list of float32 in the order of the classes). The file name in ``image`` is the row in the bank. Of a bank with
    masks there is a column ``mask``, an Image feature as well, whose gray levels are numbers of the ``mask_classes`` of
    ``dataset_info.json``.

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
    with new_export(bank, folder, "parquet", overwrite=overwrite) as (making, bar):
        for number, part in enumerate(parts):
            path = making / f"train-{number:05d}-of-{len(parts):05d}.parquet"
            # No dictionaries: no two images are the same, and the attempt to find some costs memory.
            with parquet.ParquetWriter(path, schema, use_dictionary=False) as writer:
                for group in part.split(_ROW_GROUP):
                    rows = []
                    for sample in encoded_samples(bank, group, bar):
                        image = {"bytes": sample.png, "path": f"{sample.row:08d}.png"}
                        rows.append({"image": image, "label": sample.label, **sample.facts})
                        if sample.mask is not None:
                            rows[-1]["mask"] = {"bytes": sample.mask, "path": f"{sample.row:08d}.png"}
                    writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
            flush_file(path)


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
    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    fields = [
        ("image", picture),
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
    if bank.mask_classes is not None:
        fields.append(("mask", picture))
        features["mask"] = {"_type": "Image"}
    return arrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
