"""A bank as WebDataset's tar shards."""

import io
import json
import tarfile
from pathlib import Path

from genmix_transforms.bank.exporting.new_folder import flush_file, new_folder, write_info
from genmix_transforms.bank.exporting.samples import check_images, encoded_samples, export_bar, row_order
from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.files.checks import whole_number


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
    ``probabilities``). The headers hold no time and no user.

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
        >>> import torch
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
    with new_folder(folder, "webdataset", overwrite=overwrite) as making:
        with export_bar(bank) as bar:
            for number, part in enumerate(parts):
                path = making / f"{number:06d}.tar"
                with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
                    for sample in encoded_samples(bank, part, bar):
                        facts = {"label": bank.classes[sample.label], **sample.facts}
                        _add_to_tar(shard, f"{sample.row:08d}.png", sample.png)
                        _add_to_tar(shard, f"{sample.row:08d}.cls", str(sample.label).encode())
                        _add_to_tar(shard, f"{sample.row:08d}.json", json.dumps(facts, ensure_ascii=False).encode())
                flush_file(path)
        write_info(making, bank, "webdataset")


def _add_to_tar(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # by default: time 0, user and group 0 without names
    member.size, member.mode = len(content), 0o644
    shard.addfile(member, io.BytesIO(content))
