"""Trackers: what TensorBoard is told, read back from its files; and what is refused."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms.errors import InputError, MissingExtraError
from genmix_transforms.generators import trackers as module
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.trackers import Trackers, check_trackers
from tests.generators.conftest import make_dcgan, make_patches
from tests.generators.jobs import make_job
from tests.generators.tiny_training import Tiny, run

ALONE = Processes(0, 1, torch.device("cpu"))


def events(out: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(out / "training/tracked/tensorboard"), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def scalars(out: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(out).Scalars(name)]


def test_tensorboard_is_told_losses_rates_and_speed(tmp_path: Path) -> None:
    run(Tiny(), tmp_path, report_to=("tensorboard",))
    assert [step for step, _ in scalars(tmp_path, "loss/squared")] == [5, 10, 15, 20]
    assert scalars(tmp_path, "learning_rate/optimiser") == [(step, pytest.approx(0.05)) for step in (5, 10, 15, 20)]
    assert all(speed > 0 for _, speed in scalars(tmp_path, "images_per_second"))
    text = events(tmp_path).Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"batch_size": 4' in text


def test_sheets_are_shown_as_pictures(tmp_path: Path) -> None:
    from genmix_transforms.generators.training import train

    generator = make_dcgan()

    class Still:
        def state_objects(self) -> dict[str, Any]:
            return {"network": generator.network}

        def training_step(self, images: torch.Tensor, labels: torch.Tensor, images_seen: int) -> dict[str, Any]:
            return {"nothing": torch.zeros(())}

    told = {"steps": 2, "checkpoint_every": 4, "report_to": ("tensorboard",)}
    train(make_job(Still(), make_patches(), tmp_path, snapshot=lambda: generator, **told), progress=False)
    pictures = events(tmp_path).Images("samples")
    assert [picture.step for picture in pictures] == [1, 2]
    from PIL import Image

    with Image.open(tmp_path / "samples/000000000008.png") as sheet:
        assert (pictures[1].width, pictures[1].height) == sheet.size


def test_a_run_that_goes_on_has_no_step_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genmix_transforms.generators.run.LOG_STEPS", 2)

    def fail(images_seen: int) -> None:
        if images_seen == 56:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(Tiny(before_step=fail), tmp_path, report_to=("tensorboard",))
    assert [step for step, _ in scalars(tmp_path, "loss/squared")] == [2, 4, 5, 6, 8, 10, 12, 14]
    again = Tiny()
    run(again, tmp_path, report_to=("tensorboard",))
    assert again.steps[0] == 40  # steps 11 to 14 happen again
    assert [step for step, _ in scalars(tmp_path, "loss/squared")] == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]


def test_a_restart_forgets_the_log(tmp_path: Path) -> None:
    run(Tiny(), tmp_path, report_to=("tensorboard",))
    run(Tiny(), tmp_path, report_to=("tensorboard",), restart=True, steps=5)
    assert [step for step, _ in scalars(tmp_path, "loss/squared")] == [5]


def test_without_trackers_there_is_no_folder(tmp_path: Path) -> None:
    run(Tiny(), tmp_path)
    assert not (tmp_path / "training/tracked").exists()


def test_the_other_processes_tell_nothing(tmp_path: Path) -> None:
    processes = Processes(1, 2, torch.device("cpu"))
    trackers = Trackers(
        ["tensorboard"], folder=tmp_path / "tracked", title="run", settings={}, step=0, processes=processes
    )
    trackers.log({"a": 1.0}, step=1)
    assert not trackers
    assert not (tmp_path / "tracked").exists()


def test_what_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="report_to must be one of tensorboard, wandb, mlflow, got 'excel'"):
        run(Tiny(), tmp_path / "run", report_to=("excel",))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: pip install 'genmix-transforms\[trackers\]'"):
        run(Tiny(), tmp_path / "run", report_to=("tensorboard",))
    with pytest.raises(InputError, match="'wandb' needs the package wandb, which is not installed: pip install wandb"):
        check_trackers(["wandb"])
    assert not (tmp_path / "run").exists()


def test_trackers_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "accelerate" else object())
    with pytest.raises(MissingExtraError, match=r"report_to needs accelerate.*genmix-transforms\[trackers\]"):
        check_trackers(["tensorboard"])
    check_trackers([])


class Service:
    """What stands in for wandb: it remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.config = self

    def init(self, **given: Any) -> "Service":
        self.told.append(("init", given))
        return self

    def update(self, values: dict[str, Any], **_: Any) -> None:
        self.told.append(("config", values))

    def log(self, values: dict[str, Any], step: int) -> None:
        self.told.append(("log", (values, step)))

    def finish(self) -> None:
        self.told.append(("finish", None))


def test_a_service_goes_on_under_the_same_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    wandb = types.SimpleNamespace(init=service.init, config=service, Image=lambda image: image)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    for steps in (10, 20):
        run(Tiny(), tmp_path / "mine", report_to=("wandb",), steps=steps)
    begun = [given for what, given in service.told if what == "init"]
    assert begun[0]["id"] == begun[1]["id"]
    assert begun[0]["name"] == "mine"
    assert [what for what, _ in service.told].count("config") == 1
    assert [what for what, _ in service.told].count("finish") == 2
    logged = [told for what, told in service.told if what == "log"]
    assert [step for _, step in logged] == [5, 10, 15, 20]
    assert "loss/squared" in logged[0][0]
