"""The training of an ADM: what is tuned, who is shown what in a step, parts, dropout of labels, the average."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm.loss import HybridLoss
from genmix_transforms.generators.adm.settings import ADMSettings
from genmix_transforms.generators.adm.timesteps import make_timesteps
from genmix_transforms.generators.adm.training import (
    ADMTraining,
    parts,
    place_average,
    prepare_for_tuning,
    trained,
    with_weights,
)
from genmix_transforms.generators.frozen import FrozenWeights
from tests.pretend_cuda import DEVICE, PretendCuda

TinyADM = Callable[..., ADM]

IMAGES = torch.linspace(-1, 1, 8 * 256).view(8, 1, 16, 16)
LABELS = torch.arange(8) % 3


def make(generator: ADM, *, device: str | torch.device = "cpu", **options: Any) -> ADMTraining:
    settings = ADMSettings.of({"steps": 10, "batch_size": 8, **options}, name="ADM.fit")
    network = generator.network.train()
    prepare_for_tuning(network, settings.tune, classes=len(generator.classes))
    if settings.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    loss = HybridLoss(generator.schedule, device=device)
    timesteps = make_timesteps(settings.timesteps, loss.count, device=device)
    return ADMTraining(
        network, configuration=generator.configuration, settings=settings, loss=loss, timesteps=timesteps
    )


def gradients_of(training: ADMTraining, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Those that the optimiser would have stepped with."""
    caught: dict[str, torch.Tensor] = {}

    def catch(*_: object) -> None:
        for name, parameter in training.network.named_parameters():
            if parameter.grad is not None:
                caught[name] = parameter.grad.clone()

    handle = training.optimiser.register_step_pre_hook(catch)
    torch.manual_seed(seed)
    training.training_step(IMAGES, LABELS, 0)
    handle.remove()
    return caught


def test_the_gradient_is_that_of_the_hybrid_loss(tiny_adm: TinyADM) -> None:
    got = gradients_of(make(tiny_adm()))
    network = tiny_adm().network.train()
    torch.manual_seed(0)
    timesteps = torch.randint(0, 1000, (8,))
    added = torch.randn(8, 1, 16, 16)
    loss = HybridLoss(tiny_adm().schedule)
    prediction = network(loss.noisy(IMAGES, added, timesteps), timesteps, class_labels=LABELS, return_dict=False)[0]
    squared, bits = loss(prediction, IMAGES, added, timesteps)
    # With 1000 timesteps a term weighs lambda times their number: 1.
    (squared + bits).mean().backward()
    for name, parameter in network.named_parameters():
        assert torch.allclose(got[name], parameter.grad, atol=1e-6, rtol=1e-4), name


@pytest.mark.parametrize(
    "options",
    [{"accumulate": 3}, {"gradient_checkpointing": True}, {"gradient_checkpointing": True, "accumulate": 8}],
)
def test_ways_to_save_memory_change_nothing(tiny_adm: TinyADM, options: dict[str, Any]) -> None:
    plain, thrifty = gradients_of(make(tiny_adm())), gradients_of(make(tiny_adm(), **options))
    assert plain.keys() == thrifty.keys()
    for name in plain:
        assert torch.allclose(plain[name], thrifty[name], atol=1e-5, rtol=1e-3), name


def test_checkpointing_keeps_fewer_activations(tiny_adm: TinyADM) -> None:
    kept = []
    for checkpointing in (False, True):
        training = make(tiny_adm(), gradient_checkpointing=checkpointing)
        sizes: dict[int, int] = {}

        def count(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            training.losses(IMAGES, LABELS, torch.arange(8), torch.randn_like(IMAGES))
        kept.append(sum(sizes.values()))
    assert kept[1] < kept[0] / 2


def test_parts_hold_every_image_once() -> None:
    assert [list(range(8))[part] for part in parts(8, 3)] == [[0, 1], [2, 3, 4], [5, 6, 7]]


def test_what_the_losses_are(tiny_adm: TinyADM) -> None:
    fresh = ADM(classes=("a", "b", "c"), configuration=tiny_adm().configuration)
    values = make(fresh).training_step(IMAGES, LABELS, 0)
    assert values.keys() == {"mse", "bits_per_dim"}
    assert values["mse"].item() == pytest.approx(1, abs=0.1)  # a new network predicts zero: the noise's own variance
    assert math.isfinite(values["bits_per_dim"])


def test_hidden_labels_are_the_row_for_no_class(tiny_adm: TinyADM) -> None:
    seen: list[torch.Tensor] = []
    training = make(tiny_adm(null_class=True), label_dropout=0.5)
    training.network.register_forward_pre_hook(
        lambda _, __, options: seen.append(options["class_labels"]), with_kwargs=True
    )
    for step in range(20):
        torch.manual_seed(step)
        training.training_step(IMAGES, LABELS, 8 * step)
    labels = torch.stack(seen)
    hidden = labels == 3
    assert torch.equal(labels[~hidden], LABELS.expand(20, 8)[~hidden])
    assert 0.35 < hidden.float().mean() < 0.65


def test_mirrored_images_are_whole_and_half_of_them(tiny_adm: TinyADM) -> None:
    seen: list[torch.Tensor] = []
    training = make(tiny_adm(), mirror=True)
    noisy = training.loss.noisy
    training.loss.noisy = lambda images, *rest: seen.append(images) or noisy(images, *rest)  # type: ignore[method-assign]
    for step in range(12):
        torch.manual_seed(step)
        training.training_step(IMAGES, LABELS, 8 * step)
    turned = 0
    for image, original in zip(torch.cat(seen), IMAGES.repeat(12, 1, 1, 1), strict=True):
        assert torch.equal(image, original) or torch.equal(image, original.flip(-1))
        turned += not torch.equal(image, original)
    assert 30 < turned < 66


def test_only_what_is_tuned_moves(tiny_adm: TinyADM) -> None:
    generator = tiny_adm()
    before = {name: value.clone() for name, value in generator.network.state_dict().items()}
    training = make(generator, tune="attention", learning_rate=0.01)
    training.training_step(IMAGES, LABELS, 0)
    moved = {name for name, value in training.network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not any("resnets" in name for name in moved)
    assert len(training.average.average) == sum(parameter.requires_grad for parameter in training.network.parameters())


def test_the_result_is_the_average_and_a_copy(tiny_adm: TinyADM) -> None:
    training = make(tiny_adm(), learning_rate=0.01)
    for step in range(3):
        training.training_step(IMAGES, LABELS, 8 * step)
    result = training.result()
    values = list(training.average.average.parameters())
    for parameter, value in zip(result.parameters(), values, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.data_ptr() != value.data_ptr()
    assert not torch.equal(result.conv_in.weight, training.network.conv_in.weight)
    assert not result.training
    assert training.network.training


def test_the_average_keeps_the_decay_given_once_warm(tiny_adm: TinyADM) -> None:
    training = make(tiny_adm(), ema_decay=0.9)
    before = [value.clone() for value in training.average.average.parameters()]
    training.training_step(IMAGES, LABELS, 10**6)
    for old, new, weight in zip(before, training.average.average.parameters(), training._trained, strict=True):
        assert torch.allclose(new, 0.9 * old + 0.1 * weight, atol=1e-7)


def test_timesteps_learn_from_the_losses(tiny_adm: TinyADM) -> None:
    training = make(tiny_adm(), timesteps="loss-second-moment")
    training.training_step(IMAGES, LABELS, 0)
    state = training.timesteps.state_dict()
    assert state["seen"].sum() == 8
    assert (state["history"] > 0).sum() == 8


def test_bfloat16_learns_too(tiny_adm: TinyADM) -> None:
    training = make(tiny_adm(), accumulate=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = training.training_step(IMAGES, LABELS, 0)
    assert all(value.isfinite() for value in values.values())
    assert all(parameter.dtype == torch.float32 for parameter in training.network.parameters())


@pytest.mark.parametrize("tune", ["attention", "lora"])
def test_frozen_weights_cast_once_give_autocasts_gradients(tiny_adm: TinyADM, tune: str) -> None:
    """To the bit; and what is saved is whole."""
    if tune == "lora":
        pytest.importorskip("peft")
    trainings = [make(tiny_adm(), tune=tune, accumulate=2) for _ in range(2)]
    trainings[1].frozen = FrozenWeights(trained=())
    before = {name: value.clone() for name, value in trainings[0].network.state_dict().items()}
    moving = {name for name, parameter in trainings[0].network.named_parameters() if parameter.requires_grad}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, expected = (gradients_of(training) for training in trainings)
    assert got.keys() == expected.keys() == moving
    assert all(torch.equal(got[name], expected[name]) for name in moving)
    for name, value in trainings[0].network.state_dict().items():
        assert value.dtype == torch.float32
        assert name in moving or torch.equal(value, before[name])
    assert {value.dtype for value in trainings[0].result().state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("timesteps", ["uniform", "loss-second-moment"])
def test_a_step_never_waits_for_the_device(tiny_adm: TinyADM, timesteps: str) -> None:
    with PretendCuda() as device:
        generator = tiny_adm(null_class=True).to(DEVICE)
        training = make(generator, device=DEVICE, timesteps=timesteps, mirror=True, accumulate=2)
        images, labels = IMAGES.to(DEVICE), LABELS.to(DEVICE)
        with device.no_waiting():
            training.training_step(images, labels, 0)


def test_it_learns(tiny_adm: TinyADM) -> None:
    """Of images that are flat, all that is not flat is noise."""
    smaller = {"image_size": 8, "channel_mult": [1, 1], "attention_resolutions": [4]}
    generator = ADM(classes=("a", "b", "c"), configuration={**tiny_adm().configuration.to_flags(), **smaller})
    training = make(generator, learning_rate=3e-3)
    images = torch.tensor([0.8, -0.8, 0.0])[LABELS].view(8, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    errors = []
    for step in range(40):
        torch.manual_seed(step)
        errors.append(training.training_step(images, LABELS, 8 * step)["mse"].item())
    assert sum(errors[-10:]) < sum(errors[:10]) / 2


def test_too_little_memory_is_said_with_the_ways_out(tiny_adm: TinyADM) -> None:
    training = make(tiny_adm())

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    training.network.register_forward_pre_hook(full)
    with pytest.raises(InputError, match=r"memory is too small for one step; .*accumulate.*gradient_checkpointing"):
        training.training_step(IMAGES, LABELS, 0)


@pytest.mark.parametrize(("free", "place"), [(4000, None), (3000, "cpu")])
def test_the_average_goes_to_the_cpu_when_the_memory_is_short(
    monkeypatch: pytest.MonkeyPatch, free: int, place: str | None
) -> None:
    """100 numbers take 1600 bytes in training; as many are left for the activations."""

    class OnGPU:
        device = torch.device("cuda")

        def numel(self) -> int:
            return 100

    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (free - 200, 10**6))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda _: 700)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda _: 500)
    there: Any = [OnGPU()]
    assert place_average(there, "auto") == (None if place is None else torch.device(place))
    assert place_average(there, "cuda:1") == torch.device("cuda", 1)
    assert place_average([torch.zeros(3)], "auto") is None  # type: ignore[arg-type]


def network_of(tiny_adm: TinyADM) -> Any:
    return tiny_adm().network.eval()


def outputs(network: Any) -> torch.Tensor:
    noisy = torch.linspace(-1, 1, 2 * 256).view(2, 1, 16, 16)
    with torch.no_grad():
        return network(noisy, torch.tensor([3, 900]), class_labels=torch.tensor([0, 2]), return_dict=False)[0]


def test_all_is_all(tiny_adm: TinyADM) -> None:
    network = network_of(tiny_adm)
    prepare_for_tuning(network, "all")
    assert len(trained(network)) == len(list(network.parameters()))


def test_attention_is_attention_and_both_ends(tiny_adm: TinyADM) -> None:
    network = network_of(tiny_adm)
    prepare_for_tuning(network, "attention")
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {"conv_in.weight", "conv_out.bias", "class_embedding.weight", "conv_norm_out.weight"} <= names
    ends = {"conv_in", "conv_out", "conv_norm_out", "class_embedding"}
    assert all("attentions" in name or name.partition(".")[0] in ends for name in names)
    assert sum("to_q.weight" in name for name in names) == sum(
        "to_q.weight" in name for name, _ in network.named_parameters()
    )
    assert not any("resnets" in name for name in names)


def test_a_copy_has_the_values_given_and_leaves_the_network_alone(tiny_adm: TinyADM) -> None:
    network = network_of(tiny_adm)
    prepare_for_tuning(network, "attention")
    before = outputs(network)
    copy = with_weights(network, [torch.zeros_like(parameter) for parameter in trained(network)])
    assert copy.conv_in.weight.abs().sum() == 0
    assert torch.equal(copy.time_embedding.linear_1.weight, network.time_embedding.linear_1.weight)
    assert not trained(copy)
    assert torch.equal(outputs(network), before)


def test_adapters_change_nothing_at_first_and_are_few(tiny_adm: TinyADM) -> None:
    pytest.importorskip("peft")
    network = network_of(tiny_adm)
    before, size = outputs(network), sum(parameter.numel() for parameter in network.parameters())
    ends = sum(
        parameter.numel()
        for name in ("class_embedding", "conv_in", "conv_norm_out", "conv_out")
        for parameter in getattr(network, name).parameters()
    )
    width, attentions = 64, sum("to_q.weight" in name for name, _ in network.named_parameters())
    prepare_for_tuning(network, "lora", lora_rank=2, seed=5)
    assert torch.equal(outputs(network), before)
    # Four projections of 64 to 64 channels in each attention, each with two matrices of rank 2.
    assert sum(parameter.numel() for parameter in trained(network)) == ends + attentions * 4 * 2 * 2 * width
    assert sum(parameter.numel() for parameter in network.parameters()) > size


def test_merged_adapters_say_the_same_in_a_plain_network(tiny_adm: TinyADM) -> None:
    pytest.importorskip("peft")
    network = network_of(tiny_adm)
    plain = network_of(tiny_adm).state_dict()
    prepare_for_tuning(network, "lora", lora_rank=4)
    with torch.no_grad():
        for parameter in trained(network):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    copy = with_weights(network, trained(network))
    assert copy.state_dict().keys() == plain.keys()
    changed = [name for name, value in copy.state_dict().items() if not torch.equal(value, plain[name])]
    assert any("to_v.weight" in name for name in changed)
    assert not any("resnets" in name for name in changed)
    assert torch.allclose(outputs(copy), outputs(network), atol=1e-4)


# Only the rows of the classes


def test_only_the_rows_of_the_classes_move(tiny_adm: TinyADM) -> None:
    generator = tiny_adm(null_class=True)
    before = {name: value.clone() for name, value in generator.network.state_dict().items()}
    training = make(generator, tune="classes", label_dropout=0.0, learning_rate=0.1, weight_decay=0.5)
    for step in range(2):
        training.training_step(IMAGES, LABELS, 8 * step)
    after = training.result().state_dict()
    assert after.keys() == before.keys()
    assert [name for name in after if not torch.equal(after[name], before[name])] == ["class_embedding.weight"]
    moved = (after["class_embedding.weight"] != before["class_embedding.weight"]).any(dim=1)
    assert moved.tolist() == [True, True, True, False]  # the row for "no class" stays, weight decay or not


def test_the_rows_are_all_that_a_checkpoint_holds(tiny_adm: TinyADM) -> None:
    training = make(tiny_adm(), tune="classes", label_dropout=0.0)
    training.training_step(IMAGES, LABELS, 0)
    objects = training.state_objects()
    width = training.network.config.block_out_channels[0] * 4
    assert [tuple(value.shape) for value in objects["network"].state_dict().values()] == [(3, width)]
    assert [tuple(value.shape) for value in objects["average"].state_dict().values()] == [(3, width)]
    assert len(training.optimiser.state_dict()["state"]) == 1


def test_a_network_that_is_not_trained_computes_as_it_draws(tiny_adm: TinyADM) -> None:
    losses = {}
    for tune in ("classes", "attention"):
        generator = tiny_adm(configuration=replace(tiny_adm().configuration, dropout=0.5))
        training = make(generator, tune=tune, label_dropout=0.0)
        with torch.no_grad():
            losses[tune] = [
                training.losses(IMAGES, LABELS, torch.arange(8), torch.ones_like(IMAGES))[0] for _ in range(2)
            ]
    assert torch.equal(*losses["classes"])
    assert not torch.equal(*losses["attention"])
