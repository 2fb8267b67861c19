"""One StyleGAN step: losses, R1 and its lazy form, rates, growth, mixing, augmentation, and that it learns."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators import StyleGAN
from genmix_transforms.generators.augmentation import POLICIES
from genmix_transforms.generators.pixels import to_signed_unit
from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.schedule import GrowingSchedule
from genmix_transforms.generators.stylegan.settings import StyleGANNetworkSettings, StyleGANSettings
from genmix_transforms.generators.stylegan.training import (
    FASTER,
    StyleGANTraining,
    r1_penalty,
    r1_weight,
)
from tests.pretend_cuda import DEVICE, PretendCuda

TinyStyleGAN = Callable[..., StyleGAN]


def make(generator: StyleGAN, *, start: int | None = None, images: int = 10_000, **options: Any) -> StyleGANTraining:
    """A training of this StyleGAN; ``start`` is the growth at the beginning, ``images`` are those of the run."""
    full = generator.network.full_growth
    settings = StyleGANSettings.of({"batch_size": 8, "augment": (), **options}, name="test")
    judge = generator.new_discriminator(minibatch_group=settings.minibatch_group)
    initialise(judge, seed=1)
    judge.to(generator.network.mean_w.device)
    training = StyleGANTraining(generator.network, judge, settings=settings, padding=generator.padding)
    training.schedule = GrowingSchedule(start=full if start is None else start, full=full, images=images)
    return training


def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(8, 1, 16, 16, generator=random) * 2 - 1, torch.arange(8) % 2


def gradients_of(training: StyleGANTraining) -> dict[str, list[Tensor]]:
    """What each optimiser is given at every step from now on."""
    seen: dict[str, list[Tensor]] = {}
    for name, optimiser in (
        ("generator", training.optimiser),
        ("discriminator", training.discriminator_optimiser),
    ):

        def hook(optimiser: torch.optim.Optimizer, *_: object, name: str = name) -> None:
            own = [parameter for group in optimiser.param_groups for parameter in group["params"]]
            seen[name] = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in own]

        optimiser.register_step_pre_hook(hook)
    return seen


@pytest.mark.parametrize(("interval", "images_seen", "weight"), [(1, 8, 1), (4, 0, 4), (4, 8, 0), (4, 32, 4)])
def test_the_discriminators_gradient_is_that_of_its_loss_and_of_r1(
    tiny_stylegan: TinyStyleGAN, interval: int, images_seen: int, weight: int
) -> None:
    torch.manual_seed(0)
    training = make(tiny_stylegan(), gamma=3.0, r1_interval=interval)
    images, labels = batch()
    painted: list[Tensor] = []
    training.network.synthesis.register_forward_hook(lambda *inputs: painted.append(inputs[2].detach()))
    judge = tiny_stylegan().new_discriminator()
    judge.load_state_dict(training.discriminator.state_dict())
    seen = gradients_of(training)
    losses = training.training_step(images, labels, images_seen)

    # In float64: written out, 1 - sigmoid(7) keeps four digits of float32.
    judge = judge.double()
    real_images = images.double().requires_grad_(True)
    real, fake = judge(real_images, labels), judge(painted[0].double(), labels)
    probability = torch.sigmoid
    loss = -(probability(real).log() + (1 - probability(fake)).log()).mean()
    assert losses["discriminator"].item() == pytest.approx(loss.item(), abs=1e-5)
    (slope,) = torch.autograd.grad(real.sum(), real_images, create_graph=True)
    penalty = slope.square().sum(dim=(1, 2, 3)).mean()
    assert losses["r1"].item() == pytest.approx(weight * penalty.item(), rel=1e-4)
    expected = torch.autograd.grad(
        loss + 3.0 / 2 * weight * penalty, list(judge.parameters()), materialize_grads=True, allow_unused=True
    )
    for got, want in zip(seen["discriminator"], expected, strict=True):
        assert torch.allclose(got.double(), want, rtol=1e-4, atol=1e-5)


def test_lazily_the_penalties_of_an_interval_add_up_to_those_of_every_step(tiny_stylegan: TinyStyleGAN) -> None:
    images, labels = batch()
    sums = {}
    for interval in (1, 4):
        training = make(tiny_stylegan(), learning_rate=1e-9, gamma=3.0, r1_interval=interval)
        sums[interval] = sum(training.training_step(images, labels, 8 * step)["r1"].item() for step in range(4))
    assert sums[4] == pytest.approx(sums[1], rel=1e-3)


def test_a_lazy_discriminators_clock_is_set_back(tiny_stylegan: TinyStyleGAN) -> None:
    every, lazy = make(tiny_stylegan()), make(tiny_stylegan(), r1_interval=16)
    images, labels = batch()
    for training in (every, lazy):
        training.training_step(images, labels, 0)
    assert every.discriminator_optimiser.param_groups[0]["betas"] == (0.0, 0.99)
    group = lazy.discriminator_optimiser.param_groups[0]
    assert group["lr"] == pytest.approx(0.001 * 16 / 17)
    assert group["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))
    assert lazy.optimiser.param_groups[0]["lr"] == 0.001
    assert lazy.optimiser.param_groups[0]["betas"] == (0.0, 0.99)


def test_the_generators_gradient_is_that_of_its_loss_alone(tiny_stylegan: TinyStyleGAN) -> None:
    training = make(tiny_stylegan(), style_mixing=0.0)
    reference = tiny_stylegan().network
    for network in (training.network, reference):  # without noise, the constant's norm divides by next to nothing
        for layer in network.synthesis.layers:
            torch.nn.init.constant_(layer.noise_strength, 0.5)
    images, labels = batch()
    seen = gradients_of(training)
    noise: list[Any] = []
    training.network.synthesis.register_forward_pre_hook(lambda _, inputs: noise.append(inputs[1]))
    latents: list[Tensor] = []
    training.network.mapping.register_forward_pre_hook(lambda _, inputs: latents.append(inputs[0]))
    training.training_step(images, labels, 0)
    fake = reference(latents[0][:8], labels, noise=noise[0])
    loss = F.softplus(-training.discriminator(fake, labels)).mean()  # the discriminator after its step
    expected = torch.autograd.grad(loss, list(reference.parameters()), materialize_grads=True, allow_unused=True)
    for got, want in zip(seen["generator"], expected, strict=True):
        assert torch.allclose(got, want, atol=1e-5 * max(1.0, want.abs().max().item()))


@pytest.mark.parametrize(("images_seen", "side"), [(0, 8), (4000, 16), (9000, 16)])
def test_the_step_works_at_the_size_that_the_schedule_says(
    tiny_stylegan: TinyStyleGAN, images_seen: int, side: int
) -> None:
    training = make(tiny_stylegan(), start=1, images=9000)
    sides: list[int] = []
    training.discriminator.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    training.training_step(*batch(), images_seen)
    assert set(sides) == {side}


def test_real_images_fade_with_the_network(tiny_stylegan: TinyStyleGAN) -> None:
    training = make(tiny_stylegan(), start=1, images=9000, r1_interval=2)
    seen: list[Tensor] = []
    training.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images, labels = batch()
    training.training_step(images, labels, 3750)  # a quarter of the fade from 8 to 16: 3000 to 6000
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2)
    assert torch.allclose(seen[0][:8], 0.75 * coarse + 0.25 * images, atol=1e-6)


def test_a_new_phase_forgets_adams_moments_and_sets_the_rate() -> None:
    generator = StyleGAN(classes=["a"], resolution=128, fmap_base=64, fmap_max=4, latent_size=4, mapping_layers=1)
    training = make(generator, start=4, images=3000, learning_rate=0.002)
    images, labels = torch.zeros(4, 1, 128, 128), torch.zeros(4, dtype=torch.int64)
    steps = []
    rates = []
    for images_seen in (0, 8, 1000, 1008, 2000):
        training.training_step(images, labels, images_seen)
        state = training.optimiser.state[training.network.synthesis.constant]
        steps.append(int(state["step"]))
        rates.append(training.optimiser.param_groups[0]["lr"])
    assert steps == [1, 2, 1, 2, 1]
    assert rates == [0.002, 0.002, 0.003, 0.003, 0.003]  # 128 pixels learn 1.5 times as fast


def test_styles_are_mixed_at_a_random_layer_and_keep_the_class(tiny_stylegan: TinyStyleGAN) -> None:
    training = make(tiny_stylegan(), style_mixing=0.9)
    ws: list[Tensor] = []
    pairs: list[tuple[Tensor, Tensor]] = []
    training.network.synthesis.register_forward_pre_hook(lambda _, inputs: ws.append(inputs[0].detach()))
    training.network.mapping.register_forward_hook(
        lambda _, inputs, out: pairs.append((inputs[1], out.detach()))  # type: ignore[misc]
    )
    images = torch.zeros(400, 1, 16, 16)
    labels = torch.arange(400) % 2
    torch.manual_seed(0)
    training.training_step(images, labels, 0)
    first, second = pairs[0][1].chunk(2)
    assert torch.equal(pairs[0][0], labels.repeat(2))
    is_first = torch.isclose(ws[0], first[:, None]).all(dim=-1)
    is_second = torch.isclose(ws[0], second[:, None]).all(dim=-1)
    assert (is_first ^ is_second).all()
    cutoffs = is_first.sum(dim=1)
    assert (is_first == (torch.arange(6) < cutoffs[:, None])).all()  # coarse layers from the first
    assert cutoffs.min() == 1
    assert (cutoffs == 6).float().mean().item() == pytest.approx(0.1, abs=0.05)
    for cutoff in range(1, 6):
        assert (cutoffs == cutoff).float().mean().item() == pytest.approx(0.18, abs=0.07)


def test_mixing_knows_only_the_layers_that_are_there(tiny_stylegan: TinyStyleGAN) -> None:
    training = make(tiny_stylegan(), start=1, images=9000, style_mixing=1.0)
    ws: list[Tensor] = []
    training.network.synthesis.register_forward_pre_hook(lambda _, inputs: ws.append(inputs[0]))
    training.training_step(*batch(), 0)
    assert ws[0].shape[1] == 4


def test_training_knows_no_truncation_and_tracks_the_mean(tiny_stylegan: TinyStyleGAN) -> None:
    training = make(tiny_stylegan(psi=0.0), style_mixing=0.0)
    seen: list[Tensor] = []
    training.network.mapping.register_forward_hook(lambda *inputs: seen.append(inputs[2].detach()))
    ws: list[Tensor] = []
    training.network.synthesis.register_forward_pre_hook(lambda _, inputs: ws.append(inputs[0].detach()))
    images, labels = batch()
    training.training_step(images, labels, 0)
    w = seen[0][:8]
    assert torch.equal(ws[0][:, 0], w)
    expected = torch.stack([0.005 * w[labels == label].mean(dim=0) for label in (0, 1)])
    assert torch.allclose(training.network.mean_w, expected, atol=1e-6)


def test_only_the_discriminators_view_is_augmented(tiny_stylegan: TinyStyleGAN) -> None:
    seen: list[Tensor] = []
    training = make(tiny_stylegan(), augment=("translation", "cutout"))
    training.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    training.training_step(torch.ones(8, 1, 16, 16), torch.zeros(8, dtype=torch.int64), 0)
    assert len(seen) == 3  # real, synthetic, and synthetic again for the generator
    holes = (seen[0] == 0).flatten(1).float().mean(1)
    assert (holes > 0).all()
    assert holes.std() > 0  # each image its own hole
    assert seen[2].requires_grad  # the generator learns through the augmentation


def test_the_adaptive_loop_sees_real_logits_and_sets_the_augmentation(tiny_stylegan: TinyStyleGAN) -> None:
    seen: list[Tensor] = []
    training = make(tiny_stylegan(), augment=("cutout",), augment_target=-0.99, augment_ramp=32)
    training.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images, labels = torch.ones(8, 1, 16, 16), torch.zeros(8, dtype=torch.int64)
    with torch.no_grad():
        training.discriminator.last.score.bias.fill_(50.0)  # sure of everything
    values = [training.training_step(images, labels, 8 * step) for step in range(5)]
    assert [round(value["augment_p"].item(), 3) for value in values] == [0, 0, 0, 1, 1]
    assert [value["real_sign"].item() for value in values] == [1] * 5
    assert (seen[0] != 0).all()  # p 0: no holes
    assert (seen[-3] == 0).flatten(1).any(dim=1).all()  # p 1: a hole in each


def test_mirrored_real_images(tiny_stylegan: TinyStyleGAN) -> None:
    seen: list[Tensor] = []
    training = make(tiny_stylegan(), mirror=True)
    training.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images, labels = torch.rand(200, 1, 16, 16), torch.zeros(200, dtype=torch.int64)
    training.training_step(images, labels, 0)
    flipped = (seen[0] == images.flip(-1)).flatten(1).all(dim=1)
    straight = (seen[0] == images).flatten(1).all(dim=1)
    assert (flipped ^ straight).all()
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.12)


def test_other_sizes_are_padded_by_mirroring() -> None:
    generator = StyleGAN(classes=["a"], resolution=13, fmap_base=64, fmap_max=8, latent_size=8)
    training = make(generator)
    seen: list[Tensor] = []
    training.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(4, 1, 13, 13)
    training.training_step(images, torch.zeros(4, dtype=torch.int64), 0)
    assert seen[0].shape == (4, 1, 16, 16)
    assert torch.equal(seen[0][..., 1:14, 1:14], images)
    assert torch.equal(seen[0][..., 1:14, 0], images[..., 1])
    assert torch.equal(seen[0][..., 1:14, 15], images[..., 10])


def test_the_snapshot_is_the_average_at_the_present_growth(tiny_stylegan: TinyStyleGAN) -> None:
    generator = tiny_stylegan()
    training = make(generator, start=1, images=90, learning_rate=0.01)
    for step in range(5):
        training.training_step(*batch(), step * 8)
    snapshot = generator.with_network(training.result())
    assert snapshot.network is training.average.average
    assert not torch.equal(snapshot.network.synthesis.constant, training.network.synthesis.constant)
    assert snapshot.network.growth.item() == pytest.approx(1 + 2 / 30, abs=1e-6)
    assert snapshot.sample([0, 1], [1, 2]).shape == (2, 1, 16, 16)


def test_bf16_leaves_r1_and_the_weights_wide(tiny_stylegan: TinyStyleGAN) -> None:
    training = make(tiny_stylegan(), r1_interval=2)
    kinds: list[torch.dtype] = []
    training.discriminator.blocks[0].conv.register_forward_hook(lambda *inputs: kinds.append(inputs[2].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for step in range(2):
            values = training.training_step(*batch(), 8 * step)
            assert all(math.isfinite(value.item()) for value in values.values())
    # With a penalty: real, synthetic, for the generator; without: both, for the generator.
    assert kinds == [torch.float32, *[torch.bfloat16] * 4]
    assert all(parameter.dtype == torch.float32 for parameter in training.network.parameters())


@pytest.mark.parametrize("phases", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_every_phase_runs_compiled(monkeypatch: pytest.MonkeyPatch, phases: int) -> None:
    """A phase has a graph of the synthesis and three of the discriminator; PyTorch makes eight, and then none."""
    ran: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        made.append(str(graph.graph))

        def run(*arguments: Any) -> Any:
            ran.append("graph")
            return graph(*arguments)

        return run

    made: list[str] = []
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    tiny = {"classes": ["a"], "resolution": 16, "fmap_base": 32, "fmap_max": 4, "latent_size": 4, "mapping_layers": 1}
    plain, compiled = (
        make(StyleGAN(**tiny), start=0, images=195, r1_interval=2, compiled=on)  # type: ignore[arg-type]
        for on in (False, True)
    )
    images, labels = batch()[0], torch.zeros(8, dtype=torch.int64)
    for phase in range(phases):
        made.clear()
        for step in range(2):
            ran.clear()
            images_seen = 40 * phase + 8 * step
            values = []
            for training in (plain, compiled):
                torch.manual_seed(images_seen)
                values.append([value.item() for value in training.training_step(images, labels, images_seen).values()])
            assert values[0] == pytest.approx(values[1], abs=0.01)  # sums in another order
            # The synthesis; the discriminator of both kinds of images, or with R1 of the synthetic ones alone, for the
            # real ones then go through the network as it is; and the discriminator for the generator.
            assert len(ran) == 3, (phase, step)
        assert len(made) == 4, phase


def test_a_step_never_waits_for_the_device(tiny_stylegan: TinyStyleGAN) -> None:
    with PretendCuda() as device:
        generator = tiny_stylegan().to(DEVICE)
        training = make(generator, start=1, images=90, augment=POLICIES, augment_target=0.6, mirror=True)
        images, labels = (values.to(DEVICE) for values in batch())
        for images_seen in (0, 40, 48, 80):
            with device.no_waiting():
                values = training.training_step(images, labels, images_seen)
            assert all(value.isfinite() for value in values.values())


@pytest.mark.slow
def test_it_learns_what_tells_the_classes_apart(
    tiny_stylegan: TinyStyleGAN, tiny_patches: Callable[..., PatchDataset]
) -> None:
    patches = tiny_patches(48)
    generator = tiny_stylegan(fmap_base=128, fmap_max=16)
    training = make(
        generator,
        start=1,
        images=3200,
        r1_interval=8,
        learning_rate=0.002,
        augment=("translation",),
        ema_half_life=500,
        batch_size=16,
    )
    images = to_signed_unit(patches.images)
    for step in range(200):
        torch.manual_seed(step)
        index = torch.randint(0, len(patches), (16,))
        training.training_step(images[index], patches.labels[index], step * 16)
    drawn = generator.with_network(training.result()).sample([0] * 32 + [1] * 32, list(range(64))).float()
    # Discs are dark, their reverse bright.
    real = [patches.images[patches.labels == label].float().mean() for label in (0, 1)]
    means = [drawn[:32].mean(), drawn[32:].mean()]
    assert real[1] - real[0] > 80
    assert means[1] - means[0] > 15
    assert drawn[:32].std(0).mean() > 5  # and images of a class differ


def test_two_processes_track_the_same_means(two_processes: Callable[[str], list[dict[str, Any]]]) -> None:
    """The mean w and the strength of the augmentation follow from everyone's batches."""
    for found in two_processes("stylegan_means"):
        assert found["differ"] == []
        assert found["mean_w"] > 0


def test_r1_of_a_plane_and_of_a_bowl() -> None:
    images = torch.randn(4, 2, 3, 3, requires_grad=True)
    slope = torch.randn(2, 3, 3)
    assert r1_penalty((images * slope).sum(dim=(1, 2, 3)), images).item() == pytest.approx(
        slope.square().sum().item(), rel=1e-5
    )
    bowl = images.square().sum(dim=(1, 2, 3))  # gradient 2 x
    penalty = r1_penalty(bowl, images)
    assert penalty.item() == pytest.approx(4 * images.square().sum(dim=(1, 2, 3)).mean().item(), rel=1e-5)
    penalty.backward()
    assert images.grad is not None
    assert torch.allclose(images.grad, 8 * images / len(images), atol=1e-5)


def test_the_discriminators_weights_feel_r1() -> None:
    """The derivative of the penalty in a weight, beside the difference of penalties."""
    judge = StyleGANDiscriminator(
        StyleGANNetworkSettings(fmap_base=16, fmap_max=4), resolution=8, minibatch_group=2
    ).double()
    initialise(judge, seed=0)
    images, labels = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)

    def penalty() -> Tensor:
        own = images.clone().requires_grad_(True)
        return r1_penalty(judge(own, labels), own)

    penalty().backward()
    for parameter in (judge.blocks[0].conv.weight, judge.blocks[0].conv_down.weight, judge.last.dense.weight):
        assert parameter.grad is not None
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-6)
        above = penalty().item()
        with torch.no_grad():
            parameter.add_(direction, alpha=-2e-6)
        below = penalty().item()
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-6)
        assert (parameter.grad * direction).sum().item() == pytest.approx((above - below) / 2e-6, rel=1e-3)


def test_larger_images_learn_faster() -> None:
    assert [FASTER.get(side, 1) for side in (8, 64, 128, 256, 512, 1024)] == [1, 1, 1.5, 2, 3, 3]


def test_r1_weighs_more_for_larger_images() -> None:
    assert r1_weight(256, 32) == pytest.approx(0.4096)
    assert r1_weight(64, 8) == pytest.approx(0.1024)
