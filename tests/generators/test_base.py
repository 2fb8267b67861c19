"""Saving, loading and refusing generators."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError, OverwriteError
from genmix_transforms.generators import DCGAN, load_generator

TinyDCGAN = Callable[..., DCGAN]


def test_a_saved_generator_draws_the_same(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    generator = tiny_dcgan(bits=16)
    generator.provenance = {"training_set": {"class_counts": {"cyst": 3, "metastasis": 4}}}
    generator.save_pretrained(tmp_path / "run")
    loaded = DCGAN.from_pretrained(tmp_path / "run")
    assert loaded.config == generator.config
    assert loaded.provenance == generator.provenance
    assert torch.equal(loaded.sample([0, 1], [3, 3]), generator.sample([0, 1], [3, 3]))
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["config.json", "model.safetensors"]


def test_the_same_weights_make_the_same_file(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    for name in ("one", "two"):
        tiny_dcgan().save_pretrained(tmp_path / name)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_the_description_names_the_weights(tiny_dcgan: TinyDCGAN) -> None:
    description = tiny_dcgan().describe()
    assert description["kind"] == "dcgan"
    assert description["weights"] == f"sha256:{tiny_dcgan().weights_hash}"
    assert json.loads(json.dumps(description)) == description


def test_nothing_is_overwritten_unless_told(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    tiny_dcgan().save_pretrained(tmp_path)
    with pytest.raises(OverwriteError, match="holds a generator already; give another folder, or overwrite=True"):
        tiny_dcgan().save_pretrained(tmp_path)
    tiny_dcgan(base_width=2).save_pretrained(tmp_path, overwrite=True)
    assert DCGAN.from_pretrained(tmp_path).settings.base_width == 2


def test_a_hub_repository_is_a_folder(tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_dcgan().save_pretrained(tmp_path / "snapshot")
    asked: list[tuple[str, str | None]] = []

    def snapshot_download(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision))
        assert "*.safetensors" in allow_patterns  # never a pickle
        assert not any("bin" in pattern or "pt" in pattern for pattern in allow_patterns)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load_generator("lab/liver-dcgan", revision="v1").classes == ("cyst", "metastasis")
    assert asked == [("lab/liver-dcgan", "v1")]


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(MissingPathError, match="lab/liver-dcgan: no such folder, and not to be had from the hub"):
        load_generator("lab/liver-dcgan")


def test_a_slip_in_a_local_path_does_not_ask_the_hub(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_dcgan().save_pretrained("runs/mine")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(MissingPathError, match=r"runs/mien: no such folder \(in runs there is no mien\)"):
        load_generator("runs/mien")


def test_what_is_no_generator_is_refused(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="runs/a/b/c: no such folder, and not a hub id"):
        load_generator("runs/a/b/c")
    with pytest.raises(
        MissingPathError, match=r"no config.json: not a generator, or one whose training has not reached"
    ):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not readable JSON"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(InputError, match="expected the keys 'kind' and 'config'"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "dcgan", "format_version": 99, "config": {}}')
    with pytest.raises(InputError, match="format version 99; this release reads 1"):
        load_generator(tmp_path)


def test_weights_that_do_not_fit_are_refused(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    tiny_dcgan().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    safetensors.torch.save_file(tiny_dcgan(base_width=2).network.state_dict(), weights)
    with pytest.raises(InputError, match=r"not the weights that config.json describes"):
        load_generator(tmp_path)
    weights.write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"model.safetensors: not a whole safetensors file"):
        load_generator(tmp_path)
    weights.unlink()
    with pytest.raises(MissingPathError, match="has a config.json but no weights"):
        load_generator(tmp_path)


def test_one_flipped_bit_in_the_weights_is_said(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    tiny_dcgan().save_pretrained(tmp_path)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-5] ^= 4
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptFileError, match="damaged: not the bytes that were written"):
        load_generator(tmp_path)


def test_another_kind_is_refused_by_from_pretrained(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    tiny_dcgan().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "kind": "per-class"}))
    with pytest.raises(InputError, match="a per-class generator, not a dcgan; load_generator takes any kind"):
        DCGAN.from_pretrained(tmp_path)
