"""The names of arms: what is written is read again, and what has no meaning is refused."""

import shlex
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arm_names import ArmName, arm_name, check_bank_name, split_arm_name

WORDS = st.text(string.ascii_lowercase + string.digits + "-_", min_size=1)
VALUES = st.text(string.ascii_letters + string.digits + "-_.+", min_size=1)
NAMES = st.builds(
    ArmName,
    kind=WORDS,
    bank=st.one_of(st.just(""), WORDS),
    options=st.lists(st.tuples(st.one_of(st.just(""), WORDS), VALUES), max_size=3).map(tuple),
)


@given(NAMES)
def test_a_name_is_read_as_it_was_written(name):
    assert ArmName.parse(str(name)) == name
    # No shell takes anything in it for its own.
    assert shlex.quote(str(name)) == str(name)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("genmix", ("genmix", "", ())),
        ("genmix:adm", ("genmix", "adm", ())),
        ("blend@0.25", ("blend", "", (("", "0.25"),))),
        ("genmix:adm@alpha=1@pairing=same", ("genmix", "adm", (("alpha", "1"), ("pairing", "same")))),
    ],
)
def test_the_parts(text, parts):
    name = ArmName.parse(text)
    assert (name.kind, name.bank, name.options) == parts
    assert split_arm_name(text) == parts[:2]
    assert arm_name(*parts[:2]) == str(name.only())


@pytest.mark.parametrize("text", ["blend@", "blend@=1", "blend@keep=", "blend@0.2@"])
def test_an_option_without_a_name_or_a_value(text):
    with pytest.raises(InputError, match=f"the arm '{text}': after @ comes a value of its own option, or OPTION=VALUE"):
        ArmName.parse(text)


def test_a_colon_without_a_bank():
    with pytest.raises(InputError, match="'blend:@0.2': after : comes the name of a bank"):
        ArmName.parse("blend:@0.2")


@pytest.mark.parametrize("name", ["", "a:b", "a@b"])
def test_names_that_no_bank_may_have(name):
    with pytest.raises(InputError, match="a word without a colon and without an @"):
        check_bank_name(name)
    assert check_bank_name("dcgan-2 (old)") == "dcgan-2 (old)"
