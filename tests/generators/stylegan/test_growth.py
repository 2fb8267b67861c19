"""Growth as a number: sides, levels, fades and widths."""

import pytest

from genmix_transforms.generators.stylegan.growth import channels_at, doublings, fade_at, level_at, resolution_at


@pytest.mark.parametrize(("side", "count"), [(4, 0), (8, 1), (64, 4), (1024, 8)])
def test_doublings_and_back(side: int, count: int) -> None:
    assert doublings(side) == count
    assert resolution_at(float(count)) == side


def test_within_a_fade_the_next_block_is_there_already() -> None:
    assert (level_at(2.25), fade_at(2.25), resolution_at(2.25)) == (3, 0.25, 32)
    assert (level_at(3.0), fade_at(3.0), resolution_at(3.0)) == (3, 1.0, 32)


def test_widths_are_the_papers_and_scale() -> None:
    paper = [channels_at(level, fmap_base=8192, fmap_max=512) for level in range(9)]
    assert paper == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert [channels_at(level, fmap_base=64, fmap_max=16) for level in range(6)] == [16, 16, 8, 4, 2, 1]
    assert channels_at(8, fmap_base=64, fmap_max=16) == 1  # never none
