"""The results as tables: for the screen, in Markdown, LaTeX and CSV. Numbers are made elsewhere, here they are set."""

import csv
import io
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from genmix_transforms.evaluation.statistics import Difference, Estimate

Results = Any
"""What is set: a :class:`genmix_transforms.evaluation.results.Results`. That file imports this one, not the reverse."""

_SHORT = {"accuracy": "Acc", "macro_f1": "F1", "balanced_accuracy": "Bal Acc", "auc": "AUC"}
_AGAINST = {"baseline": "the baseline", "blend": "the arm that blends in the same bank"}
_MARKS = {"baseline": "*", "blend": "+"}
_SIGNIFICANT = 0.05
_GAP = "  "
_NO_SCORE = "-"

# A backslash and braces come out of other replacements too: all at once, so that none is replaced again.
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    # In the fonts that LaTeX starts with, these are other characters.
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    # After the end of a row, a bracket or a star would be an argument of it.
    "[": "{[}", "]": "{]}", "*": "{*}",
    "--": "-{}-", "±": r"$\pm$", "\n": " ",
}  # fmt: skip


def screen(results: Results, *, width: int = 120) -> str:
    """Blocks of aligned columns, none wider than ``width`` unless two columns are; then what the numbers mean."""
    blocks = _blocks(score_rows(results, classes_last=True, with_margins=False), width)
    for family, found in results.differences().items():
        blocks.append([f"{difference_title(family)}:", *aligned(difference_rows(found))])
    notes = [*table_notes(results), *(f"Note: {warning}." for warning in results.warnings)]
    blocks.append([line for note in notes for line in textwrap.wrap(note, width, break_long_words=False)])
    return "\n\n".join("\n".join(block) for block in blocks)


def markdown(results: Results) -> str:
    """The same tables in Markdown, and what the numbers were made from."""
    parts = [markdown_table(score_rows(results))]
    for family, found in results.differences().items():
        parts += [f"{difference_title(family)}:", markdown_table(difference_rows(found))]
    parts += [_escape_markdown(note) for note in table_notes(results)]
    parts += _made_from(results)
    parts += [f"**Note:** {warning}." for warning in results.warnings]
    return "\n\n".join(parts) + "\n"


def latex(results: Results) -> str:
    r"""Tables in LaTeX (packages booktabs and, for names that are not ASCII, UTF-8 as it is by default since 2018).

    The first has the layout of the paper's Table 1: accuracy, F1, sensitivity and specificity of each class; and
    behind them balanced accuracy and AUC. The others have the differences.
    """
    scores = score_rows(results, joint_classes=False)
    names = [escape_latex(name) for name in results.classes]
    before = 1 + bool(_tuned(results)) + 2
    groups = [f"\\multicolumn{{2}}{{c}}{{{name}}}" for name in names]
    rules = [f"\\cmidrule(lr){{{before + 2 * n + 1}-{before + 2 * n + 2}}}" for n in range(len(names))]
    top = [*[""] * before, *groups, "", ""]
    above = [f"{' & '.join(top)} \\\\", " ".join(rules)]
    parts = [_latex_table(scores, caption="Scores on test images.", above=above, notes=table_notes(results))]
    for family, found in results.differences().items():
        parts.append(_latex_table(difference_rows(found), caption=f"{difference_title(family)}."))
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(parts)


def runs_csv(results: Results) -> str:
    """A line for each run: its scores are those of its fold's test part."""
    names = ["arm", "fold", "seed", "steps", "best_step", "knob", "seconds"]
    rows = [
        [*("" if (value := getattr(run, name)) is None else value for name in names), *map(_cell, scores.values())]
        for run in results.runs
        for scores in [run.scores.by_name(results.classes)]
    ]
    scores = list(results.runs[0].scores.by_name(results.classes)) if results.runs else []
    return _csv([[*names, *scores], *rows])


def summary_csv(results: Results) -> str:
    """A line for each arm and score; for a missing arm, one that says why."""
    columns = [each.name for each in fields(Estimate)]
    rows = [
        [arm, name, *map(_cell, asdict(found).values()), ""]
        for arm, scores in results.summary().items()
        for name, found in scores.items()
    ]
    rows += [[arm, "", *[""] * len(columns), reason] for arm, reason in results.missing.items()]
    return _csv([["arm", "metric", *columns, "missing"], *rows])


def differences_csv(results: Results) -> str:
    """A line for each difference, in every score over all classes."""
    rows = [
        [family, *map(_cell, asdict(one).values())]
        for metric in _SHORT
        for family, found in results.differences(metric).items()
        for one in found
    ]
    return _csv([["family", *(each.name for each in fields(Difference))], *rows])


def escape_latex(text: str) -> str:
    r"""Text as LaTeX sets it, whatever characters it has.

    Example:
        >>> print(escape_latex("50% of class_1 & [x]"))
        50\% of class\_1 \& {[}x{]}
    """
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)


def difference_title(family: str) -> str:
    """What a family of differences is called above its table."""
    return f"Difference in F1 from {_AGAINST[family]}, points"


def difference_rows(found: Sequence[Difference]) -> list[list[str]]:
    """The heading and a row for each difference, in points; p values as they are."""
    return [["arm", "less", "difference", "95 % interval", "p", "p (Holm)", "detectable"], *map(_difference, found)]


def _difference(one: Difference) -> list[str]:
    interval = _NO_SCORE if math.isnan(one.low) else f"{_points(one.low)} to {_points(one.high)}"
    detectable = _NO_SCORE if math.isnan(one.detectable) else _percent(one.detectable)
    return [one.arm, one.reference, _points(one.difference), interval, _p(one.p_single), _p(one.p), detectable]


def score_rows(
    results: Results, *, classes_last: bool = False, with_margins: bool = True, joint_classes: bool = True
) -> list[list[str]]:
    """The heading and a row for each arm.

    Args:
        results: to set.
        classes_last: the classes behind all overall scores, not behind the F1 as in the paper's table.
        with_margins: of the classes' scores too.
        joint_classes: sensitivity and specificity in one column.
    """
    marks = _marks(results)
    padding = max((len(text) for text in marks.values()), default=0)
    tuned = _tuned(results)

    def overall(names: Sequence[str], arm: str | None) -> list[str]:
        if arm is None:
            return [_SHORT[name] for name in names]
        mark = {"macro_f1": marks.get(arm, "").ljust(padding)}
        return [_estimate(summary[arm][name]) + mark.get(name, "") for name in names]

    def by_class(arm: str | None) -> list[str]:
        cells = []
        for name in results.classes:
            if arm is None:
                auc = "/AUC" if results.are_several else ""
                cells += [f"{name}\nsens/spec{auc}"] if joint_classes else ["Sens.", "Spec."]
                continue
            known = ("sensitivity", "specificity", *(["auc"] if results.are_several and joint_classes else []))
            kinds = [f"{kind}_{name}" for kind in known]
            pair = [_estimate(summary[arm][kind], margin=with_margins) for kind in kinds]
            cells += [(" / " if with_margins else "/").join(pair)] if joint_classes else pair
        return cells

    def cells(arm: str | None) -> list[str]:
        if classes_last:
            return [*overall(list(_SHORT), arm), *by_class(arm)]
        first, last = list(_SHORT)[:2], list(_SHORT)[2:]
        return [*overall(first, arm), *by_class(arm), *overall(last, arm)]

    summary = results.summary()
    heading = ["arm", *(["tuned"] if tuned else []), *cells(None)]
    rows = []
    for arm in results.order:
        if arm in results.missing:
            rows.append([arm, *[_NO_SCORE] * (len(heading) - 1)])
        else:
            rows.append([arm, *([tuned[arm]] if tuned else []), *cells(arm)])
    return [heading, *rows]


def _marks(results: Results) -> dict[str, str]:
    """By arm, a mark for each family in which its F1 differs."""
    marks: dict[str, str] = {}
    for family, found in results.differences().items():
        for one in found:
            if one.p < _SIGNIFICANT:
                marks[one.arm] = marks.get(one.arm, "") + _MARKS[family]
    return marks


def _tuned(results: Results) -> dict[str, str]:
    """By arm, the values of its tuned option; empty where no arm was tuned."""
    values = {arm: results.knobs(arm) for arm in results.arms}
    if not any(values.values()):
        return {}
    # One value a fold: beyond three, their range.
    return {
        arm: f"{knobs[0]:g} to {knobs[-1]:g}" if len(knobs) > 3 else ", ".join(f"{knob:g}" for knob in knobs) or "-"
        for arm, knobs in values.items()
    }


def table_notes(results: Results) -> list[str]:
    """What stands below a table: first what the numbers are."""
    seeds = len({run.seed for run in results.runs})
    cases, folds = sum(map(len, results.labels)), len(results.labels)
    groups = len({group for fold in results.groups for group in fold})
    images = f"{cases} test images" + (f" in {groups} groups" if results.groups else "")
    images += f", pooled over {folds} folds" if folds > 1 else ""
    over = (
        "1 seed, ± half of the 95 % interval over test cases alone: it compares trained classifiers, not methods"
        if seeds == 1
        else f"Mean over {seeds} seeds, ± half of its 95 % interval over seeds and test cases"
    )
    notes = [
        f"Per cent. {over}. {images}. F1 is the macro F1, Bal Acc the balanced accuracy, AUC the mean over the "
        "classes of each against the others."
    ]
    families = results.differences()
    for family in families:
        notes[0] += f" {_MARKS[family]}: F1 differs from that of {_AGAINST[family]} (p < 0.05 after Holm's correction)."
    if _tuned(results):
        notes[0] += " tuned: the value of the arm's option that was chosen on validation images."
    detectable = []
    for family, found in families.items():
        values = sorted(one.detectable for one in found if not math.isnan(one.detectable))
        if values:
            low, high = _percent(values[0]), _percent(values[-1])
            detectable.append(f"{low if low == high else f'{low} to {high}'} against {_AGAINST[family]}")
    if detectable:
        notes.append(
            "Smallest difference in F1 that would have been detected (80 % power, p < 0.05 uncorrected), in points: "
            + "; ".join(detectable)
            + "."
        )
    if results.recipe is not None:
        notes.append(f"The recipe is the row {results.recipe['row']}. {results.recipe['sentence']}")
    return notes + missing_notes(results.missing)


def missing_notes(missing: Mapping[str, str]) -> list[str]:
    """A sentence for each reason, with all the arms that are empty for it.

    Example:
        >>> missing_notes({"blend:adm": "no weights", "mixup": "no time", "genmix:adm": "no weights"})
        ['blend:adm, genmix:adm are empty: no weights.', 'mixup is empty: no time.']
    """
    arms: dict[str, list[str]] = {}
    for arm, reason in missing.items():
        arms.setdefault(reason, []).append(arm)
    return [f"{', '.join(some)} {'is' if len(some) == 1 else 'are'} empty: {reason}." for reason, some in arms.items()]


def _made_from(results: Results) -> list[str]:
    parts = []
    if results.data:
        counts = "; ".join(
            f"{split} {', '.join(f'{name} {count}' for name, count in classes.items())}"
            for split, classes in results.data["counts"].items()
        )
        parts.append(f"Data: {results.data['name']}, {' x '.join(map(str, results.data['shape']))}; {counts}.")
    banks: dict[str, Mapping[str, object]] = {"Bank": results.bank} if results.bank else {}
    banks.update({f"Bank {name}": bank for name, bank in results.banks.items()})
    for name, bank in banks.items():
        held = bank["counts"]
        assert isinstance(held, Mapping)
        counts = ", ".join(f"{of_class} {count}" for of_class, count in held.items())
        parts.append(f"{name}: {counts}; its generator was trained on: {bank['trained_on']}.")
    if results.protocol:
        parts.append(f"Protocol: {', '.join(f'{name} {value}' for name, value in results.protocol.items())}.")
    if results.versions:
        parts.append(f"Made with {', '.join(f'{name} {value}' for name, value in results.versions.items())}.")
    return parts


def _blocks(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Columns side by side as far as ``width`` goes, the others in further blocks, each with the arms' names."""
    widths = [max(len(line) for row in rows for line in row[column].split("\n")) for column in range(len(rows[0]))]
    blocks: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        used = widths[0] + sum(len(_GAP) + widths[other] for other in blocks[-1])
        if blocks[-1] and used + len(_GAP) + widths[column] > width:
            blocks.append([])
        blocks[-1].append(column)
    return [aligned([[row[0], *(row[column] for column in block)] for row in rows]) for block in blocks]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right; a heading may have two lines."""
    split = [cell.rpartition("\n") for cell in rows[0]]
    upper, lower = ([part[index] for part in split] for index in (0, 2))
    lines = [*([upper] if any(upper) else []), lower, *rows[1:]]
    widths = [max(len(row[column]) for row in lines) for column in range(len(lower))]
    return [
        _GAP.join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in lines
    ]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the heading first, in Markdown; all columns but the first are set to the right."""
    heading, *others = [[_escape_markdown(cell.strip()) for cell in row] for row in rows]
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape_markdown(text: str) -> str:
    return re.sub(r"([|*_\[\]\\])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


def _latex_table(
    rows: Sequence[Sequence[str]], *, caption: str, above: Sequence[str] = (), notes: Sequence[str] = ()
) -> str:
    heading, *others = [" & ".join(_latex_cell(cell.strip()) for cell in row) + r" \\" for row in rows]
    lines = [
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
        r"\toprule",
        *above,
        heading,
        r"\midrule",
        *others,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip {escape_latex(note)}" for note in notes),
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: str) -> str:
    """Intervals smaller than their scores; a minus before a number is one."""
    text = re.sub(r"(?<![\w.)}-])-(?=\d)", "$-$", escape_latex(cell))
    return re.sub(r" \$\\pm\$ ([\d.]+)", r" {\\scriptsize $\\pm$ \1}", text)


def _estimate(found: Estimate, *, margin: bool = True) -> str:
    """``72.3 ± 1.8``, in per cent; a dash where there is no score."""
    if math.isnan(found.mean):
        return _NO_SCORE
    return _percent(found.mean) + ("" if math.isnan(found.margin) or not margin else f" ± {_percent(found.margin)}")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    """With its sign; 0.0 has none."""
    if math.isnan(value):
        return _NO_SCORE
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _p(value: float) -> str:
    if math.isnan(value):
        return _NO_SCORE
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6f}"


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
