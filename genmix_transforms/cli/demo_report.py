"""The page that ``genmix demo`` leaves: the picture, the tables and the next commands."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from genmix_transforms.evaluation.results import Results
from genmix_transforms.evaluation.tables import difference_rows, difference_title, score_rows, table_notes
from genmix_transforms.files.images import encode_png
from genmix_transforms.files.pages import data_uri, render_page

_ARMS = {
    "baseline": "real patches alone",
    "mixup": "real patches mixed with each other",
    "blend": "real and synthetic patches in one training set, not mixed",
    "genmix": "every real patch mixed with a synthetic one",
}

_LEFT = (
    ("generator/", "the DCGAN, its sample sheets and its checkpoint"),
    ("bank/", "the synthetic patches"),
    ("mixing.png", "the picture above"),
    ("results/", "the tables as Markdown, LaTeX, CSV and JSON, and each run"),
)


def render(
    results: Results,
    picture: Image.Image,
    *,
    described: str,
    steps: int,
    classifier_steps: int,
    commands: Sequence[str],
) -> str:
    """Draw the page, with all that it shows within it.

    Args:
        results: of the comparison; the tables have the numbers of ``results.json``.
        picture: of real, synthetic and mixed patches.
        described: the training patches in words.
        steps: that the generator was trained for.
        classifier_steps: that each classifier was trained for.
        commands: what to type next.

    Returns:
        HTML.
    """
    tables = [("Scores on test images, percent", score_rows(results, classes_last=True, with_margins=False))]
    tables += [(difference_title(family), difference_rows(found)) for family, found in results.differences().items()]
    content: dict[str, Any] = {
        "described": described,
        "steps": steps,
        "classifier_steps": classifier_steps,
        "picture": data_uri(encode_png(picture)),
        "size": picture.size,
        "classes": results.classes,
        "tables": tables,
        "notes": [*table_notes(results), *(f"Note: {warning}." for warning in results.warnings)],
        "arms": [(arm, _ARMS[arm]) for arm in results.order if arm in _ARMS],
        "commands": commands,
        "left": _LEFT,
    }
    return render_page(__package__, "demo", content)
