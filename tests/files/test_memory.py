"""What memory there is, by the machine and by the container, and work that is refused for it."""

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.files import memory
from genmix_transforms.files.memory import available_memory, check_memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GiB available, and a container of no limit."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8388608 kB\nHugepagesize: 2048 kB\n")
    (tmp_path / "memory.max").write_text("max\n")
    return tmp_path


def test_of_the_machine(machine):
    assert available_memory() == 8 * 2**30


def test_of_the_container_where_that_is_less(machine):
    (machine / "memory.max").write_text(f"{4 * 2**30}\n")
    (machine / "memory.current").write_text(f"{2 * 2**30}\n")
    (machine / "memory.stat").write_text(f"anon 5\ninactive_file {2**30}\n")
    assert available_memory() == 3 * 2**30
    (machine / "memory.max").write_text(f"{40 * 2**30}\n")
    assert available_memory() == 8 * 2**30


@pytest.mark.parametrize("text", ["", "MemAvailable:\n", "MemTotal: 5 kB\n"])
def test_where_nobody_says(machine, text):
    (machine / "meminfo").write_text(text)
    assert available_memory() is None
    check_memory(2**60, what="all", way_out="nothing")


def test_what_does_not_fit_is_refused(machine):
    check_memory(8 * 2**30, what="images", way_out="give less")
    with pytest.raises(InputError, match=r"^9 images: this needs about 9\.0 GiB of memory, and 8\.0 GiB are"):
        check_memory(9 * 2**30, what="9 images", way_out="give fewer")


def test_here():
    found = available_memory()
    assert found is None or 2**20 < found < 2**50
