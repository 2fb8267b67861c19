"""The samplers: the updates against closed forms in float64, guidance, and where every solver must arrive."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm import ADMConfiguration, NoiseSchedule, SamplerSettings
from genmix_transforms.generators.adm.sampling import Denoiser, ddim_step, ddpm_step, draw

METHODS = ("ddpm", "ddim", "dpmsolver++", "unipc")

SCHEDULES = {name: NoiseSchedule.named(name) for name in ("linear", "cosine")}
UNCONDITIONAL = ADMConfiguration(image_size=16, channel_mult=(1, 2), attention_resolutions=(8,), channels=1)


def tensors(count: int) -> list[Tensor]:
    return [torch.randn(2, 1, 4, 4, dtype=torch.float64) for _ in range(count)]


@given(st.sampled_from(["linear", "cosine"]), st.sampled_from([5, 25, 250]), st.data())
def test_ddpm_draws_from_the_posterior(name: str, steps: int, data: st.DataObject) -> None:
    """Ho et al., equation 7, written in alphas: our coefficients are in betas."""
    schedule = SCHEDULES[name].respaced(steps)
    index = data.draw(st.integers(1, steps - 1))
    noisy, image, share, fresh, gradient = tensors(5)
    left, before = schedule.alphas_cumprod[index], schedule.alphas_cumprod[index - 1]
    alpha = left / before
    mean = (before.sqrt() * (1 - alpha) * image + alpha.sqrt() * (1 - before) * noisy) / (1 - left)
    smallest, largest = (1 - before) / (1 - left) * (1 - alpha), 1 - alpha
    variance = largest ** ((share + 1) / 2) * smallest ** ((1 - share) / 2)  # Nichol, Dhariwal, equation 15
    made = ddpm_step(noisy, image, share, fresh, schedule=schedule, index=index)
    assert torch.allclose(made, mean + variance.sqrt() * fresh, rtol=1e-10, atol=1e-10)
    guided = ddpm_step(noisy, image, share, None, schedule=schedule, index=index, gradient=gradient)
    assert torch.allclose(guided, mean + variance * gradient, rtol=1e-10, atol=1e-10)
    fixed = ddpm_step(noisy, image, None, fresh, schedule=schedule, index=index)
    assert torch.allclose(fixed, mean + largest.sqrt() * fresh, rtol=1e-10, atol=1e-10)


@given(st.sampled_from(["linear", "cosine"]), st.sampled_from([5, 25, 250]), st.floats(0, 1), st.data())
def test_ddim_goes_along_the_noise(name: str, steps: int, eta: float, data: st.DataObject) -> None:
    """Song et al., equation 12: from the image and the noise that ``noisy`` was made of."""
    schedule = SCHEDULES[name].respaced(steps, spacing="leading")
    index = data.draw(st.integers(1, steps - 1))
    image, direction, fresh = tensors(3)
    left, before = schedule.alphas_cumprod[index], schedule.alphas_cumprod[index - 1]
    noisy = left.sqrt() * image + (1 - left).sqrt() * direction
    sigma = eta * ((1 - before) / (1 - left)).sqrt() * (1 - left / before).sqrt()
    expected = before.sqrt() * image + (1 - before - sigma**2).sqrt() * direction + sigma * fresh
    made = ddim_step(noisy, image, fresh, schedule=schedule, index=index, eta=eta)
    assert torch.allclose(made, expected, rtol=1e-8, atol=1e-8)


def test_ddim_with_all_its_noise_is_ddpm_with_the_posteriors() -> None:
    schedule = SCHEDULES["linear"].respaced(25)
    noisy, image, fresh = tensors(3)
    ancestral = ddpm_step(noisy, image, -torch.ones_like(noisy), fresh, schedule=schedule, index=7)
    assert torch.allclose(ddim_step(noisy, image, fresh, schedule=schedule, index=7, eta=1.0), ancestral, atol=1e-10)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_last_step_ends_at_the_image(name: str) -> None:
    schedule = SCHEDULES[name].respaced(10)
    noisy, image = tensors(2)
    assert torch.allclose(ddpm_step(noisy, image, None, None, schedule=schedule, index=0), image)
    assert torch.allclose(ddim_step(noisy, image, schedule=schedule, index=0), image)


class KnowsTheData(nn.Module):
    """The right noise for data that is N(mean, deviation**2) in every pixel: what a perfect network would say."""

    def __init__(self, schedule: NoiseSchedule, *, mean: float = 0.25, deviation: float = 0.2) -> None:
        super().__init__()
        self.schedule, self.mean, self.deviation = schedule, mean, deviation
        self.calls: list[Any] = []

    def forward(self, noisy: Tensor, times: Tensor, *, class_labels: Tensor | None, return_dict: bool) -> tuple[Tensor]:
        self.calls.append((len(noisy), class_labels))
        left = self.schedule.alphas_cumprod[times[0]]
        spread = left * self.deviation**2 + 1 - left
        return (((1 - left).sqrt() * (noisy - left.sqrt() * self.mean) / spread),)


def sample(network: nn.Module, schedule: NoiseSchedule, *, start: Tensor, **settings: Any) -> Tensor:
    name = "cosine" if schedule is SCHEDULES["cosine"] else "linear"
    denoiser = Denoiser(
        network,
        torch.zeros(len(start), dtype=torch.int64),
        configuration=replace(UNCONDITIONAL, noise_schedule=name),
        schedule=schedule,
        settings=SamplerSettings(**settings),
    )
    random = torch.Generator().manual_seed(9)
    return draw(denoiser, start, lambda _: torch.randn(start.shape, generator=random, dtype=start.dtype))


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("method", METHODS)
def test_with_the_right_network_every_method_draws_the_data(method: str, name: str) -> None:
    schedule = SCHEDULES[name]
    start = torch.randn(64, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network = KnowsTheData(schedule)
    steps = 250 if method == "ddpm" else 50
    values = sample(network, schedule, start=start, method=method, steps=steps)
    assert len(network.calls) == steps
    assert values.mean() == pytest.approx(0.25, abs=0.01)
    assert values.std() == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("method", ["ddim", "dpmsolver++", "unipc"])
def test_deterministic_methods_follow_the_same_flow(method: str) -> None:
    """For Gaussian data the flow is known: pixels keep their place among all, in standard deviations."""
    schedule = SCHEDULES["linear"]
    start = torch.randn(4, 1, 16, 16, dtype=torch.float64).clamp(-2, 2)  # beyond, images are clipped
    values = sample(KnowsTheData(schedule, deviation=0.3), schedule, start=start, method=method, steps=100)
    assert torch.allclose(values, 0.25 + 0.3 * start, atol=0.03)


def test_second_order_is_nearer_with_few_steps() -> None:
    schedule = SCHEDULES["linear"]
    start = torch.randn(4, 1, 16, 16, dtype=torch.float64).clamp(-2, 2)
    far = {
        method: float(
            (sample(KnowsTheData(schedule, deviation=0.3), schedule, start=start, method=method, steps=20)
             - 0.25 - 0.3 * start).abs().mean()
        )
        for method in ("ddim", "dpmsolver++", "unipc")
    }  # fmt: skip
    assert far["dpmsolver++"] < far["ddim"]
    assert far["unipc"] < far["ddim"]


class Says(nn.Module):
    """Answers with the class number in every pixel."""

    def forward(self, noisy: Tensor, times: Tensor, *, class_labels: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (class_labels.to(noisy.dtype).view(-1, 1, 1, 1).expand(-1, 2, *noisy.shape[2:]).contiguous(),)


def guided(scale: float, *, classifier: nn.Module | None = None, classifier_scale: float = 0.0) -> Denoiser:
    return Denoiser(
        Says(),
        torch.tensor([0, 2]),
        configuration=replace(UNCONDITIONAL, class_cond=True, num_classes=3, null_class=True, learn_sigma=True),
        schedule=SCHEDULES["linear"],
        settings=SamplerSettings(guidance_scale=scale, classifier_scale=classifier_scale),
        classifier=classifier,
    )


def test_classifier_free_guidance_goes_on_from_no_class_to_the_class() -> None:
    noisy = torch.zeros(2, 1, 4, 4)
    left = float(SCHEDULES["linear"].alphas_cumprod[10])
    image, variance = guided(3.0)(noisy, 10)
    # No class is number 3; the noise is 3 + 3 * (class - 3), the variance the class's own.
    expected = -((1 / left - 1) ** 0.5) * torch.tensor([3 + 3 * (0.0 - 3), 3 + 3 * (2.0 - 3)])
    assert torch.allclose(image[:, 0, 0, 0], expected.clamp(-1, 1))
    assert variance is not None
    assert variance[:, 0, 0, 0].tolist() == [0, 2]
    unguided, _ = guided(1.0)(noisy, 10)
    assert torch.allclose(unguided[:, 0, 0, 0], -((1 / left - 1) ** 0.5) * torch.tensor([0.0, 2.0]))


class Mixes(nn.Module):
    """Answers with the mean class number of rows of weights in every pixel."""

    def forward(self, noisy: Tensor, times: Tensor, *, class_labels: Tensor, return_dict: bool) -> tuple[Tensor]:
        numbers = class_labels @ torch.arange(class_labels.shape[1]).float()
        return (numbers.view(-1, 1, 1, 1).expand(-1, 2, *noisy.shape[2:]).contiguous(),)


SOFT = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.25, 0.5]])


def test_guidance_goes_on_from_no_class_to_a_mixture_of_classes() -> None:
    noisy = torch.zeros(2, 1, 4, 4)
    left = float(SCHEDULES["linear"].alphas_cumprod[10])
    image, variance = replace(guided(3.0), network=Mixes(), labels=SOFT)(noisy, 10)
    expected = -((1 / left - 1) ** 0.5) * torch.tensor([3 + 3 * (0.0 - 3), 3 + 3 * (1.25 - 3)])
    assert torch.allclose(image[:, 0, 0, 0], expected.clamp(-1, 1))
    assert variance is not None
    assert variance[:, 0, 0, 0].tolist() == [0, 1.25]


def test_classifier_guidance_to_a_mixture_of_classes_is_the_mixture_of_the_gradients() -> None:
    denoiser = replace(guided(1.0, classifier=Linear(), classifier_scale=2.0), labels=SOFT)
    gradient = denoiser.gradient(torch.zeros(2, 1, 4, 4), 10)
    assert gradient is not None
    # As below, with the mean k of each row: 0 and 1.25.
    assert torch.allclose(gradient[:, 0, 0, 0], 2.0 * torch.tensor([-1.0, 0.25]) / 16)


class Linear(nn.Module):
    """Logits that are the image's mean times 0, 1, 2."""

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None] * torch.arange(3)


def test_classifier_guidance_is_the_gradient_of_the_log_probability() -> None:
    noisy = torch.zeros(2, 1, 4, 4)
    denoiser = guided(1.0, classifier=Linear(), classifier_scale=2.0)
    gradient = denoiser.gradient(noisy, 10)
    assert gradient is not None
    # d/dx of k m - logsumexp(0, m, 2 m) at m = 0 is (k - 1) / pixels.
    assert torch.allclose(gradient, (2.0 * torch.tensor([-1.0, 1.0]) / 16).view(2, 1, 1, 1).expand(2, 1, 4, 4))
    left = float(SCHEDULES["linear"].alphas_cumprod[10])
    image, _ = denoiser(noisy, 10)
    # The noise less sqrt(1 - abar) times the gradient, and the image that follows from it.
    assert torch.allclose(denoiser.guided(noisy, 10), image + (1 - left) / left**0.5 * gradient)
    assert guided(1.0, classifier=Linear()).gradient(noisy, 10) is None


@pytest.mark.parametrize(
    ("method", "steps", "message"),
    [
        ("ddpm", 1001, "1001 steps of a diffusion that has 1000 timesteps"),
        ("unipc", 1001, "1001 steps of a diffusion that has 1000 timesteps"),
        ("dpmsolver++", 1000, "dpmsolver\\+\\+ is for few steps: 1000 of 1000 timesteps would take some twice"),
    ],
)
def test_too_many_steps(method: str, steps: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample(KnowsTheData(SCHEDULES["linear"]), SCHEDULES["linear"], start=torch.zeros(1, 1, 4, 4), method=method,
               steps=steps)  # fmt: skip


def test_bfloat16_is_the_networks_alone() -> None:
    network = nn.Conv2d(1, 1, 1)
    seen: list[torch.dtype] = []

    class Wrapped(nn.Module):
        def forward(self, noisy: Tensor, times: Tensor, **_: Any) -> tuple[Tensor]:
            values = network(noisy)
            seen.append(values.dtype)
            return (values,)

    make: Callable[..., Tensor] = sample
    values = make(Wrapped(), SCHEDULES["linear"], start=torch.zeros(1, 1, 4, 4), steps=2, precision="bfloat16")
    assert seen == [torch.bfloat16] * 2
    assert values.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "euler"}, "method must be one of ddpm, ddim, dpmsolver\\+\\+, unipc, got 'euler'"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16"),
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"eta": 0.5, "method": "ddpm"}, "eta is ddim's, from 0 to 1, got 0.5 with ddpm"),
        ({"eta": 1.5}, "eta must be from 0 to 1, got 1.5"),
        ({"guidance_scale": -1}, "guidance_scale must be at least 0, got -1"),
        ({"classifier_scale": float("nan")}, "classifier_scale must be at least 0, got nan"),
        ({"classifier_scale": "1"}, "classifier_scale must be a number"),
        ({"sampler": "ddim"}, "no such option: sampler; there are method, steps"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplerSettings.of(settings)


def test_settings_go_through_json() -> None:
    settings = SamplerSettings(method="ddpm", steps=100, guidance_scale=2)
    assert SamplerSettings.of(settings.to_json()) == settings
    assert SamplerSettings.of(None) == SamplerSettings() == SamplerSettings.of({})
    with pytest.raises(InputError, match="expected SamplerSettings or a mapping, got a str"):
        SamplerSettings.of("ddim")  # type: ignore[arg-type]
