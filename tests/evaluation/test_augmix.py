"""AugMix of a batch: operations and law are torchvision's, and nobody waits for a device."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.augmix import (
    DEPTH,
    LEVELS,
    OPERATIONS,
    WIDTH,
    AugMix,
    AugMixDraw,
    apply_augmix,
    apply_operations,
    draw_augmix,
    magnitudes,
)
from genmix_transforms.evaluation.normalisation import Normalisation
from tests.pretend_cuda import DEVICE, PretendCuda

UNIT = Normalisation(mean=(0.0,), std=(1.0,))
BILINEAR = {"interpolation": v2.InterpolationMode.BILINEAR}

THEIRS = {
    "ShearX": lambda x, m: vision.affine(
        x, 0.0, [0, 0], 1.0, [math.degrees(math.atan(m)), 0.0], center=[0, 0], **BILINEAR
    ),
    "ShearY": lambda x, m: vision.affine(
        x, 0.0, [0, 0], 1.0, [0.0, math.degrees(math.atan(m))], center=[0, 0], **BILINEAR
    ),
    "TranslateX": lambda x, m: vision.affine(x, 0.0, [int(m), 0], 1.0, [0.0, 0.0], **BILINEAR),
    "TranslateY": lambda x, m: vision.affine(x, 0.0, [0, int(m)], 1.0, [0.0, 0.0], **BILINEAR),
    "Rotate": lambda x, m: vision.rotate(x, m, **BILINEAR),
    "Brightness": lambda x, m: vision.adjust_brightness(x, 1 + m),
    "Color": lambda x, m: vision.adjust_saturation(x, 1 + m),
    "Contrast": lambda x, m: vision.adjust_contrast(x, 1 + m),
    "Sharpness": lambda x, m: vision.adjust_sharpness(x, 1 + m),
    "Posterize": lambda x, m: vision.posterize(x, int(m)),
    "Solarize": lambda x, m: vision.solarize(x, m),
    "AutoContrast": lambda x, m: vision.autocontrast(x),
    "Equalize": lambda x, m: vision.equalize(x),
}


def test_the_operations_are_torchvisions():
    assert set(OPERATIONS) == set(THEIRS) == set(v2.AugMix._AUGMENTATION_SPACE)


@pytest.mark.parametrize("shape", [(1, 17, 24), (3, 30, 20)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions_at_every_level(name, shape):
    images = torch.rand(2 * LEVELS, *shape, generator=torch.Generator().manual_seed(0))
    place = OPERATIONS.index(name)
    theirs, signed = v2.AugMix._AUGMENTATION_SPACE[name]
    levels = theirs(LEVELS, *shape[1:])
    sign = -1 if signed else 1
    asked = [0.0] * 2 * LEVELS if levels is None else [*levels.tolist(), *(sign * levels).tolist()]
    row = magnitudes(*shape[1:])[place]
    found = apply_operations(images, torch.full((2 * LEVELS,), place), torch.cat([row, sign * row]))
    expected = torch.cat([THEIRS[name](image[None], value) for image, value in zip(images, asked, strict=True)])
    assert torch.allclose(found, expected, atol=2e-5)


def test_each_image_takes_its_own_operation():
    torch.manual_seed(0)
    images, place = torch.rand(len(OPERATIONS) + 1, 3, 16, 16), torch.arange(-1, len(OPERATIONS))
    before, table = images.clone(), magnitudes(16, 16)
    magnitude = table[place.clamp(min=0), 2]
    found = apply_operations(images, place, magnitude)
    assert torch.equal(images, before)
    assert torch.equal(found[0], images[0])
    for number in range(1, len(images)):
        alone = apply_operations(
            images[number : number + 1], place[number : number + 1], magnitude[number : number + 1]
        )
        assert torch.allclose(found[number], alone[0], atol=1e-6)


def test_the_mix_is_the_weighted_sum_of_the_image_and_its_chains():
    torch.manual_seed(0)
    images, draw, table = torch.rand(5, 1, 16, 16), draw_augmix(5, severity=4), magnitudes(16, 16)
    expected = []
    for number, image in enumerate(images):
        mixed = draw.weights[number, 0] * image
        for chain in range(WIDTH):
            changed = image[None]
            for step in range(DEPTH):
                place, level = (int(values[number, chain, step]) for values in draw[:2])
                value = table[place, level].item() if place >= 0 else 0.0
                if draw.negative[number, chain, step] and OPERATIONS[place] not in ("Posterize", "Solarize"):
                    value = -value
                changed = apply_operations(changed, torch.tensor([place]), torch.tensor([value]))
            mixed = mixed + draw.weights[number, 1 + chain] * changed[0]
        expected.append(mixed)
    before = images.clone()
    assert torch.allclose(apply_augmix(images, draw, table), torch.stack(expected), atol=1e-6)
    assert torch.allclose(apply_augmix(images[:1], AugMixDraw(*(values[:1] for values in draw)), table), expected[0])
    assert torch.equal(images, before)


def test_the_draws_have_the_law_of_torchvisions():
    torch.manual_seed(0)
    count, severity = 20_000, 4
    draw = draw_augmix(count, severity=severity)
    depths = (draw.operation >= 0).sum(2)
    assert ((draw.operation >= 0).long().diff(dim=2) <= 0).all()  # once ended, a chain stays ended
    bound = 5 * math.sqrt(0.25 / count)  # five standard deviations of a share
    for depth in (1, 2, 3):
        assert (depths == depth).float().mean().item() == pytest.approx(1 / 3, abs=bound)
    chosen = draw.operation[draw.operation >= 0]
    for place in range(len(OPERATIONS)):
        assert (chosen == place).float().mean().item() == pytest.approx(1 / len(OPERATIONS), abs=bound)
    for level in range(severity):
        assert (draw.level == level).float().mean().item() == pytest.approx(1 / severity, abs=bound)
    assert draw.level.max() == severity - 1
    assert draw.negative.float().mean().item() == pytest.approx(0.5, abs=bound)
    weights = draw.weights.double()
    assert torch.allclose(weights.sum(1), torch.ones(count, dtype=torch.float64), atol=1e-6)
    assert weights.min() >= 0
    # Beta(1, 1): uniform. A flat Dirichlet of three: each share is Beta(1, 2), with P(share < x) = 1 - (1 - x)^2.
    shares = weights[:, 1:] / (1 - weights[:, :1])
    for x in (0.1, 0.3, 0.6):
        assert (weights[:, 0] < x).double().mean().item() == pytest.approx(x, abs=bound)
        for chain in range(WIDTH):
            assert (shares[:, chain] < x).double().mean().item() == pytest.approx(1 - (1 - x) ** 2, abs=bound)
    theirs = torch._sample_dirichlet(torch.ones(count, WIDTH)).double()
    assert torch.allclose(torch.cov(shares.T), torch.cov(theirs.T), atol=0.004)
    # The image's own weight says nothing of how the rest is shared.
    assert abs(torch.corrcoef(torch.stack([weights[:, 0], shares[:, 0]]))[0, 1].item()) < 5 / math.sqrt(count)


@pytest.mark.parametrize("channels", [1, 3])
def test_on_a_gpu_it_is_the_same_and_nobody_waits(channels):
    """Every image once in a batch of mixed operations; what the device computes for all, the CPU does for some."""
    normalisation = Normalisation(mean=(0.4,) * channels, std=(0.2,) * channels)
    torch.manual_seed(0)
    augment, images = AugMix(normalisation, severity=3), torch.randn(8, channels, 24, 20)
    torch.manual_seed(1)
    expected = augment(images)
    with PretendCuda() as device:
        sent = images.to(DEVICE)
        torch.manual_seed(1)
        before = device.operations
        with device.no_waiting():
            found = augment(sent)
        assert device.operations - before < 520
        assert torch.allclose(found.cpu(), expected, atol=1e-5)


class Counted(TorchDispatchMode):
    operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))


def test_more_images_take_hardly_more_operations():
    """Image by image, 64 of them would take eight times as many as 8."""
    augment, taken = AugMix(UNIT, severity=3), []
    for count in (8, 64):
        torch.manual_seed(0)
        images = torch.rand(count, 1, 16, 16)
        with Counted() as counted:
            augment(images)
        taken.append(counted.operations)
    assert taken[1] < 2 * taken[0] < 2500


def test_it_works_on_values_whatever_their_normalisation():
    torch.manual_seed(0)
    images = torch.rand(3, 1, 16, 16)
    other = Normalisation(mean=(0.4,), std=(0.2,))
    torch.manual_seed(4)
    plain = AugMix(UNIT, severity=3)(images)
    torch.manual_seed(4)
    normalised = AugMix(other, severity=3)((images - 0.4) / 0.2)
    assert plain.shape == images.shape
    assert 0 <= plain.min() <= plain.max() <= 1 + 1e-6
    # A level that rounding pushes over an edge of posterize or solarize moves single pixels.
    assert ((normalised * 0.2 + 0.4 - plain).abs() > 1e-4).float().mean() < 0.02


def test_an_image_keeps_what_it_was_given_alone():
    torch.manual_seed(0)
    images = torch.rand(1, 1, 16, 16)
    before = images.clone()
    assert not torch.equal(AugMix(UNIT, severity=5)(images), before)
    assert torch.equal(images, before)
    assert AugMix(UNIT, severity=5)(images[:0]).shape == (0, 1, 16, 16)


def test_images_of_five_channels():
    with pytest.raises(InputError, match="1 or 3 channels, got 5: leave the arm 'augmix' out"):
        AugMix(Normalisation(mean=(0.0,) * 5, std=(1.0,) * 5), severity=2)
