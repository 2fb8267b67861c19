"""``genmix train``: commands made from settings; one field is a whole option."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from genmix_transforms.generators import DCGAN, kinds, load_generator, registry
from genmix_transforms.generators.dcgan.settings import DCGANSettings
from genmix_transforms.settings import option

Genmix = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class ToySettings(DCGANSettings):
    """A DCGAN's, and one more."""

    jump: float = option(0.5, help="How high it jumps.", least=0, most=2)


class Toy(DCGAN):
    """A generator with an option of its own, of which nothing else in the package knows."""

    kind = "toy"
    training_settings = ToySettings


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "toy"

        @staticmethod
        def load() -> Any:
            return Toy

    for module in (registry, kinds):
        monkeypatch.setattr(module, "entry_points", lambda group: [Entry()])


def run(genmix: Genmix, data: Path, out: Path, *options: object) -> Any:
    tiny = ["--size", 16, "--steps", 2, "--batch-size", 4, "--base-width", 2, "--device", "cpu"]
    return genmix("-q", "train", "toy", "--data", data, "--out", out, *tiny, *options)


def test_one_field_is_an_option_of_the_command_the_checks_the_provenance_and_the_table(
    toy: None, genmix: Genmix, discs: Path, tmp_path: Path
) -> None:
    assert "How high it jumps. (default: 0.5)" in genmix("train", "toy", "--help").out
    refused = run(genmix, discs, tmp_path / "run", "--jump", 3)
    assert (refused.code, refused.err.splitlines()[-1]) == (
        2,
        "genmix: Toy.fit: jump must be from 0 to 2, got 3.0",
    )
    assert not (tmp_path / "run").exists()
    assert run(genmix, discs, tmp_path / "run", "--jump", 1.5).code == 0
    provenance = load_generator(tmp_path / "run").provenance
    assert provenance["settings"]["jump"] == provenance["options"]["jump"] == 1.5
    assert "| `jump` | How high it jumps. | from 0 to 2 | 0.5 |" in ToySettings.table()
    # It is part of the run: going on with another value is refused.
    assert "options.jump: 1.5 there, 0.5 now" in run(genmix, discs, tmp_path / "run").err


def test_a_run_from_before_an_option_was_there_goes_on_with_its_default(
    toy: None, genmix: Genmix, discs: Path, tmp_path: Path
) -> None:
    assert run(genmix, discs, tmp_path / "run").code == 0
    record = tmp_path / "run/training/checkpoint.json"
    before = json.loads(record.read_text())
    del before["options"]["jump"]
    record.write_text(json.dumps(before))
    assert run(genmix, discs, tmp_path / "run", "--steps", 3).code == 0
    record.write_text(json.dumps(before))
    assert "options.jump: 0.5 there, 1.0 now" in run(genmix, discs, tmp_path / "run", "--jump", 1).err


def test_what_a_dry_run_prints_trains_the_same(toy: None, genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    options = ["--jump", 1, "--augment", "none", "--set", "latent_size=8", "--mixed-precision", "bf16"]
    dry = run(genmix, discs, tmp_path / "dry", *options, "--dry-run")
    assert dry.code == 0, dry.err
    assert not (tmp_path / "dry").exists()  # nothing was written
    assert "s a step); memory about" in dry.out
    settings = yaml.safe_load(dry.out)
    assert (settings["jump"], settings["augment"], settings["latent_size"]) == (1.0, [], 8)
    assert settings["learning_rate"] == 0.0002  # the preset's
    (tmp_path / "run.yaml").write_text(dry.out)
    outcome = genmix("-q", "train", "toy", "--config", tmp_path / "run.yaml", "--out", tmp_path / "fed")
    assert outcome.code == 0, outcome.err
    assert run(genmix, discs, tmp_path / "typed", *options).code == 0
    fed, typed = (load_generator(tmp_path / name) for name in ("fed", "typed"))
    assert fed.provenance == typed.provenance
    assert fed.weights_hash == typed.weights_hash


def test_a_dry_run_refuses_what_the_run_would(toy: None, genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    assert run(genmix, discs, tmp_path / "run").code == 0
    refused = run(genmix, discs, tmp_path / "run", "--seed", 4, "--dry-run")
    assert refused.code == 2
    assert "holds a run with other settings (seed: 0 there, 4 now)" in refused.err


def test_what_the_weights_fix_is_refused_if_asked_otherwise(genmix: Genmix, discs: Path, tmp_path: Path) -> None:
    tiny = ["--data", discs, "--size", 16, "--steps", 2, "--batch-size", 4, "--device", "cpu"]
    assert genmix("-q", "train", "dcgan", *tiny, "--base-width", 2, "--out", tmp_path / "first").code == 0
    more = ["--init", tmp_path / "first", "--out", tmp_path / "second"]
    refused = genmix("-q", "train", "dcgan", *tiny, *more, "--base-width", 4)
    assert refused.code == 2
    assert "its weights have base_width 2, and 4 was asked for; leave base_width out" in refused.err
    assert not (tmp_path / "second").exists()
    assert genmix("-q", "train", "dcgan", *tiny, *more).code == 0
    assert "started_from" in load_generator(tmp_path / "second").provenance


def test_unknown_kinds_and_those_there_are(genmix: Genmix) -> None:
    assert genmix("train", "gan").code == 2
    for kind in ("adm", "adm-classifier", "dcgan", "stylegan", "textual-inversion"):
        assert kind in genmix("train", "--help").out
