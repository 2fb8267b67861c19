"""Mixed styles and ways through w: corners, columns and ends that are known."""

from typing import Any

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators import StyleGAN
from genmix_transforms.generators.stylegan.walking import interpolate, mix_styles

GENERATOR = StyleGAN(classes=["a", "b"], resolution=16, fmap_base=64, fmap_max=8, latent_size=8, psi=1.0)


def test_mixing_a_seed_with_itself_is_the_image_itself() -> None:
    grid = mix_styles(GENERATOR, label=1, coarse_seeds=[3, 4], fine_seeds=[4, 3, 5])
    assert grid.shape == (2, 3, 1, 16, 16)
    alone = GENERATOR.sample([1, 1], [3, 4])
    assert torch.equal(grid[0, 1], alone[0])
    assert torch.equal(grid[1, 0], alone[1])
    assert not torch.equal(grid[0, 2], alone[0])


@pytest.mark.parametrize("crossover", [1, 3, 5])
def test_layers_from_the_crossover_on_are_the_fine_seeds(crossover: int) -> None:
    coarse, fine = GENERATOR.styles([0, 0], [1, 2])
    mixed = torch.cat([coarse[:crossover], fine[crossover:]])
    expected = GENERATOR.paint(mixed[None], [1])
    assert torch.equal(
        mix_styles(GENERATOR, label=0, coarse_seeds=[1], fine_seeds=[2], crossover=crossover)[0], expected
    )


def test_a_way_starts_and_ends_at_its_seeds() -> None:
    rows = interpolate(GENERATOR, label=0, seeds=[5, 6, 7], frames=4)
    assert rows.shape == (2, 4, 1, 16, 16)
    ends = GENERATOR.styles([0] * 3, [5, 6, 7])
    assert torch.equal(rows[0, 0], GENERATOR.sample([0], [5])[0])
    # the same noise all the way
    assert torch.equal(rows[0, -1], GENERATOR.paint(ends[1:2], [5])[0])
    assert torch.equal(rows[1, 0], rows[0, -1])
    third = GENERATOR.paint((ends[:1] * 2 + ends[1:2]) / 3, [5])[0]
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
        call(GENERATOR, **{"label": 0, **options})
