"""The pure functions: Eq. (1) against plain loops, the law of lambda against SciPy's, labels of every form."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from genmix_transforms.errors import InputError
from genmix_transforms.transforms import functional as F

UNIT = st.floats(0, 1, width=32)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# lambda


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0, 4.0])
def test_lambda_follows_beta_alpha_one(alpha):
    """Beta(alpha, 1), not Beta(1, alpha) nor Beta(alpha, alpha): Kolmogorov and Smirnov would see either."""
    lam = F.draw_lambda(20_000, alpha=alpha, generator=generator())
    assert stats.kstest(lam.numpy(), stats.beta(alpha, 1).cdf).pvalue > 0.01
    mean, spread = alpha / (1 + alpha), stats.beta(alpha, 1).std()
    assert float(lam.mean()) == pytest.approx(mean, abs=4 * spread / 20_000**0.5)
    if alpha != 1:
        assert stats.kstest(lam.numpy(), stats.beta(1, alpha).cdf).pvalue < 1e-9
        assert stats.kstest(lam.numpy(), stats.beta(alpha, alpha).cdf).pvalue < 1e-9


@given(alpha=st.floats(1e-6, 1e6), count=st.integers(0, 50), seed=st.integers(0, 2**32 - 1))
def test_lambda_lies_in_the_unit_interval(alpha, count, seed):
    lam = F.draw_lambda(count, alpha=alpha, generator=generator(seed))
    assert lam.shape == (count,)
    assert lam.dtype == torch.float32
    assert bool(((lam >= 0) & (lam <= 1)).all())


def test_lambda_is_drawn_from_the_generator_given():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, two = (F.draw_lambda(8, alpha=0.3, generator=generator(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    drawn = F.draw_lambda(8, alpha=0.3)
    torch.manual_seed(5)
    assert torch.equal(F.draw_lambda(8, alpha=0.3), drawn)


# Eq. (1)


def plain_loop(images, labels, partners, partner_labels, lam):
    """Eq. (1) of the paper, one number after the other, in double precision."""
    x, y = np.empty(images.shape), np.empty(labels.shape)
    for n in range(len(images)):
        for position in np.ndindex(images.shape[1:]):
            x[n][position] = lam[n] * partners[n][position] + (1 - lam[n]) * images[n][position]
        for k in range(labels.shape[1]):
            y[n][k] = lam[n] * partner_labels[n][k] + (1 - lam[n]) * labels[n][k]
    return x, y


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 2, 2), (2, 2, 3, 2), (4,)])
def test_equation_one(shape):
    images, partners = (torch.rand(5, *shape, generator=generator(seed)) for seed in (0, 1))
    labels, partner_labels = (torch.rand(5, 3, generator=generator(seed)) for seed in (2, 3))
    lam = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0])
    mixed, mixed_labels = F.genmix(images, labels, partners, partner_labels, lam)
    arguments = (tensor.double().numpy() for tensor in (images, labels, partners, partner_labels, lam))
    x, y = plain_loop(*arguments)
    np.testing.assert_allclose(mixed.numpy(), x, atol=1e-6)
    np.testing.assert_allclose(mixed_labels.numpy(), y, atol=1e-6)
    assert torch.equal(mixed[0], images[0])
    assert torch.equal(mixed[-1], partners[-1])


def test_lambda_weights_the_partner():
    mixed, labels = F.genmix(
        torch.zeros(1, 1, 1, 1), torch.tensor([[1.0, 0]]), torch.ones(1, 1, 1, 1), torch.tensor([[0, 1.0]]),
        torch.tensor([0.2]),
    )  # fmt: skip
    assert mixed.item() == pytest.approx(0.2)
    assert labels.tolist() == [[pytest.approx(0.8), pytest.approx(0.2)]]


def test_nothing_given_is_changed():
    given_tensors = [torch.rand(2, 1, 3, 3), torch.rand(2, 4), torch.rand(2, 1, 3, 3), torch.rand(2, 4), torch.rand(2)]
    before = [tensor.clone() for tensor in given_tensors]
    F.genmix(*given_tensors)
    assert all(torch.equal(now, then) for now, then in zip(given_tensors, before, strict=True))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-7), (torch.float32, 1e-6), (torch.float16, 5e-4), (torch.bfloat16, 4e-3)],
)
def test_dtype_is_kept_and_rounded_once(dtype, tolerance):
    images, partners = (torch.rand(64, 1, 4, 4, generator=generator(seed)).to(dtype) for seed in (0, 1))
    lam = torch.rand(64, generator=generator(2))
    mixed = F.mix_images(images, partners, lam)
    assert mixed.dtype == dtype
    weight = lam.double().view(-1, 1, 1, 1)
    exact = weight * partners.double() + (1 - weight) * images.double()
    assert float((mixed.double() - exact).abs().max()) < tolerance
    if dtype in (torch.float16, torch.bfloat16):  # rounded once: the nearest number of the dtype, but for ties
        assert float((mixed != exact.to(dtype)).float().mean()) < 0.01


def test_partners_of_another_dtype():
    """A bank's values are float32, whatever the batch is."""
    for dtype in (torch.float64, torch.float16):
        assert F.mix_images(torch.zeros(1, 1, 2, 2, dtype=dtype), torch.ones(1, 1, 2, 2), torch.ones(1)).dtype == dtype


@given(
    x=st.lists(UNIT, min_size=1, max_size=8),
    partner=UNIT,
    lam=UNIT,
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
)
def test_a_mix_lies_between_its_two_parts(x, partner, lam, dtype):
    images = torch.tensor(x).view(-1, 1, 1, 1).to(dtype)
    partners = torch.full_like(images, partner)
    mixed = F.mix_images(images, partners, torch.full((len(x),), lam)).double()
    low, high = torch.minimum(images, partners).double(), torch.maximum(images, partners).double()
    slack = 1e-6  # of a float32 interpolation
    assert bool(((mixed >= low - slack) & (mixed <= high + slack)).all())


@given(data=st.data(), count=st.integers(0, 6), classes=st.integers(1, 12))
def test_mixed_labels_sum_to_one(data, count, classes):
    index = st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)
    one, two = (F.soft_labels(torch.tensor(data.draw(index)).long(), num_classes=classes) for _ in range(2))
    lam = torch.tensor(data.draw(st.lists(UNIT, min_size=count, max_size=count)))
    mixed = F.mix_labels(one, two, lam)
    assert mixed.shape == (count, classes)
    assert torch.allclose(mixed.sum(dim=1), torch.ones(count), atol=1e-6)
    assert bool((mixed >= 0).all())


# Labels


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_indices_become_rows(dtype, shape):
    soft = F.soft_labels(torch.tensor([2, 0, 1]).to(dtype).view(shape), num_classes=4)
    assert soft.dtype == torch.float32
    assert soft.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_rows_stay_rows(dtype):
    rows = torch.tensor([[1, 0, 1], [0, 0, 0]], dtype=dtype)  # multi-hot
    soft = F.soft_labels(rows, num_classes=3)
    assert soft.dtype == torch.float32
    assert soft.tolist() == [[1, 0, 1], [0, 0, 0]]


def test_empty_labels():
    assert F.soft_labels(torch.zeros(0, dtype=torch.int64), num_classes=3).shape == (0, 3)
    assert F.soft_labels(torch.zeros(0, 3), num_classes=3).shape == (0, 3)


def test_one_class():
    assert F.soft_labels(torch.tensor([0, 0]), num_classes=1).tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (torch.tensor([0.0, 1.0]), r"must be class indices.*got torch.float32; give probabilities as \(N, 3\)"),
        (torch.tensor([True, False]), "must be class indices, whole numbers, got torch.bool"),
        (torch.tensor([[0.0], [1.0]]), r"must have a column a class, got \(2, 1\) for 3 classes"),
        (torch.ones(2, 4), r"must have a column a class, got \(2, 4\) for 3 classes"),
        (torch.ones(2, 3, 1), r"must be of shape \(N,\) or \(N, 3\), got \(2, 3, 1\)"),
        (torch.tensor(1), r"must be of shape \(N,\) or \(N, 3\), got \(\)"),
        (torch.tensor([0, 3]), "labels run from 0 to 3, but there are 3 classes"),
        (torch.tensor([2, -1]), "labels run from -1 to 2"),
        (torch.tensor([[2], [255]], dtype=torch.uint8), "labels run from 2 to 255"),
    ],
)
def test_labels_refused(labels, text):
    with pytest.raises(InputError, match=text):
        F.soft_labels(labels, num_classes=3)


# Partners


def test_dequantise():
    pixels = torch.tensor([[0, 51, 255], [255, 0, 102]], dtype=torch.uint8).view(1, 2, 3)
    scale, shift = torch.tensor([[1 / 255], [2 / 255]]), torch.tensor([[0.0], [-1.0]])
    values = F.dequantise(pixels, scale, shift)
    assert values.dtype == torch.float32
    assert values.flatten().tolist() == pytest.approx([0, 0.2, 1, 1, -1, -0.2], abs=1e-6)
    assert pixels.flatten().tolist() == [0, 51, 255, 255, 0, 102]


def test_dequantise_sixteen_bits():
    pixels = torch.tensor([0, 32768, 65535], dtype=torch.uint16).view(1, 1, 3)
    assert F.dequantise(pixels, torch.tensor([[1.0]]), torch.tensor([[0.0]])).flatten().tolist() == [0, 32768, 65535]


def test_row_of_soft_labels_is_the_weighted_row():
    matrix = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0.25, 0.75]])
    labels = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0.5, 0.25, 0.25], [0, 1, 1]])
    expected = [[1, 0, 0], [0, 0.25, 0.75], [0.625, 0.1875, 0.1875], [0.5, 0.75, 0.75]]
    assert F.row_of(labels, matrix).tolist() == expected


def draw(weights, counts, *, count=1, seed=0):
    """``count`` partners for one sample of these weights: class and place within the class of each."""
    sizes = torch.tensor(counts)
    start = sizes.cumsum(0) - sizes
    random = torch.rand(2, count, generator=generator(seed))
    index = F.draw_partner(
        torch.tensor(weights).expand(count, -1), start, sizes, class_draw=random[0], image_draw=random[1]
    )
    chosen = torch.searchsorted(start + sizes, index, right=True)
    return chosen, index - start[chosen]


def test_partners_follow_the_weights_and_are_even_within_a_class():
    weights, counts = [1.0, 0.0, 3.0, 6.0], [5, 2, 7, 4]
    chosen, place = draw(weights, counts, count=20_000)
    seen = torch.bincount(chosen, minlength=4)
    assert int(seen[1]) == 0
    expected = torch.tensor([1.0, 3.0, 6.0]) * 2_000
    assert stats.chisquare(seen[[0, 2, 3]].numpy(), expected.numpy()).pvalue > 0.01
    for number in (0, 2, 3):
        places = torch.bincount(place[chosen == number], minlength=counts[number])
        assert len(places) == counts[number]
        assert stats.chisquare(places.numpy()).pvalue > 0.01


def test_class_and_place_are_independent():
    chosen, place = draw([0.5, 0.5], [3, 3], count=20_000)
    table = torch.bincount(3 * chosen + place, minlength=6).view(2, 3)
    assert stats.chi2_contingency(table.numpy()).pvalue > 0.01


LAST = 1 - 2**-24
"""The largest number that torch.rand returns."""


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    data=st.data(),
    class_draw=st.floats(0, LAST, width=32) | st.just(LAST),
    image_draw=st.floats(0, LAST, width=32) | st.just(LAST),
)
def test_a_partner_is_in_a_class_that_has_weight(counts, data, class_draw, image_draw):
    """Also at the ends of the interval: rounding must not carry a draw into a class of weight 0."""
    weight = st.sampled_from([0.0, 1e-6, 1 / 3, 0.5, 1.0, 7.0])
    weights = [data.draw(weight) if size else 0.0 for size in counts]
    sizes = torch.tensor(counts)
    start = sizes.cumsum(0) - sizes
    index = F.draw_partner(
        torch.tensor([weights]), start, sizes,
        class_draw=torch.tensor([class_draw]), image_draw=torch.tensor([image_draw]),
    ).item()  # fmt: skip
    allowed = [
        row
        for first, size, weight in zip(start.tolist(), counts, weights, strict=True)
        for row in range(first, first + size)
        if weight > 0 or not any(weights)
    ]
    assert index in allowed


def test_a_sample_without_labels_draws_from_the_whole_bank():
    """Multi-label data has images with none of the findings; the last class, here, has no images."""
    chosen, _ = draw([0.0, 0.0, 0.0], [3, 1, 0], count=8_000)
    seen = torch.bincount(chosen, minlength=3)
    assert seen[2] == 0
    assert stats.chisquare(seen[:2].numpy(), [6_000, 2_000]).pvalue > 0.01


@pytest.mark.parametrize("weights", [[-1.0, 2.0, 0.0], [0.5, -1.0, 0.0], [torch.nan, 1.0, 0.0], [-1.0, -1.0, -1.0]])
def test_labels_that_make_no_sense_never_point_outside_the_bank(weights):
    """On CUDA that would stop the process, and no look at the labels prevents it there."""
    counts = [0, 4, 0]
    sizes = torch.tensor(counts)
    for value in (0.0, 0.5, LAST):
        draws = torch.tensor([value])
        index = F.draw_partner(
            torch.tensor([weights]), sizes.cumsum(0) - sizes, sizes, class_draw=draws, image_draw=draws
        )
        assert 0 <= int(index) < 4
