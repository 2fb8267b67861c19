"""Copies are found however they were changed, and what is no copy is none."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit import find_copies

CLASSES = ("cyst", "metastasis")
SIZE = 32


def textures(count, *, seed):
    """Random tissue: noise of several scales."""
    random = np.random.default_rng(seed)
    values = sum(
        sigma * ndimage.gaussian_filter(random.normal(size=(count, 1, SIZE, SIZE)), (0, 0, sigma, sigma))
        for sigma in (1, 2, 5)
    )
    return torch.from_numpy((120 + 60 * values / values.std()).clip(0, 255).round().astype(np.uint8))


def patches(images, *, groups=None):
    return PatchDataset(images=images, labels=torch.arange(len(images)) % 2, classes=CLASSES, groups=groups)


def bank_of(images, **options):
    # Of one class first, then of the other, as a bank is sorted: the order stays.
    labels = (torch.arange(len(images)) >= len(images) // 2).long()
    return SyntheticBank(images, labels, classes=CLASSES, **options)


@pytest.fixture(scope="module")
def train():
    return patches(textures(40, seed=0), groups=torch.arange(40) // 2)


def changed(images, angle=0.0, zoom=1.0):
    turn = ndimage.affine_transform
    radians = math.radians(angle)
    matrix = np.array([[math.cos(radians), -math.sin(radians)], [math.sin(radians), math.cos(radians)]]) / zoom
    middle = np.full(2, (SIZE - 1) / 2)
    done = [turn(image[0].numpy().astype(float), matrix, offset=middle - matrix @ middle, order=1) for image in images]
    return torch.from_numpy(np.stack(done)[:, None].round().clip(0, 255).astype(np.uint8))


def jpeg(images):
    done = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[0].numpy()).save(file, "JPEG", quality=60)
        done.append(np.array(Image.open(file)))
    return torch.from_numpy(np.stack(done)[:, None])


def in_others(images, rows, columns):
    others = textures(len(images), seed=8)
    others[..., :rows, :columns] = images[..., :rows, :columns]
    return others


KINDS = {
    "the same": lambda x: x,
    "mirrored": lambda x: x.flip(-1),
    "quarter turn": lambda x: x.rot90(1, (-2, -1)),
    "shifted": lambda x: x.roll((2, -2), (-2, -1)),
    "turned": lambda x: changed(x, angle=8.0),
    "larger": lambda x: changed(x, zoom=1.1),
    "smaller": lambda x: changed(x, zoom=0.9),
    "inverted": lambda x: 255 - x,
    "window": lambda x: (x * 0.6 + 40).to(torch.uint8),
    "noise": lambda x: (
        (x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * 20).clamp(0, 255).to(torch.uint8)
    ),
    "jpeg": jpeg,
    "half": lambda x: in_others(x, SIZE, SIZE // 2),
    "quarter": lambda x: in_others(x, SIZE // 2, SIZE // 2),
    "flip, shift and window": lambda x: (x.flip(-1).roll((2, 1), (-2, -1)) * 0.6 + 40).to(torch.uint8),
}


OTHERS = 30


@pytest.fixture(scope="module")
def planted(train):
    """A bank of 3 copies of each kind, 2 flat images, 2 of noise, and some of other patients; and what was found."""
    noise = torch.randint(0, 256, (2, 1, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    copies = [change(train.images[:3]) for change in KINDS.values()]
    bank = bank_of(torch.cat([*copies, torch.full_like(noise, 90), noise, textures(OTHERS, seed=1)]))
    return bank, find_copies(bank, train)


def test_planted_copies_of_every_kind_are_found(planted):
    found = planted[1]
    copies = slice(3 * len(KINDS))
    right = found.near_copy[copies] & (found.nearest[copies] == torch.arange(3).repeat(len(KINDS)))
    by_kind = right.view(-1, 3).sum(dim=1).tolist()
    assert {name: n for name, n in zip(KINDS, by_kind, strict=True) if n < 3} == {}
    said = dict(zip(KINDS, found.transformations[copies][::3], strict=True))
    assert said["the same"].text == "as it is"
    assert said["mirrored"].text == "mirrored"
    assert said["inverted"].inverted
    assert abs(said["turned"].angle) == pytest.approx(8, abs=2)
    assert (said["half"].part, said["quarter"].part) == ("left half", "upper left quarter")
    assert 1 / said["larger"].zoom == pytest.approx(1.1, abs=0.03)


def test_other_images_are_no_copies_nor_is_noise_and_flat_images_are_near_to_nothing(planted):
    found = planted[1]
    assert found.near_copy[-OTHERS:].sum() <= 1
    flat, noise = found.distance[-OTHERS - 4 : -OTHERS - 2], found.near_copy[-OTHERS - 2 : -OTHERS]
    assert flat.min() > 1.3
    assert not noise.any()


def test_what_was_found_is_told(train, planted):
    bank, found = planted
    told = found.to_dict()
    assert [row["nearest"] for row in told["copies"][:3]] == [0, 1, 2]
    assert "image 0 is training image 0, as it is (distance 0.00)" in found.table()
    few = f"{len(train)} training images cannot show what one image in 200 is like"
    assert any(note.startswith(few) for note in told["notes"])
    assert found.text.startswith(f"{told['near_copies']} of {len(bank)} images are nearer")
    assert found.copy_share.near_copies == told["near_copies"] == int(found.near_copy.sum())
    assert (found.copy_share.images, found.copy_share.expected_share) == (len(bank), 0.005)
    assert found.near_copy_at(0.5).sum() > found.near_copy.sum()
    for number in (0, 3, 9):  # the same, mirrored, shifted
        laid, real = found.pair(number, bank, train)
        assert (laid.int() - real.int())[:, 4:-4, 4:-4].abs().max() <= 1


def test_duplicates_within_the_bank(planted):
    found = planted[1]
    assert found.among_bank[0] == torch.inf
    assert found.nearest_in_bank[0] == -1
    assert not found.duplicate[:3].any()
    assert found.duplicate[3:9].all()
    assert (found.nearest_in_bank[3:9] % 3).tolist() == [0, 1, 2, 0, 1, 2]
    assert not found.duplicate[-OTHERS:].any()
    assert [row["image"] for row in found.to_dict()["repeated"][:6]] == [3, 4, 5, 6, 7, 8]


def test_marking_keeps_everything_else_and_copies_are_left_out_when_opened(planted, tmp_path):
    images, found = planted[0].images, planted[1]
    count = len(images)
    flags = torch.full((count,), int(Flag.REJECTED | Flag.NEAR_COPY), dtype=torch.uint8)
    bank = bank_of(images, seeds=torch.arange(count), flags=flags, provenance={"made": "for a test"})
    marked = found.marked(bank)
    bits = int(Flag.REJECTED) + found.near_copy * int(Flag.NEAR_COPY) + found.duplicate * int(Flag.DUPLICATE)
    assert marked.flags.equal(bits.to(torch.uint8))
    assert marked.distance.equal(found.distance)
    assert (marked.seeds.tolist(), marked.provenance) == (list(range(count)), {"made": "for a test"})
    marked.save(tmp_path / "bank")
    assert SyntheticBank.load(tmp_path / "bank", exclude="copies").images.equal(images[~found.near_copy])
    with pytest.raises(InputError, match=f"{count} images were measured, and this bank has 3"):
        found.marked(bank.take(torch.arange(3)))


def test_all_images_of_a_bank_that_has_collapsed_are_duplicates_and_of_one_image_no_copies(train):
    generator = torch.Generator().manual_seed(0)
    one = textures(1, seed=4).int() + torch.randint(-3, 4, (15, 1, SIZE, SIZE), generator=generator)
    found = find_copies(bank_of(one.clamp(0, 255).to(torch.uint8)), train)
    assert found.duplicate[1:].all()
    assert not found.near_copy.any()


def test_patients_are_told_apart_by_images_that_are_alike():
    first = textures(20, seed=5)
    second = (first.float() * 0.8 + 0.2 * textures(20, seed=6).float()).to(torch.uint8)
    groups = torch.arange(20).repeat(2)
    found = find_copies(bank_of(textures(4, seed=7)), patches(torch.cat([first, second]), groups=groups))
    assert (found.reidentification.images, found.reidentification.rate) == (40, 1.0)
    assert found.reidentification.chance == pytest.approx(1 / 39)
    assert found.reidentification.text.startswith("Of 40 real images whose patient has others here, 100%")


def test_a_picture_under_two_patients_names_is_told_and_changes_no_threshold(train):
    images = torch.cat([train.images, train.images[:4].flip(-1)])
    found = find_copies(bank_of(train.images[10:13]), patches(images))
    assert found.reidentification is None
    assert any("no groups (patients): patients cannot be told apart" in note for note in found.notes)
    assert any(note.startswith("8 of 44 training images") for note in found.notes)
    assert found.law.double.nonzero().flatten().tolist() == [0, 1, 2, 3, 40, 41, 42, 43]
    assert found.near_copy.all()


def test_features_find_what_pixels_do_not(train, planted):
    shuffled = train.images[:3].flatten(2)[..., torch.randperm(SIZE**2, generator=torch.Generator().manual_seed(0))]
    bank = bank_of(torch.cat([shuffled.view(3, 1, SIZE, SIZE), textures(3, seed=1)]))

    def histogram(images):
        counts = torch.stack([torch.bincount(image.flatten().long(), minlength=256) for image in images]).float()
        return counts - counts.mean(dim=1, keepdim=True)

    assert planted[1].feature_distance is None
    found = find_copies(bank, train, features=histogram)
    assert found.near_copy[:3].all()
    assert found.feature_nearest[:3].tolist() == found.nearest[:3].tolist() == [0, 1, 2]
    assert found.feature_distance[:3].max() < 1e-3
    assert "feature_distance" in found.to_dict()["copies"][0]
    with pytest.raises(InputError, match=r"features must return a tensor \(40, D\), got \(1,\)"):
        find_copies(bank, train, features=lambda images: torch.zeros(1))


def test_the_least_that_can_be_compared():
    few = patches(textures(10, seed=9)[..., :8, :8], groups=torch.arange(10) // 5)
    found = find_copies(bank_of(few.images[:1]), few)
    assert found.distance.tolist() == [0.0]
    assert found.among_bank.tolist() == [torch.inf]
    assert any("only 2 groups (patients)" in note for note in found.notes)


def test_bad_input(train):
    for share in (1.0, -0.1, "half", True):
        with pytest.raises(InputError, match="share must be at least 0 and below 1"):
            find_copies(bank_of(textures(4, seed=1)), train, share=share)
    with pytest.raises(InputError, match="calibration must be a whole number, at least 10"):
        find_copies(bank_of(textures(4, seed=1)), train, calibration=2)


def test_copies_of_the_pool_are_found_where_it_is_given(train):
    pool = patches(textures(30, seed=5)).without_labels()
    bank = bank_of(torch.cat([pool.images[:6].flip(-1), train.images[4:8], textures(10, seed=6)]))
    wanted = [40 + number for number in range(6)] + [4, 5, 6, 7]
    found = find_copies(bank, train, pool=pool)
    assert found.near_copy.tolist() == [True] * 10 + [False] * 10
    assert found.nearest[:10].tolist() == wanted
    assert "image 0 is image 0 of the pool, mirrored" in found.table()
    assert "image 6 is training image 4" in found.table()
    alone = find_copies(bank, train)
    assert alone.near_copy.tolist() == [False] * 6 + [True] * 4 + [False] * 10
