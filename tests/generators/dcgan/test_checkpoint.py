"""Foreign DCGAN weights: read whatever the prefix, refused when they are something else, and never run."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from genmix_transforms.errors import InputError
from genmix_transforms.generators import DCGAN, PerClass, fill_bank, load_generator
from genmix_transforms.generators.dcgan import convert_dcgan


class Example(nn.Module):
    """A generator laid out as in the PyTorch DCGAN example."""

    def __init__(self, *, latent: int = 100, width: int = 8, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, stride, padding in (
            (latent, width * 8, 1, 0),
            (width * 8, width * 4, 2, 1),
            (width * 4, width * 2, 2, 1),
            (width * 2, width, 2, 1),
        ):
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False))
            layers.extend([nn.BatchNorm2d(outputs), nn.ReLU()])
        layers.extend([nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False), nn.Tanh()])
        self.main = nn.Sequential(*layers)


def example(**options: Any) -> Example:
    torch.manual_seed(0)
    network = Example(**options).train()
    network.main(torch.randn(16, options.get("latent", 100), 1, 1))  # so that the running statistics are not trivial
    with torch.no_grad():
        network.main[-2].weight.mul_(30)  # and the images not all grey
    return network.eval()


def wrap(state: dict[str, torch.Tensor], how: str) -> Any:
    return {
        "bare": state,
        "module": {f"module.{key}": value for key, value in state.items()},
        "generator.": {f"generator.{key}": value for key, value in state.items()},
        "nested": {"epoch": 25, "netG": state, "netD": {"main.0.weight": torch.zeros(8, 3, 4, 4)}},
        "state_dict": {"state_dict": {f"model.G.{key}": value for key, value in state.items()}, "lr": 0.0002},
        "old": {key: value for key, value in state.items() if "num_batches_tracked" not in key},
    }[how]


@pytest.mark.parametrize("how", ["bare", "module", "generator.", "nested", "state_dict", "old"])
def test_images_are_those_of_the_original(how: str, tmp_path: Path) -> None:
    network = example()
    torch.save(wrap(network.state_dict(), how), tmp_path / "netG_epoch_24.pth")
    generator = convert_dcgan([tmp_path / "netG_epoch_24.pth"])
    assert isinstance(generator, DCGAN)
    assert generator.image_shape == (3, 64, 64)
    assert generator.classes == ("image",)
    latents = torch.randn(4, 100)
    with torch.no_grad():
        expected = network.main(latents[:, :, None, None])
        assert torch.allclose(generator.network(latents, torch.zeros(4, dtype=torch.int64)), expected, atol=1e-6)


def test_sizes_are_recognised_from_shapes(tmp_path: Path) -> None:
    torch.save(example(latent=7, width=4, channels=1).state_dict(), tmp_path / "g.pt")
    generator = convert_dcgan([tmp_path / "g.pt"], classes=["cyst"])
    assert generator.config == {
        "classes": ["cyst"],
        "resolution": 64,
        "channels": 1,
        "base_width": 4,
        "latent_size": 7,
        "bits": 8,
    }


def test_safetensors_too(tmp_path: Path) -> None:
    safetensors.torch.save_file(example().state_dict(), tmp_path / "g.safetensors")
    assert convert_dcgan([tmp_path / "g.safetensors"]).image_shape == (3, 64, 64)


def test_the_converted_folder_fills_a_bank(tmp_path: Path) -> None:
    torch.save(example().state_dict(), tmp_path / "g.pth")
    convert_dcgan([tmp_path / "g.pth"], classes=["cyst"]).save_pretrained(tmp_path / "run")
    bank = fill_bank(load_generator(tmp_path / "run"), counts={"cyst": 5}, out=tmp_path / "bank", progress=False)
    assert bank.class_counts == {"cyst": 5}
    assert bank.images.shape == (5, 3, 64, 64)
    assert bank.images.float().std() > 1


def test_several_files_are_one_generator_of_several_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.save(example(width=4).state_dict(), tmp_path / f"{name}.pth")
    generator = convert_dcgan([tmp_path / "a.pth", tmp_path / "b.pth"], classes=["cyst", "metastasis"])
    assert isinstance(generator, PerClass)
    assert generator.classes == ("cyst", "metastasis")


class Touch:
    """What a hostile file would hold: an object that runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_hostile_pickle_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    torch.save({**example().state_dict(), "extra": Touch(tmp_path / "ran")}, tmp_path / "hostile.pth")
    with pytest.raises(InputError, match="holds more than tensors.*nothing in it was run"):
        convert_dcgan([tmp_path / "hostile.pth"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"conv1.weight": torch.zeros(4, 3, 3, 3)},
            "expected the generator of the PyTorch DCGAN example.*found conv1.weight",
        ),
        ({}, "found nothing"),
        (
            {"main.0.weight": torch.zeros(8, 3, 4, 4), "main.2.weight": torch.zeros(16, 8, 4, 4)},
            "expected the generator",
        ),
        (
            {f"{p}.{k}": v for p in ("a", "b") for k, v in Example(width=2).state_dict().items()},
            r"found several \(a\., b\.\)",
        ),
        (
            {k.replace("main.3.", "main.2."): v for k, v in Example(width=2).state_dict().items()},
            r"expected convolutions at main\.0, main\.3, main\.6, \.\.\., found them at \[0, 2, 6, 9, 12\]",
        ),
        (
            {**Example(width=2).state_dict(), "main.0.bias": torch.zeros(16)},
            "not laid out as the PyTorch DCGAN example",
        ),
        (
            {k: v for k, v in Example(width=2).state_dict().items() if k != "main.4.running_var"},
            "not laid out as the PyTorch DCGAN example",
        ),
        (
            {**Example(width=2).state_dict(), "main.6.weight": torch.zeros(8, 5, 4, 4)},
            r"widths \[16, 8, 5, 2\] are not a DCGAN's",
        ),
    ],
)
def test_files_that_are_something_else(content: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "g.pth")
    with pytest.raises(InputError, match=message):
        convert_dcgan([tmp_path / "g.pth"])


def test_files_that_are_broken(tmp_path: Path) -> None:
    torch.save(example().state_dict(), tmp_path / "g.pth")
    whole = (tmp_path / "g.pth").read_bytes()
    (tmp_path / "short.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "short.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(InputError, match="text.pth: not a file of PyTorch weights"):
        convert_dcgan([tmp_path / "text.pth"])
    for name in ("short.pth", "text.pth", "empty.pth", "short.safetensors"):
        with pytest.raises(InputError, match=name):
            convert_dcgan([tmp_path / name])


def test_names_and_files_must_match(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.pth: no such file"):
        convert_dcgan([tmp_path / "nowhere.pth"])
    with pytest.raises(InputError, match="expected at least one file"):
        convert_dcgan([])
    with pytest.raises(InputError, match="give a class name for each of the 2 files"):
        convert_dcgan(["a.pth", "b.pth"])
    with pytest.raises(InputError, match="one file a class, got 1 files and 2 names"):
        convert_dcgan(["a.pth"], classes=["a", "b"])


def volume_layers() -> nn.Sequential:
    """A generator of volumes of 16 pixels, laid out as the example's of images."""
    return nn.Sequential(
        nn.ConvTranspose3d(12, 8, 4, 1, 0, bias=False), nn.BatchNorm3d(8), nn.ReLU(),
        nn.ConvTranspose3d(8, 4, 4, 2, 1, bias=False), nn.BatchNorm3d(4), nn.ReLU(),
        nn.ConvTranspose3d(4, 2, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def test_a_generator_of_volumes_is_recognised(tmp_path: Path) -> None:
    network = volume_layers().eval()
    state = {f"main.{key}": value for key, value in network.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "volumes.safetensors")
    generator = convert_dcgan([tmp_path / "volumes.safetensors"])
    assert isinstance(generator, DCGAN)
    assert (generator.image_shape, generator.latent_size, generator.base_width) == ((2, 16, 16, 16), 12, 4)
    latents = torch.randn(3, 12)
    with torch.no_grad():
        expected = network(latents.view(3, 12, 1, 1, 1))
        assert torch.equal(generator.network(latents, torch.zeros(3, dtype=torch.int64)), expected)


def test_layers_of_images_and_of_volumes_together_are_refused(tmp_path: Path) -> None:
    state = {f"main.{key}": value for key, value in volume_layers().state_dict().items()}
    state["main.6.weight"] = torch.zeros(4, 2, 4, 4)
    safetensors.torch.save_file(state, tmp_path / "both.safetensors")
    with pytest.raises(InputError, match="some of its convolutions have two dimensions, others three"):
        convert_dcgan([tmp_path / "both.safetensors"])
