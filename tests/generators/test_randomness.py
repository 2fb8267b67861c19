"""Noise and data order follow from seeds and positions alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.generators.randomness import DataOrder, noise, reseed, step_seed

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


def test_noise_is_standard_normal() -> None:
    draws = noise(range(2000), (50,))
    assert draws.dtype == torch.float32
    assert draws.mean().abs() < 0.01
    assert abs(draws.std() - 1) < 0.01
    assert (draws[:-1] * draws[1:]).mean().abs() < 0.01  # neighbouring seeds are independent


def test_noise_is_the_same_in_every_release() -> None:
    # Banks are identified by their seeds: if NumPy ever changes this stream, it must be noticed.
    expected = [-0.2933390140533447, 1.703830599784851, 1.5391918420791626]
    assert noise([7], (3,))[0].tolist() == expected


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6), st.integers(0, 5))
def test_a_draw_depends_on_its_own_seed_alone(seeds: list[int], stream: int) -> None:
    together = noise(seeds, (4,), stream=stream)
    for row, seed in zip(together, seeds, strict=True):
        assert torch.equal(row, noise([seed], (4,), stream=stream)[0])


def test_all_64_bits_of_a_seed_count() -> None:
    # torch's CPU generator would give these two the same numbers.
    assert not torch.equal(noise([5], (4,)), noise([5 + 2**32], (4,)))
    assert not torch.equal(noise([5], (4,)), noise([5], (4,), stream=1))


def test_no_seeds_no_noise() -> None:
    assert noise([], (3, 2)).shape == (0, 3, 2)


def test_every_step_and_process_has_a_seed_of_its_own() -> None:
    seeds = {step_seed(s, rank=r, images_seen=i) for s in range(3) for r in range(3) for i in range(0, 80, 8)}
    assert len(seeds) == 90
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 200), st.lists(st.integers(1, 30), max_size=6))
def test_the_order_does_not_depend_on_how_it_is_read(count: int, seed: int, start: int, lengths: list[int]) -> None:
    order = DataOrder(count, seed=seed)
    whole = DataOrder(count, seed=seed)(start, start + sum(lengths)) if lengths else torch.empty(0, dtype=torch.int64)
    parts, position = [torch.empty(0, dtype=torch.int64)], start
    for length in lengths:
        parts.append(order(position, position + length))
        position += length
    assert torch.equal(torch.cat(parts), whole)


@given(st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 5))
def test_an_epoch_has_every_image_once(count: int, seed: int, epoch: int) -> None:
    index = DataOrder(count, seed=seed)(epoch * count, (epoch + 1) * count)
    assert sorted(index.tolist()) == list(range(count))


def test_epochs_and_seeds_differ() -> None:
    order = DataOrder(50, seed=0)
    assert not torch.equal(order(0, 50), order(50, 100))
    assert not torch.equal(order(0, 50), DataOrder(50, seed=1)(0, 50))


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_reseeding_is_torchs_manual_seed(device: str) -> None:
    for seed in (0, 7, 2**32 + 7, 2**63 - 1):
        drawn = []
        for seeding in (lambda seed: reseed(seed, torch.device(device)), torch.manual_seed):
            torch.rand(3, device=device)  # whatever was drawn before
            seeding(seed)
            drawn.append([torch.rand(5), torch.rand(5, device=device), torch.randn(5, device=device)])
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*drawn, strict=True))


def test_reseeding_for_another_kind_of_device_seeds_the_cpu_too() -> None:
    drawn = []
    for device in ("cpu", "mps"):  # the seed of a device that is not there waits for it
        reseed(3, torch.device(device))
        drawn.append(torch.rand(5))
    assert torch.equal(*drawn)
