"""GenMix where people train: beside MixUp, in a DataLoader's workers, in a model, compiled, and reproducible."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.transforms import v2

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.errors import InputError

SHAPE = (3, 8, 8)


@pytest.fixture
def bank(random_bank):
    return random_bank(12, shape=SHAPE)


def equal(one, other):
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


# Beside torchvision's


def test_in_compose_after_a_normalisation(bank, batch):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
    steps = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std), GenMix(bank, mean=mean, std=std)]
    )
    pixels = (batch(6, shape=SHAPE)[0] * 255).byte()
    labels = batch(6)[1]
    torch.manual_seed(0)
    images, soft = steps(pixels, labels)
    torch.manual_seed(0)
    expected = GenMix(bank)(pixels / 255, labels)
    assert torch.allclose(images, v2.Normalize(mean, std)(expected[0]), atol=2e-6)
    assert torch.equal(soft, expected[1])


def test_twice_in_a_row(bank, batch):
    """The second takes the soft labels of the first."""
    images, soft = v2.Compose([GenMix(bank), GenMix(bank, pairing="other")])(*batch(6, shape=SHAPE))
    assert torch.allclose(soft.sum(dim=1), torch.ones(6), atol=1e-6)
    assert images.shape == (6, *SHAPE)


def test_after_mixup_and_before_it(bank, batch):
    mixup = v2.MixUp(num_classes=3)
    for steps in ([mixup, GenMix(bank)], [GenMix(bank), mixup]):
        _, soft = v2.Compose(steps)(*batch(6, shape=SHAPE))
        assert (soft.shape, soft.dtype) == ((6, 3), torch.float32)
        assert torch.allclose(soft.sum(dim=1), torch.ones(6), atol=1e-6)


@pytest.mark.parametrize("p", [1.0, 0.0])
def test_in_random_choice_labels_are_always_of_one_kind(levels, p):
    """Whichever is chosen, and whether or not it mixes, the loss sees float32 (N, K)."""
    bank = SyntheticBank(levels([9, 9], SHAPE).to(torch.uint8), torch.tensor([2, 2]), classes=["a", "b", "bank"])
    choice = v2.RandomChoice([GenMix(bank, p=p), v2.MixUp(num_classes=3), v2.CutMix(num_classes=3)])
    images, labels = torch.rand(4, *SHAPE), torch.tensor([0, 1, 0, 0])
    torch.manual_seed(0)
    chosen = 0
    for _ in range(60):
        mixed, soft = choice(images, labels)
        assert (mixed.shape, mixed.dtype) == (images.shape, torch.float32)
        assert (soft.shape, soft.dtype) == ((4, 3), torch.float32)
        assert torch.allclose(soft.sum(dim=1), torch.ones(4), atol=1e-6)
        chosen += bool(soft[:, 2].any()) if p else torch.equal(mixed, images)
    assert 10 < chosen < 30


def test_the_loss_takes_what_comes_out(bank, batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    genmix = GenMix(bank, mean=(0.5,), std=(0.5,))
    before = model[1].weight.clone()
    for _ in range(3):
        images, labels = genmix(*batch(shape=SHAPE))
        loss = F.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert torch.isfinite(loss)
    assert not torch.equal(model[1].weight, before)


# In the workers of a DataLoader


def load(genmix, workers, *, seed, count=26, batch_size=4):
    data = TensorDataset(torch.zeros(count, *SHAPE), torch.zeros(count, dtype=torch.int64))
    torch.manual_seed(seed)
    loader = DataLoader(
        data,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=lambda samples: genmix(*default_collate(samples)),
        multiprocessing_context="fork" if workers else None,
    )
    return list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_collate_fn(workers):
    """Real images are 0 and of class 0, synthetic ones 1 and of class 1: a pixel is the lambda of its label."""
    bank = SyntheticBank(
        torch.full((2, *SHAPE), 255, dtype=torch.uint8), torch.tensor([1, 1]), classes=["real", "bank"]
    )
    batches = load(GenMix(bank), workers, seed=0)
    assert [len(images) for images, _ in batches] == [4, 4, 4, 4, 4, 4, 2]
    lam = torch.cat([labels[:, 1] for _, labels in batches])
    assert torch.allclose(torch.cat([images[:, 0, 0, 0] for images, _ in batches]), lam, atol=1e-7)
    assert len(lam.unique()) == 26  # other draws in every worker and every batch
    for _, labels in batches:
        assert (labels.dtype, labels.shape[1]) == (torch.float32, 2)
    assert all(equal(one, two) for one, two in zip(batches, load(GenMix(bank), workers, seed=0), strict=True))
    assert not any(equal(one, two) for one, two in zip(batches, load(GenMix(bank), workers, seed=1), strict=True))


# Randomness


def test_global_generator(bank, batch):
    genmix, sample = GenMix(bank, real_partner=0.5, p=0.8), batch(16, shape=SHAPE)
    torch.manual_seed(0)
    first, second = genmix(*sample), genmix(*sample)
    torch.manual_seed(0)
    assert equal(genmix(*sample), first)
    assert equal(genmix(*sample), second)
    assert not torch.equal(first[0], second[0])


@given(seed=st.integers(0, 2**32 - 1))
def test_own_generator(seed):
    bank = SyntheticBank(torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1), torch.arange(6) % 2, classes=["a", "b"])
    images, labels = torch.rand(5, 1, 1, 1), torch.tensor([0, 1, 1, 0, 1])
    found = []
    for _ in range(2):
        torch.rand(3)  # the global one has moved on
        state = torch.get_rng_state()
        genmix = GenMix(bank, real_partner=0.5, p=0.8, generator=torch.Generator().manual_seed(seed))
        found.append([*genmix(images, labels), *genmix(images, labels)])
        assert torch.equal(torch.get_rng_state(), state)
    assert equal(*found)


def test_a_generator_on_another_device(bank, batch):
    genmix = GenMix(bank, generator=torch.Generator())
    genmix._uniform.generator = type("Elsewhere", (), {"device": torch.device("cuda"), "initial_seed": lambda: 0})()
    with pytest.raises(
        InputError, match=r"batch is on cpu, the generator on cuda: make it there, with torch.Generator"
    ):
        genmix(*batch(shape=SHAPE))


# In a model


def test_the_bank_is_in_no_checkpoint(bank):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.genmix = GenMix(bank, mean=0.5, std=0.5)
            self.head = nn.Linear(2, 2)

    model = Classifier()
    assert GenMix(bank).state_dict() == {}
    assert model.state_dict().keys() == {"head.weight", "head.bias"}
    model.load_state_dict(model.state_dict(), strict=True)
    assert not list(model.genmix.parameters())  # nothing for an optimiser
    model.eval()
    assert not model.genmix.training


def test_to_moves_everything(bank):
    genmix = GenMix(bank, mean=0.5, std=0.5)
    nn.ModuleList([genmix]).to("meta")
    assert dict(genmix.named_buffers()).keys() == {
        "scale", "shift", "cumulative", "pairing_weights", "one_hot", "one_hot_table",
        "bank.content.pixels", "bank.content.labels", "bank.content.class_start", "bank.content.class_count",
    }  # fmt: skip
    assert {buffer.device.type for buffer in genmix.buffers()} == {"meta"}


def test_a_whole_call_runs_where_the_bank_was_moved(bank, batch):
    """All tensors of a call are made on the batch's device: the meta device would not forgive one of the CPU."""
    genmix = GenMix(bank, mean=0.5, std=0.5, real_partner=0.5, pairing="other", p=0.5).to("meta")
    images, labels = batch(5, shape=SHAPE)
    mixed, soft = genmix(images.to("meta"), labels.to("meta"))
    assert (mixed.device.type, mixed.shape) == ("meta", (5, *SHAPE))
    assert (soft.device.type, soft.shape, soft.dtype) == ("meta", (5, 3), torch.float32)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("convert", ["half", "bfloat16", "double"])
def test_a_model_in_another_precision_mixes_as_before(random_bank, batch, convert, soft):
    """Pixels, label probabilities, scale, shift and matrix lose no digit when the network is converted."""

    def make():
        return GenMix(random_bank(shape=SHAPE, soft=soft), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    images, labels = batch(8, shape=SHAPE)
    converted = make()
    getattr(nn.ModuleList([converted]), convert)()
    assert converted.bank.images.dtype == torch.uint8
    for dtype in (torch.float32, torch.float16, torch.float64):
        torch.manual_seed(0)
        expected = make()(images.to(dtype), labels)
        torch.manual_seed(0)
        assert equal(converted(images.to(dtype), labels), expected)


def test_under_autocast(bank, batch):
    genmix = GenMix(bank, pairing="same")
    sample = batch(8, shape=SHAPE)
    torch.manual_seed(0)
    expected = genmix(*sample)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert equal(genmix(*sample), expected)


# Compiled


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"real_partner": 0.5, "p": 0.7, "pairing": "other"},
        {"per_sample": False},
        {"generator": torch.Generator()},
    ],
)
def test_compiled_in_one_graph(bank, batch, options):
    """No graph break, the same draw, and another one at each call."""
    genmix = GenMix(bank, mean=0.5, std=0.5, **options)
    seed = torch.manual_seed if genmix.generator is None else genmix.generator.manual_seed
    torch._dynamo.reset()
    step = torch.compile(lambda images, labels: genmix(images, labels), fullgraph=True, backend="eager")
    images, labels = batch(6, shape=SHAPE)
    images = 2 * images - 1
    for given_labels in (labels, F.one_hot(labels, 3).float()):
        seed(0)
        expected = [genmix(images, given_labels) for _ in range(2)]
        seed(0)
        found = [step(images, given_labels) for _ in range(2)]
        for one, other in zip(found, expected, strict=True):
            # The fast way fuses a multiplication and an addition.
            assert torch.allclose(one[0], other[0], atol=3e-7, rtol=0)
            assert torch.allclose(one[1], other[1], atol=1e-7, rtol=0)
        assert not torch.equal(found[0][0], found[1][0])
