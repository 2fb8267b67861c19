"""Prompt templates: the defaults, a modality's, and the user's."""

from typing import Any

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.prompts import OF_MODALITY, PLAIN, check_template, choose_templates


def test_the_defaults_are_plain_and_for_any_modality() -> None:
    assert choose_templates(None, modality=None) == PLAIN
    assert len(set(PLAIN)) == len(PLAIN) == len(set(OF_MODALITY)) == len(OF_MODALITY)
    for template in PLAIN:
        assert check_template(template) == template
        assert "photo" not in template  # which says of a medical image what it is not


@pytest.mark.parametrize("modality", ["ultrasound", "CT", "X-ray", " MRI "])
def test_a_modality_is_in_every_template(modality: str) -> None:
    templates = choose_templates(None, modality=modality)
    assert len(templates) == len(OF_MODALITY)
    for template in templates:
        assert check_template(template).count(modality.strip()) == 1
        # An article before it would be wrong before half of the words.
        assert f"a {modality.strip()}" not in template
        assert f"an {modality.strip()}" not in template


def test_the_users_own() -> None:
    assert choose_templates("a {} here", modality=None) == ("a {} here",)
    assert choose_templates(["{}", "two {}"], modality=None) == ("{}", "two {}")


@pytest.mark.parametrize("template", ["none", "{} and {}", "{name}", "{{}}", "{} {", "} {}", "{0}", 3])
def test_templates_without_exactly_one_place(template: Any) -> None:
    with pytest.raises(InputError, match=r"a template needs exactly one \{\}, .*no other braces"):
        choose_templates([template], modality=None)


@pytest.mark.parametrize(
    ("templates", "modality", "message"),
    [
        (["{}"], "CT", "give templates or a modality, not both"),
        ([], None, "templates must be at least one"),
        (None, " ", "modality must be a word, such as 'ultrasound'"),
        (None, "{}", "modality must be a word"),
        (None, 3, "modality must be a word"),
    ],
)
def test_what_is_no_choice(templates: Any, modality: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_templates(templates, modality=modality)
