"""Textual Inversion as a generator: identity of an image, saving, loading, sampling, and what it refuses."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import TextualInversion, fill_bank, load_generator
from genmix_transforms.generators.lora import adapter_parameters, add_adapters
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.settings import SamplerSettings
from tests.generators.textual_inversion.tiny_generators import CLASSES, make_ti


@pytest.fixture(scope="module")
def generator(ldm: LatentDiffusion) -> TextualInversion:
    return make_ti(ldm)


@settings(max_examples=4)
@given(pairs=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2**62)), min_size=1, max_size=6))
def test_an_image_depends_on_its_own_label_and_seed_alone(
    generator: TextualInversion, pairs: list[tuple[int, int]]
) -> None:
    labels, seeds = [label for label, _ in pairs], [seed for _, seed in pairs]
    together = generator.sample(labels, seeds)
    assert together.dtype == torch.uint8
    assert together.shape == (len(pairs), 1, 16, 16)
    assert torch.equal(generator.sample(labels[::-1], seeds[::-1]), together.flip(0))
    assert torch.equal(generator.sample(labels[-1:], seeds[-1:])[0], together[-1])


def test_label_seed_vectors_prompt_and_sampler_each_make_a_difference(generator: TextualInversion) -> None:
    # Vectors of a tiny random model say little: louder ones are heard.
    loud = generator.with_embeddings({name: 20 * rows for name, rows in generator.embeddings.items()})
    images = [*loud.sample([0, 1, 0], [5, 5, 6]), generator.sample([0], [5])[0]]
    images += [loud.with_sampler(**change).sample([0], [5])[0] for change in ({"steps": 3}, {"guidance_scale": 2.0})]
    images += [
        loud.with_sampler("fast", steps=3).sample([0], [5])[0],
        loud.with_sampler(negative_prompt="cyst").sample([0], [5])[0],
    ]
    assert len({tuple(image.flatten().tolist()) for image in images}) == len(images)


def test_the_identity_says_all_that_an_image_depends_on(
    ldm: LatentDiffusion, generator: TextualInversion, tmp_path: Path
) -> None:
    same = make_ti(ldm)
    assert (same.weights_hash, same.config) == (generator.weights_hash, generator.config)
    other = generator.with_embeddings({name: rows + 1 for name, rows in generator.embeddings.items()})
    assert other.weights_hash != generator.weights_hash
    for options in ({"prompt": "{}"}, {"sampler": {"steps": 3}}, {"resolution": 8}, {"modality": "CT"}):
        assert make_ti(ldm, **options).config != generator.config
    base = generator.describe()["config"]["base"]
    assert base == {
        "name": "tiny-ldm",
        "revision": None,
        "weights": f"sha256:{ldm.weights_hash}",
        "noise_schedule": {
            "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "trained_betas": None, "rescale_betas_zero_snr": False, "prediction_type": "epsilon",
            "timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False,
            "clip_sample_range": 1.0, "thresholding": False, "final_sigmas_type": None,
        },
    }  # fmt: skip
    unet = copy.deepcopy(ldm.unet)
    adapted = make_ti(ldm).with_embeddings(generator.embeddings, model=ldm.with_unet(unet))
    assert adapted.weights_hash == generator.weights_hash
    pytest.importorskip("peft")
    add_adapters(unet, rank=2)
    assert adapted.weights_hash != generator.weights_hash
    assert adapted.config["base"]["weights"] == base["weights"]


def test_the_constructor_takes_all_of_the_configuration(ldm: LatentDiffusion, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "resolution": 8, "channels": 3, "vectors": {"cyst": 1, "metastasis": 3}, "initial_words": {"cyst": "lung cyst"},
        "templates": ["{} a", "{} b"], "prompt": "b {}", "sampler": {"steps": 1, "eta": 0.5}, "bits": 16,
    }  # fmt: skip
    generator = make_ti(ldm, **given)
    config = generator.config
    sampler = {**make_ti(ldm).with_sampler("paper", **given["sampler"]).config["sampler"]}
    assert {name: config[name] for name in given} == {**given, "sampler": sampler}
    generator.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert loaded.config == config
    images = loaded.sample([1], [5])
    assert images.dtype == torch.uint16
    assert images.shape == (1, 3, 8, 8)
    assert torch.equal(images, generator.sample([1], [5]))


def test_sampling_leaves_modes_and_random_numbers_alone(generator: TextualInversion) -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    images = generator.sample([0], [1])
    assert torch.equal(torch.rand(2), expected)
    assert not images.requires_grad
    assert not generator.network.training
    assert generator.sample([], []).shape == (0, 1, 16, 16)


def test_it_fills_a_bank(generator: TextualInversion, tmp_path: Path) -> None:
    bank = fill_bank(generator, counts={"cyst": 2, "metastasis": 3}, out=tmp_path, progress=False)
    assert bank.class_counts == {"cyst": 2, "metastasis": 3}
    assert torch.equal(bank.images[:2], generator.sample([0, 0], [0, 1]))


def test_going_on_from_another(generator: TextualInversion, tiny_patches: Any, tmp_path: Path) -> None:
    generator.save_pretrained(tmp_path)
    adapted = TextualInversion.adapted_to(tmp_path, tiny_patches(), base=generator.model, sampler="fast")
    assert adapted.weights_hash == generator.weights_hash
    assert adapted.sampler == SamplerSettings.of("fast")
    assert TextualInversion.adapted_to(tmp_path, tiny_patches()).config == generator.config
    with pytest.raises(InputError, match="brings its own vectors, modality; leave vectors, modality out"):
        TextualInversion.adapted_to(tmp_path, tiny_patches(), vectors=2, modality="CT")
    with pytest.raises(InputError, match="the data has 1 x 20 x 20"):
        TextualInversion.adapted_to(tmp_path, tiny_patches(size=20))


def test_made_for_patches(ldm: LatentDiffusion, tiny_patches: Any) -> None:
    made = TextualInversion.for_patches(tiny_patches(channels=3), base=ldm, vectors=1)
    assert (made.classes, made.image_shape, made.pixel_dtype) == (CLASSES, (3, 16, 16), torch.uint8)


def test_other_embeddings(generator: TextualInversion) -> None:
    longer = {"cyst": torch.randn(5, 16), "metastasis": torch.randn(1, 16)}
    other = generator.with_embeddings(longer)
    assert other.config["vectors"] == {"cyst": 5, "metastasis": 1}
    assert other.network is generator.network
    assert all(torch.equal(other.embeddings[name], rows) for name, rows in longer.items())
    other.embeddings["cyst"].zero_()  # copies
    assert torch.equal(other.embeddings["cyst"], longer["cyst"])
    assert other.sample([0, 1], [1, 2]).shape == (2, 1, 16, 16)
    with pytest.raises(InputError, match=r"of 'cyst' are of shape \(1, 8\); the base model tiny-ldm .* width 16"):
        generator.with_embeddings({**longer, "cyst": torch.zeros(1, 8)})
    with pytest.raises(InputError, match="80 vectors of class 'cyst', and a prompt has room for 75"):
        generator.with_embeddings({**longer, "cyst": torch.zeros(80, 16)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["Cyst", "cyst"]}, "would have the same token"),
        ({"classes": ["a/b"]}, "it holds a slash"),
        ({"classes": ["Training"]}, "no class can be called 'Training': a file of the folder is"),
        ({"classes": ["unet_lora"]}, "no class can be called 'unet_lora'"),
        (
            {"templates": ["{} beside <metastasis>"]},
            "the template .* <metastasis>. has a class's own",
        ),
        ({"modality": "<cyst>"}, "has a class's own token in it"),
        ({"sampler": {"negative_prompt": "cyst " * 90}}, "a prompt of 92 tokens, and the text encoder reads 77"),
        ({"sampler": {"steps": 2000}}, "2000 steps of ddim do not fit a diffusion of 1000 timesteps"),
        ({"resolution": 0}, "resolution must be a whole number, from 1 to 16384"),
        ({"channels": 2}, r"channels must be 1 \(gray\) or 3 \(color\), got 2"),
        ({"bits": 12}, "bits must be 8 or 16, got 12"),
        ({"vectors": 0}, "TextualInversion: vectors must be a whole number, from 1 to 75, got 0"),
        ({"vectors": 1_000_000}, "vectors must be a whole number, from 1 to 75, got 1000000"),
        ({"vectors": 1.5}, "vectors must be a whole number"),
        ({"vectors": {"cyst": 1, "metastasis": 0}}, "vectors of metastasis must be a whole number"),
        ({"vectors": 74}, "with the 74 vectors of class '.*' is .* tokens long, .*give at most .* vectors, or shorter"),
        ({"vectors": 70, "prompt": "a long way to go to a scan of {}"}, "'a long way to go to a scan of {}' with"),
        ({"initial_words": {"b": "cyst"}}, "initial_words for b"),
        ({"initial_words": "cyst"}, "initial_words must be a mapping from names to values, got 'cyst'"),
        ({"initial_words": {"cyst": 3}}, "initial_words of cyst must be a text, got 3"),
        ({"vector": 3}, "TextualInversion: no such option: vector; did you mean vectors?"),
        ({"templates": ["cyst"]}, r"a template needs exactly one \{\}"),
        ({"prompt": "cyst"}, r"a template needs exactly one \{\}"),
        ({"templates": ["{}"], "modality": "CT"}, "templates or a modality, not both"),
        ({"sampler": "slow"}, "sampler: must be one of paper, fast"),
        ({"sampler": {"steps": 0}}, "sampler: steps must be"),
        ({"revision": "main"}, "which has no other revision"),
    ],
)
def test_what_makes_no_generator(ldm: LatentDiffusion, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_ti(ldm, **options)


def test_what_the_arguments_alone_tell_is_said_before_the_base_model_is_looked_for() -> None:
    for options in ({"classes": ["a", "A"]}, {"channels": 2}, {"templates": []}, {"sampler": "slow"}, {"vectors": 0}):
        with pytest.raises(InputError, match="token|channels|templates|sampler|vectors"):
            TextualInversion(**{"classes": ["a"], "base": "/no/such/folder", **options})  # type: ignore[arg-type]


def test_a_base_model_put_together_by_hand(ldm: LatentDiffusion) -> None:
    by_hand = LatentDiffusion(
        tokenizer=ldm.tokenizer, text_encoder=ldm.text_encoder, unet=ldm.unet, autoencoder=ldm.autoencoder,
        scheduler_config=ldm.scheduler_config, family="ldm",
    )  # fmt: skip
    with pytest.raises(InputError, match="a model that open_base_model has opened"):
        make_ti(by_hand)


def test_what_cannot_be_sampled(generator: TextualInversion) -> None:
    with pytest.raises(InputError, match="labels run from 0 to 3, but the classes are 0 cyst, 1 metastasis"):
        generator.sample([0, 3], [1, 2])
    with pytest.raises(InputError, match="a prompt of .* tokens, and the text encoder reads 77"):
        generator.with_sampler(negative_prompt="cyst " * 80).sample([0], [1])


def test_another_kinds_folder(generator: TextualInversion, tmp_path: Path, tiny_dcgan: Any) -> None:
    tiny_dcgan().save_pretrained(tmp_path / "gan")
    with pytest.raises(InputError, match="a dcgan generator, not a textual-inversion"):
        TextualInversion.from_pretrained(tmp_path / "gan")
    with pytest.raises(InputError, match="a dcgan generator has no base model; leave base .*out"):
        load_generator(tmp_path / "gan", base="x")


def test_grey_is_the_mean_of_the_channels_and_says_how_far_they_differed(ldm: LatentDiffusion) -> None:
    grey, colour = make_ti(ldm), make_ti(ldm, channels=3)
    one, three = grey.sample([0, 1], [5, 6]), colour.sample([0, 1], [5, 6])
    assert (three.float().mean(1, keepdim=True) - one.float()).abs().max() <= 1
    assert grey.channel_spread.images == 2
    assert 0 < grey.channel_spread.mean <= grey.channel_spread.largest <= 1
    native = make_ti(ldm, channels=3, resolution=32).sample([0, 1], [5, 6]).float()  # counted before it is made smaller
    spread = (native.amax(1) - native.amin(1)).mean() / 255
    assert grey.channel_spread.mean == pytest.approx(float(spread), abs=0.004)
    assert colour.channel_spread.images == 0
    assert grey.with_sampler(steps=3).channel_spread.images == 0


def test_real_images_to_start_from(generator: TextualInversion, tiny_patches: Any, tmp_path: Path) -> None:
    patches: PatchDataset = tiny_patches()
    started = generator.with_start_images(patches, strength=0.5)
    assert started.sampler.strength == 0.5
    images = started.sample([0, 1], [5, 6])
    assert not torch.equal(images, generator.sample([0, 1], [5, 6]))
    assert torch.equal(started.sample([1], [6])[0], images[1])
    assert torch.equal(started.sample([[1.0, 0.0], [0.0, 1.0]], [5, 6]), images)
    assert not torch.equal(started.sample([[0.4, 0.6]], [6])[0], images[1])
    assert started.config["start_images"] == patches.fingerprint
    assert started.describe()["start_images"]["strength"] == 0.5
    assert "start_images" not in generator.config
    # They do not travel with the generator, which then says what it lacks.
    started.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert isinstance(loaded, TextualInversion)
    with pytest.raises(
        InputError, match=r"starts from real images \(strength 0.5\), and there are none: give the train"
    ):
        loaded.sample([0], [5])
    assert torch.equal(loaded.with_start_images(patches, strength=0.5).sample([0, 1], [5, 6]), images)
    free = started.with_start_images(None)
    assert free.config == generator.config
    assert torch.equal(free.sample([0], [5]), generator.sample([0], [5]))


def test_saved_and_loaded(generator: TextualInversion, tmp_path: Path) -> None:
    generator.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert isinstance(loaded, TextualInversion)
    assert (loaded.config, loaded.weights_hash) == (generator.config, generator.weights_hash)
    assert torch.equal(loaded.sample([0, 1], [5, 6]), generator.sample([0, 1], [5, 6]))


@pytest.mark.parametrize("lent", [False, True])
def test_adapters_are_saved_and_loaded(ldm: LatentDiffusion, tmp_path: Path, lent: bool) -> None:
    pytest.importorskip("peft")
    unet = copy.deepcopy(ldm.unet)
    adapted = make_ti(ldm).with_embeddings(make_ti(ldm).embeddings, model=ldm.with_unet(unet))
    add_adapters(unet, rank=2)
    with torch.no_grad():
        for parameter in adapter_parameters(unet):
            parameter.add_(0.3)
    images = adapted.sample([0], [5])
    assert not torch.equal(images, make_ti(ldm).sample([0], [5]))
    adapted.save_pretrained(tmp_path)
    loaded = TextualInversion.from_pretrained(tmp_path, base=ldm if lent else None)
    assert loaded.weights_hash == adapted.weights_hash
    assert torch.equal(loaded.sample([0], [5]), images)
    assert not adapter_parameters(ldm.unet)  # a model that was lent stays as it is


def test_tokens_of_other_classes_are_refused(generator: TextualInversion, tmp_path: Path) -> None:
    generator.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["config"]["classes"] = ["cyst", "lesion"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config.json: the tokens are .*<metastasis>.*, and the classes .*lesion"):
        load_generator(tmp_path)
