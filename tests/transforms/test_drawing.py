"""The draw: lambdas and partners follow their laws, and are the same in torch and in NumPy."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from genmix_transforms.transforms.drawing import (
    COLUMNS,
    Classes,
    Draw,
    Options,
    Params,
    draw,
    draw_of,
    draw_partner,
    row_mass,
    row_of,
)

LAST = 1 - 2**-53
"""The largest number below 1."""


def uniform(count, seed=0):
    return torch.rand(count, COLUMNS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def classes_of(matrix, counts):
    count = torch.tensor(counts)
    cumulative = torch.as_tensor(matrix, dtype=torch.float64).cumsum(dim=1).float()
    return Classes(cumulative, count.cumsum(0) - count, count)


def options(**changes):
    return Options(
        **{"alpha": 0.3, "p": 1.0, "per_sample": True, "real_partner": 0.0, "some_have_no_partner": False, **changes}
    )


def in_torch(random, labels, classes, size, chosen):
    return draw(random, labels, classes, size, chosen)


def in_numpy(random, labels, classes, size, chosen):
    arrays = None if classes is None else Classes(*(table.numpy() for table in classes))
    drawn = draw(random.numpy(), labels.numpy(), arrays, size, chosen)
    return Draw(*(None if values is None else torch.from_numpy(values) for values in drawn))


WAYS = pytest.mark.parametrize("way", [in_torch, in_numpy])


# The two ways agree


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 40),
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any),
    data=st.data(),
)
def test_the_same_draw_in_torch_and_numpy(seed, count, counts, data):
    size, number = sum(counts), len(counts)
    random = uniform(count, seed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, number, (count,), generator=generator)
    if data.draw(st.booleans(), label="soft labels"):
        labels = (torch.rand(count, number, generator=generator) * torch.randint(0, 2, (count, number))).float()
    classes = None
    chosen = options(
        alpha=data.draw(st.sampled_from([0.3, 1.0, 2.5])),
        p=data.draw(st.sampled_from([0.0, 0.4, 1.0])),
        per_sample=data.draw(st.booleans()),
        real_partner=data.draw(st.sampled_from([0.0, 0.5, 1.0])),
        some_have_no_partner=data.draw(st.booleans()),
    )
    if data.draw(st.booleans(), label="by class"):
        weights = torch.rand(number, number, generator=generator) * (torch.tensor(counts) > 0)
        classes = classes_of(weights / weights.sum(dim=1, keepdim=True) * 0.75, counts)
    else:
        chosen = options(**{**chosen.__dict__, "some_have_no_partner": False})
    expected = in_torch(random, labels, classes, size, chosen)
    found = in_numpy(random, labels, classes, size, chosen)
    assert torch.equal(found.index, expected.index)
    assert torch.allclose(found.lam, expected.lam, rtol=1e-6, atol=0)
    assert (found.from_batch is None) == (expected.from_batch is None) == (not chosen.real_partner)
    if found.from_batch is not None:
        assert torch.equal(found.from_batch, expected.from_batch)


# Lambda


@WAYS
@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0, 4.0])
def test_lambda_follows_beta_alpha_one(way, alpha):
    """Beta(alpha, 1), not Beta(1, alpha) nor Beta(alpha, alpha): Kolmogorov and Smirnov would see either."""
    labels = torch.zeros(20_000, dtype=torch.int64)
    lam = way(uniform(20_000), labels, None, 7, options(alpha=alpha)).lam.numpy()
    assert lam.dtype == np.float32
    assert stats.kstest(lam, stats.beta(alpha, 1).cdf).pvalue > 0.01
    if alpha != 1:
        assert stats.kstest(lam, stats.beta(1, alpha).cdf).pvalue < 1e-9
        assert stats.kstest(lam, stats.beta(alpha, alpha).cdf).pvalue < 1e-9


@WAYS
def test_options_leave_the_other_draws_alone(way):
    """With the same numbers a sample has the same lambda and image, whichever options are chosen besides."""
    labels, random = torch.arange(50) % 3, uniform(50)
    plain = way(random, labels, None, 12, options())
    some = way(random, labels, None, 12, options(p=0.5, real_partner=0.3))
    mixed = some.lam > 0
    assert 10 < int(mixed.sum()) < 40
    assert torch.equal(some.lam[mixed], plain.lam[mixed])
    assert torch.equal(some.index[~some.from_batch], plain.index[~some.from_batch])


@WAYS
def test_one_lambda_for_the_batch(way):
    drawn = way(uniform(9), torch.arange(9) % 2, None, 5, options(per_sample=False))
    assert drawn.lam.shape == (9,)
    assert len(drawn.lam.unique()) == 1
    assert len(drawn.index.unique()) > 1


# Partners


@WAYS
def test_partners_follow_the_matrix_and_are_even_within_a_class(way):
    """Chi-squared, over the classes drawn for each class of real images, and over the images of each class."""
    matrix, counts = [[0.1, 0, 0.3, 0.6], [0.25] * 4, [0, 1, 0, 0], [0.5, 0.5, 0, 0]], [5, 2, 7, 4]
    classes = classes_of(matrix, counts)
    labels = torch.arange(4).repeat(10_000)
    index = way(uniform(40_000), labels, classes, 18, options()).index
    ends = (classes.start + classes.count).contiguous()
    drawn = torch.searchsorted(ends, index, right=True)
    for own, row in enumerate(matrix):
        seen = torch.bincount(drawn[labels == own], minlength=4).numpy()
        weights = np.array(row)
        assert seen[weights == 0].sum() == 0
        if (weights > 0).sum() > 1:
            assert stats.chisquare(seen[weights > 0], 10_000 * weights[weights > 0]).pvalue > 0.01
    for number in range(4):
        places = torch.bincount(index[drawn == number] - classes.start[number], minlength=counts[number]).numpy()
        assert len(places) == counts[number]
        assert stats.chisquare(places).pvalue > 0.01


@WAYS
def test_as_the_bank_is_every_image_is_drawn_equally_often(way):
    index = way(uniform(20_000), torch.zeros(20_000, dtype=torch.int64), None, 9, options()).index
    assert stats.chisquare(torch.bincount(index, minlength=9).numpy()).pvalue > 0.01


@WAYS
def test_lambda_class_and_image_are_independent(way):
    classes = classes_of([[0.5, 0.5]] * 2, [3, 3])
    drawn = way(uniform(20_000), torch.zeros(20_000, dtype=torch.int64), classes, 6, options(alpha=1.0))
    for one, other in (
        (drawn.index // 3, drawn.index % 3),
        (drawn.index // 3, (drawn.lam * 4).long()),
        (drawn.index % 3, (drawn.lam * 4).long()),
    ):
        table = np.zeros((3, 4))
        np.add.at(table, (one.numpy(), other.numpy()), 1)
        table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
        assert stats.chi2_contingency(table).pvalue > 0.01


@WAYS
def test_a_share_without_partner_stays_unmixed(way):
    """A row of the matrix that sums to 0.75: a quarter of its samples have lambda 0; soft labels in proportion."""
    classes = classes_of([[0.5, 0.25], [0, 1]], [2, 2])
    chosen = options(some_have_no_partner=True)
    for labels, share in (
        (torch.tensor([0]).repeat(20_000), 0.25),
        (torch.tensor([1]).repeat(20_000), 0.0),
        (torch.tensor([[0.5, 0.5]]).repeat(20_000, 1), 0.125),
        (torch.tensor([[1.0, 1.0]]).repeat(20_000, 1), 0.125),
    ):
        unmixed = float((way(uniform(20_000), labels, classes, 4, chosen).lam == 0).float().mean())
        assert unmixed == pytest.approx(share, abs=4 * (share * (1 - share) / 20_000) ** 0.5)


@WAYS
def test_a_sample_without_labels_draws_from_the_whole_bank(way):
    """Multi-label data has images with none of the findings; the last class, here, has no images."""
    classes = classes_of([[1, 0, 0], [0, 1, 0], [1, 0, 0]], [3, 1, 0])
    index = way(uniform(8_000), torch.zeros(8_000, 3), classes, 4, options()).index
    assert stats.chisquare(torch.bincount(index, minlength=4).numpy()).pvalue > 0.01


@WAYS
@pytest.mark.parametrize("real_partner", [0.5, 1.0])
def test_a_real_partner_is_any_other_image_of_the_batch(way, real_partner):
    labels, random = torch.zeros(5, dtype=torch.int64), uniform(20_000).view(4_000, 5, COLUMNS)
    pairs = np.zeros((5, 5))
    share = []
    for numbers in random:
        drawn = way(numbers, labels, None, 3, options(real_partner=real_partner))
        share.append(drawn.from_batch.float().mean())
        own = torch.arange(5)[drawn.from_batch].numpy()
        np.add.at(pairs, (own, drawn.index[drawn.from_batch].numpy()), 1)
    assert float(np.mean(share)) == pytest.approx(real_partner, abs=0.02)
    assert not pairs.diagonal().any()
    assert stats.chisquare(pairs[~np.eye(5, dtype=bool)]).pvalue > 0.01


@WAYS
@pytest.mark.parametrize("count", [0, 1, 2])
def test_small_batches(way, count):
    drawn = way(uniform(count), torch.zeros(count, dtype=torch.int64), None, 3, options(real_partner=1.0))
    assert drawn.lam.shape == drawn.index.shape == drawn.from_batch.shape == (count,)
    assert drawn.index.tolist() == [[], [0], [1, 0]][count]


# The ends of the interval


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    data=st.data(),
    class_draw=st.floats(0, LAST) | st.just(LAST),
    image_draw=st.floats(0, LAST) | st.just(LAST),
)
def test_a_partner_is_in_a_class_that_has_weight(counts, data, class_draw, image_draw):
    """Also at the ends: rounding must not carry a draw into a class of weight 0, or beyond the bank."""
    weight = st.sampled_from([0.0, 1e-6, 1 / 3, 0.5, 1.0, 7.0])
    weights = [data.draw(weight) if size else 0.0 for size in counts]
    classes = classes_of([weights] * len(counts), counts)
    random = torch.tensor([[0.5, image_draw, 0.5, class_draw, 0.5]], dtype=torch.float64)
    allowed = [
        row
        for first, size, weight in zip(classes.start.tolist(), counts, weights, strict=True)
        for row in range(first, first + size)
        if weight > 0 or not any(weights)
    ]
    for way in (in_torch, in_numpy):
        assert way(random, torch.tensor([0]), classes, sum(counts), options()).index.item() in allowed
        assert way(random, torch.tensor([0]), None, sum(counts), options()).index.item() < sum(counts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_last_number_of_either_precision_stays_in_the_bank(dtype):
    last = torch.tensor([torch.nextafter(torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype))])
    random = last.expand(1, COLUMNS)
    for size in (1, 3, 2**24 + 1):
        found = draw(random, torch.tensor([0]), None, size, options()).index.item()
        assert size - 2 <= found < size  # a float32 does not tell 2 ** 24 from its successor


@WAYS
@pytest.mark.parametrize("weights", [[-1.0, 2.0, 0.0], [0.5, -1.0, 0.0], [torch.nan, 1.0, 0.0], [-1.0, -1.0, -1.0]])
def test_labels_that_make_no_sense_never_point_outside_the_bank(way, weights):
    """On CUDA that would stop the process, and no look at the labels prevents it there."""
    classes = classes_of(torch.eye(3), [0, 4, 0])
    for value in (0.0, 0.5, LAST):
        random = torch.full((1, COLUMNS), value, dtype=torch.float64)
        for some in (False, True):
            drawn = way(random, torch.tensor([weights]), classes, 4, options(some_have_no_partner=some))
            assert 0 <= int(drawn.index) < 4


# The parts


@pytest.mark.parametrize("convert", [lambda tensor: tensor, torch.Tensor.numpy], ids=["torch", "numpy"])
def test_row_of_soft_labels_is_the_weighted_row(convert):
    matrix = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0.25, 0.75]])
    labels = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0.5, 0.25, 0.25], [0, 1, 1]])
    expected = [[1, 0, 0], [0, 0.25, 0.75], [0.625, 0.1875, 0.1875], [0.5, 0.75, 0.75]]
    assert row_of(convert(labels), convert(matrix)).tolist() == expected
    assert row_of(convert(torch.tensor([2, 0])), convert(matrix)).tolist() == [[0, 0.25, 0.75], [1, 0, 0]]
    assert row_mass(convert(labels)).tolist() == [1, 1, 1, 2]
    assert row_mass(convert(torch.tensor([2, 0]))) == 1


def test_under_autocast_no_digit_is_lost():
    labels, matrix = torch.rand(4, 3), torch.rand(3, 3)
    expected = row_of(labels, matrix)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(row_of(labels, matrix), expected)


@given(total=st.floats(0.1, 3), cut=st.floats(0, 1), draw_=st.floats(0, LAST))
def test_without_a_mass_every_sample_has_a_partner(total, cut, draw_):
    assume(total * cut > 0)
    cumulative = torch.tensor([[total * cut, total]], dtype=torch.float64)
    number = torch.tensor([draw_], dtype=torch.float64)
    arguments = (cumulative, torch.tensor([0, 4]), torch.tensor([4, 2]))
    index, found = draw_partner(*arguments, class_draw=number, image_draw=number)
    assert found.all()
    assert int(index) < 6
    _, found = draw_partner(*arguments, class_draw=number, image_draw=number, mass=2 * total)
    assert bool(found) == (draw_ * 2 * total < total)


def test_a_draw_by_name_remembers_itself():
    """Until a tensor is replaced, or written into; and for other batches, or a smaller bank, not at all."""
    drawn, labels = Draw(torch.rand(3), torch.arange(3), None), torch.arange(3)
    params = Params(drawn, labels, bank_size=7)
    assert params.keys() == {"lam", "index", "from_batch", "labels"}
    assert params["from_batch"].tolist() == [False] * 3
    assert draw_of(params, 3, bank_size=7, device=labels.device) is drawn
    assert params.unchanged(3, 6) is None
    assert params.unchanged(4, 7) is None
    copied = copy.deepcopy(params)
    assert type(copied) is dict
    assert torch.equal(copied["index"], params["index"])
    params["lam"] = torch.ones(3)
    assert params.unchanged(3, 7) is None
    assert draw_of(params, 3, bank_size=7, device=labels.device).lam.tolist() == [1, 1, 1]
    other = Params(drawn, labels, bank_size=7)
    other["from_batch"][1] = True
    assert draw_of(other, 3, bank_size=7, device=labels.device).from_batch.tolist() == [False, True, False]
