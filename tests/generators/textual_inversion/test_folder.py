"""The folder: one file that is loaded, the same once more for diffusers, and the base model that it was learned for."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError, OverwriteError
from genmix_transforms.generators import TextualInversion, load_generator
from genmix_transforms.generators.folder import WEIGHTS, read_weights
from genmix_transforms.generators.textual_inversion import folder as folder_module
from genmix_transforms.generators.textual_inversion.base_model import find_base_model
from genmix_transforms.generators.textual_inversion.folder import load_learned, save_learned
from genmix_transforms.generators.textual_inversion.network import BaseSource, LatentDiffusion
from tests.generators.textual_inversion.tiny_generators import make_ti
from tests.generators.textual_inversion.tiny_pipelines import save_ldm


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_stands_where(ldm: LatentDiffusion, ldm_folder: Path, tmp_path: Path) -> None:
    generator = make_ti(ldm)
    generator.provenance = {"steps": 3}
    generator.save_pretrained(tmp_path)
    assert sorted(files_below(tmp_path)) == [
        "base_model.json",
        "config.json",
        "cyst/learned_embeds.safetensors",
        "metastasis/learned_embeds.safetensors",
        "model.safetensors",
    ]
    assert json.loads((tmp_path / "base_model.json").read_text()) == {"folder": str(ldm_folder.resolve())}
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    assert config["tokens"] == {"cyst": "<cyst>", "metastasis": "<metastasis>"}
    assert config["base"]["name"] == "tiny-ldm"
    assert config["base"]["weights"] == f"sha256:{ldm.weights_hash}"
    paths = {name for name, content in files_below(tmp_path).items() if str(ldm_folder.parent).encode() in content}
    assert paths == {"base_model.json"}
    assert load_generator(tmp_path).provenance == {"steps": 3}
    with pytest.raises(OverwriteError, match="holds a generator already"):
        generator.save_pretrained(tmp_path)
    before = files_below(tmp_path)
    generator.save_pretrained(tmp_path, overwrite=True)
    assert files_below(tmp_path) == before


def test_diffusers_opens_a_classs_folder_and_reads_the_same_prompt(
    stable_diffusion: LatentDiffusion, stable_diffusion_folder: Path, tmp_path: Path
) -> None:
    generator = make_ti(stable_diffusion, vectors=3, classes=["cyst", "Basal cell"])
    generator.save_pretrained(tmp_path)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder, safety_checker=None)
    for name in generator.classes:
        pipeline.load_textual_inversion(tmp_path / name)
    for name, context in zip(generator.classes, generator.contexts(), strict=True):
        prompt = generator.prompt.replace("{}", generator.config["tokens"][name])
        with torch.no_grad():
            theirs, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
        assert torch.allclose(theirs[0], context, atol=1e-6)


def test_adapters_stand_beside_and_go_with_the_generator(ldm: LatentDiffusion, tmp_path: Path) -> None:
    rows = {"a": torch.randn(2, 4), "b": torch.randn(1, 4)}
    adapters = {"unet.x.lora_A.weight": torch.randn(2, 4)}
    save_learned(tmp_path, rows, adapters, provenance={"a": 1})
    embeddings, found, provenance = load_learned(tmp_path)
    assert all(torch.equal(embeddings[name], rows[name]) for name in rows)
    assert found.keys() == adapters.keys()
    assert provenance == read_weights(tmp_path / WEIGHTS)[1] == {"a": 1}
    (file,) = (tmp_path / "unet_lora").iterdir()
    assert file.name == "pytorch_lora_weights.safetensors"
    assert torch.equal(safetensors.torch.load_file(file)["unet.x.lora_A.weight"], adapters["unet.x.lora_A.weight"])
    save_learned(tmp_path, {"b": rows["b"]}, {}, provenance={})
    assert not (tmp_path / "unet_lora").exists()
    assert not (tmp_path / "a" / "learned_embeds.safetensors").exists()  # of a class that is no longer there
    assert (tmp_path / "b" / "learned_embeds.safetensors").exists()


def test_files_of_others_stay(tmp_path: Path) -> None:
    theirs = [tmp_path / "ti_cyst" / "learned_embeds.safetensors", tmp_path / "unet_lora" / "notes.txt"]
    for file in theirs:
        file.parent.mkdir()
        file.write_text("mine")
    save_learned(tmp_path, {"a": torch.randn(1, 4), "b": torch.randn(1, 4)}, {}, provenance={})
    save_learned(tmp_path, {"b": torch.randn(1, 4)}, {}, provenance={})
    assert [file.read_text() for file in theirs] == ["mine", "mine"]
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()


def test_a_save_that_is_killed_leaves_vectors_and_provenance_of_one_moment(
    ldm: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_ti(ldm), make_ti(ldm)
    first.provenance, second.provenance = {"steps": 1}, {"steps": 2}
    second = second.with_embeddings({name: rows + 1 for name, rows in second.embeddings.items()})
    moments = {1: first.embeddings, 2: second.embeddings}
    first.save_pretrained(tmp_path)
    write = folder_module.write_weights
    for kill_before in (1, 0):  # the copies for diffusers, then the file itself
        calls: list[Path] = []

        def kill(path: Path, *args: Any, calls: list[Path] = calls, last: int = kill_before, **options: Any) -> None:
            if len(calls) == last:
                raise KeyboardInterrupt
            calls.append(path)
            write(path, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(folder_module, "write_weights", kill)
            patch.setattr(folder_module, "save_embeddings", kill)
            with pytest.raises(KeyboardInterrupt):
                (second if kill_before else first).save_pretrained(tmp_path, overwrite=True)
        loaded = load_generator(tmp_path)
        assert loaded.provenance == {"steps": 2}
        expected = moments[loaded.provenance["steps"]]
        assert all(torch.equal(loaded.embeddings[name], rows) for name, rows in expected.items())  # type: ignore[attr-defined]


def test_folders_that_are_not_whole(ldm: LatentDiffusion, tmp_path: Path) -> None:
    generator = make_ti(ldm)
    generator.save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, content = weights.read_bytes(), json.loads(config.read_text())
    weights.write_bytes(whole[:50])
    with pytest.raises(InputError, match=r"model\.safetensors: not a whole safetensors file"):
        load_generator(tmp_path)
    damaged = bytearray(whole)
    damaged[-3] ^= 1  # one bit of the last vector
    weights.write_bytes(damaged)
    with pytest.raises(CorruptFileError, match=r"model\.safetensors: damaged: .*its checksum differs"):
        load_generator(tmp_path)
    weights.unlink()
    with pytest.raises(MissingPathError, match=r"no such file; .* has a config\.json but no weights"):
        load_generator(tmp_path)
    weights.write_bytes(whole)
    other = {**content["config"], "classes": ["cyst", "normal"]}
    config.write_text(json.dumps({**content, "config": other}))
    with pytest.raises(
        InputError, match=r"config\.json: the tokens are .*'<metastasis>'.*the classes \['cyst', 'normal'\]"
    ):
        load_generator(tmp_path)
    other["tokens"] = {"cyst": "<cyst>", "normal": "<normal>"}
    config.write_text(json.dumps({**content, "config": other}))
    with pytest.raises(
        InputError, match="embeddings must be for the classes cyst, normal; got them for cyst, metastasis"
    ):
        load_generator(tmp_path)


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

    monkeypatch.setattr(folder_module, "find_base_model", find)
    loaded = load_generator(tmp_path / "run")
    assert asked == [("somebody/tiny", "0123abc")]
    assert loaded.config == generator.config
    assert torch.equal(loaded.sample([0], [1]), generator.sample([0], [1]))
