"""Sampling: held to diffusers' own pipelines on the same latents, and every image to its own seed and prompt."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    LDMTextToImagePipeline,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import scheduling_ddim
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.randomness import noise
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.sampling import draw_images, make_scheduler
from genmix_transforms.generators.textual_inversion.settings import SamplerSettings

PROMPTS = ["ultrasound of a cyst", "lung scan", "benign tumour of the breast"]
SEEDS = [7, 2**40, 3, 11, 12]
SOLVERS = {
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


def context(model: LatentDiffusion, *prompts: str) -> Tensor:
    ids = model.tokenizer(
        list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        return model.encode_text(ids)


def sample(
    model: LatentDiffusion,
    which: list[int],
    seeds: list[int],
    *,
    start: Callable[[Tensor], Tensor] | None = None,
    **settings: Any,
) -> Tensor:
    """Images of ``PROMPTS``, as the generator will ask for them."""
    chosen = SamplerSettings(**{"batch_size": 2, **settings})
    images = torch.full((len(seeds), 3, model.native_size, model.native_size), torch.nan)
    for here, values in draw_images(
        model,
        contexts=context(model, *PROMPTS),
        which=torch.tensor(which, dtype=torch.int64),
        negative=context(model, chosen.negative_prompt)[0],
        seeds=torch.tensor(seeds, dtype=torch.int64),
        settings=chosen,
        start=start,
    ):
        images[here] = values
    return images


def as_pipelines_show(images: Tensor) -> Tensor:
    return (images / 2 + 0.5).clamp(0, 1)


@pytest.fixture(scope="module")
def stable_diffusion_pipeline(stable_diffusion_folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def ldm_pipeline(ldm_folder: Path) -> LDMTextToImagePipeline:
    pipeline = LDMTextToImagePipeline.from_pretrained(ldm_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def drawn_by_pipeline(
    stable_diffusion: LatentDiffusion, stable_diffusion_pipeline: Any
) -> Iterator[Callable[..., Tensor]]:
    """What Stable Diffusion's pipeline draws of ``PROMPTS`` from the latents of seeds, with a scheduler set."""
    before = stable_diffusion_pipeline.scheduler

    def draw(which: list[int], seeds: list[int], *, method: str = "ddim", **options: Any) -> Tensor:
        stable_diffusion_pipeline.scheduler = SOLVERS[method].from_config(before.config)
        return stable_diffusion_pipeline(
            [PROMPTS[number] for number in which],
            latents=noise(seeds, stable_diffusion.latent_shape),
            output_type="pt",
            **options,
        ).images

    yield draw
    stable_diffusion_pipeline.scheduler = before


def test_ldm_as_published(ldm: LatentDiffusion, ldm_pipeline: Any) -> None:
    """DDIM, 50 steps, eta 0, scale 10: the pipeline of the paper's model, on the same latents."""
    theirs = ldm_pipeline(
        PROMPTS, num_inference_steps=50, guidance_scale=10.0, eta=0.0, latents=noise(SEEDS[:3], ldm.latent_shape),
        output_type="pt",
    ).images  # fmt: skip
    ours = sample(ldm, [0, 1, 2], SEEDS[:3])
    assert torch.allclose(as_pipelines_show(ours), theirs, atol=1e-5)
    assert (ours[0] - ours[1]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("method", "steps", "scale"),
    [("ddim", 50, 10.0), ("dpmsolver++", 20, 10.0), ("unipc", 20, 10.0), ("ddim", 10, 1.0), ("unipc", 10, 1.0)],
)
def test_stable_diffusion(
    stable_diffusion: LatentDiffusion, drawn_by_pipeline: Callable[..., Tensor], method: str, steps: int, scale: float
) -> None:
    theirs = drawn_by_pipeline([0, 1], SEEDS[:2], method=method, num_inference_steps=steps, guidance_scale=scale)
    ours = sample(stable_diffusion, [0, 1], SEEDS[:2], method=method, steps=steps, guidance_scale=scale)
    assert torch.allclose(as_pipelines_show(ours), theirs, atol=1e-5)


def test_negative_prompts(stable_diffusion: LatentDiffusion, drawn_by_pipeline: Callable[..., Tensor]) -> None:
    options = {"num_inference_steps": 10, "guidance_scale": 6.0}
    theirs = drawn_by_pipeline([0, 1], SEEDS[:2], negative_prompt=["text, arrows"] * 2, **options)
    ours = sample(stable_diffusion, [0, 1], SEEDS[:2], steps=10, guidance_scale=6.0, negative_prompt="text, arrows")
    assert torch.allclose(as_pipelines_show(ours), theirs, atol=1e-5)
    without = sample(stable_diffusion, [0, 1], SEEDS[:2], steps=10, guidance_scale=6.0)
    assert (ours - without).abs().max() > 1e-3


@pytest.mark.parametrize("method", list(SOLVERS))
def test_velocity_prediction(
    stable_diffusion: LatentDiffusion, drawn_by_pipeline: Callable[..., Tensor], stable_diffusion_pipeline: Any,
    method: str,
) -> None:  # fmt: skip
    """A network that predicts the velocity, as Stable Diffusion 2.1 does: held to the pipeline, and not as if noise."""
    model = copy.copy(stable_diffusion)
    model.scheduler_config = {**stable_diffusion.scheduler_config, "prediction_type": "v_prediction"}
    kept = stable_diffusion_pipeline.scheduler
    stable_diffusion_pipeline.scheduler = SOLVERS[method].from_config(model.scheduler_config)
    theirs = stable_diffusion_pipeline(
        PROMPTS[:2], num_inference_steps=10, guidance_scale=4.0, latents=noise(SEEDS[:2], model.latent_shape),
        output_type="pt",
    ).images  # fmt: skip
    stable_diffusion_pipeline.scheduler = kept
    ours = sample(model, [0, 1], SEEDS[:2], method=method, steps=10, guidance_scale=4.0)
    assert torch.allclose(as_pipelines_show(ours), theirs, atol=1e-5)
    as_noise = sample(stable_diffusion, [0, 1], SEEDS[:2], method=method, steps=10, guidance_scale=4.0)
    assert (as_noise - ours).abs().max() > 0.05


def test_the_noise_of_the_steps_is_each_images_own(
    stable_diffusion: LatentDiffusion, drawn_by_pipeline: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """eta 0.7: the pipeline, its random numbers replaced by those of the seeds' streams 1, 2, ..."""
    stream = iter(range(1, 100))
    monkeypatch.setattr(
        scheduling_ddim,
        "randn_tensor",
        lambda shape, **_: noise(SEEDS[:2], shape[1:], stream=next(stream)),
    )
    theirs = drawn_by_pipeline([0, 1], SEEDS[:2], num_inference_steps=8, guidance_scale=3.0, eta=0.7)
    ours = sample(stable_diffusion, [0, 1], SEEDS[:2], steps=8, guidance_scale=3.0, eta=0.7)
    assert torch.allclose(as_pipelines_show(ours), theirs, atol=1e-5)
    assert next(stream) == 9
    still = sample(stable_diffusion, [0, 1], SEEDS[:2], steps=8, guidance_scale=3.0)
    assert (still - ours).abs().max() > 0.05


@pytest.mark.parametrize(
    ("model", "method", "eta"),
    [
        ("ldm", "ddim", 1.0),
        ("ldm", "unipc", 0.0),
        ("stable_diffusion", "ddim", 0.0),
        ("stable_diffusion", "dpmsolver++", 0.0),
    ],
)
def test_an_image_does_not_depend_on_its_neighbours(
    model: str, method: str, eta: float, request: pytest.FixtureRequest
) -> None:
    """Several classes in one batch, in any order and number, are bit for bit what each is alone."""
    base = request.getfixturevalue(model)
    options: dict[str, Any] = {"method": method, "eta": eta, "steps": 3, "batch_size": 3}
    which = [0, 1, 2, 1, 0]
    together = sample(base, which, SEEDS, **options)
    for number in (1, 2, 4):
        alone = sample(base, [which[number]], [SEEDS[number]], **options)
        assert torch.equal(alone[0], together[number])
    backwards = sample(base, which[::-1], SEEDS[::-1], **options)
    assert torch.equal(backwards.flip(0), together)
    assert len({float(image.sum()) for image in together}) == 5


@pytest.fixture
def passes(stable_diffusion: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many latents go through the U-Net at each pass."""
    seen: list[int] = []
    denoise = stable_diffusion.denoise

    def counted(latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        seen.append(len(latents))
        assert len(timesteps) == len(context) == len(latents)
        return denoise(latents, timesteps, context)

    monkeypatch.setattr(stable_diffusion, "denoise", counted)
    return seen


def test_without_guidance_there_is_no_second_pass(stable_diffusion: LatentDiffusion, passes: list[int]) -> None:
    sample(stable_diffusion, [0, 1, 2], SEEDS[:3], steps=3, guidance_scale=1.0)
    assert passes == [2, 2, 2] * 2
    passes.clear()
    sample(stable_diffusion, [0, 1, 2], SEEDS[:3], steps=3, guidance_scale=2.0)
    assert passes == [4, 4, 4] * 2


def latents_of(model: LatentDiffusion, images: Tensor) -> Callable[[Tensor], Tensor]:
    """What images start from: means of latents, by their place in the whole."""
    with torch.no_grad():
        mean, _ = model.encode_images(images)
    return lambda places: mean[places]


REAL = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1


@pytest.mark.parametrize("method", list(SOLVERS))
@pytest.mark.parametrize("strength", [0.3, 0.65, 1.0])
def test_from_a_real_image(
    stable_diffusion: LatentDiffusion, stable_diffusion_pipeline: Any, method: str, strength: float, passes: list[int]
) -> None:
    """SDEdit, as ``StableDiffusionImg2ImgPipeline`` has it: the same timesteps, noise and images."""
    parts = dict(stable_diffusion_pipeline.components)
    parts["scheduler"] = SOLVERS[method].from_config(parts["scheduler"].config)
    pipeline = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    seen: list[int] = []
    start = latents_of(stable_diffusion, REAL)
    # Given latents, it takes them as they are: the noise is what it draws, here replaced by that of the seeds.
    module = __import__(type(pipeline).__module__, fromlist=["randn_tensor"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", lambda shape, **_: noise(SEEDS[:2], shape[1:]))
        theirs = pipeline(
            PROMPTS[:2], image=start(torch.arange(2)), strength=strength, num_inference_steps=10, guidance_scale=5.0,
            output_type="pt", callback_on_step_end=lambda _, __, at, kwargs: (seen.append(int(at)), kwargs)[1],
        ).images  # fmt: skip
    ours = sample(
        stable_diffusion, [0, 1], SEEDS[:2], method=method, steps=10, guidance_scale=5.0, strength=strength, start=start
    )
    assert torch.allclose(as_pipelines_show(ours), theirs, atol=1e-5)
    assert len(passes) == len(seen) == int(10 * strength)


def test_the_fewer_steps_the_nearer_to_the_real_image(ldm: LatentDiffusion) -> None:
    start = latents_of(ldm, REAL)
    with torch.no_grad():
        seen = ldm.decode(start(torch.arange(2)))
    far = [
        float((sample(ldm, [0, 1], SEEDS[:2], strength=strength, start=start, guidance_scale=1.0) - seen).abs().mean())
        for strength in (0.02, 0.5, 0.9)
    ]
    assert far == sorted(far)
    assert far[0] < 0.3 * far[2]


def test_starts_are_each_images_own(ldm: LatentDiffusion) -> None:
    start = latents_of(ldm, REAL)
    asked: list[list[int]] = []

    def recorded(places: Tensor) -> Tensor:
        asked.append(places.tolist())
        return start(places)

    together = sample(ldm, [0, 1, 2, 1, 0], SEEDS, strength=0.5, steps=6, start=recorded)
    assert asked == [[0, 1], [2, 3], [4]]
    last = sample(ldm, [0], SEEDS[4:], strength=0.5, steps=6, start=lambda _: start(torch.tensor([4])))
    assert torch.equal(last[0], together[4])


def test_bfloat16_is_the_networks_alone(stable_diffusion: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    layer = stable_diffusion.unet.conv_in
    hook = layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    half = sample(stable_diffusion, [0, 1], SEEDS[:2], steps=5, precision="bfloat16")
    hook.remove()
    assert seen == [(torch.float32, torch.bfloat16)] * 5
    assert half.dtype == torch.float32
    whole = sample(stable_diffusion, [0, 1], SEEDS[:2], steps=5)
    assert (half - whole).abs().mean() < 0.05


# Schedulers


def test_a_scheduler_of_another_kind_gives_its_schedule_alone() -> None:
    """Stable Diffusion 1 comes with PNDM, whose configuration knows no clipping; DDIM's own default would clip."""
    config = dict(
        PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1).config
    )
    config["_class_name"] = "PNDMScheduler"
    scheduler = make_scheduler(config, SamplerSettings(steps=50))
    assert isinstance(scheduler, DDIMScheduler)
    assert scheduler.config.clip_sample is False
    assert scheduler.timesteps.tolist() == list(range(981, 0, -20))
    assert scheduler.timesteps.device.type == "cpu"
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert torch.allclose(scheduler.betas, betas)
    stochastic = {**config, "algorithm_type": "sde-dpmsolver++", "solver_order": 3}
    solver = make_scheduler(stochastic, SamplerSettings.of("fast"))
    assert (solver.config.algorithm_type, solver.config.solver_order) == ("dpmsolver++", 2)


def test_clipping_that_a_model_asks_for_is_kept(stable_diffusion: LatentDiffusion) -> None:
    config = {**stable_diffusion.scheduler_config, "clip_sample": True}
    assert make_scheduler(config, SamplerSettings()).config.clip_sample is True


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"prediction_type": "sample"},
            "predicts epsilon or v_prediction.*a DDIMScheduler of prediction_type 'sample'",
        ),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "beta_schedule": ...}, "came with a FlowMatchEuler"),
    ],
)
def test_a_model_that_predicts_something_else(
    stable_diffusion: LatentDiffusion, config: dict[str, Any], message: str
) -> None:
    changed = {**stable_diffusion.scheduler_config, **config}
    changed = {key: value for key, value in changed.items() if value is not ...}
    with pytest.raises(InputError, match=message):
        make_scheduler(changed, SamplerSettings())


@pytest.mark.parametrize(
    ("method", "steps"), [("ddim", 1000), ("ddim", 1001), ("unipc", 1001), ("dpmsolver++", 2000), ("dpmsolver++", 1000)]
)
def test_too_many_steps(ldm: LatentDiffusion, method: str, steps: int) -> None:
    message = rf"{steps} steps of {method.replace('+', '.')} do not fit a diffusion of 1000 timesteps; take fewer"
    with pytest.raises(InputError, match=message):
        sample(ldm, [0], [1], method=method, steps=steps)


def test_a_strength_needs_real_images(ldm: LatentDiffusion) -> None:
    with pytest.raises(InputError, match="real images .strength 0.5., and there are none: give the training set"):
        sample(ldm, [0], [1], strength=0.5)
