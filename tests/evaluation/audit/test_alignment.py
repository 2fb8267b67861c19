"""Pairs are laid over each other where they lie best."""

import numpy as np
import torch
from scipy import ndimage

from genmix_transforms.evaluation.audit.alignment import align
from genmix_transforms.evaluation.audit.correlation import Candidates
from genmix_transforms.evaluation.audit.transformations import warp

SMOOTH = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(3, 1, 32, 32)), (0, 0, 2, 2)))


def pairs(count):
    zero = torch.zeros(count, dtype=torch.int64)
    return Candidates(torch.arange(count), torch.arange(count), zero, zero, zero, zero, torch.ones(count))


def test_shifts_are_found_and_the_correlation_is_that_of_numpy():
    over = SMOOTH.float()
    lying = over.roll((2, -1), (-2, -1))
    lying[1] = -lying[1]
    found = align(lying, over, pairs(3), warped=False)
    torch.testing.assert_close(found.shift * 32, torch.tensor([[-2.0, 1.0]] * 3))
    torch.testing.assert_close(found.correlation, torch.tensor([1.0, -1.0, 1.0]), atol=1e-3, rtol=0)
    other = align(over, over.flip(0), pairs(1), warped=False)
    down, right = (other.shift[0] * 32).round().int().tolist()
    under = over.flip(0)[0, 0, 3 + down : 29 + down, 3 + right : 29 + right]
    expected = np.corrcoef(over[0, 0, 3:29, 3:29].flatten(), under.flatten())[0, 1]
    assert abs(float(other.correlation[0]) - expected) < 1e-4


def test_turn_and_zoom_are_found_between_those_of_the_coarse_grid():
    over = SMOOTH.float()
    found = align(warp(over, 3.0, 1 / 1.04), over, pairs(3), warped=True)
    assert found.correlation.min() > 0.98
    assert (found.angle + 3).abs().max() < 1.5
    assert (found.zoom - 1.04).abs().max() < 0.02


def test_some_pairs_are_measured_again():
    over = SMOOTH.float()
    found = align(over, over, pairs(3), warped=False)
    other = align(over.roll(2, -1), over, pairs(1), warped=False)
    both = found.replaced(torch.tensor([1]), other)
    torch.testing.assert_close(both.shift[:, 1] * 32, torch.tensor([0.0, -2.0, 0.0]))
    assert both.take(torch.tensor([1])).shift.equal(other.shift)
    assert found.shift.eq(0).all()
