"""Checkpoints of guided-diffusion: recognised by shape, the same outputs, refused when something else, never run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm import ADMConfiguration, ADMUNet, NoisyClassifier
from genmix_transforms.generators.adm.configuration import OFFICIAL, OFFICIAL_CLASSIFIERS
from genmix_transforms.generators.adm.convert.guided_diffusion import (
    module_names,
    read_checkpoint,
    recognise,
    rename,
    split_projections,
)
from genmix_transforms.generators.adm.network import build_network

BASE = ADMConfiguration(
    image_size=32,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 1, 2),
    attention_resolutions=(16, 8),
    num_head_channels=16,
    learn_sigma=True,
    class_cond=True,
    num_classes=5,
    resblock_updown=True,
)
SHAPES = {
    "64": replace(
        BASE, channel_mult=(1, 2, 3), num_res_blocks=2, use_new_attention_order=True, noise_schedule="cosine"
    ),
    "128": replace(BASE, channel_mult=(1, 2, 3), num_heads=4, num_head_channels=-1),
    "256": BASE,
    "256-uncond": replace(BASE, class_cond=False),
    "512": replace(BASE, num_channels=64, channel_mult=(0.5, 1, 2)),
    "without variance": replace(BASE, learn_sigma=False, channels=1),
    "other resampling": replace(BASE, resblock_updown=False, use_scale_shift_norm=False),
    "upsampler": replace(BASE, small_size=16, num_heads=4, num_head_channels=-1),
}
"""A tiny network of the shape of each published one, and what the flags allow besides."""

Make = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_outputs_are_those_of_the_network_as_the_paper_has_it(name: str, reference: Make, file: Path) -> None:
    flags = SHAPES[name]
    network = reference(flags)
    torch.save(network.weights, file)
    checkpoint = read_checkpoint(file, configuration=flags)
    torch.manual_seed(0)
    images, times = torch.randn(3, flags.input_channels, 32, 32), torch.tensor([0, 500, 999])
    labels = torch.tensor([0, 4, 2]) if flags.class_cond else None
    expected = network.unet(images, times, labels)
    assert expected.std() > 0.3
    assert (checkpoint.network(images, times, class_labels=labels).sample - expected).abs().max() <= 1e-5
    assert checkpoint.kind == ("upsampler" if name == "upsampler" else "network")
    assert isinstance(checkpoint.network, ADMUNet) == (name in ("128", "512", "upsampler"))


@pytest.mark.parametrize("multipliers", [(1, 2), (0.5, 1, 2)])
@torch.no_grad()
def test_classifiers_too(multipliers: tuple[float, ...], reference: Make, file: Path) -> None:
    flags = replace(BASE, num_channels=64, channel_mult=multipliers, num_head_channels=32)
    network = reference(flags, classifier=True)
    torch.save(network.weights, file)
    checkpoint = read_checkpoint(file, configuration=flags)
    assert checkpoint.kind == "classifier"
    assert isinstance(checkpoint.network, NoisyClassifier)
    torch.manual_seed(0)
    images, times = torch.randn(3, 3, 32, 32), torch.tensor([0, 500, 999])
    expected = network.classifier(images, times)
    assert expected.std() > 0.1
    assert (checkpoint.network(images, times) - expected).abs().max() <= 1e-5


def test_the_other_order_of_projections_is_another_network(reference: Make, file: Path) -> None:
    network = reference(BASE)
    torch.save(network.weights, file)
    wrong = read_checkpoint(file, configuration=replace(BASE, use_new_attention_order=True)).network
    images, times, labels = torch.randn(1, 3, 32, 32), torch.tensor([500]), torch.tensor([0])
    with torch.no_grad():
        assert (
            wrong(images, times, class_labels=labels).sample - network.unet(images, times, labels)
        ).abs().max() > 0.01


def shapes_of(flags: ADMConfiguration, *, classifier: bool = False) -> dict[str, torch.Tensor]:
    """A published network's weights by the official names: shapes without contents."""
    with torch.device("meta"):
        network: nn.Module = NoisyClassifier.of(flags) if classifier else build_network(flags)
    ours = network.state_dict()
    weights = {}
    for theirs, here in module_names(flags, classifier=classifier).items():
        if theirs.endswith(".qkv"):
            there = here.replace(".qkv", ".to_q")
            weights |= {
                f"{theirs}.weight": ours[f"{there}.weight"].repeat(3, 1)[..., None],
                f"{theirs}.bias": ours[f"{there}.bias"].repeat(3),
            }
        for leaf in ("weight", "bias", "positional_embedding"):
            if f"{here}.{leaf}" in ours:
                value = ours[f"{here}.{leaf}"]
                kernel = leaf == "weight" and theirs.endswith(("proj_out", "_proj"))
                weights[f"{theirs}.{leaf}"] = value[..., None] if kernel else value
    return weights


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_published_networks_are_recognised_by_their_shapes(name: str) -> None:
    assert recognise(shapes_of(OFFICIAL[name])) == OFFICIAL[name]


@pytest.mark.parametrize("name", OFFICIAL_CLASSIFIERS)
def test_the_published_classifiers_too(name: str) -> None:
    assert recognise(shapes_of(OFFICIAL_CLASSIFIERS[name], classifier=True)) == OFFICIAL_CLASSIFIERS[name]


def test_a_published_network_of_other_classes_is_recognised() -> None:
    flags = replace(OFFICIAL["64"], num_classes=7)
    assert recognise(shapes_of(flags)) == flags


def test_a_network_that_nobody_published_needs_its_flags(reference: Make, file: Path) -> None:
    torch.save(reference(BASE).weights, file)
    with pytest.raises(
        InputError, match=r"none of the published sizes: num_channels 32, .*5 classes; give the flags .*--config"
    ):
        read_checkpoint(file)


@pytest.mark.parametrize("how", ["module.", "model.ema.", "safetensors", "old format", "half", "flags in a file"])
def test_what_a_file_may_look_like(how: str, reference: Make, file: Path, tmp_path: Path) -> None:
    flags = replace(BASE, channel_mult=(1, 2))
    weights = reference(flags).weights
    configuration: Any = flags
    if how == "safetensors":
        file = tmp_path / "model.safetensors"
        safetensors.torch.save_file(weights, file)
    elif how == "old format":
        torch.save(weights, file, _use_new_zipfile_serialization=False)
    elif how == "half":
        torch.save({name: value.half() for name, value in weights.items()}, file)
    elif how == "flags in a file":
        torch.save(weights, file)
        configuration = tmp_path / "flags.json"
        configuration.write_text(json.dumps({**flags.to_flags(), "channel_mult": "1,2", "use_fp16": "True"}))
    elif how == "model.ema.":
        torch.save({"step": 3, "model": {"ema": weights}}, file)
    else:
        torch.save({how + name: value for name, value in weights.items()}, file)
    network = read_checkpoint(file, configuration=configuration).network
    expected = weights["input_blocks.1.0.in_layers.2.weight"]
    found = network.state_dict()["down_blocks.0.resnets.0.conv1.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found, expected.half().float() if how == "half" else expected)


def test_the_weights_outlive_the_file(reference: Make, file: Path) -> None:
    weights = reference(BASE).weights
    torch.save(weights, file)
    network = read_checkpoint(file, configuration=BASE).network
    file.write_bytes(b"\0" * file.stat().st_size)
    assert torch.equal(network.conv_in.weight, weights["input_blocks.0.0.weight"])


class Touch:
    """What a hostile file would hold: an object that runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused_and_does_not_run(zipped: bool, reference: Make, file: Path, tmp_path: Path) -> None:
    hostile = {**reference(BASE).weights, "extra": Touch(tmp_path / "ran")}
    torch.save(hostile, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="holds more than tensors.*nothing in it was run"):
        read_checkpoint(file, configuration=BASE)
    assert not (tmp_path / "ran").exists()
    torch.load(file, weights_only=False)  # the file is what it is meant to be
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_short(share: float, reference: Make, file: Path) -> None:
    torch.save(reference(BASE).weights, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"model\.pt: not a (readable PyTorch file|file of PyTorch weights)"):
        read_checkpoint(file, configuration=BASE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"conv1.weight": torch.zeros(4, 3, 3, 3)}, "expected a network of OpenAI's.*found conv1.weight"),
        (lambda w: {}, "found nothing"),
        (lambda w: [1, 2], "found nothing"),
        (lambda w: {"state": {}, "param_groups": [{"lr": 1}]}, r"the state of an optimizer \(opt"),
        (lambda w: {"model": w, "ema": dict(w)}, r"several networks.*'model\.', 'ema\.'.*averaged one \(EMA\)"),
        (
            lambda w: {("module." + k if number % 2 else k): v for number, (k, v) in enumerate(w.items())},
            "several networks in one file, or two mixed",
        ),
        (lambda w: {**w, "betas": torch.zeros(1000)}, "expected a network of OpenAI's.*found betas"),
        (lambda w: {k: v for k, v in w.items() if "output_blocks.2" not in k}, r"missing \(up_blocks"),
        (lambda w: {**w, "input_blocks.9.0.op.weight": torch.zeros(1)}, "1 too many"),
        (
            lambda w: {**w, "input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3)},
            r"1 of another shape \(conv_in.weight \(32, 4, 3, 3\) instead of \(32, 3, 3, 3\)\)",
        ),
        (lambda w: {**w, "out.0.bias": torch.zeros(32, dtype=torch.int64)}, "floating-point weights.*out.0.bias"),
        (lambda w: {**w, "label_emb.weight": torch.zeros(9, 128)}, "weights of 9 classes, and the flags say 5"),
    ],
)  # fmt: skip
def test_files_that_are_something_else(change: Make, message: str, reference: Make, file: Path) -> None:
    torch.save(change(reference(BASE).weights), file)
    with pytest.raises(InputError, match=message):
        read_checkpoint(file, configuration=BASE)


def test_paths_that_are_not_there(tmp_path: Path, file: Path) -> None:
    with pytest.raises(InputError, match=r"model\.pt: no such file"):
        read_checkpoint(file)
    torch.save({}, file)
    with pytest.raises(InputError, match=r"flags\.json: no such file"):
        read_checkpoint(file, configuration=tmp_path / "flags.json")


def test_a_file_on_the_hub(reference: Make, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    torch.save(reference(BASE).weights, file)
    asked: list[tuple[str, str]] = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        if repository.startswith("no"):
            raise LocalEntryNotFoundError("not here")
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    assert read_checkpoint("owner/name/models/ema.pt", configuration=BASE).name == "owner/name/models/ema.pt"
    assert asked == [("owner/name", "models/ema.pt")]
    with pytest.raises(InputError, match=r"nobody/name/ema\.pt: no such file, and not to be had from the hub"):
        read_checkpoint("nobody/name/ema.pt", configuration=BASE)
    with pytest.raises(InputError, match=r"name/ema\.pt: no such file$"):
        read_checkpoint("name/ema.pt", configuration=BASE)


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_weight_of_the_network_has_one_name_in_the_original(name: str) -> None:
    with torch.device("meta"):
        ours = {key.rpartition(".")[0] for key in build_network(OFFICIAL[name]).state_dict()}
    names = module_names(OFFICIAL[name])
    assert len(set(names.values())) == len(names)
    projections = {
        f"{here.removesuffix('qkv')}to_{letter}" for here in names.values() for letter in "qkv" if "qkv" in here
    }
    assert ours <= set(names.values()) | projections


def test_the_names_of_256_are_as_in_its_checkpoint() -> None:
    names = module_names(OFFICIAL["256"])
    assert {key.split(".")[1] for key in names if key.startswith("input_blocks")} == {str(n) for n in range(18)}
    assert {key.split(".")[1] for key in names if key.startswith("output_blocks")} == {str(n) for n in range(18)}
    assert names["input_blocks.10.1.qkv"] == "down_blocks.3.attentions.0.qkv"
    assert names["output_blocks.2.2.in_layers.2"] == "up_blocks.0.upsamplers.0.conv1"
    assert names["output_blocks.11.1.in_layers.2"] == "up_blocks.3.upsamplers.0.conv1"
    assert names["middle_block.1.norm"] == "mid_block.attentions.0.group_norm"


@given(st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_projections_are_taken_apart_as_attention_reads_them(heads: int, size: int, new_order: bool) -> None:
    width = heads * size
    value = torch.arange(3 * width * 2).view(3 * width, 2)
    parts = split_projections(value, heads=heads, new_order=new_order)
    for kind, part in enumerate(parts):
        for head in range(heads):
            start = kind * width + head * size if new_order else head * 3 * size + kind * size
            assert torch.equal(part[head * size : (head + 1) * size], value[start : start + size])


def test_what_has_no_name_keeps_its_own_and_everything_is_copied(tiny_flags: ADMConfiguration) -> None:
    weights = {"input_blocks.0.0.weight": torch.ones(2), "input_blocks.99.0.op.bias": torch.ones(2).half()}
    renamed = rename(weights, replace(tiny_flags, class_cond=False))
    assert set(renamed) == {"conv_in.weight", "input_blocks.99.0.op.bias"}
    assert all(value.dtype == torch.float32 for value in renamed.values())
    weights["input_blocks.0.0.weight"].zero_()
    assert renamed["conv_in.weight"].all()
