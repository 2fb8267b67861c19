"""Generators by their kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.generators import DCGAN, PerClass, kinds, registry
from genmix_transforms.generators.registry import generator_class, load_generator


def test_the_kinds_there_are() -> None:
    assert generator_class("dcgan") is DCGAN
    assert generator_class("per-class") is PerClass


@pytest.mark.parametrize("kind", ["gan", "os", "base", "generators.dcgan", "../dcgan", "", "randomness"])
def test_a_config_cannot_have_anything_else_imported(kind: str) -> None:
    with pytest.raises(InputError, match="no generator of kind .*; there are .*dcgan, per-class"):
        generator_class(kind)


def test_an_entry_point_adds_a_kind(
    monkeypatch: pytest.MonkeyPatch, tiny_dcgan: Callable[..., DCGAN], tmp_path: Path
) -> None:
    class Foreign(DCGAN):
        kind = "foreign"

    class Entry:
        name = "foreign"

        @staticmethod
        def load() -> Any:
            return Foreign

    monkeypatch.setattr(registry, "entry_points", lambda group: [Entry()])
    monkeypatch.setattr(kinds, "entry_points", lambda group: [Entry()])
    with pytest.raises(InputError, match="there are .*dcgan, foreign, per-class"):
        generator_class("nothing")
    tiny_dcgan().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "kind": "foreign"}))
    assert isinstance(load_generator(tmp_path), Foreign)


def test_a_base_model_for_a_generator_that_stands_by_itself(tiny_dcgan: Callable[..., DCGAN], tmp_path: Path) -> None:
    tiny_dcgan().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"a dcgan generator has no base model; leave base \(somewhere\) out"):
        load_generator(tmp_path, base="somewhere")
