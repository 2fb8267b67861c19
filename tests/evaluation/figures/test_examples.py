"""The page of examples: which patch stands where, to the pixel, and what is written below it."""

import numpy as np
import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures import examples_figure
from genmix_transforms.evaluation.figures.style import LAMBDA, WIDTH
from genmix_transforms.transforms import GenMix

CLASSES = ("cyst", "metastasis")


def flat(values, dtype=torch.uint8, channels=1):
    return torch.tensor(values).to(dtype).view(-1, 1, 1, 1).repeat(1, channels, 16, 16)


def real(count=10, channels=1):
    """Cysts are 10, 11, ..., metastases 60, 61, ...: every patch is told by its grey."""
    values = [(10, 60)[number % 2] + number // 2 for number in range(count)]
    return PatchDataset(images=flat(values, channels=channels), labels=torch.arange(count) % 2, classes=CLASSES)


def bank(base=110, channels=1):
    values = [base + number for number in (0, 1, 2, 3, 50, 51, 52, 53)]
    return SyntheticBank(flat(values, channels=channels), torch.arange(8) // 4, classes=CLASSES)


def grid(figure):
    """The greys of the patches, a list a row, by their places on the page."""
    (axes,) = figure.axes
    rows = {}
    for image in axes.images:
        left, _, _, top = image.get_extent()
        array = np.asarray(image.get_array())
        assert array.min() == array.max()
        rows.setdefault(round(top, 3), []).append((left, int(array.flat[0])))
    return [[grey for _, grey in sorted(row)] for _, row in sorted(rows.items())]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_real_then_synthetic_and_mixed_of_each_generator():
    generators = {"DCGAN": GenMix(bank()), "ADM": GenMix(bank(115))}
    figure = examples_figure(real(), generators, per_class=3)
    rows = grid(figure)
    assert [len(row) for row in rows] == [6] * 5
    assert set(rows[0][:3]) < set(range(10, 15))
    assert set(rows[0][3:]) < set(range(60, 65))
    assert set(rows[1][:3]) < set(range(110, 114))
    assert set(rows[1][3:]) < set(range(160, 164))
    assert set(rows[3][:3]) < set(range(115, 119))
    assert all(len(set(row[:3])) == 3 for row in rows[:2])
    assert texts(figure)[:3] == ["cyst", "metastasis", "real"]
    assert [text for text in texts(figure) if text in ("DCGAN", "synthetic", "GenMix", "ADM")] == [
        "DCGAN", "synthetic", "GenMix", "ADM", "synthetic", "GenMix",
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 5, 8, 8), (5, 8, 8)], ids=["volumes", "stacks"])
def test_volumes_and_stacks_show_their_middle_slices(shape):
    places = torch.arange(5).view(-1, 1, 1).expand(shape)  # the number of the slice
    classes = torch.tensor([0, 1] * 4)
    real_ones = (places[None] + 100 * classes.view(-1, *[1] * len(shape))).to(torch.uint8)
    train = PatchDataset(images=real_ones, labels=classes, classes=CLASSES)
    filled = SyntheticBank(real_ones + 50, classes, classes=CLASSES)
    rows = grid(examples_figure(train, {"DCGAN": GenMix(filled)}, per_class=2))
    assert rows[:2] == [[2, 2, 102, 102], [52, 52, 152, 152]]
    assert all(2 <= value <= 152 for value in rows[2])


def test_a_mixed_patch_is_of_the_real_one_above_and_its_note_says_how():
    figure = examples_figure(real(), {"DCGAN": GenMix(bank(), alpha=1.0, pairing="same")}, per_class=3)
    rows, notes = grid(figure), [text for text in texts(figure) if text.startswith(LAMBDA)]
    assert len(notes) == 6
    for place, note in enumerate(notes):
        _, lam, partner = note.split()
        assert partner == ("cyst" if place < 3 else "metastasis")
        of_synthetic = 111.5 if place < 3 else 161.5  # its bank's class, give or take 1.5
        expected = float(lam) * of_synthetic + (1 - float(lam)) * rows[0][place]
        assert abs(rows[2][place] - expected) < 1.5 + 0.005 * 110 + 0.5


def test_a_partner_from_the_batch_is_called_real():
    figure = examples_figure(real(), {"DCGAN": GenMix(bank(), alpha=1e9, real_partner=1.0)}, per_class=3)
    notes = [text for text in texts(figure) if text.startswith(LAMBDA)]
    assert all(note.split()[:3:2] == [LAMBDA, "real"] for note in notes)
    greys = {"cyst": range(10, 15), "metastasis": range(60, 65)}
    for grey, note in zip(grid(figure)[2], notes, strict=True):
        assert grey in greys[note.split()[-1]]


def test_notes_stay_below_their_patches():
    """Where there is no room for the class's name, the number is left."""
    figure = examples_figure(real(20), {"DCGAN": GenMix(bank())}, per_class=8)
    notes = [text for text in texts(figure) if text.startswith(LAMBDA)]
    assert all(len(note.split()) == 2 for note in notes)
    save_names = examples_figure(real(), {"DCGAN": GenMix(bank())}, per_class=3)
    assert all(len(text.split()) == 3 for text in texts(save_names) if text.startswith(LAMBDA))


def test_a_class_with_few_patches_leaves_places_white():
    rows = grid(examples_figure(real(3), {"DCGAN": GenMix(bank(), p=0.0)}, per_class=3))
    assert [sorted(row) for row in (rows[0], rows[2])] == [[10, 11, 60], [10, 11, 60]]
    assert len(rows[1]) == 6


def test_colour_stays_colour(tmp_path):
    train, synthetic = real(channels=3), bank(channels=3)
    train.images[:, 0] = 200
    figure = examples_figure(train, {"DCGAN": GenMix(synthetic)}, per_class=1)
    array = np.asarray(figure.axes[0].images[0].get_array())
    assert array.shape == (16, 16, 3)
    assert (array[..., 0] == 200).all()
    assert set(array[..., 1].flatten()) < set(range(10, 15))


@pytest.mark.parametrize(("classes", "per_class"), [(2, 1), (2, 9)])
def test_it_fits_a_page(classes, per_class):
    figure = examples_figure(real(20), {"DCGAN": GenMix(bank())}, per_class=per_class)
    assert figure.get_figwidth() * 25.4 <= WIDTH + 1e-6
    height = figure.get_figheight() * 25.4
    lowest = max(image.get_extent()[2] for image in figure.axes[0].images)
    assert lowest < height


def test_a_seed_decides():
    def bytes_of(seed):
        figure = examples_figure(real(), {"DCGAN": GenMix(bank(), alpha=1.0)}, seed=seed)
        return [np.asarray(image.get_array()).tobytes() for image in figure.axes[0].images]

    first = bytes_of(1)
    torch.manual_seed(8)
    assert bytes_of(1) == first
    assert bytes_of(2) != first


def test_a_generator_keeps_its_synthetic_patches_whoever_else_is_shown():
    alone = grid(examples_figure(real(), {"ADM": GenMix(bank(115))}))
    beside = grid(examples_figure(real(), {"DCGAN": GenMix(bank()), "ADM": GenMix(bank(115))}))
    assert alone[1:] == beside[3:]


def test_what_does_not_fit_together():
    small = SyntheticBank(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), classes=CLASSES)
    swapped = bank().with_classes(CLASSES[::-1])
    for generators, options, message in (
        ({}, {}, "genmix must be a transform for each generator"),
        (GenMix(bank()), {}, "genmix must be a transform for each generator"),
        ({"ADM": GenMix(small)}, {}, r"ADM: the patches are 1 x 16 x 16 \(C x H x W\), the bank's 1 x 8 x 8"),
        ({"ADM": GenMix(swapped)}, {}, "ADM: the data's classes are cyst, metastasis, the bank's metastasis, cyst"),
        ({"ADM": GenMix(bank())}, {"per_class": 0}, "per_class must be a whole number, at least 1, got 0"),
        ({"ADM": GenMix(bank())}, {"seed": -1}, "seed must be a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            examples_figure(real(), generators, **options)
