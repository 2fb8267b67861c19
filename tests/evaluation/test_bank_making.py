"""Banks made for training sets: what they hold, what they are of, and that work is gone on with."""

import dataclasses
import warnings

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.bank_making import Recipe, make_bank, make_banks, resized_bank
from genmix_transforms.evaluation.leakage import foreign, seen_images
from genmix_transforms.files.images import fit_images
from genmix_transforms.generators import DCGAN, load_generator

TINY = Recipe(kind="dcgan", network={"base_width": 4}, training={"steps": 2, "batch_size": 4})


@pytest.fixture(autouse=True)
def _few_images():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="very few images")
        yield


@pytest.fixture
def train(shapes):
    return shapes.patches(20)


def make(train, recipe, folder, **options):
    return make_bank(train, recipe, run=folder / "run", bank=folder / "bank", device="cpu", progress=False, **options)


def test_as_many_of_each_class_as_the_training_set_has(train, shapes, tmp_path):
    bank = make(train, TINY, tmp_path)
    assert bank.class_counts == train.class_counts
    assert bank.image_shape == (1, 16, 16)
    assert not foreign(bank, train)
    assert foreign(bank, train.subset(torch.arange(10)))
    other = shapes.patches(9, seed=5)
    assert seen_images(bank, (other, other, train)) == {"val": 0, "test": len(train)}
    assert load_generator(tmp_path / "run").provenance["steps"] == 2


def test_another_size_is_brought_to_the_patches_and_still_of_this_training_set(train, tmp_path):
    larger = train.resized(24)
    bank = make(larger, Recipe(**{**vars(TINY), "size": 16}), tmp_path)
    assert bank.image_shape == (1, 24, 24)
    assert not foreign(bank, larger)
    kept = SyntheticBank.load(tmp_path / "bank")
    assert kept.image_shape == (1, 16, 16)
    assert torch.equal(bank.images, fit_images(kept.images, 24))
    assert torch.equal(bank.labels, kept.labels)


def test_a_bank_of_volumes(train, tmp_path):
    slices = train.resized(24).images
    volumes = dataclasses.replace(train, images=slices[:, :, None].expand(-1, -1, 24, -1, -1).contiguous())
    bank = make(volumes, Recipe(**{**vars(TINY), "size": 16}), tmp_path)
    assert bank.class_counts == volumes.class_counts
    assert bank.image_shape == (1, 24, 24, 24)
    assert SyntheticBank.load(tmp_path / "bank").image_shape == (1, 16, 16, 16)


def test_a_bank_of_soft_labels(train, tmp_path):
    bank = make(train, dataclasses.replace(TINY, soft=2.0), tmp_path)
    assert bank.class_counts == train.class_counts
    assert bank.label_kind == "probabilities"
    assert not foreign(bank, train)
    with pytest.raises(InputError, match="give soft or per_class, not both"):
        Recipe(kind="dcgan", soft=2.0, per_class=True)
    with pytest.raises(InputError, match="Recipe: soft must be a number from 1"):
        Recipe(kind="dcgan", soft=0.5)


def test_run_again_it_trains_and_draws_nothing(train, tmp_path, monkeypatch):
    first = make(train, TINY, tmp_path)
    monkeypatch.setattr(DCGAN, "sample", lambda *args, **options: pytest.fail("drawn again"))
    again = make(train, TINY, tmp_path)
    assert torch.equal(first.images, again.images)


def test_gone_on_with_it_is_what_it_would_have_been(train, tmp_path):
    whole = make(train, TINY, tmp_path / "whole")
    half = Recipe(**{**vars(TINY), "training": {"steps": 1, "batch_size": 4}})
    # A training that was stopped after one step, before anything was drawn.
    half.untrained(train).fit(train, out=tmp_path / "two" / "run", device="cpu", progress=False, **half.training)
    assert torch.equal(make(train, TINY, tmp_path / "two").images, whole.images)


def test_a_network_for_each_class(train, tmp_path):
    recipe = Recipe(kind="dcgan", network={"base_width": 4}, training=TINY.training, per_class=True)
    bank = make(train, recipe, tmp_path)
    assert bank.class_counts == train.class_counts
    assert len(load_generator(tmp_path / "run").members) == 3


def test_banks_for_folds_are_each_of_their_own_training_part(shapes, tmp_path):
    folds = shapes.patches(60).folds(2)
    trains = [train for train, *_ in folds]
    recipes = {"a": TINY, "b": Recipe(**{**vars(TINY), "training": {**TINY.training, "steps": 1}})}
    banks = make_banks(trains, recipes, out=tmp_path, device="cpu", progress=False)
    assert [list(found) for found in banks] == [["a", "b"], ["a", "b"]]
    for number, found in enumerate(banks):
        for name, bank in found.items():
            assert bank.class_counts == trains[number].class_counts
            assert not foreign(bank, trains[number])
            assert foreign(bank, trains[1 - number])
            assert (tmp_path / f"fold-{number}" / "runs" / name / "config.json").exists()
            assert (tmp_path / f"fold-{number}" / "banks" / name / "bank.index.json").exists()


def test_fine_tuning_starts_from_the_weights(train, tmp_path):
    weights = DCGAN.for_patches(train, base_width=4)
    weights.save_pretrained(tmp_path / "weights")
    make(train, TINY.starting_from(tmp_path / "weights"), tmp_path)
    assert load_generator(tmp_path / "run").provenance["started_from"]["weights"] == weights.weights_hash
    with pytest.raises(InputError, match="a dcgan generator, not a stylegan"):
        make(train, Recipe(kind="stylegan", weights=tmp_path / "weights"), tmp_path / "other")
    with pytest.raises(InputError, match="channel"):
        make(train.with_channels(3), TINY.starting_from(tmp_path / "weights"), tmp_path / "color")


def test_a_textual_inversion_stands_on_its_weights():
    recipe = Recipe(kind="textual-inversion", network={"vectors": 4}).starting_from("models/small")
    assert (recipe.network, recipe.weights) == ({"vectors": 4, "base": "models/small"}, None)


def test_a_resized_bank_keeps_all_but_the_pixels(shapes):
    bank = shapes.bank(provenance={"seed": 3})
    found = resized_bank(bank, 32)
    assert torch.equal(found.labels, bank.labels)
    assert found.classes == bank.classes
    assert found.provenance == {"resized_from": 16, "seed": 3}
    assert resized_bank(bank, 16) is bank
    assert resized_bank(resized_bank(bank, 32), 64).provenance["resized_from"] == 16


def test_what_cannot_be_made(train, tmp_path, shapes):
    with pytest.raises(InputError, match="give weights to fine-tune, or network and per_class, not both"):
        Recipe(kind="dcgan", weights="w", per_class=True)
    with pytest.raises(InputError, match="no generator of kind 'gan'"):
        make(train, Recipe(kind="gan"), tmp_path)
    wide = dataclasses.replace(train, images=train.images[..., :8])
    with pytest.raises(InputError, match="the patches are 16x8, and generators draw squares"):
        make(wide, TINY, tmp_path)
    assert not (tmp_path / "run").exists()
