"""Placeholder tokens: their names and ids, prompts as diffusers reads them, and class names that make no tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.embeddings_file import save_embeddings
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.tokens import (
    MAX_TOKENS,
    PlaceholderTokens,
    check_classes,
    check_vectors,
    placeholder,
    token_names,
)


@pytest.fixture(params=["ldm", "stable_diffusion"])
def base(request: pytest.FixtureRequest) -> LatentDiffusion:
    model: LatentDiffusion = request.getfixturevalue(request.param)
    return model


def test_names() -> None:
    assert placeholder("Basal cell  Carcinoma") == "<basal-cell-carcinoma>"
    assert token_names("cyst", 3) == ("<cyst>", "<cyst>_1", "<cyst>_2")
    assert token_names("HCC", 1) == ("<hcc>",)


def test_ids_follow_the_vocabulary_in_order_and_the_tokenizer_keeps_its_own(base: LatentDiffusion) -> None:
    before = dict(base.tokenizer.get_vocab())
    tokens = PlaceholderTokens(base.tokenizer, {"Cyst": 2, "lung cyst": 1, "b": 3})
    first = base.learned.first
    assert tokens.first == first == len(base.tokenizer)
    prompt = " ".join(tokens.fill("{}", name) for name in tokens.names)
    ids = tokens.ids([prompt])
    assert ids.shape == (1, MAX_TOKENS)
    assert ids.dtype == torch.int64
    assert ids[ids >= first].tolist() == list(range(first, first + 6))
    assert base.tokenizer.get_vocab() == before


def test_names_that_differ_by_an_accent_stay_apart(base: LatentDiffusion) -> None:
    """A tokenizer that strips accents would otherwise find one token in both."""
    tokens = PlaceholderTokens(base.tokenizer, {"mole": 1, "môle": 1})
    for name, expected in (("mole", tokens.first), ("môle", tokens.first + 1)):
        ids = tokens.ids([tokens.fill("a scan of {}", name)])[0]
        assert ids[ids >= tokens.first].tolist() == [expected]


def test_a_prompt_is_the_pipelines_own_but_for_the_tokens(base: LatentDiffusion) -> None:
    """Also where the tokens touch words and points, which a tokenizer would otherwise put together."""
    tokens = PlaceholderTokens(base.tokenizer, {"cyst": 2})
    plain = base.tokenizer(
        "a scan of cyst, bright.", padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids[0]
    assert torch.equal(tokens.ids(["a scan of cyst, bright."])[0], plain)
    parts = [base.tokenizer(text, add_special_tokens=False).input_ids for text in ("a scan of", ", bright.")]
    begin, end = base.tokenizer("").input_ids
    expected = [begin, *parts[0], tokens.first, tokens.first + 1, *parts[1], end]
    ids = tokens.ids([tokens.fill("a scan of {}, bright.", "cyst")])[0]
    assert ids[: len(expected)].tolist() == expected
    empty = base.tokenizer([""], padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids[0]
    assert torch.equal(ids[len(expected) :], empty[2 : MAX_TOKENS + 2 - len(expected)])


def test_the_ids_are_those_of_diffusers(
    stable_diffusion: LatentDiffusion, stable_diffusion_folder: Path, tmp_path: Path
) -> None:
    tokens = PlaceholderTokens(stable_diffusion.tokenizer, {"cyst": 3})
    save_embeddings(tmp_path, "<cyst>", torch.zeros(3, stable_diffusion.width))
    pipeline: Any = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder, safety_checker=None)
    pipeline.load_textual_inversion(tmp_path)
    theirs = pipeline.maybe_convert_prompt("a scan of <cyst>, bright", pipeline.tokenizer)
    assert theirs == tokens.fill("a scan of {}, bright", "cyst")
    ids = pipeline.tokenizer(theirs, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids
    assert torch.equal(tokens.ids([theirs]), ids)


def test_a_class_that_the_tokenizer_knows(stable_diffusion: LatentDiffusion) -> None:
    with pytest.raises(InputError, match=r"knows <\|endoftext\|> already, which class '\|EndOfText\|' would be called"):
        PlaceholderTokens(stable_diffusion.tokenizer, {"|EndOfText|": 2})
    taken = PlaceholderTokens(
        stable_diffusion.tokenizer, {"cyst": 1}
    )._tokenizer  # somebody's, with a token of that name
    with pytest.raises(InputError, match=r"knows <cyst> already.*rename the class"):
        PlaceholderTokens(taken, {"Cyst": 2})
    taken.add_tokens(["<spot>_1"])
    with pytest.raises(InputError, match="knows <spot>_1 already"):
        PlaceholderTokens(taken, {"spot": 2})
    PlaceholderTokens(taken, {"spot": 1})


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("Cyst", "b", "cyst"), "'Cyst' and 'cyst' would have the same token, <cyst>: .*rename one"),
        (("basal cell", "basal-cell"), "'basal cell' and 'basal-cell' would have the same token, <basal-cell>"),
        ("cyst", "classes must be different names, in a list; got the text 'cyst'"),
        (("a", "a"), "different names, at least one, got .'a', 'a'"),
        ((), "at least one"),
        (("a/b",), "class name 'a/b': it holds a slash"),
        ((" a",), "class name ' a': spaces at its ends"),
    ],
)
def test_names_that_make_no_classes(classes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_classes(classes)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"a": 1}, "a number for each of the classes a, b; got them for a"),
        ({"a": 1, "b": 2, "c": 3}, "got them for a, b, c"),
    ],
)
def test_numbers_of_vectors_that_make_no_sense(vectors: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_vectors(vectors, ("a", "b"))


def test_more_vectors_than_a_prompt_has_room_for(ldm: LatentDiffusion) -> None:
    """Refused before a token is made: the tokenizer takes minutes to learn a million of them."""
    with pytest.raises(InputError, match="1000000 vectors of class 'b', and a prompt has room for 75; give fewer"):
        PlaceholderTokens(ldm.tokenizer, {"a": 1, "b": 1_000_000})


def test_numbers_of_vectors() -> None:
    assert check_vectors(3, ("a", "b")) == {"a": 3, "b": 3}
    assert list(check_vectors({"b": 1, "a": 2}, ("a", "b")).items()) == [("a", 2), ("b", 1)]


def test_more_vectors_than_the_prompt_has_room_for(base: LatentDiffusion) -> None:
    template = "a scan of {}"
    room = MAX_TOKENS - len(base.tokenizer("a scan of").input_ids)
    PlaceholderTokens(base.tokenizer, {"cyst": room}).check_room([template])
    tokens = PlaceholderTokens(base.tokenizer, {"b": 1, "cyst": room + 1})
    with pytest.raises(
        InputError, match=rf"'a scan of {{}}' with the {room + 1} vectors of class 'cyst' is 78 tokens long, .*"
        rf"give at most {room} vectors, or shorter templates"
    ):  # fmt: skip
        tokens.check_room([template])
    with pytest.raises(InputError, match="a prompt of 78 tokens, and the text encoder reads 77.*shorten it"):
        tokens.ids([tokens.fill(template, "cyst")])
    with pytest.raises(InputError, match="beginning and end counted: give shorter templates"):
        tokens.check_room([" ".join(["a"] * 80) + " {}"])


def test_a_tokenizer_that_numbers_new_tokens_elsewhere(ldm: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(ldm.tokenizer), "convert_tokens_to_ids", lambda self, tokens: [5] * len(tokens))
    with pytest.raises(InputError, match="does not number new tokens from 106 on"):
        PlaceholderTokens(ldm.tokenizer, {"cyst": 1})


@pytest.mark.parametrize("template", ["{} beside <b>", "<cyst>_1 of {}", "<cyst> {}"])
def test_a_template_with_a_class_in_it(base: LatentDiffusion, template: str) -> None:
    """Images of one class would move the vectors of another."""
    tokens = PlaceholderTokens(base.tokenizer, {"cyst": 2, "b": 1})
    tokens.check_own(["a scan of {}", "a cyst b <c> {}"])
    with pytest.raises(InputError, match=f"the template '{template}' has a class's own token in it"):
        tokens.check_own(["a scan of {}", template])
