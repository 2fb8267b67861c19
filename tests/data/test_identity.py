"""Who is who: equal images and no others have one hash; a record tells who was trained on, and nothing else."""

import base64
import doctest
import hashlib
import json

import numpy as np
import pytest
import torch

from genmix_transforms.data import identity
from genmix_transforms.data.identity import (
    find_recorded,
    join_training_sets,
    pixel_hashes,
    record_images,
    recorded_images,
    recorded_within,
)
from genmix_transforms.errors import InputError


def noise(count, *, channels=1, side=6, dtype=torch.uint8, seed=0):
    values = np.random.default_rng(seed).integers(0, torch.iinfo(dtype).max, (count, channels, side, side))
    return torch.from_numpy(values.astype(np.uint8 if dtype == torch.uint8 else np.uint16))


def record_of(images):
    return {
        "fingerprint": f"{len(images)} images",
        "class_counts": {"a": 1},
        "images": record_images(pixel_hashes(images)),
    }


def test_hash_is_sha256_of_shape_type_and_pixels():
    """By hand, so that nobody changes what records of years ago were made with."""
    image = torch.tensor([[[1, 2], [3, 515]]], dtype=torch.uint16)
    text = b"(1, 2, 2) uint16" + bytes([1, 0, 2, 0, 3, 0, 3, 2])
    expected = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") // 2
    assert pixel_hashes(image[None]).tolist() == [expected]
    assert pixel_hashes(image[None]).dtype == torch.int64


def test_equal_images_and_no_others_have_one_hash():
    images = noise(50)
    hashes = pixel_hashes(torch.cat([images, images]))
    assert torch.equal(hashes[:50], hashes[50:])
    assert len(set(hashes.tolist())) == 50
    assert (hashes >= 0).all()
    changed = images.clone()
    changed[:, 0, 5, 5] ^= 1
    assert not set(pixel_hashes(changed).tolist()) & set(hashes.tolist())


def test_same_bytes_of_another_shape_or_type_are_other_images():
    image = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    others = [image, image.view(1, 1, 2, 8), image.view(1, 4, 2, 2), torch.zeros(1, 1, 2, 4, dtype=torch.uint16)]
    assert len({pixel_hashes(other).item() for other in others}) == 4


def test_layout_in_memory_does_not_count():
    images = noise(4, channels=3)
    assert torch.equal(pixel_hashes(images.contiguous(memory_format=torch.channels_last)), pixel_hashes(images))
    assert torch.equal(pixel_hashes(images[:1].expand(3, 3, 6, 6)), pixel_hashes(images[:1]).expand(3))


def test_hashes_of_no_images():
    assert pixel_hashes(torch.empty(0, 1, 4, 4, dtype=torch.uint8)).shape == (0,)


def test_record_is_sorted_and_has_each_image_once():
    images = noise(20)
    text = record_images(pixel_hashes(torch.cat([images, images[:5]])))
    assert text == record_images(pixel_hashes(images.flip(0)))
    assert len(text) == 20 * 8
    pieces = [base64.b64decode(text[start : start + 8]) for start in range(0, len(text), 8)]
    assert pieces == sorted(pieces)
    digests = {hashlib.sha256(b"(1, 6, 6) uint8" + image.numpy().tobytes()).digest()[:6] for image in images}
    assert set(pieces) == digests


def test_record_says_which_images_were_in_it():
    seen, new = noise(30, seed=1), noise(12, seed=2)
    record = json.loads(json.dumps(record_of(seen)))
    asked = pixel_hashes(torch.cat([new, seen[4:7]]))
    assert find_recorded(asked, record).tolist() == [False] * 12 + [True] * 3
    numbers = recorded_images(record)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == sorted((pixel_hashes(seen) >> 15).tolist())


def test_a_large_set_is_recorded_without_its_images(monkeypatch):
    monkeypatch.setattr(identity, "MOST_RECORDED", 3)
    assert record_images(torch.arange(3)) is not None
    assert record_images(torch.arange(4)) is None


def test_records_older_than_the_images_cannot_tell():
    record = {"fingerprint": "f", "class_counts": {"a": 3}}
    assert recorded_images(record) is None
    assert find_recorded(torch.arange(3), record) is None


@pytest.mark.parametrize(
    ("text", "message"), [("é" * 8, "no base64"), ("AAA", "no base64"), (7, "no base64"), ("AAAA", "have 3 bytes, exp")]
)
def test_damaged_records(text, message):
    with pytest.raises(InputError, match=f"the training set's record is damaged: .*{message}"):
        recorded_images({"images": text})


def test_a_record_of_no_images():
    assert find_recorded(torch.arange(2), {"images": record_images(torch.arange(0))}).tolist() == [False, False]


def test_weights_that_saw_two_sets_have_seen_both():
    first, now = record_of(noise(4, seed=1)), record_of(noise(6, seed=2))
    joined = join_training_sets(first, now)
    assert joined["fingerprint"] == "4 images+6 images"
    assert joined["class_counts"] == now["class_counts"]
    every = torch.cat([noise(4, seed=1), noise(6, seed=2), noise(3, seed=3)])
    assert find_recorded(pixel_hashes(every), joined).tolist() == [True] * 10 + [False] * 3
    assert join_training_sets(now, now) == now


def test_what_a_record_names_is_all_among_some_patches_or_not():
    images = noise(10)
    record = record_of(images[:6])
    assert recorded_within(pixel_hashes(images), record)
    assert recorded_within(pixel_hashes(images[:6]), record)
    assert not recorded_within(pixel_hashes(images[:5]), record)
    assert not recorded_within(pixel_hashes(images), {"fingerprint": "old"})


def test_who_has_seen_an_unknown_set_has_seen_unknown_images():
    now = record_of(noise(6))
    for first in ({}, {"fingerprint": "old", "class_counts": {}}):
        joined = join_training_sets(first, now)
        assert "images" not in joined
        assert joined["fingerprint"] == (f"old+{now['fingerprint']}" if first else now["fingerprint"])


def test_two_sets_that_are_too_large_together(monkeypatch):
    first, now = record_of(noise(4, seed=1)), record_of(noise(4, seed=2))
    monkeypatch.setattr(identity, "MOST_RECORDED", 7)
    assert "images" not in join_training_sets(first, now)


def test_example_of_the_docstring():
    example = doctest.DocTestFinder(recurse=False).find(
        pixel_hashes, "pixel_hashes", globs={"torch": torch, "pixel_hashes": pixel_hashes}
    )
    assert [doctest.DocTestRunner().run(test) for test in example] == [doctest.TestResults(failed=0, attempted=2)]


def test_busi_has_two_equal_images(real_data):
    with np.load(real_data / "busi_128.npz", allow_pickle=False) as archive:
        images = torch.from_numpy(archive["images"])[:, None]
    assert len(set(pixel_hashes(images).tolist())) == len(np.unique(images.numpy().reshape(780, -1), axis=0)) == 779
