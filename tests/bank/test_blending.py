"""Training on a bank's images as they are: the dataset's items, and laws of the batches with exact shares."""

import importlib
import itertools
import json
import warnings
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision.transforms import v2

from genmix_transforms.bank import BankDataset, SyntheticBank
from genmix_transforms.bank.blending import ExactShares, shares
from genmix_transforms.errors import InputError

# A bank as a torch dataset: its own images and labels, read one by one or together, and no others

PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]])


class Watched:
    """A bank that notes which images are read."""

    def __init__(self, bank):
        self.bank, self.read = bank, []

    def __len__(self):
        return len(self.bank)

    def __getattr__(self, name):
        assert name != "images", "all images would be read"
        return getattr(self.bank, name)

    def rows(self, index):
        assert index.dtype == torch.int64
        self.read.append(index.tolist())
        return self.bank.rows(index)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 5), (1, 3, 4, 5)])
def test_items_are_the_banks_images_and_labels(make_bank, shape, dtype):
    bank = make_bank(shape=shape, dtype=dtype)
    dataset = BankDataset(bank)
    assert len(dataset) == 7
    for number in range(7):
        image, label = dataset[number]
        assert image.dtype == dtype
        assert image.shape == shape
        assert torch.equal(image, bank.images[number])
        assert type(label) is int
    assert [label for _, label in dataset] == [0, 0, 1, 1, 2, 2, 2]  # a plain loop ends


def test_classes_and_targets(make_bank):
    bank = make_bank()
    dataset = BankDataset(bank)
    assert dataset.classes == ("cyst", "hemangioma", "metastasis")
    assert dataset.targets.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert repr(dataset) == "BankDataset of 7 images (cyst 2, hemangioma 2, metastasis 3)"


def test_probabilities_are_float_rows(pixels):
    bank = SyntheticBank(pixels(3), PROBABILITIES, classes=["a", "b", "c"])
    dataset = BankDataset(bank)
    for number, (_, label) in enumerate(dataset):
        assert label.dtype == torch.float32
        assert torch.equal(label, bank.labels[number])
    assert torch.equal(dataset.targets, PROBABILITIES[[0, 2, 1]])  # by the most probable class
    _, labels = next(iter(DataLoader(dataset, batch_size=3)))
    assert torch.equal(labels, dataset.targets)


def test_the_transform_is_of_one_image_and_leaves_the_label(make_bank):
    bank = make_bank(dtype=torch.uint8, shape=(3, 4, 4))
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.5,) * 3)])
    image, label = BankDataset(bank, transform)[4]
    torch.testing.assert_close(image, bank.images[4] / 127.5 - 1)
    assert label == 2


def test_a_transform_in_place_leaves_the_bank_alone(make_bank):
    bank = make_bank()
    before = bank.images.clone()
    assert all(bool((image == 0).all()) for image, _ in BankDataset(bank, torch.Tensor.zero_))
    assert torch.equal(bank.images, before)


@given(st.lists(st.integers(-7, 6), max_size=12))
def test_together_as_one_by_one(indices):
    bank = SyntheticBank(torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1), torch.arange(7) % 3, classes=list("abc"))
    dataset = BankDataset(bank, transform=lambda image: int(image))
    together = dataset.__getitems__(indices)
    assert together == [dataset[index] for index in indices]
    assert together == [(int(bank.images[index]), int(bank.labels[index])) for index in indices]


def test_indices_of_any_whole_kind(make_bank):
    dataset = BankDataset(make_bank())
    for index in (np.int64(5), torch.tensor(5), -2):
        assert torch.equal(dataset[index][0], dataset[5][0])


def test_only_the_images_asked_for_are_read_in_one_go(make_bank):
    bank = Watched(make_bank())
    dataset = BankDataset(bank)
    dataset[3]
    assert bank.read == [[3]]
    bank.read.clear()
    images, _ = next(iter(DataLoader(Subset(dataset, [6, 0, 2, 4]), batch_size=4)))
    assert bank.read == [[6, 0, 2, 4]]
    assert torch.equal(images, bank.bank.images[[6, 0, 2, 4]])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bank_from_disk_with_workers(make_bank, tmp_path, workers):
    bank = make_bank()
    bank.save(tmp_path / "bank")
    dataset = BankDataset(SyntheticBank.load(tmp_path / "bank", resident=False))
    batches = list(DataLoader(dataset, batch_size=3, num_workers=workers))
    assert not dataset.bank.resident
    assert torch.equal(torch.cat([images for images, _ in batches]), bank.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), bank.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_blended_with_real_images_by_exact_shares(make_bank, workers):
    bank = make_bank(torch.arange(40) % 3)
    real = [(torch.full((1, 4, 4), 200, dtype=torch.uint8), 7) for _ in range(23)]  # a list is a dataset too
    blended = ConcatDataset([real, BankDataset(bank)])
    sampler = ExactShares([len(real), len(bank)], [5, 3], seed=1)
    synthetic = []
    for epoch in range(10):  # 4 batches of 3 an epoch: 120 synthetic images, the bank three times
        sampler.set_epoch(epoch)
        for images, labels in DataLoader(blended, batch_sampler=sampler, num_workers=workers):
            assert labels[:5].tolist() == [7] * 5
            assert bool((images[:5] == 200).all())
            synthetic.append(images[5:])
        if workers and epoch == 1:
            return
    pixels = sorted(map(bytes, torch.cat(synthetic).numpy()))
    assert pixels == sorted(3 * list(map(bytes, bank.images.numpy())))


def test_an_empty_bank(pixels):
    dataset = BankDataset(SyntheticBank(pixels(0), torch.tensor([]).long(), classes=["a"]))
    assert len(dataset) == 0
    assert list(dataset) == []


# Bad input


@pytest.mark.parametrize("bank", ["banks/mine", None, torch.zeros(3, 1, 4, 4), TensorDataset(torch.zeros(1))])
def test_no_bank(bank):
    with pytest.raises(InputError, match=r"bank must be a SyntheticBank, got \w+; open a saved one"):
        BankDataset(bank)


def test_a_bank_on_an_accelerator(make_bank):
    with pytest.raises(InputError, match="the bank is on meta, where a DataLoader's workers cannot read it"):
        BankDataset(make_bank().to("meta"))  # no CPU, as a GPU is not


def test_a_transform_that_is_none(make_bank):
    with pytest.raises(InputError, match="transform must be a function of one image, or None, got str"):
        BankDataset(make_bank(), transform="flip")


@pytest.mark.parametrize("index", [7, -8, 2**40])
def test_no_such_image(make_bank, index):
    with pytest.raises(IndexError, match=f"BankDataset: image {index} of 7"):
        BankDataset(make_bank())[index]


def test_an_index_that_is_no_whole_number(make_bank):
    with pytest.raises(TypeError, match="integer"):
        BankDataset(make_bank())[1.5]


# Exact shares: laws of the batches, for any sizes, any number of epochs and of processes


class Numbers(Dataset):
    """The numbers from ``start`` on."""

    def __init__(self, start, count):
        self.start, self.count = start, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.start + index


def joined(sizes):
    starts = np.cumsum((0, *sizes)).tolist()
    return ConcatDataset([Numbers(start, size) for start, size in zip(starts, sizes, strict=False) if size])


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def by_source(batch, sizes):
    """The images of each source in a batch, each numbered within its source."""
    bounds = np.cumsum((0, *sizes))
    return [[index - int(low) for index in batch if low <= index < high] for low, high in itertools.pairwise(bounds)]


def spread(uses, size):
    counts = [uses[image] for image in range(size)]
    return max(counts) - min(counts)


SOURCES = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 7)), min_size=1, max_size=4).filter(
    lambda sources: sources[0][1] >= 1
)
SEEDS = st.integers(0, 2**63 - 1)


# Laws


@given(SOURCES, SEEDS, st.booleans(), st.integers(1, 3))
def test_every_batch_has_exactly_its_shares_the_real_images_first(sources, seed, drop_last, processes):
    sizes, per_batch = zip(*sources, strict=True)
    assume(not drop_last or sizes[0] >= per_batch[0] * processes)
    for rank in range(processes):
        sampler = ExactShares(sizes, per_batch, seed=seed, drop_last=drop_last, rank=rank, processes=processes)
        batches = epoch_of(sampler, 0) + epoch_of(sampler, 1)
        assert len(batches) == 2 * len(sampler)
        for batch in batches:
            parts = by_source(batch, sizes)
            assert tuple(map(len, parts)) == per_batch
            bounds = np.cumsum((0, *sizes))
            assert (np.diff(np.searchsorted(bounds, batch, side="right")) >= 0).all()
            assert len(batch) == sampler.batch_size


@given(st.integers(1, 60), st.integers(1, 9), SEEDS, st.integers(0, 1000))
def test_every_real_image_once_an_epoch(size, count, seed, epoch):
    assume(size >= count)
    for drop_last in (True, False):
        sampler = ExactShares([size, 5], [count, 2], seed=seed, drop_last=drop_last)
        order = [image for batch in epoch_of(sampler, epoch) for image in by_source(batch, (size, 5))[0]]
        uses = Counter(order)
        if drop_last:
            assert set(uses.values()) == {1}
            assert size - len(uses) == size % count
        else:
            assert len(uses) == size
            assert Counter(order[:size]) == Counter(range(size))  # the fill comes after
            assert order[size:] == order[: len(order) - size]


def test_a_last_batch_is_filled_even_from_fewer_images_than_it_takes():
    (batch,) = ExactShares([3, 4], [8, 2], drop_last=False)
    assert sorted(Counter(by_source(batch, (3, 4))[0]).values()) == [2, 3, 3]


@given(st.integers(1, 25), st.integers(1, 40), st.integers(1, 5), st.integers(1, 9), SEEDS, st.booleans())
def test_synthetic_images_are_used_evenly_at_any_moment(real, synthetic, per_real, per_synthetic, seed, drop_last):
    assume(real >= per_real)
    sampler = ExactShares([real, synthetic], [per_real, per_synthetic], seed=seed, drop_last=drop_last)
    uses = Counter()
    for epoch in range(4):
        for batch in epoch_of(sampler, epoch):
            uses.update(by_source(batch, (real, synthetic))[1])
            assert spread(uses, synthetic) <= 1
    assert uses.total() == 4 * len(sampler) * per_synthetic


@given(SOURCES, SEEDS, st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_ranks_take_turns_in_one_list(sources, seed, processes, epoch, drop_last):
    sizes, per_batch = zip(*sources, strict=True)
    assume(not drop_last or sizes[0] >= per_batch[0] * processes)
    options = {"seed": seed, "drop_last": drop_last}
    whole = epoch_of(ExactShares(sizes, per_batch, **options), epoch)
    ranks = [
        epoch_of(ExactShares(sizes, per_batch, rank=rank, processes=processes, **options), epoch)
        for rank in range(processes)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    interleaved = [batch for step in zip(*ranks, strict=True) for batch in step]
    if drop_last:
        assert interleaved == whole[: len(whole) - len(whole) % processes]
    else:
        more = -len(whole) % processes
        assert interleaved == whole + [whole[number % len(whole)] for number in range(more)]


@given(SOURCES, SEEDS, st.integers(0, 5), st.data())
def test_a_resumed_run_goes_on_where_it_stopped(sources, seed, epoch, data):
    sizes, per_batch = zip(*sources, strict=True)
    assume(sizes[0] >= per_batch[0])
    sampler = ExactShares(sizes, per_batch, seed=seed)
    whole = epoch_of(sampler, epoch)
    following = epoch_of(sampler, epoch + 1)
    done = data.draw(st.integers(0, len(whole)))
    sampler.set_epoch(epoch)
    passing = iter(sampler)
    for _ in range(done):
        next(passing)
    state = json.loads(json.dumps(sampler.state_dict()))

    resumed = ExactShares(sizes, per_batch, seed=seed)
    resumed.load_state_dict(state)
    assert resumed.epoch == epoch
    assert epoch_of(resumed, epoch) == whole[done:]  # set_epoch, as a training loop calls it, leaves the place alone
    assert epoch_of(resumed, epoch + 1) == following


# Cases


def test_another_order_in_every_epoch_and_for_every_seed():
    sampler = ExactShares([40, 60], [4, 6])
    first, second = epoch_of(sampler, 0), epoch_of(sampler, 1)
    assert first != second
    assert first == epoch_of(sampler, 0)
    assert first != list(ExactShares([40, 60], [4, 6], seed=1))
    assert first != list(ExactShares([40, 60], [4, 6], seed=2**32))  # all 64 bits of a seed count


def test_a_bank_larger_than_an_epoch_is_gone_through_over_several():
    sampler = ExactShares([8, 30], [4, 5])  # 10 synthetic images an epoch
    drawn = [[image for batch in epoch_of(sampler, epoch) for image in batch[4:]] for epoch in range(3)]
    assert [len(set(images)) for images in drawn] == [10, 10, 10]
    assert sorted(itertools.chain(*drawn)) == list(range(8, 38))


def test_two_sources_of_one_size_are_in_different_orders():
    sampler = ExactShares([50, 50, 50], [50, 50, 50])
    (batch,) = sampler
    parts = by_source(batch, (50, 50, 50))
    assert len({tuple(part) for part in parts}) == 3
    assert all(sorted(part) == list(range(50)) for part in parts)


def test_orders_are_uniform():
    firsts = Counter()
    sampler = ExactShares([4, 4], [4, 4])
    for epoch in range(4000):
        (batch,) = epoch_of(sampler, epoch)
        firsts[batch[0], batch[4] - 4] += 1
    expected = 4000 / 16
    statistic = sum((firsts[pair] - expected) ** 2 / expected for pair in [(a, b) for a in range(4) for b in range(4)])
    assert statistic < 37.7  # chi-squared with 15 degrees of freedom, p = 0.001; the seed is fixed


def test_a_source_may_give_nothing():
    assert {image for batch in ExactShares([6, 0, 9], [2, 0, 0]) for image in batch} == set(range(6))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_gets_the_images_whatever_its_workers(workers):
    sizes = (23, 9)
    sampler = ExactShares(sizes, [5, 3], seed=3)
    loader = DataLoader(joined(sizes), batch_sampler=sampler, num_workers=workers)
    assert len(loader) == len(sampler) == 4
    expected = ExactShares(sizes, [5, 3], seed=3)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        assert [batch.tolist() for batch in loader] == epoch_of(expected, epoch)


def test_resumed_behind_workers_that_draw_ahead():
    sizes = (40, 20)
    sampler = ExactShares(sizes, [4, 1], seed=5)
    whole = list(ExactShares(sizes, [4, 1], seed=5))
    loader = iter(DataLoader(joined(sizes), batch_sampler=sampler, num_workers=2))
    for _ in range(3):
        next(loader)
    assert sampler.state_dict()["batches"] > 3  # which is why the loop says how far it is
    state = sampler.state_dict(done=3)
    del loader

    resumed = ExactShares(sizes, [4, 1], seed=5)
    resumed.load_state_dict(state)
    rest = [batch.tolist() for batch in DataLoader(joined(sizes), batch_sampler=resumed, num_workers=2)]
    assert rest == whole[3:]


def test_a_state_serves_all_ranks_and_another_number_of_processes():
    sizes, per_batch = [24, 10], [2, 1]
    whole = list(ExactShares(sizes, per_batch))
    states = []
    for rank in range(2):
        sampler = ExactShares(sizes, per_batch, rank=rank, processes=2)
        passing = iter(sampler)
        for _ in range(3):
            next(passing)
        states.append(sampler.state_dict())
    assert states[0] == states[1]
    ranks = []
    for rank in range(3):
        sampler = ExactShares(sizes, per_batch, rank=rank, processes=3)
        sampler.load_state_dict(states[0])
        ranks.append(list(sampler))
    assert [batch for step in zip(*ranks, strict=True) for batch in step] == whole[6:]


def test_a_state_passes_a_checkpoint_that_holds_no_pickled_code(tmp_path):
    sampler = ExactShares([8, 4], [2, 1], seed=2**63 - 1)
    sampler.set_epoch(7)
    torch.save(sampler.state_dict(done=2), tmp_path / "state.pt")
    resumed = ExactShares([8, 4], [2, 1], seed=2**63 - 1)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (resumed.epoch, list(resumed)) == (7, epoch_of(sampler, 7)[2:])


def test_a_finished_epoch_leaves_nothing_and_the_next_is_whole():
    sampler = ExactShares([8, 4], [2, 1])
    sampler.load_state_dict(sampler.state_dict(done=4))
    assert epoch_of(sampler, 0) == []
    assert len(epoch_of(sampler, 1)) == 4


def test_a_forgotten_set_epoch_is_told_once():
    sampler = ExactShares([8, 4], [2, 1])
    list(sampler)
    with pytest.warns(UserWarning, match=r"epoch 0 is gone through again.*call set_epoch"):
        list(sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(sampler)
        for epoch in range(3):
            epoch_of(ExactShares([8, 4], [2, 1]), epoch)


def test_a_look_at_the_first_batch_is_no_pass():
    sampler = ExactShares([8, 4], [2, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = next(iter(sampler))
        assert next(iter(sampler)) == first


# Libraries that handle samplers


def test_accelerate_shares_out_the_list_and_sets_the_epoch():
    sizes, per_batch = (23, 9), (5, 3)
    loaders = [
        prepare_data_loader(
            DataLoader(joined(sizes), batch_sampler=ExactShares(sizes, per_batch)),
            num_processes=2,
            process_index=rank,
            rng_types=[],
        )
        for rank in range(2)
    ]
    for epoch in range(3):
        ranks = [[batch.tolist() for batch in loader] for loader in loaders]
        together = [batch for step in zip(*ranks, strict=True) for batch in step]
        assert together == epoch_of(ExactShares(sizes, per_batch), epoch)


@pytest.mark.filterwarnings("ignore")
def test_lightning_sets_the_epoch():
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not here")

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(1, 1), {}

        def training_step(self, batch, number):
            self.seen.setdefault(self.current_epoch, []).append(batch.tolist())
            return self.layer(batch[:, None].float()).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    sizes, per_batch = (23, 9), (5, 3)
    model = Model()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(model, DataLoader(joined(sizes), batch_sampler=ExactShares(sizes, per_batch)))
    assert model.seen == {epoch: epoch_of(ExactShares(sizes, per_batch), epoch) for epoch in range(3)}


# shares


@pytest.mark.parametrize(
    ("batch_size", "fractions", "expected"),
    [
        (16, (0.7, 0.3), (11, 5)),
        (10, (0.15, 0.85), (2, 8)),  # equal remainders: the first
        (10, (0.35, 0.65), (4, 6)),
        (100, (0.29, 0.71), (29, 71)),  # 0.29 * 100 is 28.999999999999996 in floating point
        (10, (1 / 3, 1 / 3, 1 / 3), (4, 3, 3)),
        (32, (1.0, 0.0), (32, 0)),
        (1, [1], (1,)),
    ],
)
def test_shares_by_the_largest_remainder(batch_size, fractions, expected):
    assert shares(batch_size, fractions) == expected


@given(st.integers(20, 4096), st.lists(st.integers(5, 100), min_size=1, max_size=4))
def test_shares_fill_the_batch_and_miss_by_less_than_one_image(batch_size, weights):
    fractions = [weight / sum(weights) for weight in weights]
    assume(batch_size * min(fractions) > 1)
    counts = shares(batch_size, fractions)
    assert sum(counts) == batch_size
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - batch_size * Fraction(weight, sum(weights))) < 1 + Fraction(1, 10**6)


# Bad input


@pytest.mark.parametrize(
    ("batch_size", "fractions", "message"),
    [
        (0, (0.7, 0.3), "batch_size must be a whole number, at least 1, got 0"),
        (16, (0.7, 0.4), r"must not be negative and sum to 1, got \(0.7, 0.4\)"),
        (16, (1.5, -0.5), "must not be negative and sum to 1"),
        (16, (float("nan"), 1.0), "must not be negative and sum to 1"),
        (16, (), "must not be negative and sum to 1"),
        (16, 0.3, "fractions must be numbers, one a source, got 0.3"),
        (16, ("a", "b"), "fractions must be numbers, one a source"),
        (16, (0.99, 0.01), "0.01 of a batch of 16 is not one image; take larger batches, or 0 for none"),
    ],
)
def test_fractions_that_make_no_batch(batch_size, fractions, message):
    with pytest.raises(InputError, match=message):
        shares(batch_size, fractions)


@pytest.mark.parametrize(
    ("sizes", "per_batch", "options", "message"),
    [
        ([10, 5], [2], {}, "one number for each source, got 2 and 1"),
        ([], [], {}, "one number for each source, got 0 and 0"),
        (10, [2], {}, "sizes must be a list of numbers, one for each source, got 10"),
        ([10, 5], [0, 2], {}, "at least 1 of the first source"),
        ([10, 5], [2.0, 1], {}, r"per_batch\[0\] must be a whole number, at least 0, got 2.0"),
        ([10, -5], [2, 1], {}, r"sizes\[1\] must be a whole number, at least 0, got -5"),
        ([10, 0], [2, 1], {}, "source 1 is to give 1 images a batch, and has none"),
        ([0, 9], [2, 1], {"drop_last": False}, "source 0 is to give 2 images a batch, and has none"),
        ([3, 9], [4, 1], {}, "3 images, fewer than 4 for each of 1 processes; take smaller batches, or drop_last"),
        ([7, 9], [4, 1], {"processes": 2}, "7 images, fewer than 4 for each of 2 processes"),
        ([8, 9], [4, 1], {"processes": 2, "rank": 2}, "rank must be a whole number, from 0 to 1, got 2"),
        ([8, 9], [4, 1], {"processes": 0}, "processes must be a whole number, at least 1, got 0"),
        ([8, 9], [4, 1], {"seed": -1}, "seed must be a whole number, from 0 to"),
    ],
)
def test_counts_that_make_no_batches(sizes, per_batch, options, message):
    with pytest.raises(InputError, match=message):
        ExactShares(sizes, per_batch, **options)


@pytest.mark.parametrize("epoch", [-1, 1.0, None])
def test_no_epoch(epoch):
    with pytest.raises(InputError, match="epoch must be a whole number, at least 0"):
        ExactShares([8, 4], [2, 1]).set_epoch(epoch)


@pytest.mark.parametrize("done", [-1, 5])
def test_more_done_than_there_is(done):
    with pytest.raises(InputError, match=f"done must be a whole number, from 0 to 4, got {done}"):
        ExactShares([8, 4], [2, 1]).state_dict(done=done)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ExactShares([8, 5], [2, 1]), r"the state is of sizes \[8, 5\], this sampler of \[8, 4\]"),
        (ExactShares([8, 4], [2, 2]), r"the state is of per_batch \[2, 2\], this sampler of \[2, 1\]"),
        (ExactShares([8, 4], [2, 1], seed=1), "the state is of seed 1, this sampler of 0"),
        (ExactShares([8, 4], [2, 1], drop_last=False), "the state is of drop_last False, this sampler of True"),
    ],
)
def test_a_state_of_another_run(other, message):
    with pytest.raises(InputError, match=message):
        ExactShares([8, 4], [2, 1]).load_state_dict(other.state_dict())


def test_no_state():
    with pytest.raises(InputError, match="no state of a sampler: batches, drop_last, per_batch, seed, sizes missing"):
        ExactShares([8, 4], [2, 1]).load_state_dict({"epoch": 3})


def test_a_state_between_the_turns_of_more_processes():
    state = ExactShares([8, 4], [2, 1]).state_dict(done=3)
    with pytest.raises(InputError, match="3 batches are done, which 2 processes cannot have shared evenly"):
        ExactShares([8, 4], [2, 1], rank=1, processes=2).load_state_dict(state)


def test_the_former_module_says_where_it_is_now():
    with pytest.warns(DeprecationWarning, match=r"bank\.shares is now genmix_transforms\.bank\.blending"):
        former = importlib.reload(importlib.import_module("genmix_transforms.bank.shares"))
    assert former.ExactShares is ExactShares
    assert former.shares is shares


def test_a_state_is_the_callers_own():
    sampler = ExactShares(sizes=[6, 100], per_batch=[2, 1])
    state = sampler.state_dict()
    state["sizes"].append(3)
    assert sampler.state_dict()["sizes"] == [6, 100]
