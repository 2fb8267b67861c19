"""Read arrays out of a pickle without unpickling it.

The project never unpickles: a pickle is a program, and Python's unpickler imports whatever it names and calls it.
NVIDIA's networks, however, exist as pickles only. This file reads them as a language of its own, of which it knows the
few words that such files need. Why that is safe:

- Python's ``pickle`` is not used. Nothing is imported, no attribute is looked up, no class is made and nothing is
  called by a name from the file: a name is a piece of text, compared with the keys of :data:`KNOWN`, and each of
  these stands for a step written out below. Every other name is refused, and so is every other opcode: persistent ids,
  the extension registry, out-of-band buffers, and the text opcodes of protocols 0 and 1.
- What comes out are plain values (None, bool, int, float, str, bytes, list, tuple, dict with str keys),
  :class:`StoredArray`, and :class:`Stored`, which holds an object's state and has no behavior. ``build_module_src``,
  the program text that the networks carry, is one str among others.
- Arrays are numbers only. A type is one of those in ``_TYPES``, so never Python objects, whose arrays would hold
  pointers; it has no fields and no subtype. An array's bytes are exactly those that its shape asks for.
- A file cannot ask for more memory than it has bytes, but for a small factor: lengths are checked against what is left
  of the file, bytes are views of the file and not copies, texts and the number of steps are limited, and no value is
  walked through or printed here, however deeply it is nested.

Source of the format: the opcodes' documentation in Python's ``pickletools``.
"""

import math
import mmap
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genmix_transforms.errors import InputError

MOST_STEPS = 1_000_000
"""A file of three networks has some 30,000; each step makes at most one value."""

LONGEST_TEXT = 4_000_000
"""Bytes of all texts together; the source code in a network has some 40,000."""

TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
"""Numbers that an array may hold: kind and bytes."""


@dataclass(eq=False)
class Stored:
    """An object of the file: the name of its class, and its state. It does nothing.

    Attributes:
        name: "module.class".
        state: what the object's ``__getstate__`` gave.
    """

    name: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class StoredArray:
    """An array of numbers, or one number.

    Attributes:
        values: a view of the file; None where the file makes an array and never fills it.
    """

    values: np.ndarray | None = None


def read_pickle(path: str | Path) -> Any:
    """Read a pickle of plain values, arrays of numbers and NVIDIA's networks.

    Args:
        path: of a pickle of protocol 2, 3 or 4.

    Returns:
        The value: plain Python, :class:`StoredArray` (the file stays open while they live) and :class:`Stored`.

    Raises:
        InputError: anything else in the file, by name; a file that is cut short or asks for too much. Nothing that the
            file names was run, or even imported.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise InputError(f"{path}: empty")
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return _Reader(content).read()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


class _Mark:
    """Where a group of values begins on the stack."""


_MARK = _Mark()


class _Reader:
    """A stack, a memory of earlier values, and a step for every opcode that is known."""

    def __init__(self, content: memoryview) -> None:
        self.content = content
        self.position = 0
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.text_left = LONGEST_TEXT
        self.encoded_left = len(content)

    def read(self) -> Any:
        if self.take(1)[0] != 0x80:
            raise InputError("not a pickle of protocol 2, 3 or 4")
        self.position = 0
        for _ in range(MOST_STEPS):
            code = self.take(1)[0]
            if code == ord("."):
                return self.pop()
            step = _STEPS.get(chr(code))
            if step is None:
                name = next((known.name for known in pickletools.opcodes if known.code == chr(code)), "unknown")
                raise refusal(f"the opcode {name} ({code:#04x})")
            step(self)
        raise refusal(f"more than {MOST_STEPS:,} steps")

    # What comes next in the file.

    def take(self, count: int) -> memoryview:
        if count > len(self.content) - self.position:
            raise InputError(f"cut short: at byte {self.position} it says that {count} more follow")
        self.position += count
        return self.content[self.position - count : self.position]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        start = self.position
        while self.take(1)[0] != ord("\n"):
            if self.position - start > 200:
                raise refusal("a name of more than 200 characters")
        return _decode(self.content[start : self.position - 1])

    def text(self, length: int) -> str:
        self.text_left -= length
        if self.text_left < 0:
            raise refusal(f"more than {LONGEST_TEXT:,} bytes of text")
        return _decode(self.take(length))

    def protocol(self) -> None:
        if (protocol := self.take(1)[0]) not in (2, 3, 4):
            raise refusal(f"protocol {protocol} (official files have 2, 3 or 4)")

    def long(self) -> int:
        if (length := self.take(1)[0]) > 8:
            raise refusal("a whole number of more than 8 bytes")
        return int.from_bytes(self.take(length), "little", signed=True)

    # The stack.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise refusal("a step that finds no value to work on")
        return self.stack[-1]

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def some(self, count: int) -> tuple[Any, ...]:
        return tuple([self.pop() for _ in range(count)][::-1])

    def since_mark(self) -> list[Any]:
        for depth in range(len(self.stack) - 1, -1, -1):
            if self.stack[depth] is _MARK:
                values = self.stack[depth + 1 :]
                del self.stack[depth:]
                return values
        raise refusal("the end of a group that has no beginning")

    def remember(self, key: int) -> None:
        self.memory[key] = self.top()

    def recall(self, key: int) -> None:
        if key not in self.memory:
            raise refusal("a value that was never made")
        self.push(self.memory[key])

    # Values made of others.

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise refusal("a list's values without a list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(values) % 2 or not all(isinstance(key, str) for key in values[::2]):
            raise refusal("a dict whose keys are not texts")
        target.update(zip(values[::2], values[1::2], strict=True))

    def name(self, module: Any, name: Any) -> None:
        text = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "a name that is no text"
        if text.startswith("torch_utils."):
            raise InputError(
                "a pickle of StyleGAN2-ADA or StyleGAN3 (it names torch_utils), of which nothing was run; this release "
                "reads StyleGAN of version 1"
            )
        if text not in KNOWN:
            raise refusal("".join(character if character.isprintable() else "?" for character in text[:200]))
        self.push(_Name(text, KNOWN[text]))

    def make(self) -> None:
        """REDUCE and NEWOBJ: a value, of a known name and its arguments."""
        name, arguments = self.some(2)
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise refusal("a call of something that is no name")
        self.push(name.make(self, name.text, arguments))

    def make_stored(self, name: str, arguments: tuple[Any, ...]) -> Stored:
        if arguments:
            raise refusal(f"{name} with arguments")
        return Stored(name)

    def make_dict(self, name: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if arguments:
            raise refusal(f"{name} with arguments")
        return {}

    def make_bytes(self, name: str, arguments: tuple[Any, ...]) -> memoryview:
        match arguments:
            case (str(text), "latin1" | "latin-1") if len(text) <= self.encoded_left:
                # One text may be encoded again and again: what comes of it has to fit into the file all the same.
                self.encoded_left -= len(text)
                try:
                    return memoryview(text.encode("latin-1"))
                except UnicodeEncodeError:
                    pass
        raise refusal("a text that is no bytes")

    def make_array(self, name: str, arguments: tuple[Any, ...]) -> StoredArray:
        match arguments:
            case (_Name(text="numpy.ndarray"), (0,), _):
                return StoredArray()
        raise refusal("an array of another class than numpy's")

    def make_type(self, name: str, arguments: tuple[Any, ...]) -> "_Type":
        match arguments:
            case (str(code), _, _) if code in TYPES:
                return _Type(code)
        raise refusal("an array of something else than numbers")

    def make_scalar(self, name: str, arguments: tuple[Any, ...]) -> StoredArray:
        match arguments:
            case (_Type() as kind, memoryview() as content):
                return StoredArray(_numbers(kind, (), content, fortran=False))
        raise refusal("a number of an unknown type")

    def make_nothing(self, name: str, arguments: tuple[Any, ...]) -> None:
        raise refusal(f"a call of {name}")

    def build(self) -> None:
        """BUILD: give an object its state."""
        state = self.pop()
        match self.top(), state:
            case Stored() as stored, dict():
                stored.state = state
            case _Type(order=None) as kind, (3, str(order), None, None, None, -1, -1, 0) if order in ("<", ">", "|"):
                kind.order = order
            case StoredArray(values=None) as array, (
                1,
                tuple(shape),
                _Type() as kind,
                fortran,
                memoryview() as content,
            ):
                array.values = _numbers(kind, shape, content, fortran=bool(fortran))
            case _:
                raise refusal("a state that its object cannot have")


@dataclass(frozen=True)
class _Name:
    """A known name, and how a value is made of it."""

    text: str
    make: Callable[[_Reader, str, tuple[Any, ...]], Any]


@dataclass(eq=False)
class _Type:
    """A type of numbers; its byte order comes later."""

    code: str
    order: str | None = None


_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")

KNOWN: dict[str, Callable[[_Reader, str, tuple[Any, ...]], Any]] = {
    **{f"{module}._reconstruct": _Reader.make_array for module in _ARRAYS},
    **{f"{module}.scalar": _Reader.make_scalar for module in _ARRAYS},
    "numpy.ndarray": _Reader.make_nothing,  # an argument of _reconstruct
    "numpy.dtype": _Reader.make_type,
    "_codecs.encode": _Reader.make_bytes,  # how protocol 2 writes bytes
    "collections.OrderedDict": _Reader.make_dict,
    "dnnlib.EasyDict": _Reader.make_dict,
    "dnnlib.util.EasyDict": _Reader.make_dict,
    "dnnlib.tflib.network.Network": _Reader.make_stored,
}
"""Every name that a file may hold, and what stands for it here."""

_STEPS: dict[str, Callable[[_Reader], Any]] = {
    "\x80": _Reader.protocol,
    "\x95": lambda reader: reader.take(8),  # FRAME, a hint of how much to read ahead
    # Plain values.
    "N": lambda reader: reader.push(None),
    "\x88": lambda reader: reader.push(True),
    "\x89": lambda reader: reader.push(False),
    "J": lambda reader: reader.push(reader.number("<i")),
    "K": lambda reader: reader.push(reader.number("<B")),
    "M": lambda reader: reader.push(reader.number("<H")),
    "\x8a": lambda reader: reader.push(reader.long()),
    "G": lambda reader: reader.push(reader.number(">d")),
    "\x8c": lambda reader: reader.push(reader.text(reader.number("<B"))),
    "X": lambda reader: reader.push(reader.text(reader.number("<I"))),
    "\x8d": lambda reader: reader.push(reader.text(reader.number("<Q"))),
    "C": lambda reader: reader.push(reader.take(reader.number("<B"))),
    "B": lambda reader: reader.push(reader.take(reader.number("<I"))),
    "\x8e": lambda reader: reader.push(reader.take(reader.number("<Q"))),
    # Containers.
    "(": lambda reader: reader.push(_MARK),
    "]": lambda reader: reader.push([]),
    "a": lambda reader: reader.append([reader.pop()]),
    "e": lambda reader: reader.append(reader.since_mark()),
    "}": lambda reader: reader.push({}),
    "s": lambda reader: reader.set_items(list(reader.some(2))),
    "u": lambda reader: reader.set_items(reader.since_mark()),
    ")": lambda reader: reader.push(()),
    "t": lambda reader: reader.push(tuple(reader.since_mark())),
    "\x85": lambda reader: reader.push(reader.some(1)),
    "\x86": lambda reader: reader.push(reader.some(2)),
    "\x87": lambda reader: reader.push(reader.some(3)),
    # Memory.
    "q": lambda reader: reader.remember(reader.number("<B")),
    "r": lambda reader: reader.remember(reader.number("<I")),
    "\x94": lambda reader: reader.remember(len(reader.memory)),
    "h": lambda reader: reader.recall(reader.number("<B")),
    "j": lambda reader: reader.recall(reader.number("<I")),
    # Names and what is made of them: GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ, BUILD.
    "c": lambda reader: reader.name(reader.line(), reader.line()),
    "\x93": lambda reader: reader.name(*reader.some(2)),
    "R": _Reader.make,
    "\x81": _Reader.make,
    "b": _Reader.build,
}


def _numbers(kind: _Type, shape: tuple[Any, ...], content: memoryview, *, fortran: bool) -> np.ndarray:
    if kind.order is None:
        raise refusal("numbers without a byte order")
    dtype = np.dtype(kind.order + kind.code)
    if len(shape) > 8 or not all(type(side) is int and 0 < side < 2**31 for side in shape):
        raise refusal("an array of an impossible shape")
    size = math.prod(shape) * dtype.itemsize
    if size != len(content):
        raise refusal(f"an array whose {len(content)} bytes are not the {size} of its shape")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _decode(content: memoryview) -> str:
    try:
        return str(content, "utf-8")
    except UnicodeDecodeError:
        raise refusal("a text that is no UTF-8") from None


def refusal(what: str) -> InputError:
    """The error for what no official file holds."""
    return InputError(
        f"holds {what}, which NVIDIA's pickles of StyleGAN do not: unpickling can run code, and nothing in it was run"
    )
