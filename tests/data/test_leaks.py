"""What a split lets through."""

from dataclasses import replace

import pytest
import torch

from genmix_transforms.data import leaks as module
from genmix_transforms.data.leaks import find_leaks
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError


def split_patches(**fields):
    """Eight patches of noise in three parts: four, two and two."""
    noise = torch.rand(8, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 255
    known = {
        "images": noise.to(torch.uint8),
        "labels": torch.arange(8) % 2,
        "classes": ("a", "b"),
        "official": torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]),
    }
    return PatchDataset(**{**known, **fields})


def test_nothing_leaks():
    leaks = find_leaks(split_patches(groups=torch.arange(8), series=torch.arange(8)))
    assert not leaks
    assert leaks.sentences == ()


def test_patients_and_scans_in_two_parts():
    leaks = find_leaks(
        split_patches(groups=torch.tensor([0, 1, 2, 3, 3, 4, 5, 0]), series=torch.tensor([0, 1, 2, 3, 3, 4, 5, 6]))
    )
    assert (leaks.groups, leaks.series) == (2, 1)
    assert leaks.sentences == (
        "2 groups (patients) have patches in more than one part",
        "1 scans have patches in more than one part",
    )


def test_copies_are_told_from_near_duplicates():
    data = split_patches()
    images = data.images.clone()
    images[6] = images[1]
    images[7] = (images[5].float() * 0.7 + 12).round().to(torch.uint8)  # darker
    images[4] = torch.roll(images[0], 17, dims=-1)  # another picture
    leaks = find_leaks(replace(data, images=images))
    assert (leaks.copies, leaks.near, leaks.example) == (1, 1, (5, 7))
    assert leaks.sentences[1] == "1 patches have a near-duplicate in another part, such as patches 5 and 7"
    colored = images.expand(-1, 3, -1, -1).contiguous()
    assert find_leaks(replace(data, images=colored)).near == 1


def test_volumes_are_compared_by_their_middle_slices():
    data = split_patches()
    images = data.images[:, :, None].repeat(1, 1, 5, 1, 1)
    images[7, :, 2] = images[5, :, 2] // 2
    images[:, :, [0, 1, 3, 4]] = 0
    assert find_leaks(replace(data, images=images)).example == (5, 7)


def test_near_duplicates_within_a_part_are_none():
    data = split_patches()
    images = data.images.clone()
    images[1] = images[0] // 2
    images[7] = images[6] // 2
    assert not find_leaks(replace(data, images=images))


def test_patches_of_one_gray_level_are_like_nothing():
    images = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(-1, 1, 16, 16)
    assert find_leaks(split_patches(images=images)).near == 0


def test_too_many_to_compare(monkeypatch):
    monkeypatch.setattr(module, "MOST_COMPARED", 7)
    leaks = find_leaks(split_patches())
    assert leaks.near is None
    assert not leaks
    assert leaks.sentences == ("near-duplicates were not looked for: more than 7 patches",)


def test_patches_without_a_split():
    with pytest.raises(InputError, match="no split to look at"):
        find_leaks(split_patches(official=None))
