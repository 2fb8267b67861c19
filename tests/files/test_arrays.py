"""NumPy archives, in and out: what is read, and everything that is refused."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files import arrays
from genmix_transforms.files.arrays import channels_first, read_npz, write_npz

CONTENT = {
    "images": np.arange(120, dtype=np.uint8).reshape(2, 6, 10),
    "depth": np.array([[0, 65535]], dtype=np.uint16),
    "labels": np.array([0, 1]),
    "label_names": np.array(["cyst", "hémangiome"]),
    "order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "one": np.array(3),
    "none": np.zeros((0, 4), np.int32),
}


def same(left, right):
    return left.keys() == right.keys() and all(
        left[key].dtype == right[key].dtype and np.array_equal(left[key], right[key]) for key in left
    )


@pytest.fixture(params=[np.savez, np.savez_compressed], ids=["stored", "deflated"])
def archive(request, tmp_path):
    path = tmp_path / "set.npz"
    request.param(path, **CONTENT)
    return path


class Intruder:
    """Unpickling it creates a file: proof that code ran."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_reads_every_array(archive):
    assert same(read_npz(archive), CONTENT)


def test_arrays_are_the_readers_own(archive):
    """torch.from_numpy wants memory that can be written to."""
    assert all(array.flags.writeable for array in read_npz(archive).values())


def test_objects_are_refused_and_their_code_does_not_run(tmp_path):
    path, mark = tmp_path / "bad.npz", tmp_path / "mark"
    np.savez(path, images=np.zeros(3), names=np.array([Intruder(mark)], dtype=object))
    with pytest.raises(InputError, match=r"bad\.npz: array 'names' holds Python objects.*never unpickled"):
        read_npz(path)
    assert not mark.exists()
    np.load(path, allow_pickle=True)["names"]
    assert mark.exists()  # the file was armed


def test_objects_inside_records_are_refused(tmp_path):
    mark = tmp_path / "mark"
    table = np.zeros(1, dtype=[("age", np.int64), ("name", object)])
    table["name"] = [Intruder(mark)]
    np.savez(tmp_path / "bad.npz", table=table)
    with pytest.raises(InputError, match="'table' holds Python objects"):
        read_npz(tmp_path / "bad.npz")
    assert not mark.exists()


def test_pickle_under_the_name_of_an_archive(tmp_path):
    """np.load would unpickle a bare pickle whatever its name."""
    mark = tmp_path / "mark"
    (tmp_path / "bad.npz").write_bytes(pickle.dumps(Intruder(mark)))
    with pytest.raises(InputError, match=r"bad\.npz: not a readable \.npz"):
        read_npz(tmp_path / "bad.npz")
    assert not mark.exists()


def test_more_than_announced_is_refused_before_unpacking(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, zeros=np.zeros(100_000, np.uint8))
    assert path.stat().st_size < 1000
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("unpacked"))
    monkeypatch.setattr(arrays, "MAX_UNPACKED_BYTES", 100_000)  # the array's own header comes on top
    with pytest.raises(InputError, match=r"bomb\.npz: unpacks to .* GiB; at most"):
        read_npz(path)


def test_the_cap_itself_is_still_read(tmp_path, monkeypatch):
    path = tmp_path / "full.npz"
    np.savez_compressed(path, zeros=np.zeros(1000, np.uint8))
    with zipfile.ZipFile(path) as archive:
        monkeypatch.setattr(arrays, "MAX_UNPACKED_BYTES", archive.infolist()[0].file_size)
    assert read_npz(path)["zeros"].shape == (1000,)


def test_every_truncation_is_refused(archive):
    whole = archive.read_bytes()
    for length in range(0, len(whole), 7):
        archive.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"set\.npz: not a readable"):
            read_npz(archive)


def test_every_flipped_bit_is_refused_or_harmless(archive):
    """Some bits (a time stamp) carry nothing; a flip elsewhere must never give other or fewer arrays, or another error.

    One bit in 23 stands for all, to be quick.
    """
    whole = archive.read_bytes()
    refused = 0
    for bit in range(0, 8 * len(whole), 23):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        archive.write_bytes(damaged)
        try:
            read = read_npz(archive)
        except InputError:
            refused += 1
        else:
            assert same(read, CONTENT), f"bit {bit}"
    assert refused > len(whole) / 8


def test_entry_that_damage_makes_zipfile_skip(archive):
    """The length of an entry's comment in the directory: one bit more, and the next entries are jumped over."""
    whole = bytearray(archive.read_bytes())
    second = whole.index(b"PK\1\2", whole.index(b"PK\1\2") + 4)
    whole[second + 33] ^= 2
    archive.write_bytes(whole)
    with zipfile.ZipFile(archive) as members:
        assert len(members.namelist()) == 2
    with pytest.raises(InputError, match="2 of its 7 arrays are listed"):
        read_npz(archive)


def test_archive_with_a_comment_is_read(archive):
    with zipfile.ZipFile(archive, "a") as members:
        members.comment = b"made by hand, in two steps"
    assert same(read_npz(archive), CONTENT)


def test_member_that_is_no_array(archive):
    with zipfile.ZipFile(archive, "a") as members:
        members.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"'readme.txt' in it is no NumPy array"):
        read_npz(archive)


def test_array_that_announces_more_memory_than_there_is(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**17,)})
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as members:
        members.writestr("images.npy", header.getvalue() + b"\0" * 50)
    with pytest.raises(InputError, match=r"huge\.npz: not a readable"):
        read_npz(tmp_path / "huge.npz")


def test_missing_file(tmp_path):
    with pytest.raises(MissingPathError, match=r"nope\.npz: no such file"):
        read_npz(tmp_path / "nope.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"images,labels\n1,2\n", os.urandom(500)])
def test_something_else_under_the_name(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz: not a readable"):
        read_npz(tmp_path / "x.npz")


def test_single_array_under_the_name(tmp_path):
    with open(tmp_path / "x.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="not a readable"):
        read_npz(tmp_path / "x.npz")


def test_folder_under_the_name(tmp_path):
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(InputError, match="not a readable"):
        read_npz(tmp_path / "x.npz")


# --- out


def test_what_is_written_is_read_again(tmp_path):
    write_npz(tmp_path / "set.npz", CONTENT)
    assert same(read_npz(tmp_path / "set.npz"), CONTENT)
    with np.load(tmp_path / "set.npz", allow_pickle=False) as archive:  # and by NumPy
        assert same(dict(archive), CONTENT)


def test_the_same_arrays_make_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        write_npz(tmp_path / name, CONTENT)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_objects_are_not_written_and_what_was_there_stays(tmp_path):
    write_npz(tmp_path / "set.npz", CONTENT)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_npz(tmp_path / "set.npz", {"one": np.arange(3), "two": np.array([{}])})
    assert same(read_npz(tmp_path / "set.npz"), CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


# --- channels


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 2, 3), (4, 1, 2, 3)),
        ((4, 9, 9, 7), (4, 7, 9, 9)),
        ((4, 8, 9, 10), (4, 1, 8, 9, 10)),
        ((4, 8, 9, 10, 2), (4, 2, 8, 9, 10)),
        ((4, 3, 9, 9), None),
        ((4, 9), None),
        ((4, 7, 9, 9, 1), None),
        ((4, 9, 9, 9, 9), None),
    ],
)
def test_channels_stand_first_where_there_are_some(shape, expected):
    pixels = np.arange(np.prod(shape)).reshape(shape)
    found = channels_first(pixels)
    assert (None if found is None else found.shape) == expected
    if found is not None:
        assert np.shares_memory(found, pixels)
        assert np.array_equal(np.moveaxis(found, 1, -1).reshape(shape), pixels)
