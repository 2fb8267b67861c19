"""The training loop: exact resume after a real kill, refusals, sheets, losses, several processes."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import DCGAN
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.training import train

Patches = Callable[..., PatchDataset]
TinyDCGAN = Callable[..., DCGAN]


class Recorder:
    """A trainee that learns nothing and remembers what it was given."""

    def __init__(self, generator: DCGAN, *, fail_at: int | None = None, loss: float = 1.0) -> None:
        self.generator = generator
        self.steps: list[tuple[int, list[int], float]] = []
        self.fail_at = fail_at
        self.loss = loss

    def state_objects(self) -> Mapping[str, Any]:
        return {"network": self.generator.network}

    def training_step(self, images: torch.Tensor, labels: torch.Tensor, images_seen: int) -> Mapping[str, torch.Tensor]:
        if self.fail_at == images_seen:
            raise RuntimeError("power cut")
        self.steps.append((images_seen, labels.tolist(), float(torch.rand(()))))
        self.last_images = images
        return {"value": torch.tensor(self.loss)}


def run(trainee: Recorder, patches: PatchDataset, out: Path, **options: Any) -> None:
    defaults = {"steps": 10, "batch_size": 4, "seed": 0, "options": {}, "checkpoint_every": 12, "progress": False}
    train(trainee, patches, out=out, **{"snapshot": lambda: trainee.generator, **defaults, **options})


def test_images_labels_and_order(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    recorder = Recorder(tiny_dcgan())
    run(recorder, tiny_patches(), tmp_path, steps=6)
    assert [seen for seen, _, _ in recorder.steps] == [0, 4, 8, 12, 16, 20]
    # 24 images of two equally large classes in 6 steps of 4: every image once.
    assert sorted(label for _, labels, _ in recorder.steps for label in labels) == [0] * 12 + [1] * 12
    assert recorder.last_images.dtype == torch.float32
    assert -1 <= recorder.last_images.min() < recorder.last_images.max() <= 1


def test_a_broken_run_goes_on_with_the_same_data_and_randomness(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    whole = Recorder(tiny_dcgan())
    run(whole, tiny_patches(), tmp_path / "whole")
    first = Recorder(tiny_dcgan(), fail_at=28)
    with pytest.raises(RuntimeError, match="power cut"):
        run(first, tiny_patches(), tmp_path / "broken")
    second = Recorder(tiny_dcgan())
    run(second, tiny_patches(), tmp_path / "broken")
    assert second.steps[0][0] == 24  # the last checkpoint before 28
    assert first.steps[:6] + second.steps == whole.steps
    losses = (tmp_path / "broken/training/losses.jsonl").read_text()
    assert losses == (tmp_path / "whole/training/losses.jsonl").read_text()


def test_a_trainee_may_be_shown_something_else_than_pixels(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    plain, other = Recorder(tiny_dcgan()), Recorder(tiny_dcgan())
    shown: list[list[int]] = []
    patches = tiny_patches()
    run(plain, patches, tmp_path / "plain", steps=6)

    def inputs(index: torch.Tensor) -> torch.Tensor:
        assert index.dtype == torch.int64
        shown.append(index.tolist())
        return index + 100

    run(other, patches, tmp_path / "other", steps=6, inputs=inputs)
    assert other.steps == plain.steps  # the same images, order and random numbers
    assert sorted(place for some in shown for place in some) == list(range(24))
    assert [patches.labels[some].tolist() for some in shown] == [labels for _, labels, _ in other.steps]
    assert other.last_images.tolist() == [place + 100 for place in shown[-1]]


def test_the_users_random_numbers_are_left_alone(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    recorder = Recorder(tiny_dcgan())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(recorder, tiny_patches(), tmp_path)
    assert torch.equal(torch.rand(3), expected)


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


def test_a_finished_run_stays_finished_and_can_be_lengthened(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)
    again = Recorder(tiny_dcgan())
    run(again, tiny_patches(), tmp_path)
    assert again.steps == []
    longer = Recorder(tiny_dcgan())
    run(longer, tiny_patches(), tmp_path, steps=12)
    assert [seen for seen, _, _ in longer.steps] == [40, 44]


def test_fewer_steps_than_are_done_are_refused(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)
    with pytest.raises(InputError, match="has taken 10 steps already, and 6 were asked for; give --steps 10 or more"):
        run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path, steps=6)


def test_a_killed_restart_does_not_leave_the_old_generator(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)
    with pytest.raises(RuntimeError, match="power cut"):
        run(Recorder(tiny_dcgan(), fail_at=4), tiny_patches(), tmp_path, restart=True)
    assert not (tmp_path / "config.json").exists()
    assert not (tmp_path / "model.safetensors").exists()
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)  # and the run can be made again


def test_a_folder_that_is_a_file_is_refused(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot be a folder"):
        run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path / "file/run")


def test_restart_starts_anew(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)
    again = Recorder(tiny_dcgan())
    run(again, tiny_patches(), tmp_path, restart=True, steps=2)
    assert [seen for seen, _, _ in again.steps] == [0, 4]
    assert [file.name for file in (tmp_path / "samples").iterdir()] == ["000000000008.png"]
    assert len((tmp_path / "training/losses.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"batch_size": 8}, "batch_size: 4 there, 8 now"),
        ({"options": {"rate": 2}}, "options.rate: None there, 2 now"),
        ({"mixed_precision": "bf16"}, "mixed_precision: 'no' there, 'bf16' now"),
    ],
)
def test_another_runs_folder_is_refused(
    change: dict[str, Any], named: str, tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)
    with pytest.raises(
        InputError, match=f"other settings .{named}.; give the same settings, another folder, or --rest"
    ):
        run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path, **change)


def test_another_training_set_is_refused(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)
    with pytest.raises(InputError, match=r"training_set\.fingerprint"):
        run(Recorder(tiny_dcgan()), tiny_patches(22), tmp_path)


def test_somebody_elses_generator_is_not_overwritten(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    tiny_dcgan().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds a generator but no training to go on with"):
        run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, got 0"),
        ({"batch_size": 100_000_000}, "batch_size must be at most 65,536, got 100,000,000"),
        ({"mixed_precision": "fp16"}, "must be one of no, bf16, got 'fp16'"),
    ],
)
def test_bad_options(
    options: dict[str, Any], message: str, tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


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


def test_batches_larger_than_the_data_are_said(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    recorder = Recorder(tiny_dcgan())
    with pytest.warns(UserWarning, match="has 6 images, fewer than a batch of 15.*a batch of at most 6 .--batch-size"):
        run(recorder, tiny_patches(6), tmp_path, batch_size=15, steps=2)
    assert [len(labels) for _, labels, _ in recorder.steps] == [15, 15]


def test_a_disk_too_full_is_refused_before_any_step(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[int] = []

    def check(path: Path, size: int, *, what: str) -> None:
        needed.append(size)
        raise InputError(f"{path}: {what} needs more")

    monkeypatch.setattr("genmix_transforms.generators.training.check_free_space", check)
    recorder = Recorder(tiny_dcgan())
    with pytest.raises(InputError, match="run: the training .two checkpoints and weights. needs more"):
        run(recorder, tiny_patches(), tmp_path / "run")
    assert recorder.steps == []
    weights = sum(tensor.nbytes for tensor in recorder.generator.network.state_dict().values())
    assert needed == [3 * weights]  # two checkpoints of nothing but the weights, and the weights
    monkeypatch.undo()
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path / "run")  # with a free disk it goes on


def test_the_bar_says_where_the_training_stands_and_writes(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path, progress=True)
    shown = capsys.readouterr().err.split("\r")
    assert all(str(tmp_path) in line for line in shown[1:-1] if line.strip())
    assert any("0/10" in line and "checkpoint at 3" in line for line in shown)
    assert "10/10" in shown[-1]
    assert "checkpoint at 10, value=1.000" in shown[-1]


def test_what_a_trainings_caller_gets(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    recorder = Recorder(tiny_dcgan())
    found = train(
        recorder, tiny_patches(), out=tmp_path, snapshot=lambda: recorder.generator, steps=2, batch_size=4, seed=0,
        options={"betas": (0.5, 0.9)}, checkpoint_every=4, progress=False, settings={"preset": "mine"},
    )  # fmt: skip
    assert (found["images_seen"], found["steps"], found["settings"]) == (8, 2, {"preset": "mine"})
    assert found["options"] == {"betas": [0.5, 0.9]}
    assert found == DCGAN.from_pretrained(tmp_path).provenance


# From here on, the command itself in processes of its own.


def save_npz(patches: PatchDataset, path: Path) -> Path:
    images = patches.images[:, 0].numpy()
    np.savez(path, images=images, labels=patches.labels.numpy(), label_names=np.array(patches.classes))
    return path


def command(data: Path, out: Path, *, steps: int = 200) -> list[str]:
    options = f"--steps {steps} --batch-size 8 --base-width 4 --checkpoint-every 160 --device cpu --all-data"
    start = [sys.executable, "-m", "genmix_transforms", "-q", "train", "dcgan"]
    return [*start, "--data", str(data), "--out", str(out), *options.split()]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def finish(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def state(out: Path) -> dict[str, torch.Tensor]:
    record = json.loads((out / "training/checkpoint.json").read_text())
    return safetensors.torch.load_file(out / "training" / record["file"])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, tiny_patches: Patches) -> tuple[Path, Path]:
    """A data set and a run on it that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    data = save_npz(tiny_patches(48), folder / "discs.npz")
    finish(command(data, folder / "run"))
    return data, folder / "run"


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_killed_run_ends_with_the_same_weights_bit_for_bit(
    sign: signal.Signals, unbroken: tuple[Path, Path], tmp_path: Path
) -> None:
    data, whole = unbroken
    out = tmp_path / "run"
    kills = ((160, 0.0), (480, 0.1)) if sign == signal.SIGKILL else ((320, 0.05),)
    for checkpoint, delay in kills:
        process = subprocess.Popen(command(data, out), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        index = out / "training/checkpoint.json"
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if index.exists() and json.loads(index.read_text())["images_seen"] >= checkpoint:
                break
            time.sleep(0.01)
        time.sleep(delay)
        assert process.poll() is None, "the run was over before it could be killed: make it longer"
        process.send_signal(sign)
        process.wait(timeout=60)
        assert process.returncode != 0
    assert json.loads(index.read_text())["images_seen"] < 1600
    finish(command(data, out))
    ours, theirs = state(out), state(whole)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    if sign == signal.SIGKILL:  # Ctrl-C adds a checkpoint where it stopped, and so a line to the losses
        assert (out / "training/losses.jsonl").read_bytes() == (whole / "training/losses.jsonl").read_bytes()
    assert list(out.rglob(".*")) == []  # nothing half-written is left


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_train_one_network(launcher: str, unbroken: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = unbroken
    launch = {
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"],
        "accelerate": [
            # --multi_gpu is the launcher of several processes; where there is no GPU they talk through gloo.
            *"-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1".split(),
            *"--mixed_precision no --dynamo_backend no -m".split(),
        ],
    }[launcher]
    arguments = command(data, tmp_path / "run", steps=20)
    finish([sys.executable, *launch, *arguments[2:]])
    record = json.loads((tmp_path / "run/training/checkpoint.json").read_text())
    assert record["processes"] == 2
    assert record["images_seen"] == 160  # the batch is shared, not doubled
    weights = safetensors.torch.load_file(tmp_path / "run/model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    # Going on with one process is allowed, and says that it will not be exact.
    from genmix_transforms.generators import load_generator

    generator = load_generator(tmp_path / "run")
    assert isinstance(generator, DCGAN)
    with pytest.raises(InputError, match="cannot be shared by 2 processes: give a multiple of 2"):
        _refuse_odd_batch(generator, data, tmp_path)


def _refuse_odd_batch(generator: DCGAN, data: Path, tmp_path: Path) -> None:
    from genmix_transforms.data import open_dataset
    from genmix_transforms.generators.processes import Processes

    run(
        Recorder(generator),
        open_dataset(data),
        tmp_path / "odd",
        batch_size=5,
        processes=Processes(0, 2, torch.device("cpu")),
    )


def test_another_number_of_processes_is_said_aloud(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path)
    index = tmp_path / "training/checkpoint.json"
    record = json.loads(index.read_text())
    index.write_text(json.dumps({**record, "processes": 2}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path, steps=11)
    assert any("begun with 2 processes, going on with 1" in str(warning.message) for warning in caught)


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
