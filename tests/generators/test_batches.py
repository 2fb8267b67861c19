"""Batches: always of one size, and every image's noise its own."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.generators.batches import whole_batches
from genmix_transforms.generators.randomness import noise


def test_batches_are_whole_and_noise_is_each_images_own() -> None:
    labels, seeds = torch.arange(5) % 3, torch.arange(5) + 7
    batches = list(whole_batches(labels, seeds, 2, (1, 4, 4)))
    assert [len(some) for _, some, _, _ in batches] == [2, 2, 2]
    assert torch.equal(torch.cat([some for _, some, _, _ in batches])[:5], labels)
    together = next(iter(whole_batches(labels, seeds, 8, (1, 4, 4))))
    for stream in (0, 1, 30):
        apart = torch.cat([fresh(stream) for _, _, _, fresh in batches])[:5]
        assert torch.equal(apart, together[3](stream)[:5])
        assert len({float(row.sum()) for row in apart}) == 5
    assert torch.equal(batches[0][2], batches[0][3](0))
    assert not torch.equal(batches[0][3](1), batches[0][3](2))


@given(count=st.integers(0, 9), batch_size=st.integers(1, 5), stream=st.integers(0, 3))
def test_the_whole_is_covered_once_and_in_order(count: int, batch_size: int, stream: int) -> None:
    labels, seeds = torch.arange(count) + 1, torch.arange(count) * 7
    covered = []
    for here, some, start, fresh in whole_batches(labels, seeds, batch_size, (2, 3)):
        size = here.stop - here.start
        assert len(some) == len(start) == len(fresh(stream)) == batch_size
        assert torch.equal(some[:size], labels[here])
        assert torch.equal(fresh(stream)[:size], noise(seeds[here].tolist(), (2, 3), stream=stream))
        assert not some[size:].any()
        assert not start[size:].any()
        covered += range(here.start, here.stop)
    assert covered == list(range(count))
