"""NVIDIA's networks: the images and the logits are those of a forward pass written out as TensorFlow does it."""

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan import convert_stylegan
from genmix_transforms.generators.stylegan.convert.nvidia import ForeignWeights, check_tensor, read_nvidia
from genmix_transforms.generators.stylegan.network import StyleGANNetwork
from genmix_transforms.generators.stylegan.settings import StyleGANNetworkSettings


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def noise_maps(count: int, resolution: int) -> list[torch.Tensor]:
    sides = [side for level in range(resolution.bit_length() - 2) for side in (4 << level, 4 << level)]
    return [torch.randn(count, 1, side, side) for side in sides]


@pytest.mark.parametrize(("resolution", "protocol"), [(16, 2), (16, 3), (16, 4), (64, 4), (128, 4), (256, 4)])
def test_images_are_those_of_the_original(
    resolution: int, protocol: int, nvidia: SimpleNamespace, nothing_runs: Any, tmp_path: Path
) -> None:
    """From 128 pixels on, the kernels of doubling layers are flipped in the file; below they are not."""
    torch.manual_seed(0)
    arrays = nvidia.generator_arrays(resolution=resolution)
    networks = nvidia.as_networks(arrays, nvidia.discriminator_arrays(resolution=resolution))
    file = write(tmp_path / "a.pkl", nvidia.dump(networks, protocol=protocol))
    weights = nothing_runs(read_nvidia, file)
    assert weights.full_growth == resolution.bit_length() - 3
    network = convert_stylegan(file).network
    latents, noise = torch.randn(2, 8), noise_maps(2, resolution)
    with torch.no_grad():
        expected = nvidia.draw_images(arrays, latents, noise)
        assert expected.shape == (2, 3, resolution, resolution)
        drawn = network(latents, torch.zeros(2, dtype=torch.int64), noise=noise)
        assert torch.allclose(drawn, expected, atol=1e-4)
        # And at every resolution on the way up.
        half = nvidia.draw_images(arrays, latents, noise, side=resolution // 2)
        w = network.broadcast(network.mapping(latents, torch.zeros(2, dtype=torch.int64)))
        assert torch.allclose(network.synthesis(w, noise, growth=network.full_growth - 1.0), half, atol=1e-4)


@pytest.mark.parametrize(("option", "fused_from"), [(True, 8), (False, 4096), ("auto", 128)])
def test_which_layers_are_fused_is_an_option(
    option: Any, fused_from: int, nvidia: SimpleNamespace, tmp_path: Path
) -> None:
    arrays = nvidia.generator_arrays(resolution=128)
    judge = nvidia.discriminator_arrays(resolution=128)
    file = write(tmp_path / "a.pkl", nvidia.dump(nvidia.as_networks(arrays, judge, fused_scale=option)))
    latents, noise = torch.randn(1, 8), noise_maps(1, 128)
    with torch.no_grad():
        expected = nvidia.draw_images(arrays, latents, noise, fused_from=fused_from)
        drawn = convert_stylegan(file).network(latents, torch.zeros(1, dtype=torch.int64), noise=noise)
    assert torch.allclose(drawn, expected, atol=1e-4)


def test_labels(nvidia: SimpleNamespace, tmp_path: Path) -> None:
    arrays = nvidia.generator_arrays(labels=3)
    judge = nvidia.discriminator_arrays(labels=3)
    file = write(tmp_path / "a.pkl", nvidia.dump(nvidia.as_networks(arrays, judge, label_size=3)))
    generator = convert_stylegan(file)
    assert generator.classes == ("class-0", "class-1", "class-2")
    assert generator.settings.conditioning == "concatenate"
    latents, noise, labels = torch.randn(3, 8), noise_maps(3, 32), torch.tensor([2, 0, 1])
    with torch.no_grad():
        expected = nvidia.draw_images(arrays, latents, noise, labels=labels)
        assert torch.allclose(generator.network(latents, labels, noise=noise), expected, atol=1e-4)
        assert generator.discriminator is not None
        logits = generator.discriminator(expected, labels)
        assert torch.allclose(logits, nvidia.judge_images(judge, expected, labels), atol=1e-4)
    assert torch.equal(generator.network.mean_w, torch.from_numpy(arrays["own"]["dlatent_avg"]).expand(3, -1))


def test_the_discriminator_judges_as_the_original(nvidia: SimpleNamespace, tmp_path: Path) -> None:
    judge = nvidia.discriminator_arrays(resolution=128)
    networks = nvidia.as_networks(nvidia.generator_arrays(resolution=128), judge)
    discriminator = convert_stylegan(write(tmp_path / "a.pkl", nvidia.dump(networks))).discriminator
    assert discriminator is not None
    images, labels = torch.randn(4, 3, 128, 128), torch.zeros(4, dtype=torch.int64)
    with torch.no_grad():
        assert torch.allclose(
            discriminator(images, labels), nvidia.judge_images(judge, images, labels), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("lod", "growth"), [(0.0, 3.0), (1.5, 1.5), (9.0, 1.0)])
def test_a_network_that_still_grows(lod: float, growth: float, nvidia: SimpleNamespace, tmp_path: Path) -> None:
    networks = nvidia.as_networks(nvidia.generator_arrays(lod=lod))
    file = write(tmp_path / "a.pkl", nvidia.dump(networks))
    assert float(convert_stylegan(file).network.growth) == growth


def test_one_network_alone(nvidia: SimpleNamespace, tmp_path: Path) -> None:
    average = nvidia.as_networks(nvidia.generator_arrays())[2]
    generator = convert_stylegan(write(tmp_path / "a.pkl", nvidia.dump(average)))
    assert generator.discriminator is None
    assert generator.image_shape == (3, 32, 32)


def test_the_embedded_program_is_not_run(
    nvidia: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENMIX_TEST_RAN", raising=False)
    networks = nvidia.as_networks(nvidia.generator_arrays())
    exec(networks[2].build_module_src, {})
    assert os.environ.pop("GENMIX_TEST_RAN") == "yes"  # it would have been heard
    convert_stylegan(write(tmp_path / "a.pkl", nvidia.dump(networks)))
    assert "GENMIX_TEST_RAN" not in os.environ


def test_networks_of_something_else(nvidia: SimpleNamespace, tmp_path: Path) -> None:
    arrays = nvidia.generator_arrays()
    synthesis = arrays["synthesis"]

    def refused(content: Any, message: str) -> None:
        with pytest.raises(InputError, match=r"a\.pkl: " + message):
            read_nvidia(write(tmp_path / "a.pkl", nvidia.dump(content)))

    def changed(**changes: Any) -> Any:
        return nvidia.as_networks({**arrays, "synthesis": {**synthesis, **changes}})

    refused(nvidia.as_networks(arrays, version=4), "a network of format 4.*StyleGAN2 has 4 and more")
    refused(changed(**{"8x8/Conv0_up/mod_weight": np.zeros((2, 2), np.float32)}), "a StyleGAN2 network")
    refused([1, 2], r"expected NVIDIA's three networks \(G, D, Gs\), found a list of 2 \(int, int\)")
    refused({"a": 1}, "expected NVIDIA's three networks.*found a dict")
    refused(nvidia.network_state({}), r"expected a StyleGAN's blocks .* found nothing")
    refused(nvidia.network_state({"Dense0/weight": np.zeros((2, 2))}), ".*found Dense0/weight")
    refused(changed(extra=np.zeros(2, np.float32)), "holds variables that StyleGAN of version 1 does not: extra")
    refused(changed(**{"8x8/Conv1/bias": np.zeros((2, 2), np.float32)}), "8x8/Conv1/bias: expected weights of 1 dim")
    refused(changed(**{"8x8/Conv1/bias": np.zeros(12, np.int32)}), "8x8/Conv1/bias: expected weights of 1 dim.*int32")
    refused(changed(**{"8x8/Conv1/bias": np.full(12, np.nan, np.float32)}), "8x8/Conv1/bias: .*not finite")
    refused(nvidia.as_networks(arrays, mapping_lrmul=1.0), "made with mapping_lrmul=1.0, not 0.01 as published")
    refused(nvidia.as_networks(arrays, blur_filter=[1, 3, 3, 1]), "made with blur_filter of another value")
    missing = {name: value for name, value in synthesis.items() if name != "16x16/Conv1/Noise/weight"}
    refused(
        nvidia.as_networks({**arrays, "synthesis": missing}),
        "expected a StyleGAN, found no variable 16x16/Conv1/Noise/weight",
    )
    gap = {name: value for name, value in synthesis.items() if not name.startswith("8x8")}
    refused(nvidia.as_networks({**arrays, "synthesis": gap}), "expected a StyleGAN's blocks")
    network = nvidia.network_state({})
    network.variables = [("8x8/Conv1/weight", "text")]
    refused(network, "a network whose variables are not names and arrays")
    network = nvidia.as_networks(arrays)[2]
    network.components = {str(number): network.components["mapping"] for number in range(1000)}
    refused(network, "a network of other parts than mapping and synthesis")
    network = nvidia.as_networks(arrays)[2]
    network.components["synthesis"].variables *= 1000  # one array, named a thousand times over
    network.components["synthesis"].variables = [
        (f"{number}", network.components["synthesis"].variables[1][1]) for number in range(1000)
    ] + network.components["synthesis"].variables[:200]
    refused(network, "its variables are more than the file holds")


@pytest.fixture
def valid(nvidia: SimpleNamespace) -> bytes:
    arrays = nvidia.generator_arrays(resolution=16, latent=2, layers=1, fmap_base=8, fmap_max=2)
    judge = nvidia.discriminator_arrays(resolution=16, fmap_base=8, fmap_max=2)
    return bytes(nvidia.dump(nvidia.as_networks(arrays, judge)))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_raises_nothing_but_an_input_error(
    places: list[tuple[int, int]], valid: bytes, nothing_runs: Any, tmp_path: Path
) -> None:
    content = bytearray(valid)
    for place, value in places:
        content[place % len(content)] = value
    with contextlib.suppress(InputError):
        nothing_runs(read_nvidia, write(tmp_path / "a.pkl", bytes(content)))
    with contextlib.suppress(InputError):
        convert_stylegan(tmp_path / "a.pkl")


def test_growth_and_heads() -> None:
    state = StyleGANNetwork(
        StyleGANNetworkSettings(latent_size=4, fmap_base=32, mapping_layers=1), resolution=32
    ).state_dict()
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
