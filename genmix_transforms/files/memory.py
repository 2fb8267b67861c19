"""Memory: what this process may still take, and a refusal before work that would take more."""

import math
from pathlib import Path

from genmix_transforms.errors import InputError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Bytes that this process can take before it is killed; None where the system does not say (only Linux does).

    Within a container, the container's limit counts where it is lower than what the machine has.
    """
    found = [amount for amount in (_of_machine(), _of_container()) if amount is not None]
    return min(found, default=None)


def check_memory(needed: int, *, what: str, way_out: str) -> None:
    """Refuse work that needs more memory than there is.

    Args:
        needed: bytes.
        what: needs them: the beginning of the message.
        way_out: what to do instead: its end.

    Raises:
        InputError: there is less.

    Example:
        >>> check_memory(2**20, what="images of 1 MiB", way_out="give a smaller size")
    """
    available = available_memory()
    if available is not None and needed > available:
        raise InputError(
            f"{what}: this needs about {needed / 2**30:.1f} GiB of memory, and {available / 2**30:.1f} GiB are "
            f"available; {way_out}"
        )


def check_image_memory(shape: tuple[int, ...], *, itemsize: int, name: str) -> None:
    """Refuse images ``(N, C, *spatial)`` that do not fit into memory twice: while read, they are copied once."""
    count, *image = shape
    check_memory(
        2 * math.prod(shape) * itemsize,
        what=f"{name}: {count:,} patches of {' x '.join(map(str, image))} pixels",
        way_out="give a smaller size, or fewer patches",
    )


def _of_machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="utf-8").splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _of_container() -> int | None:
    try:
        limit = int((_CGROUP / "memory.max").read_text(encoding="utf-8"))  # "max" where there is no limit
        used = int((_CGROUP / "memory.current").read_text(encoding="utf-8"))
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines())
        cached = int(counts.get("inactive_file", 0))  # given back when it is needed
    except (OSError, ValueError):
        return None
    return max(0, limit - used + cached)
