"""Sizes recognised from shapes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan.foreign import ForeignWeights, check_tensor, widths_to_fmap
from genmix_transforms.generators.stylegan.growth import channels_at
from genmix_transforms.generators.stylegan.network import StyleGANNetwork


@given(base=st.integers(1, 20_000), most=st.integers(1, 600), levels=st.integers(3, 9))
def test_every_network_is_recognised_by_its_widths(base: int, most: int, levels: int) -> None:
    widths = [channels_at(level, fmap_base=base, fmap_max=most) for level in range(levels)]
    found_base, found_most = widths_to_fmap(widths)
    assert [channels_at(level, fmap_base=found_base, fmap_max=found_most) for level in range(levels)] == widths


def test_the_published_widths() -> None:
    assert widths_to_fmap([512, 512, 512, 512, 256, 128, 64, 32, 16]) == (8192, 512)
    assert widths_to_fmap([512, 512, 512, 512]) == (8192, 512)


@pytest.mark.parametrize("widths", [[8, 16], [16, 8, 6], [8, 8, 2], [4, 4, 4, 1, 1, 4]])
def test_widths_that_do_not_halve(widths: list[int]) -> None:
    with pytest.raises(InputError, match="do not halve as StyleGAN's do"):
        widths_to_fmap(widths)


def test_growth_and_heads() -> None:
    state = StyleGANNetwork(resolution=32, latent_size=4, fmap_base=32, mapping_layers=1).state_dict()
    assert ForeignWeights("a", state).full_growth == 3
    assert ForeignWeights("a", state).levels_without_rgb == []
    del state["synthesis.to_rgb.1.weight"]
    assert ForeignWeights("a", state).levels_without_rgb == [1]


def test_tensors_are_copied_and_checked() -> None:
    tensor = torch.ones(2, dtype=torch.float16)
    copy = check_tensor(tensor, name="a")
    assert copy.dtype == torch.float32
    same = torch.ones(2)
    check_tensor(same, name="a").zero_()
    assert same.sum() == 2
    with pytest.raises(InputError, match=r"a: expected weights, got torch\.int64"):
        check_tensor(torch.ones(2, dtype=torch.int64), name="a")
    with pytest.raises(InputError, match="a: holds values that are not finite"):
        check_tensor(torch.tensor([1.0, float("inf")]), name="a")
