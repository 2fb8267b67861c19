"""The classifier that guides: what it is shown, what is logged, exact resume, refusals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.identity import find_recorded
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.generators import ADM, fill_bank, load_generator
from genmix_transforms.generators.adm import NoiseSchedule, NoisyClassifier
from genmix_transforms.generators.adm.classifier_training import ClassifierTraining, train_classifier
from genmix_transforms.generators.adm.loss import HybridLoss
from genmix_transforms.generators.adm.settings import ClassifierSettings
from genmix_transforms.generators.steps import Steps
from tests.pretend_cuda import DEVICE, PretendCuda

TinyADM = Callable[..., ADM]
Patches = Callable[..., PatchDataset]
pytestmark = pytest.mark.filterwarnings("ignore:very few images")


def adm(tiny_adm: TinyADM, **flags: Any) -> ADM:
    smaller = {"image_size": 8, "channel_mult": [1, 1], "attention_resolutions": [4], "diffusion_steps": 20}
    return ADM(
        classes=("cyst", "metastasis"),
        configuration={**tiny_adm().configuration.to_flags(), **smaller, **flags},
        sampler={"steps": 2, "batch_size": 2},
    )


def fit(generator: ADM, patches: PatchDataset, out: Path, **options: Any) -> NoisyClassifier:
    defaults = {"steps": 4, "batch_size": 8, "checkpoint_every": 16, "device": "cpu", "progress": False}
    return train_classifier(patches, generator=generator, out=out, **{**defaults, **options})


def new_classifier(generator: ADM) -> NoisyClassifier:
    return NoisyClassifier(
        image_size=8,
        num_channels=32,
        num_res_blocks=1,
        channel_mult=(1, 1),
        attention_resolutions=(4,),
        num_head_channels=32,
        num_classes=2,
        channels=1,
    )


def test_a_step_is_cross_entropy_on_all_kinds_of_noise(tiny_adm: TinyADM) -> None:
    torch.manual_seed(0)
    classifier = new_classifier(adm(tiny_adm))
    shown: list[tuple[torch.Tensor, torch.Tensor]] = []
    classifier.register_forward_pre_hook(lambda _, inputs: shown.append(inputs))
    settings = ClassifierSettings.of({"learning_rate": 1e-12, "weight_decay": 0, "augment": ()}, name="")
    training = ClassifierTraining(classifier, loss=HybridLoss(NoiseSchedule.named("linear", 20)), settings=settings)
    images, labels = torch.linspace(-1, 1, 8 * 64).view(8, 1, 8, 8), torch.arange(8) % 2
    times = []
    for step in range(40):
        torch.manual_seed(step)
        values = training.training_step(images, labels, 8 * step)
        noisy, timesteps = shown[-1]
        with torch.no_grad():
            logits = classifier(noisy, timesteps)
        assert values["cross_entropy"].item() == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-5)
        right = (logits.argmax(1) == labels).float()
        assert values["accuracy"] == right.mean()
        for quarter in range(4):
            assert values[f"accuracy_{quarter + 1}"] == right[2 * quarter : 2 * quarter + 2].mean()
            # A quarter of the batch is of each quarter of the timesteps.
            assert (timesteps[2 * quarter : 2 * quarter + 2] // 5 == quarter).all()
        times.append(timesteps)
    assert set(torch.cat(times).tolist()) == set(range(20))


def test_small_batches_have_no_quarters(tiny_adm: TinyADM) -> None:
    training = ClassifierTraining(
        new_classifier(adm(tiny_adm)),
        loss=HybridLoss(NoiseSchedule.named("linear", 20)),
        settings=ClassifierSettings.of({"mirror": True}, name=""),
    )
    values = training.training_step(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 0]), 0)
    assert values.keys() == {"cross_entropy", "accuracy"}


def test_a_run_is_opened_by_what_guides(tiny_adm: TinyADM, tiny_patches: Patches, tmp_path: Path) -> None:
    generator = adm(tiny_adm)
    trained = fit(generator, tiny_patches(size=8), tmp_path / "run")
    opened = NoisyClassifier.from_pretrained(tmp_path / "run")
    for name, value in trained.state_dict().items():
        assert torch.equal(value, opened.state_dict()[name]), name
    left = sorted(str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert left == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "training/checkpoint.json",
        "training/lock",
        "training/losses.jsonl",
        "training/state-000000000032.safetensors",
    ]
    lines = [json.loads(line) for line in (tmp_path / "run/training/losses.jsonl").read_text().splitlines()]
    assert lines[0].keys() >= {"cross_entropy", "accuracy", "accuracy_1", "accuracy_4"}
    generator.with_classifier(opened, scale=2.0).save_pretrained(tmp_path / "guided")
    guided = load_generator(tmp_path / "guided")
    assert guided.sample([0, 1], [7, 8]).shape == (2, 1, 8, 8)
    assert guided.weights_hash != generator.weights_hash


def test_a_generator_without_labels_draws_the_classes_of_its_classifier(
    tiny_adm: TinyADM, tiny_patches: Patches, tmp_path: Path
) -> None:
    """And a bank of it knows the images of both: a leak through either is found."""
    few = tiny_patches(size=8)
    pool = replace(few, images=255 - few.images)
    flags = {**adm(tiny_adm).configuration.to_flags(), "class_cond": False}
    generator = ADM(classes=("unlabelled",), configuration=flags, sampler={"steps": 2})
    generator.fit(pool.without_labels(), out=tmp_path / "pool", steps=2, batch_size=4, device="cpu", progress=False)
    generator = load_generator(tmp_path / "pool")
    assert isinstance(generator, ADM)
    fit(generator, few, tmp_path / "classifier")
    opened = NoisyClassifier.from_pretrained(tmp_path / "classifier")
    guided = generator.with_classifier(opened, scale=2.0, classes=few.classes)
    guided.save_pretrained(tmp_path / "guided")
    for drawing in (guided, load_generator(tmp_path / "guided")):
        record = drawing.training_record()
        assert record["class_counts"] == few.class_counts
        for part in (pool, few):
            named = find_recorded(part.origins, record)
            assert named is not None
            assert named.all()
        out = tmp_path / f"bank-{drawing is guided}"
        bank = fill_bank(drawing, counts={"cyst": 1, "metastasis": 1}, out=out, progress=False)
        assert SyntheticBank.load(out).sources[0]["training_set"] == record
        assert bank.classes == few.classes
    assert generator.training_record()["fingerprint"] == pool.without_labels().fingerprint


def test_a_stopped_run_goes_on_bit_for_bit(tiny_adm: TinyADM, tiny_patches: Patches, tmp_path: Path) -> None:
    generator, patches = adm(tiny_adm), tiny_patches(size=8)
    whole = fit(generator, patches, tmp_path / "whole")
    fit(generator, patches, tmp_path / "broken", steps=2)
    again = fit(generator, patches, tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_it_learns_what_tells_the_classes_apart(tiny_adm: TinyADM, tiny_patches: Patches, tmp_path: Path) -> None:
    fit(
        adm(tiny_adm, noise_schedule="cosine"), tiny_patches(size=8), tmp_path / "run", steps=50, learning_rate=3e-3,
        augment=(), checkpoint_every=400,
    )  # fmt: skip
    last = json.loads((tmp_path / "run/training/losses.jsonl").read_text().splitlines()[-1])
    assert last["accuracy_1"] > 0.7  # of two classes, in little noise
    assert last["cross_entropy"] < 0.69


def test_training_goes_on_from_another_classifier(tiny_adm: TinyADM, tiny_patches: Patches, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = new_classifier(adm(tiny_adm))
    before = {name: value.clone() for name, value in start.state_dict().items()}
    tuned = fit(
        adm(tiny_adm), tiny_patches(size=8), tmp_path / "run", classifier=start, steps=1, learning_rate=1e-11,
        weight_decay=0,
    )  # fmt: skip
    for name, value in tuned.state_dict().items():
        assert torch.allclose(value, before[name], atol=1e-6)
        assert torch.equal(start.state_dict()[name], before[name])


def test_what_does_not_fit_is_refused(tiny_adm: TinyADM, tiny_patches: Patches, tmp_path: Path) -> None:
    generator, patches = adm(tiny_adm), tiny_patches(size=8)
    with pytest.raises(InputError, match="made for the classes cyst, metastasis, the data has a, b"):
        fit(generator, tiny_patches(size=8, classes=("a", "b")), tmp_path / "run")
    with pytest.raises(InputError, match="train_classifier: learning_rate must be above 0"):
        fit(generator, patches, tmp_path / "run", learning_rate=0.0)
    three = NoisyClassifier(
        image_size=8, num_channels=32, num_res_blocks=1, channel_mult=(1, 1), attention_resolutions=(4,),
        num_head_channels=32, num_classes=3, channels=1,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"a classifier of .* \(1, 8, 3\) cannot guide a generator of \(1, 8, 2\)"):
        fit(generator, patches, tmp_path / "run", classifier=three)
    alone = ADM(classes=("cyst",), configuration=generator.configuration, sampler={"steps": 2})
    with pytest.raises(InputError, match="a classifier needs at least two classes, the generator has cyst"):
        fit(alone, patches, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_step_never_waits_for_the_device(
    tiny_adm: TinyADM, tiny_patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Steps.take

    with PretendCuda() as device:

        def watched(*arguments: Any) -> Any:
            with device.no_waiting():
                return take(*arguments)

        monkeypatch.setattr(Steps, "take", watched)
        trained = fit(adm(tiny_adm), tiny_patches(size=8), tmp_path / "run", steps=2, mirror=True, device=DEVICE)
        assert device.operations > 100
    again = fit(adm(tiny_adm), tiny_patches(size=8), tmp_path / "cpu", steps=2, mirror=True)
    for one, other in zip(trained.parameters(), again.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
