"""Opening a base model: what is found, what is read, whether its parts fit, and what is refused."""

import copy
import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.generators.textual_inversion.base_model import (
    check_noise_schedule,
    check_parts,
    find_base_model,
    open_base_model,
)
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.settings import PAPER_MODEL
from tests.generators.textual_inversion.tiny_pipelines import save_ldm


def test_a_folder_is_named_by_itself_and_not_by_its_path(ldm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_base_model(ldm_folder)
    assert (source.name, source.revision, source.folder) == ("tiny-ldm", None, ldm_folder)
    monkeypatch.chdir(ldm_folder)
    assert find_base_model(".").name == "tiny-ldm"


@pytest.mark.parametrize(("name", "family"), [("ldm", "ldm"), ("stable_diffusion", "stable-diffusion")])
def test_what_is_opened(name: str, family: str, request: pytest.FixtureRequest) -> None:
    model: LatentDiffusion = request.getfixturevalue(name)
    folder = request.getfixturevalue(f"{name}_folder")
    assert model.family == family
    assert model.source == find_base_model(folder)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_another_precision(ldm_folder: Path) -> None:
    model = open_base_model(find_base_model(ldm_folder), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_opening_says_nothing(ldm_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No bars, no deprecation of an argument; and the bars of others are left as they were."""
    for logging in (diffusers_logging, transformers_logging):
        logging.enable_progress_bar()
    try:
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            open_base_model(find_base_model(ldm_folder))
        assert capfd.readouterr() == ("", "")
        assert diffusers_logging.is_progress_bar_enabled()
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        for logging in (diffusers_logging, transformers_logging):
            logging.disable_progress_bar()


def pickled(folder: Path) -> Path:
    """The base model as an older release would have saved it (transformers' newest no longer does)."""
    for file in save_ldm(folder).rglob("*.safetensors"):
        name = "pytorch_model.bin" if file.parent.name == "bert" else "diffusion_pytorch_model.bin"
        torch.save(safetensors.torch.load_file(file), file.with_name(name))
        file.unlink()
    return folder


def test_weights_that_were_pickled_by_an_older_release(ldm_folder: Path, ldm: LatentDiffusion, tmp_path: Path) -> None:
    old = pickled(tmp_path / "tiny-ldm")
    assert len(list(old.rglob("*.bin"))) == 3
    assert open_base_model(find_base_model(old)).weights_hash == ldm.weights_hash


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("unet", "diffusion_pytorch_model.bin"),
        ("vqvae", "diffusion_pytorch_model.bin"),
        ("bert", "pytorch_model.bin"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("archive", [True, False], ids=["torch.save", "pickle"])
def test_a_hostile_pickle_is_refused_and_nothing_in_it_is_run(
    part: str, file: str, archive: bool, tmp_path: Path
) -> None:
    folder, trace = pickled(tmp_path / "tiny-ldm"), tmp_path / "trace"
    weights = folder / part / file
    assert weights.exists()
    content = {"weight": torch.zeros(1), "bomb": Bomb(trace)}
    if archive:
        torch.save(content, weights)
    else:
        weights.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"the base model cannot be read .*nothing else in a file is run"):
        open_base_model(find_base_model(folder))
    assert not trace.exists()
    pickle.loads(pickle.dumps(Bomb(trace)))  # which it would have been
    assert trace.exists()


def test_code_beside_the_weights_is_not_run(ldm_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(ldm_folder, folder)
    trace = tmp_path / "trace"
    (folder / "unet" / "mine.py").write_text(f"open({str(trace)!r}, 'w')\nclass Mine: pass\n")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": ["mine", "Mine"]}))
    with pytest.raises(InputError, match="its unet is of 'mine', code that it brings along, which is not run"):
        find_base_model(folder)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"_class_name": "FluxPipeline"}', "a FluxPipeline, and embeddings can be learned for LDMTextToImage"),
        ('{"_class_name": "StableDiffusionXLPipeline"}', "a StableDiffusionXLPipeline, and"),
        ('{"_class_name": "LDMPipeline"}', "a LDMPipeline, and"),
        ("{}", "does not say what pipeline it is of"),
        ('{"_class_name": ["x"]}', r"a \['x'\], and embeddings can be learned for"),
        ("[" * 100_000, "does not say what pipeline it is of"),
        ("[]", "does not say what pipeline it is of"),
        ("{", "does not say what pipeline it is of"),
    ],
)  # fmt: skip
def test_a_pipeline_of_another_kind(index: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(InputError, match=message):
        find_base_model(tmp_path)


def test_folders_that_are_no_base_model(ldm_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"no model_index\.json: not a pipeline as diffusers saves it"):
        find_base_model(tmp_path)
    with pytest.raises(MissingPathError, match=r"base model /no/such/folder: no such folder, and not a hub id"):
        find_base_model("/no/such/folder")
    with pytest.raises(MissingPathError, match=rf"no such folder .in {tmp_path} there is no slip"):
        find_base_model(str(tmp_path / "slip"))
    with pytest.raises(InputError, match="a folder has no revisions .got 'main'.; leave the revision out"):
        find_base_model(ldm_folder, revision="main")
    broken = tmp_path / "broken"
    shutil.copytree(ldm_folder, broken)
    shutil.rmtree(broken / "unet")
    with pytest.raises(InputError, match=r"broken: the base model cannot be read"):
        open_base_model(find_base_model(broken))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on this machine: empty."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("how", ["no network", "offline"])
def test_nothing_cached_says_what_to_download_and_where_to_put_it(
    how: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", "http://127.0.0.1:9")
    with pytest.raises(MissingPathError) as caught:
        find_base_model(PAPER_MODEL, revision="main")
    said = str(caught.value)
    assert said.startswith(f"base model {PAPER_MODEL}: neither in the hub's cache on this machine nor to be had")
    assert f"hf download {PAPER_MODEL} --local-dir FOLDER; bring FOLDER here" in said
    assert said.endswith("(--base FOLDER)")


def test_a_model_in_the_hubs_cache_is_found_without_a_network(
    ldm_folder: Path, ldm: LatentDiffusion, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its revision is the commit, whatever branch was asked for."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(ldm_folder, cache / "models--somebody--tiny-ldm" / "snapshots" / commit)
    (cache / "models--somebody--tiny-ldm" / "refs").mkdir()
    (cache / "models--somebody--tiny-ldm" / "refs" / "main").write_text(commit)
    for revision in (None, "main", commit):
        source = find_base_model("somebody/tiny-ldm", revision=revision)
        assert (source.name, source.revision) == ("somebody/tiny-ldm", commit)
    assert open_base_model(source).weights_hash == ldm.weights_hash


def test_without_transformers_it_says_what_to_install(ldm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'genmix-transforms\[textual-inversion\]'"):
        open_base_model(find_base_model(ldm_folder))


@pytest.mark.parametrize("source", [None, 3, "", " "])
def test_a_source_that_is_none(source: Any) -> None:
    with pytest.raises(InputError, match="base model: expected a folder or a hub id"):
        find_base_model(source)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("bert", r"weights are not all there: .* of 1 are missing; copy the base model again"),
        ("unet", "the base model cannot be read"),
        ("vqvae", "the base model cannot be read"),
    ],
)
def test_weights_that_are_not_all_there(ldm_folder: Path, tmp_path: Path, part: str, message: str) -> None:
    """transformers fills such gaps with random numbers, and goes on."""
    folder = tmp_path / "base"
    shutil.copytree(ldm_folder, folder)
    (file,) = (folder / part).glob("*.safetensors")
    whole = file.read_bytes()
    weights = safetensors.torch.load_file(file)
    del weights[sorted(name for name in weights if not name.startswith("to_logits"))[0]]
    safetensors.torch.save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=message):
        open_base_model(find_base_model(folder))
    file.write_bytes(whole[:1000])  # a download that was cut short
    with pytest.raises(InputError, match="the base model cannot be read"):
        open_base_model(find_base_model(folder))


def changed(model: LatentDiffusion, part: str, **values: Any) -> LatentDiffusion:
    """The model with a part that says something else of itself."""
    other = copy.deepcopy(model)
    config = getattr(other, part).config
    if isinstance(config, dict):
        getattr(other, part)._internal_dict = type(config)({**config, **values})
    else:
        for name, value in values.items():
            setattr(config, name, value)
    return other


def test_the_tiny_models_are_whole(ldm: LatentDiffusion, stable_diffusion: LatentDiffusion) -> None:
    for model in (ldm, stable_diffusion):
        check_parts(model, name="tiny")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("unet", {"sample_size": [4, 4]}, r"trained on latents of \[4, 4\]; one number is expected"),
        ("unet", {"sample_size": None}, "trained on latents of None"),
        ("unet", {"in_channels": 9}, "takes 9 channels and gives 4, and its autoencoder's latents have 4"),
        ("autoencoder", {"latent_channels": 16}, "takes 4 channels and gives 4, and its autoencoder's latents have 16"),
        ("unet", {"cross_attention_dim": 24}, "states have 16 numbers, and its U-Net asks for 24"),
        ("unet", {"cross_attention_dim": (16, 24)}, r"states have 16 numbers, and its U-Net asks for \(16, 24\)"),
    ],
)
def test_parts_that_do_not_fit(ldm: LatentDiffusion, part: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^tiny: .*{message}"):
        check_parts(changed(ldm, part, **values), name="tiny")


def test_a_tokenizer_of_another_model(ldm: LatentDiffusion, stable_diffusion: LatentDiffusion) -> None:
    other = copy.deepcopy(stable_diffusion)
    other.tokenizer = copy.deepcopy(ldm.tokenizer)
    with pytest.raises(InputError, match=r"tokenizer has \d+ tokens, and its text encoder vectors for \d+"):
        check_parts(other, name="tiny")


@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "prediction_type": "sample"},
    ],
)
def test_another_kind_of_diffusion(config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"predicts epsilon or v_prediction .* came with a {config['_class_name']}"):
        check_noise_schedule(config, name="tiny")


def test_it_is_looked_at_when_a_base_model_is_opened(ldm_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(ldm_folder, folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "sample"}))
    with pytest.raises(InputError, match="base: a base model that predicts epsilon or v_prediction"):
        open_base_model(find_base_model(folder))
