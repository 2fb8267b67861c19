"""What GenMix takes and gives back: dtypes, layouts, sizes, samples of every structure; draws, read and replayed."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision import tv_tensors

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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.float32])
def test_of_plain_tensors_the_first_is_the_image(random_bank, batch, dtype):
    """As for ``v2.MixUp``: a mask of the same size behind it, integer or not, is not touched."""
    images, labels = batch()
    mask = (images > 0.5).to(dtype)
    before = mask.clone()
    sample = {"age": torch.rand(4), "image": images, "mask": mask, "label": labels, "text": torch.rand(4, 9)}
    found = GenMix(random_bank())(sample)
    assert not torch.equal(found["image"], images)
    assert found["mask"] is mask
    assert torch.equal(mask, before)
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


@pytest.mark.parametrize(("real_partner", "inplace"), [(0.0, False), (0.5, True)])
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


# Compiled loops read memory by its address: what they are given has been looked at


@pytest.mark.parametrize(
    "lay",
    [
        lambda labels: torch.stack([labels, -labels - 1], dim=1)[:, 0],
        lambda labels: F.one_hot(labels, 3).float().T.contiguous().T,
        lambda labels: torch.cat([F.one_hot(labels, 3).float(), torch.full((12, 3), 7.0)], dim=1)[:, :3],
        lambda labels: torch.tensor([[0.5, 0.25, 0.25]]).expand(12, 3),
    ],
    ids=["a column of a table", "transposed", "some columns", "expanded"],
)
def test_labels_of_a_bank_in_any_layout(random_bank, batch, lay):
    """Sorted by class, as a bank keeps them, and still not one after the other."""
    pixels = random_bank().images
    labels = lay(torch.arange(12) // 4)
    assert not labels.is_contiguous()
    banks = [SyntheticBank(pixels, given, classes=["a", "b", "c"]) for given in (labels, labels.clone().contiguous())]
    found, expected = (
        GenMix(bank, real_partner=0.3, generator=torch.Generator().manual_seed(0))(*batch(50)) for bank in banks
    )
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert torch.allclose(found[1].sum(dim=1), torch.ones(50), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("soft_bank", [False, True])
@pytest.mark.parametrize("params", [False, True])
def test_whatever_torchs_default_dtype(random_bank, batch, dtype, soft_bank, params):
    images, labels = batch()
    expected = (genmix := GenMix(random_bank(soft=soft_bank), generator=torch.Generator().manual_seed(0)))(
        images, labels
    )
    given = genmix.params if params else None
    bank = random_bank(soft=soft_bank)
    torch.set_default_dtype(dtype)
    try:
        genmix = GenMix(bank, generator=torch.Generator().manual_seed(0))
        found = genmix(images, labels, params=given)
    finally:
        torch.set_default_dtype(torch.float32)
    assert genmix.params["lam"].dtype == found[1].dtype == torch.float32
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_within_functionalize(random_bank, batch):
    """Its tensors have no memory of their own."""
    images, labels = batch()
    for pairing in ("any", "same"):
        genmix = GenMix(random_bank(), pairing=pairing, check_range=False)
        mixed, soft = torch.func.functionalize(lambda x, y, genmix=genmix: genmix(x, y))(images, labels)
        assert (mixed.shape, soft.shape) == (images.shape, (4, 3))
        assert torch.allclose(soft.sum(dim=1), torch.ones(4), atol=1e-6)


@pytest.mark.parametrize("name", ["scale", "cumulative"])
def test_a_table_left_on_another_device(random_bank, batch, name):
    genmix = GenMix(random_bank(), pairing="same", check_range=False)
    genmix._buffers[name] = genmix._buffers[name].to("meta")
    with pytest.raises((InputError, TypeError, NotImplementedError), match="meta"):
        genmix(*batch())


@pytest.mark.parametrize("per_sample", [True, False])
def test_booleans_of_numpy(random_bank, batch, per_sample):
    genmix = GenMix(random_bank(), per_sample=np.bool_(per_sample))
    genmix(*batch())
    assert len(genmix.params["lam"].unique()) == (4 if per_sample else 1)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [-1, 0, 1, 2]])
@pytest.mark.parametrize("pairing", ["any", "same"])
def test_labels_out_of_range_are_not_drawn_for(random_bank, batch, labels, pairing):
    images, _ = batch()
    with pytest.raises(InputError, match="but there are 3 classes"):
        GenMix(random_bank(), pairing=pairing).draw(images, torch.tensor(labels))
