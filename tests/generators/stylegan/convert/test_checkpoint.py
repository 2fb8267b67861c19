"""Files of somebody else's: recognised, brought into a folder of ours, or refused with what was found."""

import logging
import os
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators import StyleGAN, fill_bank, load_generator
from genmix_transforms.generators.stylegan import convert_stylegan
from genmix_transforms.generators.stylegan.convert.checkpoint import widths_to_fmap
from genmix_transforms.generators.stylegan.schedule import channels_up_to

BLUR = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])[None, None] / 16


@pytest.fixture
def official(nvidia: SimpleNamespace, tmp_path: Path) -> Path:
    """A file of NVIDIA's layout: 32 pixels, colour, no classes."""
    (tmp_path / "official.pkl").write_bytes(nvidia.dump(nvidia.as_networks(nvidia.generator_arrays())))
    return tmp_path / "official.pkl"


def port(resolution: int = 16, classes: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of huangzh13's layout, of random weights."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    state = {"g_mapping.map.dense0.weight": draw(4, 8 if classes else 4), "g_mapping.map.dense0.bias": draw(4)}
    if classes:
        state["class_embedding.weight"] = draw(classes, 4)
    for level in range(resolution.bit_length() - 2):
        block = f"g_synthesis.blocks.{level - 1}" if level else "g_synthesis.init_block"
        if level == 0:
            state |= {f"{block}.const": draw(1, 3, 4, 4), f"{block}.bias": draw(3)}
        else:
            state |= {f"{block}.conv0_up.weight": draw(3, 3, 3, 3), f"{block}.conv0_up.bias": draw(3)}
            state[f"{block}.conv0_up.intermediate.kernel"] = BLUR.clone()
        conv = "conv1" if level else "conv"
        state |= {f"{block}.{conv}.weight": draw(3, 3, 3, 3), f"{block}.{conv}.bias": draw(3)}
        for half in ("epi1", "epi2"):
            state[f"{block}.{half}.top_epi.noise.weight"] = draw(3)
            state |= {
                f"{block}.{half}.style_mod.lin.weight": draw(6, 4),
                f"{block}.{half}.style_mod.lin.bias": draw(6),
            }
        state |= {f"g_synthesis.to_rgb.{level}.weight": draw(3, 3, 1, 1), f"g_synthesis.to_rgb.{level}.bias": draw(3)}
    return state


def test_sizes_are_recognised(official: Path) -> None:
    generator = convert_stylegan(official)
    assert generator.config == {
        "classes": ["image"],
        "resolution": 32,
        "channels": 3,
        "fmap_base": 64,
        "fmap_max": 12,
        "latent_size": 8,
        "mapping_layers": 2,
        "conditioning": "multiply",
        "psi": 1.0,
        "cutoff": 8,
        "bits": 8,
        "blurred_bias": False,
        "norm_epsilon": 1e-8,
    }
    assert generator.provenance["converted"] == "NVIDIA's StyleGAN"
    assert generator.provenance["file"].startswith("sha256:")


def test_the_converted_folder_is_the_same_generator_and_fills_a_bank(official: Path, tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="is now convert_stylegan"):
        generator = StyleGAN.from_checkpoint(official, classes=["cyst"])
    generator.save_pretrained(tmp_path / "run")
    loaded = load_generator(tmp_path / "run")
    assert isinstance(loaded, StyleGAN)
    assert loaded.provenance == generator.provenance
    assert torch.equal(loaded.sample([0, 0], [1, 2]), generator.sample([0, 0], [1, 2]))
    assert loaded.discriminator is not None
    assert generator.discriminator is not None
    for name, tensor in generator.discriminator.state_dict().items():
        assert torch.equal(loaded.discriminator.state_dict()[name], tensor)
    bank = fill_bank(loaded, counts={"cyst": 3}, out=tmp_path / "bank", progress=False)
    assert bank.images.shape == (3, 3, 32, 32)
    assert bank.images.float().std() > 1
    loaded.discriminator = None
    loaded.save_pretrained(tmp_path / "run", overwrite=True)
    assert load_generator(tmp_path / "run").discriminator is None  # type: ignore[attr-defined]


def test_a_damaged_discriminator_is_named(official: Path, tmp_path: Path) -> None:
    convert_stylegan(official).save_pretrained(tmp_path / "run")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "run" / "discriminator.safetensors")
    told = r"discriminator\.safetensors: not the discriminator that config.json describes"
    with pytest.raises(InputError, match=told):
        load_generator(tmp_path / "run")


def test_it_is_adapted_on_the_way(official: Path) -> None:
    generator = convert_stylegan(official, resolution=16, channels=1, classes=["cyst", "metastasis"])
    assert generator.image_shape == (1, 16, 16)
    assert generator.classes == ("cyst", "metastasis")
    assert generator.provenance["adapted_from"] == {"resolution": 32, "channels": 3, "classes": ["image"]}
    assert generator.discriminator is not None
    assert generator.discriminator(torch.zeros(2, 1, 16, 16), torch.tensor([0, 1])).shape == (2,)


@pytest.mark.parametrize("how", ["bare", "module", "nested", "legacy", "safetensors"])
def test_state_dicts_however_they_are_wrapped(how: str, tmp_path: Path) -> None:
    state, file = port(), tmp_path / "g.pt"
    if how == "module":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, file)
    elif how == "nested":
        torch.save({"epoch": 3, "gen": {f"{k}": v + 1 for k, v in state.items()}, "gen_shadow": state, "lr": [1]}, file)
    elif how == "safetensors":
        file = tmp_path / "g.safetensors"
        safetensors.torch.save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=how != "legacy")
    generator = convert_stylegan(file)
    assert generator.provenance["converted"] == "huangzh13/StyleGAN.pytorch"
    assert generator.settings.norm_epsilon == 1e-5
    assert torch.equal(generator.network.synthesis.constant, state["g_synthesis.init_block.const"])


def test_the_mean_w_is_measured_where_the_file_has_none(tmp_path: Path) -> None:
    torch.save(port(classes=2), tmp_path / "g.pt")
    network = convert_stylegan(tmp_path / "g.pt", classes=["a", "b"]).network
    random = torch.Generator().manual_seed(9)
    for label in (0, 1):
        latents = torch.randn(20_000, 4, generator=random)
        with torch.no_grad():
            w = network.mapping(latents, torch.full((20_000,), label))
        assert torch.allclose(network.mean_w[label], w.mean(dim=0), atol=5 * float(w.std()) / 70)
    assert not torch.allclose(network.mean_w[0], network.mean_w[1])


def test_what_a_user_should_know_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """rosinality's files have blocks up to 1024 pixels, trained or not."""
    state: dict[str, Any] = {}
    for level in range(4):
        block, trained = f"generator.progression.{level}", float(level < 3)
        if level:
            state |= {f"{block}.conv1.1.conv.weight_orig": torch.randn(2, 2, 3, 3)}
            state |= {f"{block}.conv1.1.conv.bias": torch.zeros(2)}
        else:
            state[f"{block}.conv1.input"] = torch.randn(1, 2, 4, 4)
        state |= {
            f"{block}.conv2.conv.weight_orig": torch.randn(2, 2, 3, 3),
            f"{block}.conv2.conv.bias": torch.zeros(2),
        }
        for half in (1, 2):
            state[f"{block}.noise{half}.weight_orig"] = torch.full((1, 2, 1, 1), trained)
            state[f"{block}.adain{half}.style.linear.weight_orig"] = torch.randn(4, 3)
            state[f"{block}.adain{half}.style.linear.bias"] = torch.zeros(4)
        state |= {f"generator.to_rgb.{level}.conv.weight_orig": torch.randn(3, 2, 1, 1)}
        state |= {f"generator.to_rgb.{level}.conv.bias": torch.zeros(3)}
    state |= {"style.1.linear.weight_orig": torch.randn(3, 3), "style.1.linear.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "g.model")
    with caplog.at_level(logging.WARNING):
        generator = convert_stylegan(tmp_path / "g.model")
    assert generator.image_shape == (3, 16, 16)
    assert generator.settings.blurred_bias
    assert "g.model: trained up to 16 pixels" in caplog.text
    assert generator.provenance["notes"] == [
        "trained up to 16 pixels; the blocks above were never used, and are left out"
    ]


def test_a_file_without_the_lower_to_rgbs_does_not_shrink(nvidia: SimpleNamespace, tmp_path: Path) -> None:
    arrays = nvidia.generator_arrays()
    arrays["synthesis"] = {
        name: value
        for name, value in arrays["synthesis"].items()
        if not name.startswith("ToRGB_lod") or name.startswith("ToRGB_lod0")
    }
    (tmp_path / "a.pkl").write_bytes(nvidia.dump(nvidia.as_networks(arrays)[2]))
    convert_stylegan(tmp_path / "a.pkl").save_pretrained(tmp_path / "run")
    generator = load_generator(tmp_path / "run")
    assert generator.provenance["without_to_rgb"] == [4, 8, 16]
    with pytest.raises(InputError, match="had a ToRGB for 32 pixels alone"):
        convert_stylegan(tmp_path / "a.pkl", resolution=16)


class Touch:
    """What a hostile file would hold: an object that runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("name", ["a.pkl", "a.pt"])
def test_a_hostile_file_is_refused_and_nothing_in_it_runs(
    name: str, nvidia: SimpleNamespace, official: Path, nothing_runs: Any, tmp_path: Path
) -> None:
    hostile = Touch(tmp_path / "ran")
    if name == "a.pkl":
        networks = nvidia.as_networks(nvidia.generator_arrays())
        networks[2].static_kwargs["more"] = hostile
        (tmp_path / name).write_bytes(nvidia.dump(networks))
        with pytest.raises(InputError, match=r"a\.pkl: holds posix\.system, which NVIDIA's .* nothing in it was run"):
            nothing_runs(convert_stylegan, tmp_path / name)
    else:
        torch.save({**port(), "extra": hostile}, tmp_path / name)
        with pytest.raises(InputError, match=r"a\.pt: holds more than tensors.*nothing in it was run"):
            convert_stylegan(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(hostile))
    assert (tmp_path / "ran").exists()  # it would have


def test_pickles_of_later_versions_are_named(tmp_path: Path) -> None:
    later = b"\x80\x03ctorch_utils.persistence\n_reconstruct_persistent_obj\n}\x85R."
    (tmp_path / "ada.pkl").write_bytes(later)
    with pytest.raises(
        InputError, match=r"ada\.pkl: a pickle of StyleGAN2-ADA or StyleGAN3 .* reads StyleGAN of version 1"
    ):
        convert_stylegan(tmp_path / "ada.pkl")


def test_files_that_are_something_else(tmp_path: Path, nvidia: SimpleNamespace) -> None:
    def refused(name: str, message: str, **options: Any) -> None:
        with pytest.raises(InputError, match=message):
            convert_stylegan(tmp_path / name, **options)

    def saved(state: Any, message: str, **options: Any) -> None:
        torch.save(state, tmp_path / "g.pt")
        refused("g.pt", r"g\.pt: " + message, **options)

    refused("none.pkl", r"none\.pkl: no such file")
    (tmp_path / "text.pkl").write_text("weights")
    refused("text.pkl", r"text\.pkl: not a pickle")
    (tmp_path / "short.safetensors").write_bytes(b"\x00" * 20)
    refused("short.safetensors", r"short\.safetensors: not a whole safetensors file")
    saved({"main.0.weight": torch.zeros(1)}, "expected a StyleGAN's generator")
    knot: dict[str, Any] = {"a": torch.zeros(1)}
    for _ in range(30):
        knot = dict.fromkeys("abcdefghij", knot)
    saved(knot, r"expected a StyleGAN's generator .* found (a\.)+a")
    saved({"a" * 2000: torch.zeros(1)}, "expected a StyleGAN's generator .* found no tensor")
    saved([1], "expected a StyleGAN's generator .* found no tensor")
    state = port()
    saved({**state, "g_synthesis.init_block.const": torch.zeros(1, 5, 4, 4)}, "synthesis.constant: expected the shape")
    saved(
        {**state, "g_synthesis.blocks.0.conv1.weight": torch.zeros(3, 3, 5, 5)}, r".*conv\.weight: expected the shape"
    )
    saved(port(resolution=8), r"has blocks for 4, 8 pixels; this release reads networks of \(16, ")
    first = {"generator.progression.0.conv1.input": torch.zeros(1, 3, 4, 4)}
    saved(first, "has blocks for no pixels")
    saved({**state, "g_mapping.map.dense0.bias": torch.zeros(0)}, r".*dense0\.bias: expected weights, got .* \(0,\)")
    saved(
        {name: value for name, value in state.items() if "dense" not in name}, ".*mapping_layers must be a whole number"
    )
    saved(port(classes=1), "a class-conditional network of one class")
    saved(port(classes=3), ".*knows 3 classes .* adapted to 2", classes=["a", "b"])
    saved(state, ".*different names", classes=["a", "a"])
    refused("g.pt", "must be names in a list", classes="ab")
    whole = (tmp_path / "g.pt").read_bytes()
    for end in (10, len(whole) // 2, len(whole) - 10):
        (tmp_path / "short.pt").write_bytes(whole[:end])
        refused("short.pt", r"short\.pt: ")
    with (
        zipfile.ZipFile(tmp_path / "g.pt") as old,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refused("z.pt", "a compressed archive")


def test_sizes_that_the_file_cannot_hold_are_refused_before_memory_is_asked_for(
    nvidia: SimpleNamespace, tmp_path: Path
) -> None:
    arrays = nvidia.generator_arrays()
    for side in (4, 8, 16, 32):  # biases alone claim a million channels
        for name in list(arrays["synthesis"]):
            if name.startswith(f"{side}x{side}/") and name.endswith(("Const/bias", "Conv0_up/bias")):
                arrays["synthesis"][name] = np.zeros(1_000_000, np.float32)
    (tmp_path / "a.pkl").write_bytes(nvidia.dump(nvidia.as_networks(arrays)[2]))
    with pytest.raises(InputError, match="expected the shape|do not halve|fmap_base must be"):
        convert_stylegan(tmp_path / "a.pkl")


def test_a_checkpoint_of_other_images_does_not_train_on_these(
    official: Path, tiny_patches: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"made for the classes image, the data has cyst, metastasis"):
        convert_stylegan(official).fit(tiny_patches(), out=tmp_path / "run", warm_start=True)
    generator = convert_stylegan(official, classes=["cyst", "metastasis"])
    with pytest.raises(InputError, match=r"made for 3 x 32 x 32 .* the data has 1 x 16 x 16"):
        generator.fit(tiny_patches(), out=tmp_path / "run", warm_start=True)


@given(base=st.integers(1, 20_000), most=st.integers(1, 600), levels=st.integers(3, 9))
def test_every_network_is_recognised_by_its_widths(base: int, most: int, levels: int) -> None:
    widths = channels_up_to(levels - 1, fmap_base=base, fmap_max=most)
    found_base, found_most = widths_to_fmap(widths)
    assert channels_up_to(levels - 1, fmap_base=found_base, fmap_max=found_most) == widths


def test_the_published_widths() -> None:
    assert widths_to_fmap([512, 512, 512, 512, 256, 128, 64, 32, 16]) == (8192, 512)
    assert widths_to_fmap([512, 512, 512, 512]) == (8192, 512)


@pytest.mark.parametrize("widths", [[8, 16], [16, 8, 6], [8, 8, 2], [4, 4, 4, 1, 1, 4]])
def test_widths_that_do_not_halve(widths: list[int]) -> None:
    with pytest.raises(InputError, match="do not halve as StyleGAN's do"):
        widths_to_fmap(widths)
