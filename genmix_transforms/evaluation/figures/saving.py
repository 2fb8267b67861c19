"""All figures of a comparison as files, with what they show and where their numbers come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures.confusion import confusion_figure
from genmix_transforms.evaluation.figures.evolution import evolution_figure
from genmix_transforms.evaluation.figures.examples import examples_figure
from genmix_transforms.evaluation.figures.forest import forest_figure
from genmix_transforms.evaluation.figures.points import FeaturePoints
from genmix_transforms.evaluation.figures.scores import scores_figure
from genmix_transforms.evaluation.figures.style import FORMATS, LAMBDA, rendered
from genmix_transforms.evaluation.figures.tsne import tsne_figure
from genmix_transforms.evaluation.outcomes import Outcomes
from genmix_transforms.evaluation.results import Results
from genmix_transforms.evaluation.statistics import Difference
from genmix_transforms.evaluation.tables import missing_notes
from genmix_transforms.files.atomic import write_bytes, write_text
from genmix_transforms.files.checks import check_output_folder, whole_number
from genmix_transforms.transforms import GenMix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = "figures.md"

_METRIC = "macro_f1"

_SHOWN = {
    "scores": "Macro F1 of every arm. Small marks: the seeds; large ones: their mean, with its 95 % interval over seeds"
    " and test cases. Dashed: the baseline's mean.",
    "forest": "Differences in macro F1 with their 95 % intervals (paired, over seeds and test cases) and p after Holm's"
    " correction. Filled: p below 0.05. Gray: true differences that this comparison would miss more often than in one"
    " case of five.",
    "confusion": "Confusion matrices. Rows are the true classes and add up to 100 %; the mean over the seeds, the folds"
    " of each pooled.",
    "examples": "Real patches, and for each generator synthetic ones and what GenMix makes of the real patch in the"
    f" same column; below it the weight {LAMBDA} of the partner, and the partner's class.",
    "tsne": "t-SNE of the features before the classifier's last layer. Dots: real images; triangles: synthetic ones;"
    " circles: GenMix's. Each panel is an embedding of its own: its axes mean nothing in another.",
    "evolution": "Images of fixed seeds while the generator was trained, by the number of training images it had seen.",
}
"""What each figure shows, in the order of the page."""


def save_figures(
    results: Results,
    folder: str | Path,
    *,
    train: PatchDataset | None = None,
    genmix: Mapping[str, GenMix] | None = None,
    points: Mapping[str, FeaturePoints] | None = None,
    run: str | Path | None = None,
    formats: Sequence[str] = FORMATS,
    dpi: int = 200,
) -> tuple[Path, ...]:
    """Write every figure that can be drawn, and a page of captions.

    From the results alone: ``scores`` (every seed of every arm), ``confusion``, and ``forest`` where there are arms to
    compare. With more: ``examples`` (the paper's Fig. 3), ``tsne`` (Fig. 4) and ``evolution`` (Fig. 2). All are drawn
    before the first file is written; each file is whole or not there. ``figures.md``, written last, says what each
    shows and what its numbers come from; the files themselves hold that line too, and no date.

    Args:
        results: of a comparison.
        folder: made if it does not exist; files of these names in it are replaced.
        train: the real patches of ``examples``.
        genmix: for ``examples``, the transform of each generator by the name to show.
        points: for ``tsne``, the points of each arm, see :func:`feature_points`.
        run: for ``evolution``, the folder of a training run.
        formats: endings of the files, of "pdf", "svg" and "png".
        dpi: of the ``.png`` files.

    Returns:
        What was written, the page last.

    Raises:
        InputError: one of ``train`` and ``genmix`` without the other, an unknown format, or what a figure refuses.
        MissingExtraError: matplotlib (for ``tsne`` scikit-learn too) is not installed.

    Example:
        >>> save_figures(results, "results/busi")  # doctest: +SKIP
    """
    folder, dpi = Path(folder), whole_number(dpi, name="dpi", least=50)
    if isinstance(formats, str) or not len(formats) or set(formats) - set(FORMATS):
        raise InputError(f"formats must be some of {', '.join(FORMATS)}, got {formats!r}")
    if (train is None) != (genmix is None):
        raise InputError("the figure of examples needs train and genmix: give both, or neither")
    check_output_folder(folder)
    figures = _from_results(results)
    if train is not None and genmix is not None:
        figures["examples"] = examples_figure(train, genmix)
    if points:
        figures["tsne"] = tsne_figure(points, results.classes)
    if run is not None:
        figures["evolution"] = evolution_figure(run)
    figures = {name: figures[name] for name in _SHOWN if name in figures}
    source = provenance(results)
    content = {
        folder / f"{name}.{kind}": rendered(figure, kind, description=f"{_SHOWN[name]} {source}", dpi=dpi)
        for name, figure in figures.items()
        for kind in dict.fromkeys(formats)
    }
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in content.items():
        write_bytes(path, data)
    page = _page(list(figures), source, formats, notes=missing_notes(results.missing))
    write_text(folder / CAPTIONS, page)
    return (*content, folder / CAPTIONS)


def provenance(results: Results) -> str:
    """One line: the data, the test cases, folds and seeds, and what made them."""
    outcomes = next(iter(results.outcomes.values()), None)
    facts = [
        _fact("Data", results.data.get("name")),
        _fact("training set", _first(results.data.get("fingerprints"))),
        "" if outcomes is None else f"{len(outcomes.labels)} test cases, {_count(len(outcomes.seeds), 'seed')}",
        _count(len(results.labels), "fold") if len(results.labels) > 1 else "",
        *(f"{name} {version}" for name, version in results.versions.items() if name in ("genmix_transforms", "torch")),
    ]
    return "; ".join(fact for fact in facts if fact) + "."


def confusions(outcomes: Outcomes) -> NDArray[np.int64]:
    """Images by true and predicted class, ``(seeds, K, K)``, of all folds together.

    Example:
        >>> outcomes = Outcomes(classes=("cyst", "metastasis"), labels=np.array([0, 1]), groups=np.arange(2),
        ...                     seeds=(0,), predictions=np.array([[0, 0]]))
        >>> confusions(outcomes).tolist()
        [[[1, 0], [1, 0]]]
    """
    classes, seeds = len(outcomes.classes), len(outcomes.seeds)
    found = np.zeros((seeds, classes, classes), dtype=np.int64)
    for seed in range(seeds):
        np.add.at(found[seed], (outcomes.labels, outcomes.predictions[seed]), 1)
    return found


def _from_results(results: Results) -> dict[str, "Figure"]:
    if not results.arms:
        raise InputError("save_figures: the results have no runs, there is nothing to draw")
    estimates = {arm: scores[_METRIC] for arm, scores in results.summary().items()}
    place = next(iter(results.resampled.values())).metrics.index(_METRIC)
    figures = {
        "scores": scores_figure(
            {arm: found.observed[:, place].tolist() for arm, found in results.resampled.items()},
            intervals={arm: (one.low, one.high) for arm, one in estimates.items() if not np.isnan(one.margin)},
            missing=results.missing,
        ),
    }
    if not results.are_several:  # of several labels an image, none is confused with another
        found = {arm: confusions(results.outcomes[arm]) for arm in results.arms}
        figures["confusion"] = confusion_figure(found, results.classes)
    families = {_title(family, rows): rows for family, rows in results.differences().items()}
    if families:
        figures["forest"] = forest_figure(families)
    return figures


def _title(family: str, rows: Sequence[Difference]) -> str:
    references = {row.reference for row in rows}
    return references.pop() if len(references) == 1 else "the arm that has the same images blended in"


def _page(names: Sequence[str], source: str, formats: Sequence[str], *, notes: Sequence[str]) -> str:
    lines = ["# Figures", ""]
    for name in names:
        lines += [f"![{name}]({name}.png)", ""] if "png" in formats else []
        lines += [f"**{name}** ({', '.join(f'[{kind}]({name}.{kind})' for kind in formats)}): {_SHOWN[name]}", ""]
    return "\n".join([*lines, *(line for note in notes for line in (note, "")), source, ""])


def _fact(name: str, value: Any) -> str:
    return f"{name} {value}" if value else ""


def _first(fingerprints: Any) -> str:
    """The training set's, cut short."""
    found = fingerprints.get("train") if isinstance(fingerprints, Mapping) else None
    return found[:12] if isinstance(found, str) else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
