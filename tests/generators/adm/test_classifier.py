"""The classifier of noisy images: what it is made of, and that it can be saved, and learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.generators.adm import ADMConfiguration, NoisyClassifier
from genmix_transforms.generators.adm.classifier import AttentionPool, load_classifier, save_classifier
from genmix_transforms.generators.adm.configuration import OFFICIAL_CLASSIFIERS


def test_parameter_counts_of_the_published_ones() -> None:
    counts = {}
    for name, flags in OFFICIAL_CLASSIFIERS.items():
        with torch.device("meta"):
            classifier = NoisyClassifier.of(flags)
        counts[name] = round(sum(parameter.numel() for parameter in classifier.parameters()) / 1e6)
    assert counts == {"64": 65, "128": 43, "256": 54, "512": 54}


def test_pooling_is_attention_of_the_mean_to_all_positions() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(side=3, width=8, head_channels=4, outputs=5)
    values = torch.randn(2, 8, 3, 3)
    positions = torch.cat([values.flatten(2).mean(2, keepdim=True), values.flatten(2)], 2) + pool.positional_embedding
    query, key, value = pool.qkv(positions.mT).chunk(3, 2)
    heads = []
    for head in range(2):
        q, k, v = (part[:, :, 4 * head : 4 * head + 4] for part in (query, key, value))
        heads.append(((q @ k.mT / 2).softmax(2) @ v)[:, 0])
    assert torch.allclose(pool(values), pool.out(torch.cat(heads, 1)), atol=1e-6)


def test_a_saved_classifier_is_the_same_classifier(
    tiny_flags: ADMConfiguration, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = NoisyClassifier.of(tiny_flags).eval()
    classifier.save_pretrained(tmp_path)
    again = NoisyClassifier.from_pretrained(tmp_path)
    assert not caplog.records
    images, times = torch.randn(2, 1, 16, 16), torch.tensor([0, 999])
    with torch.no_grad():
        assert torch.equal(again(images, times), classifier(images, times))
    assert again.config["num_classes"] == 3


def test_it_learns_what_tells_images_apart(tiny_flags: ADMConfiguration) -> None:
    torch.manual_seed(0)
    classifier = NoisyClassifier.of(replace(tiny_flags, num_classes=2))
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    labels = torch.arange(8) % 2
    for _ in range(15):
        images = torch.randn(8, 1, 16, 16) * 0.3 + (labels * 2.0 - 1).view(-1, 1, 1, 1)
        loss = F.cross_entropy(classifier(images, torch.randint(0, 1000, (8,))), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2


def test_time_and_place_make_a_difference(tiny_flags: ADMConfiguration) -> None:
    torch.manual_seed(0)
    classifier = NoisyClassifier.of(tiny_flags).eval()
    images = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        first, later = classifier(images, torch.tensor([0])), classifier(images, torch.tensor([999]))
        moved = classifier(images.roll(8, 3), torch.tensor([0]))
    assert not torch.allclose(first, later)
    assert not torch.allclose(first, moved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_head_channels": -1}, "a classifier needs num_head_channels: 64 in the published ones"),
        ({"num_head_channels": 24}, "channels are no multiple of num_head_channels, 24"),
        ({"image_size": 17}, "must be a multiple of 2, got 17"),
    ],
)
def test_bad_input(change: dict[str, int], message: str, tiny_flags: ADMConfiguration) -> None:
    with pytest.raises(InputError, match=message):
        NoisyClassifier.of(replace(tiny_flags, **change))


def test_the_classifier_comes_and_goes(tiny_flags: ADMConfiguration, tmp_path: Path) -> None:
    classifier = NoisyClassifier.of(tiny_flags)
    assert load_classifier(tmp_path / "classifier") is None
    save_classifier(tmp_path / "classifier", classifier)
    loaded = load_classifier(tmp_path / "classifier")
    assert loaded is not None
    assert not loaded.training
    assert torch.equal(loaded.conv_in.weight, classifier.conv_in.weight)
    save_classifier(tmp_path / "classifier", None)
    assert not (tmp_path / "classifier").exists()


def test_files_that_are_no_classifier(tiny_flags: ADMConfiguration, tmp_path: Path) -> None:
    save_classifier(tmp_path, NoisyClassifier.of(tiny_flags))
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CorruptFileError, match="damaged: not the bytes that were written"):
        load_classifier(tmp_path)
    file.write_bytes(content[:1000])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_classifier(tmp_path)
    file.write_bytes(content)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_classes": 3', '"num_classes": 4'))
    with pytest.raises(InputError, match="not a classifier that can be read"):
        load_classifier(tmp_path)
