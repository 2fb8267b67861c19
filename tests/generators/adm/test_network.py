"""The network: the published sizes, its folder, how it begins, and what is kept for other classes and sizes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from genmix_transforms.errors import InputError
from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm import ADMConfiguration, ADMUNet
from genmix_transforms.generators.adm.configuration import OFFICIAL
from genmix_transforms.generators.adm.network import WEIGHTS, build_network, initialise, save_network
from genmix_transforms.generators.folder import read_weights

Make = Callable[..., Any]
TIMES = torch.tensor([3, 900])


@pytest.mark.parametrize(
    ("name", "millions"), [("64", 295.90), ("128", 421.53), ("256", 553.84), ("256-uncond", 552.81), ("512", 559.00)]
)
def test_parameter_counts_are_the_published_ones(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = build_network(OFFICIAL[name])
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def variants(flags: ADMConfiguration) -> dict[str, ADMConfiguration]:
    return {
        "plain": flags,
        "four heads": replace(flags, num_head_channels=-1),
        "wider time embedding": replace(flags, num_channels=64, channel_mult=(0.5, 1)),
    }


@pytest.mark.parametrize("name", ["plain", "four heads", "wider time embedding"])
@torch.no_grad()
def test_a_saved_network_is_the_same_network(
    name: str, tiny_flags: ADMConfiguration, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = build_network(variants(tiny_flags)[name]).eval()
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path)
    assert not caplog.records  # no attribute of its config is unknown to it
    images, times, labels = torch.randn(2, 1, 16, 16), torch.tensor([3, 900]), torch.tensor([0, 2])
    expected = network(images, times, class_labels=labels).sample
    assert torch.equal(again(images, times, class_labels=labels).sample, expected)
    if name == "plain":
        assert type(network) is UNet2DModel
    else:
        assert type(network) is ADMUNet
        with pytest.raises(ValueError, match="ADMResnetDownsampleBlock2D does not exist"):
            UNet2DModel.from_pretrained(tmp_path)  # refuses, instead of drawing other images


def test_heads_are_those_asked_for(tiny_flags: ADMConfiguration) -> None:
    attentions = [
        module
        for module in build_network(replace(tiny_flags, num_head_channels=-1, num_heads=2)).modules()
        if hasattr(module, "heads")
    ]
    assert attentions
    assert {module.heads for module in attentions} == {2}
    assert {module.scale for module in attentions} == {32**-0.5}


def test_a_fresh_network_predicts_zero_and_follows_from_its_seed(tiny_flags: ADMConfiguration) -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    states = []
    for seed in (3, 3, 4):
        with torch.random.fork_rng(devices=[]):
            network = build_network(tiny_flags)
        initialise(network, seed=seed)
        states.append(network.state_dict())
    assert torch.equal(torch.rand(2), expected)  # the global random numbers are left alone
    assert torch.equal(states[0]["conv_in.weight"], states[1]["conv_in.weight"])
    assert not torch.equal(states[0]["conv_in.weight"], states[2]["conv_in.weight"])
    with torch.no_grad():
        assert not network(torch.randn(1, 1, 16, 16), 3, class_labels=torch.tensor([0])).sample.any()
    assert not states[0]["mid_block.attentions.0.to_out.0.weight"].any()
    assert not states[0]["down_blocks.0.resnets.0.conv2.weight"].any()
    assert states[0]["down_blocks.0.resnets.0.conv1.weight"].any()


def test_weights_and_provenance_come_back(tiny_adm: Make, tmp_path: Path) -> None:
    network = tiny_adm().network
    save_network(tmp_path / "unet", network, provenance={"seen": 3})
    weights, provenance = read_weights(tmp_path / "unet" / WEIGHTS)
    assert provenance == {"seen": 3}
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    assert isinstance(UNet2DModel.from_pretrained(tmp_path / "unet"), UNet2DModel)


def test_what_diffusers_saved_is_read_too(tiny_adm: Make, tmp_path: Path) -> None:
    network = tiny_adm().network
    network.save_pretrained(tmp_path / "unet")
    weights, provenance = read_weights(tmp_path / "unet" / WEIGHTS)
    assert provenance == {}
    assert torch.equal(weights["conv_in.weight"], network.conv_in.weight)


def test_nothing_is_left_half_written(tiny_adm: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_adm().network
    save_network(tmp_path / "unet", network)
    before = {file.name: file.read_bytes() for file in (tmp_path / "unet").iterdir()}
    with torch.no_grad():
        network.conv_in.weight.zero_()

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        save_network(tmp_path / "unet", network)
    assert {file.name: file.read_bytes() for file in (tmp_path / "unet").iterdir()} == before


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
