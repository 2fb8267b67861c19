"""The classifier of noisy images: what it is made of, and that it can be saved, and learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm import ADMConfiguration, NoisyClassifier
from genmix_transforms.generators.adm.classifier import AttentionPool
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
