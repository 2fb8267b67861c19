"""JSON that can be read in one way only: what two readers could understand differently is refused."""

import json
from typing import Any, NoReturn


def parse_json(raw: bytes) -> Any:
    """Parse JSON, without NaN and infinities, and without a key that an object has twice.

    Raises:
        ValueError: not JSON, not UTF-8, nested past all reason, or one of the above.

    Example:
        >>> parse_json(b'{"count": 3}')
        {'count': 3}
    """
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_each_key_once)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return content
