"""A run under way: what it leaves, shows and draws, and that it ends where numbers do."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators import DCGAN
from genmix_transforms.generators.evolution import Evolution
from tests.generators.recorder import Recorder, run

Patches = Callable[..., PatchDataset]
TinyDCGAN = Callable[..., DCGAN]


def test_what_a_run_leaves(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)
    left = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert left == [
        "config.json",
        "model.safetensors",
        *(f"samples/{seen:012d}.png" for seen in (12, 24, 36, 40)),
        "training/checkpoint.json",
        "training/lock",
        "training/losses.jsonl",
        "training/state-000000000040.safetensors",
    ]
    losses = [json.loads(line) for line in (tmp_path / "training/losses.jsonl").read_text().splitlines()]
    assert losses == [{"images_seen": seen, "value": 1.0} for seen in (12, 24, 36, 40)]


def test_a_loss_that_is_not_finite_stops_the_run(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="value loss is nan at 12 images"):
        run(Recorder(tiny_dcgan(), loss=float("nan")), tiny_patches(), tmp_path)


def test_weights_that_are_not_finite_stop_the_run_and_keep_the_checkpoint(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    """A learning rate of 1e9 leaves the losses finite for long."""
    recorder = Recorder(tiny_dcgan())
    step = recorder.training_step

    def explode(images: torch.Tensor, labels: torch.Tensor, images_seen: int) -> Mapping[str, torch.Tensor]:
        if images_seen == 28:
            with torch.no_grad():
                next(recorder.generator.network.parameters()).fill_(torch.inf)
        return step(images, labels, images_seen)

    recorder.training_step = explode  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="a weight is no longer finite at 36 images; the last checkpoint is k"):
        run(recorder, tiny_patches(), tmp_path)
    assert json.loads((tmp_path / "training/checkpoint.json").read_text())["images_seen"] == 24
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_the_bar_says_where_the_training_stands_and_writes(
    tiny_patches: Patches,
    tiny_dcgan: TinyDCGAN,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path, progress=True)
    shown = capsys.readouterr().err.split("\r")
    assert all(str(tmp_path) in line for line in shown[1:-1] if line.strip())
    assert any("0/10" in line and "checkpoint at 3" in line for line in shown)
    assert "10/10" in shown[-1]
    assert "checkpoint at 10, value=1.000" in shown[-1]


def test_the_evolution_begins_before_the_training_and_survives_a_kill(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    patches = tiny_patches()

    def evolution() -> Evolution:
        return Evolution(patches.classes, batch_size=4)

    whole = evolution()
    run(Recorder(tiny_dcgan()), patches, tmp_path / "whole", evolution=whole)
    assert whole.images_seen == [0, 12, 24, 36, 40]
    with pytest.raises(RuntimeError, match="power cut"):
        run(Recorder(tiny_dcgan(), fail_at=28), patches, tmp_path / "broken", evolution=evolution())
    again = evolution()
    run(Recorder(tiny_dcgan()), patches, tmp_path / "broken", evolution=again)
    assert again.images_seen == whole.images_seen
    pictures = [(tmp_path / out / "evolution.png").read_bytes() for out in ("whole", "broken")]
    assert pictures[0] == pictures[1]
    drawn = tiny_dcgan().sample([0] * 8 + [1] * 8, [*range(8)] * 2)
    for number, (_, row) in enumerate(whole.rows()):
        assert torch.equal(row[0], drawn[number // 3 * 8 + number % 3])
    run(Recorder(tiny_dcgan()), patches, tmp_path / "whole", seed=1, restart=True, steps=1)
    assert not (tmp_path / "whole/evolution.png").exists()


class Scale:
    """What draws nothing, but can be saved."""

    def __init__(self) -> None:
        self.provenance: dict[str, Any] = {}

    def save_pretrained(self, folder: Path, *, overwrite: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scale.json").write_text(json.dumps(self.provenance["steps"]))


def test_what_draws_nothing_is_trained_without_sheets(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path, snapshot=Scale)
    assert (tmp_path / "scale.json").read_text() == "10"
    assert not (tmp_path / "samples").exists()
    assert (tmp_path / "training/checkpoint.json").exists()
