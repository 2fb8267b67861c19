"""A contact sheet of a bank."""

import numpy as np
import torch
from PIL import Image

from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed
from genmix_transforms.files.sheet import draw_sheet


def bank_sheet(bank: SyntheticBank, *, columns: int = 12, seed: int = 0) -> Image.Image:
    """A row of images for each class that has any, drawn at random.

    Args:
        bank: of two-dimensional images.
        columns: images of each class, at most.
        seed: another seed, other images.

    Raises:
        InputError: a bank of volumes, an empty one, or no columns.
    """
    if len(bank.image_shape) != 3:
        raise InputError(
            f"a sheet shows two-dimensional images, the bank's are {' x '.join(map(str, bank.image_shape))}"
        )
    if not len(bank):
        raise InputError("a sheet of an empty bank shows nothing: fill the bank first")
    if columns < 1:
        raise InputError(f"a sheet needs at least one column, got columns={columns}")
    random = np.random.default_rng(check_seed(seed))
    rows, titles = [], []
    for name, start, count in zip(bank.classes, bank.class_start.tolist(), bank.class_count.tolist(), strict=True):
        if count:
            chosen = np.sort(random.permutation(count)[:columns])
            rows.append(bank.rows(torch.from_numpy(start + chosen).to(bank.device)).cpu())
            titles.append(f"{name}\n{count} images")
    return draw_sheet(rows, titles)
