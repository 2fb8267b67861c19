"""The loss against diffusers' own noise, velocities and losses."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.loss import NoiseLoss

CONFIG = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", ["scaled_linear", "squaredcos_cap_v2"])
def test_it_is_diffusers(prediction: str, schedule: str) -> None:
    config = {**CONFIG, "prediction_type": prediction, "beta_schedule": schedule, "_class_name": "DDIMScheduler"}
    loss, theirs = NoiseLoss(config), DDPMScheduler.from_config(config)
    torch.manual_seed(0)
    latents, added, said = torch.randn(3, 5, 4, 4, 4).unbind()
    timesteps = torch.tensor([0, 1, 500, 998, 999])
    assert loss.timesteps == 1000
    assert torch.allclose(loss.noisy(latents, added, timesteps), theirs.add_noise(latents, added, timesteps), atol=1e-6)
    target = added if prediction == "epsilon" else theirs.get_velocity(latents, added, timesteps)
    assert torch.allclose(loss.target(latents, added, timesteps), target, atol=1e-6)
    each = loss(said, latents, added, timesteps)
    assert each.shape == (5,)
    assert each.mean() == pytest.approx(F.mse_loss(said, target).item(), rel=1e-5)
    assert loss(said.bfloat16(), latents, added, timesteps).dtype == torch.float32


def test_a_config_that_does_not_say_predicts_the_noise() -> None:
    assert NoiseLoss(CONFIG).prediction == "epsilon"


def test_another_prediction() -> None:
    with pytest.raises(
        InputError, match="predicts 'sample' .prediction_type.; .*one that predicts epsilon or v_predic"
    ):
        NoiseLoss({**CONFIG, "prediction_type": "sample"})
