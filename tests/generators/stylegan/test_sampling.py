"""Sampling by label and seed; truncation; styles mixed, and the way between them."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators import StyleGAN
from genmix_transforms.generators.stylegan import interpolate, mix_styles

GENERATOR = StyleGAN(classes=["a", "b"], resolution=16, fmap_base=64, fmap_max=8, latent_size=8)
with torch.no_grad():  # untrained, the noise has no strength, and the mean is nowhere
    for _layer in GENERATOR.network.synthesis.layers:
        _layer.noise_strength.fill_(0.5)
    GENERATOR.network.mean_w.copy_(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)))


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2**62)), min_size=1, max_size=70))
def test_an_image_depends_on_its_own_label_and_seed_alone(pairs: list[tuple[int, int]]) -> None:
    labels, seeds = [label for label, _ in pairs], [seed for _, seed in pairs]
    together = GENERATOR.sample(labels, seeds)
    assert torch.equal(GENERATOR.sample(labels[::-1], seeds[::-1]), together.flip(0))
    last = len(pairs) - 1
    assert torch.equal(GENERATOR.sample([labels[last]], [seeds[last]])[0], together[last])


def test_latent_and_noise_both_follow_from_the_seed() -> None:
    styles = GENERATOR.styles([0, 0], [1, 2])
    assert not torch.equal(styles[0], styles[1])
    first = GENERATOR.paint(styles[:1], [1])
    assert torch.equal(first, GENERATOR.sample([0], [1]))
    assert not torch.equal(GENERATOR.paint(styles[:1], [2]), first)  # other noise, same styles
    assert GENERATOR.paint(styles[:1], [2**40 + 1]).ne(first).any()  # all 64 bits of the seed count


def test_truncation() -> None:
    mean = GENERATOR.network.mean_w[1]
    whole = GENERATOR.truncated(psi=1.0).styles([1], [5])[0]
    assert torch.allclose(GENERATOR.truncated(psi=0.0).styles([1], [5])[0], mean.expand(6, -1), atol=1e-6)
    half = GENERATOR.truncated(psi=0.5, cutoff=2).styles([1], [5])[0]
    assert torch.allclose(half[:2], (mean + whole[:2]) / 2, atol=1e-6)
    assert torch.equal(half[2:], whole[2:])
    assert (GENERATOR.psi, GENERATOR.cutoff) == (1.0, 8)  # as it was
    assert GENERATOR.truncated(psi=0.3).config["psi"] == 0.3  # part of a bank's identity


VARIED = StyleGAN(classes=["a", "b"], resolution=16, fmap_base=64, fmap_max=8, latent_size=8, psi=1.0)


def test_mixing_a_seed_with_itself_is_the_image_itself() -> None:
    grid = mix_styles(VARIED, label=1, coarse_seeds=[3, 4], fine_seeds=[4, 3, 5])
    assert grid.shape == (2, 3, 1, 16, 16)
    alone = VARIED.sample([1, 1], [3, 4])
    assert torch.equal(grid[0, 1], alone[0])
    assert torch.equal(grid[1, 0], alone[1])
    assert not torch.equal(grid[0, 2], alone[0])


@pytest.mark.parametrize("crossover", [1, 3, 5])
def test_layers_from_the_crossover_on_are_the_fine_seeds(crossover: int) -> None:
    coarse, fine = VARIED.styles([0, 0], [1, 2])
    mixed = torch.cat([coarse[:crossover], fine[crossover:]])
    expected = VARIED.paint(mixed[None], [1])
    assert torch.equal(mix_styles(VARIED, label=0, coarse_seeds=[1], fine_seeds=[2], crossover=crossover)[0], expected)


def test_a_way_starts_and_ends_at_its_seeds() -> None:
    rows = interpolate(VARIED, label=0, seeds=[5, 6, 7], frames=4)
    assert rows.shape == (2, 4, 1, 16, 16)
    ends = VARIED.styles([0] * 3, [5, 6, 7])
    assert torch.equal(rows[0, 0], VARIED.sample([0], [5])[0])
    # the same noise all the way
    assert torch.equal(rows[0, -1], VARIED.paint(ends[1:2], [5])[0])
    assert torch.equal(rows[1, 0], rows[0, -1])
    third = VARIED.paint((ends[:1] * 2 + ends[1:2]) / 3, [5])[0]
    assert (rows[0, 1].int() - third.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("call", "options", "message"),
    [
        (mix_styles, {"coarse_seeds": [], "fine_seeds": [1]}, "at least one coarse and one fine seed"),
        (mix_styles, {"coarse_seeds": [1], "fine_seeds": [1], "crossover": 6}, "crossover must be .* from 1 to 5"),
        (mix_styles, {"coarse_seeds": [1], "fine_seeds": [-1]}, "seeds must not be negative"),
        (interpolate, {"seeds": [1]}, "at least two seeds to go between, got 1"),
        (interpolate, {"seeds": [1, 2], "frames": 1}, "frames must be a whole number, at least 2"),
        (interpolate, {"seeds": [1, 2], "label": 2}, "labels run from 2 to 2, but the classes are 0 a, 1 b"),
    ],
)
def test_what_cannot_be(call: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(VARIED, **{"label": 0, **options})
