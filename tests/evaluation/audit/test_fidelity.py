"""How real images are, against independent references."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.fidelity import Tables, distances, fid, fid_refused, kid, measure_fidelity, prdc
from genmix_transforms.evaluation.audit.halving import halvings


@pytest.fixture(scope="module")
def points():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 6, generator=generator), 0.7 * torch.randn(30, 6, generator=generator) + 0.3


def by_hand(real, synthetic, nearest):
    """Precision, recall, density, coverage, image by image."""

    def radius(rows, one):
        return sorted(float(np.linalg.norm(row - rows[one])) for row in rows)[nearest]

    real, synthetic = real.double().numpy(), synthetic.double().numpy()
    real_radius = [radius(real, one) for one in range(len(real))]
    synthetic_radius = [radius(synthetic, one) for one in range(len(synthetic))]
    apart = [[float(np.linalg.norm(a - b)) for b in synthetic] for a in real]
    rows, columns = range(len(real)), range(len(synthetic))
    return (
        sum(any(apart[i][j] < real_radius[i] for i in rows) for j in columns) / len(synthetic),
        sum(any(apart[i][j] < synthetic_radius[j] for j in columns) for i in rows) / len(real),
        sum(apart[i][j] < real_radius[i] for i in rows for j in columns) / nearest / len(synthetic),
        sum(any(apart[i][j] < real_radius[i] for j in columns) for i in rows) / len(real),
    )


@pytest.mark.parametrize("nearest", [3, 5])
def test_prdc_is_what_brute_force_gives(points, nearest):
    assert prdc(*points, nearest=nearest) == pytest.approx(by_hand(*points, nearest), abs=1e-9)


def test_of_the_real_images_themselves(points):
    found = prdc(points[0], points[0])
    assert (found.precision, found.recall, found.density, found.coverage) == (1, 1, 1, 1)
    # The unbiased estimate counts an image's likeness to itself between the sets only: below 0.
    assert kid(points[0], points[0]) < 0
    assert fid(points[0], points[0]) == pytest.approx(0, abs=1e-8)


def test_no_number_depends_on_the_order(points):
    real, synthetic = points
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for number in (prdc, kid, fid):
        assert number(real[order], synthetic.flip(0)) == pytest.approx(number(real, synthetic))


def test_kid_is_that_of_torchmetrics(points):
    real, synthetic = points[0][:30].double(), points[1].double()
    assert kid(real, synthetic) == pytest.approx(float(poly_mmd(real, synthetic, degree=3, gamma=None, coef=1.0)))


def test_fid_is_that_of_a_matrix_root(points):
    sqrtm = pytest.importorskip("scipy.linalg").sqrtm
    first, second = (one.double().numpy() for one in points)
    ours, theirs = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    apart = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
    expected = apart + np.trace(ours + theirs - 2 * sqrtm(ours @ theirs).real)
    assert fid(*points) == pytest.approx(expected, rel=1e-7)


def test_fid_is_refused_where_a_covariance_is_mostly_noise(points):
    assert not fid_refused(12, 6)
    assert "at least 12 images of each kind, there are 11" in fid_refused(11, 6)
    with pytest.raises(InputError, match="KID has no such limit"):
        fid(points[0], points[1][:11])


def test_distances_of_equal_rows_are_nothing():
    rows = torch.rand(5, 1280, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 100
    found = distances(rows, rows)
    assert (found.diagonal() == 0).all()
    assert torch.allclose(found.sqrt(), torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist"), atol=1e-6)


@pytest.mark.parametrize("number", [prdc, kid, fid])
def test_features_that_do_not_fit(points, number):
    with pytest.raises(InputError, match="one extractor"):
        number(points[0], points[1][:, :5])
    with pytest.raises(InputError, match="at least 2"):
        number(points[0], points[1][:1])


def test_too_few_for_a_neighborhood(points):
    with pytest.raises(InputError, match="at least 6 images of each kind, got 40 real and 5 synthetic"):
        prdc(points[0], points[1][:5])


def measured(real, synthetic, **options):
    nothing = torch.zeros(len(real), dtype=torch.int64), torch.zeros(len(synthetic), dtype=torch.int64)
    halves = list(halvings(nothing[0], None, nothing[1], classes=1, draws=20, seed=0))
    return {one.name: one for one in measure_fidelity(Tables.of(real, synthetic), halves, **options)}


def test_a_bank_of_the_same_kind_is_as_real_as_real_halves():
    generator = torch.Generator().manual_seed(0)
    real, same = torch.randn(120, 6, generator=generator), torch.randn(120, 6, generator=generator)
    for one in measured(real, same).values():
        assert not one.refused
        assert not one.differs, one.text


def test_each_number_sees_its_fault():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(120, 6, generator=generator)
    far = measured(real, real + 5)
    assert far["KID x 1000"].differs
    assert far["FID"].low > far["FID"].real_high
    assert far["precision"].value < 0.05
    narrow = measured(real, 0.01 * real)
    assert narrow["precision"].value > 0.9
    assert narrow["coverage"].high < narrow["coverage"].real_low
    assert narrow["recall"].value < 0.2


def test_too_few_images_are_said():
    few = measured(torch.randn(8, 6), torch.randn(8, 6))
    assert "takes more than 5 images on each side, there are 4" in few["precision"].refused
    assert not few["KID x 1000"].refused
    assert "at least 12 images" in few["FID"].refused
    assert all(one.refused for one in measured(torch.randn(2, 6), torch.randn(2, 6)).values())
