"""The contact sheet of a bank: a row for each class that has images, each patch pixel for pixel."""

import numpy as np
import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.sheet import bank_sheet
from genmix_transforms.errors import InputError

SIDE, GAP, MAGNIFY = 48, 2, 2  # small patches are enlarged to about 96 pixels


def flat_bank(labels, classes=("cyst", "hemangioma", "metastasis"), dtype=torch.uint8):
    """Image number n is evenly grey of level 10 n."""
    levels = 10 * torch.arange(len(labels))
    images = levels.view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE).to(dtype)
    return SyntheticBank(images.contiguous(), torch.tensor(labels), classes=classes)


def cells(picture, rows, columns):
    """The patches of a sheet, ``[row][column]``, from its right and lower edge inwards."""
    step = SIDE * MAGNIFY + GAP
    left = picture.width - columns * step
    assert picture.height == GAP + rows * step
    array = np.asarray(picture)
    return [
        [array[GAP + r * step :, left + c * step :][: SIDE * MAGNIFY, : SIDE * MAGNIFY] for c in range(columns)]
        for r in range(rows)
    ]


def test_each_class_has_its_row_with_its_own_images():
    picture = bank_sheet(flat_bank([2, 0, 2, 0, 1, 2]))
    found = cells(picture, rows=3, columns=3)
    levels = [[sorted({int(v) for v in cell.reshape(-1)}) for cell in row] for row in found]
    assert levels[0] == [[10], [30], [255]]  # two cysts, then white
    assert levels[1] == [[40], [255], [255]]
    assert levels[2] == [[0], [20], [50]]


def test_pixels_are_those_of_the_image(pixels):
    image = pixels(1, (3, SIDE, SIDE))
    bank = SyntheticBank(image, torch.tensor([0]), classes=["a"])
    found = cells(bank_sheet(bank), rows=1, columns=1)[0][0]
    expected = image[0].permute(1, 2, 0).numpy().repeat(MAGNIFY, 0).repeat(MAGNIFY, 1)
    assert np.array_equal(found, expected)


def test_classes_without_images_have_no_row():
    cells(bank_sheet(flat_bank([0, 2, 2])), rows=2, columns=2)


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_columns_are_the_most_of_a_row(columns):
    labels = [0] * 4 + [1]
    picture = bank_sheet(flat_bank(labels), columns=columns)
    shown = cells(picture, rows=2, columns=min(columns, 4))
    levels = [int(cell[0, 0, 0]) for cell in shown[0]]
    assert len(set(levels)) == min(columns, 4)  # no image twice
    assert set(levels) <= {0, 10, 20, 30}
    assert int(shown[1][0][0, 0, 0]) == 40


def test_seed_chooses_the_images():
    bank = flat_bank([0] * 20)
    one, again, other = (bank_sheet(bank, columns=6, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(np.asarray(one), np.asarray(again))
    assert not np.array_equal(np.asarray(one), np.asarray(other))


def test_sixteen_bits_show_their_range():
    found = cells(bank_sheet(flat_bank([0, 0], dtype=torch.uint16)), rows=1, columns=2)[0]
    assert [int(cell[0, 0, 0]) for cell in found] == [0, 255]


def test_probabilities_show_under_the_likeliest_class():
    bank = flat_bank([0, 0, 0])
    soft = SyntheticBank(bank.images, torch.tensor([[0.4, 0.6, 0], [1, 0, 0], [0.1, 0.8, 0.1]]), classes=bank.classes)
    found = cells(bank_sheet(soft), rows=2, columns=2)
    assert [[int(cell[0, 0, 0]) for cell in row] for row in found] == [[10, 255], [0, 20]]


@pytest.mark.parametrize(
    ("shape", "columns", "text"),
    [
        ((1, 1, 4, 4, 4), 12, "shows two-dimensional images, the bank's are 1 x 4 x 4 x 4"),
        ((0, 1, 4, 4), 12, "a sheet of an empty bank shows nothing: fill the bank first"),
        ((1, 1, 4, 4), 0, "at least one column, got columns=0"),
    ],
)
def test_refused(shape, columns, text):
    bank = SyntheticBank(torch.zeros(shape, dtype=torch.uint8), torch.zeros(shape[0]).long(), classes=["a"])
    with pytest.raises(InputError, match=text):
        bank_sheet(bank, columns=columns)
