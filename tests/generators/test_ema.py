"""The moving average of weights."""

import pytest
import torch
from torch import nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.ema import MovingAverage, half_life_of


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
