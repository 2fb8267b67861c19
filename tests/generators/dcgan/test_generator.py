"""DCGAN: sampling by label and seed, fitting, saving, and what it refuses."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import DCGAN, load_generator

Patches = Callable[..., PatchDataset]
GENERATOR = DCGAN(classes=["a", "b"], resolution=16, base_width=4, latent_size=8)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2**62)), min_size=1, max_size=70))
def test_an_image_depends_on_its_own_label_and_seed_alone(pairs: list[tuple[int, int]]) -> None:
    labels, seeds = [label for label, _ in pairs], [seed for _, seed in pairs]
    together = GENERATOR.sample(labels, seeds)
    assert torch.equal(GENERATOR.sample(labels[::-1], seeds[::-1]), together.flip(0))
    last = len(pairs) - 1
    assert torch.equal(GENERATOR.sample([labels[last]], [seeds[last]])[0], together[last])


def test_full_width_images_do_not_depend_on_their_neighbours_or_the_threads() -> None:
    generator = DCGAN(classes=["a"], resolution=64)
    together = generator.sample([0] * 40, list(range(40)))
    for seed in (0, 17, 31, 32, 39):
        assert torch.equal(generator.sample([0], [seed])[0], together[seed])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(generator.sample([0] * 40, list(range(40))), together)
    finally:
        torch.set_num_threads(threads)


def test_sampling_leaves_training_mode_and_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    GENERATOR.sample([0], [1])
    assert torch.equal(torch.rand(2), expected)


def test_sixteen_bits() -> None:
    generator = DCGAN(classes=["a"], resolution=16, base_width=4, bits=16)
    wide = generator.sample([0, 0], [1, 2])
    assert wide.dtype == torch.uint16
    narrow = DCGAN(classes=["a"], resolution=16, base_width=4).sample([0, 0], [1, 2])
    assert ((wide.to(torch.int32).float() / 257) - narrow.float()).abs().max() <= 0.5 + 1e-3


def test_no_labels_no_images() -> None:
    assert GENERATOR.sample([], []).shape == (0, 1, 16, 16)


def fit(generator: DCGAN, patches: PatchDataset, out: Path, **options: Any) -> DCGAN:
    defaults = {"steps": 6, "batch_size": 4, "checkpoint_every": 12, "progress": False, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few images: what these tests are made of
        return generator.fit(patches, out=out, **{**defaults, **options})


def test_fit_saves_what_it_returns(tiny_patches: Patches, tmp_path: Path) -> None:
    generator = DCGAN(classes=("cyst", "metastasis"), resolution=16, base_width=4)
    before = generator.weights_hash
    assert fit(generator, tiny_patches(), tmp_path) is generator
    assert generator.weights_hash != before
    loaded = load_generator(tmp_path)
    assert loaded.weights_hash == generator.weights_hash
    assert loaded.provenance == generator.provenance
    assert loaded.provenance["training_set"] == tiny_patches().training_set()
    assert loaded.provenance["settings"]["learning_rate"] == 0.0002
    assert torch.equal(loaded.sample([0, 1], [5, 5]), generator.sample([0, 1], [5, 5]))


def test_the_seed_decides_everything(tiny_patches: Patches, tmp_path: Path) -> None:
    hashes = []
    for number, seed in enumerate((0, 0, 1)):
        generator = DCGAN(classes=("cyst", "metastasis"), resolution=16, base_width=4)
        torch.manual_seed(number)  # the global random numbers do not matter
        hashes.append(fit(generator, tiny_patches(), tmp_path / str(number), seed=seed).weights_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_warm_start_goes_on_from_the_weights_there_are(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    fit(DCGAN(classes=patches.classes, resolution=16, base_width=4), patches, tmp_path / "first", steps=40)
    first = load_generator(tmp_path / "first")
    start = first.network.main[0].weight.clone()
    assert isinstance(first, DCGAN)
    tuned = fit(first, patches, tmp_path / "second", steps=1, warm_start=True)
    assert (tuned.network.main[0].weight - start).abs().max() < 0.01  # one step away, not drawn anew


def test_bf16_trains(tiny_patches: Patches, tmp_path: Path) -> None:
    generator = DCGAN(classes=("cyst", "metastasis"), resolution=16, base_width=4)
    fit(generator, tiny_patches(), tmp_path, mixed_precision="bf16")
    assert all(value.dtype != torch.bfloat16 for value in generator.network.state_dict().values())
    assert all(torch.isfinite(value).all() for value in generator.network.state_dict().values())


def test_few_images_are_warned_of_with_numbers(tiny_patches: Patches, tmp_path: Path) -> None:
    generator = DCGAN(classes=("cyst", "metastasis"), resolution=16, base_width=4)
    with pytest.warns(UserWarning, match=r"very few images .*cyst 12, metastasis 12 \(fewer than 100\)"):
        generator.fit(tiny_patches(), out=tmp_path, steps=1, batch_size=4, progress=False, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 28}, r"power of two from 16 to 256, got 28; bring the images to 32 pixels \(--size 32"),
        ({"resolution": 512}, "got 512; bring the images to 256"),
        ({"resolution": 8}, "got 8; bring the images to 16"),
        ({"classes": []}, "classes must be different names, at least one"),
        ({"classes": ["a", "a"]}, "classes must be different names"),
        ({"classes": "cyst"}, "classes must be different names"),
        ({"channels": 0}, "channels must be a whole number, at least 1, got 0"),
        ({"base_width": 0}, "DCGAN: base_width must be a whole number, from 1 to 8192, got 0"),
        ({"latent_size": 0}, "latent_size must be a whole number, from 1 to 65536, got 0"),
        ({"bits": 12}, "bits must be 8 or 16, got 12"),
        ({"resolution": "64"}, "resolution must be a whole number, at least 1, got '64'"),
        ({"base_width": 4.5}, "base_width must be a whole number"),
        ({"base_widht": 4}, "DCGAN: no such option: base_widht; did you mean base_width"),
        ({"classes": [1, 2]}, r"classes must be names, got \(1, 2\)"),
    ],
)
def test_networks_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DCGAN(**{"classes": ["a"], **options})


@pytest.mark.parametrize(
    ("labels", "seeds", "message"),
    [
        ([0, 2], [0, 1], "labels run from 0 to 2, but the classes are 0 a, 1 b"),
        ([-1], [0], "labels run from -1"),
        ([0], [-5], "seeds must not be negative, got -5"),
        ([0, 1], [0], "one seed for each label, got 2 labels and 1 seeds"),
        ([0.5], [0], "labels must be whole numbers"),
        ([[0]], [0], r"labels must be whole numbers of shape \(n,\)"),
        ([0], [2**63], r"labels and seeds must be whole numbers below 2\*\*63"),
        (["a"], [1], "labels and seeds must be whole numbers"),
    ],
)
def test_samples_that_cannot_be(labels: list[Any], seeds: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GENERATOR.sample(labels, seeds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "fast"}, "preset must be one of dcgan, paper, got 'fast'"),
        ({"learning_rate": 0}, "DCGAN.fit: learning_rate must be above 0 and at most 10, got 0"),
        ({"learning_rate": 1e9}, "learning_rate must be above 0 and at most 10, got 1000000000.0"),
        ({"batch_size": 100_000_000}, "batch_size must be a whole number, from 1 to 65536, got 100000000"),
        ({"ema_half_life": 0}, "ema_half_life must be positive"),
        ({"ema_half_life": float("nan")}, "ema_half_life must be positive, got nan"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and at most 10, got nan"),
        ({"seed": -1}, "seed must be a whole number, from 0 to"),
        ({"steps": 1.5}, "steps must be a whole number, from 1 to 1000000000, got 1.5"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number, at least 1, got 0"),
        ({"device": "gpu"}, "no device 'gpu' here"),
        ({"augment": ("blur",)}, "augment must be one of color, translation, cutout, got 'blur'"),
        ({"stepz": 3}, "DCGAN.fit: no such option: stepz; did you mean steps"),
    ],
)
def test_fits_that_cannot_be(options: dict[str, Any], message: str, tiny_patches: Patches, tmp_path: Path) -> None:
    generator = DCGAN(classes=("cyst", "metastasis"), resolution=16, base_width=4)
    with pytest.raises(InputError, match=message):
        fit(generator, tiny_patches(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_the_same_object_fitted_again_starts_anew(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    generator = DCGAN(classes=patches.classes, resolution=16, base_width=4)
    first = fit(generator, patches, tmp_path / "run").weights_hash
    assert fit(generator, patches, tmp_path / "run", restart=True).weights_hash == first
    other = fit(generator, patches, tmp_path / "other", seed=1).weights_hash
    fresh = DCGAN(classes=patches.classes, resolution=16, base_width=4)
    assert fit(fresh, patches, tmp_path / "fresh", seed=1).weights_hash == other != first


def test_a_warm_start_is_recorded_and_only_resumed_from_the_same_weights(tiny_patches: Patches, tmp_path: Path) -> None:
    patches, more = tiny_patches(), tiny_patches(30)
    generator = fit(DCGAN(classes=patches.classes, resolution=16, base_width=4), more, tmp_path / "first")
    start = generator.weights_hash
    tuned = fit(generator, patches, tmp_path / "tuned", warm_start=True)
    assert tuned.provenance["started_from"]["weights"] == start
    # It has seen both sets: whoever compares it with one of them must notice.
    fingerprint = tuned.provenance["training_set"]["fingerprint"]
    assert fingerprint == f"{more.fingerprint}+{patches.fingerprint}"
    with pytest.raises(InputError, match=r"options.started_from"):
        fit(tuned, patches, tmp_path / "tuned", warm_start=True, steps=8)


def test_a_removed_generator_is_written_again_by_the_finished_run(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    first = fit(DCGAN(classes=patches.classes, resolution=16, base_width=4), patches, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").unlink()
    again = fit(DCGAN(classes=patches.classes, resolution=16, base_width=4), patches, tmp_path)
    assert again.weights_hash == first.weights_hash == load_generator(tmp_path).weights_hash


def test_data_that_does_not_fit(tiny_patches: Patches, tmp_path: Path) -> None:
    generator = DCGAN(classes=("cyst", "metastasis"), resolution=16, base_width=4)
    for patches, message in (
        (tiny_patches(size=32), "made for 1 x 16 x 16 torch.uint8 images, the data has 1 x 32 x 32"),
        (tiny_patches(channels=3), r"open it with size=16, channels=1"),
        (tiny_patches(classes=("a", "b")), "made for the classes cyst, metastasis, the data has a, b"),
        (tiny_patches(1), "no image of class metastasis to train on; leave the class out"),
        ((tiny_patches(), tiny_patches()), "expected a PatchDataset, got a tuple"),
    ):
        with pytest.raises(InputError, match=message):
            fit(generator, patches, tmp_path / "run")
