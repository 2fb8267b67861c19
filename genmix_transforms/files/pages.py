"""Pages for people: one HTML file with all that it shows within it, drawn from a template and one common style."""

import base64
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def render_page(package: str, name: str, content: Mapping[str, Any]) -> str:
    """Fill a template of a package.

    The template extends ``page.html``, which lies beside this module: its head forbids scripts and any request, and it
    brings the common style. The package's own ``NAME.css`` comes after that.

    Args:
        package: whose folder ``page`` has the template.
        name: of the template, without ``.html``.
        content: what the template names; every name must be there. Texts are escaped.

    Returns:
        The whole page.

    Example:
        >>> render_page("my_package", "report", {"images": 12})  # doctest: +SKIP
    """
    from jinja2 import DictLoader, Environment, StrictUndefined

    templates = {file: _read(of, file) for of, file in ((__package__, "page.html"), (package, f"{name}.html"))}
    environment = Environment(
        loader=DictLoader(templates), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = _read(__package__, "page.css") + _read(package, f"{name}.css")
    return environment.get_template(f"{name}.html").render(content, style=style)


def data_uri(png: bytes) -> str:
    """An address that holds a picture itself.

    Example:
        >>> data_uri(b"1")
        'data:image/png;base64,MQ=='
    """
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _read(package: str, name: str) -> str:
    return (files(package) / "page" / name).read_text(encoding="utf-8")
