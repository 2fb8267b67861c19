"""A bank is held against what its generator was trained on, or it is said."""

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.training_set import check_training_set, with_pool

CLASSES = ("cyst", "metastasis")
RANDOM = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (30, 1, 16, 16), dtype=torch.uint8, generator=RANDOM)


def patches(images, **options):
    return PatchDataset(images=images, labels=torch.arange(len(images)) % 2, classes=CLASSES, **options)


def bank(*, images=IMAGES[:20], classes=CLASSES, train=None):
    labels = torch.arange(len(images)) % 2
    provenance = {} if train is None else {"training_set": train.training_set()}
    return SyntheticBank(images, labels, classes=classes, provenance=provenance)


TRAIN = patches(IMAGES[:20], groups=torch.arange(20))


def test_the_right_training_set_needs_no_word():
    assert check_training_set(bank(train=TRAIN), TRAIN) == ()


def test_another_split_is_refused_with_the_way_out():
    of_another = bank(train=patches(IMAGES[10:]))
    message = r"another set than this: of its 20 images it has seen 10: .*--split.*any_training_set=True"
    with pytest.raises(InputError, match=message):
        check_training_set(of_another, TRAIN)
    (note,) = check_training_set(of_another, TRAIN, any_training_set=True)
    assert "it has seen 10" in note


def test_a_generator_that_has_seen_more_is_told():
    (note,) = check_training_set(bank(train=patches(IMAGES)), TRAIN)
    assert "has also seen images that are not in this training set" in note


def test_what_labeled_the_bank_has_seen_the_set_and_its_generator_a_pool():
    """As ``label_bank`` records it: the generator's set and the classifier's, none of which holds the other."""
    sets = [{"training_set": patches(IMAGES[some]).training_set()} for some in (slice(20, 30), slice(0, 20))]
    labeled = bank().replace(provenance=sets)
    (note,) = check_training_set(labeled, TRAIN)
    assert "has also seen images that are not in this training set" in note
    half = bank().replace(provenance=[sets[0], {"training_set": patches(IMAGES[:10]).training_set()}])
    with pytest.raises(InputError, match="of its 20 images it has seen 10"):
        check_training_set(half, TRAIN)


def test_with_the_pool_all_that_was_seen_is_there():
    pool = patches(IMAGES[20:]).without_labels()
    searched = with_pool(TRAIN, pool)
    assert torch.equal(searched.images, IMAGES)
    assert searched.groups.unique().numel() == 30
    assert with_pool(patches(IMAGES[:20]), pool).groups is None
    both = with_pool(TRAIN, patches(IMAGES[20:], groups=torch.arange(10) // 5))
    assert both.groups[20:].unique().numel() == 2
    assert not set(both.groups[20:].tolist()) & set(TRAIN.groups.tolist())
    assert with_pool(TRAIN, None) is TRAIN
    sets = [{"training_set": some.training_set()} for some in (pool, TRAIN)]
    assert check_training_set(bank().replace(provenance=sets), searched) == ()
    (note,) = check_training_set(bank(train=patches(IMAGES)), with_pool(TRAIN, patches(IMAGES[20:25])))
    assert "copies of those are not found. If it was pre-trained on a pool, pass the pool too (--pool)" in note


def test_a_pool_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"the pool has images of 1 x 8 x 8 .*--size 16"):
        with_pool(TRAIN, patches(IMAGES[:, :, :8, :8]))


def test_what_must_be_known_is_said():
    notes = check_training_set(bank(images=IMAGES[:1]), patches(IMAGES[:20]))
    for text in ("does not record", "no groups (patients)", "no image of metastasis", "fewer than 10 images of cyst"):
        assert sum(text in note for note in notes) == 1


def test_few_patients_are_told():
    (note,) = check_training_set(bank(train=TRAIN), patches(IMAGES[:20], groups=torch.arange(20) // 5))
    assert "only 4 groups (patients)" in note


@pytest.mark.parametrize(
    ("of", "train", "message"),
    [
        (bank(classes=("cyst", "abscess")), TRAIN, "abscess is no class|images of abscess|abscess"),
        (
            bank(images=IMAGES[..., :12, :12]),
            TRAIN,
            r"images are 1 x 12 x 12 \(C x H x W\), the patches 1 x 16 x 16: .*size=12",
        ),
        (
            bank(images=IMAGES.expand(-1, 3, -1, -1)),
            TRAIN,
            r"images are 3 x 16 x 16 .*, the patches 1 x 16 x 16: .*channels=3",
        ),
        (bank(images=IMAGES[:0]), TRAIN, "the bank is empty"),
        (bank(images=IMAGES[:, :, None]), TRAIN, r"must be \(C, H, W\)"),
        (bank(images=IMAGES[..., :12]), patches(IMAGES[..., :12]), "must be square, of 8 pixels or more, got 16 x 12"),
        (bank(), patches(IMAGES[:9]), "has 9 images; .* at least 10"),
        (bank(), patches(IMAGES[:12], groups=torch.zeros(12, dtype=torch.int64)), "of 1 group; "),
    ],
)
def test_what_cannot_be_compared(of, train, message):
    with pytest.raises(InputError, match=message):
        check_training_set(of, train)
