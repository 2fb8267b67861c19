"""Image files in: every format and depth pixel for pixel, sizes made equal, bad files named."""

import subprocess
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files import images as module
from genmix_transforms.files.images import (
    class_folders,
    describe_fit,
    encode_png,
    fit_images,
    fit_masks,
    image_size,
    is_image_file,
    read_image,
    read_images,
    to_channels,
    to_picture,
)


def pixels(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def tensor(*shape, dtype=np.uint8, seed=0):
    return torch.from_numpy(pixels(*shape, dtype=dtype, seed=seed))


def smooth(height, width):
    rows, columns = np.mgrid[:height, :width]
    return (127 + 60 * np.sin(rows / 5) + 60 * np.cos(columns / 7)).astype(np.uint8)


GREY, COLOUR = pixels(9, 14), pixels(9, 14, 3)
DEEP = pixels(9, 14, dtype=np.uint16)
DEEP[0, :2] = 0, 65535


# --- one file


@pytest.mark.parametrize(
    "name", ["a.png", "a.tif", "a.tiff", "a.bmp", "a.pgm", "a.tga", "a.pcx", "a.gif", "a.PNG", "a.jp2"]
)
def test_grey_stays_one_channel_and_exact(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(GREY).save(path)
    image = read_image(path)
    # GIF and PCX keep grey as a palette or as bytes; whichever way, the grey values come back.
    image = to_channels(image, 1)
    assert image.dtype == torch.uint8
    assert np.array_equal(image.numpy(), GREY[None])


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.pgm", "a.tga", "a.jp2"])
def test_grey_file_has_one_channel(tmp_path, name):
    Image.fromarray(GREY).save(tmp_path / name)
    assert read_image(tmp_path / name).shape == (1, 9, 14)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.ppm", "a.tga", "a.jp2"])
def test_colour_is_exact_and_channels_first(tmp_path, name):
    Image.fromarray(COLOUR).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.is_contiguous()
    assert np.array_equal(image.numpy(), COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize(("array", "channels"), [(smooth(32, 40), 1), (np.stack([smooth(32, 40)] * 3, -1), 3)])
def test_jpeg(tmp_path, array, channels):
    Image.fromarray(array).save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (channels, 32, 40)
    assert np.abs(image[0].numpy().astype(int) - smooth(32, 40)).max() <= 6


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_sixteen_bit_grey_is_exact(tmp_path, name):
    Image.fromarray(DEEP).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == torch.uint16
    assert np.array_equal(image.numpy(), DEEP[None])


def test_sixteen_bit_tiff_of_the_other_byte_order(tmp_path):
    Image.frombytes("I;16B", (14, 9), DEEP.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif").numpy(), DEEP[None])


def test_palette_is_resolved(tmp_path):
    indices = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([255, 0, 0, 0, 128, 0, 1, 2, 3])
    image.putdata(indices.ravel().tolist())
    image.save(tmp_path / "a.png")
    expected = [[[255, 0], [1, 0]], [[0, 128], [2, 128]], [[0, 0], [3, 0]]]
    assert read_image(tmp_path / "a.png").tolist() == expected


def test_an_alpha_channel_that_hides_nothing_is_left_aside(tmp_path):
    alpha = np.full_like(GREY[..., None], 255)
    Image.fromarray(np.concatenate([COLOUR, alpha], -1)).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png").numpy(), COLOUR.transpose(2, 0, 1))
    Image.fromarray(np.concatenate([GREY[..., None], alpha], -1)).save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png").numpy(), GREY[None])


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_are_refused(tmp_path, channels):
    opaque = GREY[..., None].repeat(channels, axis=-1)
    alpha = np.full_like(GREY[..., None], 255)
    alpha[0, 0] = 254
    Image.fromarray(np.concatenate([opaque, alpha], -1)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png: transparent pixels, and nobody says what shines through"):
        read_image(tmp_path / "a.png")


def test_a_transparent_color_of_a_palette_is_refused(tmp_path):
    image = Image.fromarray(GREY).convert("P")
    image.save(tmp_path / "a.png", transparency=int(GREY[0, 0]))
    with pytest.raises(InputError, match="transparent pixels"):
        read_image(tmp_path / "a.png")


def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 0, 255]]]


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_a_stack_is_no_image(tmp_path, suffix):
    """Its first would stand for all of them."""
    pages = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 128, 255)]
    pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="3 images in one file"):
        read_image(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((4, 4), np.float32), "'F' images"),
        (np.full((4, 4), 70_000, np.int32), "70000 to 70000 do not fit 16 bits"),
        (np.full((4, 4), -5, np.int32), "-5 to -5 do not fit 16 bits"),
    ],
)
def test_pixels_of_no_fixed_range_are_refused(tmp_path, array, text):
    Image.fromarray(array).save(tmp_path / "hu.tif")
    with pytest.raises(InputError, match=rf"hu\.tif: .*({text})"):
        read_image(tmp_path / "hu.tif")


def test_wide_integers_that_fit_sixteen_bits_are_read(tmp_path):
    Image.fromarray(DEEP.astype(np.int32)).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == torch.uint16
    assert np.array_equal(image.numpy(), DEEP[None])


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.bmp", "a.gif", "a.webp", "a.jp2"])
def test_truncated_file_is_named(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(pixels(64, 64, 3)).save(path)
    whole = path.read_bytes()
    for share in (0.0, 0.02, 0.5):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=rf"{name}: not a readable image .*; repair or remove it"):
            read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow comments on damaged TIFF tags
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "bmp", "gif", "webp", "avif"])
def test_damage_never_ends_in_another_error(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix not in {name.lstrip(".") for name in Image.registered_extensions()}:
        pytest.skip(f"this Pillow reads no {suffix}")
    Image.fromarray(COLOUR).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 200), 3):
            damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            image = read_image(path)
        except InputError:
            continue
        assert image.dtype in (torch.uint8, torch.uint16)


def test_text_under_the_name_of_an_image(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(InputError, match=r"a\.png: not a readable image \(of no known format\)"):
        read_image(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        image_size(tmp_path / "a.png")


def test_missing_file(tmp_path):
    with pytest.raises(MissingPathError, match=r"a\.png: no such image file"):
        read_image(tmp_path / "a.png")


def test_postscript_under_the_name_of_an_image_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        read_image(tmp_path / "a.png")


def test_decompression_bomb_is_named(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"a\.png: .*decompression bomb"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", True),
        ("a.JPG", True),
        ("a.tiff", True),
        ("a.txt", False),
        ("a.npy", False),
        ("a.pdf", False),
        ("a.eps", False),
        ("a.h5", False),
        ("._a.png", False),
        ("png", False),
    ],
)
def test_is_image_file(tmp_path, name, expected):
    assert is_image_file(tmp_path / name) is expected


def test_image_size_is_what_is_read(tmp_path):
    for number, array in enumerate((GREY, COLOUR, DEEP)):
        Image.fromarray(array).save(tmp_path / f"{number}.png")
        assert image_size(tmp_path / f"{number}.png") == tuple(read_image(tmp_path / f"{number}.png").shape[1:])


# --- many files


def save_all(folder, *arrays):
    paths = [folder / f"{number}.png" for number in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    return paths


def test_many_files_in_their_order(tmp_path):
    arrays = [pixels(8, 6, seed=seed) for seed in range(5)]
    paths = save_all(tmp_path, *arrays)
    assert np.array_equal(read_images(paths[::-1]).numpy(), np.stack(arrays[::-1])[:, None])


def test_images_are_shown_as_their_files_have_them(tmp_path):
    seen = []
    read_images(save_all(tmp_path, GREY, COLOUR), size=8, channels=1, when_read=seen.append)
    assert [image.shape[0] for image in seen] == [1, 3]
    assert np.array_equal(seen[0][0].numpy(), GREY)
    assert np.array_equal(seen[1].permute(1, 2, 0).numpy(), COLOUR)


def test_grey_and_colour_together_become_colour(tmp_path):
    images = read_images(save_all(tmp_path, GREY, COLOUR))
    assert np.array_equal(images.numpy(), np.stack([np.stack([GREY] * 3), COLOUR.transpose(2, 0, 1)]))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_as_asked(tmp_path, channels):
    images = read_images(save_all(tmp_path, GREY, COLOUR), channels=channels)
    assert images.shape == (2, channels, 9, 14)
    assert torch.equal(images[1], to_channels(torch.from_numpy(COLOUR).permute(2, 0, 1), channels))


@pytest.mark.parametrize("fit", ["resize", "pad", "crop"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_sizes_made_equal_one_by_one(tmp_path, fit, channels):
    arrays = [pixels(20, 30, seed=1), pixels(10, 12, 3, seed=2), pixels(16, 16, seed=3)]
    images = read_images(save_all(tmp_path, *arrays), size=16, fit=fit, channels=channels)
    assert images.shape == (3, channels or 3, 16, 16)
    for image, array in zip(images, arrays, strict=True):
        single = torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)
        expected = fit_images(to_channels(single, channels or 3)[None], 16, fit=fit)[0]
        assert torch.equal(image, expected)


def test_sixteen_bit_set(tmp_path):
    images = read_images(save_all(tmp_path, DEEP, DEEP.T.copy()), size=8)
    assert images.dtype == torch.uint16
    assert images.shape == (2, 1, 8, 8)


def test_mixed_sizes_without_a_size_name_both_files_before_decoding(tmp_path, monkeypatch):
    paths = save_all(tmp_path, pixels(8, 8), pixels(8, 8), pixels(8, 9))
    monkeypatch.setattr(module, "read_image", lambda path: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"0\.png is 8x8, .*2\.png is 8x9; .*--size"):
        read_images(paths)


@pytest.mark.parametrize("deep_first", [False, True])
def test_mixed_depths_name_both_files(tmp_path, deep_first):
    arrays = [DEEP, GREY] if deep_first else [GREY, DEEP]
    eight, sixteen = ("1", "0") if deep_first else ("0", "1")
    with pytest.raises(InputError, match=rf"8-bit and 16-bit images together \(.*{eight}\.png, .*{sixteen}\.png\)"):
        read_images(save_all(tmp_path, *arrays))


def test_corrupt_file_among_many_is_named(tmp_path):
    paths = save_all(tmp_path, *[pixels(40, 40, seed=seed) for seed in range(4)])
    paths[2].write_bytes(paths[2].read_bytes()[:300])
    with pytest.raises(InputError, match=r"2\.png: not a readable image"):
        read_images(paths)


def test_no_files():
    with pytest.raises(InputError, match="no image files"):
        read_images([])


# --- channels


def test_luma_is_that_of_pillow():
    """Pillow converts RGB to L by the same ITU-R 601 weights, in fixed point: at most one level apart."""
    array = pixels(64, 64, 3)
    expected = np.asarray(Image.fromarray(array).convert("L")).astype(int)
    found = to_channels(torch.from_numpy(array).permute(2, 0, 1), 1)[0].numpy().astype(int)
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.95


@given(st.integers(0, 65535))
def test_grey_to_colour_and_back_is_nothing(value):
    grey = torch.full((1, 1, 2, 2), value, dtype=torch.uint16)
    colour = to_channels(grey, 3)
    assert colour.shape == (1, 3, 2, 2)
    assert colour.dtype == torch.uint16
    assert torch.equal(to_channels(colour, 1), grey)


def test_colour_from_grey_owns_its_pixels():
    colour = to_channels(torch.zeros(1, 4, 4, dtype=torch.uint8), 3)
    colour[0] = 9
    assert colour[1].max() == 0


def test_more_images_than_a_slice():
    many = tensor(module._SLICE + 3, 3, 2, 2)
    expected = torch.stack([to_channels(image, 1) for image in many])
    assert torch.equal(to_channels(many, 1), expected)


@pytest.mark.parametrize(("present", "channels"), [(1, 2), (3, 4), (3, 0)])
def test_channel_counts_other_than_grey_and_colour(present, channels):
    with pytest.raises(InputError, match=r"channels must be 1 .* or 3"):
        to_channels(tensor(2, present, 4, 4), channels)


def test_channels_that_are_neither():
    with pytest.raises(InputError, match="2 channels cannot be brought to 3"):
        to_channels(tensor(1, 2, 4, 4), 3)


# --- fit


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
dtypes = st.sampled_from([np.uint8, np.uint16])


@given(shapes, st.integers(1, 40), dtypes, st.integers(0, 99))
def test_pad_keeps_the_pixels_of_what_fits(shape, size, dtype, seed):
    height, width = (min(side, size) for side in shape)
    image = tensor(2, 1, height, width, dtype=dtype, seed=seed)
    padded = fit_images(image, size, fit="pad")
    assert padded.shape == (2, 1, size, size)
    assert padded.dtype == image.dtype
    top, left = (size - height) // 2, (size - width) // 2
    assert torch.equal(padded[..., top : top + height, left : left + width], image)
    total = padded.to(torch.int64).sum()
    assert total == image.to(torch.int64).sum()  # all around is zero


@given(shapes, st.integers(1, 40))
def test_pad_scales_larger_images_down_whole(shape, size):
    """The aspect is kept to a pixel, the longer side fills the square, and bars of zeros are central."""
    image = torch.full((1, 1, *shape), 200, dtype=torch.uint8)
    filled = fit_images(image, size, fit="pad")[0, 0] == 200
    rows, columns = filled.any(1).sum().item(), filled.any(0).sum().item()
    scale = min(1, size / max(shape))
    assert filled.sum() == rows * columns
    assert abs(rows - shape[0] * scale) <= 1
    assert abs(columns - shape[1] * scale) <= 1
    for extent, marked in ((rows, filled.any(1)), (columns, filled.any(0))):
        before = int(marked.int().argmax())
        assert before == (size - extent) // 2


@given(st.integers(1, 40), st.integers(0, 30), st.booleans(), dtypes)
def test_crop_to_the_short_side_is_the_central_square(side, excess, tall, dtype):
    shape = (side + excess, side) if tall else (side, side + excess)
    image = tensor(1, 3, *shape, dtype=dtype)
    start = excess // 2
    middle = slice(start, start + side)
    expected = image[..., middle, :] if tall else image[..., :, middle]
    assert torch.equal(fit_images(image, side, fit="crop"), expected)


@given(shapes, st.integers(8, 40), dtypes, st.integers(0, 2**16 - 1), st.sampled_from(["resize", "crop"]))
def test_constant_stays_constant(shape, size, dtype, value, fit):
    value %= np.iinfo(dtype).max + 1
    image = torch.from_numpy(np.full((1, 1, *shape), value, dtype=dtype))
    fitted = fit_images(image, size, fit=fit)
    assert fitted.shape == (1, 1, size, size)
    assert fitted.dtype == image.dtype
    assert fitted.to(torch.int64).unique().tolist() == [value]


@given(shapes, st.integers(1, 40), dtypes, st.sampled_from(["resize", "crop", "pad"]))
def test_no_new_extremes(shape, size, dtype, fit):
    """Bilinear weights are positive: nothing overshoots, and nothing wraps around."""
    image = tensor(1, 1, *shape, dtype=dtype)
    fitted = fit_images(image, size, fit=fit).to(torch.int64)
    values = image.to(torch.int64)
    assert fitted.max() <= values.max()
    assert fit == "pad" or fitted.min() >= values.min()


@pytest.mark.parametrize("size", [8, 20, 28, 50])
def test_resize_agrees_with_pillow(size):
    """Pillow's BILINEAR is the same antialiased filter, in fixed point: at most one level apart."""
    array = pixels(33, 47)
    expected = np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    found = fit_images(torch.from_numpy(array)[None, None], size)[0, 0].numpy().astype(int)
    assert np.abs(found - expected).max() <= 1


def test_resize_of_sixteen_bits_agrees_with_pillow_in_floats():
    array = pixels(33, 47, dtype=np.uint16)
    expected = np.asarray(Image.fromarray(array.astype(np.float32)).resize((20, 20), Image.Resampling.BILINEAR))
    found = fit_images(torch.from_numpy(array)[None, None], 20)[0, 0].numpy().astype(np.float32)
    assert np.abs(found - expected).max() <= 0.51


def test_square_of_the_right_size_is_returned_as_is():
    image = tensor(2, 1, 16, 16)
    for fit in ("resize", "pad", "crop"):
        assert fit_images(image, 16, fit=fit) is image


def test_images_do_not_know_their_neighbours():
    many = tensor(module._SLICE + 5, 1, 6, 4)
    expected = torch.cat([fit_images(image[None], 8) for image in many])
    assert torch.equal(fit_images(many, 8), expected)


@pytest.mark.parametrize("size", [6, 8])
def test_unknown_fit(size):
    with pytest.raises(InputError, match="fit must be 'resize', 'pad' or 'crop', got 'stretch'"):
        fit_images(tensor(1, 1, 8, 8), size, fit="stretch")


@pytest.mark.parametrize(
    ("sizes", "fit", "expected"),
    [
        ([(32, 32)], "resize", ""),
        ([], "resize", ""),
        ([(28, 28)], "resize", "28x28 pixels resized (bilinear, antialiased) to 32x32"),
        ([(28, 28)], "pad", "28x28 pixels padded with zeros to 32x32"),
        ([(64, 64)], "pad", "64x64 pixels scaled down to 32x32"),
        ([(64, 48)], "pad", "64x48 pixels scaled down where larger, padded with zeros to 32x32"),
        ([(64, 48)], "crop", "64x48 pixels cropped and resized to 32x32"),
        ([(32, 32, 32)], "resize", ""),
        ([(28, 28, 28)], "resize", "28x28x28 pixels resized (trilinear, antialiased) to 32x32x32"),
        ([(40, 40, 40)], "pad", "40x40x40 pixels scaled down to 32x32x32"),
        (
            [(50, 60), (20, 30), (50, 60)],
            "resize",
            "2 sizes from 20x30 to 50x60 pixels resized (bilinear, antialiased) to 32x32",
        ),
        (
            [(20, 30), (64, 64)],
            "pad",
            "2 sizes from 20x30 to 64x64 pixels scaled down where larger, padded with zeros to 32x32",
        ),
    ],
)
def test_what_was_done_in_words(sizes, fit, expected):
    assert describe_fit(sizes, 32, fit=fit) == expected


# --- volumes


@pytest.mark.parametrize("size", [5, 12])
def test_a_volume_is_resized_along_each_axis_as_an_image_is(size):
    """Of equal slices each is resized like an image; and no axis is another than the others."""
    flat = tensor(2, 1, 8, 9)
    equal = fit_images(flat[:, :, None].expand(-1, -1, 7, -1, -1), size)
    assert torch.equal(equal, fit_images(flat, size)[:, :, None].expand(-1, -1, size, -1, -1))
    volume = tensor(1, 2, 7, 8, 9)
    turned = fit_images(volume.permute(0, 1, 4, 2, 3), size).permute(0, 1, 3, 4, 2)
    assert (fit_images(volume, size).int() - turned.int()).abs().max() <= 1


def test_volumes_are_padded_and_cropped_in_the_middle():
    volume = tensor(1, 1, 4, 6, 8)
    padded = fit_images(volume, 8, fit="pad")
    assert torch.equal(padded[:, :, 2:6, 1:7], volume)
    assert int((padded > 0).sum()) == int((volume > 0).sum())
    assert torch.equal(fit_images(volume, 4, fit="crop"), volume[:, :, :, 1:5, 2:6])
    assert fit_images(tensor(1, 1, 4, 16, 8), 8, fit="pad").shape == (1, 1, 8, 8, 8)


def test_grey_of_volumes_is_that_of_their_slices():
    volume = tensor(2, 3, 4, 5, 6)
    gray = to_channels(volume, 1)
    assert gray.shape == (2, 1, 4, 5, 6)
    for depth in range(4):
        assert torch.equal(gray[:, :, depth], to_channels(volume[:, :, depth], 1))


# --- class folders


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_class_folders_are_sorted_and_hidden_files_left_out(tmp_path):
    touch(tmp_path, "b/2.png", "b/1.tif", "b/notes.txt", "b/._1.tif", "a/deep/x.jpg", ".git/x.png", "top.png")
    (tmp_path / "b" / "folder.png").mkdir()
    found = class_folders(tmp_path)
    assert list(found) == ["a", "b"]
    assert found == {
        "a": [tmp_path / "a" / "deep" / "x.jpg"],
        "b": [tmp_path / "b" / "1.tif", tmp_path / "b" / "2.png"],
    }


def test_class_folder_without_images_is_said(tmp_path):
    touch(tmp_path, "a/1.png", "c/1.png")
    (tmp_path / "b").mkdir()
    with pytest.warns(UserWarning, match="no images in b: left out"):
        assert list(class_folders(tmp_path)) == ["a", "c"]


def test_nothing_is_said_when_all_is_well(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        class_folders(tmp_path)


def test_folders_that_cannot_be_class_folders(tmp_path):
    with pytest.raises(MissingPathError, match="nope: no such folder"):
        class_folders(tmp_path / "nope")
    with pytest.raises(InputError, match="found no folders in it"):
        class_folders(tmp_path)
    touch(tmp_path, "1.png")
    with pytest.raises(InputError, match="one folder of images a class, found no folders"):
        class_folders(tmp_path)
    touch(tmp_path, "a/x.txt", "b/y.txt")
    with pytest.raises(InputError, match="no image files in a, b"):
        class_folders(tmp_path)


# Pictures out


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 3, 5), torch.uint8), ((3, 3, 5), torch.uint8), ((1, 3, 5), torch.uint16)]
)
def test_a_png_holds_the_pixels_it_was_made_of(tmp_path, shape, dtype):
    image = torch.randint(0, 256 if dtype == torch.uint8 else 65536, shape, dtype=torch.int32).to(dtype)
    (tmp_path / "a.png").write_bytes(encode_png(to_picture(image)))
    assert torch.equal(read_image(tmp_path / "a.png"), image)


# Masks


@pytest.mark.parametrize("fit", ["resize", "crop", "pad"])
@pytest.mark.parametrize("shape", [(9, 9), (12, 7), (40, 25)])
def test_masks_get_no_new_values_and_lie_where_their_images_do(shape, fit):
    mask = torch.zeros(1, *shape, dtype=torch.uint8)
    mask[:, shape[0] // 3 :, : shape[1] // 2] = 3
    fitted = fit_masks(mask, 16, fit=fit)
    assert (fitted.shape, fitted.dtype) == ((1, 16, 16), torch.uint8)
    assert set(fitted.unique().tolist()) == {0, 3}
    image = fit_images(mask.unsqueeze(1) // 3 * 255, 16, fit=fit)[:, 0]
    clear = (image < 20) | (image > 235)  # but for the edges
    assert clear.float().mean() > 0.75
    assert torch.equal((fitted == 3)[clear], (image > 127)[clear])


def test_masks_of_another_fit():
    with pytest.raises(InputError, match="fit must be 'resize', 'pad' or 'crop', got 'stretch'"):
        fit_masks(torch.zeros(1, 4, 4, dtype=torch.uint8), 8, fit="stretch")
