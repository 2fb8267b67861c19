"""Contact sheets: every patch stands where its row and column say, pixel for pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from genmix_transforms.files import sheet
from genmix_transforms.files.sheet import as_pictures, draw_sheet, save_picture, to_eight_bits


def cell(picture, *, row, column, columns, height, width, magnify, top):
    """The pixels of one patch, from the right edge inwards: the margin is as wide as the titles."""
    left = picture.width - columns * (width * magnify + 2) + column * (width * magnify + 2)
    upper = top + row * (height * magnify + 2)
    return np.asarray(picture.crop((left, upper, left + width * magnify, upper + height * magnify)))


def random_patches(*shape, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(pixels)


@pytest.mark.parametrize("magnify", [1, 3])
@pytest.mark.parametrize("headings", [(), [("real", 2), ("synthetic", 1)]])
def test_grey_patches_stand_in_their_cells(magnify, headings):
    rows = [random_patches(3, 1, 5, 7, seed=seed) for seed in (0, 1)]
    picture = draw_sheet(rows, ["cyst", "metastasis"], headings=headings, magnify=magnify)
    top = 24 if headings else 2
    assert picture.height == top + 2 * (5 * magnify + 2)
    for row in range(2):
        for column in range(3):
            expected = rows[row][column, 0].numpy().repeat(magnify, 0).repeat(magnify, 1)
            found = cell(picture, row=row, column=column, columns=3, height=5, width=7, magnify=magnify, top=top)
            assert np.array_equal(found, np.stack([expected] * 3, -1))


def test_colour_patches_keep_their_channels():
    row = random_patches(1, 3, 6, 6)
    picture = draw_sheet([row], ["a"], magnify=1)
    found = cell(picture, row=0, column=0, columns=1, height=6, width=6, magnify=1, top=2)
    assert np.array_equal(found, row[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channel_counts_show_the_first(channels):
    row = random_patches(1, channels, 6, 6)
    found = cell(draw_sheet([row], ["a"], magnify=1), row=0, column=0, columns=1, height=6, width=6, magnify=1, top=2)
    assert np.array_equal(found, np.stack([row[0, 0].numpy()] * 3, -1))


@pytest.mark.parametrize(("channels", "shown"), [(5, 2), (7, 3)])
def test_stacks_show_their_middle_slice(channels, shown):
    stack = random_patches(2, channels, 6, 6)
    assert torch.equal(as_pictures(stack), stack[:, shown : shown + 1])
    assert torch.equal(as_pictures(stack[:, :3]), stack[:, :3])


def test_volumes_show_their_middle_slices():
    rows = [random_patches(2, 1, 5, 6, 7, seed=seed) for seed in (0, 1)]
    picture = draw_sheet(rows, ["cyst", "metastasis"], magnify=1)
    for row in range(2):
        found = cell(picture, row=row, column=1, columns=2, height=6, width=7, magnify=1, top=2)
        assert np.array_equal(found, np.stack([rows[row][1, 0, 2].numpy()] * 3, -1))


def test_rows_may_differ_in_length():
    rows = [random_patches(4, 1, 4, 4), random_patches(1, 1, 4, 4, seed=1)]
    picture = draw_sheet(rows, ["a", "b"], magnify=1)
    empty = cell(picture, row=1, column=2, columns=4, height=4, width=4, magnify=1, top=2)
    assert (empty == 255).all()


@pytest.mark.parametrize(("side", "magnify"), [(32, 3), (64, 1), (28, 3), (256, 1), (96, 1)])
def test_small_patches_are_enlarged_to_about_96_pixels(side, magnify):
    picture = draw_sheet([torch.zeros(1, 1, side, side, dtype=torch.uint8)], ["a"])
    assert picture.height == 2 + side * magnify + 2


def test_title_is_drawn_beside_its_row_and_makes_room():
    rows = [torch.full((1, 1, 30, 30), 255, dtype=torch.uint8)] * 2
    narrow, wide = draw_sheet(rows, ["", "a"], magnify=1), draw_sheet(rows, ["", "hemangioma"], magnify=1)
    assert wide.width > narrow.width
    ink = np.asarray(wide.convert("L")) < 128
    upper, lower = ink[: 2 + 32], ink[2 + 32 :]
    assert not upper.any()
    assert lower.any()


def test_heading_stands_over_its_columns():
    row = torch.full((4, 1, 60, 60), 255, dtype=torch.uint8)
    picture = draw_sheet([row], ["a"], headings=[("", 3), ("fake", 1)], magnify=1)
    ink = np.asarray(picture.convert("L"))[:24] < 128
    left = picture.width - 62
    assert ink[:, left:].any()
    assert not ink[:, :left].any()


def test_a_title_for_each_row():
    with pytest.raises(ValueError, match="shorter"):
        draw_sheet([random_patches(1, 1, 4, 4)] * 2, ["only one"])


def test_sixteen_bits_are_scaled_from_their_own_range():
    row = torch.tensor([1000, 1500, 3000], dtype=torch.uint16).view(1, 1, 1, 3)
    assert to_eight_bits(row).flatten().tolist() == [0, 64, 255]
    assert to_eight_bits(row).dtype == torch.uint8


def test_sixteen_bits_full_range_and_flat():
    full = torch.tensor([0, 65535], dtype=torch.uint16)
    assert to_eight_bits(full).tolist() == [0, 255]
    assert to_eight_bits(torch.full((3,), 40000, dtype=torch.uint16)).tolist() == [0, 0, 0]
    assert to_eight_bits(torch.zeros(0, dtype=torch.uint16)).shape == (0,)


def test_eight_bits_stay():
    row = random_patches(2, 1, 3, 3)
    assert torch.equal(to_eight_bits(row), row)


def test_save_makes_the_folder_and_reads_back(tmp_path):
    picture = draw_sheet([random_patches(2, 3, 8, 8)], ["a"], magnify=2)
    save_picture(picture, tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as read:
        assert read.format == "PNG"
        assert np.array_equal(np.asarray(read), np.asarray(picture))
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_failed_save_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "sheet.png"
    save_picture(Image.new("L", (4, 4), 7), path)
    old = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(sheet, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        save_picture(Image.new("L", (9, 9)), path)
    assert path.read_bytes() == old
