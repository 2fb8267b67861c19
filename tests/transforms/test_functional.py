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


@given(
    real=st.lists(st.integers(0, 255), min_size=1, max_size=9),
    partner=st.integers(0, 255),
    lam=UNIT,
    dtype=st.sampled_from([torch.uint8, torch.uint16]),
)
def test_whole_numbers_are_mixed_and_rounded(real, partner, lam, dtype):
    images = torch.tensor(real).view(-1, 1, 1, 1).to(dtype)
    partners = torch.full((len(real), 1, 1, 1), partner).to(dtype)
    mixed = F.mix_images(images, partners, torch.full((len(real),), lam))
    assert mixed.dtype == dtype
    weight = float(np.float32(lam))
    for value, found in zip(real, mixed.flatten().tolist(), strict=True):
        exact = weight * partner + (1 - weight) * value
        assert abs(found - exact) <= 0.5 + 1e-4


A, B, LAM = torch.rand(2, 1, 3, 3), torch.rand(2, 4), torch.rand(2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((A, B, A[..., :2], B, LAM), r"must be of one shape, .*got \(2, 1, 3, 3\), \(2, 1, 3, 2\) and \(2,\)"),
        ((A, B, A, B, LAM[:1]), r"lam \(N,\), got .* and \(1,\)"),
        ((A, B, A, B[:, :3], LAM), r"labels and partner_labels must be \(2, K\), got \(2, 4\) and \(2, 3\)"),
        ((A, torch.tensor([0, 1]), A, torch.tensor([0, 1]), LAM), r"got \(2,\) and \(2,\); soft_labels"),
        (
            (A.byte(), B, A, B, LAM),
            "images of torch.uint8 are mixed with partners of the same dtype, got torch.float32",
        ),
    ],
)
def test_genmix_refuses(arguments, text):
    with pytest.raises(InputError, match=f"genmix: .*{text}"):
        F.genmix(*arguments)


def test_labels_of_any_dtype_are_mixed_in_float32():
    mixed = F.genmix(A, torch.eye(2).bool(), A, torch.eye(2, dtype=torch.int64).flip(0), torch.tensor([0.25, 1.0]))[1]
    assert mixed.dtype == torch.float32
    assert mixed.tolist() == [[0.75, 0.25], [1, 0]]


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


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_booleans_are_the_labels_of_two_classes(shape):
    malignant = torch.tensor([True, False, True]).view(shape)
    assert F.soft_labels(malignant, num_classes=2).tolist() == [[0, 1], [1, 0], [0, 1]]


def test_out_of_range_where_a_look_would_wait():
    """On a device whose host may not wait, and in a graph, a row of NaN: no loss overlooks it."""
    step = torch.compile(lambda labels: F.soft_labels(labels, num_classes=2), fullgraph=True, backend="eager")
    rows = step(torch.tensor([1, 2, -1, 0, -100, 2**40]))
    assert rows[[0, 3]].tolist() == [[0, 1], [1, 0]]
    assert bool(rows[[1, 2, 4, 5]].isnan().all())


def test_empty_labels():
    assert F.soft_labels(torch.zeros(0, dtype=torch.int64), num_classes=3).shape == (0, 3)
    assert F.soft_labels(torch.zeros(0, 3), num_classes=3).shape == (0, 3)


def test_one_class():
    assert F.soft_labels(torch.tensor([0, 0]), num_classes=1).tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (torch.tensor([0.0, 1.0]), r"must be class indices.*got torch.float32; give probabilities as \(N, 3\)"),
        (
            torch.tensor([True, False]),
            r"booleans of shape \(N,\) can only be the labels of 2 classes, here are 3; give",
        ),
        (torch.tensor([1j, 0j]), "must be class indices, whole numbers, got torch.complex64"),
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
