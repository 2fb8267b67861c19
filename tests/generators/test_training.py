"""The training loop: exact resume after a real kill, refusals, sheets, losses, several processes."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import DCGAN
from genmix_transforms.generators.training import train
from tests.generators.jobs import make_job
from tests.generators.recorder import Recorder, run
from tests.ranks import run_ranks

Patches = Callable[..., PatchDataset]
TinyDCGAN = Callable[..., DCGAN]


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
        ({"steps": 0}, "steps must be a whole number, from 1 to 1000000000, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number, from 1 to 65536, got 0"),
        ({"batch_size": 100_000_000}, "batch_size must be a whole number, from 1 to 65536, got 100000000"),
        ({"mixed_precision": "fp16"}, "must be one of no, bf16, got 'fp16'"),
    ],
)
def test_bad_options(
    options: dict[str, Any], message: str, tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run(Recorder(tiny_dcgan()), tiny_patches(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


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


def test_what_a_trainings_caller_gets(tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    recorder = Recorder(tiny_dcgan())
    found = train(
        make_job(
            recorder, tiny_patches(), tmp_path, snapshot=lambda: recorder.generator, steps=2, checkpoint_every=4,
            options={"betas": (0.5, 0.9)},
        ),
        progress=False,
    )  # fmt: skip
    assert (found["images_seen"], found["steps"]) == (8, 2)
    assert found["settings"] == {
        "preset": "tests", "steps": 2, "batch_size": 4, "checkpoint_every": 4, "mixed_precision": "no", "report_to": [],
        "fast_math": True,
    }  # fmt: skip
    assert found["options"] == {"betas": [0.5, 0.9]}
    assert found == DCGAN.from_pretrained(tmp_path).provenance


# From here on, in processes of their own.


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


def wait_for(out: Path, images_seen: int, at_work: Callable[[], bool]) -> None:
    """Until there is a checkpoint of so many images."""
    index = out / "training/checkpoint.json"
    deadline = time.monotonic() + 120
    while at_work() and time.monotonic() < deadline:
        if index.exists() and json.loads(index.read_text())["images_seen"] >= images_seen:
            break
        time.sleep(0.01)
    assert at_work(), "the run was over before it could be stopped: make it longer"


def fit_tiny(patches: PatchDataset, generator: DCGAN, out: Path) -> None:
    """Two hundred steps with everything that a training has: two networks, optimisers, an average, sheets."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    generator.fit(patches, out=out, steps=200, batch_size=8, checkpoint_every=160, device="cpu", progress=False)


def test_a_killed_run_ends_with_the_same_weights_bit_for_bit(
    tiny_patches: Patches, tiny_dcgan: TinyDCGAN, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")  # an interpreter's start takes longer than the training
    patches, out, whole = tiny_patches(48), tmp_path / "run", tmp_path / "whole"

    def start(folder: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=fit_tiny, args=(patches, tiny_dcgan(), folder))
        process.start()
        return process

    undisturbed = start(whole)
    for checkpoint, delay in ((160, 0.0), (480, 0.1)):
        process = start(out)
        wait_for(out, checkpoint, process.is_alive)
        time.sleep(delay)
        process.kill()
        process.join()
    assert json.loads((out / "training/checkpoint.json").read_text())["images_seen"] < 1600
    last = start(out)
    for process in (last, undisturbed):
        process.join(timeout=120)
        assert process.exitcode == 0
    ours, theirs = state(out), state(whole)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    for name in ("model.safetensors", "training/losses.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert list(out.rglob(".*")) == []  # nothing half-written is left


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_patches: Patches) -> Path:
    return save_npz(tiny_patches(48), tmp_path_factory.mktemp("data") / "discs.npz")


def test_a_scheduler_stops_the_command_as_ctrl_c_does(data: Path, tmp_path: Path) -> None:
    """SIGTERM, and SIGINT ignored, as a script's ``&`` leaves it."""
    arguments = command(data, tmp_path / "run", steps=100_000)
    process = subprocess.Popen(
        arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    wait_for(tmp_path / "run", 160, lambda: process.poll() is None)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopped; run the same command again to go on" in said
    seen = json.loads((tmp_path / "run/training/checkpoint.json").read_text())["images_seen"]
    assert f"stopped at step {seen // 8:,} of 100,000" in said
    assert list((tmp_path / "run").rglob(".*")) == []


def run_command(arguments: list[str]) -> None:
    from genmix_transforms.cli.main import main

    sys.argv = ["genmix", *arguments]
    main()


@pytest.mark.parametrize(
    "launcher",
    ["none, its variables", *(pytest.param(name, marks=pytest.mark.slow) for name in ("torchrun", "accelerate"))],
)
def test_two_processes_train_one_network(launcher: str, data: Path, tmp_path: Path) -> None:
    arguments = command(data, tmp_path / "run", steps=20)
    launch = {
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"],
        "accelerate": [
            # --multi_gpu is the launcher of several processes; where there is no GPU they talk through gloo.
            *"-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1".split(),
            *"--mixed_precision no --dynamo_backend no -m".split(),
        ],
    }
    if launcher in launch:
        finish([sys.executable, *launch[launcher], *arguments[2:]])
    else:
        (tmp_path / "said").mkdir()
        codes = run_ranks(run_command, arguments[3:], said=tmp_path / "said")
        assert codes == [0, 0], "".join(file.read_text() for file in (tmp_path / "said").glob("*.err"))
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
