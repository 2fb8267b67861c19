"""What GenMix computes: Eq. (1) over its own draw, who is mixed with whom, how often, and with what weight."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F
from torchvision.transforms import v2

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.bank import BankWriter
from genmix_transforms.errors import InputError
from tests.pretend_cuda import DEVICE, PretendCuda

SHAPE = (1, 2, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(genmix, labels, *, classes):
    """The parameters of a batch of these labels (the images matter not)."""
    soft = F.one_hot(labels, classes).float() if labels.ndim == 1 else labels
    return genmix.make_params([torch.zeros(len(labels), *genmix.bank.image_shape), soft])


def classes_of(genmix, params):
    """The class of each partner."""
    labels = genmix.bank.labels
    return (labels.argmax(dim=1) if labels.ndim == 2 else labels)[params["index"]]


def goodness(seen, expected):
    """Chi-square p-value of counts against expected shares; what has no share must not be seen."""
    seen, expected = np.asarray(seen, float), np.asarray(expected, float)
    assert not seen[expected == 0].any()
    if (expected > 0).sum() == 1:
        return 1.0  # all in the one class that has a share
    return stats.chisquare(seen[expected > 0], expected[expected > 0] / expected.sum() * seen.sum()).pvalue


# Eq. (1)


@pytest.mark.parametrize("real_partner", [0.0, 0.5])
@pytest.mark.parametrize("soft_bank", [False, True])
@pytest.mark.parametrize("soft_batch", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
def test_equation_one_over_its_own_draw(random_bank, batch, real_partner, soft_bank, soft_batch, normalised):
    """A plain loop over what make_params drew, in double precision, from the integer pixels of the bank."""
    shape = (3, 4, 5)
    mean, std = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)) if normalised else (None, None)
    bank = random_bank(10, shape=shape, soft=soft_bank)
    genmix = GenMix(bank, mean=mean, std=std, real_partner=real_partner, generator=generator())
    images, labels = batch(9, shape=shape)
    soft = torch.softmax(torch.rand(9, 3, generator=generator(2)), dim=1) if soft_batch else F.one_hot(labels, 3)
    soft = soft.float()
    params = genmix.make_params([images, soft])
    x, y = genmix.transform(images, params), genmix.transform(soft, params)

    center, spread = (np.reshape(values, (-1, 1, 1)) for values in ((mean, std) if normalised else (0.0, 1.0)))
    bank_rows = bank.labels.double().numpy() if soft_bank else np.eye(3)[bank.labels.numpy()]
    for n in range(9):
        lam, index = float(params["lam"][n]), int(params["index"][n])
        if params["from_batch"][n]:
            other, other_label = images[index].double().numpy(), soft[index].double().numpy()
        else:
            other, other_label = (bank.images[index].double().numpy() / 255 - center) / spread, bank_rows[index]
        expected = lam * other + (1 - lam) * images[n].double().numpy()
        np.testing.assert_allclose(x[n].numpy(), expected, atol=2e-6)
        np.testing.assert_allclose(y[n].numpy(), lam * other_label + (1 - lam) * soft[n].double().numpy(), atol=1e-6)
    assert bool(params["from_batch"].any()) == (real_partner > 0)


def test_forward_is_make_params_and_transform(random_bank, batch):
    genmix = GenMix(random_bank())
    images, labels = batch()
    torch.manual_seed(3)
    mixed, mixed_labels = genmix(images, labels)
    torch.manual_seed(3)
    soft = F.one_hot(labels, 3).float()
    params = genmix.make_params([images, soft])
    assert torch.equal(genmix.transform(images, params), mixed)
    assert torch.equal(genmix.transform(soft, params), mixed_labels)


# Every sample its own label: two non-zero entries a row show who was mixed with whom


REAL, SYNTHETIC = 5, 11


def own_labels(levels, **options):
    """Five real images and eleven synthetic ones, each of a level and a class of its own."""
    real, synthetic = torch.linspace(0.1, 0.3, REAL), 100 + 10 * torch.arange(SYNTHETIC)
    order = torch.randperm(SYNTHETIC, generator=generator())
    bank = SyntheticBank(
        levels(synthetic[order]).to(torch.uint8), REAL + order, classes=[str(n) for n in range(REAL + SYNTHETIC)]
    )
    return GenMix(bank, generator=generator(), **options), levels(real), real, synthetic / 255


@pytest.mark.parametrize("p", [1.0, 0.6])
@pytest.mark.parametrize("per_sample", [True, False])
def test_partner_image_and_partner_label_belong_together(levels, p, per_sample):
    genmix, images, real, synthetic = own_labels(levels, p=p, per_sample=per_sample)
    partners = set()
    for _ in range(60):
        mixed, labels = genmix(images, torch.arange(REAL))
        assert torch.allclose(labels.sum(dim=1), torch.ones(REAL))
        for n in range(REAL):
            own = float(labels[n, n])
            others = labels[n].nonzero().flatten().tolist()
            if n in others:
                others.remove(n)
            assert len(others) <= 1  # none where nothing is mixed
            expected = own * real[n]
            if others:
                assert others[0] >= REAL  # from the bank
                partners.add(others[0])
                assert float(labels[n, others[0]]) == pytest.approx(1 - own, abs=1e-6)
                expected = expected + (1 - own) * synthetic[others[0] - REAL]
            assert mixed[n].flatten().tolist() == pytest.approx([float(expected)] * 4, abs=1e-6)
    assert partners == set(range(REAL, REAL + SYNTHETIC))


def test_real_partners_belong_together_too(levels):
    genmix, images, real, _ = own_labels(levels, real_partner=1.0)
    pairs = set()
    for _ in range(100):
        mixed, labels = genmix(images, torch.arange(REAL))
        for n in range(REAL):
            other = [k for k in labels[n].nonzero().flatten().tolist() if k != n]
            assert len(other) == 1
            assert other[0] < REAL  # another real image of the batch, never itself
            lam = float(labels[n, other[0]])
            assert mixed[n, 0, 0, 0].item() == pytest.approx(
                float(lam * real[other[0]] + (1 - lam) * real[n]), abs=1e-6
            )
            pairs.add((n, other[0]))
    assert len(pairs) == REAL * (REAL - 1)


# lambda


def weights_of_the_bank(alpha, count=4000, **options):
    """How much of each mixed label is the bank's, and of each image: real 0, synthetic 1."""
    bank = SyntheticBank(
        torch.full((2, *SHAPE), 255, dtype=torch.uint8), torch.tensor([1, 1]), classes=["real", "bank"]
    )
    genmix = GenMix(bank, alpha=alpha, generator=generator(7), **options)
    mixed, labels = genmix(torch.zeros(count, *SHAPE), torch.zeros(count, dtype=torch.int64))
    assert torch.allclose(mixed[:, 0, 0, 0], labels[:, 1], atol=1e-7)
    return labels[:, 1]


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
def test_lambda_weights_the_synthetic_image_and_follows_beta_alpha_one(alpha):
    """The share of the bank, not of the real batch: swapped, its law would be that of 1 - Beta(alpha, 1)."""
    lam = weights_of_the_bank(alpha)
    assert stats.kstest(lam.numpy(), stats.beta(alpha, 1).cdf).pvalue > 0.01
    spread = stats.beta(alpha, 1).std() / len(lam) ** 0.5
    assert float(lam.mean()) == pytest.approx(alpha / (1 + alpha), abs=4 * spread)
    if alpha != 1:
        assert stats.kstest((1 - lam).numpy(), stats.beta(alpha, 1).cdf).pvalue < 1e-9


def test_the_papers_alpha_is_the_default():
    bank = SyntheticBank(torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.tensor([0]), classes=["a"])
    assert GenMix(bank).alpha == 0.3
    lam = weights_of_the_bank(0.3)
    assert float(lam.mean()) == pytest.approx(0.231, abs=0.02)
    assert float((lam < 0.5).float().mean()) == pytest.approx(0.5**0.3, abs=0.03)  # mostly real


def test_every_sample_has_its_own_lambda_or_all_have_one():
    assert len(weights_of_the_bank(0.3, 50).unique()) == 50
    assert len(weights_of_the_bank(0.3, 50, per_sample=False).unique()) == 1


def test_one_lambda_a_batch_follows_the_same_law(random_bank):
    genmix = GenMix(random_bank(), per_sample=False, generator=generator())
    lam = torch.stack([drawn(genmix, torch.tensor([0, 1]), classes=3)["lam"] for _ in range(1500)])
    assert torch.equal(lam[:, 0], lam[:, 1])
    assert stats.kstest(lam[:, 0].numpy(), stats.beta(0.3, 1).cdf).pvalue > 0.01


def test_one_lambda_a_batch_still_means_a_partner_a_sample(counted_bank):
    genmix = GenMix(counted_bank([100]), per_sample=False, generator=generator())
    assert len(drawn(genmix, torch.zeros(200).long(), classes=1)["index"].unique()) > 80


# p


def test_p_zero_mixes_nothing_but_softens_the_labels(random_bank, batch):
    images, labels = batch(6)
    mixed, soft = GenMix(random_bank(), p=0)(images, labels)
    assert torch.equal(mixed, images)
    assert torch.equal(soft, F.one_hot(labels, 3).float())


def test_p_is_the_share_of_mixed_samples():
    mixed = weights_of_the_bank(1.0, p=0.5) > 0
    assert stats.binomtest(int(mixed.sum()), len(mixed), 0.5).pvalue > 0.01
    assert weights_of_the_bank(1.0, p=1.0).count_nonzero() == 4000


def test_lambda_of_the_mixed_keeps_its_law_under_p():
    lam = weights_of_the_bank(0.3, p=0.5)
    assert stats.kstest(lam[lam > 0].numpy(), stats.beta(0.3, 1).cdf).pvalue > 0.01


def test_p_per_batch_mixes_all_or_none():
    bank = SyntheticBank(torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.tensor([0]), classes=["a"])
    genmix = GenMix(bank, p=0.3, per_sample=False, generator=generator())
    lam = torch.stack([drawn(genmix, torch.zeros(3).long(), classes=1)["lam"] for _ in range(1000)])
    applied = lam > 0
    assert torch.equal(applied.any(dim=1), applied.all(dim=1))
    assert stats.binomtest(int(applied[:, 0].sum()), 1000, 0.3).pvalue > 0.01


# Pairing


COUNTS = [30, 10, 60]
MATRIX = [[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.7, 0.1, 0.2]]


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"pairing": "any"}, [COUNTS] * 3),
        ({"pairing": "balanced"}, [[1, 1, 1]] * 3),
        ({"pairing": "same"}, np.eye(3)),
        ({"pairing": "other"}, [[0, 10, 60], [30, 0, 60], [30, 10, 0]]),
        ({"pairing": "inverse", "class_counts": (433, 70, 178)}, [[1 / 433, 1 / 70, 1 / 178]] * 3),
        ({"pairing": MATRIX}, MATRIX),
    ],
    ids=["any", "balanced", "same", "other", "inverse", "matrix"],
)
def test_partners_come_from_the_classes_of_the_matrix(counted_bank, options, rows):
    genmix = GenMix(counted_bank(COUNTS), generator=generator(11), **options)
    real = torch.arange(3).repeat(4000)
    params = drawn(genmix, real, classes=3)
    partner = classes_of(genmix, params)
    for number in range(3):
        seen = torch.bincount(partner[real == number], minlength=3)
        assert int(seen.sum()) == 4000
        assert goodness(seen, rows[number]) > 0.01
    # Within a class every image is drawn as often as any other.
    for number, (start, count) in enumerate(zip([0, 30, 40], COUNTS, strict=True)):
        within = params["index"][partner == number] - start
        assert stats.chisquare(torch.bincount(within, minlength=count).numpy()).pvalue > 0.01


def test_the_class_of_a_partner_does_not_depend_on_lambda(counted_bank):
    genmix = GenMix(counted_bank([50, 50]), generator=generator())
    params = drawn(genmix, torch.zeros(5000).long(), classes=2)
    partner = classes_of(genmix, params)
    assert stats.ks_2samp(params["lam"][partner == 0].numpy(), params["lam"][partner == 1].numpy()).pvalue > 0.01


def test_same_and_other_by_the_labels_that_come_out(random_bank):
    labels = torch.arange(3).repeat(50)
    images = torch.rand(150, *SHAPE)
    _, same = GenMix(random_bank(), pairing="same")(images, labels)
    assert torch.equal(same.nonzero()[:, 1], labels)  # nothing but the own class
    assert torch.allclose(same.amax(dim=1), torch.ones(150))
    _, other = GenMix(random_bank(), pairing="other")(images, labels)
    assert bool((other.count_nonzero(dim=1) == 2).all())


def test_soft_real_labels_take_the_weighted_row(counted_bank):
    genmix = GenMix(counted_bank(COUNTS), pairing=MATRIX, generator=generator(5))
    for label in ([0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [1.0, 0.0, 1.0]):  # the last: multi-hot
        soft = torch.tensor([label]).expand(6000, -1)
        seen = torch.bincount(classes_of(genmix, drawn(genmix, soft, classes=3)), minlength=3)
        assert goodness(seen, np.asarray(label) @ np.asarray(MATRIX)) > 0.01


def test_a_sample_without_any_label_draws_from_the_whole_bank(counted_bank):
    """Multi-hot data has such samples; the bank's last class has no images."""
    genmix = GenMix(counted_bank([30, 10, 0]), generator=generator())
    seen = torch.bincount(classes_of(genmix, drawn(genmix, torch.zeros(4000, 3), classes=3)), minlength=3)
    assert goodness(seen, [30, 10, 0]) > 0.01
    _, labels = genmix(torch.rand(5, *SHAPE), torch.zeros(5, 3))
    assert bool((labels.sum(dim=1) < 1).all())


def test_a_soft_bank_is_drawn_by_its_likeliest_class_and_gives_its_own_rows():
    rows = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    bank = SyntheticBank(torch.zeros(3, *SHAPE, dtype=torch.uint8), rows, classes=["a", "b"])
    genmix = GenMix(bank, pairing="same", generator=generator())
    soft = torch.tensor([[1.0, 0.0]]).expand(200, -1)
    params = drawn(genmix, soft, classes=2)
    assert params["index"].unique().tolist() == [0, 1]
    lam = params["lam"][:, None]
    assert torch.allclose(genmix.transform(params["labels"], params), lam * rows[params["index"]] + (1 - lam) * soft)


def test_inverse_takes_counts_by_name_or_in_order(counted_bank):
    bank = counted_bank(COUNTS)
    by_name = GenMix(bank, pairing="inverse", class_counts={"c2": 178, "c0": 433, "extra": 1, "c1": 70})
    in_order = GenMix(bank, pairing="inverse", class_counts=[433, 70, 178])
    recorded = {"training_set": {"class_counts": {"c0": 433, "c1": 70, "c2": 178}}}
    from_bank = GenMix(counted_bank(COUNTS, provenance=recorded), pairing="inverse")
    assert torch.equal(by_name.cumulative, in_order.cumulative)
    assert torch.equal(by_name.cumulative, from_bank.cumulative)
    assert by_name.cumulative[0].diff(prepend=torch.zeros(1)).argmax() == 1  # hemangiomas, the rarest


@given(order=st.permutations(range(12)), seed=st.integers(0, 2**31))
def test_the_order_of_the_bank_does_not_matter_to_the_classes_drawn(order, seed):
    """Two banks of the same images in another order: by the same random numbers, partners of the same classes."""
    counts = torch.tensor([5, 3, 4])
    labels = torch.repeat_interleave(torch.arange(3), counts)
    images = torch.arange(12, dtype=torch.uint8).view(-1, 1, 1, 1)
    real = F.one_hot(torch.arange(9) % 3, 3).float()
    found = []
    for permutation in (torch.arange(12), torch.tensor(order)):
        bank = SyntheticBank(images[permutation], labels[permutation], classes=["a", "b", "c"])
        genmix = GenMix(bank, pairing=MATRIX, generator=generator(seed))
        params = genmix.make_params([torch.zeros(9, 1, 1, 1), real])
        found.append((params["lam"], bank.labels[params["index"]], genmix.transform(real, params)))
        # And the image that is drawn is one of that class.
        assert torch.equal(labels[bank.images[params["index"]].flatten().long()], bank.labels[params["index"]])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


# Real partners


@pytest.mark.parametrize("per_sample", [True, False])
def test_real_partner_is_a_share_and_never_the_image_itself(counted_bank, per_sample):
    genmix = GenMix(counted_bank([20]), real_partner=0.5, per_sample=per_sample, generator=generator(3))
    count, others = 8, torch.zeros(8, 8)
    drawn_from_batch = 0
    for _ in range(600):
        params = drawn(genmix, torch.zeros(count).long(), classes=1)
        rows = params["from_batch"].nonzero().flatten()
        drawn_from_batch += len(rows)
        others[rows, params["index"][rows]] += 1
        assert bool((params["index"][~params["from_batch"]] < 20).all())
    assert stats.binomtest(drawn_from_batch, 600 * count, 0.5).pvalue > 0.01
    assert not others.diagonal().any()
    for row in range(count):  # all the others equally often
        assert stats.chisquare(others[row][torch.arange(count) != row].numpy()).pvalue > 0.001


@pytest.mark.parametrize(("real_partner", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_real_partner_none_or_all(random_bank, real_partner, share):
    genmix = GenMix(random_bank(), real_partner=real_partner)
    params = drawn(genmix, torch.zeros(100).long(), classes=3)
    assert float(params["from_batch"].float().mean()) == share


def test_in_a_batch_of_two_the_partner_is_the_other(random_bank):
    genmix = GenMix(random_bank(), real_partner=1.0)
    for _ in range(20):
        assert drawn(genmix, torch.tensor([0, 1]), classes=3)["index"].tolist() == [1, 0]


def test_alone_in_its_batch_an_image_is_its_own_partner(random_bank, batch):
    images, labels = batch(1)
    mixed, soft = GenMix(random_bank(), real_partner=1.0)(images, labels)
    assert torch.equal(mixed, images)
    assert torch.equal(soft, F.one_hot(labels, 3).float())


def test_real_partners_of_a_double_batch_are_not_rounded(random_bank, batch):
    images, labels = torch.rand(6, *SHAPE, dtype=torch.float64, generator=generator()), batch(6)[1]
    genmix = GenMix(random_bank(), real_partner=1.0, generator=generator())
    soft = F.one_hot(labels, 3).float()
    params = genmix.make_params([images, soft])
    lam = params["lam"].double().view(-1, 1, 1, 1)
    exact = lam * images[params["index"]] + (1 - lam) * images
    assert float((genmix.transform(images, params) - exact).abs().max()) < 1e-15


# The range that the batch is in


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("real_partner", [0.0, 0.5])
def test_a_normalised_batch_is_mixed_as_if_normalised_afterwards(random_bank, batch, dtype, real_partner):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    shape = (3, 6, 6)
    bank = random_bank(20, shape=shape, dtype=dtype)
    normalize = v2.Normalize(mean, std)
    images, labels = batch(32, shape=shape)
    options = {"real_partner": real_partner}
    before, before_labels = GenMix(bank, mean=mean, std=std, generator=generator(), **options)(
        normalize(images), labels
    )
    after, after_labels = GenMix(bank, generator=generator(), **options)(images, labels)
    assert float((before - normalize(after)).abs().max()) < 1e-6
    assert torch.equal(before_labels, after_labels)


def test_one_mean_for_all_channels(random_bank, batch):
    bank = random_bank(shape=(3, 2, 2))
    images, labels = batch(shape=(3, 2, 2))
    found = [
        GenMix(bank, mean=mean, std=std, generator=generator())(images, labels)[0]
        for mean, std in ((0.5, 0.25), ([0.5], [0.25]), ((0.5,) * 3, torch.full((3,), 0.25)))
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("batch_dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_what_comes_out_lies_between_the_two(random_bank, batch, dtype, batch_dtype):
    bank = random_bank(dtype=dtype)
    genmix = GenMix(bank, generator=generator())
    images, labels = batch(200, dtype=batch_dtype)
    soft = F.one_hot(labels, 3).float()
    params = genmix.make_params([images, soft])
    mixed = genmix.transform(images, params).double()
    partners = bank.images[params["index"]].double() / (255 if dtype == torch.uint8 else 65535)
    eps = torch.finfo(batch_dtype).eps
    assert bool((mixed >= torch.minimum(images.double(), partners) - eps).all())
    assert bool((mixed <= torch.maximum(images.double(), partners) + eps).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_image_and_label_are_mixed_by_the_same_lambda_in_half_precision(dtype):
    """Real 0, synthetic 1: a pixel is lambda, rounded once; the label's is not rounded at all."""
    bank = SyntheticBank(torch.full((1, *SHAPE), 255, dtype=torch.uint8), torch.tensor([1]), classes=["real", "bank"])
    genmix = GenMix(bank, generator=generator())
    images, soft = torch.zeros(500, *SHAPE, dtype=dtype), torch.tensor([[1.0, 0.0]]).expand(500, -1)
    params = genmix.make_params([images, soft])
    mixed, labels = genmix.transform(images, params), genmix.transform(soft, params)
    assert labels.dtype == torch.float32
    assert torch.equal(labels[:, 1], params["lam"])
    assert torch.equal(mixed[:, 0, 0, 0], params["lam"].to(dtype))


@given(
    classes=st.integers(1, 9),
    count=st.integers(0, 7),
    bank_count=st.integers(1, 9),
    real_partner=st.sampled_from([0.0, 0.5, 1.0]),
    p=st.sampled_from([0.0, 0.5, 1.0]),
    per_sample=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_label_rows_always_sum_to_one(classes, count, bank_count, real_partner, p, per_sample, seed):
    random = generator(seed)
    bank = SyntheticBank(
        torch.zeros(bank_count, *SHAPE, dtype=torch.uint8),
        torch.randint(0, classes, (bank_count,), generator=random),
        classes=[str(number) for number in range(classes)],
    )
    genmix = GenMix(bank, real_partner=real_partner, p=p, per_sample=per_sample, generator=random)
    images, labels = torch.rand(count, *SHAPE), torch.randint(0, classes, (count,), generator=random)
    mixed, soft = genmix(images, labels)
    assert mixed.shape == images.shape
    assert (soft.shape, soft.dtype) == ((count, classes), torch.float32)
    assert torch.allclose(soft.sum(dim=1), torch.ones(count), atol=1e-6)
    assert bool((soft >= 0).all())


# What a subclass decides


class HalfAndHalf(GenMix):
    """Every lambda is one half."""

    def make_params(self, flat_inputs):
        params = super().make_params(flat_inputs)
        params["lam"] = torch.full_like(params["lam"], 0.5)
        return params


class Inverted(GenMix):
    """Mixed images are shown as negatives, labels as they are."""

    def transform(self, inpt, params):
        mixed = super().transform(inpt, params)
        return mixed if inpt is params["labels"] else 1 - mixed


class Own(GenMix):
    """Makes a draw of its own, in a plain dict."""

    def make_params(self, flat_inputs):
        images, _ = flat_inputs
        count = len(images)
        return {
            "lam": torch.ones(count),
            "index": torch.full((count,), 2),
            "from_batch": torch.zeros(count, dtype=torch.bool),
        }


@pytest.mark.parametrize("packed", [False, True])
def test_make_params_can_be_overridden(random_bank, batch, packed):
    bank = random_bank()
    images, labels = batch()
    genmix = HalfAndHalf(bank, check_range=False)
    sample = {"image": images, "labels": labels}
    mixed, soft = genmix(sample).values() if packed else genmix(images, labels)
    assert genmix.params["lam"].tolist() == [0.5] * 4
    partners = genmix.params["index"]
    assert torch.allclose(mixed, (bank.images[partners] / 255 + images) / 2, atol=1e-6)
    assert torch.allclose(soft, (F.one_hot(bank.labels[partners], 3) + F.one_hot(labels, 3)) / 2)
    assert genmix.draw(images, labels)["lam"].tolist() == [0.5] * 4
    mixed, soft = Own(bank)(images, labels)
    assert torch.allclose(mixed, (bank.images[2] / 255).expand_as(mixed), atol=1e-6)
    assert torch.equal(soft, F.one_hot(bank.labels[2], 3).float().expand(4, 3))


def test_transform_can_be_overridden(random_bank, batch):
    images, labels = batch()
    plain, inverted = (kind(random_bank(), generator=generator()) for kind in (GenMix, Inverted))
    (mixed, soft), (negative, same) = plain(images, labels), inverted(images, labels)
    assert torch.equal(negative, 1 - mixed)
    assert torch.equal(same, soft)


def test_overridden_under_a_compiler(random_bank, batch):
    torch._dynamo.reset()
    genmix = HalfAndHalf(random_bank(), check_range=False)
    images, labels = batch()
    step = torch.compile(lambda x, y: genmix(x, y), fullgraph=True, backend="eager")
    soft = step(images, labels)[1]
    assert set(soft.unique().tolist()) <= {0.0, 0.5, 1.0}
    assert torch.allclose(soft.sum(dim=1), torch.ones(4))


# A bank that changes


def growing_bank(folder, counted_bank, counts, *, more):
    """A bank on disk, opened; and what is added to it afterwards."""
    counted_bank(counts).save(folder)
    bank = SyntheticBank.load(folder)
    added = counted_bank(more)
    with BankWriter(folder, classes=bank.classes, image_shape=bank.image_shape, append=True) as writer:
        writer.add(added.images, added.labels)
    return bank


@pytest.mark.parametrize("options", [{"pairing": "balanced", "absent": "redraw"}, {"pairing": "other"}])
def test_the_pairing_follows_a_bank_that_is_refreshed(tmp_path, counted_bank, options):
    bank = growing_bank(tmp_path / "bank", counted_bank, [30, 10, 0], more=[0, 0, 400])
    genmix = GenMix(bank, generator=generator(), **options)
    real = torch.arange(3).repeat(1000)
    drawn(genmix, real, classes=3)
    assert bank.refresh() == 400
    fresh = GenMix(bank, generator=generator(), **options)
    genmix.generator = generator()
    expected, found = (drawn(one, real, classes=3) for one in (fresh, genmix))
    assert torch.equal(found["index"], expected["index"])
    seen = torch.bincount(classes_of(genmix, found), minlength=3)
    assert goodness(seen, [1, 1, 1] if options["pairing"] == "balanced" else seen) > 0.01
    assert int(seen[2]) > 500


def test_skipped_samples_are_mixed_once_the_bank_has_partners(tmp_path, counted_bank):
    bank = growing_bank(tmp_path / "bank", counted_bank, [30, 10, 0], more=[0, 0, 9])
    genmix = GenMix(bank, pairing="same", absent="skip", generator=generator())
    labels = torch.full((50,), 2)
    assert not drawn(genmix, labels, classes=3)["lam"].any()
    copied = pickle.loads(pickle.dumps(genmix))  # to a worker
    for one in (genmix, copied):
        one.bank.refresh()
        params = drawn(one, labels, classes=3)
        assert bool((params["lam"] > 0).all())
        assert bool((classes_of(one, params) == 2).all())


def test_a_refresh_that_makes_the_pairing_impossible_is_told(tmp_path, counted_bank):
    """The same text as when GenMix is built; and at every call, until the bank has images again."""
    counted_bank([3, 3, 3]).save(tmp_path / "bank")
    bank = SyntheticBank.load(tmp_path / "bank")
    genmix = GenMix(bank, pairing="same")
    counted_bank([3, 3, 0]).save(tmp_path / "bank", overwrite=True)
    bank.refresh()
    for _ in range(2):
        with pytest.raises(InputError, match="pairing='same' draws from c2, but the bank has no images of it"):
            genmix(torch.rand(2, *SHAPE), torch.tensor([0, 1]))
    counted_bank([3, 3, 1]).save(tmp_path / "bank", overwrite=True)
    bank.refresh()
    genmix(torch.rand(2, *SHAPE), torch.tensor([0, 1]))


def test_a_compiled_graph_follows_the_bank_too(tmp_path, counted_bank):
    torch._dynamo.reset()
    bank = growing_bank(tmp_path / "bank", counted_bank, [30, 10, 0], more=[0, 0, 9])
    genmix = GenMix(bank, pairing="same", absent="skip", check_range=False)
    step = torch.compile(lambda x, y: genmix(x, y), fullgraph=True, backend="eager")
    images, labels = torch.zeros(50, *SHAPE), torch.full((50,), 2)
    with torch.no_grad():
        assert not step(images, labels)[0].any()
        bank.refresh()
        assert bool((step(images, labels)[0] > 0).any())


ON_A_GPU = [
    {},
    {"pairing": "balanced", "per_sample": False},
    {"pairing": "other", "real_partner": 0.5, "p": 0.5},
    {"pairing": "same", "absent": "skip"},
]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("options", ON_A_GPU)
def test_on_a_gpu_it_mixes_the_same_and_never_waits(options, dtype):
    """The first look at the values is among what does not wait."""
    pixels = torch.randint(0, 256 if dtype == torch.uint8 else 65536, (12, 1, 8, 8), generator=generator())
    images, labels = torch.rand(6, 1, 8, 8, generator=generator(1)), torch.arange(6) % 3

    def mixed(device):
        bank = SyntheticBank(pixels.to(dtype), torch.arange(12) % 3, classes=("a", "b", "c"))
        genmix, batch = GenMix(bank, **options).to(device), (images.to(device), labels.to(device))
        soft = (batch[0], F.one_hot(labels, 3).float().to(device))
        found = []
        for sample in (batch, soft, batch):
            torch.manual_seed(0)
            with PretendCuda.entered.no_waiting():
                found += genmix(*sample)
        return [tensor.cpu() for tensor in found]

    with PretendCuda():
        for ours, theirs in zip(mixed(DEVICE), mixed("cpu"), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)
