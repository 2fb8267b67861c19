"""The lesion phantom: what it promises about counts, splits and seeds, and the look of its classes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.data.phantom import CLASSES, PAPER_COUNTS, LesionPhantom, draw_patient, patients_of
from genmix_transforms.data.phantom_lesions import paint_parenchyma, paint_vessels
from genmix_transforms.data.phantom_scanner import crop
from genmix_transforms.data.readers import open_dataset
from genmix_transforms.errors import InputError

SMALL = {"train": (5, 2, 3), "val": (2, 1, 2), "test": (1, 2, 2)}


@pytest.fixture(scope="module")
def draws():
    """40 images of each class at 64 pixels, HU: ``{class: (40, 64, 64)}``."""
    phantom = LesionPhantom(size=64)
    return {name: np.stack([phantom.render(name, number) for number in range(40)]) for name in CLASSES}


@pytest.fixture(scope="module")
def paper():
    """The data set as it comes, but for what is on its images, which takes many seconds to draw: noise.

    ``genmix demo`` is tested with all of them drawn.
    """
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LesionPhantom, "render", lambda self, *_, **__: rng.normal(90, 60, (16, 16)).astype(np.float32))
        return LesionPhantom(size=16).dataset()


def from_centre(size=64):
    """Distance of every pixel from the patch's centre, in sides of the patch."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    return np.hypot(axis[:, None], axis[None, :])


def test_the_defaults_are_the_papers_counts_and_splits(paper):
    assert PAPER_COUNTS == {"train": (433, 70, 178), "val": (115, 30, 157), "test": (128, 30, 149)}
    assert paper.class_counts == {"cyst": 676, "hemangioma": 130, "metastasis": 484}
    assert [tuple(part.class_counts.values()) for part in paper.split()] == list(PAPER_COUNTS.values())
    assert paper.name == "lesion phantom"
    patients, lesions = np.unique(paper.groups.numpy(), return_counts=True)
    assert 450 < len(patients) < 560  # the paper's 1,290 lesions came from 502
    assert lesions.min() == 1
    assert lesions.max() == 4


def test_the_data_set_holds_the_rendered_images_through_the_window():
    phantom = LesionPhantom(size=20, level=50, width=400, **SMALL)
    patches = phantom.dataset()
    assert patches.images.dtype == torch.uint8
    assert patches.images.shape == (20, 1, 20, 20)
    assert patches.classes == ("cyst", "hemangioma", "metastasis")
    assert patches.notes == ("grey 0 to 255 is -150 to 250 HU",)
    assert patches.labels.tolist() == [0] * 5 + [1] * 2 + [2] * 3 + [0] * 2 + [1] + [2] * 2 + [0] + [1] * 2 + [2] * 2
    assert patches.official.tolist() == [0] * 10 + [1] * 5 + [2] * 5
    hounsfield = phantom.render("metastasis", 1, split="val")
    back = patches.images[14, 0].numpy() * (400 / 255) - 150
    np.testing.assert_allclose(back, hounsfield.clip(-150, 250), atol=400 / 255 / 2 + 1e-3)


def test_grey_values_are_clipped_not_wrapped():
    patches = LesionPhantom(size=32, level=100, width=2, **SMALL).dataset()
    # Noise of 10 HU about a window 2 HU wide: nearly all is black or white, and by the sign of the rest of it.
    assert ((patches.images == 0) | (patches.images == 255)).float().mean() > 0.85
    inside = patches.images[patches.labels == 0][:, 0, 14:18, 14:18]
    assert (inside == 0).float().mean() > 0.9


def test_groups_are_patients_and_never_cross_splits(paper):
    splits_of, labels_of = {}, {}
    columns = (paper.groups.tolist(), paper.official.tolist(), paper.labels.tolist())
    for group, split, label in zip(*columns, strict=True):
        splits_of.setdefault(group, set()).add(split)
        labels_of.setdefault(group, set()).add(label)
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert sorted(splits_of) == list(range(len(splits_of)))
    assert any(len(labels) > 1 for labels in labels_of.values())  # a patient may have lesions of several classes


def test_same_seed_same_bytes():
    first, second = LesionPhantom(size=24, seed=3, **SMALL), LesionPhantom(size=24, seed=3, **SMALL)
    assert first.dataset().fingerprint == second.dataset().fingerprint
    assert torch.equal(first.dataset().groups, second.dataset().groups)
    np.testing.assert_array_equal(first.render("cyst", 7), second.render(0, 7, split="train"))


def test_another_seed_split_class_or_number_is_another_image(monkeypatch):
    # One patient for all: the lesions themselves must differ, or a test lesion would be a training lesion rescanned.
    patient = draw_patient(0, 0, 0)
    monkeypatch.setattr("genmix_transforms.data.phantom.draw_patient", lambda *_: patient)
    pictures = [
        LesionPhantom(size=16, seed=seed).render(label, number, split=split)
        for seed in (0, 1, 2**32, 2**40)
        for split in ("train", "val", "test")
        for label in CLASSES
        for number in (0, 1)
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_an_image_does_not_depend_on_what_else_is_drawn():
    few = LesionPhantom(size=16, train=(3, 0, 2), val=(0, 1, 0), test=(0, 0, 1)).dataset()
    many = LesionPhantom(size=16, train=(6, 9, 4), val=(5, 2, 3), test=(1, 1, 2)).dataset()

    def find(patches, split, label, number):
        return int(torch.nonzero((patches.official == split) & (patches.labels == label)).flatten()[number])

    kept = [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 2, 0), (0, 2, 1), (1, 1, 0), (2, 2, 0)]
    here = [find(few, *where) for where in kept]
    there = [find(many, *where) for where in kept]
    assert torch.equal(few.images[here], many.images[there])
    together = few.groups[here][:, None] == few.groups[here]
    assert torch.equal(together, many.groups[there][:, None] == many.groups[there])


@settings(max_examples=25)
@given(
    size=st.integers(16, 128),
    label=st.integers(0, 2),
    number=st.integers(0, 2000),
    split=st.sampled_from(["train", "val", "test"]),
    seed=st.integers(0, 2**70),
)
def test_any_size_and_number_gives_plausible_hounsfield_units(size, label, number, split, seed):
    image = LesionPhantom(size=size, seed=seed).render(label, number, split=split)
    assert image.shape == (size, size)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert -150 < image.min() < 110  # 26 HU of noise at most
    assert 80 < image.max() < 350


@pytest.mark.parametrize("label", CLASSES)
def test_every_size_shows_the_same_content(label):
    for number in range(4):
        fine = LesionPhantom(size=128).render(label, number)
        for size in (16, 32, 64):
            coarse = LesionPhantom(size=size).render(label, number)
            merged = fine.reshape(size, 128 // size, size, 128 // size).mean(axis=(1, 3))
            assert np.corrcoef(coarse.ravel(), merged.ravel())[0, 1] > 0.93
            assert abs(coarse.mean() - fine.mean()) < 1


@pytest.mark.parametrize("label", CLASSES)
def test_parenchyma_far_from_the_lesion_is_liver_in_the_portal_venous_phase(draws, label):
    far = draws[label][:, from_centre() > 0.5]
    assert np.median(far) == pytest.approx(100, abs=5)
    assert far.mean() == pytest.approx(103, abs=6)  # vessels only add


def test_the_centre_of_a_cyst_is_darker_than_that_of_a_metastasis(draws):
    centre = {name: np.median(images[:, from_centre() < 0.1]) for name, images in draws.items()}
    assert centre["cyst"] < centre["metastasis"] - 15
    assert centre["cyst"] < 40
    assert 30 < centre["metastasis"] < 80


def test_the_periphery_of_a_hemangioma_is_brighter_than_its_centre(draws):
    distance = from_centre()
    centre, ring = distance < 0.1, (distance > 0.17) & (distance < 0.27)
    for name, margin in (("hemangioma", 35), ("metastasis", 0)):
        nodules = np.quantile(draws[name][:, ring], 0.9, axis=1) - draws[name][:, centre].mean(axis=1)
        assert nodules.mean() > margin
    enhanced = {name: (np.quantile(images[:, distance < 0.3], 0.97, axis=1)).mean() for name, images in draws.items()}
    assert enhanced["hemangioma"] > enhanced["metastasis"] + 10
    assert enhanced["hemangioma"] > enhanced["cyst"] + 10


def test_the_classes_overlap(draws):
    """No threshold on the grey value at the centre tells the classes apart: small lesions look alike."""
    centre = {name: images[:, from_centre() < 0.1].mean(axis=1) for name, images in draws.items()}
    assert np.quantile(centre["cyst"], 0.9) > np.quantile(centre["metastasis"], 0.25)
    assert np.quantile(centre["hemangioma"], 0.25) < np.quantile(centre["metastasis"], 0.75)


def test_noise_is_correlated_as_in_real_ct(draws):
    """At 64 pixels a patch, pixels of 0.3 to 0.9 mm: finer than the noise's grain of about 1.5 mm."""
    corners = np.concatenate([images[:, :12, :12] for images in draws.values()])
    corners = corners - corners.mean(axis=(1, 2), keepdims=True)
    variance = (corners**2).mean()
    neighbours = (corners[:, :, 1:] * corners[:, :, :-1]).mean() / variance
    distant = (corners[:, :, 7:] * corners[:, :, :-7]).mean() / variance
    assert 0.75 < neighbours < 0.97
    assert abs(distant) < 0.35


def test_a_patients_scan_is_the_same_for_all_its_lesions():
    patients = patients_of(0, 0, 0, 50)
    assert (np.diff(patients) >= 0).all()
    assert (np.diff(patients) == 0).any()
    assert draw_patient(0, 0, 5) == draw_patient(0, 0, 5)
    scans = [draw_patient(0, 0, patient)[0] for patient in range(300)]
    assert all(0.5 <= scan.pixel_spacing <= 0.8 and 3 <= scan.slice_thickness <= 5 for scan in scans)
    livers = [draw_patient(0, 1, patient)[1] for patient in range(300)]
    assert np.mean([liver.parenchyma for liver in livers]) == pytest.approx(100, abs=2)
    assert all(30 <= liver.vessels - liver.parenchyma <= 60 for liver in livers)


@given(count=st.integers(1, 400), label=st.integers(0, 2))
def test_asking_for_more_lesions_moves_none_to_another_patient(count, label):
    np.testing.assert_array_equal(
        patients_of(0, 1, label, count)[:count], patients_of(0, 1, label, 4000)[:count], strict=True
    )


def test_real_liver_has_the_same_mean_and_correlation(real_data):
    """Against windows wholly inside real livers, pixels of about 1.5 mm; the figures in the class's docstring."""
    with np.load(real_data / "liver_ct_256.npz", allow_pickle=False) as archive:
        images = archive["images"][::4].astype(np.float32)
        masks = np.unpackbits(archive["liver_mask"][::4], axis=-1).astype(bool)
    real = [
        image[top : top + 32, left : left + 32]
        for image, mask in zip(images, masks, strict=True)
        for top in range(0, 224, 16)
        for left in range(0, 224, 16)
        if mask[top : top + 32, left : left + 32].all()
    ]
    model = []
    for patient in range(150):
        scan, liver = draw_patient(0, 0, patient)
        model.append(_parenchyma(scan, liver, np.random.default_rng(patient)))
    real_sd, real_neighbours = _texture(np.stack(real))
    model_sd, model_neighbours = _texture(np.stack(model))
    assert np.mean(real) == pytest.approx(np.mean(model), abs=8)
    assert 0.6 < model_sd / real_sd < 1.05
    assert model_neighbours == pytest.approx(real_neighbours, abs=0.15)


def _parenchyma(scan, liver, rng):
    grid = scan.grid(48.0)
    planes = paint_parenchyma(grid, liver, rng)
    paint_vessels(planes, grid, liver, rng)
    return crop(scan.acquire(planes, grid, rng), grid, 32)


def _texture(windows):
    """Medians over windows of the standard deviation and of the correlation of neighbours in a row, trend removed."""
    x, y = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
    trend, _ = np.linalg.qr(np.stack([a.ravel() for a in (x**0, x, y, x * y, x**2, y**2)], axis=1))
    flat = windows.reshape(len(windows), -1)
    rest = (flat - flat @ trend @ trend.T).reshape(windows.shape)
    neighbours = (rest[:, :, 1:] * rest[:, :, :-1]).mean(axis=(1, 2)) / (rest**2).mean(axis=(1, 2))
    return np.median(rest.std(axis=(1, 2))), np.median(neighbours)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "size must be a whole number, at least 16, got 15"),
        ({"size": 32.0}, r"size must be a whole number, at least 16, got 32\.0"),
        ({"seed": -1}, "seed must be a whole number, at least 0, got -1"),
        ({"seed": True}, "seed must be a whole number"),
        ({"width": 0}, "width above 0 HU, got level 90.0 and width 0"),
        ({"width": float("nan")}, "width above 0 HU"),
        ({"level": float("inf")}, "finite level"),
        ({"train": (1, 2)}, r"train must be 3 whole numbers from 0 up, how many of cyst, .*got \(1, 2\)"),
        ({"val": (1, 2, -3)}, r"val must be 3 whole numbers from 0 up.*got \(1, 2, -3\)"),
        ({"test": (1, 2, 0.5)}, "test must be 3 whole numbers"),
        ({"test": 5}, "test must be 3 whole numbers .*got 5"),
        ({"train": (0, 0, 0), "val": (0, 0, 0), "test": (0, 0, 0)}, "all counts are 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        LesionPhantom(**options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"label": "adenoma", "number": 0}, "label must be a class or its index .*0 cyst.*got 'adenoma'"),
        ({"label": 3, "number": 0}, "2 metastasis.*got 3"),
        ({"label": -1, "number": 0}, "got -1"),
        ({"label": 0, "number": -1}, "number must be a whole number, at least 0, got -1"),
        ({"label": 0, "number": 0, "split": "training"}, "split must be one of train, val, test, got 'training'"),
    ],
)
def test_bad_requests_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        LesionPhantom().render(**call)


def test_a_lesion_is_who_it_is_at_every_size(tmp_path):
    few = {"train": (2, 1, 2), "val": (1, 1, 1), "test": (1, 1, 1)}
    small, large = (LesionPhantom(size=size, **few).dataset() for size in (16, 24))
    assert torch.equal(small.origins, large.origins)
    assert len(set(small.origins.tolist())) == len(small)
    other = LesionPhantom(size=16, seed=1, **few).dataset()
    assert not set(other.origins.tolist()) & set(small.origins.tolist())
    more = LesionPhantom(size=16, **(few | {"train": (3, 1, 2)})).dataset()
    assert set(small.origins.tolist()) < set(more.origins.tolist())
    small.save_split(tmp_path / "split.csv", official=False)
    assert [len(part) for part in large.with_split(tmp_path / "split.csv").split()] == [
        len(part) for part in small.split(official=False)
    ]
    large.save_npz(tmp_path / "phantom.npz")
    assert torch.equal(open_dataset(tmp_path / "phantom.npz").origins, small.origins)


@pytest.mark.parametrize("label", CLASSES)
def test_noise_is_scaled(label):
    none, once, twice = (LesionPhantom(size=32, noise=noise).render(label, 3) for noise in (0.0, 1.0, 2.0))
    np.testing.assert_allclose(twice - none, 2 * (once - none), atol=0.05)
    assert (once - none).std() > 5
    assert (LesionPhantom(size=32).render(label, 3) == once).all()


def test_enlarged_lesions_take_up_more_of_the_patch():
    def dark(enlarge):
        """Share of the patch below 60 HU: inside the cyst."""
        phantom = LesionPhantom(size=32, noise=0.0, enlarge=enlarge)
        return np.mean([phantom.render("cyst", number) < 60 for number in range(8)])

    assert dark(1.0) < dark(2.0) < dark(3.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -0.1}, "noise must be a finite factor from 0 up, got -0.1"),
        ({"noise": float("nan")}, "noise must be"),
        ({"enlarge": 0.0}, "enlarge must be a finite factor above 0, got 0.0"),
        ({"enlarge": float("inf")}, "enlarge must be"),
    ],
)
def test_factors_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        LesionPhantom(**options)
