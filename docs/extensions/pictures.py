"""SVG pictures as a part of the page, so that their text has the color of the page, light or dark.

``![What it shows](../assets/name.svg)`` becomes the picture itself, with that text as its label.
"""

import re
from pathlib import Path
from typing import Any

_IMAGE = re.compile(r'<img alt="(?P<label>[^"]*)" src="(?:[^":]*/)?assets/(?P<name>[\w-]+\.svg)" ?/?>')


def on_page_content(html: str, *, config: Any, **_: Any) -> str:
    """MkDocs calls it for every page, with the Markdown turned into HTML."""
    return _IMAGE.sub(lambda image: inline(Path(config["docs_dir"]) / "assets" / image["name"], image["label"]), html)


def inline(path: Path, label: str) -> str:
    """The picture in a box that scrolls by itself where the page is narrower."""
    svg = re.sub(r' color="[^"]*"', "", path.read_text(encoding="utf-8"), count=1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return f'<span class="picture" role="group" tabindex="0" aria-label="{label}">{svg}</span>'
