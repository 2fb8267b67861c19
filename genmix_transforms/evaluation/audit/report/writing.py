"""An audit on disk: the page, the numbers, and each image's confidence; whole files or none."""

import json
from pathlib import Path

from genmix_transforms.errors import OverwriteError
from genmix_transforms.evaluation.audit.auditing import Audit, AuditSettings
from genmix_transforms.evaluation.audit.report.page import render
from genmix_transforms.evaluation.figures import style
from genmix_transforms.files.atomic import write_json, write_text
from genmix_transforms.files.checks import check_output_folder

REPORT, NUMBERS, CONFIDENCE = "report.html", "audit.json", "confidence.json"


def save_audit(audit: Audit, folder: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Write an audit: ``audit.json``, ``confidence.json`` where labels were measured, and last ``report.html``.

    The page needs nothing else: no network, no other file, no script. Its size is bounded, however large the bank is:
    images are shown at 96 pixels at most, ``settings.pairs`` pairs, some 240 images on sheets, 600 points on each map.
    The report of a bank of 64 pixels and three classes has about half a megabyte.

    Args:
        audit: what :func:`~genmix_transforms.evaluation.audit.audit` returned.
        folder: is made if need be.
        overwrite: replace the files of an earlier audit.

    Returns:
        What was written, the page last.

    Raises:
        InputError: the folder has an audit already, or cannot be one.
        MissingExtraError: a map is asked for, and scikit-learn is not installed.

    Example:
        >>> save_audit(audit(bank, splits), "audits/busi")  # doctest: +SKIP
    """
    folder = Path(folder)
    check_audit_folder(folder, overwrite=overwrite)
    check_extras(audit.settings)
    page = render(audit)
    json.dumps(audit.to_dict(), allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / NUMBERS]
    write_json(paths[0], audit.to_dict())
    if audit.quality.labels is not None:
        paths.append(folder / CONFIDENCE)
        audit.quality.labels.save(paths[-1], audit.bank)
    else:
        (folder / CONFIDENCE).unlink(missing_ok=True)  # an earlier audit's
    paths.append(folder / REPORT)
    write_text(paths[-1], page)
    return tuple(paths)


def check_audit_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that an audit cannot be written to.

    Raises:
        OverwriteError: an audit is there already, or a file in the folder's place.
        UnwritableError: it is read-only.
    """
    check_output_folder(folder)
    there = [name for name in (REPORT, NUMBERS, CONFIDENCE) if (folder / name).exists()]
    if there and not overwrite:
        raise OverwriteError(f"{folder}: {there[0]} is there already: give another folder, or --overwrite")


def check_extras(settings: AuditSettings) -> None:
    """Find out that something is not installed before the work starts.

    Raises:
        MissingExtraError: a map is asked for, and scikit-learn is not installed.
    """
    if settings.tsne:
        style.need("sklearn.manifold")
