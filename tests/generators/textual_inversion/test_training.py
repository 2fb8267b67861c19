"""One training step: whose rows move, exact gradients however prompts and batches are shared, and the loss."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators.frozen import FrozenWeights
from genmix_transforms.generators.lora import add_adapters
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.randomness import DataOrder
from genmix_transforms.generators.state import weights_hash
from genmix_transforms.generators.textual_inversion import latents
from genmix_transforms.generators.textual_inversion.latents import Posteriors
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.settings import TextualInversionSettings
from genmix_transforms.generators.textual_inversion.training import NoiseLoss, TextualInversionTraining
from tests.generators.textual_inversion.tiny_generators import make_ti
from tests.pretend_cuda import DEVICE, PretendCuda

CLASSES = ("cyst", "metastasis", "normal")
IMAGES = torch.randint(0, 256, (12, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(12) % 3
PATCHES = PatchDataset(images=IMAGES, labels=LABELS, classes=CLASSES, name="few")
INDEX = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])


@pytest.fixture(params=["ldm", "stable_diffusion"])
def base(request: pytest.FixtureRequest) -> LatentDiffusion:
    model: LatentDiffusion = request.getfixturevalue(request.param)
    return model


def make(
    model: LatentDiffusion,
    *,
    kind: type[TextualInversionTraining] = TextualInversionTraining,
    device: str | torch.device = "cpu",
    **options: Any,
) -> TextualInversionTraining:
    given = {"steps": 10, "batch_size": 8, "learning_rate": 0.01, **options}
    generator = make_ti(model, classes=CLASSES)
    return kind(
        model,
        embeddings=generator.embeddings,
        prompts=generator.prompt_ids(),
        dataset=PATCHES,
        order=lambda start, stop: INDEX,
        settings=TextualInversionSettings.of(given, name="test"),
        processes=Processes(0, 1, torch.device(device)),
    )


def step(training: TextualInversionTraining, *, seed: int = 0, index: Tensor = INDEX, images_seen: int = 0) -> Tensor:
    training.order = lambda start, stop: index
    torch.manual_seed(seed)
    return training.training_step(index, LABELS[index], images_seen)["mse"]


def gradients_of(training: TextualInversionTraining, **options: Any) -> tuple[list[Tensor | None], Tensor]:
    """Those that the optimiser steps with, and the loss."""
    caught: list[Tensor | None] = []
    handle = training.optimiser.register_step_pre_hook(
        lambda *_: caught.extend(None if row.grad is None else row.grad.clone() for row in training.rows.parameters())
    )
    loss = step(training, **options)
    handle.remove()
    return caught, loss


def assert_same(one: TextualInversionTraining, other: TextualInversionTraining, **options: Any) -> None:
    (there, loss), (here, other_loss) = gradients_of(one, **options), gradients_of(other, **options)
    assert loss == pytest.approx(float(other_loss), rel=1e-5)
    for a, b in zip(there, here, strict=True):
        assert a is not None
        assert b is not None
        assert a.abs().max() > 1e-5
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_the_gradient_is_that_of_the_equation(base: LatentDiffusion) -> None:
    """Gal et al., equation 2, once more in plain steps, each image with a prompt of its own."""
    training = make(base)
    got, loss = gradients_of(training)
    rows = torch.cat(list(make_ti(base, classes=CLASSES).embeddings.values())).requires_grad_()
    torch.manual_seed(0)
    drawn = torch.randint(0, training.prompts.shape[1], (3,))
    ids = torch.stack([training.prompts[label, drawn[label]] for label in LABELS[INDEX]])
    mean, std = Posteriors(base, IMAGES)(INDEX)
    latents = mean + std * torch.randn(8, 4, 4, 4)
    added = torch.randn(8, 4, 4, 4)
    timesteps = torch.randint(0, 1000, (8,))
    left = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square().neg().add(1).cumprod(0)[timesteps].view(8, 1, 1, 1)
    contexts = torch.cat([base.encode_text(one[None], rows=rows) for one in ids])
    said = base.denoise(left.sqrt() * latents + (1 - left).sqrt() * added, timesteps, contexts)
    expected = (said - added).square().mean()
    expected.backward()
    assert rows.grad is not None
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(got, rows.grad.split(2), strict=True):
        assert one is not None
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


class EachItsOwn(TextualInversionTraining):
    """Every image's prompt encoded by itself."""

    def choose_prompts(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        prompts, which = super().choose_prompts(classes)
        return prompts[which], torch.arange(len(classes))


@pytest.mark.parametrize("one_template", [True, False])
def test_encoding_a_prompt_once_is_exact(base: LatentDiffusion, one_template: bool) -> None:
    options = {"one_template_a_step": one_template}
    assert_same(make(base, **options), make(base, kind=EachItsOwn, **options))


def test_as_many_prompts_as_classes_or_images(ldm: LatentDiffusion) -> None:
    labels = LABELS[INDEX]
    for one_template in (True, False):
        training = make(ldm, one_template_a_step=one_template)
        torch.manual_seed(0)
        ids, which = training.choose_prompts(labels)
        assert len(ids) == (3 if one_template else len(which.unique()))
        assert len(ids) == len(ids.unique(dim=0))
        for label, own in zip(labels, ids[which], strict=True):
            assert any(torch.equal(own, prompt) for prompt in training.prompts[label])
    assert len(ids) > 3
    torch.manual_seed(1)
    assert len(make(ldm).choose_prompts(torch.tensor([1, 1]))[0]) == 1


@pytest.mark.parametrize("mirror", [False, True])
def test_cached_latents_give_the_losses_of_computed_ones(base: LatentDiffusion, mirror: bool) -> None:
    cached, computed = (make(base, cache_latents=cache, mirror=mirror) for cache in (True, False))
    for number in range(3):
        assert_same(cached, computed, seed=number)


@pytest.mark.parametrize("options", [{"accumulate": 3}, {"gradient_checkpointing": True}, {"accumulate": 8}])
def test_ways_to_save_memory_change_nothing(base: LatentDiffusion, options: dict[str, Any]) -> None:
    plain = make(base)
    expected, loss = gradients_of(plain)
    if options.get("gradient_checkpointing"):
        base.unet.enable_gradient_checkpointing()
    try:
        got, other = gradients_of(make(base, **options))
    finally:
        base.unet.disable_gradient_checkpointing()
    assert loss == pytest.approx(float(other), rel=1e-5)
    for a, b in zip(expected, got, strict=True):
        assert a is not None
        assert b is not None
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_checkpointing_keeps_fewer_activations(ldm: LatentDiffusion) -> None:
    kept = []
    latents, timesteps = torch.randn(8, 4, 4, 4), torch.arange(8)
    for checkpointing in (False, True):
        context = torch.randn(8, 77, 16, requires_grad=True)
        sizes: dict[int, int] = {}

        def count(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        if checkpointing:
            ldm.unet.enable_gradient_checkpointing()
        try:
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                ldm.denoise(latents, timesteps, context)
        finally:
            ldm.unet.disable_gradient_checkpointing()
        kept.append(sum(sizes.values()))
    assert kept[1] < kept[0] / 2


def state_of(training: TextualInversionTraining, number: int) -> dict[str, Tensor]:
    row = list(training.rows.parameters())[number]
    return {name: torch.as_tensor(value).clone() for name, value in training.optimiser.state.get(row, {}).items()}


def test_a_row_is_moved_by_images_of_its_own_class_alone(base: LatentDiffusion) -> None:
    training = make(base)
    step(training)  # all three classes, so that all have momentum
    before, states = training.rows.values(), [state_of(training, number) for number in range(3)]
    assert all(state["exp_avg"].abs().max() > 0 for state in states)
    only_first = torch.tensor([0, 3, 6, 9])
    for number in range(3):
        step(training, seed=number + 1, index=only_first)
    after = training.rows.values()
    assert not torch.equal(after[0], before[0])
    assert state_of(training, 0)["step"] == 4
    for number in (1, 2):
        assert torch.equal(after[number], before[number])  # bit for bit
        now = state_of(training, number)
        assert now.keys() == states[number].keys()
        assert all(torch.equal(now[name], states[number][name]) for name in now)


def test_nothing_of_the_base_model_moves_or_is_trained(base: LatentDiffusion) -> None:
    before = copy.deepcopy(base.state_dict())
    training = make(base)
    assert [parameter.shape for group in training.optimiser.param_groups for parameter in group["params"]] == [
        (2, 16)
    ] * 3
    for number in range(3):
        step(training, seed=number)
    after = base.state_dict()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert all(parameter.grad is None for parameter in base.parameters())
    assert base.learned.rows is None
    assert not any(module.training for module in base.modules())


def test_weight_decay_is_off_and_can_be_on(ldm: LatentDiffusion) -> None:
    plain, decayed = make(ldm), make(ldm, weight_decay=0.5)
    start = plain.rows.values()
    step(plain)
    step(decayed)
    for before, one, other in zip(start, plain.rows.values(), decayed.rows.values(), strict=True):
        assert torch.allclose(other, one - 0.01 * 0.5 * before, atol=1e-6)


def test_the_latents_are_drawn_anew_at_every_step(ldm: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    training = make(ldm)
    noisy = training.loss.noisy
    monkeypatch.setattr(training.loss, "noisy", lambda latents, *rest: (seen.append(latents), noisy(latents, *rest))[1])
    step(training, seed=0)
    step(training, seed=1)
    step(training, seed=0)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_half_of_the_images_are_mirrored(ldm: LatentDiffusion) -> None:
    seen = []
    training = make(ldm, mirror=True)
    posteriors = training.posteriors
    training.posteriors = lambda index, mirror: (seen.append(mirror), posteriors(index, mirror))[1]  # type: ignore[assignment]
    for number in range(20):
        step(training, seed=number)
    assert 0.35 < torch.cat(seen).float().mean() < 0.65


def test_bfloat16_goes_the_same_way(base: LatentDiffusion) -> None:
    expected, loss = gradients_of(make(base))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, other = gradients_of(make(base))
    assert other.dtype == torch.float32
    assert other == pytest.approx(float(loss), rel=0.02)
    for a, b in zip(expected, got, strict=True):
        assert a is not None
        assert b is not None
        assert b.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.98


@pytest.fixture
def adapted(ldm: LatentDiffusion) -> Callable[[], LatentDiffusion]:
    pytest.importorskip("peft")

    def make_model() -> LatentDiffusion:
        unet = copy.deepcopy(ldm.unet)
        model = ldm.with_unet(unet)
        add_adapters(unet, rank=2, seed=0)
        return model

    return make_model


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "gradient_checkpointing": True}])
def test_weights_cast_once_give_autocasts_gradients(base: LatentDiffusion, options: dict[str, Any]) -> None:
    """To the bit, and the base model is as it came."""
    before = weights_hash(base.state_dict())
    once, every_time = make(base, **options), make(base, **options)
    every_time.frozen = FrozenWeights(trained=())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, expected = gradients_of(once), gradients_of(every_time)
    assert torch.equal(got[1], expected[1])
    for one, other in zip(got[0], expected[0], strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
    assert weights_hash(base.state_dict()) == before


def test_adapters_beside_weights_cast_once_learn_the_same(adapted: Callable[[], LatentDiffusion]) -> None:
    trainings = [make(adapted(), tune="lora", lora_after=1, lora_learning_rate=0.01) for _ in range(2)]
    trainings[1].frozen = FrozenWeights(trained=())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [[step(one, seed=number, images_seen=8 * number) for number in range(3)] for one in trainings]
    assert losses[0] == losses[1]
    first, second = (one.adapters.state_dict() for one in trainings if one.adapters is not None)
    assert all(value.dtype == torch.float32 and torch.equal(value, second[name]) for name, value in first.items())
    assert {value.dtype for value in trainings[0].whole_model().state_dict().values() if value.is_floating_point()} == {
        torch.float32
    }


def test_adapters_learn_after_the_embeddings(adapted: Callable[[], LatentDiffusion], ldm: LatentDiffusion) -> None:
    options = {"tune": "lora", "lora_after": 2, "lora_learning_rate": 0.01}
    training, plain = make(adapted(), **options), make(ldm)
    assert training.adapters is not None
    start = copy.deepcopy(training.adapters.state_dict())
    for number in range(2):
        step(training, seed=number, images_seen=8 * number)
        step(plain, seed=number, images_seen=8 * number)
    # Until then they change nothing of what is learned, and nothing in them moves.
    for one, other in zip(training.rows.values(), plain.rows.values(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert all(torch.equal(start[name], value) for name, value in training.adapters.state_dict().items())
    step(training, seed=2, images_seen=16)
    moved = [name for name, value in training.adapters.state_dict().items() if not torch.equal(start[name], value)]
    assert moved
    assert all("lora_B" in name for name in moved)  # the other factor has no gradient while this one is zero
    before = weights_hash(ldm.unet.state_dict())
    step(training, seed=3, images_seen=24)
    assert weights_hash(ldm.unet.state_dict()) == before
    base = {name.replace(".base_layer.", "."): value for name, value in training.model.unet.state_dict().items()}
    assert all(torch.equal(base[name], value) for name, value in ldm.unet.state_dict().items())


def test_adapters_state_is_taken_up(adapted: Callable[[], LatentDiffusion]) -> None:
    training, other = (make(adapted(), tune="lora", lora_learning_rate=0.01) for _ in range(2))
    for number in range(2):
        step(training, seed=number)
    for name, item in other.state_objects().items():
        item.load_state_dict(copy.deepcopy(training.state_objects()[name].state_dict()))
    assert step(training, seed=5) == step(other, seed=5)
    for name in ("rows", "adapters"):
        one, two = (each.state_objects()[name].state_dict() for each in (training, other))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_result_is_a_copy(ldm: LatentDiffusion) -> None:
    training = make(ldm)
    before = training.result()
    kept = {name: rows.clone() for name, rows in before.items()}
    step(training)
    assert all(torch.equal(before[name], rows) for name, rows in kept.items())
    assert not torch.equal(training.result()["cyst"], before["cyst"])


@pytest.mark.parametrize("count", [1, 2])
def test_each_process_takes_its_share_of_the_order_and_knows_the_classes_of_all(
    ldm: LatentDiffusion, count: int
) -> None:
    order = DataOrder(len(PATCHES), seed=3)
    together = torch.zeros(3, dtype=torch.bool)
    for rank in range(count):
        training = make(ldm, batch_size=4)
        training.order, training.processes = order, Processes(rank, count, torch.device("cpu"))
        index, classes, present = training.batch(8)
        share = 4 // count
        assert torch.equal(index, order(8, 12)[rank * share : (rank + 1) * share])
        assert torch.equal(classes, LABELS[index])
        together[classes] = True
        assert present == [label in LABELS[order(8, 12)] for label in range(3)]
    assert together.tolist() == present


@pytest.mark.parametrize("options", [{}, {"mirror": True, "one_template_a_step": False, "accumulate": 2}])
def test_a_step_never_waits_for_the_device(ldm: LatentDiffusion, options: dict[str, Any]) -> None:
    with PretendCuda() as device:
        training = make(copy.deepcopy(ldm).to(DEVICE), device=DEVICE, **options)
        training.prepare(progress=False)
        index, labels = INDEX.to(DEVICE), LABELS[INDEX].to(DEVICE)
        for images_seen in (0, 8):
            with device.no_waiting():
                training.training_step(index, labels, images_seen)


def test_latents_kept_on_the_cpu_are_looked_up_there(ldm: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "MOST_BESIDE_THE_MODEL", 0)
    assert_same(make(ldm, mirror=True), make(ldm, mirror=True, cache_latents=False))


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
    with pytest.raises(InputError, match="predicts epsilon or v_prediction .*; .* prediction_type 'sample'"):
        NoiseLoss({**CONFIG, "prediction_type": "sample"})
