"""Training one arm: what a seed decides, what arms share, and that something is learned."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import training
from genmix_transforms.evaluation.arms import ARMS, Batch
from genmix_transforms.evaluation.checks import prepare
from genmix_transforms.evaluation.metrics import score
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.training import train_and_test, train_network
from tests.pretend_cuda import DEVICE, PretendCuda


def outcome(run):
    """All of a run but its time."""
    return {**run.to_dict(), "seconds": None}


def train(arm, splits, bank, protocol, seed=0):
    cpu = torch.device("cpu")
    setting = prepare((arm,), splits, {} if bank is None else {"": bank}, protocol, device=cpu)
    return train_and_test(arm, splits, setting, seed, device=cpu)


@pytest.fixture
def quick(quick, pool_weights):
    """With what every arm needs."""
    return replace(quick, pool_weights=pool_weights)


@pytest.fixture
def optimiser_steps():
    """Of each training: the parameters before its first step, the first of them after its last, the number of steps."""
    trainings = []

    def before(optimiser, args, kwargs):
        if not optimiser.state:
            parameters = [p.detach().clone() for group in optimiser.param_groups for p in group["params"]]
            trainings.append({"parameters": parameters, "steps": 0})

    def after(optimiser, args, kwargs):
        trainings[-1]["steps"] += 1
        trainings[-1]["after"] = optimiser.param_groups[0]["params"][0].detach().clone()

    hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    yield trainings
    for hook in hooks:
        hook.remove()


def test_all_arms_start_from_the_same_weights_and_take_the_same_steps(splits, bank, quick, optimiser_steps):
    for arm in ARMS:
        run = train(arm, splits, bank, quick)
        assert run.steps == quick.steps
    assert [entry["steps"] for entry in optimiser_steps] == [quick.steps] * len(ARMS)
    first = optimiser_steps[0]["parameters"]
    for arm, entry in zip(ARMS, optimiser_steps, strict=True):
        same = [torch.equal(a, b) for a, b in zip(first, entry["parameters"], strict=True)]
        assert not same[0] if arm == "pool" else all(same), arm
    train("baseline", splits, bank, quick, seed=1)
    assert not torch.equal(first[0], optimiser_steps[-1]["parameters"][0])


def test_the_arm_pool_is_the_baseline_from_those_weights(splits, quick, pool_weights, optimiser_steps):
    pool = train("pool", splits, None, quick, seed=3)
    same = train("baseline", splits, None, replace(quick, weights=pool_weights), seed=3)
    assert outcome(pool) == {**outcome(same), "arm": "pool"}
    assert torch.equal(*(entry["after"] for entry in optimiser_steps))
    # Also beside others, and where those have weights of their own.
    cpu = torch.device("cpu")
    setting = prepare(("baseline", "pool"), splits, {}, quick, device=cpu)
    assert outcome(train_and_test("pool", splits, setting, 3, device=cpu)) == outcome(pool)
    alone = train("baseline", splits, None, quick, seed=3)
    assert outcome(train_and_test("baseline", splits, setting, 3, device=cpu)) == outcome(alone)
    assert outcome(train("pool", splits, None, replace(quick, weights=pool_weights), seed=3)) == outcome(pool)


@pytest.mark.parametrize("arm", ARMS)
def test_a_seed_gives_the_same_run_whatever_ran_before(splits, bank, quick, arm, optimiser_steps):
    torch.manual_seed(1)
    first = train(arm, splits, bank, quick, seed=3)
    torch.manual_seed(99)
    torch.rand(17)
    train("genmix", splits, bank, quick, seed=1)
    assert outcome(train(arm, splits, bank, quick, seed=3)) == outcome(first)
    # To the last bit of the weights: predictions alone may agree by chance.
    assert torch.equal(optimiser_steps[0]["after"], optimiser_steps[2]["after"])


def test_seeds_and_arms_differ(splits, bank, quick, optimiser_steps):
    for arm in ARMS:
        for seed in (0, 1):
            train(arm, splits, bank, quick, seed)
    trained = {entry["after"].numpy().tobytes() for entry in optimiser_steps}
    assert len(trained) == 2 * len(ARMS)


@pytest.mark.parametrize("arm", ARMS)
def test_between_validations_nobody_waits_for_a_gpu(splits, bank, pool_weights, arm):
    """One validation: the host waits as often for it after one step as after four. The scores are the CPU's."""
    options = {"batch_size": 8, "flips": True, "clip_norm": 1.0, "precision": "bf16", "pool_weights": pool_weights}
    expected = train(arm, splits, bank, Protocol(steps=1, validate_every=1, **options))
    waits = []
    with PretendCuda() as device:
        for steps in (1, 4):
            protocol = Protocol(steps=steps, validate_every=steps, **options)
            setting = prepare((arm,), splits, {"": bank}, protocol, device=DEVICE)
            before = device.waits
            run = train_and_test(arm, splits, setting, 0, device=DEVICE)
            waits.append(device.waits - before)
            if steps == 1:
                assert np.allclose(run.probabilities, expected.probabilities, atol=1e-2)
    assert waits[0] == waits[1] > 0


def test_sixteen_bits_on_a_gpu(splits, bank):
    """CUDA may not gather uint16: none of the ways from the bank and the training set to a batch asks it to."""

    def wide(images):
        return (images.to(torch.int32) * 257).to(torch.uint16)

    splits = tuple(replace(part, images=wide(part.images)) for part in splits)
    bank = bank.replace(images=wide(bank.images))
    protocol = Protocol(steps=2, batch_size=8, validate_every=2)
    for arm in ("blend", "genmix", "genmix-union"):
        expected = train(arm, splits, bank, protocol)
        with PretendCuda():
            setting = prepare((arm,), splits, {"": bank}, protocol, device=DEVICE)
            run = train_and_test(arm, splits, setting, 0, device=DEVICE)
        assert np.allclose(run.probabilities, expected.probabilities, atol=1e-3)


def test_the_callers_random_numbers_stay(splits, bank, quick):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    train("genmix", splits, bank, quick)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("flips", [True, False])
@pytest.mark.parametrize("classifier", ["small", "squeezenet1_1"])
def test_genmix_that_mixes_nothing_is_the_baseline(splits, bank, shapes, optimiser_steps, classifier, flips):
    # squeezenet has dropout: its random numbers must not move either.
    if classifier != "small":
        splits, bank = tuple(shapes.patches(n, seed=n, size=32) for n in (30, 12, 12)), shapes.bank(size=32)
    protocol = Protocol(steps=6, batch_size=8, validate_every=3, p=0.0, flips=flips, classifier=classifier)
    mixed, plain = (outcome(train(arm, splits, bank, protocol)) for arm in ("genmix", "baseline"))
    assert {**mixed, "arm": None} == {**plain, "arm": None}
    assert torch.equal(optimiser_steps[0]["after"], optimiser_steps[1]["after"])


def test_the_data_order_is_the_same_in_all_arms(splits, bank, quick, monkeypatch):
    seen = {}

    def recording(make):
        def made(*arguments):
            arm = make(*arguments)

            def recorded(images, labels):
                seen.setdefault(name, []).append((images.clone(), labels.clone()))
                return arm(images, labels)

            return recorded

        return made

    # The arm of the first phase, and the one of a second.
    for maker in ("build_arm", "baseline"):
        monkeypatch.setattr(training, maker, recording(getattr(training, maker)))
    for name in ARMS:
        train(name, splits, bank, quick)
    assert set(seen) == set(ARMS)
    # That one's weights want values in [0, 1]; the others have them standardized.
    mean, std = splits[0].images.double().mean() / 255, splits[0].images.double().std(correction=0) / 255
    seen["pool"] = [(((images - mean) / std).float(), labels) for images, labels in seen["pool"]]
    for name in ARMS:
        for (images, labels), (expected, expected_labels) in zip(seen[name], seen["baseline"], strict=True):
            torch.testing.assert_close(images, expected, rtol=0, atol=1e-5 if name == "pool" else 0)
            assert torch.equal(labels, expected_labels)
    # 8 steps of 8 images: no image twice before all 90 have been seen.
    everything = torch.cat([images for images, _ in seen["baseline"]])
    assert len(everything.flatten(1).unique(dim=0)) == 64


def test_the_weights_are_those_of_adamw_written_out(splits, quick):
    """Loshchilov and Hutter (arXiv 1711.05101), algorithm 2, in float64, with the schedule's rate in each step."""
    start, gradients, ends = [], [], []

    def before(optimiser, args, kwargs):
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        if not start:
            start.extend(p.detach().double() for p in parameters)
        gradients.append([p.grad.double() for p in parameters])

    def after(optimiser, args, kwargs):
        ends[:] = [p.detach().double() for group in optimiser.param_groups for p in group["params"]]

    hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    protocol = replace(quick, weight_decay=0.1, warmup=0.5)
    train("baseline", splits, None, protocol)
    for hook in hooks:
        hook.remove()

    assert len(gradients) == protocol.steps
    for number, weights in enumerate(start):
        mean = square = torch.zeros_like(weights)
        for step, gradient in enumerate(found[number] for found in gradients):
            rate = protocol.learning_rate * training.learning_rate_share(protocol, step)
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            weights = weights * (1 - rate * protocol.weight_decay)
            unbiased, spread = mean / (1 - 0.9 ** (step + 1)), (square / (1 - 0.999 ** (step + 1))).sqrt()
            weights = weights - rate * unbiased / (spread + 1e-8)
        assert torch.allclose(ends[number], weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arm", ARMS)
def test_a_learnable_problem_is_learned(splits, bank, quick, arm):
    run = train(arm, splits, bank, replace(quick, steps=60, batch_size=16, validate_every=20, learning_rate=3e-3))
    # Chance is 0.33; noise is a third of the contrast.
    assert run.scores.accuracy > 0.9
    assert run.scores.macro_f1 > 0.9
    assert run.validation_macro_f1 > 0.9


def test_what_the_scores_are_of(splits, bank, quick):
    run = train("baseline", splits, bank, quick)
    test = splits[2]
    assert len(run.predictions) == len(test)
    probabilities = torch.tensor(run.probabilities, dtype=torch.float64)
    assert torch.equal(probabilities.argmax(dim=1), torch.tensor(run.predictions))
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(len(test), dtype=torch.float64), atol=1e-5)
    expected = score(torch.tensor(run.predictions), test.labels, num_classes=3, probabilities=probabilities)
    assert run.scores.to_dict() == expected.to_dict()
    assert (run.arm, run.seed) == ("baseline", 0)
    assert run.seconds > 0


def test_the_test_set_decides_nothing(splits, bank, quick):
    train_part, val, test = splits
    wrong = replace(test, labels=(test.labels + 1) % 3)
    one, other = (train("genmix", (train_part, val, part), bank, quick) for part in (test, wrong))
    assert one.predictions == other.predictions
    assert (one.best_step, one.validation_macro_f1) == (other.best_step, other.validation_macro_f1)
    assert one.scores != other.scores


def test_the_weights_of_the_best_validation_are_tested(splits, monkeypatch):
    """Validation and test set are one here, so the tested weights show which step they are of."""
    train_part, val, _ = splits
    reached = []
    original = training.score

    def recording(predictions, labels, *, num_classes, probabilities=None):
        scores = original(predictions, labels, num_classes=num_classes, probabilities=probabilities)
        reached.append(scores.macro_f1)
        return scores

    monkeypatch.setattr(training, "score", recording)
    # A huge learning rate at first: validation scores jump up and down.
    run = train(
        "baseline", (train_part, val, val), None, Protocol(steps=12, batch_size=8, validate_every=1, learning_rate=0.05)
    )
    *validations, tested = reached
    assert len(validations) == 12
    assert tested == max(validations) == run.validation_macro_f1
    assert run.best_step == validations.index(max(validations)) + 1
    assert validations[-1] < tested  # else the test would hold for the last weights too


@pytest.mark.parametrize("on", [True, False])
def test_training_validation_and_test_compute_as_the_protocol_says(splits, monkeypatch, on):
    now, seen = [], []

    @contextmanager
    def noted(device, on):
        now.append((device.type, on))
        yield
        now.pop()

    original = training._forward

    def forward(*args, **options):
        seen.append(list(now))
        return original(*args, **options)

    monkeypatch.setattr(training, "fast_math", noted)
    monkeypatch.setattr(training, "_forward", forward)
    train("baseline", splits, None, Protocol(steps=2, batch_size=8, validate_every=2, fast_math=on))
    assert len(seen) == 4  # two steps, a validation and the test
    assert all(found == [("cpu", on)] for found in seen)
    assert now == []


def test_validation_comes_at_its_steps_and_at_the_last(splits, monkeypatch):
    calls = []
    original = training._logits

    def recording(network, pixels, **options):
        calls.append(len(pixels.labels))
        return original(network, pixels, **options)

    monkeypatch.setattr(training, "_logits", recording)
    train("baseline", splits, None, Protocol(steps=10, batch_size=8, validate_every=4))
    # 45 validation images at steps 4, 8 and 10; the 60 test images once, at the end.
    assert calls == [45, 45, 45, 60]


def test_patience_stops_early(splits, monkeypatch):
    stuck = score(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), num_classes=3)
    monkeypatch.setattr(training, "score", lambda *args, **options: stuck)
    protocol = Protocol(steps=50, batch_size=8, validate_every=2, patience=3)
    run = train("baseline", splits, None, protocol)
    # Best at the first validation, step 2; three more without a better one.
    assert (run.best_step, run.steps) == (2, 8)
    assert train("baseline", splits, None, replace(protocol, patience=None)).steps == 50


def test_flips_reach_synthetic_images_too(splits, bank, monkeypatch):
    """A network that sees only flipped or unflipped images of the bank: with a share of 1 there are no others."""
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(256, 3)

        def forward(self, images):
            if self.training:
                seen.append(images.clone())
            return self.linear(images.flatten(1))

    monkeypatch.setattr(training, "build_classifier", lambda *args, **kwargs: Spy())
    protocol = Protocol(steps=4, batch_size=32, blend_share=1.0, flips=True)
    train("blend", splits, bank, protocol)
    train("blend", splits, bank, replace(protocol, flips=False))
    flipped, plain = torch.cat(seen[:4]), torch.cat(seen[4:])
    turned = (flipped != plain).flatten(1).any(dim=1)
    assert torch.equal(flipped[turned], plain[turned].flip(-1))
    assert 32 < turned.sum() < 96  # of 128, five standard deviations around half
    pixels = {image.numpy().tobytes() for image in bank.images}
    std, mean = splits[0].images.double().div(255).std(correction=0), splits[0].images.double().div(255).mean()
    back = ((plain.double() * std + mean) * 255).round().to(torch.uint8)
    assert all(image.numpy().tobytes() in pixels for image in back)


@pytest.fixture
def seen_in_training(monkeypatch):
    """The images of each step, as the network gets them."""
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(1)
            self.linear = torch.nn.Linear(256, 3)

        def forward(self, images):
            if self.training:
                seen.append(images.detach().clone())
            return self.linear(self.norm(images).flatten(1))

    monkeypatch.setattr(training, "build_classifier", lambda *args, **kwargs: Spy())
    return seen


def pixels_of(images):
    return {image.numpy().tobytes() for image in images.to(torch.uint8)}


def as_pixels(images, part):
    """Back from normalised values to pixels."""
    unit = part.images.double().div(255)
    return ((images.double() * unit.std(correction=0) + unit.mean()) * 255).round().clamp(0, 255)


@pytest.mark.parametrize("arm", ["pretrain@0.5", "pretrain-repeat@0.5", "genmix-first@0.5"])
def test_arms_of_two_phases(splits, bank, seen_in_training, arm):
    protocol = Protocol(steps=8, batch_size=8, validate_every=2, alpha=100.0)
    trained = train(arm, splits, bank, protocol)
    first, second = seen_in_training[:4], seen_in_training[4:8]
    seen_in_training.clear()
    train("baseline", splits, bank, protocol)
    real = seen_in_training[:8]
    # Then real images as they are, the very ones that the baseline sees in these steps.
    assert all(torch.equal(one, other) for one, other in zip(second, real[4:], strict=True))
    if arm.startswith("pretrain"):
        drawn = pixels_of(as_pixels(torch.cat(first), splits[0]))
        assert drawn <= pixels_of(splits[0].images if "repeat" in arm else bank.images)
        assert not any(torch.equal(one, other) for one, other in zip(first, real[:4], strict=True))
    # Only weights that have been through both phases are validated.
    assert trained.best_step > 4
    assert trained.steps == 8


def test_validations_of_the_second_phase_alone(splits, bank, monkeypatch):
    calls = []
    original = training._logits
    monkeypatch.setattr(training, "_logits", lambda *args, **named: (calls.append(1), original(*args, **named))[1])
    run = train("pretrain@0.75", splits, bank, Protocol(steps=12, batch_size=8, validate_every=2, patience=1))
    # Of six validations the last; patience counts from there. And the test.
    assert run.best_step >= 10
    assert len(calls) <= 3


def test_an_arm_at_its_ends_is_another_one(splits, bank, quick):
    """A weight of 1 and a filter that drops nothing change nothing, to the last digit."""
    plain = outcome(train("blend", splits, bank, quick))
    for name in ("blend@synthetic_weight=1", "blend@keep=1", "blend@balance=off", "blend@aux_norm=false"):
        assert {**outcome(train(name, splits, bank, quick)), "arm": "blend"} == plain
    weighed = outcome(train("blend@synthetic_weight=0.1", splits, bank, quick))
    assert weighed["probabilities"] != plain["probabilities"]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), weight=st.floats(0.01, 10))
def test_the_loss_weighs_images(seed, weight):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(2, 6, 3, generator=generator)
    labels = labels.softmax(dim=1)
    weights = torch.tensor([1.0, weight, 1.0, weight, weight, 1.0])
    each = -(labels * logits.log_softmax(dim=1)).sum(dim=1)
    found = training.batch_loss(logits, Batch(logits, labels, weights=weights))
    assert found.item() == pytest.approx(((each * weights).sum() / weights.sum()).item(), rel=1e-4)
    assert training.batch_loss(logits, Batch(logits, labels)).item() == pytest.approx(each.mean().item(), rel=1e-4)


def test_the_main_statistics_see_real_images_alone(splits, bank, seen_in_training):
    """The bank is far brighter than anything real: the running mean of the tested network would show it."""
    bright = bank.replace(images=torch.full_like(bank.images, 255))
    protocol = Protocol(steps=6, batch_size=16, validate_every=6, learning_rate=1e-9)
    cpu = torch.device("cpu")
    means = {}
    for arm in ("blend@0.5", "blend@0.5@aux_norm=true", "baseline"):
        setting = prepare((arm,), splits, {"": bright}, protocol, device=cpu)
        network = train_network(arm, splits, setting, 0, device=cpu).network
        means[arm] = network.norm.running_mean.item()
        assert isinstance(network.norm, torch.nn.BatchNorm2d)
    assert means["blend@0.5"] > 0.3
    assert abs(means["blend@0.5@aux_norm=true"] - means["baseline"]) < 0.1


def test_auxiliary_norms_start_from_the_same_weights(splits, bank, quick, optimiser_steps):
    for arm in ("blend", "blend@aux_norm=true"):
        train(arm, splits, bank, quick)
    plain, auxiliary = (entry["parameters"] for entry in optimiser_steps)
    assert len(auxiliary) == len(plain) + 8  # four normalizations of two weights each
    assert all(any(torch.equal(one, other) for other in auxiliary) for one in plain)


def test_images_of_16_bits_and_of_colours(shapes):
    def deepened(part, dtype, channels):
        images = (part.images.to(torch.int32) * (257 if dtype == torch.uint16 else 1)).to(dtype)
        return PatchDataset(images=images.repeat(1, channels, 1, 1), labels=part.labels, classes=part.classes)

    parts = [shapes.patches(count, seed=count) for count in (30, 12, 12)]
    protocol = Protocol(steps=4, batch_size=8, validate_every=2)
    eight, sixteen, colour = (
        train("baseline", tuple(deepened(part, dtype, channels) for part in parts), None, protocol)
        for dtype, channels in ((torch.uint8, 1), (torch.uint16, 1), (torch.uint8, 3))
    )
    # The same values from either depth: 257 times the pixel is the same fraction of 65535 as the pixel of 255.
    assert sixteen.predictions == eight.predictions
    assert len(colour.predictions) == 12


def test_a_gradient_is_shortened_where_it_is_longer(splits, quick):
    """All weights' together, to the length that is asked for, and otherwise left as it is."""
    lengths = []

    def before(optimiser, args, kwargs):
        parts = [p.grad.norm() for group in optimiser.param_groups for p in group["params"]]
        lengths[-1].append(torch.stack(parts).norm().item())

    hook = register_optimizer_step_pre_hook(before)
    for clip in (None, 1e-3, 1e9):
        lengths.append([])
        train("baseline", splits, None, replace(quick, clip_norm=clip))
    hook.remove()
    never, short, long = lengths
    assert min(never) > 1e-3
    assert short == pytest.approx([1e-3] * len(short), rel=1e-3)
    assert long == never


def test_a_loss_that_explodes(splits):
    with pytest.raises(
        FloatingPointError, match=r"arm 'baseline', seed 0: the loss is nan at step \d+; lower the learning"
    ):
        train(
            "baseline",
            splits,
            None,
            Protocol(steps=20, batch_size=8, learning_rate=10, head_factor=1e37, validate_every=1),
        )


def test_a_bank_on_the_data_sets_classes_in_another_order(splits, shapes, quick):
    bank = shapes.bank(60)
    names = [2, 0, 1]
    table = torch.tensor([names.index(number) for number in range(3)])
    other = type(bank)(bank.images, table[bank.labels], classes=[bank.classes[number] for number in names])
    # Sorted by other labels, the bank has its images in another order: brought back by name, it is the first again.
    one, two = (train("genmix", splits, some, quick) for some in (bank, other))
    assert outcome(one) == outcome(two)


@pytest.mark.parametrize(
    ("arm", "seed", "message"),
    [
        ("cutmix", 0, "no arm 'cutmix'"),
        ("blend", 0, "'blend' needs a bank"),
        ("baseline", -1, "seed must not be negative"),
    ],
)
def test_arguments_that_cannot_work(splits, quick, optimiser_steps, arm, seed, message):
    with pytest.raises(InputError, match=message):
        train(arm, splits, None, quick, seed)
    assert optimiser_steps == []
