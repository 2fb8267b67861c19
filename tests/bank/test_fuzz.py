"""Thousands of random changes to a bank's files: none of them gives another image, a crash or a foreign error."""

from collections import Counter

import pytest

from genmix_transforms.bank.manifest import INDEX
from tests.bank.attacks.editing import place_of
from tests.bank.attacks.fuzz import check, input_number, originals
from tests.bank.attacks.mutations import SHARDS, Input, agree, dumped, parsed


@pytest.mark.parametrize("seed", [0, 1])
def test_any_change_is_harmless_or_refused(tmp_path, seed):
    known = originals(tmp_path)
    folder = tmp_path / "changed"
    folder.mkdir()
    outcomes = Counter()
    for number in range(500):
        original, made = input_number(number, seed, known)
        try:
            outcomes[check(folder, original, made)] += 1
        except Exception as error:
            pytest.fail(f"input {number} of seed {seed} ({', '.join(made.did)}): {type(error).__name__}: {error}")
    # A fuzzer whose every input is refused at the door tests the door only.
    assert outcomes["loaded"] >= 50
    assert outcomes["refused"] >= 200


def test_unchanged_files_are_the_bank_that_was_saved(tmp_path):
    known = originals(tmp_path)
    folder = tmp_path / "unchanged"
    folder.mkdir()
    for original in known:
        for verify in (None, True, False):
            assert check(folder, original, Input(dict(original.files), verify, None)) == "loaded"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shape": [2**40] * 3},
        {"shape": [2**61] * 5},
        {"labels": "probabilities"},
        {"fills": [{"identity": "a", "first": 0, "total": 10**6}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("resident", [None, True, False])
def test_a_bank_of_no_images_that_says_anything(tmp_path, changes, resident):
    original = originals(tmp_path)[0]
    folder = tmp_path / "empty"
    folder.mkdir()
    content = {**parsed(original.files[INDEX]), "shards": [], **changes}
    made = Input({INDEX: dumped(content)}, None, resident)
    agree(made)
    assert check(folder, original, made) in ("loaded", "refused")


def test_fuzzer_would_see_another_image(tmp_path):
    """Not a bank's images: then the law above is broken, and the check says so."""
    known = originals(tmp_path)
    folder = tmp_path / "forged"
    folder.mkdir()
    files = dict(known[0].files)
    content = bytearray(files[SHARDS[1]])
    content[place_of(bytes(content), "images")] ^= 1
    files[SHARDS[1]] = bytes(content)
    made = Input(files, True, None, touched={SHARDS[1]})
    assert check(folder, known[0], made) == "refused"
    agree(made)
    made.forged = False
    with pytest.raises(AssertionError, match="other images or labels"):
        check(folder, known[0], made)
