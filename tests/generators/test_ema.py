"""The moving average of weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators import ADM
from genmix_transforms.generators.ema import MovingAverage, half_life_of
from genmix_transforms.generators.processes import Processes
from tests.generators.conftest import CLASSES, make_dcgan, make_patches, make_stylegan
from tests.generators.tiny_training import Tiny


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_it_follows_the_closed_form() -> None:
    model = network()
    average = MovingAverage(model, half_life=100)
    weight = model[0].weight.detach().clone()
    expected = weight.clone()
    for step in range(20):
        with torch.no_grad():
            model[0].weight.copy_(weight + step)
        seen = 10_000 + step * 8
        average.update(model, batch=8, images_seen=seen)
        decay = 0.5 ** (8 / 100)
        expected = decay * expected + (1 - decay) * (weight + step)
    assert torch.allclose(average.average[0].weight, expected, atol=1e-6)


def test_a_half_life_halves() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
        average = MovingAverage(model, half_life=80)
        model.weight.fill_(0.0)
    for step in range(10):
        average.update(model, batch=8, images_seen=10**6 + step * 8)
    assert average.average.weight.item() == pytest.approx(0.5, abs=1e-6)


def test_the_random_start_is_forgotten_early() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
        average = MovingAverage(model, half_life=10_000)
        model.weight.fill_(0.0)
    for step in range(50):
        average.update(model, batch=8, images_seen=step * 8)
    assert average.average.weight.item() < 1e-6  # with the full half-life it would be 0.97


def test_buffers_are_averaged_and_counters_copied() -> None:
    model = network()
    average = MovingAverage(model, half_life=100)
    before = average.average[1].running_mean.clone()
    model(torch.randn(16, 3) + 5)
    average.update(model, batch=16, images_seen=10_000)
    decay = 0.5 ** (16 / 100)
    assert torch.allclose(average.average[1].running_mean, decay * before + (1 - decay) * model[1].running_mean)
    assert average.average[1].num_batches_tracked == model[1].num_batches_tracked == 1


def test_it_is_a_copy_in_eval_mode_without_gradients() -> None:
    model = network()
    average = MovingAverage(model, half_life=1)
    assert not average.average.training
    assert not any(parameter.requires_grad for parameter in average.average.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_state_goes_round() -> None:
    model = network()
    first, second = MovingAverage(model, half_life=10), MovingAverage(network(), half_life=10)
    model(torch.randn(4, 3))
    first.update(model, batch=4, images_seen=0)
    second.load_state_dict(first.state_dict())
    for key, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[key])


def test_an_average_elsewhere_follows_all_the_same() -> None:
    model = network()
    beside, apart = MovingAverage(model, half_life=100), MovingAverage(model, half_life=100, device="cpu")
    model(torch.randn(16, 3))
    for average in (beside, apart):
        average.update(model, batch=16, images_seen=10_000)
    for key, value in beside.state_dict().items():
        assert torch.equal(value, apart.state_dict()[key])


@pytest.mark.parametrize(("decay", "batch"), [(0.9999, 256), (0.999, 8), (0.5, 1)])
def test_a_decay_of_a_step_is_a_half_life_of_images(decay: float, batch: int) -> None:
    assert 0.5 ** (batch / half_life_of(decay, batch_size=batch)) == pytest.approx(decay, abs=1e-12)


@pytest.mark.parametrize("decay", [0, 1, -0.5, 1.5])
def test_a_decay_that_cannot_be(decay: float) -> None:
    with pytest.raises(InputError, match="ema_decay must be above 0 and below 1"):
        half_life_of(decay, batch_size=1)


def test_somebody_must_say_how_large_a_batch_is() -> None:
    average = MovingAverage(nn.Linear(1, 1), half_life=100)
    with pytest.raises(ValueError, match="set batch_size, or give batch"):
        average.decay(images_seen=0)
    average.batch_size = 8
    assert average.decay(images_seen=10**6) == pytest.approx(0.5 ** (8 / 100))
    assert average.decay(images_seen=10**6, batch=4) == pytest.approx(0.5 ** (8 / 100))


@dataclass(frozen=True)
class OneOfTwo(Processes):
    """The first of two processes, whose other one says the same as it."""

    def ask(self, flag: bool) -> Callable[[], bool]:
        return lambda: flag

    def mean(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def start_average(self, gradients: Sequence[Tensor]) -> Callable[[], None]:
        return lambda: None

    def gather(self, values: Tensor) -> Tensor:
        return torch.cat([values, values])

    def wait(self) -> None:
        pass


def make_adm() -> ADM:
    flags = {"image_size": 16, "num_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "class_cond": True}
    sampler = {"steps": 2, "batch_size": 4}
    return ADM(classes=CLASSES, channels=1, configuration=flags, sampler=sampler)


@pytest.mark.parametrize("make", [make_dcgan, make_stylegan, make_adm], ids=["dcgan", "stylegan", "adm"])
def test_every_kind_decays_alike_with_one_process_and_with_two(
    make: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decays: dict[int, list[float]] = {1: [], 2: []}
    decay = MovingAverage.decay
    count = 1

    def recorded(self: MovingAverage, **given: Any) -> float:
        decays[count].append(decay(self, **given))
        return decays[count][-1]

    monkeypatch.setattr(MovingAverage, "decay", recorded)
    for count, processes in ((1, Processes), (2, OneOfTwo)):
        monkeypatch.setattr(Processes, "join", lambda *_, now=count, of=processes: of(0, now, torch.device("cpu")))
        make().fit(make_patches(), out=tmp_path / str(count), steps=3, batch_size=4, progress=False)
    assert len(decays[1]) == 3
    assert decays[1] == decays[2]


def test_two_real_processes_decay_as_one(two_processes: Callable[[str], list[dict[str, Any]]]) -> None:
    average = MovingAverage(Tiny().network, half_life=100)
    average.batch_size = 4
    for found in two_processes("unbroken"):
        assert found["how"] == "done"
        assert found["decays"] == [average.decay(images_seen=seen) for seen in range(0, 80, 4)]
