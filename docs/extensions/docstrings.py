"""The package's docstrings, as the reference pages need them.

They are written to be read in an editor: Sphinx roles for names, ``Example:`` in the singular. mkdocstrings reads
Markdown, and knows ``Examples:``.
"""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:py:)?(?:class|meth|func|data|attr|mod|obj):`(?P<short>~?)(?P<target>[\w.]+)`")
_EXAMPLE = re.compile(r"^(\s*)Example:[ ]*$", flags=re.MULTILINE)
_NOTE = re.compile(r"^([ ]*)\.\. note::[ ]*$", flags=re.MULTILINE)
_SOURCE = re.compile(r"^([ ]*)Source: ", flags=re.MULTILINE)


def to_markdown(text: str) -> str:
    """Roles as links (where the reference has the name) or code, and section names that mkdocstrings knows."""
    text = _ROLE.sub(_link, text)
    text = _EXAMPLE.sub(r"\1Examples:", text)
    text = _NOTE.sub(r"\1Note:", text)
    return _SOURCE.sub(r"\1**Source:** ", text)


def _link(match: re.Match[str]) -> str:
    target = match["target"]
    name = target.rpartition(".")[2] if match["short"] or target.startswith("genmix_transforms.") else target
    if not target.startswith("genmix_transforms."):
        return f"`{name}`"
    return f'<autoref identifier="{target}" optional><code>{name}</code></autoref>'


class Docstrings(Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
