"""ADM as a generator: an image is its label, seed, weights and sampler; saved, loaded, guided, trained; refusals."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.generators import ADM, load_generator
from genmix_transforms.generators.adm import ADMConfiguration, NoisyClassifier
from genmix_transforms.generators.adm.convert import read_checkpoint
from genmix_transforms.generators.adm.training import ADMTraining
from genmix_transforms.generators.evolution import Evolution

Make = Callable[..., Any]
TinyADM = Callable[..., ADM]
Patches = Callable[..., PatchDataset]
pytestmark = pytest.mark.filterwarnings("ignore:very few images")


@pytest.fixture(scope="module")
def generator(tiny_adm: Make) -> ADM:
    return tiny_adm()


@pytest.fixture(scope="module")
def classifier(tiny_flags: ADMConfiguration) -> NoisyClassifier:
    torch.manual_seed(0)
    return NoisyClassifier.of(tiny_flags)


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpmsolver++", "unipc"])
@settings(max_examples=4)
@given(pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2**62)), min_size=1, max_size=7))
def test_an_image_depends_on_its_own_label_and_seed_alone(
    generator: ADM, method: str, pairs: list[tuple[int, int]]
) -> None:
    sampler = generator.with_sampler(method=method)
    labels, seeds = [label for label, _ in pairs], [seed for _, seed in pairs]
    together = sampler.sample(labels, seeds)
    assert together.dtype == torch.uint8
    assert together.shape == (len(pairs), 1, 16, 16)
    assert torch.equal(sampler.sample(labels[::-1], seeds[::-1]), together.flip(0))
    assert torch.equal(sampler.sample(labels[-1:], seeds[-1:])[0], together[-1])


def test_label_and_seed_each_make_a_difference(generator: ADM) -> None:
    images = generator.sample([0, 1, 0], [5, 5, 6])
    assert len({tuple(image.flatten().tolist()) for image in images}) == 3
    assert images.float().std() > 20


def test_the_sampler_is_part_of_the_identity(generator: ADM) -> None:
    first = generator.sample([0], [5])
    for changes in ({"steps": 4}, {"method": "ddpm"}, {"eta": 1.0}):
        other = generator.with_sampler(**changes)
        assert not torch.equal(other.sample([0], [5]), first)
        assert other.config != generator.config
        assert other.network is generator.network
        assert other.describe()["config"]["sampler"] == {**generator.config["sampler"], **changes}
    assert torch.equal(generator.sample([0], [5]), first)


def test_sixteen_bits_and_colour(tiny_adm: Make) -> None:
    wide = tiny_adm(bits=16).sample([0], [1])
    assert wide.dtype == torch.uint16
    assert (wide.to(torch.int32) / 257 - tiny_adm().sample([0], [1])).abs().max() <= 0.5 + 1e-3
    assert tiny_adm(channels=3).sample([0], [1]).shape == (1, 3, 16, 16)


def test_the_folder_is_ours_and_diffusers(generator: ADM, tmp_path: Path) -> None:
    generator.save_pretrained(tmp_path / "run")
    loaded = load_generator(tmp_path / "run")
    assert isinstance(loaded, ADM)
    assert (loaded.config, loaded.weights_hash) == (generator.config, generator.weights_hash)
    assert torch.equal(loaded.sample([0, 2], [5, 6]), generator.sample([0, 2], [5, 6]))
    network = UNet2DModel.from_pretrained(tmp_path / "run", subfolder="unet")
    images, times, labels = torch.randn(2, 1, 16, 16), torch.tensor([3, 900]), torch.tensor([0, 2])
    with torch.no_grad():
        expected = generator.network(images, times, class_labels=labels).sample
        assert torch.allclose(network(images, times, class_labels=labels).sample, expected, atol=1e-5)
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "run", subfolder="scheduler")
    assert torch.allclose(scheduler.betas.double(), generator.schedule.betas, atol=1e-8)
    assert scheduler.config.variance_type == "learned_range"


def test_provenance_travels_with_the_weights(tiny_adm: Make, tmp_path: Path) -> None:
    generator = tiny_adm()
    generator.provenance = {"images_seen": 3}
    generator.save_pretrained(tmp_path)
    assert load_generator(tmp_path).provenance == {"images_seen": 3}
    with pytest.raises(OverwriteError, match="holds a generator already"):
        generator.save_pretrained(tmp_path)
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    generator.save_pretrained(tmp_path, overwrite=True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == files


def test_a_classifier_guides_and_is_saved(generator: ADM, classifier: NoisyClassifier, tmp_path: Path) -> None:
    guided = generator.with_classifier(classifier, scale=100.0)
    plain = generator.sample([0], [5])
    images = guided.sample([0], [5])
    assert not torch.equal(images, plain)
    assert guided.weights_hash != generator.weights_hash
    guided.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert torch.equal(loaded.sample([0], [5]), images)
    assert loaded.weights_hash == guided.weights_hash
    free = guided.with_classifier(None)
    assert torch.equal(free.sample([0], [5]), plain)
    free.save_pretrained(tmp_path, overwrite=True)
    assert load_generator(tmp_path).classifier is None  # type: ignore[attr-defined]


def test_a_network_that_is_not_told_the_class_is_guided_to_it(
    tiny_adm: Make, tiny_flags: ADMConfiguration, classifier: NoisyClassifier, tmp_path: Path
) -> None:
    plain = tiny_adm(classes=["any"], configuration=replace(tiny_flags, class_cond=False))
    guided = plain.with_classifier(classifier, scale=100.0, classes=["a", "b", "c"])
    images = guided.sample([0, 2], [5, 5])
    assert not torch.equal(images[0], images[1])
    guided.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert loaded.classes == ("a", "b", "c")
    assert torch.equal(loaded.sample([0, 2], [5, 5]), images)
    with pytest.raises(InputError, match=r"not told the class .*a, b, c; .*or let a classifier guide it"):
        guided.with_sampler(classifier_scale=0.0)
    with pytest.raises(InputError, match=r"\(1, 16, 3\) cannot guide a generator of \(1, 16, 1\)"):
        plain.with_classifier(classifier)


@pytest.mark.slow
def test_the_compiled_network_draws_the_same(generator: ADM, tiny_adm: Make) -> None:
    compiled = tiny_adm()
    compiled.network.compile(backend="aot_eager", fullgraph=True)
    difference = compiled.sample([0, 2], [5, 6]).int() - generator.sample([0, 2], [5, 6]).int()
    assert difference.abs().max() <= 1


def test_classifier_free_guidance(tiny_adm: Make) -> None:
    generator = tiny_adm(null_class=True)
    assert generator.network.class_embedding.weight.shape[0] == 4
    guided = generator.with_sampler(guidance_scale=4.0)
    assert not torch.equal(guided.sample([0], [5]), generator.sample([0], [5]))
    together = guided.sample([0, 2], [5, 6])
    assert torch.equal(guided.sample([2], [6])[0], together[1])


def test_from_a_checkpoint_of_the_original(reference: Make, tiny_flags: ADMConfiguration, tmp_path: Path) -> None:
    network = reference(tiny_flags)
    torch.save(network.weights, tmp_path / "model.pt")
    generator = ADM.from_checkpoint(tmp_path / "model.pt", configuration=tiny_flags)
    assert generator.classes == ("class-0000", "class-0001", "class-0002")
    assert generator.provenance["file"].startswith("sha256:")
    torch.manual_seed(0)
    images, times, labels = torch.randn(2, 1, 16, 16), torch.tensor([3, 900]), torch.tensor([0, 2])
    with torch.no_grad():
        expected = network.unet(images, times, labels)
        assert (generator.network(images, times, class_labels=labels).sample - expected).abs().max() <= 1e-5
    named = ADM.from_checkpoint(
        tmp_path / "model.pt", configuration=tiny_flags, classes=["x", "y", "z"], sampler={"steps": 2}
    )
    named.save_pretrained(tmp_path / "run")
    loaded = load_generator(tmp_path / "run")
    assert loaded.classes == ("x", "y", "z")
    assert torch.equal(loaded.sample([1], [2]), named.sample([1], [2]))
    with pytest.raises(InputError, match=r"weights of 3 classes, and 2 names \(x, y\); leave the names out, and adapt"):
        ADM.from_checkpoint(tmp_path / "model.pt", configuration=tiny_flags, classes=["x", "y"])


def test_what_draws_nothing_is_no_generator(reference: Make, tiny_flags: ADMConfiguration, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save(reference(tiny_flags, classifier=True).weights, file)
    with pytest.raises(InputError, match=r"model\.pt: an ADM classifier, which draws no images by itself"):
        ADM.from_checkpoint(file, configuration=tiny_flags)
    upsampler = replace(tiny_flags, small_size=8)
    torch.save(reference(upsampler).weights, file)
    with pytest.raises(InputError, match="an ADM upsampler"):
        ADM.from_checkpoint(file, configuration=upsampler)
    with pytest.raises(InputError, match="an upsampler draws nothing without a smaller image"):
        ADM(classes=["a", "b", "c"], configuration=upsampler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "abc"}, "classes must be different names, in a list; got the text 'abc'"),
        ({"classes": ["a", "a"]}, "classes must be different names, at least one"),
        ({"classes": []}, "at least one, got"),
        ({"bits": 12}, "bits must be 8 or 16, got 12"),
        ({"configuration": {"class_cond": False}}, r"not told the class \(class_cond is false\).*adapt\(classes"),
        ({"resolution": 17}, "must be a multiple of 2, got 17; bring the images to 18 pixels"),
        ({"resolution": "16"}, "the size must be a whole number"),
        ({"channels": 0}, "channels must be a whole number, at least 1, got 0"),
        ({"sampler": {"steps": 1001}}, "1001 sampling steps of a diffusion that has 1000 timesteps"),
        (
            {"sampler": {"guidance_scale": 2.0}},
            "guidance_scale 2.0 needs a network that was trained with label dropout",
        ),
    ],
)
def test_what_makes_no_generator(options: dict[str, Any], message: str, tiny_flags: ADMConfiguration) -> None:
    defaults: dict[str, Any] = {"classes": ["a", "b"], "configuration": tiny_flags}
    with pytest.raises(InputError, match=message):
        ADM(**{**defaults, **options})


def test_what_cannot_be_sampled(generator: ADM, classifier: NoisyClassifier, tiny_flags: ADMConfiguration) -> None:
    with pytest.raises(InputError, match="labels run from 0 to 3, but the classes are 0 a, 1 b, 2 c"):
        generator.sample([0, 3], [1, 2])
    with pytest.raises(InputError, match="one seed for each label, got 1 labels and 2 seeds"):
        generator.sample([0], [1, 2])
    with pytest.raises(
        InputError, match="classifier_scale 2.0, but there is no classifier; give one with with_classifier"
    ):
        generator.with_sampler(classifier_scale=2.0).sample([0], [1])
    with pytest.raises(InputError, match="1001 sampling steps"):
        generator.with_sampler(steps=1001)
    with pytest.raises(InputError, match="the network is told the class, and its classes are the classifier's too"):
        generator.with_classifier(classifier, classes=["a", "b", "c"])
    other = NoisyClassifier.of(replace(tiny_flags, num_classes=4))
    with pytest.raises(
        InputError, match=r"\(channels, size, classes\) \(1, 16, 4\) cannot guide a generator of \(1, 16, 3\)"
    ):
        generator.with_classifier(other)


def test_folders_that_are_not_whole(generator: ADM, tmp_path: Path) -> None:
    generator.save_pretrained(tmp_path / "run")
    weights = tmp_path / "run" / "unet" / "diffusion_pytorch_model.safetensors"
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["config"]["configuration"]["num_channels"] = 64
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"not the weights that config\.json describes"):
        load_generator(tmp_path / "run")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_generator(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "unet")
    with pytest.raises(InputError, match=r"no such file; .*the folder has a config\.json but no weights"):
        load_generator(tmp_path / "run")


def adm(tiny_adm: TinyADM, **options: Any) -> ADM:
    """Of 8 pixels: a step takes some hundredths of a second."""
    smaller = {"image_size": 8, "channel_mult": [1, 1], "attention_resolutions": [4]}
    flags = {**tiny_adm().configuration.to_flags(), **smaller, "dropout": 0.1, "diffusion_steps": 20}
    return ADM(classes=("cyst", "metastasis"), configuration=flags, sampler={"steps": 2, "batch_size": 8}, **options)


@pytest.fixture
def discs(tiny_patches: Callable[..., PatchDataset]) -> Patches:
    return lambda **options: tiny_patches(**{"size": 8, **options})


def fit(generator: ADM, patches: PatchDataset, out: Path, **options: Any) -> ADM:
    defaults = {"steps": 6, "batch_size": 4, "checkpoint_every": 8, "device": "cpu", "progress": False}
    return generator.fit(patches, out=out, **{**defaults, **options})


def test_what_a_run_leaves(tiny_adm: TinyADM, discs: Patches, tmp_path: Path) -> None:
    trained = fit(adm(tiny_adm), discs(), tmp_path / "run")
    left = sorted(str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert left == [
        "config.json",
        "evolution.png",
        *(f"samples/{seen:012d}.png" for seen in (8, 16, 24)),
        "scheduler/scheduler_config.json",
        "training/checkpoint.json",
        "training/lock",
        "training/losses.jsonl",
        "training/state-000000000024.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    loaded = load_generator(tmp_path / "run")
    assert isinstance(loaded, ADM)
    assert loaded.weights_hash == trained.weights_hash
    assert torch.equal(loaded.sample([0, 1], [7, 8]), trained.sample([0, 1], [7, 8]))
    assert loaded.provenance == trained.provenance
    assert loaded.provenance["steps"] == 6
    assert loaded.provenance["options"]["ema_decay"] == 0.9999
    assert loaded.provenance["training_set"]["class_counts"] == {"cyst": 12, "metastasis": 12}
    lines = [json.loads(line) for line in (tmp_path / "run/training/losses.jsonl").read_text().splitlines()]
    assert [line.keys() for line in lines] == [{"images_seen", "mse", "bits_per_dim"}] * 3
    # Two classes of three seeds; before the training, and three checkpoints: 96 pixels each, and 2 between.
    width, height = Image.open(tmp_path / "run/evolution.png").size
    assert height == 24 + 6 * 98
    assert 4 * 98 < width < 5.5 * 98


def test_a_stopped_run_goes_on_bit_for_bit(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that is random or learned in a step."""
    options = {"timesteps": "loss-second-moment", "mirror": True, "label_dropout": 0.2}
    whole = fit(adm(tiny_adm, null_class=True), discs(), tmp_path / "whole", **options)

    step = ADMTraining.training_step

    def power_cut(self: ADMTraining, images: torch.Tensor, labels: torch.Tensor, images_seen: int) -> Any:
        if images_seen == 12:
            raise RuntimeError("power cut")
        return step(self, images, labels, images_seen)

    with monkeypatch.context() as patch:
        patch.setattr(ADMTraining, "training_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            fit(adm(tiny_adm, null_class=True), discs(), tmp_path / "broken", **options)
    again = fit(adm(tiny_adm, null_class=True), discs(), tmp_path / "broken", **options)
    assert again.weights_hash == whole.weights_hash
    for name in ("evolution.png", "samples/000000000024.png", "training/losses.jsonl"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    states = [next((tmp_path / run / "training").glob("state-*")).read_bytes() for run in ("whole", "broken")]
    assert states[0] == states[1]


def test_fine_tuning_starts_from_the_weights(tiny_adm: TinyADM, discs: Patches, tmp_path: Path) -> None:
    first = fit(adm(tiny_adm), discs(), tmp_path / "first", steps=2)
    images = {}
    draw = Evolution.add

    def keep(self: Any, images_seen: int, drawn: Any) -> None:
        images[images_seen] = [some.clone() for some in drawn]
        draw(self, images_seen, drawn)

    adapted = first.adapt(classes=("metastasis", "cyst"))
    patches = discs(classes=("metastasis", "cyst"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evolution, "add", keep)
        tuned = fit(adapted, patches, tmp_path / "tuned", steps=2, warm_start=True, learning_rate=1e-12)
    # The first column of the evolution is what it drew before the training; a rate of nothing changes nothing.
    assert torch.equal(images[0][0], first.sample([1] * 8, list(range(8))))
    assert torch.equal(images[0][1], images[8][1])
    assert tuned.provenance["started_from"]["adapted_from"]["steps"] == 2
    # The weights have seen both training sets.
    fingerprints = [first.provenance["training_set"]["fingerprint"], patches.fingerprint]
    assert tuned.provenance["training_set"]["fingerprint"] == "+".join(fingerprints)
    fine_tuned = tuned.weights_hash
    scratch = fit(tuned, patches, tmp_path / "scratch", steps=2)  # weights of its own, unless told otherwise
    assert "started_from" not in scratch.provenance
    assert scratch.weights_hash != fine_tuned


@pytest.mark.parametrize("tune", ["attention", "lora"])
def test_tuning_a_part_resumes_and_saves_a_plain_network(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, tune: str
) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    start = adm(tiny_adm)
    with torch.no_grad():
        for parameter in start.network.parameters():
            parameter.add_(0.02)
    options = {"tune": tune, "warm_start": True, "lora_rank": 2, "learning_rate": 0.01}

    def tuned(out: str, steps: int) -> ADM:
        return fit(start.with_network(start.network), discs(), tmp_path / out, steps=steps, **options)

    whole = tuned("whole", 4)
    tuned("broken", 2)
    assert tuned("broken", 4).weights_hash == whole.weights_hash
    loaded = load_generator(tmp_path / "whole")
    before, after = start.network.state_dict(), loaded.network.state_dict()
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("to_q.weight" in name for name in moved)
    assert not any("resnets" in name for name in moved)


def test_fit_leaves_the_generators_network_whole_when_it_fails(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = adm(tiny_adm)
    before = generator.weights_hash

    def power_cut(*_: object) -> Any:
        raise RuntimeError("power cut")

    monkeypatch.setattr(ADMTraining, "training_step", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(generator, discs(), tmp_path / "run", seed=3)
    assert generator.weights_hash == before


def test_the_average_on_the_cpu_is_the_same(tiny_adm: TinyADM, discs: Patches, tmp_path: Path) -> None:
    beside = fit(adm(tiny_adm), discs(), tmp_path / "beside", steps=2)
    apart = fit(adm(tiny_adm), discs(), tmp_path / "apart", steps=2, ema_device="cpu")
    assert apart.weights_hash == beside.weights_hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4, "accumulate": 5}, "a batch of 4 cannot be shared into 5 parts in each of 1 processes"),
        ({"dropout": 0.1}, "ADM.fit: no such option: dropout; did you mean label_dropout"),
    ],
)
def test_what_cannot_work_is_refused_before_any_file_is_written(
    tiny_adm: TinyADM, discs: Patches, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(adm(tiny_adm), discs(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_network_is_made_for_patches_or_adapted_to_them(tiny_adm: TinyADM, discs: Patches, tmp_path: Path) -> None:
    patches = discs(size=16, channels=3)
    flags = tiny_adm().configuration
    made = ADM.for_patches(patches, configuration=flags, null_class=True)
    assert (made.classes, made.image_shape) == (("cyst", "metastasis"), (3, 16, 16))
    assert made.configuration.null_class
    tiny_adm().save_pretrained(tmp_path / "three")
    adapted = ADM.adapted_to(tmp_path / "three", patches, null_class=True)
    assert (adapted.classes, adapted.image_shape) == (("cyst", "metastasis"), (3, 16, 16))
    assert adapted.configuration.null_class
    assert adapted.provenance["adapted_from"]["weights"] == tiny_adm().weights_hash
    with pytest.raises(InputError, match="three: the weights bring their own network; leave configuration out"):
        ADM.adapted_to(tmp_path / "three", patches, configuration="small-32")


def test_options_are_prepared_before_any_data_is_read(tmp_path: Path, tiny_flags: ADMConfiguration) -> None:
    file = tmp_path / "flags.json"
    file.write_text(json.dumps(tiny_flags.to_flags()))
    assert ADM.prepare_options({"configuration": str(file)}) == {"configuration": tiny_flags}
    assert ADM.prepare_options({"configuration": "small-32"}) == {"configuration": "small-32"}
    # Dropped labels are those of a row for "no class", which the network then has.
    assert ADM.prepare_options({}, training={"label_dropout": 0.1}) == {"null_class": True}
    assert ADM.prepare_options({}, training={"label_dropout": 0.0}) == {}
    with pytest.raises(InputError, match="runs/one: --init brings its own network; leave --configuration out"):
        ADM.prepare_options({"configuration": "small-32"}, init="runs/one")
    with pytest.raises(InputError, match="no such file"):
        ADM.prepare_options({"configuration": str(tmp_path / "none.json")})


def test_names_of_the_release_before_warn_and_work(
    reference: Make, tiny_flags: ADMConfiguration, tmp_path: Path
) -> None:
    import genmix_transforms.generators.adm as room

    with pytest.warns(DeprecationWarning, match="now called ADMSettings"):
        assert room.TrainingSettings is room.ADMSettings
    torch.save(reference(tiny_flags).weights, tmp_path / "model.pt")
    checkpoint = read_checkpoint(tmp_path / "model.pt", configuration=tiny_flags)
    with pytest.warns(DeprecationWarning, match="use ADM.from_checkpoint"):
        assert ADM.of_checkpoint(checkpoint).classes == ("class-0000", "class-0001", "class-0002")
