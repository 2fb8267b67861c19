"""The figure of real, synthetic and mixed patches: what stands in each place, pixel for pixel."""

import numpy as np
import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import mixing, mixing_figure
from genmix_transforms.transforms import GenMix

CLASSES = ("cyst", "metastasis")
SIDE = 48  # magnified twice, to 96


def flat(values, dtype=torch.uint8):
    return torch.tensor(values).to(dtype).view(-1, 1, 1, 1).repeat(1, 1, SIDE, SIDE)


def real(dtype=torch.uint8, factor=1):
    """Cysts are 10 to 14, metastases 60 to 64: every patch is told by its grey."""
    values = [10, 60, 11, 61, 12, 62, 13, 63, 14, 64]
    return PatchDataset(images=flat([v * factor for v in values], dtype), labels=torch.arange(10) % 2, classes=CLASSES)


def synthetic(dtype=torch.uint8, factor=1, classes=CLASSES, **options):
    values = [v * factor for v in (110, 111, 112, 113, 160, 161, 162, 163)]
    return SyntheticBank(flat(values, dtype), torch.arange(8) // 4, classes=classes, **options)


def greys(picture, *, per_class, rows=2):
    """The grey of each patch, (rows, 3 * per_class): real, synthetic, mixed; a white column stands between them."""
    pitch, columns = 98, 3 * per_class + 2
    assert picture.height == 24 + rows * pitch
    found = np.zeros((rows, columns), dtype=int)
    for row in range(rows):
        for column in range(columns):
            left, top = picture.width - (columns - column) * pitch, 24 + row * pitch
            cell = np.asarray(picture.crop((left, top, left + 96, top + 96)))
            assert cell.min() == cell.max()
            found[row, column] = cell[0, 0, 0]
    gaps = [per_class, 2 * per_class + 1]
    assert (found[:, gaps] == 255).all()
    return np.delete(found, gaps, axis=1)


def draw(bank=None, *, per_class=3, seed=0, train=None, **options):
    bank = synthetic() if bank is None else bank
    return mixing_figure(train or real(), bank, genmix=GenMix(bank, **options), per_class=per_class, seed=seed)


def test_a_row_a_class_real_then_synthetic():
    found = greys(draw(), per_class=3)
    assert set(found[0, :3]) < set(range(10, 15))
    assert set(found[1, :3]) < set(range(60, 65))
    assert set(found[0, 3:6]) < set(range(110, 114))
    assert set(found[1, 3:6]) < set(range(160, 164))
    assert all(len(set(row[:3])) == 3 and len(set(row[3:6])) == 3 for row in found)


def test_the_mixed_patch_is_of_the_real_one_in_its_place():
    found = greys(draw(p=0.0), per_class=3)
    assert np.array_equal(found[:, 6:], found[:, :3])


def test_with_lambda_1_the_partner_alone_is_left():
    found = greys(draw(alpha=1e9, pairing="same"), per_class=3)
    assert set(found[0, 6:]) <= set(range(110, 114))
    assert set(found[1, 6:]) <= set(range(160, 164))


def test_mixed_patches_lie_between_real_and_synthetic():
    found = greys(draw(alpha=1.0, pairing="same", per_class=5), per_class=5)
    assert (found[:, 10:] >= found[:, :5]).all()
    assert (found[0, 10:] <= 113).all()
    assert (found[1, 10:] <= 163).all()
    assert (found[:, 10:] > found[:, :5] + 5).any()


def test_real_partners_come_from_all_classes():
    found = greys(draw(alpha=1e9, real_partner=1.0, per_class=5), per_class=5)
    assert set(found[:, 10:].flatten()) <= set(range(10, 15)) | set(range(60, 65))
    assert (found[0, 10:] >= 60).any()


def test_the_normalisation_of_the_transform_makes_no_difference():
    plain, normalised = draw(alpha=1.0), draw(alpha=1.0, mean=(0.3,), std=(0.07,))
    assert np.abs(greys(plain, per_class=3) - greys(normalised, per_class=3)).max() <= 1


def test_a_seed_decides_all_and_nothing_else_does():
    first = draw(alpha=1.0, seed=1)
    torch.manual_seed(9)
    assert draw(alpha=1.0, seed=1).tobytes() == first.tobytes()
    assert draw(alpha=1.0, seed=2).tobytes() != first.tobytes()


def test_the_seed_decides_the_mix_too():
    """With one image a class there is nothing to choose: the draw of the mix alone is left."""
    train = real().subset(torch.tensor([0, 1]))
    bank = SyntheticBank(flat([110, 160]), torch.tensor([0, 1]), classes=CLASSES)
    one, two = (greys(draw(bank, train=train, alpha=1.0, seed=seed, per_class=1), per_class=1) for seed in (1, 2))
    assert np.array_equal(one[:, :2], two[:, :2])
    assert not np.array_equal(one[:, 2], two[:, 2])


def test_nothing_is_left_changed():
    bank = synthetic()
    generator = torch.Generator().manual_seed(4)
    genmix = GenMix(bank, generator=generator, inplace=True).eval()
    train = real()
    before, mine, pixels = torch.random.get_rng_state(), generator.get_state(), train.images.clone()
    found = greys(mixing_figure(train, bank, genmix=genmix, per_class=5), per_class=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(generator.get_state(), mine)
    assert genmix.generator is generator
    assert not genmix.training
    assert genmix.inplace
    assert torch.equal(train.images, pixels)
    # It mixes all the same: a transform in eval() shows what it does in training.
    assert not np.array_equal(found[:, :5], found[:, 10:])


def test_a_class_with_few_images_leaves_its_places_white():
    train = real().subset(torch.tensor([0, 1, 3, 5]))
    bank = SyntheticBank(flat([110, 160]), torch.tensor([0, 1]), classes=CLASSES)
    found = greys(mixing_figure(train, bank, genmix=GenMix(bank, p=0.0), per_class=3), per_class=3)
    assert list(found[0]) == [10, 255, 255, 110, 255, 255, 10, 255, 255]
    assert list(found[1, 3:6]) == [160, 255, 255]


@pytest.mark.parametrize("bank_dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("train_dtype", [torch.uint8, torch.uint16])
def test_either_depth_shows_the_same(train_dtype, bank_dtype):
    factors = {torch.uint8: 1, torch.uint16: 257}
    train, bank = real(train_dtype, factors[train_dtype]), synthetic(bank_dtype, factors[bank_dtype])
    found = greys(draw(bank, train=train, alpha=1.0), per_class=3)
    assert np.abs(found - greys(draw(alpha=1.0), per_class=3)).max() <= 1
    assert np.array_equal(found[:, :6], greys(draw(alpha=1.0), per_class=3)[:, :6])


def test_a_bank_with_the_classes_in_another_order():
    swapped = synthetic(classes=CLASSES[::-1])
    picture = mixing_figure(real(), swapped, genmix=GenMix(synthetic()), per_class=3)
    assert set(greys(picture, per_class=3)[0, 3:6]) < set(range(160, 164))


def test_a_bank_with_soft_labels():
    soft = SyntheticBank(flat([110, 160]), torch.tensor([[0.9, 0.1], [0.2, 0.8]]), classes=CLASSES)
    found = greys(mixing_figure(real(), soft, genmix=GenMix(soft), per_class=1), per_class=1)
    assert list(found[:, 1]) == [110, 160]


def test_what_does_not_fit_together():
    bank, train = synthetic(), real()
    small = SyntheticBank(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), classes=CLASSES)
    other = synthetic(classes=("cyst", "polyp"))
    swapped = synthetic(classes=CLASSES[::-1])
    for some_bank, genmix, options, message in (
        (bank, GenMix(bank), {"per_class": 0}, "per_class must be a whole number, at least 1, got 0"),
        (bank, GenMix(bank), {"seed": -1}, "seed must be a whole number"),
        (other, GenMix(other), {}, "polyp is no class of the data"),
        (
            bank,
            GenMix(swapped),
            {},
            "genmix: .*the bank's metastasis, cyst: build GenMix with",
        ),
        (small, GenMix(small), {}, r"the patches are 1 x 48 x 48 \(C x H x W\), the bank's 1 x 8 x 8: resize"),
        (bank, GenMix(small), {}, r"genmix: the patches are 1 x 48 x 48 \(C x H x W\), the bank's 1 x 8 x 8: resize"),
    ):
        with pytest.raises(InputError, match=message):
            mixing_figure(train, some_bank, genmix=genmix, **options)


# Which patches are shown, and what the transform makes of them


def test_chosen_are_of_the_class_and_each_once():
    of_class = torch.tensor([True, False, True, True, False])
    found = mixing.choose(of_class, 2, np.random.default_rng(0))
    assert len(set(found.tolist())) == 2
    assert of_class[found].all()
    assert sorted(mixing.choose(of_class, 9, np.random.default_rng(0)).tolist()) == [0, 2, 3]


def test_mixed_is_equation_1_in_the_unit_range(shapes):
    train, bank = shapes.patches(12), shapes.bank(20)
    for options in ({}, {"mean": (0.3,), "std": (0.2,)}):
        mixed = mixing.mix(train.images, train.labels, GenMix(bank, alpha=1.0, **options), seed=3)
        lam = mixed.lam.view(-1, 1, 1, 1)
        expected = lam * bank.images[mixed.index] / 255 + (1 - lam) * train.images / 255
        assert torch.allclose(mixed.values, expected, atol=1e-5)
        assert not mixed.from_batch.any()
        rows = torch.nn.functional.one_hot(torch.stack([bank.labels[mixed.index], train.labels]), 3).float()
        assert torch.allclose(mixed.labels, mixed.lam[:, None] * rows[0] + (1 - mixed.lam[:, None]) * rows[1])


def test_the_seed_is_all_that_counts(shapes):
    train, genmix = shapes.patches(6), GenMix(shapes.bank(20))
    one = mixing.mix(train.images, train.labels, genmix, seed=1)
    torch.manual_seed(5)
    assert torch.equal(one.values, mixing.mix(train.images, train.labels, genmix, seed=1).values)
    assert not torch.equal(one.values, mixing.mix(train.images, train.labels, genmix, seed=2).values)
    assert genmix.params is None


def test_labels_of_a_bank_are_classes():
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    soft = SyntheticBank(images, torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), classes=("a", "b"))
    assert mixing.hard_labels(soft).tolist() == [0, 0, 1]  # a bank is sorted by class
    assert mixing.hard_labels(SyntheticBank(images, torch.tensor([0, 1, 1]), classes=("a", "b"))).tolist() == [0, 1, 1]


def test_pixels_of_either_depth_are_the_same_grey():
    grey = torch.tensor([0, 17, 255]).view(3, 1, 1, 1)
    assert torch.equal(mixing.in_eight_bits(grey.to(torch.uint8)), grey.to(torch.uint8))
    assert torch.equal(mixing.in_eight_bits((grey * 257).to(torch.uint16)), grey.to(torch.uint8))
    assert mixing.in_unit(grey.to(torch.uint8)).flatten().tolist() == pytest.approx([0, 17 / 255, 1])
