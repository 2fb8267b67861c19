"""Images of one shard after another: none is computed to be thrown away, and each is the one that sample gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.generators import ADM, DCGAN, StyleGAN, TextualInversion, fill_bank
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.filling import Plan
from genmix_transforms.generators.per_class import PerClass
from genmix_transforms.generators.shard_drawing import ShardDrawing
from tests.generators.textual_inversion.tiny_pipelines import save_ldm

COUNTS = {"cyst": 150, "metastasis": 234}


class Count:
    """How many images have gone through a network."""

    def __init__(self, network: nn.Module) -> None:
        self.images = 0
        network.register_forward_pre_hook(self._count)

    def _count(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.images += len(arguments[0])


def make_adm(batch_size: int) -> ADM:
    flags = {"image_size": 8, "num_channels": 32, "channel_mult": [1], "num_res_blocks": 1, "num_head_channels": 32}
    return ADM(
        classes=["cyst", "metastasis"],
        configuration={**flags, "attention_resolutions": [], "class_cond": True, "learn_sigma": True, "channels": 1},
        sampler={"steps": 1, "batch_size": batch_size},
    )


@pytest.fixture(scope="module")
def make_textual_inversion(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], TextualInversion]:
    base = save_ldm(tmp_path_factory.mktemp("base") / "tiny-ldm")

    def make(batch_size: int) -> TextualInversion:
        sampler = {"steps": 1, "batch_size": batch_size, "guidance_scale": 1.0}
        return TextualInversion(classes=["cyst", "metastasis"], resolution=8, base=base, sampler=sampler)

    return make


def images_computed(generator: Generator, network: nn.Module, out: Path, **options: Any) -> int:
    count = Count(network)
    bank = fill_bank(generator, counts=COUNTS, out=out, progress=False, **options)
    assert bank.class_counts == COUNTS
    return count.images


@pytest.mark.parametrize("batch_size", [8, 48, 96, 128])
def test_an_adm_computes_the_images_that_are_asked_for(batch_size: int, tmp_path: Path) -> None:
    generator = make_adm(batch_size)
    assert images_computed(generator, generator.network, tmp_path / "bank") == 384


@pytest.mark.parametrize("batch_size", [48, 96, 128])
def test_a_textual_inversion_computes_the_images_that_are_asked_for(
    batch_size: int, tmp_path: Path, make_textual_inversion: Callable[[int], TextualInversion]
) -> None:
    generator = make_textual_inversion(batch_size)
    assert images_computed(generator, generator.model.unet, tmp_path / "bank") == 384


def test_so_does_a_dcgan(tiny_dcgan: Callable[..., DCGAN], tmp_path: Path) -> None:
    generator = tiny_dcgan()
    assert images_computed(generator, generator.network, tmp_path / "bank") == 384


@pytest.mark.parametrize(("resolution", "batch"), [(16, 32), (128, 8)])
def test_so_does_a_stylegan(
    resolution: int, batch: int, tiny_stylegan: Callable[..., StyleGAN], tmp_path: Path
) -> None:
    generator = tiny_stylegan(resolution=resolution)
    assert generator.sample_batch == batch
    assert images_computed(generator, generator.network.mapping, tmp_path / "bank") == 384


def test_networks_of_one_class_each_have_a_partial_batch_each(tmp_path: Path) -> None:
    generator = PerClass.of(DCGAN, classes=["cyst", "metastasis"], resolution=16, base_width=4, latent_size=8)
    counts = [Count(member.network) for member in generator.members]
    fill_bank(generator, counts=COUNTS, out=tmp_path / "bank", progress=False)
    assert [count.images for count in counts] == [160, 256]  # 150 and 234 in batches of 32


def test_a_share_has_one_partial_batch(tmp_path: Path) -> None:
    """Two of the six shards, of 64 images each, in batches of 48."""
    generator = make_adm(48)
    count = Count(generator.network)
    with pytest.raises(RuntimeError, match="this process's share is done"):
        fill_bank(generator, counts=COUNTS, out=tmp_path / "bank", share=(1, 3), progress=False)
    assert count.images == 144


@pytest.mark.parametrize("batch_size", [8, 48])
def test_the_images_are_those_of_sample(batch_size: int, tmp_path: Path) -> None:
    generator = make_adm(batch_size)
    fill_bank(generator, counts={"cyst": 70, "metastasis": 61}, out=tmp_path / "bank", progress=False)
    bank = SyntheticBank.load(tmp_path / "bank")
    for row in (0, 63, 64, 130):
        assert torch.equal(bank.images[row], generator.sample(bank.labels[[row]], bank.seeds[[row]])[0])


class Toy:
    """Draws a pixel that is the seed, in batches of seven."""

    sample_batch = 7

    def __init__(self, *, mixes_classes: bool = True) -> None:
        self.mixes_classes, self.classes = mixes_classes, ("cyst", "metastasis")
        self.asked: list[list[int]] = []

    def sample(self, labels: Tensor, seeds: Tensor) -> Tensor:
        assert labels.dtype == seeds.dtype == torch.int64
        self.asked.append(labels.tolist())
        return (10 * labels + seeds).to(torch.uint8).view(-1, 1, 1, 1)


def draw(generator: Any, *, numbers: list[int], ready: dict[tuple[int, int], Tensor]) -> tuple[list[Tensor], list[int]]:
    plan = Plan(counts=(9, 4), seed=0, images_per_shard=3)
    advanced: list[int] = []
    drawing = ShardDrawing(generator, numbers, plan.shard, ready=ready, drawn=advanced.append)
    shards = []
    for images, labels, seeds in drawing:
        assert images.flatten().tolist() == (10 * labels + seeds).tolist()
        assert all(key in drawing.ready for key in zip(labels.tolist(), seeds.tolist(), strict=True))
        shards.append(images)
    assert not drawing.ready
    return shards, advanced


def test_batches_reach_over_the_ends_of_shards() -> None:
    toy = Toy()
    shards, advanced = draw(toy, numbers=[0, 1, 2, 3, 4], ready={})
    assert [len(images) for images in shards] == [3, 3, 3, 2, 2]
    assert [len(labels) for labels in toy.asked] == [7, 6]
    assert sum(advanced) == 13


def test_batches_of_one_class_each() -> None:
    toy = Toy(mixes_classes=False)
    draw(toy, numbers=[0, 1, 2, 3, 4], ready={})
    assert sorted(toy.asked) == [[0] * 2, [0] * 7, [1] * 4]


def test_what_is_ready_is_not_drawn_again() -> None:
    toy = Toy()
    ready = {key: torch.full((1, 1, 1), 10 * key[0] + key[1], dtype=torch.uint8) for key in [(0, 0), (1, 3)]}
    _, advanced = draw(toy, numbers=[0, 1, 2, 3, 4], ready=ready)
    assert [len(labels) for labels in toy.asked] == [7, 4]
    assert sum(advanced) == 13


def test_some_shards_only() -> None:
    toy = Toy()
    shards, advanced = draw(toy, numbers=[1, 4], ready={})
    assert [len(images) for images in shards] == [3, 2]
    assert [len(labels) for labels in toy.asked] == [5]
    assert sum(advanced) == 5
