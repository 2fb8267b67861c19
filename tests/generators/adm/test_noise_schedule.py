"""The noise schedules, against the papers' formulas, and which timesteps are kept."""

import json
import math
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm import ADMConfiguration, NoiseSchedule
from genmix_transforms.generators.adm.noise_schedule import save_scheduler, spaced_timesteps, widest_float

LINEAR, COSINE = NoiseSchedule.named("linear"), NoiseSchedule.named("cosine")


def test_the_linear_schedule_is_ho_et_als() -> None:
    assert LINEAR.betas[0] == pytest.approx(1e-4, abs=1e-12)
    assert LINEAR.betas[-1] == pytest.approx(0.02, abs=1e-12)
    assert torch.allclose(LINEAR.betas.diff(), LINEAR.betas.diff()[0], atol=1e-12)
    assert NoiseSchedule.named("linear", 500).alphas_cumprod[-1] == pytest.approx(
        float(LINEAR.alphas_cumprod[-1]), rel=0.2
    )


def test_the_cosine_schedule_is_nichol_and_dhariwals() -> None:
    def f(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    for step in (0, 1, 500, 998):
        assert COSINE.alphas_cumprod[step] == pytest.approx(f((step + 1) / 1000) / f(0), rel=1e-9)
    assert COSINE.betas[-1] == 0.999


@pytest.mark.parametrize(("schedule", "name"), [(LINEAR, "linear"), (COSINE, "squaredcos_cap_v2")])
def test_they_are_diffusers_too(schedule: NoiseSchedule, name: str) -> None:
    theirs = DDPMScheduler(beta_schedule=name, timestep_spacing="linspace")
    assert torch.allclose(schedule.betas, theirs.betas.double(), atol=3e-8)
    for steps in (10, 25, 100, 250):
        theirs.set_timesteps(steps)
        assert torch.equal(schedule.respaced(steps).timesteps.flip(0), theirs.timesteps)


@given(st.sampled_from([LINEAR, COSINE]), st.integers(2, 1000), st.sampled_from(["linspace", "leading"]))
def test_fewer_steps_go_through_the_same_noise_levels(schedule: NoiseSchedule, steps: int, spacing: str) -> None:
    respaced = schedule.respaced(steps, spacing=spacing)
    assert torch.allclose(respaced.alphas_cumprod, schedule.alphas_cumprod[respaced.timesteps], rtol=1e-9)
    assert len(respaced) == len(respaced.timesteps.unique()) == steps
    assert (respaced.betas > 0).all()
    assert (respaced.betas < 1).all()


@given(st.integers(1, 1200), st.data())
def test_timesteps_begin_at_zero_and_are_in_order(count: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, count))
    for spacing in ("linspace", "leading"):
        kept = spaced_timesteps(count, steps, spacing=spacing)
        assert kept[0] == 0
        assert kept[-1] < count
        assert (kept.diff() > 0).all()
    if steps > 1:
        assert spaced_timesteps(count, steps)[-1] == count - 1


def test_ddims_timesteps_are_multiples_of_the_stride() -> None:
    assert spaced_timesteps(1000, 25, spacing="leading").tolist() == list(range(0, 1000, 40))


@given(st.sampled_from([LINEAR, COSINE, COSINE.respaced(25)]), st.integers(0, 24))
def test_the_posterior_is_bayes(schedule: NoiseSchedule, t: int) -> None:
    """q(x_(t-1) | x_t, x_0) from the two Gaussians it is the product of."""
    if t == 0:
        assert schedule.posterior_variance[0] == 0
        assert schedule.posterior_log_variance[0] == schedule.posterior_log_variance[1]
        return
    prior_mean, prior_variance = schedule.alphas_cumprod[t - 1].sqrt(), 1 - schedule.alphas_cumprod[t - 1]
    scale, step_variance = (1 - schedule.betas[t]).sqrt(), schedule.betas[t]
    variance = 1 / (1 / prior_variance + scale**2 / step_variance)
    assert schedule.posterior_variance[t] == pytest.approx(float(variance), rel=1e-9)
    assert schedule.posterior_log_variance[t] == pytest.approx(float(variance.log()), rel=1e-9)
    assert schedule.posterior_weight_image[t] == pytest.approx(float(variance * prior_mean / prior_variance), rel=1e-9)
    assert schedule.posterior_weight_noisy[t] == pytest.approx(float(variance * scale / step_variance), rel=1e-9)


def test_a_single_step_has_finite_numbers() -> None:
    single = LINEAR.respaced(1)
    assert single.timesteps.tolist() == [0]
    assert torch.isfinite(single.posterior_log_variance).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LINEAR.respaced(1001), "1001 steps of a diffusion that has 1000 timesteps; give at most 1000"),
        (lambda: LINEAR.respaced(0), "steps must be a whole number, at least 1, got 0"),
        (lambda: LINEAR.respaced(2.5), "steps must be a whole number"),
        (lambda: LINEAR.respaced(10, spacing="trailing"), "spacing must be one of linspace, leading, got 'trailing'"),
        (lambda: NoiseSchedule.named("sigmoid"), "noise_schedule must be one of linear, cosine, got 'sigmoid'"),
        (lambda: NoiseSchedule.named("linear", 0), "diffusion_steps must be a whole number, at least 1"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(("learn_sigma", "variance"), [(True, "learned_range"), (False, "fixed_large")])
def test_the_scheduler_says_what_ours_does(learn_sigma: bool, variance: str, tmp_path: Path) -> None:
    save_scheduler(tmp_path / "scheduler", ADMConfiguration(learn_sigma=learn_sigma, diffusion_steps=500))
    config = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert (config["variance_type"], config["timestep_spacing"], config["clip_sample"]) == (variance, "linspace", True)
    assert config["num_train_timesteps"] == len(config["trained_betas"]) == 500


def test_tables_are_in_float32_where_a_device_has_nothing_wider() -> None:
    assert widest_float("mps") == torch.float32
    assert widest_float("cpu") == widest_float(torch.device("cuda", 1)) == torch.float64
