"""What GenMix takes and gives back: dtypes, layouts, sizes, samples of every structure, and what it refuses."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.errors import InputError

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


# Dtypes and layouts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bank_dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("state", ["mixed", "p=0", "eval"])
def test_image_dtype_is_kept_and_labels_are_float32(random_bank, batch, dtype, bank_dtype, state):
    genmix = GenMix(random_bank(dtype=bank_dtype), p=0 if state == "p=0" else 1, real_partner=0.3)
    genmix.train(state != "eval")
    images, labels = batch(dtype=dtype)
    for given in (labels, F.one_hot(labels, 3), F.one_hot(labels, 3).to(dtype)):
        mixed, soft = genmix(images, given)
        assert (mixed.dtype, mixed.shape) == (dtype, images.shape)
        assert (soft.dtype, soft.shape) == (torch.float32, (4, 3))
        assert torch.equal(mixed, images) == (state != "mixed")


LABEL_FORMS = {
    "uint8": lambda index: index.to(torch.uint8),
    "int32": lambda index: index.int(),
    "column": lambda index: index[:, None],
    "one-hot": lambda index: F.one_hot(index, 3),
    "one-hot bool": lambda index: F.one_hot(index, 3).bool(),
    "one-hot double": lambda index: F.one_hot(index, 3).double(),
}


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_the_same_labels_in_another_form(random_bank, batch, form):
    images, labels = batch()
    expected, found = (
        GenMix(random_bank(), pairing="same", generator=torch.Generator().manual_seed(0))(images, given)
        for given in (labels, LABEL_FORMS[form](labels))
    )
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("real_partner", [0.0, 0.5])
def test_channels_last_is_kept(random_bank, batch, dtype, inplace, real_partner):
    bank = random_bank(shape=(3, 5, 4))
    images, labels = batch(shape=(3, 5, 4), dtype=dtype)
    plain, last = (
        GenMix(bank, inplace=inplace, real_partner=real_partner, generator=torch.Generator().manual_seed(0))(
            given, labels
        )[0]
        for given in (images.clone(), images.clone(memory_format=torch.channels_last))
    )
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    assert torch.equal(plain, last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_volumes(random_bank, batch, layout):
    shape = (2, 3, 4, 5)
    genmix = GenMix(random_bank(shape=shape), mean=(0.4, 0.6), std=(0.2, 0.3), real_partner=0.3)
    images, labels = batch(shape=shape)
    mixed, soft = genmix(images.contiguous(memory_format=layout), labels)
    assert mixed.shape == (4, 2, 3, 4, 5)
    assert mixed.is_contiguous(memory_format=layout)
    assert soft.shape == (4, 3)


def test_two_channels_of_a_volume_have_each_their_mean(random_bank):
    bank = SyntheticBank(torch.full((1, 2, 3, 3, 3), 255, dtype=torch.uint8), torch.tensor([0]), classes=["a"])
    genmix = GenMix(bank, mean=(0.5, 0.0), std=(0.5, 0.25))
    params = {
        "lam": torch.ones(1),
        "index": torch.zeros(1).long(),
        "from_batch": torch.tensor([False]),
        "labels": torch.ones(1, 1),
    }
    mixed = genmix.transform(torch.zeros(1, 2, 3, 3, 3), params)
    assert torch.allclose(mixed[0, 0], torch.tensor(1.0))
    assert torch.allclose(mixed[0, 1], torch.tensor(4.0))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("real_partner", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("inplace", [False, True])
def test_any_batch_size(random_bank, batch, count, per_sample, real_partner, inplace):
    genmix = GenMix(random_bank(), per_sample=per_sample, real_partner=real_partner, inplace=inplace)
    for given in (batch(count), (batch(count)[0], F.one_hot(batch(count)[1], 3))):
        mixed, soft = genmix(*given)
        assert mixed.shape == (count, 1, 2, 2)
        assert (soft.shape, soft.dtype) == ((count, 3), torch.float32)


def test_a_batch_larger_than_the_bank(random_bank, batch):
    assert GenMix(random_bank(1))(*batch(50, classes=1))[0].shape == (50, 1, 2, 2)


def test_views_of_a_larger_tensor(random_bank, batch):
    """Every other row of a batch, transposed: whatever the strides."""
    images, labels = batch(8)
    view, expected = images[::2].transpose(2, 3), images[::2].transpose(2, 3).contiguous()
    for inplace in (False, True):
        one, two = (
            GenMix(random_bank(), inplace=inplace, generator=torch.Generator().manual_seed(0))(given, labels[::2])[0]
            for given in (view, expected.clone())
        )
        assert torch.equal(one, two)


# What is changed and what is not


@pytest.mark.parametrize("real_partner", [0.0, 0.5, 1.0])
def test_inputs_and_bank_are_not_changed(random_bank, batch, real_partner):
    bank, untouched = random_bank(soft=True), random_bank(soft=True)
    images, labels = batch(8)
    soft = F.one_hot(labels, 3).float()
    before = [images.clone(), soft.clone()]
    genmix = GenMix(bank, real_partner=real_partner)
    mixed, mixed_labels = genmix(images, soft)
    assert torch.equal(images, before[0])
    assert torch.equal(soft, before[1])
    assert mixed.data_ptr() != images.data_ptr()
    assert mixed_labels.data_ptr() != soft.data_ptr()
    for name in ("images", "labels", "class_start", "class_count"):
        assert torch.equal(getattr(bank, name), getattr(untouched, name))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("real_partner", [0.0, 0.5, 1.0])
def test_inplace_mixes_into_the_batch_itself(random_bank, batch, dtype, real_partner):
    images, labels = batch(8, dtype=dtype)
    soft = F.one_hot(labels, 3).float()
    expected, mixed = (
        GenMix(random_bank(), inplace=inplace, real_partner=real_partner, generator=torch.Generator().manual_seed(0))(
            given, soft
        )
        for inplace, given in ((False, images.clone()), (True, images))
    )
    assert mixed[0].data_ptr() == images.data_ptr()
    assert torch.equal(images, expected[0])
    assert torch.equal(mixed[1], expected[1])
    assert torch.equal(soft, F.one_hot(labels, 3).float())  # the images' memory, not the labels'


def test_gradients_flow_to_the_batch(random_bank, batch):
    images, labels = batch()
    images.requires_grad_()
    genmix = GenMix(random_bank())
    soft = F.one_hot(labels, 3).float()
    params = genmix.make_params([images, soft])
    genmix.transform(images, params).sum().backward()
    assert torch.allclose(images.grad, (1 - params["lam"]).view(-1, 1, 1, 1).expand_as(images), atol=1e-6)


# Samples


def test_structures_are_kept(random_bank, batch):
    images, labels = batch()

    def mix(*sample, **options):
        return GenMix(random_bank(), generator=torch.Generator().manual_seed(0), **options)(*sample)

    expected = mix(images, labels)
    assert isinstance(expected, tuple)

    def check(found_images, found_labels):
        assert torch.equal(found_images, expected[0])
        assert torch.equal(found_labels, expected[1])

    packed = mix((images, labels))
    assert isinstance(packed, tuple)
    check(*packed)

    as_list = mix([images, labels])
    assert isinstance(as_list, list)
    check(*as_list)

    sample = {"image": images, "path": ["a", "b"], "Label": labels, "n": 3, "nothing": None}
    found = mix(sample)
    assert list(found) == list(sample)
    assert (found["path"], found["n"], found["nothing"]) == (["a", "b"], 3, None)
    check(found["image"], found["Label"])
    assert sample["Label"] is labels  # a new dict

    found = mix(images, {"labels": labels, "path": "a"}, "more")
    check(found[0], found[1]["labels"])
    assert (found[1]["path"], found[2]) == ("a", "more")

    found = mix({"inputs": {"image": images, "spacing": (1.0, 0.5)}, "labels": labels})
    check(found["inputs"]["image"], found["labels"])
    assert found["inputs"]["spacing"] == (1.0, 0.5)


def test_a_labels_getter_of_ones_own(random_bank, batch):
    images, labels = batch()
    genmix = GenMix(random_bank(), labels_getter=lambda sample: sample["deep"][1]["target"])
    found = genmix({"deep": [images, {"target": labels}]})
    assert found["deep"][0].shape == images.shape
    assert found["deep"][1]["target"].shape == (4, 3)


def test_plain_tensors_of_as_many_dimensions_are_images(random_bank, batch):
    """Without ``tv_tensors`` their dimensions tell images from other tensors. Two views: the same draw."""
    images, labels = batch()
    sample = {"age": torch.rand(4), "front": images, "side": images.clone(), "label": labels, "text": torch.rand(4, 9)}
    found = GenMix(random_bank())(sample)
    assert torch.equal(found["front"], found["side"])
    assert not torch.equal(found["front"], images)
    assert found["age"] is sample["age"]
    assert found["text"] is sample["text"]


def test_other_tensors_pass(random_bank, batch):
    images, labels = batch()
    weights = torch.rand(4)
    found = GenMix(random_bank())({"image": images, "label": labels, "weight": weights})
    assert found["weight"] is weights
    assert not torch.equal(found["image"], images)


def test_images_and_videos_are_wrapped_again(random_bank, batch):
    images, labels = batch(shape=(1, 2, 2))
    expected = GenMix(random_bank(), generator=torch.Generator().manual_seed(0))(images, labels)
    found = GenMix(random_bank(), generator=torch.Generator().manual_seed(0))(tv_tensors.Image(images), labels)
    assert type(found[0]) is tv_tensors.Image
    assert type(found[1]) is torch.Tensor
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    video, _ = GenMix(random_bank(shape=(5, 3, 2, 2)))(tv_tensors.Video(torch.rand(4, 5, 3, 2, 2)), labels)
    assert type(video) is tv_tensors.Video


def test_wrapped_images_in_place(random_bank, batch):
    images, labels = batch()
    wrapped = tv_tensors.Image(images)
    mixed, _ = GenMix(random_bank(), inplace=True)(wrapped, labels)
    assert type(mixed) is tv_tensors.Image
    assert mixed.data_ptr() == wrapped.data_ptr()


def test_several_images_are_mixed_by_one_draw(random_bank, batch):
    """Two views of each patient: with the same partner and the same weight; a plain tensor beside passes."""
    images, labels = batch()
    beside = torch.rand(4, 7)
    sample = {"a": tv_tensors.Image(images), "b": tv_tensors.Image(images), "features": beside, "label": labels}
    found = GenMix(random_bank())(sample)
    assert torch.equal(found["a"], found["b"])
    assert not torch.equal(found["a"], images)
    assert found["features"] is beside


# eval()


def test_in_eval_images_pass_and_labels_are_soft(random_bank, batch):
    images, labels = batch()
    state = torch.get_rng_state()
    same, soft = GenMix(random_bank(), inplace=True).eval()(images, labels)
    assert same is images
    assert torch.equal(images, batch()[0])
    assert torch.equal(soft, F.one_hot(labels, 3).float())
    assert soft.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), state)  # nothing drawn


def test_eval_and_train_again(random_bank, batch):
    images, labels = batch()
    genmix = GenMix(random_bank())
    assert torch.equal(genmix.eval()(images, labels)[0], images)
    assert not torch.equal(genmix.train()(images, labels)[0], images)


# The draw, read and replayed


@pytest.mark.parametrize(
    "options", [{}, {"real_partner": 0.5}, {"p": 0.5}, {"per_sample": False}, {"pairing": "other"}]
)
def test_replay_gives_the_same_bits(random_bank, batch, options):
    genmix = GenMix(random_bank(soft=True), **options)
    images, labels = batch(9)
    soft = F.one_hot(labels, 3).float()
    params = genmix.make_params([images, soft])
    copied = {name: value.clone() for name, value in params.items()}
    state = torch.get_rng_state()
    first, first_labels = genmix.transform(images, params), genmix.transform(soft, params)
    assert torch.equal(genmix.transform(images, params), first)
    assert torch.equal(genmix.transform(soft, params), first_labels)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in params.items():  # and the draw itself is not used up
        assert torch.equal(value, copied[name])
    # A copy of the draw replays too, to another GenMix of the same bank.
    again = GenMix(random_bank(soft=True), **options)
    assert torch.equal(again.transform(images, copied), first)
    assert torch.equal(again.transform(copied["labels"], copied), first_labels)


def test_what_is_drawn(random_bank, batch):
    genmix = GenMix(random_bank(12), real_partner=0.5, p=0.7)
    images, labels = batch(50)
    soft = F.one_hot(labels, 3).float()
    params = genmix.make_params([images, soft])
    assert params.keys() == {"lam", "index", "from_batch", "labels"}
    assert params["labels"] is soft
    for name, dtype in (("lam", torch.float32), ("index", torch.int64), ("from_batch", torch.bool)):
        assert (params[name].shape, params[name].dtype, params[name].device) == ((50,), dtype, soft.device)
    assert bool(((params["lam"] >= 0) & (params["lam"] <= 1)).all())
    limit = torch.where(params["from_batch"], 50, 12)
    assert bool(((params["index"] >= 0) & (params["index"] < limit)).all())


def test_copies_and_pickles(random_bank, batch):
    genmix = GenMix(random_bank(), generator=torch.Generator().manual_seed(0))
    copies = [copy.deepcopy(genmix), pickle.loads(pickle.dumps(genmix))]
    expected = genmix(*batch())
    for other in copies:
        assert torch.equal(other(*batch())[0], expected[0])


def test_print_says_how_it_mixes(random_bank):
    text = str(GenMix(random_bank(), alpha=0.4, pairing=torch.eye(3), real_partner=0.25, p=0.5))
    assert "alpha=0.4, num_classes=3, pairing='matrix', absent='error', real_partner=0.25, p=0.5, " in text
    assert "per_sample=True, inplace=False" in text
    assert "12 images, 1 x 2 x 2, torch.uint8, cpu" in text


# uint8 and uint16 batches


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("real_partner", [0.0, 0.5])
@pytest.mark.parametrize(
    ("batch_dtype", "bank_dtype", "levels"),
    [
        (torch.uint8, torch.uint8, 1),
        (torch.uint8, torch.uint16, 255 / 65535),
        (torch.uint16, torch.uint8, 65535 / 255),
        (torch.uint16, torch.uint16, 1),
    ],
)
def test_whole_numbers_are_mixed_and_rounded(random_bank, batch_dtype, bank_dtype, levels, real_partner, inplace):
    """As pixels, whatever normalisation GenMix was told: that comes after."""
    bank = random_bank(shape=(3, 5, 5), dtype=bank_dtype)
    genmix = GenMix(bank, mean=0.5, std=0.2, real_partner=real_partner, inplace=inplace)
    highest = torch.iinfo(batch_dtype).max
    pixels = torch.randint(0, highest + 1, (6, 3, 5, 5))
    images = pixels.to(batch_dtype)
    mixed, soft = genmix(images, torch.arange(6) % 3)
    assert (mixed.dtype, soft.dtype) == (batch_dtype, torch.float32)
    assert (mixed.data_ptr() == images.data_ptr()) == inplace
    lam, index, own = (genmix.params[name] for name in ("lam", "index", "from_batch"))
    partners = torch.where(
        own.view(-1, 1, 1, 1), pixels[index % 6].double(), bank.images.double()[index % len(bank)] * levels
    )
    weight = lam.double().view(-1, 1, 1, 1)
    exact = weight * partners + (1 - weight) * pixels
    assert float((mixed.double() - exact).abs().max()) <= 0.5 + 1e-6 * highest


# A draw is read and replayed


@pytest.mark.parametrize("options", [{}, {"pairing": "other", "real_partner": 0.5, "p": 0.6}, {"per_sample": False}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_params_replay_the_last_call(random_bank, options, dtype):
    images, labels = (torch.rand(7, 1, 2, 2) * (255 if dtype == torch.uint8 else 1)).to(dtype), torch.arange(7) % 3
    genmix = GenMix(random_bank(), **options)
    assert genmix.params is None
    mixed, soft = genmix(images, labels)
    params = genmix.params
    assert params.keys() == {"lam", "index", "from_batch"}
    state = torch.get_rng_state()
    for replay in (genmix, GenMix(random_bank())):
        again = replay(images, labels, params=params)
        assert torch.equal(again[0], mixed)
        assert torch.equal(again[1], soft)
    assert torch.equal(torch.get_rng_state(), state)
    # And it is what Eq. (1) says of it.
    bank = random_bank()
    from_bank = genmix.transform(images, {**params, "labels": None})
    assert torch.equal(from_bank, mixed)
    if dtype == torch.float32 and not params["from_batch"].any():
        lam = params["lam"].view(-1, 1, 1, 1)
        assert torch.allclose(mixed, lam * bank.images[params["index"]] / 255 + (1 - lam) * images, atol=1e-6)


PARAMS = {"lam": torch.rand(4), "index": torch.tensor([0, 3, 1, 2]), "from_batch": torch.zeros(4, dtype=torch.bool)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"lam": torch.rand(3)},
            r"each of shape \(4,\), got \{'lam': \(3,\), .*; take the params of a call with as many",
        ),
        ({"index": None}, r"must have the tensors lam, index, from_batch, .* got \{'lam': \(4,\), 'from_batch'"),
        ({"index": torch.tensor([0, 4, 0, 0])}, r"point outside the bank \(4 images\) or the batch \(4\)"),
        ({"index": torch.tensor([0, -1, 0, 0])}, "they were drawn with another bank"),
        ({"index": torch.tensor([0, 0, 0, 9]), "from_batch": torch.ones(4, dtype=torch.bool)}, "point outside"),
    ],
)
def test_params_that_do_not_fit(change, text):
    bank = SyntheticBank(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4) % 3, classes=["a", "b", "c"])
    with pytest.raises(InputError, match=f"GenMix: params .*{text}"):
        GenMix(bank)(torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 1]), params={**PARAMS, **change})


def test_in_place_is_refused_where_gradients_are_wanted(random_bank, batch):
    images, labels = batch()
    with pytest.raises(InputError, match="inplace=True cannot write into images that require gradients; leave it out"):
        GenMix(random_bank(), inplace=True)(images.requires_grad_(), labels)


# What is refused: when it is built


BANK = SyntheticBank(
    torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]), classes=["cyst", "metastasis", "hemangioma"]
)


def test_numbers_of_numpy_are_numbers():
    genmix = GenMix(BANK, alpha=np.float32(0.5), p=np.float64(1), real_partner=np.int64(0), num_classes=3)
    assert (genmix.alpha, genmix.p, genmix.real_partner) == (0.5, 1.0, 0.0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        *(({"alpha": alpha}, "alpha must be a positive number, got .*; the paper's is 0.3")
          for alpha in (0, -1, float("nan"), float("inf"), "0.3", None, (0.3, 0.3))),
        *(({name: value}, f"{name} is a probability, from 0 to 1, got")
          for name in ("p", "real_partner") for value in (-0.1, 1.1, float("nan"), "1", None)),
        ({"num_classes": 2}, r"num_classes is 2, the bank has 3 classes \(cyst, metastasis, hemangioma\); leave"),
        ({"generator": 7}, r"generator must be a torch.Generator, got int; from a seed: .*manual_seed\(seed\)"),
        ({"labels_getter": "targets"}, "labels_getter must be 'default' or a callable, got 'targets'"),
        ({"class_counts": {"cyst": 3}}, "class_counts lacks metastasis, hemangioma"),
        ({"pairing": "inverse", "class_counts": [1, 2]}, "class_counts must be 3 positive numbers"),
        ({"pairing": "inverse"}, "needs to know how often the real data has each class"),
        ({"pairing": "some"}, "pairing must be one of"),
        ({"pairing": "same"}, "'same' draws from hemangioma, but the bank has no images of it"),
        ({"pairing": torch.full((3, 3), 1 / 3)}, "'matrix' draws from hemangioma"),
    ],
)  # fmt: skip
def test_refused_when_built(options, text):
    with pytest.raises(InputError, match=f"GenMix: .*{text}"):
        GenMix(BANK, **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mean": (1, 2)}, "mean must have one value, or one for each of the bank's 1 channels"),
        ({"std": 0}, "std must be positive"),
    ],
)
def test_refused_normalisation(options, text):
    with pytest.raises(InputError, match=text):
        GenMix(BANK, **options)


@pytest.mark.parametrize("bank", [None, "banks/busi", torch.zeros(4, 1, 2, 2)], ids=["None", "path", "tensor"])
def test_refused_bank(bank):
    with pytest.raises(InputError, match=r"bank must be a SyntheticBank, got .*; open one with SyntheticBank\.load"):
        GenMix(bank)


def test_options_are_by_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        GenMix(BANK, 0.3)


# What is refused: when it is called


IMAGES, LABELS = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("sample", "text"),
    [
        ((IMAGES[..., :1], LABELS), r"bank's images are 1 x 2 x 2 \(C x spatial\), .*\(4, 1, 2, 1\); expected"),
        ((IMAGES.expand(4, 3, 2, 2), LABELS), r"batch has shape \(4, 3, 2, 2\); expected \(N, 1, 2, 2\): resize"),
        ((IMAGES[0], LABELS), r"batch has shape \(1, 2, 2\)"),
        ((IMAGES[:3], LABELS), "one label for each image, got 3 images and 4 labels"),
        (((IMAGES * 255).long(), LABELS), r"float64, uint8 or uint16, got torch.int64: put v2\.ToDtype\("),
        ((IMAGES > 0.5, LABELS), "float64, uint8 or uint16, got torch.bool.*leave a mask out"),
        ({"image": IMAGES, "mask": (IMAGES > 0.5).long(), "label": LABELS}, "uint8 or uint16, got torch.int64"),
        ((IMAGES, LABELS, torch.rand(4, 1, 3, 3)), r"the batch has shape \(4, 1, 3, 3\); expected \(N, 1, 2, 2\)"),
        ((IMAGES.to("meta"), LABELS), r"images are on meta, its labels on cpu, the bank on .*genmix\.to\('meta'\)"),
        ((IMAGES, LABELS.to("meta")), "images are on cpu, its labels on meta"),
        ((IMAGES, LABELS + 1), "labels run from 1 to 3, but there are 3 classes"),
        ((IMAGES, LABELS.float()), "must be class indices, whole numbers, got torch.float32"),
        ((IMAGES, torch.ones(4, 2)), r"must have a column a class, got \(4, 2\) for 3 classes"),
        ((IMAGES, [0, 1, 2, 1]), "the labels must be a tensor, got a list"),
        ({"image": IMAGES, "labels": [0, 1, 2, 1]}, "the labels must be a tensor, got a list"),
        ({"image": IMAGES, "target": LABELS}, "could not tell where the labels are"),
        (IMAGES, "expected a sample of images and labels, got one tensor"),
        ((IMAGES,), "expected a sample of images and labels, got one tensor"),
        ((), "expected a sample of images and labels, got 0 item"),
        ({"labels": LABELS, "path": "a.png"}, "the sample holds labels but no images"),
        ((tv_tensors.Mask(torch.zeros(4, 2, 2)), LABELS), "got a Mask: masks, boxes, keypoints and PIL images"),
        ({"image": IMAGES, "label": LABELS, "mask": tv_tensors.Mask(torch.zeros(4, 2, 2))}, "got a Mask"),
        ((IMAGES, LABELS, tv_tensors.BoundingBoxes([0, 0, 1, 1], format="XYXY", canvas_size=(2, 2))), "BoundingBoxes"),
        ((IMAGES, LABELS, tv_tensors.KeyPoints([[0, 0]], canvas_size=(2, 2))), "got a KeyPoints"),
        (([Image.new("L", (2, 2))], LABELS), "got a Image: masks"),
    ],
    ids=str,
)  # fmt: skip
def test_refused_when_called(sample, text, training):
    """In eval() too: what is wrong in training should not wait for it."""
    genmix = GenMix(BANK).train(training)
    before = IMAGES.clone()
    with pytest.raises(InputError, match=text):
        genmix(*sample) if isinstance(sample, tuple) else genmix(sample)
    assert torch.equal(before, IMAGES)


@pytest.mark.parametrize(
    ("getter", "text"),
    [
        (
            lambda sample: sample[1].long() + 0,
            "must return one of the sample's own tensors, not a new one made from it",
        ),
        (lambda sample: None, "the labels must be a tensor, got a NoneType"),
        (lambda sample: [0, 1], "the labels must be a tensor, got a list"),
    ],
)
def test_refused_labels_of_a_getter(getter, text):
    with pytest.raises(InputError, match=text):
        GenMix(BANK, labels_getter=getter)(IMAGES, LABELS)


def test_a_bank_without_classes_of_the_batch_is_found_by_the_labels():
    """A bank of two classes in the training of three: refused at the first batch, not mixed in silently."""
    bank = SyntheticBank(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]), classes=["a", "b"])
    with pytest.raises(InputError, match="labels run from 0 to 2, but there are 2 classes"):
        GenMix(bank)(IMAGES, LABELS)


def test_v2_transforms_of_masks_stand_before_it():
    """What is refused here is what MixUp refuses as well."""
    with pytest.raises(ValueError, match="does not support PIL images, bounding boxes, keypoints and masks"):
        v2.MixUp(num_classes=3)(tv_tensors.Mask(torch.zeros(4, 2, 2)), LABELS)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("alpha", 0, "alpha must be a positive number, got 0"),
        ("p", 1.5, "p is a probability, from 0 to 1, got 1.5"),
        ("real_partner", "half", "real_partner is a probability, from 0 to 1, got 'half'"),
    ],
)
def test_options_that_are_set_later_are_checked_too(name, value, text):
    genmix = GenMix(BANK)
    before = getattr(genmix, name)
    with pytest.raises(InputError, match=f"GenMix: {text}"):
        setattr(genmix, name, value)
    assert getattr(genmix, name) == before


def test_options_can_change_as_training_goes_on():
    """A schedule of alpha, an end of mixing."""
    genmix = GenMix(BANK)
    genmix(IMAGES, LABELS)
    assert bool((genmix.params["lam"] > 0).all())
    genmix.p = 0.0
    assert torch.equal(genmix(IMAGES, LABELS)[0], IMAGES)
    genmix.p, genmix.alpha = 1.0, 1e6
    genmix(IMAGES, LABELS)
    assert bool((genmix.params["lam"] > 0.99).all())
    genmix.real_partner, genmix.per_sample = 1.0, False
    genmix(IMAGES, LABELS)
    assert bool(genmix.params["from_batch"].all())
    assert len(genmix.params["lam"].unique()) == 1
    assert "alpha=1000000.0" in str(genmix)


def test_in_place_is_refused_where_images_share_memory():
    with pytest.raises(InputError, match=r"cannot write into an expanded batch, .*; give images.clone\(\)"):
        GenMix(BANK, inplace=True)(IMAGES[:1].expand(4, 1, 2, 2), LABELS)


@pytest.mark.parametrize("pairing", ["same", "balanced", "other", torch.eye(3).roll(1, 0)])
def test_built_under_another_default_device(random_bank, batch, pairing):
    """``with torch.device("cuda"):`` around a set-up puts what is made there on the GPU; here the bank says where."""
    bank = random_bank()
    with torch.device("meta"):
        genmix = GenMix(bank, pairing=pairing, mean=0.5, std=0.25)
    assert {buffer.device.type for buffer in genmix.buffers()} == {"cpu"}
    expected = GenMix(bank, pairing=pairing, mean=0.5, std=0.25)
    images, labels = batch()
    torch.manual_seed(0)
    mixed = genmix(4 * images - 2, labels)
    torch.manual_seed(0)
    assert all(torch.equal(*pair) for pair in zip(mixed, expected(4 * images - 2, labels), strict=True))
