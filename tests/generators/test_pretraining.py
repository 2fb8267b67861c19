"""A pool before the labelled patches: two runs, what each is told, and every image that must not be in a pool."""

import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms.data.identity import find_recorded
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import DCGAN, StyleGAN, TextualInversion, load_generator
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.dcgan.training import DCGANTraining
from genmix_transforms.generators.pretraining import PRETRAINED, Pretraining, check_pool, check_unseen
from tests.generators.conftest import make_patches

NETWORK = {"base_width": 4, "latent_size": 8}
TRAINING = {"steps": 3, "batch_size": 4, "learning_rate": 1e-3, "augment": ()}


@pytest.fixture(autouse=True)
def few_images() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="very few images")
        yield


@pytest.fixture
def patches() -> PatchDataset:
    return make_patches(12)


@pytest.fixture
def pool() -> PatchDataset:
    return replace(make_patches(36).subset(torch.arange(12, 36)), name="pool").without_labels()


def first_run(pool: PatchDataset, patches: PatchDataset, out: Path, **options: Any) -> Pretraining:
    given = {"kind": DCGAN, "network": NETWORK, "training": TRAINING, "steps": 2, "device": "cpu", **options}
    return Pretraining(pool=pool, patches=patches, out=out, **given)


def both(pool: PatchDataset, patches: PatchDataset, out: Path, *, restart: bool = False) -> Generator:
    generator = first_run(pool, patches, out).train(progress=False, restart=restart)
    return generator.fit(patches, out=out, warm_start=True, progress=False, device="cpu", **TRAINING)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of images seen before each step that is taken."""
    taken: list[int] = []
    step = DCGANTraining.training_step

    def counted(self: DCGANTraining, images: Any, labels: Any, images_seen: int) -> Any:
        taken.append(images_seen)
        return step(self, images, labels, images_seen)

    monkeypatch.setattr(DCGANTraining, "training_step", counted)
    return taken


def test_two_runs_of_which_the_second_starts_from_the_first(
    pool: PatchDataset, patches: PatchDataset, tmp_path: Path
) -> None:
    trained = both(pool, patches, tmp_path / "run")
    first, second = load_generator(tmp_path / "run" / PRETRAINED), load_generator(tmp_path / "run")
    assert (first.classes, second.classes) == (("unlabelled",), patches.classes)
    assert second.weights_hash == trained.weights_hash
    assert first.provenance["training_set"] == pool.training_set()
    assert second.provenance["started_from"]["training_set"] == pool.training_set()
    # Who looks at the weights alone finds both: the counts are those that a bank is filled by.
    record = second.provenance["training_set"]
    assert record["class_counts"] == patches.class_counts
    for seen in (pool, patches):
        found = find_recorded(seen.origins, record)
        assert found is not None
        assert bool(found.all())


def test_settings_of_the_fine_tuning_stay_with_it(pool: PatchDataset, patches: PatchDataset, tmp_path: Path) -> None:
    both(pool, patches, tmp_path / "run")
    first = load_generator(tmp_path / "run" / PRETRAINED).provenance["settings"]
    assert (first["steps"], first["batch_size"], first["learning_rate"], first["augment"]) == (2, 4, 0.0002, [])
    assert load_generator(tmp_path / "run").provenance["settings"]["learning_rate"] == 1e-3


def test_what_is_trained_is_not_trained_anew(
    pool: PatchDataset, patches: PatchDataset, tmp_path: Path, steps: list[int]
) -> None:
    before = both(pool, patches, tmp_path / "run").weights_hash
    assert steps == [0, 4, 0, 4, 8]
    assert both(pool, patches, tmp_path / "run").weights_hash == before
    assert len(steps) == 5
    assert both(pool, patches, tmp_path / "run", restart=True).weights_hash == before
    assert steps[5:] == [0, 4, 0, 4, 8]


def test_a_run_that_was_killed_on_the_pool_goes_on_there(
    pool: PatchDataset, patches: PatchDataset, tmp_path: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = both(pool, patches, tmp_path / "whole").weights_hash
    # A restart that is killed on the pool leaves no run of before to go on with.
    both(pool, patches, tmp_path / "run")
    counted = DCGANTraining.training_step

    def killed(self: DCGANTraining, images: Any, labels: Any, images_seen: int) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return counted(self, images, labels, images_seen)

    with monkeypatch.context() as here:
        here.setattr(DCGANTraining, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            both(pool, patches, tmp_path / "run", restart=True)
    assert not (tmp_path / "run/config.json").exists()
    steps.clear()
    assert both(pool, patches, tmp_path / "run").weights_hash == whole
    assert steps == [4, 0, 4, 8]


def test_an_estimate_is_of_the_pool_and_writes_nothing(
    pool: PatchDataset, patches: PatchDataset, tmp_path: Path
) -> None:
    estimate, generator = first_run(pool, patches, tmp_path / "run").estimate()
    assert estimate.steps == 2
    assert generator.classes == patches.classes
    assert not (tmp_path / "run").exists()
    # Where the pool has been trained on, what comes after is estimated from there: a finished run refuses no estimate.
    both(pool, patches, tmp_path / "run")
    _, generator = first_run(pool, patches, tmp_path / "run").estimate()
    settings = {**TRAINING, "steps": 4, "device": "cpu"}
    assert generator.estimate(patches, out=tmp_path / "run", warm_start=True, **settings).steps == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": TextualInversion}, "TextualInversion: no pre-training: what it knows of images is its base model's"),
        ({"training": {**TRAINING, "learning_rate": -1}}, r"DCGAN\.fit: learning_rate must be above 0"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"kind": StyleGAN, "network": {"fmap_base": 64, "fmap_max": 8, "latent_size": 8},
          "training": {"batch_size": 4, "start_resolution": 64}}, "start_resolution must be a power of two"),
    ],
)  # fmt: skip
def test_what_the_fine_tuning_would_refuse_is_refused_before_the_pool_is_trained_on(
    pool: PatchDataset, patches: PatchDataset, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        first_run(pool, patches, tmp_path / "run", **options).train(progress=False)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


# Pools that cannot be


def test_a_pool_that_has_nothing_held_out_is_let_pass(pool: PatchDataset, patches: PatchDataset) -> None:
    check_pool(pool, patches)
    check_pool(pool, patches, held_out={"val": patches})
    check_pool(patches.without_labels(), patches)  # the training part's own images are no leak


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda pool: pool.resized(32),
            "pool: the pool has images of 1 x 32 x 32 .* discs of 1 x 16 x 16; .*--size 16",
        ),
        (lambda pool: pool.with_channels(3), r"of 3 x 16 x 16 \(C x H x W\).*--size 16 --channels 1"),
        (lambda pool: replace(pool, images=pool.images.to(torch.uint16)), "uint16 pixels, discs torch.uint8: bring"),
    ],
)
def test_a_pool_of_another_kind_of_image(
    pool: PatchDataset, patches: PatchDataset, change: Callable[[PatchDataset], PatchDataset], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_pool(change(pool), patches)


def test_a_pool_of_images_for_volumes(pool: PatchDataset, tiny_patches: Callable[..., PatchDataset]) -> None:
    volumes = tiny_patches(dimensions=3)
    with pytest.raises(InputError, match="has images of 1 x 16 x 16, discs volumes of .*: give a pool of volumes"):
        check_pool(pool, volumes)
    check_pool(volumes.without_labels(), volumes)


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_pool_with_images_that_are_held_out(pool: PatchDataset, patches: PatchDataset, part: str) -> None:
    leaked = pool.subset(torch.arange(5))
    with pytest.raises(
        InputError, match=rf"pool: 5 of its 24 images are in the {part} part .*pool\.without\(val, test\)"
    ):
        check_pool(pool, patches, held_out={part: leaked})
    check_pool(pool.without(leaked), patches, held_out={part: leaked})


def test_the_same_pixels_are_the_same_image_whoever_saved_them(pool: PatchDataset, patches: PatchDataset) -> None:
    copies = replace(pool, source_hashes=torch.arange(len(pool)))  # as from files of another size
    with pytest.raises(InputError, match="24 of its 24 images are in the test part"):
        check_pool(copies, patches, held_out={"test": pool})


def test_weights_that_have_seen_what_is_held_out(pool: PatchDataset, patches: PatchDataset, tmp_path: Path) -> None:
    weights = DCGAN.for_patches(pool, **NETWORK).fit(
        pool, out=tmp_path / "weights", steps=1, batch_size=4, device="cpu", progress=False
    )
    held_out = {"val": patches, "test": pool.subset(torch.arange(3))}
    with pytest.raises(InputError, match=r"runs/x: these weights were trained on 3 of the 3 images of the test part"):
        check_unseen(weights, patches, held_out=held_out, name="runs/x")
    # Also when they have been made for other classes, with a training after that or without.
    adapted = weights.made_for(patches)
    with pytest.raises(InputError, match="3 of the 3 images of the test part"):
        check_unseen(adapted, patches, held_out=held_out, name="runs/x")
    # The data has these twice.
    check_unseen(adapted, pool, held_out=held_out, name="runs/x")
    check_unseen(DCGAN.for_patches(pool, **NETWORK), patches, held_out=held_out, name="runs/x")  # nobody can tell
