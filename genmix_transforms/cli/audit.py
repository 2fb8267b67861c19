"""``genmix audit``: what is in a bank, as a verdict, a report and numbers."""

import contextlib
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from genmix_transforms.cli.command import Json
from genmix_transforms.cli.options import Data, DataOptions, Device, Pool, show_bank, takes_data_options
from genmix_transforms.cli.parameters import with_settings
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.auditing import AuditSettings

AUDIT_PANEL = "The audit"


@takes_data_options
@with_settings({"settings": AUDIT_PANEL}, settings=AuditSettings)
def audit(
    context: typer.Context,
    settings: dict[str, Any],
    options: DataOptions,
    bank: Annotated[Path, typer.Argument(help="The bank's folder.")],
    data: Data,
    pool: Pool = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html (for people), audit.json and confidence.json (for programs)."),
    ] = None,
    marked: Annotated[
        Path | None, typer.Option(help="Write the bank here with the findings: distances, flags for copies.")
    ] = None,
    device: Device = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the report in --out, and the bank in --marked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Report what is in a bank: copies of patients' images, how real and varied it is, whether its labels are right.

    The verdict comes first. Pass the data and the split that the generator was trained on. The patches are resized to
    the bank's size unless --size is given. It takes minutes, and a stopped audit starts again.
    """
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.evaluation.audit.auditing import audit as audit_bank
    from genmix_transforms.evaluation.audit.features import feature_extractor
    from genmix_transforms.evaluation.audit.report.writing import check_audit_folder, check_extras, save_audit
    from genmix_transforms.files.checks import check_output_folder
    from genmix_transforms.generators.processes import own_device

    # Reading the data and looking for copies take minutes: whatever the options alone can have wrong comes first.
    chosen = AuditSettings.of(settings, name="audit")
    where = own_device(device)
    if out is not None:
        check_audit_folder(out, overwrite=overwrite)
        check_extras(chosen)
    if marked is not None:
        if not chosen.copies:
            raise InputError("--marked writes what the search for copies has found: leave --no-copies out")
        check_output_folder(marked)
    if pool is not None and not chosen.copies:
        raise InputError("--pool is searched for copies: leave --no-copies out")
    feature_extractor(chosen.features)
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        opened = SyntheticBank.load(bank, verify=True)
        if options.size is None and len(opened.image_shape) == 3:
            options = replace(options, size=opened.image_shape[-1])
        splits = options.split_patches(options.open(data))
        found = audit_bank(
            opened,
            splits,
            pool=None if pool is None else options.open_pool(pool),
            settings=chosen,
            device=where,
            progress=bool(context.obj),
        )
    typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else f"\n{found.text}")
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        if out is not None:
            written = save_audit(found, out, overwrite=overwrite)
            typer.echo(
                f"\n{written[-1]}: open it in a browser; {', '.join(path.name for path in written[:-1])} beside it"
            )
        if marked is not None and found.copies is not None:
            copies_flagged = found.copies.marked(found.bank)
            copies_flagged.save(marked, overwrite=overwrite)
            show_bank(marked, copies_flagged)
        elif found.copies is not None and found.copies.near_copy.any():
            select = ["genmix", "bank", "select", "CHECKED", "--without-flags", "near_copy", "--out", "KEPT"]
            typer.echo(
                f"to leave the copies out, write them down with --marked CHECKED, and then:\n  {shlex.join(select)}"
            )
