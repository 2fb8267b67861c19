"""StyleGAN: sampling by label and seed, styles, saving, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import StyleGAN, load_generator

Patches = Callable[..., PatchDataset]
TinyStyleGAN = Callable[..., StyleGAN]
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


def test_sampling_leaves_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    GENERATOR.sample([0], [1])
    assert torch.equal(torch.rand(2), expected)


def test_truncation() -> None:
    mean = GENERATOR.network.mean_w[1]
    whole = GENERATOR.truncated(psi=1.0).styles([1], [5])[0]
    assert torch.allclose(GENERATOR.truncated(psi=0.0).styles([1], [5])[0], mean.expand(6, -1), atol=1e-6)
    half = GENERATOR.truncated(psi=0.5, cutoff=2).styles([1], [5])[0]
    assert torch.allclose(half[:2], (mean + whole[:2]) / 2, atol=1e-6)
    assert torch.equal(half[2:], whole[2:])
    assert (GENERATOR.psi, GENERATOR.cutoff) == (0.7, 8)  # as published, and as it was
    assert GENERATOR.truncated(psi=0.3).config["psi"] == 0.3  # part of a bank's identity


@pytest.mark.parametrize("size", [9, 13, 16, 20, 28])
def test_other_sizes_are_cropped_back(size: int) -> None:
    generator = StyleGAN(classes=["a"], resolution=size, fmap_base=32, fmap_max=4, latent_size=4)
    side = generator.network_resolution
    assert side == (16 if size <= 16 else 32)
    assert generator.sample([0, 0], [1, 2]).shape == (2, 1, size, size)
    before, after = generator.padding
    assert before + size + after == side
    assert after - before in (0, 1)


def test_sixteen_bits_and_other_channels() -> None:
    wide = StyleGAN(classes=["a"], resolution=16, channels=5, fmap_base=32, fmap_max=4, latent_size=4, bits=16)
    assert wide.sample([0], [1]).dtype == torch.uint16
    assert wide.sample([], []).shape == (0, 5, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 8}, "resolution must be a whole number, from 9 to 1024, got 8"),
        ({"resolution": 1025}, "from 9 to 1024, got 1025"),
        ({"resolution": (64, 32)}, "resolution must be a whole number"),
        ({"classes": []}, "classes must be different names, at least one"),
        ({"classes": ["a", "a"]}, "classes must be different names"),
        ({"classes": "cyst"}, "in a list; got the text 'cyst'"),
        ({"classes": [1, 2]}, r"classes must be names, got \(1, 2\)"),
        ({"channels": 0}, "channels must be a whole number, at least 1, got 0"),
        ({"fmap_base": 0}, "fmap_base must be a whole number, at least 1"),
        ({"fmap_max": 1.5}, "fmap_max must be a whole number"),
        ({"latent_size": 0}, "latent_size must be a whole number, at least 1"),
        ({"mapping_layers": 0}, "mapping_layers must be a whole number, at least 1"),
        ({"conditioning": "add"}, "conditioning must be one of multiply, concatenate, got 'add'"),
        ({"psi": float("nan")}, "psi must be a number"),
        ({"psi": "0.7"}, "psi must be a number"),
        ({"cutoff": -1}, "cutoff must be a whole number, at least 0, got -1"),
        ({"bits": 12}, "bits must be 8 or 16, got 12"),
    ],
)
def test_networks_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StyleGAN(**{"classes": ["a"], "resolution": 16, **options})


def test_weights_of_another_resolution_or_class_count(tiny_stylegan: TinyStyleGAN, tmp_path: Path) -> None:
    tiny_stylegan().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key, value in (("resolution", 32), ("classes", ["a", "b", "c"]), ("channels", 3)):
        other = {**config, "config": {**config["config"], key: value}}
        (tmp_path / "config.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match=r"not the weights that config.json describes"):
            load_generator(tmp_path)


def test_styles_of_another_network(tiny_stylegan: TinyStyleGAN) -> None:
    with pytest.raises(InputError, match=r"styles must be \(n, 6, 8\), got \(1, 4, 8\)"):
        GENERATOR.paint(torch.zeros(1, 4, 8), [0])
    with pytest.raises(InputError, match="one seed for each label, got 1 labels and 2 seeds"):
        GENERATOR.paint(torch.zeros(1, 6, 8), [0, 1])
