"""``genmix styles``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genmix_transforms.generators import DCGAN, PerClass, StyleGAN
from genmix_transforms.generators.stylegan import interpolate, mix_styles

Genmix = Callable[..., Any]
TINY = {"resolution": 16, "fmap_base": 64, "fmap_max": 8, "latent_size": 8, "mapping_layers": 1}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    StyleGAN(classes=["cyst", "metastasis"], **TINY).save_pretrained(tmp_path / "run")  # type: ignore[arg-type]
    return tmp_path / "run"


def cells(picture: Path, rows: int, columns: int, *, top: int) -> np.ndarray:
    """The patches of a sheet, 16 pixels magnified 6 times, from its lower right corner backwards."""
    image = np.asarray(Image.open(picture).convert("L"))
    cell = 16 * 6 + 2
    left = image.shape[1] - columns * cell
    assert image.shape[0] == top + rows * cell
    return np.array(
        [
            [
                image[top + row * cell :, left + column * cell :][: 16 * 6, : 16 * 6][::6, ::6]
                for column in range(columns)
            ]
            for row in range(rows)
        ]
    )


def test_mix(genmix: Genmix, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed.png"
    seeds = ["--coarse-seeds", "1,2", "--fine-seeds", "3,4,5", "--crossover", 2, "--psi", 0.9]
    outcome = genmix("styles", "mix", run, "--out", out, "--class-name", "metastasis", *seeds)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(out)
    generator = StyleGAN.from_pretrained(run).truncated(psi=0.9, cutoff=8)
    expected = mix_styles(generator, label=1, coarse_seeds=[1, 2], fine_seeds=[3, 4, 5], crossover=2)
    assert np.array_equal(cells(out, 2, 3, top=24), expected[:, :, 0].numpy())


def test_interpolate(genmix: Genmix, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "way.png"
    assert genmix("styles", "interpolate", run, "--out", out, "--seeds", "1,2,3", "--frames", 4).code == 0
    expected = interpolate(StyleGAN.from_pretrained(run), label=0, seeds=[1, 2, 3], frames=4)
    assert np.array_equal(cells(out, 2, 4, top=2), expected[:, :, 0].numpy())


def test_a_network_for_each_class(genmix: Genmix, tmp_path: Path) -> None:
    generator = PerClass.of(StyleGAN, classes=["cyst", "metastasis"], **TINY)
    generator.save_pretrained(tmp_path / "run")
    out = tmp_path / "way.png"
    way = ["--seeds", "1,2", "--frames", 2, "--class-name", "metastasis"]
    assert genmix("styles", "interpolate", tmp_path / "run", "--out", out, *way).code == 0
    expected = interpolate(generator.members[1], label=0, seeds=[1, 2], frames=2)  # type: ignore[arg-type]
    assert np.array_equal(cells(out, 1, 2, top=2), expected[:, :, 0].numpy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class-name", "tumour"], "no class 'tumour'; the classes are cyst, metastasis"),
        (["--fine-seeds", "1,b"], "--fine-seeds: expected whole numbers, separated by commas, got '1,b'"),
        (["--crossover", "9"], "crossover must be a whole number, from 1 to 5, got 9"),
        (["--psi", "nan"], "psi must be above -10 and below 10"),
        (["--out", "picture.jpg"], "a picture is a .png file"),
    ],
)
def test_what_cannot_be(
    arguments: list[str],
    message: str,
    genmix: Genmix,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = genmix("styles", "mix", run, "--out", "mixed.png", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert not list(tmp_path.glob("*.png"))


def test_another_kind_has_no_styles(genmix: Genmix, tmp_path: Path) -> None:
    DCGAN(classes=["a"], resolution=16, base_width=2).save_pretrained(tmp_path / "run")
    outcome = genmix("styles", "mix", tmp_path / "run", "--out", tmp_path / "mixed.png")
    assert outcome.code == 2
    assert "a dcgan generator has no styles; give a StyleGAN" in outcome.err
