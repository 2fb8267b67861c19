"""What was chosen, as a sentence, as code and as JSON."""

import json
from dataclasses import replace

import pytest
import torch

from genmix_transforms import GenMix
from genmix_transforms.evaluation import ChosenRecipe
from genmix_transforms.evaluation.recipe_search import Candidate

CHOSEN = ChosenRecipe(
    arm="genmix:adm@alpha=1",
    options={"alpha": 1.0, "pairing": "any", "p": 1.0, "real_partner": 0.0, "keep": 1.0, "keep_by": "confidence"},
    halves=("genmix:adm@alpha=1", "mixup"),
    gain=0.031,
    low=0.004,
    high=0.057,
    p=0.02,
    chance=0.05,
    candidates=(Candidate(arm="baseline", seeds=2, macro_f1=0.7, gain=0.0),),
    left_out={"genmix:adm@pairing=balanced": "no images of a class"},
    trainings=24,
    images=75,
    budget=32,
    seed=0,
)


def test_the_sentence_of_a_choice():
    assert CHOSEN.sentence == (
        "Chose genmix@alpha=1 on bank 'adm': on validation data +3.1 points of macro F1 over the baseline (95 % "
        "interval +0.4 to +5.7), from 24 trainings on 75 validation images."
    )


def test_the_sentence_where_nothing_is_better_beyond_chance():
    none = replace(
        CHOSEN, arm="baseline", options={}, halves=("blend@0.1", "baseline"), gain=0.008, low=-0.03, high=0.046
    )
    assert none.sentence == (
        "Chose the baseline: no candidate is better than it beyond chance; the best found, blend@0.1, brought +0.8 "
        "points of macro F1 (95 % interval -3.0 to +4.6) on validation data, from 24 trainings on 75 validation images."
    )
    assert (
        "both halves of the validation data have it above all candidates"
        in replace(none, halves=("baseline", "baseline")).sentence
    )


@pytest.mark.parametrize(
    ("arm", "options", "alpha", "real_partner"),
    [
        ("genmix@alpha=1", {"alpha": 1.0, "pairing": "same", "p": 1.0, "real_partner": 0.0}, 1.0, 0.0),
        ("genmix", {"alpha": 0.3, "pairing": "inverse", "p": 0.5, "real_partner": 0.25}, 0.3, 0.25),
        ("genmix-union", {"alpha": 0.3, "pairing": "any", "p": 1.0}, 0.3, 0.5),
    ],
)
def test_the_lines_of_genmix_run(splits, bank, arm, options, alpha, real_partner):
    train = splits[0]
    names = {"GenMix": GenMix, "bank": bank, "train": train, "images": train.images[:8].float() / 255}
    names["labels"] = train.labels[:8]
    exec(replace(CHOSEN, arm=arm, options=options).code, names)
    assert names["labels"].shape == (8, 3)
    assert (names["genmix"].alpha, names["genmix"].real_partner) == (alpha, real_partner)


@pytest.mark.parametrize(
    ("arm", "options", "line"),
    [
        (
            "pretrain@0.5",
            {},
            "results = evaluate(splits, bank=bank, arms=('baseline', 'pretrain@0.5'), protocol=protocol)",
        ),
        ("blend:adm@0.1", {}, "evaluate(splits, banks=banks, arms=('baseline', 'blend:adm@0.1'), protocol=protocol)"),
        ("mixup", {}, "results = evaluate(splits, arms=('baseline', 'mixup'), protocol=protocol)"),
        # The filter is the evaluation's, not GenMix's.
        (
            "genmix@keep=0.5",
            {"alpha": 0.3, "keep": 0.5},
            "evaluate(splits, bank=bank, arms=('baseline', 'genmix@keep=",
        ),
    ],
)
def test_the_line_of_other_arms(arm, options, line):
    assert line in replace(CHOSEN, arm=arm, options=options).code


def test_it_survives_json():
    content = json.loads(json.dumps(CHOSEN.to_dict()))
    assert (content["sentence"], content["code"]) == (CHOSEN.sentence, CHOSEN.code)
    assert ChosenRecipe.from_dict(content) == CHOSEN


def test_a_pairing_matrix_is_code_too():
    code = replace(CHOSEN, options={"alpha": 0.3, "pairing": ((0.5, 0.5), (1.0, 0.0))}).code
    assert torch.tensor(eval(code.split("pairing=")[1].split(")\n")[0])).shape == (2, 2)
