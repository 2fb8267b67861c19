"""Copies are found, and what is no copy is none."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import measure_nearness

CLASSES = ("cyst", "metastasis")


def smooth(count, *, seed, size=24, channels=1):
    """Random pictures without two alike: a few waves each."""
    random = np.random.default_rng(seed)
    row, column = np.mgrid[:size, :size] / size
    waves = random.normal(size=(count, channels, 6, 4))
    phase = (
        2
        * np.pi
        * (
            np.round(3 * waves[..., 0])[..., None, None] * row
            + np.round(3 * waves[..., 1])[..., None, None] * column
            + waves[..., 2][..., None, None]
        )
    )
    values = 128 + 22 * np.clip((waves[..., 3][..., None, None] * np.sin(phase)).sum(axis=2), -5, 5)
    return torch.from_numpy(values.round().astype(np.uint8))


def patches(images, *, groups=None):
    return PatchDataset(images=images, labels=torch.arange(len(images)) % 2, classes=CLASSES, groups=groups)


def bank_of(images, **options):
    # Of one class first, then of the other, as a bank is sorted: the order stays.
    labels = (torch.arange(len(images)) >= len(images) // 2).long()
    return SyntheticBank(images, labels, classes=CLASSES, **options)


@pytest.fixture(scope="module")
def train():
    return patches(smooth(80, seed=0))


def test_planted_copies_are_found_and_others_are_not(train):
    noise = torch.from_numpy(np.random.default_rng(3).normal(0, 4, (10, 1, 24, 24)))
    copies = (train.images[:10] + noise).clamp(0, 255).to(torch.uint8)
    found = measure_nearness(bank_of(torch.cat([smooth(30, seed=1), copies])), train, quantile=0.0)
    assert found.near_copy.tolist() == [False] * 30 + [True] * 10
    assert found.nearest[30:].tolist() == list(range(10))
    assert not found.duplicate.any()
    assert found.to_dict()["by_class"] == {
        "cyst": {"images": 20, "near_copies": 0, "duplicates": 0},
        "metastasis": {"images": 20, "near_copies": 10, "duplicates": 0},
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images,
        lambda images: images.flip(-1),
        lambda images: (images.float() * 0.7 + 20).to(torch.uint8),
    ],
    ids=["the same", "mirrored", "other brightness and contrast"],
)
def test_what_counts_as_the_same(train, change):
    found = measure_nearness(bank_of(change(train.images[:8])), train)
    assert found.near_copy.all()
    assert found.nearest.tolist() == list(range(8))
    assert found.distance.max() < 0.03


def test_distances_equal_those_of_a_loop(train):
    bank = bank_of(smooth(12, seed=5))
    found = measure_nearness(bank, train, side=24)

    def place(image):
        flat = image.double().flatten() - image.double().mean()
        return flat / flat.norm()

    def apart(one, two):
        return min(float((place(one) - place(other)).norm()) for other in (two, two.flip(-1)))

    for number, image in enumerate(bank.images):
        distances = [apart(image, real) for real in train.images]
        assert math.isclose(found.distance[number], min(distances), abs_tol=1e-3)
        assert found.nearest[number] == int(np.argmin(distances))
    among = [min(apart(a, b) for j, b in enumerate(train.images) if j != i) for i, a in enumerate(train.images)]
    np.testing.assert_allclose(found.among_real, among, atol=1e-3)
    assert math.isclose(found.threshold, np.quantile(among, 0.05), abs_tol=1e-3)
    earlier = [min(apart(bank.images[i], bank.images[j]) for j in range(i)) for i in range(1, 12)]
    assert found.among_bank[0] == torch.inf
    np.testing.assert_allclose(found.among_bank[1:], earlier, atol=1e-3)


def test_images_of_one_patient_do_not_set_the_threshold(train):
    twice = torch.cat([train.images, train.images])
    alone = measure_nearness(bank_of(smooth(6, seed=1)), train)
    in_pairs = measure_nearness(bank_of(smooth(6, seed=1)), patches(twice, groups=torch.arange(80).repeat(2)))
    assert math.isclose(in_pairs.threshold, alone.threshold, abs_tol=1e-4)
    unknown = measure_nearness(bank_of(smooth(6, seed=1)), patches(twice))
    assert unknown.threshold == 0  # every image has its double, and nothing is nearer than that


def test_the_share_of_new_images_called_copies_is_the_quantile():
    train = patches(smooth(400, seed=0))
    found = measure_nearness(bank_of(smooth(400, seed=1)), train, quantile=0.1)
    share = float(found.near_copy.double().mean())
    assert abs(share - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 400)


def test_duplicates_within_the_bank(train):
    images = smooth(10, seed=4)
    found = measure_nearness(bank_of(torch.cat([images, images[3:5]])), train)
    assert found.duplicate.nonzero().flatten().tolist() == [10, 11]


def test_more_images_than_are_compared_at_a_time(train, monkeypatch):
    bank = bank_of(torch.cat([smooth(30, seed=1), smooth(2, seed=1)]))
    whole = measure_nearness(bank, train)
    monkeypatch.setattr("genmix_transforms.evaluation.memorisation._SOME", 7)
    parts = measure_nearness(bank, train)
    for name in ("distance", "nearest", "among_bank", "among_real"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-5, rtol=0)
    assert parts.duplicate.tolist() == [False] * 30 + [True] * 2


def test_marking_keeps_everything_else(train):
    images = torch.cat([smooth(5, seed=1), train.images[:3]])
    flags = torch.full((8,), int(Flag.REJECTED | Flag.NEAR_COPY), dtype=torch.uint8)
    bank = bank_of(images, seeds=torch.arange(8), flags=flags, provenance={"made": "for a test"})
    marked = measure_nearness(bank, train, quantile=0.0).marked(bank)
    assert marked.flags.tolist() == [int(Flag.REJECTED)] * 5 + [int(Flag.REJECTED | Flag.NEAR_COPY)] * 3
    assert marked.seeds.tolist() == list(range(8))
    assert marked.provenance == {"made": "for a test"}
    torch.testing.assert_close(marked.distance[5:], torch.zeros(3), atol=1e-2, rtol=0)
    assert marked.select(without_flags=Flag.NEAR_COPY).images.equal(images[:5])
    with pytest.raises(InputError, match="8 images were measured, and this bank has 3"):
        measure_nearness(bank, train).marked(bank.take(torch.arange(3)))


@settings(max_examples=20)
@given(st.integers(0, 255), st.integers(1, 3), st.sampled_from([torch.uint8, torch.uint16]))
def test_flat_images_are_near_to_nothing(value, channels, dtype):
    train = patches(smooth(6, seed=0, channels=channels).to(dtype))
    flat = torch.full((2, channels, 24, 24), value, dtype=torch.int32).to(dtype)
    found = measure_nearness(bank_of(flat), train)
    torch.testing.assert_close(found.distance, torch.ones(2))
    assert found.duplicate.tolist() == [False, True]


def test_bad_input(train):
    bank = bank_of(smooth(4, seed=1))
    colour = SyntheticBank(smooth(4, seed=1, channels=3), torch.zeros(4, dtype=torch.int64), classes=["cyst"])
    volumes = SyntheticBank(torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint8), torch.zeros(2).long(), classes=["cyst"])
    empty = SyntheticBank(torch.zeros(0, 1, 24, 24, dtype=torch.uint8), torch.zeros(0).long(), classes=["cyst"])
    for given_bank, options, message in (
        (colour, {}, "bank's images have 3 channels, the training set's 1; open the data with channels=3"),
        (volumes, {}, r"must be \(C, H, W\), the bank's are \(1, 4, 4, 4\)"),
        (empty, {}, "the bank is empty"),
        (bank, {"quantile": 1.0}, "quantile must be at least 0 and below 1, got 1.0"),
        (bank, {"quantile": "half"}, "quantile must be"),
        (bank, {"side": 2}, "side must be a whole number, at least 4"),
    ):
        with pytest.raises(InputError, match=message):
            measure_nearness(given_bank, train, **options)
    with pytest.raises(InputError, match="has images of 1 group; how near"):
        measure_nearness(bank, patches(smooth(4, seed=0), groups=torch.zeros(4, dtype=torch.int64)))
