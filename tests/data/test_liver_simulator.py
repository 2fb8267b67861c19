"""The liver lesion simulator: counts, splits, seeds, and what it may touch of a real slice."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.data import LesionPhantom, LiverLesionSimulator, LiverSlices, open_dataset
from genmix_transforms.data.liver_simulator import disc, share_out
from genmix_transforms.data.phantom import CLASSES, PAPER_COUNTS
from genmix_transforms.errors import InputError, MissingPathError

SMALL = {"train": (5, 2, 3), "val": (2, 1, 2), "test": (1, 2, 2)}


def made(patients=9, *, side=72, dtype=np.float32, each=2):
    """Noisy livers in a black field; every patient has a level of its own, so that a background tells its patient."""
    rng = np.random.default_rng(0)
    masks = np.zeros((patients * each, side, side), dtype=bool)
    masks[:, 8:-8, 8:-4] = True
    owners = np.repeat(np.arange(patients) + 100, each)
    images = rng.normal(90 + 3 * (owners - 100)[:, None, None], 9, masks.shape)
    images[~masks] = 0
    if np.dtype(dtype).kind != "f":
        images = np.rint(images.clip(0, 255))
    return LiverSlices(images=images.astype(dtype), masks=masks, patients=owners, pixel_spacing=1.5, name="made")


@pytest.fixture(scope="module")
def slices():
    return made()


@pytest.fixture(scope="module")
def simulator(slices):
    return LiverLesionSimulator(slices, **SMALL)


def test_the_data_set_has_the_counts_in_the_order_of_split_class_and_number(simulator):
    patches = simulator.dataset()
    assert patches.images.dtype == torch.uint8
    assert patches.images.shape == (20, 1, 32, 32)
    assert patches.classes == ("cyst", "hemangioma", "metastasis") == LesionPhantom(**SMALL).dataset().classes
    assert patches.labels.tolist() == [0] * 5 + [1] * 2 + [2] * 3 + [0] * 2 + [1] + [2] * 2 + [0] + [1] * 2 + [2] * 2
    assert patches.official.tolist() == [0] * 10 + [1] * 5 + [2] * 5
    assert patches.name == "liver lesion simulator"
    assert patches.notes[0].startswith("modelled lesions in real liver: windows of made, ")
    assert patches.notes[1] == "grey 0 to 255 is 0 to 255 HU"
    expected = np.clip(np.rint(simulator.render("metastasis", 1, split="val")), 0, 255)
    np.testing.assert_array_equal(patches.images[14, 0].numpy(), expected)


def test_the_defaults_are_the_papers_counts(slices):
    default = LiverLesionSimulator(slices)
    assert {split: getattr(default, split) for split in PAPER_COUNTS} == PAPER_COUNTS


@settings(max_examples=15)
@given(
    counts=st.tuples(*[st.tuples(*[st.integers(0, 3)] * 3)] * 3).filter(lambda counts: any(map(any, counts))),
    seed=st.integers(0, 2**63 - 1),
    patients=st.integers(3, 9),
)
def test_counts_are_exact_and_patients_never_cross_splits(counts, seed, patients):
    slices = made(patients)
    simulator = LiverLesionSimulator(slices, seed=seed, **dict(zip(PAPER_COUNTS, counts, strict=True)))
    patches = simulator.dataset()
    for split, (name, wanted) in enumerate(zip(PAPER_COUNTS, counts, strict=True)):
        here = patches.official == split
        assert tuple(torch.bincount(patches.labels[here], minlength=3).tolist()) == wanted
        owners = {
            int(slices.patients[lesion.place.slice])
            for lesion, is_here in zip(simulator.lesions, here, strict=True)
            if is_here
        }
        assert owners <= set(simulator.patients[name])
    splits_of = {}
    for group, split in zip(patches.groups.tolist(), patches.official.tolist(), strict=True):
        splits_of.setdefault(group, set()).add(split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    named = [name for names in simulator.patients.values() for name in names]
    assert sorted(named) == sorted(set(slices.patients.tolist()))


@settings(max_examples=40)
@given(
    label=st.sampled_from(CLASSES),
    number=st.integers(0, 10**6),
    split=st.sampled_from(list(PAPER_COUNTS)),
    seed=st.integers(0, 2**40),
    size=st.sampled_from([16, 31, 32, 48]),
)
def test_pixels_that_the_lesion_does_not_cover_are_the_slices_bit_for_bit(label, number, split, seed, size):
    slices = made(4, dtype=np.uint8)
    simulator = LiverLesionSimulator(slices, size=size, seed=seed, **SMALL)
    lesion = simulator.lesion(label, number, split=split)
    top, left = lesion.place.row - size // 2, lesion.place.column - size // 2
    piece = (lesion.place.slice, slice(top, top + size), slice(left, left + size))
    np.testing.assert_array_equal(lesion.background, slices.images[piece])
    apart = lesion.coverage == 0
    np.testing.assert_array_equal(lesion.image[apart], lesion.background[apart])
    assert lesion.image.dtype == lesion.coverage.dtype == np.float32
    assert lesion.image.shape == (size, size)
    assert np.isfinite(lesion.image).all()
    # The lesion lies in the liver, the middle of it in the middle of the window.
    covered = lesion.coverage > 0
    assert slices.masks[piece][covered].all()
    axis = np.arange(size) - size // 2
    body = np.hypot(axis[:, None], axis[None, :]) <= lesion.diameter / 2 / 1.5
    assert slices.masks[piece][body].all()


def test_the_lesion_of_the_data_set_leaves_the_rest_as_stored():
    slices = made(4, dtype=np.uint8)
    simulator = LiverLesionSimulator(slices, **SMALL)
    for image, lesion in zip(simulator.dataset().images[:, 0].numpy(), simulator.lesions, strict=True):
        apart = lesion.coverage == 0
        assert apart.any()
        np.testing.assert_array_equal(image[apart], lesion.background[apart].astype(np.uint8))


def test_same_seed_same_bytes(slices, simulator):
    again = LiverLesionSimulator(slices, **SMALL)
    assert again.dataset().fingerprint == simulator.dataset().fingerprint
    assert torch.equal(again.dataset().groups, simulator.dataset().groups)
    np.testing.assert_array_equal(simulator.render("cyst", 7), again.render(0, 7, split="train"))


def test_another_seed_split_class_or_number_is_another_lesion():
    # One liver for all: the lesions and their places must differ, or a test lesion would be a training lesion again.
    images = np.tile(made(1, each=1).images, (3, 1, 1))
    slices = LiverSlices(images=images, masks=images > 0, patients=np.arange(3), pixel_spacing=1.5)
    lesions = [
        LiverLesionSimulator(slices, size=16, seed=seed).lesion(label, number, split=split)
        for seed in (0, 1, 2**32, 2**40)
        for split in PAPER_COUNTS
        for label in CLASSES
        for number in (0, 1)
    ]
    assert len({lesion.coverage.tobytes() for lesion in lesions}) == len(lesions)
    assert len({lesion.image.tobytes() for lesion in lesions}) == len(lesions)


def test_an_image_does_not_depend_on_what_else_is_drawn(slices):
    few = LiverLesionSimulator(slices, train=(3, 0, 2), val=(0, 1, 0), test=(0, 0, 1))
    many = LiverLesionSimulator(slices, train=(6, 9, 4), val=(5, 2, 3), test=(1, 1, 2))
    assert few.patients == many.patients
    many.dataset()  # drawn before, and in another order
    for split, label, number in [("train", 0, 2), ("train", 2, 1), ("val", 1, 0), ("test", 2, 0)]:
        np.testing.assert_array_equal(few.render(label, number, split=split), many.render(label, number, split=split))


def test_masks_are_the_covered_pixels(simulator):
    masks = simulator.masks()
    assert masks.dtype == torch.bool
    assert masks.shape == (20, 32, 32)
    for mask, lesion in zip(masks.numpy(), simulator.lesions, strict=True):
        np.testing.assert_array_equal(mask, lesion.coverage >= 0.5)
        if lesion.diameter > 15:
            assert mask[16, 16]


@pytest.fixture(scope="module")
def cysts(slices):
    simulator = LiverLesionSimulator(slices, **SMALL)
    return [simulator.lesion("cyst", number) for number in range(250)]


def test_a_cyst_is_dark_and_keeps_the_noise_of_its_window(cysts):
    """White noise of 9 HU went in: it must come out of a lesion that has none of its own."""
    inside = [(lesion, lesion.coverage > 0.98) for lesion in cysts]
    inside = [(lesion, covered) for lesion, covered in inside if covered.sum() >= 50]
    assert len(inside) > 15
    before = np.mean([lesion.background[covered].std() for lesion, covered in inside])
    after = np.mean([lesion.image[covered].std() for lesion, covered in inside])
    assert after == pytest.approx(before, rel=0.08)
    together = [np.corrcoef(lesion.image[covered], lesion.background[covered])[0, 1] for lesion, covered in inside]
    assert np.median(together) > 0.95
    contrast = [(lesion.image - lesion.background)[covered].mean() for lesion, covered in inside]
    assert np.median(contrast) < -70


def test_a_border_pixel_is_in_part_liver_and_in_part_lesion(cysts):
    ratios = []
    for lesion in cysts:
        covered = lesion.coverage > 0.98
        edge = (lesion.coverage > 0.4) & (lesion.coverage < 0.6)
        if covered.sum() > 30:
            change = lesion.image - lesion.background
            ratios.append(change[edge].mean() / change[covered].mean())
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.05)


def test_contrast_follows_the_liver_about_the_lesion(slices):
    """Patients are 90 to 114 HU here: a metastasis is a share of that, not a number of HU."""
    simulator = LiverLesionSimulator(slices, **SMALL)
    lesions = [simulator.lesion("metastasis", number) for number in range(150)]
    lesions = [lesion for lesion in lesions if (lesion.coverage > 0.95).sum() > 20]
    share = [lesion.image[lesion.coverage > 0.95].mean() / np.median(lesion.background) for lesion in lesions]
    assert 0.3 < np.median(share) < 0.7


def test_no_window_shows_what_was_dark_before():
    base = made(6)
    images, dark = base.images.copy(), np.zeros(base.masks.shape, dtype=bool)
    dark[:, 16:30, 16:30] = True
    images[dark] -= 60
    slices = LiverSlices(images=images, masks=base.masks, patients=base.patients, pixel_spacing=1.5)
    simulator = LiverLesionSimulator(slices, size=16, **SMALL)
    for number in range(60):
        place = simulator.lesion("metastasis", number).place
        window = dark[place.slice, place.row - 8 : place.row + 8, place.column - 8 : place.column + 8]
        assert window.mean() < 0.1


def test_the_grey_window(slices):
    patches = LiverLesionSimulator(slices, level=100, width=2, **SMALL).dataset()
    assert ((patches.images == 0) | (patches.images == 255)).float().mean() > 0.85
    assert patches.notes[1] == "grey 0 to 255 is 99 to 101 HU"


def test_from_a_file_to_a_file_that_open_dataset_reads(slices, tmp_path):
    path = tmp_path / "ct.npz"
    np.savez(
        path,
        images=slices.images,
        liver_mask=np.packbits(slices.masks, axis=-1),
        patient=slices.patients,
        pixel_spacing=1.5,
    )
    patches = LiverLesionSimulator(path, **SMALL).dataset()
    assert torch.equal(patches.images, LiverLesionSimulator(slices, **SMALL).dataset().images)
    patches.save_npz(tmp_path / "lesions.npz")
    back = open_dataset(tmp_path / "lesions.npz")
    assert back.fingerprint == patches.fingerprint
    assert torch.equal(back.groups, patches.groups)
    assert torch.equal(back.official, patches.official)
    assert [part.class_counts for part in back.split()] == [part.class_counts for part in patches.split()]


@given(count=st.integers(3, 500), weights=st.lists(st.integers(1, 1000), min_size=3, max_size=3))
def test_shares_are_whole_and_fair(count, weights):
    shares = share_out(count, weights)
    assert shares.sum() == count
    assert shares.min() >= 1
    exact = np.array(weights) * count / sum(weights)
    if exact.min() >= 1:
        assert (np.abs(shares - exact) < 1).all()


def test_the_papers_shares_of_the_real_patients():
    assert share_out(122, [681, 302, 307]).tolist() == [64, 29, 29]


def test_a_disc():
    assert disc(5, 1).astype(int).tolist() == [[0] * 5, [0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0] * 5]
    assert disc(4, 0.3).sum() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "LiverLesionSimulator: size must be a whole number, at least 16, got 15"),
        ({"size": 32.0}, "size must be a whole number"),
        ({"size": 73}, "size 73 is larger than the slices of made, 72 x 72 pixels"),
        ({"seed": -1}, "LiverLesionSimulator: seed must be a whole number"),
        ({"seed": 2**63}, "seed must be a whole number"),
        ({"train": (1, 2)}, "LiverLesionSimulator: train must be 3 whole numbers from 0 up"),
        ({"val": (1, 2, -1)}, "LiverLesionSimulator: val must be 3 whole numbers"),
        ({"train": (0,) * 3, "val": (0,) * 3, "test": (0,) * 3}, "all counts are 0"),
        ({"width": 0}, "a width above 0 HU"),
        ({"level": float("nan")}, "a finite level"),
        ({"largest": 5.9}, "largest must be a diameter from 6 to 40 mm"),
        ({"largest": 30, "size": 16}, "largest must be a diameter from 6 to 18 mm .what a window of 16 pixels holds"),
        ({"largest": "wide"}, "largest must be a diameter"),
    ],
)
def test_bad_options_are_refused(slices, options, message):
    with pytest.raises(InputError, match=message):
        LiverLesionSimulator(slices, **options)


def test_bad_sources_are_refused(tmp_path, slices):
    with pytest.raises(MissingPathError, match="no such file; expected an .npz of CT slices"):
        LiverLesionSimulator(tmp_path / "none.npz")
    with pytest.raises(InputError, match=r"source must be the path of an .npz or LiverSlices.*got ndarray"):
        LiverLesionSimulator(slices.images)
    with pytest.raises(InputError, match="made has 4 slices of 2 patients; at least 3 patients are needed"):
        LiverLesionSimulator(made(2))
    fine = LiverSlices(images=slices.images, masks=slices.masks, patients=slices.patients, pixel_spacing=0.3)
    with pytest.raises(InputError, match="a window of 16 pixels holds lesions of 3.6 mm, and the smallest has 6 mm"):
        LiverLesionSimulator(fine, size=16)


def test_no_room_says_what_fits(slices):
    masks = np.zeros_like(slices.masks)
    masks[:, 20:44, 20:44] = True
    cramped = LiverSlices(images=slices.images, masks=masks, patients=slices.patients, pixel_spacing=1.5)
    with pytest.raises(InputError, match=r"patients of the train split has parenchyma for a lesion of 40 mm") as caught:
        LiverLesionSimulator(cramped, **SMALL)
    fits = int(str(caught.value).split("largest=")[1].split(",")[0])
    assert LiverLesionSimulator(cramped, largest=fits, **SMALL).dataset().images.shape == (20, 1, 32, 32)
    tiny = LiverSlices(
        images=slices.images, masks=masks & (np.arange(72) < 28), patients=slices.patients, pixel_spacing=1.5
    )
    with pytest.raises(InputError, match="give more patients, a smaller size, or another seed"):
        LiverLesionSimulator(tiny, **SMALL)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.render("tumour", 0), "LiverLesionSimulator.lesion: label must be a class or its index"),
        (lambda s: s.lesion(3, 0), "label must be a class or its index"),
        (lambda s: s.lesion("cyst", -1), "LiverLesionSimulator.lesion: number must be a whole number"),
        (lambda s: s.lesion("cyst", 0, split="dev"), "split must be one of train, val, test, got 'dev'"),
    ],
)
def test_bad_calls_are_refused(simulator, call, message):
    with pytest.raises(InputError, match=message):
        call(simulator)


def test_real_livers(real_data):
    simulator = LiverLesionSimulator(real_data / "liver_ct_256.npz", train=(30, 10, 30), val=(5, 5, 5), test=(5, 5, 5))
    assert [len(names) for names in simulator.patients.values()] == [64, 29, 29]
    patches = simulator.dataset()
    assert patches.class_counts == {"cyst": 40, "hemangioma": 20, "metastasis": 40}
    assert len(patches.groups.unique()) > 40
    slices, half = simulator.slices, 16
    centre = {name: [] for name in CLASSES}
    for image, lesion in zip(patches.images[:, 0].numpy(), simulator.lesions, strict=True):
        place = lesion.place
        window = slices.images[place.slice][
            place.row - half : place.row + half, place.column - half : place.column + half
        ]
        np.testing.assert_array_equal(image[lesion.coverage == 0], window[lesion.coverage == 0])
        assert slices.masks[place.slice, place.row, place.column]
        centre[lesion.label].append(float(image[15:18, 15:18].mean()))
    assert np.median(centre["cyst"]) < 45
    assert 25 < np.median(centre["metastasis"]) < 85
    assert np.median(centre["cyst"]) < np.median(centre["metastasis"])
