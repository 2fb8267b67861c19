"""Names of a package that load on first use: who wants one of them does not import what the others need."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def load_lazily(
    package: str, homes: Mapping[str, str], *, modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        homes: the public names, and the module that each comes from.
        modules: names of the package's own modules that are attributes too, without an import of their own.

    Returns:
        The two functions. A name is looked up once: then it is an attribute like any other.

    Example:
        >>> __getattr__, __dir__ = load_lazily(__name__, {"GenMix": "genmix_transforms.transforms.genmix"})
        >>> __getattr__("GenMix").__name__
        'GenMix'
    """

    def get(name: str) -> Any:
        with _no_collection():
            if name in homes:
                value = getattr(import_module(homes[name]), name)
            elif name in modules:
                value = import_module(f"{package}.{name}")
            else:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *modules})

    return get, names


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage: imports make none, and a collection walks through all that torch has loaded (0.1 s)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
