"""The hybrid loss: values and gradients against the paper's equations in float64, and against plain sums."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm import NoiseSchedule
from genmix_transforms.generators.adm.loss import HybridLoss


def paper_schedule(name: str, steps: int) -> np.ndarray:
    """Betas, from Ho et al. (section 4, scaled to the steps) and Nichol, Dhariwal (equation 17)."""
    if name == "linear":
        return np.linspace(0.1 / steps, 20 / steps, steps)
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


def paper_bound(betas: np.ndarray, t: int, x0: np.ndarray, xt: np.ndarray, eps: np.ndarray, v: np.ndarray) -> float:
    """``L_t`` of one image in bits per dimension, equations 4 to 7 and 15 by the letter: means, not errors."""
    alphas = 1 - betas
    bar = np.cumprod(alphas)
    before = np.append(1.0, bar[:-1])
    posterior = betas * (1 - before) / (1 - bar)
    posterior[0] = posterior[1]  # of the first step the logarithm would be minus infinity
    mean = (xt - betas[t] / np.sqrt(1 - bar[t]) * eps) / np.sqrt(alphas[t])
    share = (v + 1) / 2
    variance = np.exp(share * np.log(betas[t]) + (1 - share) * np.log(posterior[t]))
    if t == 0:
        half = 1 / 255
        upper = np.where(x0 > 0.999, 1.0, norm.cdf((x0 + half - mean) / np.sqrt(variance)))
        lower = np.where(x0 < -0.999, 0.0, norm.cdf((x0 - half - mean) / np.sqrt(variance)))
        nats = -np.log(np.maximum(upper - lower, 1e-12))
    else:
        true_mean = (
            np.sqrt(before[t]) * betas[t] / (1 - bar[t]) * x0 + np.sqrt(alphas[t]) * (1 - before[t]) / (1 - bar[t]) * xt
        )
        nats = 0.5 * (
            np.log(variance / posterior[t]) - 1 + posterior[t] / variance + (true_mean - mean) ** 2 / variance
        )
    return float(nats.mean() / np.log(2))


def case(dtype: torch.dtype = torch.float64, *, steps: int = 1000) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    timesteps = torch.tensor([0, 0, 1, 2, steps // 3, steps // 2, steps - 2, steps - 1])
    images = torch.randint(0, 256, (8, 2, 4, 4), generator=random).to(dtype) / 127.5 - 1
    images[0, 0, 0], images[1, 1, 2] = 1, -1  # the open bins
    added = torch.randn(8, 2, 4, 4, generator=random, dtype=torch.float64).to(dtype)
    error = 0.3 * torch.randn(8, 2, 4, 4, generator=random, dtype=torch.float64).to(dtype)
    variance = torch.randn(8, 2, 4, 4, generator=random, dtype=torch.float64).to(dtype)
    return {
        "prediction": torch.cat([added + error, variance], dim=1),
        "images": images,
        "added": added,
        "timesteps": timesteps,
    }


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1000, 50])
def test_both_parts_are_the_papers(name: str, steps: int) -> None:
    loss = HybridLoss(NoiseSchedule.named(name, steps))
    given = case(steps=steps)
    noisy = loss.noisy(given["images"], given["added"], given["timesteps"])
    squared, bits = loss(**given)
    betas = paper_schedule(name, steps)
    bar = np.cumprod(1 - betas)
    for number, t in enumerate(given["timesteps"].tolist()):
        x0, eps = given["images"][number].numpy(), given["added"][number].numpy()
        xt = np.sqrt(bar[t]) * x0 + np.sqrt(1 - bar[t]) * eps
        assert np.allclose(noisy[number].numpy(), xt, atol=1e-12)
        said, v = given["prediction"][number].numpy()[:2], given["prediction"][number].numpy()[2:]
        assert squared[number].item() == pytest.approx(((said - eps) ** 2).mean(), abs=1e-12)
        expected = paper_bound(betas.copy(), t, x0, xt, said, v)
        assert bits[number].item() == pytest.approx(expected, rel=1e-7, abs=1e-9), t


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_float32_agrees_to_a_millionth(name: str) -> None:
    loss = HybridLoss(NoiseSchedule.named(name, 1000))
    squared, bits = loss(**case())
    squared_32, bits_32 = loss(**case(torch.float32))
    assert (squared - squared_32).abs().max() < 1e-6
    assert ((bits - bits_32).abs() / bits.abs().clamp(min=1)).max() < 1e-6


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_gradients_are_the_slopes_of_the_papers_terms(name: str) -> None:
    loss = HybridLoss(NoiseSchedule.named(name, 1000))
    given = case()
    prediction = given["prediction"].requires_grad_(True)
    squared, bits = loss(**given)
    (squared.sum() + bits.sum()).backward()
    gradient = prediction.grad
    # The mean learns from the squared error alone: the bound sees it detached.
    error = (prediction.detach()[:, :2] - given["added"]) * 2 / 32
    assert torch.allclose(gradient[:, :2], error, atol=1e-12)
    betas = paper_schedule(name, 1000)
    bar = np.cumprod(1 - betas)
    for number, t in enumerate(given["timesteps"].tolist()):
        x0, eps = given["images"][number].numpy(), given["added"][number].numpy()
        xt = np.sqrt(bar[t]) * x0 + np.sqrt(1 - bar[t]) * eps
        said, v = (part.numpy() for part in prediction.detach()[number].chunk(2))
        for place in ((0, 0, 0), (0, 1, 2), (1, 2, 3)):
            slopes = []
            for step in (1e-5, -1e-5):
                other = v.copy()
                other[place] += step
                slopes.append(paper_bound(betas.copy(), t, x0, xt, said, other))
            slope = (slopes[0] - slopes[1]) / 2e-5
            assert gradient[number, 2 + place[0], place[1], place[2]].item() == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_the_probabilities_of_all_pixel_values_add_up_to_one() -> None:
    loss = HybridLoss(NoiseSchedule.named("linear", 1000))
    images = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(256, 1, 1, 1)
    mean_at = torch.full_like(images, 0.402)  # one normal distribution, asked about each value
    share = (loss._mean_share[0]).item()
    prediction = torch.cat([(images - mean_at) / share, torch.full_like(images, 0.3)], dim=1)
    timesteps = torch.zeros(256, dtype=torch.int64)
    _, bits = loss(prediction, images, torch.zeros_like(images), timesteps)
    assert (2**-bits).sum().item() == pytest.approx(1, abs=1e-6)
    assert (2**-bits).argmax().item() == round((0.402 + 1) * 127.5)


def test_sixteen_bits_have_finer_bins() -> None:
    eight, sixteen = (HybridLoss(NoiseSchedule.named("linear", 1000), levels=2**bits) for bits in (8, 16))
    given = {name: value[:2, ..., 1:3] if value.ndim == 4 else value[:2] for name, value in case().items()}
    given["images"] = given["images"] * 0.5
    difference = sixteen(**given)[1] - eight(**given)[1]
    assert torch.allclose(difference, torch.full_like(difference, math.log2(65535 / 255)), atol=0.05)


def test_a_perfect_prediction_with_the_posteriors_variance_costs_nothing() -> None:
    loss = HybridLoss(NoiseSchedule.named("cosine", 1000))
    given = case()
    given["prediction"] = torch.cat([given["added"], torch.full_like(given["added"], -1)], dim=1)
    squared, bits = loss(**given)
    assert squared.abs().max() == 0
    assert bits[2:].abs().max() < 1e-12
    assert (bits[:2] > 0).all()


def test_a_network_that_tells_no_variance_has_the_squared_error_alone() -> None:
    loss = HybridLoss(NoiseSchedule.named("linear", 10))
    given = case(steps=10)
    given["prediction"] = given["prediction"][:, :2]
    squared, bits = loss(**given)
    assert bits is None
    assert torch.equal(squared, (given["prediction"] - given["added"]).square().mean((1, 2, 3)))


def test_half_precision_is_judged_in_float32() -> None:
    loss = HybridLoss(NoiseSchedule.named("linear", 1000))
    given = case(torch.float32)
    given["prediction"] = given["prediction"].bfloat16()
    squared, bits = loss(**given)
    assert squared.dtype == bits.dtype == torch.float32
    assert bits.isfinite().all()


def test_a_single_timestep_is_refused() -> None:
    with pytest.raises(InputError, match="training needs at least 2 timesteps"):
        HybridLoss(NoiseSchedule.named("linear", 1))


def test_tables_in_float32_give_float32_images_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on devices that have no float64."""
    given = case(torch.float32)
    expected = HybridLoss(NoiseSchedule.named("cosine", 1000))(**given)
    monkeypatch.setattr("genmix_transforms.generators.adm.loss.widest_float", lambda _: torch.float32)
    loss = HybridLoss(NoiseSchedule.named("cosine", 1000))
    assert loss._low.dtype == torch.float32
    for value, same in zip(loss(**given), expected, strict=True):
        assert value is not None
        assert torch.equal(value, same)
