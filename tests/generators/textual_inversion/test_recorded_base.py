"""How the base model of a generator is found again, and told from others."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.generators import TextualInversion, load_generator
from genmix_transforms.generators.textual_inversion import recorded_base
from genmix_transforms.generators.textual_inversion.base_model import BaseSource, find_base_model
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion
from tests.generators.textual_inversion.tiny_generators import make_ti
from tests.generators.textual_inversion.tiny_pipelines import save_ldm


@pytest.fixture
def moved(ldm_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A generator's folder, and its base model's, which has moved since."""
    shutil.copytree(ldm_folder, tmp_path / "before")
    generator = TextualInversion(classes=["cyst"], base=tmp_path / "before", resolution=16, sampler={"steps": 1})
    generator.save_pretrained(tmp_path / "run")
    shutil.move(tmp_path / "before", tmp_path / "after")
    return tmp_path / "run", tmp_path / "after"


def test_a_base_model_that_is_where_it_was(ldm_folder: Path, tmp_path: Path) -> None:
    generator = TextualInversion(classes=["cyst"], base=ldm_folder, resolution=16, sampler={"steps": 1})
    generator.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert loaded.weights_hash == generator.weights_hash
    assert loaded.config == generator.config


def test_a_base_model_that_has_moved(moved: tuple[Path, Path]) -> None:
    run, base = moved
    with pytest.raises(
        MissingPathError, match=r"learned for the base model before, which is no longer at .*before; .*--ba"
    ):
        load_generator(run)
    loaded = load_generator(run, base=base)
    assert loaded.config["base"]["name"] == "before"  # a bank begun on one machine goes on upon another
    assert "after" not in json.dumps(loaded.describe())
    (run / "base_model.json").unlink()
    with pytest.raises(MissingPathError, match="before, and nothing says where that is; say where it is: base=FOLDER"):
        load_generator(run)
    (run / "base_model.json").write_text("{")
    with pytest.raises(InputError, match=r"base_model\.json: not readable .*--base FOLDER"):
        load_generator(run)


def test_one_that_was_opened_already(moved: tuple[Path, Path], ldm: LatentDiffusion) -> None:
    loaded = TextualInversion.from_pretrained(moved[0], base=ldm)
    assert loaded.model is ldm


def test_another_base_model(moved: tuple[Path, Path], tmp_path: Path) -> None:
    run, base = moved
    other = save_ldm(tmp_path / "other", seed=1)
    with pytest.raises(
        InputError, match=r"learned for the base model before, and the one at .*other has other weights .sha"
    ):
        load_generator(run, base=other)
    scheduler = base / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("epsilon", "v_prediction"))
    with pytest.raises(InputError, match=r"has another noise schedule .*'v_prediction'.*'epsilon'.* is expected"):
        load_generator(run, base=base)


def test_all_that_a_sampler_reads_of_the_schedule_is_held_to_the_record(moved: tuple[Path, Path]) -> None:
    run, base = moved
    file = base / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "timestep_spacing": "trailing", "steps_offset": 0}))
    with pytest.raises(
        InputError,
        match=r"\(timestep_spacing 'trailing', where 'leading' is expected, steps_offset 0, where 1 is expected\); say",
    ):
        load_generator(run, base=base)


def test_a_record_that_is_not_whole(moved: tuple[Path, Path]) -> None:
    run, base = moved
    config = json.loads((run / "config.json").read_text())
    del config["config"]["base"]["weights"]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json does not say which base model it was learned for"):
        load_generator(run, base=base)


def test_a_model_of_the_hub_is_asked_for_at_its_commit(
    ldm: LatentDiffusion, ldm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = make_ti(ldm)
    generator.base = BaseSource(name="somebody/tiny", revision="0123abc", folder=tmp_path / "cache")
    generator.save_pretrained(tmp_path / "run")
    asked = []

    def find(source: object, *, revision: str | None = None) -> BaseSource:
        asked.append((source, revision))
        return find_base_model(ldm_folder)

    monkeypatch.setattr(recorded_base, "find_base_model", find)
    loaded = load_generator(tmp_path / "run")
    assert asked == [("somebody/tiny", "0123abc")]
    assert loaded.config == generator.config
    assert torch.equal(loaded.sample([0], [1]), generator.sample([0], [1]))
