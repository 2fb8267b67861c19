"""Who may partner whom: every preset's matrix in its values, and every matrix that is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.transforms.pairing import PRESETS, pairing_matrix


def bank_of(*counts, **options):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    classes = ["cyst", "hemangioma", "metastasis", "abscess"][: len(counts)]
    return SyntheticBank(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels, classes=classes, **options)


@pytest.mark.parametrize(
    ("pairing", "counts", "expected"),
    [
        ("any", (2, 1, 5), [[0.25, 0.125, 0.625]] * 3),
        ("any", (4, 0, 12), [[0.25, 0, 0.75]] * 3),
        ("balanced", (2, 1, 5), [[1 / 3] * 3] * 3),
        ("same", (2, 1, 5), [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ("other", (2, 1, 5), [[0, 1 / 6, 5 / 6], [2 / 7, 0, 5 / 7], [2 / 3, 1 / 3, 0]]),
        ("other", (4, 0, 12), [[0, 0, 1], [0.25, 0, 0.75], [1, 0, 0]]),
    ],
)
def test_presets(pairing, counts, expected):
    matrix = pairing_matrix(pairing, bank_of(*counts))
    assert matrix.dtype == torch.float32
    assert torch.allclose(matrix, torch.tensor(expected, dtype=torch.float32), atol=1e-7)


# The liver lesions of the paper: 433 cysts, 70 hemangiomas, 178 metastases.
INVERSE = np.array([1 / 433, 1 / 70, 1 / 178]) / (1 / 433 + 1 / 70 + 1 / 178)


@pytest.mark.parametrize("given_counts", [(433, 70, 178), [433.0, 70.0, 178.0], torch.tensor([433, 70, 178])])
def test_inverse_to_the_real_counts(given_counts):
    """Whatever the bank has of each."""
    matrix = pairing_matrix("inverse", bank_of(1, 9, 3), class_counts=given_counts)
    np.testing.assert_allclose(matrix, np.stack([INVERSE] * 3), atol=1e-6)


def test_inverse_to_the_counts_that_the_bank_records():
    recorded = {"training_set": {"class_counts": {"metastasis": 178, "cyst": 433, "hemangioma": 70}}}
    bank = bank_of(1, 9, 3, provenance=recorded)
    np.testing.assert_allclose(pairing_matrix("inverse", bank)[1], INVERSE, atol=1e-6)
    given_counts = pairing_matrix("inverse", bank, class_counts=(1, 1, 2))  # goes before what is recorded
    assert given_counts[0].tolist() == pytest.approx([0.4, 0.4, 0.2])


OWN = [[0.5, 0.5, 0], [0, 1, 0], [0.25, 0.25, 0.5]]


@pytest.mark.parametrize(
    ("pairing", "redrawn", "skipped"),
    [
        ("any", [[0.25, 0, 0.75]] * 3, [[0.25, 0, 0.75]] * 3),
        ("balanced", [[0.5, 0, 0.5]] * 3, [[1 / 3, 0, 1 / 3]] * 3),
        ("inverse", [[0.75, 0, 0.25]] * 3, [[3 / 34, 0, 1 / 34]] * 3),
        ("same", [[1, 0, 0], [0.25, 0, 0.75], [0, 0, 1]], [[1, 0, 0], [0, 0, 0], [0, 0, 1]]),
        ("other", [[0, 0, 1], [0.25, 0, 0.75], [1, 0, 0]], [[0, 0, 1], [0.25, 0, 0.75], [1, 0, 0]]),
        (OWN, [[1, 0, 0], [0.25, 0, 0.75], [1 / 3, 0, 2 / 3]], [[0.5, 0, 0], [0, 0, 0], [0.25, 0, 0.5]]),
    ],
)
def test_a_class_that_the_bank_lacks(pairing, redrawn, skipped):
    """Its share goes to the row's other classes (to the whole bank where there is none), or is left out."""
    bank, counts = bank_of(4, 0, 12), (10, 1, 30)
    for absent, expected in (("redraw", redrawn), ("skip", skipped)):
        matrix = pairing_matrix(pairing, bank, class_counts=counts, absent=absent)
        assert torch.allclose(matrix, torch.tensor(expected, dtype=torch.float32), atol=1e-6)


@pytest.mark.parametrize("pairing", ["other", [[0, 1, 0], [1, 0, 0], [0, 0, 1]]])
def test_nothing_to_pair_with(pairing):
    bank = bank_of(0, 3, 0)
    assert pairing_matrix(pairing, bank, absent="redraw").tolist() == [[0, 1, 0]] * 3
    row_of_the_only_class = pairing_matrix(pairing, bank, absent="skip")[1]
    assert row_of_the_only_class.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.5, 0.5, 0], [0, 0.25, 0.75], [1, 0, 0]],
        np.array([[0.5, 0.5, 0], [0, 0.25, 0.75], [1, 0, 0]]),
        torch.tensor([[0.5, 0.5, 0], [0, 0.25, 0.75], [1, 0, 0]], dtype=torch.bfloat16),
    ],
    ids=["list", "array", "tensor"],
)
def test_a_matrix_of_ones_own(matrix):
    found = pairing_matrix(matrix, bank_of(1, 1, 1))
    assert found.tolist() == [[0.5, 0.5, 0], [0, 0.25, 0.75], [1, 0, 0]]
    assert found.dtype == torch.float32


def test_a_matrix_may_leave_out_what_the_bank_lacks():
    matrix = [[0.5, 0, 0.5], [1, 0, 0], [0, 0, 1]]
    assert pairing_matrix(matrix, bank_of(1, 0, 1)).tolist() == matrix


def test_a_matrix_rounded_to_single_precision_still_sums_to_one():
    matrix = torch.full((3, 3), 1 / 3, dtype=torch.float32)
    assert torch.allclose(pairing_matrix(matrix, bank_of(1, 1, 1)).sum(dim=1), torch.ones(3))


@given(
    counts=st.lists(st.integers(0, 1000), min_size=2, max_size=4).filter(any),
    pairing=st.sampled_from(PRESETS),
    absent=st.sampled_from(["redraw", "skip"]),
)
def test_every_preset_is_row_stochastic_and_draws_only_what_is_there(counts, pairing, absent):
    matrix = pairing_matrix(pairing, bank_of(*counts), class_counts=range(1, len(counts) + 1), absent=absent)
    if absent == "redraw" or all(counts):
        assert torch.allclose(matrix.sum(dim=1), torch.ones(len(counts)))
    else:
        assert bool((matrix.sum(dim=1) < 1 + 1e-6).all())
    assert bool((matrix >= 0).all())
    assert not matrix[:, torch.tensor(counts) == 0].any()


@pytest.mark.parametrize(
    ("pairing", "counts", "text"),
    [
        ("all", (1, 1, 1), "must be one of any, balanced, same, other, inverse or a matrix, got 'all'"),
        ("any", (0, 0, 0), "the bank is empty"),
        ("same", (2, 0, 1), r"'same' draws from hemangioma, but the bank has no images of it \(it has .*'cyst': 2"),
        ("same", (0, 0, 1), "draws from cyst, hemangioma, but"),
        ("balanced", (2, 0, 1), "'balanced' draws from hemangioma, but .*absent='redraw' or absent='skip'"),
        ("other", (0, 3, 0), "'other': the bank has no class other than hemangioma"),
        ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], (1, 1, 0), "pairing='matrix' draws from metastasis.*choose pairing='any'"),
        ([[1.0]], (1, 1, 1), r"must be 3 x 3, got \(1, 1\)"),
        ([1, 0, 0], (1, 1, 1), r"must be 3 x 3, got \(3,\)"),
        ([[0.5, 0.4, 0], [1, 0, 0], [0, 0, 1]], (1, 1, 1), r"rows with the sums \[0.9, 1.0, 1.0\]"),
        ([[1.5, -0.5, 0], [1, 0, 0], [0, 0, 1]], (1, 1, 1), "must be probabilities that sum to 1"),
        ([[float("nan"), 1, 0], [1, 0, 0], [0, 0, 1]], (1, 1, 1), "must be probabilities"),
        ([["a", "b", "c"]] * 3, (1, 1, 1), "must be a name or a matrix of numbers"),
        ([[1, 0, 0], [1, 0], [1]], (1, 1, 1), "must be a name or a matrix of numbers"),
        (None, (1, 1, 1), "must be a name or a matrix of numbers"),
        ({"cyst": 1}, (1, 1, 1), "must be a name or a matrix of numbers"),
    ],
)
def test_refused(pairing, counts, text):
    with pytest.raises(InputError, match=f"GenMix: .*{text}"):
        pairing_matrix(pairing, bank_of(*counts))


@pytest.mark.parametrize("absent", ["ignore", None, 1])
def test_absent_is_one_of_three(absent):
    with pytest.raises(InputError, match="GenMix: absent must be one of error, redraw, skip, got"):
        pairing_matrix("any", bank_of(1, 1, 1), absent=absent)


def test_inverse_names_the_class_that_the_bank_lacks():
    with pytest.raises(InputError, match="'inverse' draws from hemangioma"):
        pairing_matrix("inverse", bank_of(3, 0, 3), class_counts=(10, 1, 30))


@pytest.mark.parametrize(
    "provenance",
    [{}, {"training_set": None}, {"training_set": {"class_counts": None}}, {"training_set": []},
     {"training_set": {"class_counts": {"cyst": 1, "metastasis": 2}}}],
)  # fmt: skip
def test_inverse_without_the_real_counts(provenance):
    with pytest.raises(InputError, match=r"needs to know how often the real data has .*give class_counts"):
        pairing_matrix("inverse", bank_of(1, 1, 1, provenance=provenance))


@pytest.mark.parametrize(
    "counts",
    [(1, 2), (1, 2, 3, 4), (1, 0, 3), (1, -1, 3), (1, float("nan"), 3), (1, float("inf"), 3), ("a", 1, 2), 5, (None,)],
)
def test_inverse_to_counts_that_are_none(counts):
    with pytest.raises(InputError, match="must be 3 positive numbers, one for each of cyst, hemangioma, metastasis"):
        pairing_matrix("inverse", bank_of(1, 1, 1), class_counts=counts)
