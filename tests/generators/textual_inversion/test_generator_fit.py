"""Whole trainings: exact resume, what a run leaves, several processes, and everything refused before it starts."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genmix_transforms.data import open_dataset
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Protocol, evaluate
from genmix_transforms.generators import TextualInversion, fill_bank, load_generator
from genmix_transforms.generators.lora import adapter_parameters
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.state import weights_hash
from genmix_transforms.generators.textual_inversion.latents import CachedPosteriors
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.training import TextualInversionTraining
from tests.generators.textual_inversion.tiny_generators import make_ti

Patches = Callable[..., PatchDataset]
pytestmark = pytest.mark.filterwarnings("ignore:very few images")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def fit(generator: TextualInversion, patches: PatchDataset, out: Path, **options: Any) -> TextualInversion:
    defaults = {"steps": 6, "batch_size": 4, "checkpoint_every": 8, "device": "cpu", "progress": False}
    return generator.fit(patches, out=out, **{**defaults, **options})


def test_what_a_run_leaves(ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path) -> None:
    start = make_ti(ldm, initial_words={"cyst": "lung"})
    before = start.embeddings
    trained = fit(start, tiny_patches(), tmp_path / "run", mirror=True)
    left = sorted(str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert left == [
        "base_model.json",
        "config.json",
        "cyst/learned_embeds.safetensors",
        "evolution.png",
        "metastasis/learned_embeds.safetensors",
        "model.safetensors",
        *(f"samples/{seen:012d}.png" for seen in (8, 16, 24)),
        "training/checkpoint.json",
        "training/lock",
        "training/losses.jsonl",
        "training/state-000000000024.safetensors",
    ]
    assert all(not torch.equal(before[name], rows) for name, rows in trained.embeddings.items())
    loaded = load_generator(tmp_path / "run")
    assert isinstance(loaded, TextualInversion)
    assert loaded.weights_hash == trained.weights_hash
    assert torch.equal(loaded.sample([0, 1], [7, 8]), trained.sample([0, 1], [7, 8]))
    assert loaded.provenance == trained.provenance
    options = loaded.provenance["options"]
    assert options["base"] == trained.config["base"]
    assert {name: options[name] for name in ("learning_rate", "weight_decay", "mirror", "tune")} == {
        "learning_rate": 0.02, "weight_decay": 0.0, "mirror": True, "tune": "embeddings",
    }  # fmt: skip
    assert (options["initial_words"], options["vectors"]) == ({"cyst": "lung"}, 2)
    assert loaded.provenance["training_set"]["class_counts"] == {"cyst": 12, "metastasis": 12}
    lines = [json.loads(line) for line in (tmp_path / "run/training/losses.jsonl").read_text().splitlines()]
    assert [line.keys() for line in lines] == [{"images_seen", "mse"}] * 3
    checkpoint = (tmp_path / "run/training/state-000000000024.safetensors").stat().st_size
    assert checkpoint < 100_000  # rows, optimiser and the evolution's pictures: nothing of the base model


@pytest.mark.parametrize("tune", ["embeddings", "lora"])
def test_a_stopped_run_goes_on_bit_for_bit(
    ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path, tune: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    options = {"mirror": True, "one_template_a_step": False, "tune": tune, "lora_learning_rate": 0.01, "lora_rank": 2}
    options |= {"lora_after": 1}
    whole = fit(make_ti(ldm), tiny_patches(), tmp_path / "whole", **options)
    step = TextualInversionTraining.training_step

    def power_cut(self: TextualInversionTraining, images: torch.Tensor, labels: torch.Tensor, images_seen: int) -> Any:
        if images_seen == 12:
            raise RuntimeError("power cut")
        return step(self, images, labels, images_seen)

    generator = make_ti(ldm)
    before = generator.weights_hash
    with monkeypatch.context() as patch:
        patch.setattr(TextualInversionTraining, "training_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            fit(generator, tiny_patches(), tmp_path / "broken", **options)
    assert generator.weights_hash == before  # as it was: neither vectors nor adapters of half a training
    again = fit(make_ti(ldm), tiny_patches(), tmp_path / "broken", **options)
    assert again.weights_hash == whole.weights_hash
    for name in ("evolution.png", "samples/000000000024.png", "training/losses.jsonl", "model.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    states = [next((tmp_path / run / "training").glob("state-*")).read_bytes() for run in ("whole", "broken")]
    assert states[0] == states[1]


def test_stable_diffusion_learns_too(stable_diffusion: LatentDiffusion, tiny_patches: Patches, tmp_path: Path) -> None:
    start = make_ti(stable_diffusion)
    before = start.embeddings
    trained = fit(start, tiny_patches(), tmp_path / "run", mixed_precision="bf16", accumulate=2, steps=2)
    assert all(not torch.equal(before[name], rows) for name, rows in trained.embeddings.items())
    assert load_generator(tmp_path / "run").weights_hash == trained.weights_hash
    assert trained.provenance["options"]["learning_rate"] == 0.002
    assert trained.provenance["mixed_precision"] == "bf16"


def test_the_cache_is_no_part_of_the_run(ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path) -> None:
    cached = fit(make_ti(ldm), tiny_patches(), tmp_path / "cached")
    computed = fit(make_ti(ldm), tiny_patches(), tmp_path / "computed", cache_latents=False)
    losses = [
        [json.loads(line)["mse"] for line in (tmp_path / run / "training/losses.jsonl").read_text().splitlines()]
        for run in ("cached", "computed")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    settings = [each.provenance.pop("settings") for each in (cached, computed)]
    assert {name for name in settings[0] if settings[0][name] != settings[1][name]} == {"cache_latents"}
    assert cached.provenance == computed.provenance


def test_latents_are_encoded_before_the_steps_and_only_for_steps(
    ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a step, and so the estimate of the training's, does not hold that of encoding every image."""
    seen: list[str] = []
    encode, step = CachedPosteriors.encode, TextualInversionTraining.training_step

    def note(name: str, function: Any) -> Any:
        return lambda *given, **more: (seen.append(name), function(*given, **more))[1]  # type: ignore[func-returns-value]

    monkeypatch.setattr(CachedPosteriors, "encode", note("encode", encode))
    monkeypatch.setattr(TextualInversionTraining, "training_step", note("step", step))
    make_ti(ldm).estimate(tiny_patches(), out=tmp_path / "run", steps=2, batch_size=4, device="cpu")
    assert seen[:4] == ["encode"] * 3 + ["step"]
    assert "encode" not in seen[4:]
    seen.clear()
    for _ in range(2):
        fit(make_ti(ldm), tiny_patches(), tmp_path / "run", steps=2)
    assert seen == ["encode"] * 3 + ["step"] * 2  # the second run is over already


def test_adapters_leave_the_lent_base_model_alone(ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    options = {"tune": "lora", "lora_learning_rate": 0.05, "lora_rank": 2}
    trained = fit(make_ti(ldm), tiny_patches(), tmp_path / "run", **options)
    assert adapter_parameters(trained.network)
    assert not adapter_parameters(ldm.unet)
    assert (tmp_path / "run/unet_lora/pytorch_lora_weights.safetensors").exists()
    loaded = load_generator(tmp_path / "run")
    assert loaded.weights_hash == trained.weights_hash
    assert torch.equal(loaded.sample([0], [5]), trained.sample([0], [5]))
    plain = make_ti(ldm).with_embeddings(trained.embeddings)
    assert not torch.equal(plain.sample([0], [5]), trained.sample([0], [5]))
    assert isinstance(loaded, TextualInversion)
    with pytest.raises(
        InputError, match=r"has adapters from an earlier training: give warm_start=True \(--init FOLDER\)"
    ):
        fit(loaded, tiny_patches(), tmp_path / "more")
    with pytest.raises(InputError, match=r"adapters of rank 2, and lora_rank is 4; give lora_rank=2"):
        fit(loaded, tiny_patches(), tmp_path / "more", warm_start=True, tune="lora")
    further = fit(loaded, tiny_patches(), tmp_path / "more", warm_start=True, steps=1, **options)
    assert further.weights_hash != trained.weights_hash


def test_in_bfloat16_the_base_model_stays_as_it_is_and_a_run_goes_on_exactly(
    ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    before = weights_hash(ldm.state_dict())
    options = {"mixed_precision": "bf16", "tune": "lora", "lora_learning_rate": 0.05, "lora_rank": 2}
    whole = fit(make_ti(ldm), tiny_patches(), tmp_path / "whole", steps=4, **options)
    fit(make_ti(ldm), tiny_patches(), tmp_path / "broken", steps=2, **options)
    broken = fit(make_ti(ldm), tiny_patches(), tmp_path / "broken", steps=4, **options)
    assert broken.weights_hash == whole.weights_hash
    assert weights_hash(ldm.state_dict()) == before
    frozen = {name: value for name, value in whole.network.state_dict().items() if ".lora_" not in name}
    ours = {name.replace(".base_layer.", "."): value for name, value in frozen.items()}
    assert weights_hash(ours) == weights_hash(ldm.unet.state_dict())
    assert torch.equal(load_generator(tmp_path / "whole").sample([0], [5]), whole.sample([0], [5]))


def test_it_is_on_the_device_that_it_was_trained_on_whole(
    ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base model is moved for whoever shares it, and not back at the end; others bring its parts along again."""
    moves: list[str] = []
    to = LatentDiffusion.to

    def keep(self: LatentDiffusion, device: Any, *rest: Any) -> Any:
        moves.append(str(device))
        return to(self, device, *rest)

    other = make_ti(ldm)
    with monkeypatch.context() as patch:
        patch.setattr(LatentDiffusion, "to", keep)
        patch.setattr(Processes, "join", classmethod(lambda cls, device: Processes(0, 1, torch.device("cpu", 0))))
        trained = fit(make_ti(ldm), tiny_patches(), tmp_path / "run", steps=1)
        assert (moves[0], moves[-1]) == ("cpu:0", "cpu:0")
        assert trained.model is ldm
        moves.clear()
        other.sample([0], [1])
        assert set(moves) == {"cpu"}  # where its own U-Net is


def test_from_embeddings_to_adapters(ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path) -> None:
    """Light fine-tuning begins where no fine-tuning ended."""
    pytest.importorskip("peft")
    first = fit(make_ti(ldm), tiny_patches(), tmp_path / "first")
    learned, before = first.embeddings, first.weights_hash
    tuned = fit(
        first, tiny_patches(), tmp_path / "tuned", warm_start=True, tune="lora", learning_rate=1e-12,
        lora_learning_rate=0.01,
    )  # fmt: skip
    assert tuned.provenance["started_from"]["weights"] == before
    assert tuned.provenance["started_from"]["steps"] == 6
    assert all(torch.allclose(rows, learned[name], atol=1e-6) for name, rows in tuned.embeddings.items())
    assert tuned.weights_hash != before


def test_another_seed_begins_elsewhere_and_another_run_is_refused(
    ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path
) -> None:
    first = fit(make_ti(ldm), tiny_patches(), tmp_path / "run", steps=2)
    with pytest.raises(InputError, match=r"holds a run with other settings \(seed: 0 there, 5 now\)"):
        fit(make_ti(ldm), tiny_patches(), tmp_path / "run", steps=2, seed=5)
    with pytest.raises(InputError, match=r"options.vectors: 2 there, 3 now"):
        fit(make_ti(ldm, vectors=3), tiny_patches(), tmp_path / "run", steps=2)
    with pytest.raises(InputError, match=r"options.templates: \['a medical image of {}'.*there, \['{}'\] now"):
        fit(make_ti(ldm, templates="{}"), tiny_patches(), tmp_path / "run", steps=2)
    again = fit(make_ti(ldm, sampler={"steps": 1}), tiny_patches(), tmp_path / "run", steps=2)  # of no matter to it
    assert again.weights_hash == first.weights_hash
    other = fit(make_ti(ldm), tiny_patches(), tmp_path / "run", steps=2, seed=5, restart=True)
    assert other.weights_hash != first.weights_hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 5}, "a batch of 4 cannot be shared into 5 parts in each of 1 processes"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"dropout": 0.1}, "TextualInversion.fit: no such option: dropout"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"device": "gpu"}, "no device 'gpu' here"),
    ],
)
def test_what_cannot_work_is_refused_before_any_file_is_written(
    ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(make_ti(ldm), tiny_patches(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 20}, "made for 1 x 16 x 16 torch.uint8 images, the data has 1 x 20 x 20"),
        ({"channels": 3}, "the data has 3 x 16 x 16"),
        ({"classes": ("cyst", "normal")}, "made for the classes cyst, metastasis, the data has cyst, normal"),
    ],
)
def test_data_of_another_kind_is_refused(
    ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit(make_ti(ldm), tiny_patches(**change), tmp_path / "run")


def test_two_processes_agree_on_who_is_there(two_processes: Callable[[str], list[dict[str, Any]]]) -> None:
    ranks = two_processes("rare_classes")
    for found in ranks:
        assert found["as_shown"] == [True] * 6  # what the loop shows, known before
        assert len(found["seen"]) == 6
        assert found["alike"]
        assert found["processes"] == 2
    # Some step had a class on one process alone, and both knew.
    for found in ranks:
        assert any(set(present) > set(here) for here, present in found["seen"]), found["seen"]


FROM_THE_FOLDER = """
import sys, torch
from genmix_transforms.generators import load_generator
generator = load_generator(sys.argv[1])
torch.save(generator.sample([0, 1, 2], [7, 8, 9]), sys.argv[2])
print(generator.weights_hash)
"""


@pytest.mark.slow
def test_the_whole_way_on_real_patches(ldm: LatentDiffusion, real_data: Path, tmp_path: Path) -> None:
    """Trained, loaded in a process of its own, a bank filled in two goes, and a classifier trained with it."""
    patches = open_dataset(real_data / "busi_128.npz", size=32)
    train, val, test = patches.split(seed=0)
    generator = make_ti(ldm, classes=train.classes, resolution=32, vectors=4, modality="ultrasound")
    generator.fit(train, out=tmp_path / "run", steps=8, batch_size=8, device="cpu", progress=False, mirror=True)
    command = [sys.executable, "-c", FROM_THE_FOLDER, str(tmp_path / "run"), str(tmp_path / "images.pt")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == generator.weights_hash
    images = torch.load(tmp_path / "images.pt", weights_only=True)
    assert torch.equal(images, generator.sample([0, 1, 2], [7, 8, 9]))

    counts = dict.fromkeys(train.classes, 30)
    sample, drawn = TextualInversion.sample, []

    def stop(self: TextualInversion, labels: Any, seeds: Any) -> torch.Tensor:
        if len(drawn) == 1:
            raise KeyboardInterrupt
        drawn.append(len(labels))
        return sample(self, labels, seeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextualInversion, "sample", stop)
        with pytest.raises(KeyboardInterrupt):
            fill_bank(generator, counts=counts, out=tmp_path / "bank", progress=False)
    loaded = load_generator(tmp_path / "run")
    bank = fill_bank(loaded, counts=counts, out=tmp_path / "bank", progress=False)
    assert bank.class_counts == counts
    assert isinstance(loaded, TextualInversion)
    assert loaded.channel_spread.images == 90 - drawn[0]  # what was there was not drawn again
    whole = fill_bank(generator, counts=counts, out=tmp_path / "whole", progress=False)
    assert torch.equal(bank.images, whole.images)
    results = evaluate(
        (train, val, test), bank=bank, out=tmp_path / "results", arms=("baseline", "genmix"), seeds=1,
        protocol=Protocol(steps=2, batch_size=4, validate_every=2), device="cpu", progress=False,
    )  # fmt: skip
    assert (tmp_path / "results" / "results.json").exists()
    assert results is not None


def test_a_base_model_in_half_precision(ldm: LatentDiffusion, tiny_patches: Patches, tmp_path: Path) -> None:
    generator = make_ti(ldm).with_embeddings(make_ti(ldm).embeddings, model=copy.deepcopy(ldm).to(torch.bfloat16))
    with pytest.raises(InputError, match=r"held in torch.bfloat16, to be drawn from and not learned for"):
        generator.fit(tiny_patches(), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
