"""Signatures on the reference pages in names that those pages have.

A signature may name what no page documents: an alias of a few words (``Fit``), a constant (``DPI``), a protocol that a
public class fulfills, a base class that only shares code. The alias and the constant are written out, the protocol
becomes that class, and the base class is left out.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffe import Alias, Attribute, Class, Expr, ExprCall, ExprName, Extension, Function, GriffeError, Module, Object

_PAGES = Path(__file__).resolve().parents[1] / "reference"
_NAME = re.compile(r"^::: (\S+)$", flags=re.MULTILINE)
_DEPTH = 4
"""How many aliases may stand for each other: the last of a longer chain stays."""

_STANDS_FOR = {
    **dict.fromkeys(
        ("Bank", "Merges", "Rows", "Takes", "_InMemory", "_Saves", "_TakesImages", "_Trainable"),
        "genmix_transforms.SyntheticBank",
    ),
    "Adapted": "genmix_transforms.generators.StyleGAN",
    "Mixer": "genmix_transforms.GenMix",
    **dict.fromkeys(
        ("DCGANDiscriminator", "DCGANNetwork", "StyleGANDiscriminator", "StyleGANNetwork"), "torch.nn.Module"
    ),
}
"""What a reader gives or gets, by the name that the code has for it."""


def documented() -> set[str]:
    """The names that the reference pages have, as the pages say them."""
    return {name for page in _PAGES.glob("*.md") for name in _NAME.findall(page.read_text(encoding="utf-8"))}


class PublicNames(Extension):
    """Writes out what signatures name and no page documents."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Called once the package has been read."""
        known = set()
        for name in documented():
            try:
                known.add(_own(pkg[name.partition(".")[2]]).path)
            except (GriffeError, KeyError):
                continue
        for thing in list(_objects(pkg)):
            if isinstance(thing, Function):
                for parameter in thing.parameters:
                    parameter.annotation = _written_out(parameter.annotation, pkg, known)
                    parameter.default = _written_out(_default(parameter.default, pkg), pkg, known)
                thing.returns = _written_out(thing.returns, pkg, known)
            elif isinstance(thing, Attribute):
                thing.annotation = _written_out(thing.annotation, pkg, known)
                if thing.parent is not None and thing.parent.is_class:
                    thing.value = _default(thing.value, pkg)
                thing.value = None if "instance-attribute" in thing.labels else _written_out(thing.value, pkg, known)
            elif isinstance(thing, Class):
                thing.bases = [base for base in thing.bases if _is_public(base, pkg, known)]


def _objects(holder: Object) -> Iterator[Object]:
    for member in holder.members.values():
        if not isinstance(member, Alias):
            yield member
            yield from _objects(member)


def _own(thing: Object | Alias) -> Object:
    return thing.final_target if isinstance(thing, Alias) else thing


def target(name: ExprName, pkg: Module) -> Object | None:
    """What a name of this package stands for."""
    first, _, rest = name.canonical_path.partition(".")
    if first != pkg.name or not rest:
        return None
    try:
        return _own(pkg[rest])
    except (GriffeError, KeyError):
        return None


def _is_public(base: Any, pkg: Module, known: set[str]) -> bool:
    names = [base] if isinstance(base, ExprName) else [part for part in base if isinstance(part, ExprName)]
    found = target(names[0], pkg) if names else None
    return found is None or found.path in known


def _default(value: Any, pkg: Module) -> Any:
    """A default: of a field made by a function of this package, the one that the function is given."""
    if not isinstance(value, ExprCall) or not isinstance(value.function, ExprName):
        return value
    if target(value.function, pkg) is None:
        return value
    first = value.arguments[0] if value.arguments and value.function.name == "option" else None
    return None if first is None or getattr(first, "name", None) == "help" else first


def _written_out(part: Any, pkg: Module, known: set[str], depth: int = _DEPTH) -> Any:
    """An expression with undocumented aliases and constants in full."""
    if isinstance(part, ExprName):
        found = target(part, pkg) if depth else None
        if found is not None and found.path not in known and part.name in _STANDS_FOR:
            module, _, name = _STANDS_FOR[part.name].rpartition(".")
            return ExprName(name, parent=module if module != pkg.name else pkg)
        if isinstance(found, Attribute) and found.path not in known and _is_short(found):
            return _written_out(found.value, pkg, known, depth - 1)
        return part
    if isinstance(part, Expr):
        fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        changed = {
            name: [_written_out(item, pkg, known, depth) for item in value]
            if isinstance(value, (list, tuple))
            else _written_out(value, pkg, known, depth)
            for name, value in fields.items()
            if name not in ("parent", "member_of") and isinstance(value, (Expr, list, tuple))
        }
        return dataclasses.replace(part, **changed) if changed else part
    return part


def _is_short(found: Attribute) -> bool:
    """Whether a module's name stands for a type or a constant that fits into a signature."""
    if found.parent is None or not found.parent.is_module:
        return False
    if isinstance(found.value, ExprCall) and str(found.value.function) in ("TypeVar", "get_args"):
        return False
    return found.value is not None and len(str(found.value)) < 200
