"""Weights for other classes, channels and sizes: what stays, and what the new begins with."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm import ADMConfiguration

Make = Callable[..., Any]
TIMES = torch.tensor([3, 900])


@pytest.fixture(scope="module")
def colour(tiny_adm: Make) -> ADM:
    return tiny_adm(channels=3)


@torch.no_grad()
def predict(generator: ADM, images: torch.Tensor, labels: list[int] | None = None) -> torch.Tensor:
    prediction: torch.Tensor = generator.network(
        images, TIMES, class_labels=None if labels is None else torch.tensor(labels)
    ).sample
    return prediction


def test_names_that_it_knows_keep_their_row_and_others_begin_with_the_mean(colour: ADM) -> None:
    adapted = colour.adapt(classes=["new", "c", "other", "a"])
    rows, old = adapted.network.class_embedding.weight, colour.network.class_embedding.weight
    assert rows.shape[0] == 4
    assert torch.equal(rows[1], old[2])
    assert torch.equal(rows[3], old[0])
    assert torch.allclose(rows[0], old.mean(0))
    assert torch.equal(rows[0], rows[2])
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(predict(adapted, images, [1, 3]), predict(colour, images, [2, 0]), atol=1e-6)
    assert adapted.sample([0, 3], [1, 2]).shape == (2, 3, 16, 16)


def test_a_network_that_was_not_told_the_class_draws_what_it_drew(tiny_adm: Make, tiny_flags: ADMConfiguration) -> None:
    plain = tiny_adm(classes=["any"], configuration={**tiny_flags.to_flags(), "class_cond": False})
    adapted = plain.adapt(classes=["a", "b"])
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(predict(adapted, images, [0, 1]), predict(plain, images))
    assert torch.equal(adapted.sample([1], [4]), plain.sample([0], [4]))


def test_a_row_for_no_class_begins_with_the_mean_and_stays(colour: ADM) -> None:
    adapted = colour.adapt(null_class=True)
    rows = adapted.network.class_embedding.weight
    assert rows.shape[0] == 4
    assert torch.allclose(rows[3], rows[:3].mean(0))
    with torch.no_grad():
        rows[3] += 1
    again = adapted.adapt(classes=["x", "a"])
    assert again.configuration.null_class
    assert torch.equal(again.network.class_embedding.weight[2], rows[3])
    assert torch.allclose(again.network.class_embedding.weight[0], rows[:3].mean(0))  # not that for no class


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_grey_image_gives_the_activations_it_gave_in_colour(colour: ADM, channels: int) -> None:
    adapted = colour.adapt(channels=channels)
    grey = torch.randn(2, 1, 16, 16)
    before = predict(colour, grey.expand(-1, 3, -1, -1), [0, 1])
    after = predict(adapted, grey.expand(-1, channels, -1, -1), [0, 1])
    assert after.shape == (2, 2 * channels, 16, 16)
    for part, expected in zip(after.chunk(2, 1), before.chunk(2, 1), strict=True):  # the noise, and the variance
        assert torch.allclose(part, expected.mean(1, keepdim=True).expand_as(part), atol=1e-5)
    assert adapted.sample([0], [1]).shape == (1, channels, 16, 16)


def test_another_size_is_the_same_network(colour: ADM) -> None:
    adapted = colour.adapt(resolution=8)
    assert adapted.image_shape == (3, 8, 8)
    assert adapted.configuration.attention_resolutions == (4,)
    assert adapted.weights_hash == colour.weights_hash
    images = torch.randn(2, 3, 8, 8)
    assert torch.allclose(predict(adapted, images, [0, 1]), predict(colour, images, [0, 1]), atol=1e-6)
    assert adapted.sample([0], [1]).shape == (1, 3, 8, 8)


def test_the_weights_are_copies_and_their_origin_is_kept(colour: ADM) -> None:
    before = colour.weights_hash
    adapted = colour.adapt(classes=["x"])
    assert adapted.configuration.class_cond  # one class of a network that is told it
    assert adapted.provenance["adapted_from"]["weights"] == before
    with torch.no_grad():
        for parameter in adapted.network.parameters():
            parameter.zero_()
    assert colour.weights_hash == before


def test_guidance_that_the_adapted_network_cannot_have_goes(tiny_adm: Make) -> None:
    guided = tiny_adm(null_class=True).with_sampler(guidance_scale=3.0)
    assert guided.adapt(classes=["x", "y"]).sampler.guidance_scale == 3.0
    assert guided.adapt(null_class=False).sampler.guidance_scale == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "a"]}, "classes must be different names"),
        ({"classes": "ab"}, "classes must be different names"),
        ({"channels": 0}, "channels must be a whole number, at least 1, got 0"),
        ({"resolution": 9}, "must be a multiple of 2, got 9; bring the images to 10 pixels"),
        ({"resolution": 1}, "must be a multiple of 2, got 1|too few"),
    ],
)
def test_bad_input(colour: ADM, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        colour.adapt(**options)
