"""Masks beside the images: mixed by the image's lambda with the mask of the image's partner, whatever way is taken."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.transforms.masks import find_masks, soft_masks

CLASSES = ("cyst", "hemangioma", "metastasis")
NAMES = ("background", "liver", "vessel", "lesion")


def masked_bank(count=13, *, spatial=(4, 5), channels=1, seed=0):
    """A bank of random images, whose masks are random too."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, channels, *spatial), generator=random, dtype=torch.uint8)
    masks = torch.randint(len(NAMES), (count, *spatial), generator=random, dtype=torch.uint8)
    return SyntheticBank(images, torch.arange(count) % 3, classes=CLASSES, masks=masks, mask_classes=NAMES)


def masked_batch(count=6, *, spatial=(4, 5), channels=1, seed=1, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(count, channels, *spatial, generator=random).to(dtype)
    masks = torch.randint(len(NAMES), (count, *spatial), generator=random)
    return images, torch.randint(3, (count,), generator=random), tv_tensors.Mask(masks)


def one_hot(masks):
    """Of class numbers, float32 ``(N, M, *spatial)``."""
    rows = torch.nn.functional.one_hot(masks.as_subclass(torch.Tensor).long(), len(NAMES))
    return rows.movedim(-1, 1).float()


def expected_masks(bank, masks, params):
    """Eq. (1) of the masks, sample by sample, with the lambda and the partner of the image."""
    real, rows = one_hot(masks), []
    for number, (lam, index, own) in enumerate(
        zip(*(params[name] for name in ("lam", "index", "from_batch")), strict=True)
    ):
        partner = real[index] if own else one_hot(bank.masks[index].unsqueeze(0))[0]
        rows.append(lam * partner + (1 - lam) * real[number])
    return torch.stack(rows)


def seeded(bank, **options):
    return GenMix(bank, masks="soft", generator=torch.Generator().manual_seed(5), check_range=False, **options)


OPTIONS = [
    {},
    {"pairing": "same"},
    {"real_partner": 0.5},
    {"real_partner": 1.0},
    {"p": 0.5},
    {"per_sample": False, "alpha": 1.0},
    {"inplace": True},
]


@pytest.mark.parametrize("spatial", [(4, 5), (7,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_mask_is_mixed_as_its_image_is(options, spatial):
    bank = masked_bank(spatial=spatial)
    images, labels, masks = masked_batch(spatial=spatial)
    genmix = seeded(bank, **options)
    mixed, soft, found = genmix(images.clone(), labels, masks)
    params = genmix.params
    assert type(found) is tv_tensors.Mask
    assert (found.dtype, found.shape) == (torch.float32, (6, 4, *spatial))
    torch.testing.assert_close(found.as_subclass(torch.Tensor), expected_masks(bank, masks, params))
    torch.testing.assert_close(found.sum(dim=1).as_subclass(torch.Tensor), torch.ones(6, *spatial))
    # The images and the labels are what they would be without masks.
    plain = GenMix(bank, check_range=False, **options)
    without = plain(images.clone(), labels, params=params)
    assert torch.equal(mixed, without[0])
    assert torch.equal(soft, without[1])


@given(seed=st.integers(0, 2**31), count=st.integers(0, 9), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_for_every_seed(seed, count, share):
    """Weights from 0 to 1 that sum to 1, by Eq. (1); and the same seed gives the same."""
    bank = masked_bank()
    images, labels, masks = masked_batch(count)
    found, again = (
        GenMix(bank, masks="soft", real_partner=share, generator=torch.Generator().manual_seed(seed))(
            {"image": images, "labels": labels, "mask": masks}
        )["mask"]
        for _ in range(2)
    )
    assert torch.equal(found, again)
    genmix = GenMix(bank, masks="soft", real_partner=share, generator=torch.Generator().manual_seed(seed))
    genmix(images, labels, masks)
    if count:
        torch.testing.assert_close(found.as_subclass(torch.Tensor), expected_masks(bank, masks, genmix.params))
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert float((found.sum(1) - 1).abs().max()) < 1e-6


FORMS = {
    "uint8": lambda masks: masks.to(torch.uint8),
    "int32": lambda masks: masks.to(torch.int32),
    "with a channel": lambda masks: masks.unsqueeze(1),
    "one-hot": lambda masks: one_hot(masks).to(torch.int64),
    "soft": one_hot,
    "soft, bfloat16": lambda masks: one_hot(masks).to(torch.bfloat16),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_masks(form, training):
    images, labels, masks = masked_batch()
    given_masks = tv_tensors.Mask(FORMS[form](masks.as_subclass(torch.Tensor)))
    found = seeded(masked_bank()).train(training)(images, labels, given_masks)[2]
    assert torch.equal(found, seeded(masked_bank()).train(training)(images, labels, masks)[2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_masks_are_float32_whatever_the_images_are(dtype):
    images, labels, masks = masked_batch(dtype=dtype)
    mixed, _, found = seeded(masked_bank())(images, labels, masks)
    assert (mixed.dtype, found.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("how", ["eval", "p=0"])
def test_masks_become_soft_where_nothing_is_mixed(how):
    """A training step and a validation step compute their losses by one line."""
    images, labels, masks = masked_batch()
    genmix = seeded(masked_bank(), p=0.0 if how == "p=0" else 1.0).train(how == "p=0")
    same_images, _, found = genmix(images, labels, masks)
    assert torch.equal(same_images, images)
    assert type(found) is tv_tensors.Mask
    assert torch.equal(found.as_subclass(torch.Tensor), one_hot(masks))


def test_the_loss_takes_them():
    _, _, found = seeded(masked_bank())(*masked_batch())
    logits = torch.zeros(6, 4, 4, 5)
    loss = torch.nn.functional.cross_entropy(logits, found)
    torch.testing.assert_close(loss.as_subclass(torch.Tensor), torch.tensor(4.0).log())


def test_nothing_given_is_written():
    bank, (images, labels, masks) = masked_bank(), masked_batch()
    before = bank.masks.clone(), masks.clone()
    seeded(bank, real_partner=0.5)(images, labels, masks)
    assert torch.equal(bank.masks, before[0])
    assert torch.equal(masks, before[1])


def test_several_images_have_a_mask_each():
    bank, (images, labels, masks) = masked_bank(), masked_batch()
    others = tv_tensors.Mask(masks.flip(0))
    views = tv_tensors.Image(images), tv_tensors.Image(images.flip(0))
    genmix = seeded(bank)
    sample = genmix({"views": views, "masks": (masks, others), "labels": labels})
    for found, given_masks in zip(sample["masks"], (masks, others), strict=True):
        torch.testing.assert_close(found.as_subclass(torch.Tensor), expected_masks(bank, given_masks, genmix.params))


@pytest.mark.parametrize("options", [{}, {"pairing": "same"}, {"real_partner": 0.5}], ids=str)
def test_of_a_bank_on_disk_and_ahead_of_time(tmp_path, options, monkeypatch):
    """To the bit what a bank in memory gives: read when drawn, and read by the prefetching thread."""
    monkeypatch.setattr("genmix_transforms.bank.shard.SHARD_BYTES", 100)
    bank = masked_bank()
    bank.save(tmp_path / "bank")
    batches = [masked_batch(seed=seed) for seed in range(4)]
    in_memory = seeded(bank, **options)
    on_disk, ahead = (seeded(SyntheticBank.load(tmp_path / "bank", resident=False), **options) for _ in range(2))
    assert not on_disk.bank.resident
    for batch, prefetched in zip(batches, ahead.prefetch(batches), strict=True):
        expected = in_memory(*batch)
        for found in (on_disk(*batch), prefetched):
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_chosen_part_of_a_bank(tmp_path):
    """A mask is looked up by the same number as its image."""
    masked_bank().save(tmp_path / "bank")
    bank = SyntheticBank.load(tmp_path / "bank", resident=False).select(classes=["metastasis", "cyst"])
    images, labels, masks = masked_batch()
    genmix = seeded(bank)
    found = genmix(images, labels, masks)[2]
    torch.testing.assert_close(found.as_subclass(torch.Tensor), expected_masks(bank, masks, genmix.params))


def test_masks_that_were_read_before_are_not_read_again(tmp_path):
    masked_bank().save(tmp_path / "bank")
    bank = SyntheticBank.load(tmp_path / "bank", resident=False)
    images, labels, masks = masked_batch()
    genmix = seeded(bank)
    params = genmix.draw(images, labels, masks)
    params |= {"partners": bank.rows(params["index"]), "partner_masks": torch.zeros(6, 4, 5, dtype=torch.uint8)}
    found = genmix(images, labels, masks, params=params)[2]
    background = params["lam"].view(-1, 1, 1) + (1 - params["lam"].view(-1, 1, 1)) * one_hot(masks)[:, 0]
    torch.testing.assert_close(found[:, 0].as_subclass(torch.Tensor), background)
    params["partner_masks"] = params["partner_masks"][:3]
    with pytest.raises(
        InputError, match=r"partner_masks must be the bank's masks, \(6, 4, 5\) on cpu, got \(3, 4, 5\)"
    ):
        genmix(images, labels, masks, params=params)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_as_on_the_cpu():
    bank, (images, labels, masks) = masked_bank(), masked_batch()
    genmix = seeded(bank, real_partner=0.5)
    expected = genmix(images, labels, masks)
    params = {name: value.cuda() for name, value in genmix.params.items()}
    there = GenMix(bank.to("cuda"), masks="soft", real_partner=0.5, check_range=False)
    found = there(images.cuda(), labels.cuda(), tv_tensors.Mask(masks.cuda()), params=params)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other)


# Refused


def test_a_bank_without_masks():
    with pytest.raises(
        InputError, match=r"this bank has none; give it some with SyntheticBank\(images, labels, masks="
    ):
        GenMix(masked_bank().replace(masks=None), masks="soft")


def test_another_word():
    with pytest.raises(InputError, match="masks must be 'soft', or None, got 'hard'"):
        GenMix(masked_bank(), masks="hard")


def test_without_the_option_masks_are_refused_and_the_option_is_named():
    images, labels, masks = masked_batch()
    with pytest.raises(InputError, match=r"got a Mask: .*leave them out.*GenMix\(bank, masks='soft'\)"):
        GenMix(masked_bank())(images, labels, masks)
    genmix = GenMix(masked_bank())
    params = genmix.make_params([images, labels])
    with pytest.raises(InputError, match=r"masks are mixed by GenMix\(bank, masks='soft'\)"):
        genmix.transform(masks, params)


IMAGES, LABELS, MASKS = masked_batch()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("sample", "text"),
    [
        ((IMAGES, LABELS), r"one mask for each image of the sample, found 0 for 1; wrap .* tv_tensors\.Mask"),
        ((IMAGES, LABELS, MASKS.as_subclass(torch.Tensor)), "found 0 for 1"),
        ((IMAGES, LABELS, MASKS, MASKS), "found 2 for 1"),
        ((IMAGES, MASKS), r"a Mask is there; give \(images, labels, masks\)"),
        ((IMAGES, MASKS, LABELS), r"a Mask is there; give \(images, labels, masks\)"),
        ((IMAGES, LABELS, tv_tensors.Mask(MASKS[:3])), r"\(N, 4, 5\), \(N, 1, 4, 5\) or \(N, 4, 4, 5\), got \(3,"),
        ((IMAGES, LABELS, tv_tensors.Mask(MASKS[..., :3])), r"masks of 6 images must be of shape .*got \(6, 4, 3\)"),
        ((IMAGES, LABELS, tv_tensors.Mask(MASKS.float())), "masks must be whole numbers .*got torch.float32 of shape"),
        ((IMAGES, LABELS, tv_tensors.Mask(MASKS.unsqueeze(1).float())), r"got torch.float32 of shape \(6, 1, 4, 5\)"),
        ((IMAGES, LABELS, tv_tensors.Mask(one_hot(MASKS)[:, :3])), r"of the 4 mask classes, .*shape \(6, 3, 4, 5\)"),
        ((IMAGES, LABELS, tv_tensors.Mask(MASKS + 1)), "masks run from 1 to 4, but there are 4 mask classes"),
        ((IMAGES, LABELS, tv_tensors.Mask(MASKS - 1)), "masks run from -1 to 2"),
        ((IMAGES, LABELS, tv_tensors.Mask(MASKS.to("meta"))), "masks are on meta, the bank on cpu"),
        ((IMAGES, LABELS, MASKS, tv_tensors.BoundingBoxes([0, 0, 1, 1], format="XYXY", canvas_size=(4, 5))), "Boxes"),
    ],
)  # fmt: skip
def test_refused_when_called(sample, text, training):
    """Also in place: before anything is written."""
    before = IMAGES.clone()
    with pytest.raises(InputError, match=f"GenMix: .*{text}"):
        GenMix(masked_bank(), masks="soft", inplace=True).train(training)(*sample)
    assert torch.equal(IMAGES, before)


# The parts


def test_soft_masks():
    masks = torch.tensor([[[0, 2], [1, 1]]])
    expected = torch.tensor([[[[1, 0], [0, 0]], [[0, 0], [1, 1]], [[0, 1], [0, 0]]]]).float()
    for given_masks in (masks, masks.unsqueeze(1), masks.to(torch.uint8), expected, expected.bool()):
        assert torch.equal(soft_masks(given_masks, num_classes=3), expected)
    assert torch.equal(soft_masks(masks > 0, num_classes=2)[:, 1], (masks > 0).float())


def test_of_no_class_is_nan_where_nobody_may_look():
    """As for labels: on an accelerator, a look would make the host wait."""
    compiled = torch.compile(lambda masks: soft_masks(masks, num_classes=2), backend="eager", fullgraph=True)
    found = compiled(torch.tensor([[[0, 1, 2]]]))
    assert found[..., :2].isfinite().all()
    assert found[..., 2].isnan().all()


def test_find_masks():
    assert find_masks([IMAGES, MASKS, LABELS, "a"], images=1) == [1]
    with pytest.raises(InputError, match="found 1 for 2"):
        find_masks([IMAGES, MASKS], images=2)
