"""Reading pickles as data: what is known comes out, everything else is refused, and nothing ever runs."""

import contextlib
import os
import pickle
import pickletools
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators.stylegan.convert.restricted_pickle import (
    KNOWN,
    LONGEST_TEXT,
    MOST_STEPS,
    Stored,
    StoredArray,
    read_pickle,
)

PLAIN = [None, True, False, 0, 255, 65535, -1, 2**40, -(2**40), 1.5, "text", "ß", b"bytes", (), (1,), (1, 2), (1, 2, 3)]
PLAIN += [(1, 2, 3, 4), [], [1], [1, 2], {}, {"a": 1}, {"a": [(1, {"b": "c"})], "d": "text"}]


def as_python(value: Any) -> Any:
    """What was read, as what was written."""
    if isinstance(value, StoredArray):
        return value.values
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return type(value)(as_python(item) for item in value)
    return {key: as_python(item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values(value: Any, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
    assert as_python(read_pickle(tmp_path / "a.pkl")) == value


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2", "|u1", "<i8", "|b1"])
def test_arrays(kind: str, protocol: int, nvidia: SimpleNamespace, tmp_path: Path) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    values = {"c": array, "fortran": np.asfortranarray(array), "scalar": array[0, 0, 1]}
    content = nvidia.dump(values, protocol=protocol)
    assert b"numpy.core.multiarray" in content  # as in the official files
    (tmp_path / "a.pkl").write_bytes(content)
    read = as_python(read_pickle(tmp_path / "a.pkl"))
    for name, value in values.items():
        assert read[name].dtype == value.dtype
        assert np.array_equal(read[name], value)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_networks_are_their_state(
    protocol: int, nvidia: SimpleNamespace, nothing_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENMIX_TEST_RAN", raising=False)
    networks = nvidia.as_networks(nvidia.generator_arrays())
    (tmp_path / "a.pkl").write_bytes(nvidia.dump(networks, protocol=protocol))
    generator, judge, average = nothing_runs(read_pickle, tmp_path / "a.pkl")
    assert {type(network) for network in (generator, judge, average)} == {Stored}
    assert average.name == "dnnlib.tflib.network.Network"
    assert average.state["version"] == 3
    assert average.state["build_module_src"].startswith("import os")
    assert "GENMIX_TEST_RAN" not in os.environ
    name, array = average.state["components"]["synthesis"].state["variables"][1]
    assert name == "noise0"
    assert np.array_equal(array.values, networks[2].components["synthesis"].variables[1][1])


def test_one_value_named_twice_is_one_value(tmp_path: Path) -> None:
    shared = [1]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps((shared, shared), 4))
    first, second = read_pickle(tmp_path / "a.pkl")
    assert first is second


class Runs:
    """Something that a hostile file would have Python call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
FLOATS = b"cnumpy\ndtype\n" + text("f4") + b"K\x00K\x01\x87R"
ORDER = b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"

HOSTILE = {
    "a command": pickle.dumps(Runs(os.system, "touch ran"), 2),
    "a command, protocol 4": pickle.dumps(Runs(os.system, "touch ran"), 4),
    "a process": pickle.dumps(Runs(subprocess.Popen, ["touch", "ran"]), 3),
    "eval": pickle.dumps(Runs(eval, "open('ran', 'w')"), 2),
    "an attribute": pickle.dumps(Runs(getattr, "a", "upper"), 4),
    "in a state": b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81"
    + pickle.dumps(Runs(os.system, "touch ran"), 2)[2:-1]
    + b"b.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x08os.sys.x\x93.",
    "numpy's own door": b"\x80\x02cnumpy.testing._private.utils\nrunstring\nX\x01\x00\x00\x00a}\x86R.",
    "numpy.load": b"\x80\x02cnumpy\nload\nX\x01\x00\x00\x00a\x85R.",
    "copyreg": b"\x80\x02ccopyreg\n_reconstructor\ncnumpy\nndarray\nc__builtin__\nobject\nN\x87R.",
    "the registry": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02K\x01Q.",
    "a persistent id as text": b"\x80\x02Pid\n.",
    "an instance": b"\x80\x02(ios\nsystem\n.",
    "an object": b"\x80\x02(cos\nsystem\no.",
    "a buffer": b"\x80\x04\x97.",
    "protocol 5": pickle.dumps([1], 5),
    "objects in an array": pickle.dumps(np.array([{}], dtype=object), 2),
    "a number that is an object": b"\x80\x03cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n"
    + text("O8")
    + b"K\x00K\x01\x87RC\x08\x00\x00\x00\x00\x00\x00\x00\x00\x86R.",
    "fields": pickle.dumps(np.zeros(2, dtype=[("a", "f4")]), 2),
    "an array's subclass": b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncos\nsystem\nK\x00\x85C\x01b\x87R.",
    "a call of ndarray": b"\x80\x03cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.",
    "an array too large": b"\x80\x03"
    + ARRAY
    + b"(K\x01J\xff\xff\xff\x7f\x85"
    + FLOATS
    + ORDER
    + b"\x89C\x04\x00\x00\x00\x00tb.",
    "an array of less than none": b"\x80\x03"
    + ARRAY
    + b"(K\x01J\xff\xff\xff\xff\x85"
    + FLOATS
    + ORDER
    + b"\x89C\x04\x00\x00\x00\x00tb.",
    "an array as long as True": b"\x80\x03"
    + ARRAY
    + b"(K\x01\x88\x85"
    + FLOATS
    + ORDER
    + b"\x89C\x04\x00\x00\x00\x00tb.",
    "an array without order": b"\x80\x03" + ARRAY + b"(K\x01K\x01\x85" + FLOATS + b"\x89C\x04\x00\x00\x00\x00tb.",
    "an array filled twice": b"\x80\x03"
    + ARRAY
    + (b"(K\x01K\x01\x85" + FLOATS + ORDER + b"\x89C\x04\x00\x00\x00\x00tb") * 2
    + b".",
    "a state for a list": b"\x80\x02]}b.",
    "a call of a list": b"\x80\x02])R.",
    "arguments of a network": b"\x80\x02cdnnlib.tflib.network\nNetwork\nK\x01\x85\x81.",
    "arguments of a dict": b"\x80\x02cdnnlib.util\nEasyDict\n]\x85\x81.",
    "keys that are numbers": b"\x80\x02}K\x01K\x01s.",
    "half an item": b"\x80\x02}(K\x01u.",
    "an item of a number": b"\x80\x02K\x01K\x01a.",
    "no value": b"\x80\x02.",
    "a group without a beginning": b"\x80\x02t.",
    "a group without an end": b"\x80\x02(.",
    "a value below the group": b"\x80\x02K\x01(\x85.",
    "nothing remembered": b"\x80\x02h\x00.",
    "a mark remembered": b"\x80\x02(q\x00.",
    "a long number": b"\x80\x02\x8a\xff" + b"\x01" * 255 + b".",
    "a longer number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "not UTF-8": b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
    "more text than there is": b"\x80\x02X\xff\xff\xff\x7fa.",
    "a name without an end": b"\x80\x02c" + b"a" * 1000 + b"\n.",
    "a text of bytes that are none": b"\x80\x02c_codecs\nencode\n" + text("€") + text("latin1") + b"\x86R.",
    "another codec": b"\x80\x02c_codecs\nencode\n" + text("a") + text("rot13") + b"\x86R.",
    "protocol 0": pickle.dumps([1], 0),
    "protocol 1": pickle.dumps([1], 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_everything_else_is_refused(
    name: str, nothing_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(HOSTILE[name])
    with pytest.raises(InputError, match=r"a\.pkl: (holds|cut short|not a pickle)"):
        nothing_runs(read_pickle, Path("a.pkl"))
    assert not (tmp_path / "ran").exists()


def test_the_refusal_names_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(HOSTILE["a command"])
    with pytest.raises(InputError, match=r"holds (posix|nt)\.system, which .* nothing in it was run"):
        read_pickle(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(HOSTILE["the registry"])
    with pytest.raises(InputError, match="the opcode EXT1"):
        read_pickle(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02c\x1b[2J\nx\n.")
    with pytest.raises(InputError, match=r"holds \?\[2J\.x"):  # nothing reaches the terminal
        read_pickle(tmp_path / "a.pkl")


def test_no_known_name_is_looked_up(tmp_path: Path, nothing_runs: Any) -> None:
    """There is no dnnlib here: its names are words of a language, not things."""
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cdnnlib.tflib.network\nNetwork\n)\x81.")
    assert nothing_runs(read_pickle, tmp_path / "a.pkl").state == {}
    assert set(KNOWN) == {
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.ndarray",
        "numpy.dtype",
        "_codecs.encode",
        "collections.OrderedDict",
        "dnnlib.EasyDict",
        "dnnlib.util.EasyDict",
        "dnnlib.tflib.network.Network",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x03B\xff\xff\xff\xff" + b"a" * 100, "it says that 4294967295 more follow"),
        (b"\x80\x04\x8e" + b"\xff" * 8 + b"a" * 100, "cut short"),
        (b"\x80\x02" + b"N" * (MOST_STEPS + 10), "more than 1,000,000 steps"),
        (b"\x80\x02" + b"]" + b"]a" * 10, "cut short"),
        (b"\x80\x02X" + (LONGEST_TEXT + 1).to_bytes(4, "little") + b"a" * (LONGEST_TEXT + 1) + b".", "bytes of text"),
        # One text, made into bytes a thousand times.
        (
            b"\x80\x02"
            + text("a" * 10_000)
            + b"q\x00"
            + (b"c_codecs\nencode\nh\x00" + text("latin1") + b"\x86R") * 1000
            + b".",
            "a text that is no bytes",
        ),
    ],
    ids=["bytes", "bytes8", "steps", "list", "text", "encode"],
)
def test_a_file_gets_no_more_memory_than_it_has_bytes(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_pickle(tmp_path / "a.pkl")


def test_nesting_is_no_danger(tmp_path: Path) -> None:
    depth = 400_000
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02N" + b"\x85" * depth + b".")
    value = read_pickle(tmp_path / "a.pkl")
    for _ in range(depth):
        (value,) = value
    assert value is None


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        read_pickle(tmp_path / "a.pkl")


@pytest.fixture
def valid(nvidia: SimpleNamespace) -> bytes:
    arrays = nvidia.generator_arrays(resolution=16, latent=2, layers=1, fmap_base=8, fmap_max=2)
    judge = nvidia.discriminator_arrays(resolution=16, fmap_base=8, fmap_max=2)
    return bytes(nvidia.dump(nvidia.as_networks(arrays, judge), protocol=3))


def test_a_truncated_file_is_refused_wherever_it_ends(valid: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.pkl"
    for end in range(1, len(valid), 97):
        file.write_bytes(valid[:end])
        with pytest.raises(InputError):
            read_pickle(file)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_raises_nothing_but_an_input_error(
    data: st.DataObject, valid: bytes, nothing_runs: Any, tmp_path: Path
) -> None:
    content = bytearray(valid)
    opcodes = st.sampled_from([ord(opcode.code) for opcode in pickletools.opcodes])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.integers(0, 4)):
            case 0:
                content[place] = data.draw(st.integers(0, 255))
            case 1:
                content[place] = data.draw(opcodes)
            case 2:
                content.insert(place, data.draw(opcodes))
            case 3:
                del content[place : place + data.draw(st.integers(1, 20))]
            case 4:
                start = data.draw(st.integers(0, len(content) - 1))
                content[place:place] = content[start : start + data.draw(st.integers(1, 60))]
    (tmp_path / "a.pkl").write_bytes(content)
    with contextlib.suppress(InputError):
        nothing_runs(read_pickle, tmp_path / "a.pkl")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    program=st.lists(st.sampled_from([opcode.code for opcode in pickletools.opcodes]), max_size=30),
    tail=st.binary(max_size=60),
)
def test_programs_of_random_opcodes(program: list[str], tail: bytes, nothing_runs: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x03" + "".join(program).encode("latin-1") + tail + b".")
    with contextlib.suppress(InputError):
        nothing_runs(read_pickle, tmp_path / "a.pkl")
