"""Choosing a recipe with real trainings, of a few steps."""

import json
import warnings
from dataclasses import replace

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import ChosenRecipe, Protocol, Results, choose_recipe, evaluate, recipe
from genmix_transforms.evaluation.recipe import BANK_CANDIDATES, REAL_CANDIDATES, recipe_candidates
from genmix_transforms.evaluation.recipe_search import Trial, search

SOME = ("mixup", "genmix@alpha=1")


@pytest.fixture
def quick():
    return Protocol(steps=8, batch_size=8, validate_every=4, learning_rate=0.01)


@pytest.fixture
def trained(monkeypatch):
    """Which (arm, seed) were really trained."""
    pairs = []
    original = recipe.train_network

    def recording(arm, splits, setting, seed, **options):
        pairs.append((arm, seed))
        return original(arm, splits, setting, seed, **options)

    monkeypatch.setattr(recipe, "train_network", recording)
    return pairs


def choose(splits, bank, protocol, **options):
    options = {"candidates": SOME, "budget": 9, "device": "cpu", "progress": False, **options}
    return choose_recipe(splits, bank=bank, protocol=protocol, **options)


def test_the_test_part_changes_nothing(splits, bank, quick, shapes, trained):
    train, validation, test = splits
    chosen = choose(splits, bank, quick)
    first = list(trained)
    trained.clear()
    poisoned = replace(test, labels=(test.labels + 1) % 3)
    assert choose((train, validation, poisoned), bank, quick) == chosen
    assert choose((train, validation, shapes.patches(3, seed=9)), bank, quick) == chosen
    assert trained == first * 2


def test_a_changed_test_part_trains_nothing_again(splits, bank, quick, tmp_path, trained):
    choose(splits, bank, quick, out=tmp_path)
    trained.clear()
    choose((*splits[:2], splits[2].subset(torch.arange(9))), bank, quick, out=tmp_path)
    assert trained == []


def test_equal_seeds_equal_choice(splits, bank, quick, trained):
    chosen = choose(splits, bank, quick, seed=3)
    seeds = {seed for _, seed in trained}
    assert choose(splits, bank, quick, seed=3) == chosen
    assert {seed for _, seed in trained} == seeds
    trained.clear()
    choose(splits, bank, quick, seed=4)
    assert not seeds & {seed for _, seed in trained}


def test_no_seed_of_the_choice_is_one_that_is_reported(splits, quick, trained):
    choose(splits, None, quick, candidates=["mixup"], budget=8)
    assert all(2**30 <= seed < 2**31 - 1 for _, seed in trained)


def test_the_budget_counts_the_classifier_that_a_filter_asks(splits, bank, quick, trained):
    chosen = choose(splits, bank, quick, candidates=["blend@0.25@keep=0.5"])
    assert chosen.trainings == len(trained) + 1 <= 9
    assert [one.arm for one in chosen.candidates] == ["baseline", "blend@0.25@keep=0.5"]
    assert chosen.images == 45


def test_a_stopped_choice_goes_on(splits, bank, quick, tmp_path, trained, monkeypatch):
    recording = recipe.train_network

    def killed(*arguments, **options):
        if len(trained) == 3:
            raise KeyboardInterrupt
        return recording(*arguments, **options)

    monkeypatch.setattr(recipe, "train_network", killed)
    with pytest.raises(KeyboardInterrupt):
        choose(splits, bank, quick, out=tmp_path)
    assert len(trained) == 3
    assert not (tmp_path / "recipe.json").exists()
    monkeypatch.setattr(recipe, "train_network", recording)
    chosen = choose(splits, bank, quick, out=tmp_path)
    assert len(trained) == len(set(trained)) == chosen.trainings
    assert ChosenRecipe.from_dict(json.loads((tmp_path / "recipe.json").read_text())) == chosen
    assert choose(splits, bank, quick) == chosen
    for path in tmp_path.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_what_makes_a_training_of_the_choice_run_again(splits, bank, quick, tmp_path, trained, shapes):
    def again(some_bank=bank, some_splits=splits, **changed):
        trained.clear()
        choose(some_splits, some_bank, replace(quick, **changed), out=tmp_path)
        return {arm for arm, _ in trained}

    assert again() == {"baseline", *SOME}
    assert again() == set()
    assert again(tune=3) == set()
    (tmp_path / "recipe" / "mixup-fold0-seed0.json").write_text("{")
    assert again() == {"mixup"}
    assert again(alpha=0.9) == set()  # no candidate has this one from the protocol
    # Others may follow with fresh seeds, where the choice is another.
    assert "genmix@alpha=1" in again(pairing="same")
    assert again(pairing="same", learning_rate=0.02) == {"baseline", *SOME}
    assert again(some_splits=(splits[0], shapes.patches(45, seed=8), splits[2])) == {"baseline", *SOME}


def test_scores_through_the_seam_choose_what_is_best(splits, quick):
    """The search that choose_recipe does, with trainings whose scores are set."""
    plan = recipe.RecipePlan.of(splits, banks={}, candidates=None, protocol=quick, budget=32, device="cpu")
    labels = plan.cases.labels

    def train(jobs):
        right = {arm: 0.5 for arm, _ in jobs} | {"repeat": 1.0}
        hits = {arm: torch.arange(len(labels)).numpy() % 10 < 10 * share for arm, share in right.items()}
        return {
            (arm, number): Trial(predictions=(labels + ~hits[arm] * 1) % 3 * torch.ones(2, 1).long().numpy())
            for arm, number in jobs
        }

    assert search(plan.candidates, plan.cases, train=train, budget=32, chance=0.05).arm == "repeat"


# What is chosen from


def test_without_a_bank_arms_of_real_images(splits, quick):
    chosen = choose(splits, None, replace(quick, steps=1), candidates=None, budget=11)
    assert [one.arm for one in chosen.candidates] == ["baseline", *REAL_CANDIDATES]


def test_every_bank_has_its_arms(quick):
    found = recipe_candidates(None, {"a": None, "b": None}, quick)
    assert len(found) == len(REAL_CANDIDATES) + 2 * len(BANK_CANDIDATES)
    assert {"pretrain:a@0.5", "pretrain:b@0.5"} < set(found)


def test_with_weights_of_a_pool_these_are_to_be_beaten(splits, quick, bank, pool_weights, tmp_path):
    assert recipe_candidates(None, {}, replace(quick, pool_weights=pool_weights)) == ("baseline", *REAL_CANDIDATES)
    protocol = replace(quick, steps=1, pool_weights=pool_weights)
    chosen = choose(splits, bank, protocol, candidates=["baseline", "blend"], chance=0.001, out=tmp_path)
    # One step teaches nothing: no arm is better than another beyond chance.
    assert (chosen.arm, chosen.default) == ("pool", "pool")
    assert [one.arm for one in chosen.candidates] == ["pool", "baseline", "blend"]
    assert chosen.candidates[0].gain == 0
    assert chosen.sentence.startswith(
        "Chose pool (real images alone, from the classifier that was pre-trained on the pool)"
    )
    assert ChosenRecipe.from_dict(json.loads((tmp_path / "recipe.json").read_text())) == chosen
    assert pool_weights not in (tmp_path / "recipe.json").read_text()
    old = {name: value for name, value in chosen.to_dict().items() if name != "default"}
    assert ChosenRecipe.from_dict(old).default == "baseline"


def test_arms_that_are_the_same_under_the_protocol_are_one(quick):
    found = recipe_candidates(None, {"": None}, replace(quick, pairing="balanced"))
    assert "genmix@alpha=0.3" in found
    assert "genmix@pairing=balanced" not in found


def test_what_this_bank_cannot_make_is_left_out_and_said(splits, quick, bank):
    some = bank.take(torch.nonzero(bank.labels != 1).flatten())
    plan = recipe.RecipePlan.of(splits, banks={"": some}, candidates=None, protocol=quick, budget=32, device="cpu")
    assert list(plan.left_out) == ["genmix@pairing=balanced"]
    assert "hemangioma" in plan.left_out["genmix@pairing=balanced"]
    with pytest.raises(InputError, match="hemangioma"):
        choose(splits, some, quick, candidates=["genmix@pairing=balanced"])


# In a comparison


def chosen_by_hand(arm):
    return ChosenRecipe(
        arm=arm, halves=(arm, arm), gain=0.03, low=0.01, high=0.05, p=0.01, chance=0.05, candidates=(), trainings=13,
        images=45, budget=13, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arm", "order", "row"),
    [
        ("genmix@alpha=1", ("baseline", "blend", "genmix@alpha=1"), "genmix@alpha=1"),
        ("blend@0.5", ("baseline", "blend"), "blend"),
        ("baseline", ("baseline", "blend"), "baseline"),
    ],
)
def test_the_comparison_has_the_choice_as_a_row_and_says_so(splits, bank, quick, tmp_path, arm, order, row):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        results = evaluate(
            splits, bank=bank, arms=("baseline", "blend"), seeds=1, protocol=quick, recipe=chosen_by_hand(arm),
            out=tmp_path, device="cpu", progress=False,
        )  # fmt: skip
    assert results.order == order
    said = f"The recipe is the row {row}. {chosen_by_hand(arm).sentence}"
    assert said in " ".join(results.table().split())
    assert said.split(" (95")[0] in results.to_markdown().replace("\\", "")
    content = json.loads((tmp_path / "results.json").read_text())["recipe"]
    assert (content["row"], content["sentence"]) == (row, chosen_by_hand(arm).sentence)
    assert Results.load(tmp_path).recipe == content


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": ["baseline"]}, "nothing to choose from"),
        ({"candidates": []}, "nothing to choose from"),
        ({"candidates": "mixup"}, "candidates must be a list of arms, got the text 'mixup'"),
        ({"candidates": ["augmex"]}, "no arm 'augmex'"),
        ({"candidates": ["pool"]}, "the arm 'pool' needs weights .*--pool-weights FILE"),
        ({"candidates": ["mixup", "mixup@0.2"]}, "are the same arm"),
        ({"candidates": ["blend:adm"]}, "no bank 'adm'"),
        ({"budget": 8}, r"a budget of 8 trainings is too small to choose among 2 .*--budget 9"),
        ({"budget": 8, "candidates": ["blend@keep=0.5"]}, r"a filter asks for 1 more, .*--budget 9"),
        ({"budget": 0}, "budget must be a whole number, from 1 to 10000, got 0"),
        ({"budget": 2.5}, "budget must be a whole number"),
        ({"chance": 0}, "chance must be a number above 0 and at most 0.5, got 0"),
        ({"chance": 0.6}, "chance must be"),
        ({"chance": "often"}, "chance must be"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_bad_input_before_the_first_training(splits, bank, quick, trained, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        choose(splits, bank, quick, out=tmp_path / "new", **options)
    assert trained == []
    assert not (tmp_path / "new").exists()


def test_a_bank_arm_without_a_bank(splits, quick):
    with pytest.raises(InputError, match="the arm 'genmix@alpha=1' needs a bank"):
        choose(splits, None, quick, candidates=["genmix@alpha=1"])


def test_one_bank_and_several(splits, bank, quick):
    with pytest.raises(InputError, match="one bank, or banks by name, not both"):
        choose(splits, bank, quick, banks={"a": bank})


def test_a_validation_part_with_too_few_of_a_class(splits, bank, quick, shapes):
    train, validation, test = splits
    one = validation.subset(torch.tensor([0, 1, 2, 3, 4]))
    with pytest.raises(InputError, match="too small to choose a recipe by: metastasis 1; each class needs 2"):
        choose((train, one, test), bank, quick)
    patients = PatchDataset(
        images=validation.images, labels=validation.labels, classes=validation.classes, groups=validation.labels
    )
    with pytest.raises(InputError, match=r"too few images of 'cyst' \(15, of 1 groups\)"):
        choose((train, patients, test), bank, quick)


def test_a_bank_whose_generator_saw_validation_images(splits, quick, trained):
    train, validation, _ = splits
    seen = SyntheticBank(
        train.images, train.labels, classes=train.classes, provenance={"training_set": validation.training_set()}
    )
    with pytest.raises(InputError, match="trained on 45 of the validation images, which a recipe is chosen by"):
        choose(splits, seen, quick)
    assert trained == []


def test_a_file_where_the_choice_belongs(splits, bank, quick, tmp_path, trained):
    (tmp_path / "recipe").write_text("")
    with pytest.raises(InputError, match="recipe: cannot be a folder"):
        choose(splits, bank, quick, out=tmp_path)
    assert trained == []
