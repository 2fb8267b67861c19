"""Modules by their old names: they work, and say where they are now."""

import importlib
import sys

import pytest

from genmix_transforms.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_works_and_warns(old: str) -> None:
    if "textual_inversion" in old:
        pytest.importorskip("transformers")
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {MOVED[old][0]}"):
        module = importlib.import_module(old)
    for home in MOVED[old]:
        new = importlib.import_module(home)
        for name, value in vars(new).items():
            if not name.startswith("_"):
                assert getattr(module, name) is value


def test_a_module_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"genmix_transforms.generators.adm.nothing"):
        importlib.import_module("genmix_transforms.generators.adm.nothing")


@pytest.mark.parametrize(("kind", "new"), [("adm", "ADMSettings"), ("textual_inversion", "TextualInversionSettings")])
def test_the_settings_of_a_training_have_a_name_of_their_own(kind: str, new: str) -> None:
    room = importlib.import_module(f"genmix_transforms.generators.{kind}")
    with pytest.warns(DeprecationWarning, match=f"is now called {new}"):
        assert room.TrainingSettings is getattr(room, new)
