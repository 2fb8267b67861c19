"""What the theme's pages lack for readers who use a screen reader."""

from typing import Any

_SEARCH = 'data-md-component="search" role="dialog"'


def on_post_page(output: str, **_: Any) -> str:
    """MkDocs calls it for every page of HTML: a dialog has a name."""
    return output.replace(_SEARCH, f'{_SEARCH} aria-label="Search"')


def on_post_template(output_content: str, **_: Any) -> str:
    """MkDocs calls it for pages that are no page of the navigation, such as 404.html."""
    return on_post_page(output_content)
