"""DiffAugment and mirroring: what is drawn, and what it does to images."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from genmix_transforms.generators.augmentation import diff_augment, draw_augmentation, mirrored


def neutral(count: int, size: int = 16) -> dict[str, torch.Tensor]:
    """A draw that changes nothing (the hole's centre is far outside)."""
    return {
        "brightness": torch.zeros(count),
        "saturation": torch.ones(count),
        "contrast": torch.ones(count),
        "shift": torch.zeros(count, 2, dtype=torch.int64),
        "hole": torch.full((count, 2), 10 * size),
    }


def test_a_neutral_draw_changes_nothing() -> None:
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    assert torch.allclose(diff_augment(images, neutral(3)), images)


def test_no_policy_changes_nothing() -> None:
    images = torch.rand(3, 1, 16, 16)
    assert torch.equal(diff_augment(images, draw_augmentation(images), policy=()), images)


def test_brightness_shifts_the_mean_and_contrast_the_spread() -> None:
    images = torch.rand(2, 1, 16, 16)
    draw = neutral(2) | {"brightness": torch.tensor([0.25, -0.5]), "contrast": torch.tensor([0.5, 1.5])}
    out = diff_augment(images, draw, policy=("color",))
    assert torch.allclose(out.mean((1, 2, 3)), images.mean((1, 2, 3)) + draw["brightness"], atol=1e-6)
    assert torch.allclose(out.std((1, 2, 3)), images.std((1, 2, 3)) * draw["contrast"], atol=1e-6)


def test_saturation_zero_is_grey_and_one_channel_has_none() -> None:
    images = torch.rand(2, 3, 8, 8)
    out = diff_augment(images, neutral(2) | {"saturation": torch.zeros(2)}, policy=("color",))
    assert torch.allclose(out[:, 0], out[:, 1])
    assert torch.allclose(out[:, 0], images.mean(1), atol=1e-6)
    grey = torch.rand(2, 1, 8, 8)
    assert torch.allclose(diff_augment(grey, neutral(2) | {"saturation": torch.zeros(2)}, policy=("color",)), grey)


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (2, 0), (-2, 1), (1, -2)])
def test_translation_moves_every_pixel_and_brings_in_zeros(rows: int, columns: int) -> None:
    images = torch.rand(1, 2, 6, 7) + 1
    draw = neutral(1) | {"shift": torch.tensor([[rows, columns]])}
    out = diff_augment(images, draw, policy=("translation",))
    for y in range(6):
        for x in range(7):
            inside = 0 <= y + rows < 6 and 0 <= x + columns < 7
            expected = images[0, :, y + rows, x + columns] if inside else torch.zeros(2)
            assert torch.equal(out[0, :, y, x], expected)


def indexed(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The translation once more, by advanced indexing of images with zeros around them."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (width, width, height, height))
    rows = torch.arange(height) + height + shift[:, :1]
    columns = torch.arange(width) + width + shift[:, 1:]
    number, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1)
    return padded[number, channel, rows.view(count, 1, height, 1), columns.view(count, 1, 1, width)]


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (4, 3, 6, 9), (3, 2, 1, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_translation_is_an_index_forth_and_back_and_twice(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    random = torch.Generator().manual_seed(sum(shape))
    images = torch.randn(shape, generator=random, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    upward = torch.randn(shape, generator=random, dtype=torch.float64, requires_grad=True)
    for reach in (0, 1, max(shape)):
        shift = torch.stack([torch.randint(-min(reach, side), min(reach, side) + 1, shape[:1], generator=random)
                             for side in shape[2:]], dim=1)  # fmt: skip
        results = []
        for shifted in (diff_augment(images, {"shift": shift}, policy=("translation",)), indexed(images, shift)):
            (gradient,) = torch.autograd.grad(shifted, images, upward, create_graph=True)
            (second,) = torch.autograd.grad(gradient.square().sum(), upward)
            results.append((shifted, gradient, second))
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)


def test_cutout_is_a_square_of_half_the_side() -> None:
    images = torch.ones(1, 1, 8, 8)
    out = diff_augment(images, neutral(1) | {"hole": torch.tensor([[4, 2]])}, policy=("cutout",))
    expected = torch.ones(8, 8)
    expected[2:6, 0:4] = 0
    assert torch.equal(out[0, 0], expected)


def test_draws_stay_in_their_ranges_and_reach_them() -> None:
    draw = draw_augmentation(torch.empty(4000, 1, 16, 32), generator=torch.Generator().manual_seed(0))
    assert -0.5 <= draw["brightness"].min() < -0.49
    assert 0.49 < draw["brightness"].max() < 0.5
    assert 1.99 < draw["saturation"].max() < 2
    assert 0.5 <= draw["contrast"].min() < 0.51
    assert draw["shift"].amin(0).tolist() == [-2, -4]  # an eighth of 16 and 32
    assert draw["shift"].amax(0).tolist() == [2, 4]
    assert draw["hole"].amin(0).tolist() == [0, 0]
    assert draw["hole"].amax(0).tolist() == [16, 32]


def test_a_generator_repeats_the_draw() -> None:
    images = torch.empty(5, 1, 8, 8)
    first = draw_augmentation(images, generator=torch.Generator().manual_seed(3))
    second = draw_augmentation(images, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_differentiates_twice() -> None:
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    draw = draw_augmentation(images, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, draw), images)
    assert torch.autograd.gradgradcheck(lambda x: diff_augment(x, draw) ** 2, images)


def test_those_asked_for_are_mirrored_left_to_right() -> None:
    images = torch.arange(12.0).view(3, 1, 2, 2)
    out = mirrored(images, which=torch.tensor([True, False, True]))
    assert out[:, 0].tolist() == [[[1, 0], [3, 2]], [[4, 5], [6, 7]], [[9, 8], [11, 10]]]


def test_half_of_the_images_are_mirrored_by_one_number_each_of_the_global_generator() -> None:
    images = torch.arange(2.0).expand(400, 1, 1, 2)
    torch.manual_seed(5)
    out = mirrored(images)
    after = torch.rand(1)
    torch.manual_seed(5)
    turned = torch.rand(400, 1, 1, 1) < 0.5  # the draw of earlier releases, whose runs go on
    assert torch.equal(out, torch.where(turned, images.flip(-1), images))
    assert torch.equal(after, torch.rand(1))
    assert 150 < turned.sum() < 250
    assert mirrored(images[:0]).shape == (0, 1, 1, 2)


# Volumes


def test_a_volume_of_the_same_slices_is_augmented_in_color_as_an_image() -> None:
    images = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    volumes = images[:, :, None].expand(-1, -1, 5, -1, -1)
    draw = draw_augmentation(images, generator=torch.Generator().manual_seed(0))
    expected = diff_augment(images, draw, policy=("color",))
    assert torch.allclose(diff_augment(volumes, draw, policy=("color",)), expected[:, :, None].expand_as(volumes))


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, -2, 3), (-4, 0, 1), (9, 0, 0)])
def test_translation_moves_every_voxel_and_brings_in_zeros(shift: tuple[int, int, int]) -> None:
    volumes = torch.rand(2, 2, 4, 5, 6) + 1
    out = diff_augment(volumes, {"shift": torch.tensor([shift, (0, 0, 1)])}, policy=("translation",))
    for place in product(range(4), range(5), range(6)):
        source = [at + step for at, step in zip(place, shift, strict=True)]
        inside = all(0 <= at < side for at, side in zip(source, (4, 5, 6), strict=True))
        expected = volumes[(0, slice(None), *source)] if inside else torch.zeros(2)
        assert torch.equal(out[(0, slice(None), *place)], expected)
    assert torch.equal(out[1, ..., :-1], volumes[1, ..., 1:])  # each volume has a shift of its own
    assert not out[1, ..., -1].any()


def test_cutout_of_volumes_is_a_cube_of_half_the_side() -> None:
    out = diff_augment(torch.ones(1, 2, 8, 8, 8), {"hole": torch.tensor([[4, 2, 8]])}, policy=("cutout",))
    expected = torch.ones(8, 8, 8)
    expected[2:6, 0:4, 6:] = 0
    assert torch.equal(out[0], expected.expand(2, -1, -1, -1))


def test_draws_for_volumes_reach_along_three_axes() -> None:
    draw = draw_augmentation(torch.empty(2000, 1, 8, 16, 32), generator=torch.Generator().manual_seed(0))
    assert draw["shift"].amin(0).tolist() == [-1, -2, -4]
    assert draw["shift"].amax(0).tolist() == [1, 2, 4]
    assert draw["hole"].amin(0).tolist() == [0, 0, 0]
    assert draw["hole"].amax(0).tolist() == [8, 16, 32]


def test_volumes_differentiate() -> None:
    volumes = torch.rand(1, 2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    draw = draw_augmentation(volumes, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, draw), volumes)


def test_volumes_are_mirrored_along_their_rows() -> None:
    volumes = torch.arange(16.0).view(2, 1, 2, 2, 2)
    out = mirrored(volumes, which=torch.tensor([True, False]))
    assert torch.equal(out[0], volumes[0].flip(-1))
    assert torch.equal(out[1], volumes[1])
