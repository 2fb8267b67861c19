"""Where a GenMix draws from: the law of its numbers, whose state moves, and who draws differently from whom."""

import copy
import functools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader

from genmix_transforms import GenMix
from genmix_transforms.errors import InputError
from genmix_transforms.transforms import randomness
from genmix_transforms.transforms.randomness import UniformSource

CPU = torch.device("cpu")
RANKS = range(8)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def seeded(seed=0):
    return UniformSource(torch.Generator().manual_seed(seed))


def on_rank(number, uniform):
    """What a rank makes of the numbers that all draw alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(randomness, "rank", lambda: number)
        return randomness._other_on_every_rank(uniform)


@pytest.fixture
def set_rank(monkeypatch):
    return lambda number: monkeypatch.setattr(randomness, "rank", lambda: number)


# What is drawn


def test_shape_dtype_and_range():
    uniform = seeded()(1000, 5, CPU)
    assert (uniform.shape, uniform.dtype) == ((1000, 5), torch.float64)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert seeded()(0, 5, CPU).shape == (0, 5)


@pytest.mark.parametrize("number", RANKS)
def test_the_law_is_uniform_on_every_rank(set_rank, number):
    set_rank(number)
    uniform = seeded(number)(100_000, 5, CPU).numpy()
    assert 0 <= uniform.min() < 1e-4
    assert 1 - 1e-4 < uniform.max() < 1
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    for column in uniform.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    # To the last bit: alpha = 0.3 takes u ** 3.33, which looks closely at small numbers.
    last_bits = (uniform * 2.0**53).astype(np.int64).ravel() & 255
    assert stats.chisquare(np.bincount(last_bits, minlength=256)).pvalue > 1e-3


def joint(one, other, cells=16):
    """Chi-square p-value of two columns' independence, by the squares of a grid."""
    seen = np.histogram2d(one, other, bins=cells, range=[[0, 1], [0, 1]])[0]
    return stats.chisquare(seen.ravel()).pvalue


@pytest.mark.parametrize("number", [0, 1, 5])
def test_columns_and_neighbouring_rows_are_independent(set_rank, number):
    set_rank(number)
    uniform = seeded()(50_000, 5, CPU).numpy()
    for one in range(5):
        for other in range(one):
            assert joint(uniform[:, one], uniform[:, other]) > 1e-4
    for lag in (1, 2, 8):
        assert joint(uniform[:-lag, 0], uniform[lag:, 0]) > 1e-4


@pytest.mark.parametrize("number", RANKS[1:])
def test_even_a_counter_becomes_uniform_and_independent(number):
    """The hash does not lean on its input being random: numbers next to each other come out far apart."""
    counter = torch.arange(50_000, dtype=torch.float64) * 2.0**-53
    found = on_rank(number, counter).numpy()
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert joint(found[:-1], found[1:]) > 1e-4


def test_ranks_draw_other_numbers_from_one_state():
    uniform = seeded()(50_000, 1, CPU)
    found = [on_rank(number, uniform).numpy().ravel() for number in RANKS]
    assert np.array_equal(found[0], uniform.numpy().ravel())  # the first rank's are the generator's own
    for one in RANKS:
        for other in range(one):
            assert not (found[one] == found[other]).any()
            assert abs(np.corrcoef(found[one], found[other])[0, 1]) < 4 / np.sqrt(50_000)
            assert joint(found[one], found[other]) > 1e-4


def split_mix(state):
    """SplitMix64's output function, in whole numbers of Python."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


def test_the_reference_is_split_mix():
    """Against the first numbers of the published generator (Vigna), seed 1234567."""
    golden = 0x9E3779B97F4A7C15
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [split_mix((1234567 + golden * step) % 2**64) for step in range(1, 5)] == expected


@given(st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=8), st.integers(1, 2**20))
def test_the_hash_is_split_mix_of_number_and_rank(bits, number):
    uniform = torch.tensor(bits, dtype=torch.float64) * 2.0**-53
    expected = [(split_mix((one + number * 0x1E3779B97F4A7C15 % 2**63) % 2**64) >> 11) * 2.0**-53 for one in bits]
    assert on_rank(number, uniform).tolist() == expected


def test_the_hash_where_there_is_no_float64():
    """24 bits, each a multiple of 2 ** -24: a float32 nearer to 1 would round to it."""
    found = on_rank(3, torch.rand(200_000, generator=torch.Generator().manual_seed(0)))
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() < 1
    assert torch.equal(found * 2**24, (found * 2**24).round())
    assert stats.kstest(found.numpy(), "uniform").pvalue > 1e-3


# Whose state moves


def test_the_global_generator():
    source = UniformSource(None)
    torch.manual_seed(3)
    first, second = source(4, 5, CPU), source(4, 5, CPU)
    torch.manual_seed(3)
    assert torch.equal(source(4, 5, CPU), first)
    assert torch.equal(source(4, 5, CPU), second)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4, 5, dtype=torch.float64), first)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert torch.equal(source(4, 5, CPU), first)


def test_an_own_generator_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    source = seeded(3)
    first = source(4, 5, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    second = source(4, 5, CPU)
    expected = torch.rand(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat([first, second]), expected)


@pytest.mark.parametrize("number", [0, 3])
def test_all_ranks_keep_one_state(set_rank, number):
    """The first rank's checkpoint serves all: drawing moves the generator alike on each."""
    set_rank(number)
    source = seeded()
    source(4, 5, CPU)
    expected = torch.Generator().manual_seed(0)
    torch.rand(4, 5, dtype=torch.float64, generator=expected)
    assert torch.equal(source.generator.get_state(), expected.get_state())


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 2**63), st.sampled_from([0, 1, 6]))
def test_a_row_does_not_depend_on_the_batch_it_is_drawn_in(parts, seed, number):
    """Drawing 8 rows is drawing 3 and then 5."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(randomness, "rank", lambda: number)
        source = seeded(seed)
        several = [source(rows, 5, CPU) for rows in parts]
        together = seeded(seed)(sum(parts), 5, CPU)
    assert torch.equal(torch.cat([torch.empty(0, 5, dtype=torch.float64), *several]), together)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda source: pickle.loads(pickle.dumps(source))])
def test_copies_go_on_from_the_state_each_for_itself(duplicate):
    source = seeded()
    source(3, 5, CPU)
    other = duplicate(source)
    assert other.generator is not source.generator
    ours = [source(3, 5, CPU) for _ in range(2)]
    theirs = [other(3, 5, CPU) for _ in range(2)]
    assert torch.equal(torch.stack(ours), torch.stack(theirs))
    assert not torch.equal(ours[0], ours[1])
    assert duplicate(UniformSource(None)).generator is None


def test_where_there_are_no_values():
    assert seeded()(3, 5, torch.device("meta")).device.type == "meta"
    assert UniformSource(None)(3, 5, torch.device("meta")).shape == (3, 5)


@pytest.mark.parametrize("wrong", [0, "cpu", np.random.default_rng(0), torch.Generator])
def test_what_is_no_generator(wrong):
    text = (
        rf"GenMix: generator must be a torch\.Generator, got {type(wrong).__name__}; "
        r"from a seed: torch\.Generator\(device\)\.manual_seed\(seed\)"
    )
    with pytest.raises(InputError, match=text):
        UniformSource(wrong)


def test_a_generator_on_another_device():
    """Told before anything is drawn: no GPU is needed to be told."""
    text = (
        r"GenMix: the batch is on cuda:1, the generator on cpu: make it there, with "
        r"torch\.Generator\('cuda:1'\)\.manual_seed\(seed\)"
    )
    with pytest.raises(InputError, match=text):
        seeded()(3, 5, torch.device("cuda:1"))


# Ranks


def test_the_rank_of_a_process_group(monkeypatch):
    from torch.testing._internal.distributed.fake_pg import FakeStore

    monkeypatch.setattr(randomness, "_launched_as", 3)
    assert randomness.rank() == 3
    dist.init_process_group("fake", store=FakeStore(), rank=5, world_size=8)
    try:
        assert randomness.rank() == 5
        assert torch.equal(seeded()(3, 5, CPU), on_rank(5, seeded_on_the_first_rank()))
    finally:
        dist.destroy_process_group()
    assert randomness.rank() == 3


def seeded_on_the_first_rank():
    return torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


SCRIPT = """
import torch
from genmix_transforms.transforms import randomness
source = randomness.UniformSource(torch.Generator().manual_seed(0))
print(randomness.rank(), *source(3, 5, torch.device("cpu")).flatten().tolist())
"""


@pytest.mark.parametrize(("variable", "number"), [("3", 3), pytest.param("", 0, marks=pytest.mark.slow)])
def test_the_rank_that_a_launcher_gave(variable, number):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RANK": variable}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120)
    found, *drawn = done.stdout.split()
    assert int(found) == number
    assert [float(one) for one in drawn] == on_rank(number, seeded_on_the_first_rank()).flatten().tolist()


# The workers of a DataLoader


def load(source, *, context="fork", epochs=2, seed=0, workers=2, **options):
    """What the workers draw: for each epoch, three times two rows of each worker in turn."""
    torch.manual_seed(seed)
    loader = DataLoader(
        [2] * 6,  # what is loaded is how many rows to draw
        batch_size=None,
        collate_fn=functools.partial(source, columns=5, device=CPU),
        num_workers=workers,
        multiprocessing_context=context,
        **options,
    )
    return torch.stack([torch.stack(list(loader)) for _ in range(epochs)])


def all_differ(drawn):
    return len(drawn.unique()) == drawn.numel()


@pytest.mark.parametrize("generator", [None, 7])
@pytest.mark.parametrize("persistent", [False, True])
def test_forked_workers(generator, persistent):
    """Workers, batches and epochs all draw other numbers; a restart with the same seed draws the same."""
    source = UniformSource(None) if generator is None else seeded(generator)
    state = None if generator is None else source.generator.get_state()
    drawn = load(source, persistent_workers=persistent)
    assert drawn.shape == (2, 6, 2, 5)
    assert all_differ(drawn)
    assert torch.equal(load(source, persistent_workers=persistent), drawn)
    assert all_differ(torch.cat([load(source, seed=1, persistent_workers=persistent), drawn]))
    if generator is not None:
        assert torch.equal(source.generator.get_state(), state)  # this process's is untouched
        mine = source(24, 5, CPU)
        assert all_differ(torch.cat([mine.flatten(), drawn.flatten()]))
        # Other own seeds, other draws.
        assert all_differ(torch.cat([load(seeded(generator + 1), persistent_workers=persistent), drawn]))


class Several:
    """What several sources draw."""

    def __init__(self, *sources):
        self.sources = sources

    def __call__(self, rows, *, columns, device):
        return torch.stack([source(rows, columns, device) for source in self.sources])


def test_a_spawned_worker():
    """It gets the source as a pickle, and draws what a forked one draws.

    A generator's own pickle would not do: it lets go of its state before the other process has it.
    """
    both = Several(UniformSource(None), seeded(7))
    drawn = load(both, context="spawn", epochs=1, workers=1)
    assert all_differ(drawn)
    assert torch.equal(drawn, load(both, epochs=1, workers=1))


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1])
def test_any_seed_of_an_own_generator_serves_in_workers(seed):
    assert all_differ(load(UniformSource(torch.Generator().manual_seed(seed)), epochs=1))


@pytest.mark.parametrize("generator", [None, 7])
def test_workers_of_other_ranks(set_rank, generator):
    """Every rank seeds its loader alike, so that the workers' seeds are alike as well."""
    drawn = []
    for number in (0, 1, 2):
        set_rank(number)
        drawn.append(load(UniformSource(None) if generator is None else seeded(generator), epochs=1))
    assert all_differ(torch.stack(drawn))


# Compiled


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("own", [True, False])
def test_compiled_it_draws_the_same_stream(set_rank, backend, number, own):
    """Fresh numbers at every call, also of two in one graph; compiled and plain calls draw from one state."""
    set_rank(number)
    torch._dynamo.reset()
    source, expected = (seeded(), seeded()) if own else (UniformSource(None), UniformSource(None))
    step = torch.compile(lambda: (source(4, 5, CPU), source(2, 5, CPU)), fullgraph=True, backend=backend)
    torch.manual_seed(0)
    found = torch.cat([*step(), *step(), source(1, 5, CPU), *step()])
    torch.manual_seed(0)
    plain = torch.cat([expected(rows, 5, CPU) for rows in (4, 2, 4, 2, 1, 4, 2)])
    assert torch.equal(found, plain)
    assert all_differ(found)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_for_several_sources(backend):
    """One compiled function, given one source after another (a copy among them): each draws from its own."""
    torch._dynamo.reset()
    step = torch.compile(lambda source: source(4, 5, CPU), fullgraph=True, backend=backend)
    sources = [seeded(0), seeded(1)]
    sources.append(copy.deepcopy(sources[0]))
    for _ in range(2):
        found = [step(source) for source in sources]
        assert torch.equal(found[0], found[2])
        assert not torch.equal(found[0], found[1])
    assert torch.equal(step(sources[0]), seeded(0)(12, 5, CPU)[8:])


@pytest.mark.parametrize("backend", ["aot_eager", "aot_eager_decomp_partition"])
def test_compiled_the_backward_pass_sees_the_numbers_of_the_forward_pass(backend):
    """A compiler may compute again instead of keeping, and once instead of twice: not what is random."""
    torch._dynamo.reset()
    source = seeded()
    weight = torch.ones(5, requires_grad=True)

    def step(images):
        one, other = source(4, 5, CPU).float(), source(4, 5, CPU).float()
        return (torch.sin(images * one * weight) * one.cos() * other).sum(), one, other

    images = torch.rand(4, 5)
    loss, one, other = torch.compile(step, fullgraph=True, backend=backend)(images)
    (found,) = torch.autograd.grad(loss, weight)
    (expected,) = torch.autograd.grad((torch.sin(images * one * weight) * one.cos() * other).sum(), weight)
    assert torch.allclose(found, expected)
    assert torch.equal(torch.cat([one, other]), seeded()(8, 5, CPU).float())


def test_no_source_is_kept_alive():
    source = seeded()
    handle = source._handle
    assert randomness._sources[handle] is source
    del source
    assert handle not in randomness._sources


# On a GPU


@needs_cuda
def test_on_cuda():
    source = UniformSource(torch.Generator("cuda").manual_seed(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        first, second = source(1000, 5, torch.device("cuda")), source(1000, 5, torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (first.dtype, first.device.type) == (torch.float64, "cuda")
    assert all_differ(torch.cat([first, second]))
    assert stats.kstest(first.cpu().numpy().ravel(), "uniform").pvalue > 1e-3
    again = UniformSource(torch.Generator("cuda").manual_seed(0))
    assert torch.equal(again(1000, 5, torch.device("cuda")), first)
    with pytest.raises(InputError, match=r"the batch is on cpu, the generator on cuda:0: make it there"):
        source(3, 5, CPU)


@needs_cuda
def test_the_hash_on_cuda_is_that_of_the_cpu():
    uniform = seeded()(1000, 5, CPU)
    assert torch.equal(on_rank(3, uniform.cuda()).cpu(), on_rank(3, uniform))


# The state of GenMix's own generator, in its checkpoints


SHAPE = (3, 8, 8)


@pytest.fixture
def bank(random_bank):
    return random_bank(12, shape=SHAPE)


def equal(one, other):
    return all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_the_state_dict_continues_a_run(bank, batch):
    """Also from a file, as a part of a model, and into a GenMix that has drawn something else meanwhile."""
    model = nn.ModuleList([GenMix(bank, generator=torch.Generator().manual_seed(0)), nn.Linear(2, 2)])
    sample = batch(shape=SHAPE)
    model[0](*sample)
    checkpoint = copy.deepcopy(model.state_dict())
    assert checkpoint.keys() == {"0.generator_state", "1.weight", "1.bias"}
    assert checkpoint["0.generator_state"].dtype == torch.uint8
    expected = [model[0](*sample) for _ in range(3)]
    again = nn.ModuleList([GenMix(bank, generator=torch.Generator().manual_seed(7)), nn.Linear(2, 2)])
    again[0](*sample)
    again.load_state_dict(checkpoint, strict=True)
    assert all(equal(again[0](*sample), one) for one in expected)


def test_a_state_that_is_missing_or_none_of_this_generators(bank):
    own, plain = GenMix(bank, generator=torch.Generator()), GenMix(bank)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"generator_state\""):
        own.load_state_dict({})
    assert own.load_state_dict({}, strict=False).missing_keys == ["generator_state"]
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"generator_state\""):
        plain.load_state_dict(own.state_dict())
    for wrong in (torch.zeros(3, dtype=torch.uint8), torch.zeros(3)):
        with pytest.raises(RuntimeError, match="GenMix: generator_state is no state of a generator on cpu"):
            own.load_state_dict({"generator_state": wrong})


def test_the_generator_can_be_replaced(bank, batch):
    genmix, sample = GenMix(bank), batch(shape=SHAPE)
    assert genmix.generator is None
    assert genmix.state_dict() == {}
    found = []
    for _ in range(2):
        genmix.generator = torch.Generator().manual_seed(3)
        assert genmix.state_dict().keys() == {"generator_state"}
        found.append(genmix(*sample))
    assert equal(*found)


def test_what_is_no_generator_is_refused(bank):
    genmix = GenMix(bank)
    with pytest.raises(InputError, match="generator must be a torch.Generator, got int"):
        genmix.generator = 3
