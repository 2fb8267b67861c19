"""Whole trainings: exact resume, fine-tuning, what a run leaves, and everything that is refused before it starts."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import ADM, load_generator
from genmix_transforms.generators.adm import fitting
from genmix_transforms.generators.adm.training import ADMTraining

TinyADM = Callable[..., ADM]
Patches = Callable[..., PatchDataset]
pytestmark = pytest.mark.filterwarnings("ignore:very few images")


def adm(tiny_adm: TinyADM, **options: Any) -> ADM:
    """Of 8 pixels: a step takes some hundredths of a second."""
    smaller = {"image_size": 8, "channel_mult": [1, 1], "attention_resolutions": [4]}
    flags = {**tiny_adm().configuration.to_flags(), **smaller, "dropout": 0.1, "diffusion_steps": 20}
    return ADM(classes=("cyst", "metastasis"), configuration=flags, sampler={"steps": 2, "batch_size": 8}, **options)


@pytest.fixture
def discs(tiny_patches: Callable[..., PatchDataset]) -> Patches:
    return lambda **options: tiny_patches(**{"size": 8, **options})


def fit(generator: ADM, patches: PatchDataset, out: Path, **options: Any) -> ADM:
    defaults = {"steps": 6, "batch_size": 4, "checkpoint_every": 8, "device": "cpu", "progress": False}
    return generator.fit(patches, out=out, **{**defaults, **options})


def test_what_a_run_leaves(tiny_adm: TinyADM, discs: Patches, tmp_path: Path) -> None:
    trained = fit(adm(tiny_adm), discs(), tmp_path / "run")
    left = sorted(str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert left == [
        "config.json",
        "evolution.png",
        *(f"samples/{seen:012d}.png" for seen in (8, 16, 24)),
        "scheduler/scheduler_config.json",
        "training/checkpoint.json",
        "training/losses.jsonl",
        "training/state-000000000024.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    loaded = load_generator(tmp_path / "run")
    assert isinstance(loaded, ADM)
    assert loaded.weights_hash == trained.weights_hash
    assert torch.equal(loaded.sample([0, 1], [7, 8]), trained.sample([0, 1], [7, 8]))
    assert loaded.provenance == trained.provenance
    assert loaded.provenance["steps"] == 6
    assert loaded.provenance["options"]["ema_decay"] == 0.9999
    assert loaded.provenance["training_set"]["class_counts"] == {"cyst": 12, "metastasis": 12}
    lines = [json.loads(line) for line in (tmp_path / "run/training/losses.jsonl").read_text().splitlines()]
    assert [line.keys() for line in lines] == [{"images_seen", "mse", "bits_per_dim"}] * 3
    # Two classes of three seeds; before the training, and three checkpoints: 96 pixels each, and 2 between.
    width, height = Image.open(tmp_path / "run/evolution.png").size
    assert height == 24 + 6 * 98
    assert 4 * 98 < width < 5.5 * 98


@pytest.mark.parametrize("timesteps", ["uniform", "loss-second-moment"])
def test_a_stopped_run_goes_on_bit_for_bit(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, timesteps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"timesteps": timesteps, "mirror": True, "label_dropout": 0.2}
    whole = fit(adm(tiny_adm, null_class=True), discs(), tmp_path / "whole", **options)

    step = ADMTraining.training_step

    def power_cut(self: ADMTraining, images: torch.Tensor, labels: torch.Tensor, images_seen: int) -> Any:
        if images_seen == 12:
            raise RuntimeError("power cut")
        return step(self, images, labels, images_seen)

    with monkeypatch.context() as patch:
        patch.setattr(ADMTraining, "training_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            fit(adm(tiny_adm, null_class=True), discs(), tmp_path / "broken", **options)
    again = fit(adm(tiny_adm, null_class=True), discs(), tmp_path / "broken", **options)
    assert again.weights_hash == whole.weights_hash
    for name in ("evolution.png", "samples/000000000024.png", "training/losses.jsonl"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    states = [next((tmp_path / run / "training").glob("state-*")).read_bytes() for run in ("whole", "broken")]
    assert states[0] == states[1]


def test_another_seed_is_another_network_and_another_run_is_refused(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path
) -> None:
    first = fit(adm(tiny_adm), discs(), tmp_path / "run", steps=2)
    with pytest.raises(InputError, match=r"holds a run with other settings \(seed: 0 there, 5 now\)"):
        fit(adm(tiny_adm), discs(), tmp_path / "run", steps=2, seed=5)
    with pytest.raises(InputError, match=r"options.mirror: False there, True now"):
        fit(adm(tiny_adm), discs(), tmp_path / "run", steps=2, mirror=True)
    other = fit(adm(tiny_adm), discs(), tmp_path / "run", steps=2, seed=5, restart=True)
    assert other.weights_hash != first.weights_hash


def test_fine_tuning_starts_from_the_weights(tiny_adm: TinyADM, discs: Patches, tmp_path: Path) -> None:
    first = fit(adm(tiny_adm), discs(), tmp_path / "first", steps=2)
    images = {}
    draw = fitting.Evolution.add

    def keep(self: Any, images_seen: int, drawn: Any) -> None:
        images[images_seen] = [some.clone() for some in drawn]
        draw(self, images_seen, drawn)

    adapted = first.adapt(classes=("metastasis", "cyst"))
    patches = discs(classes=("metastasis", "cyst"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting.Evolution, "add", keep)
        tuned = fit(adapted, patches, tmp_path / "tuned", steps=2, warm_start=True, learning_rate=1e-12)
    # The first column of the evolution is what it drew before the training; a rate of nothing changes nothing.
    assert torch.equal(images[0][0], first.sample([1] * 8, list(range(8))))
    assert torch.equal(images[0][1], images[8][1])
    assert tuned.provenance["started_from"]["adapted_from"]["steps"] == 2
    # The weights have seen both training sets.
    fingerprints = [first.provenance["training_set"]["fingerprint"], patches.fingerprint]
    assert tuned.provenance["training_set"]["fingerprint"] == "+".join(fingerprints)
    fine_tuned = tuned.weights_hash
    scratch = fit(tuned, patches, tmp_path / "scratch", steps=2)  # weights of its own, unless told otherwise
    assert "started_from" not in scratch.provenance
    assert scratch.weights_hash != fine_tuned


@pytest.mark.parametrize("tune", ["attention", "lora"])
def test_tuning_a_part_resumes_and_saves_a_plain_network(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, tune: str
) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    start = adm(tiny_adm)
    with torch.no_grad():
        for parameter in start.network.parameters():
            parameter.add_(0.02)
    options = {"tune": tune, "warm_start": True, "lora_rank": 2, "learning_rate": 0.01}

    def tuned(out: str, steps: int) -> ADM:
        return fit(start.with_network(start.network), discs(), tmp_path / out, steps=steps, **options)

    whole = tuned("whole", 4)
    tuned("broken", 2)
    assert tuned("broken", 4).weights_hash == whole.weights_hash
    loaded = load_generator(tmp_path / "whole")
    before, after = start.network.state_dict(), loaded.network.state_dict()
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("to_q.weight" in name for name in moved)
    assert not any("resnets" in name for name in moved)


def test_fit_leaves_the_generators_network_whole_when_it_fails(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = adm(tiny_adm)
    before = generator.weights_hash

    def power_cut(*_: object) -> Any:
        raise RuntimeError("power cut")

    monkeypatch.setattr(ADMTraining, "training_step", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(generator, discs(), tmp_path / "run", seed=3)
    assert generator.weights_hash == before


def test_the_estimate_is_logged_before_the_training(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "genmix_transforms")
    plain = fit(adm(tiny_adm), discs(), tmp_path / "said", steps=2)
    said = [record.getMessage() for record in caplog.records]
    assert "million of them trained; memory about" in said[0]
    assert "2 steps take about" in said[0]
    caplog.set_level(logging.WARNING, "genmix_transforms")
    assert fit(adm(tiny_adm), discs(), tmp_path / "unsaid", steps=2).weights_hash == plain.weights_hash


def test_the_average_on_the_cpu_is_the_same(tiny_adm: TinyADM, discs: Patches, tmp_path: Path) -> None:
    beside = fit(adm(tiny_adm), discs(), tmp_path / "beside", steps=2)
    apart = fit(adm(tiny_adm), discs(), tmp_path / "apart", steps=2, ema_device="cpu")
    assert apart.weights_hash == beside.weights_hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 25}, r"discs has 24 images, fewer than a batch of 25; give a batch size .* of at most 24"),
        ({"batch_size": 4, "accumulate": 5}, "a batch of 4 cannot be shared into 5 parts in each of 1 processes"),
        ({"tune": "attention"}, "adapts a network that knows images already: give warm_start=True"),
        ({"label_dropout": 0.1}, 'needs a network with a row for "no class"'),
        ({"seed": -1}, "seed must be a whole number"),
        ({"dropout": 0.1}, "ADM.fit: no such option: dropout"),
    ],
)
def test_what_cannot_work_is_refused_before_any_file_is_written(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(adm(tiny_adm), discs(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 20}, "made for 1 x 8 x 8 torch.uint8 images, the data has 1 x 20 x 20"),
        ({"channels": 3}, "the data has 3 x 8 x 8"),
        (
            {"classes": ("cyst", "hemangioma", "metastasis")},
            "made for the classes cyst, metastasis, the data has cyst, h",
        ),
    ],
)
def test_data_of_another_kind_is_refused(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(adm(tiny_adm), discs(**change), tmp_path / "run")
