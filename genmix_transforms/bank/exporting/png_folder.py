"""A bank as PNG files, one folder a class."""

import csv
import json
from pathlib import Path

import torch

from genmix_transforms.bank.exporting.new_folder import INFO, METADATA, new_folder, write_info
from genmix_transforms.bank.exporting.samples import COLUMNS, check_images, encoded_samples, export_bar
from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.errors import InputError


def export_png(bank: SyntheticBank, folder: str | Path, *, overwrite: bool = False) -> None:
    """Export a bank as one folder of PNG files a class, with ``metadata.csv``.

    A file is named by its row in the bank, ``cyst/00000042.png``. ``metadata.csv`` has a line an image, in the bank's
    order: ``file_name``, ``label`` (the class's name), ``seed`` (-1: none), ``source`` (index into the sources of
    ``dataset_info.json``), ``distance`` (empty: unknown), ``flags``, and for soft labels ``probabilities``, a JSON list
    in the order of the classes of ``dataset_info.json``. A soft label's image lies with its most probable class.

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
        >>> import torch
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
    with new_folder(folder, "png", overwrite=overwrite) as making:
        for name, count in bank.class_counts.items():
            if count:
                (making / name).mkdir()
        with open(making / METADATA, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            soft = ["probabilities"] if bank.labels.ndim == 2 else []
            table.writerow(["file_name", "label", *COLUMNS, *soft])
            with export_bar(bank) as bar:
                for sample in encoded_samples(bank, torch.arange(len(bank)), bar):
                    name = f"{bank.classes[sample.label]}/{sample.row:08d}.png"
                    (making / name).write_bytes(sample.png)
                    facts = [sample.facts[column] for column in COLUMNS]  # csv writes None as nothing
                    table.writerow(
                        [name, bank.classes[sample.label], *facts, *(json.dumps(sample.facts[c]) for c in soft)]
                    )
        write_info(making, bank, "png")
