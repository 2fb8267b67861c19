import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.files.strict_json import parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_can_hold_comes_back(value):
    try:
        raw = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        raw = json.dumps(value).encode()
    assert parse_json(raw) == value


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a": 1, "a": 1}', "the key 'a' is there twice"),
        (b'[{"b": {"c": 1, "d": 2, "c": 3}}]', "the key 'c' is there twice"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b"[Infinity]", "Infinity is no JSON"),
        (b"[-Infinity]", "-Infinity is no JSON"),
        (b'"\xff"', "utf-8"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"' + b"k" * 500 + b'": 1, "' + b"k" * 500 + b'": 2}', "^the key 'k{80}' is there twice$"),
    ],
)
def test_what_two_readers_could_understand_differently_is_refused(raw, message):
    with pytest.raises(ValueError, match=message):
        parse_json(raw)
