"""Tables in CSV files: read as spreadsheets write them."""

import csv
import io
from pathlib import Path

from genmix_transforms.errors import InputError, MissingPathError


def header_as_written(path: Path) -> dict[str, str]:
    """The names of the columns as the file writes them, by the names that :func:`read_csv` gives them."""
    for line in path.read_bytes().decode("utf-8-sig").splitlines():
        cells = next(csv.reader([line], delimiter=max(",;\t", key=line.count)), [])
        if any(cell.strip() for cell in cells):
            return {cell.strip().lower(): cell.strip() for cell in cells}
    return {}


def read_csv(path: Path, *, expected: str) -> tuple[list[int], dict[str, list[str]]]:
    """Read a CSV file with a header, as spreadsheets and other programs write it.

    Args:
        path: the file: UTF-8, with commas, semicolons or tabs. Lines without a word in them are left out.
        expected: what it should hold, for the message about an empty one.

    Returns:
        The line number of each row; and the cells of each column, ``{column name in lower case: cells}``, without the
        blanks at their ends.

    Raises:
        MissingPathError: no such file.
        InputError: another encoding, no rows, two columns of one name, or a row of another length than the header.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: no such file; expected a CSV with {expected}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); save it as CSV UTF-8") from error
    # Spreadsheets write semicolons or tabs where the comma is the decimal sign.
    header_line = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header_line.count))
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append(reader.line_num)
                rows.append([cell.strip() for cell in cells])
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    if len(rows) < 2:
        raise InputError(f"{path}: lists no images; expected {expected}")
    header = [name.lower() for name in rows.pop(0)]
    del lines[0]
    if len(set(header)) < len(header):
        raise InputError(f"{path}: two columns of one name in its header: {', '.join(header)}")
    for line, cells in zip(lines, rows, strict=True):
        if len(cells) != len(header):
            raise InputError(f"{path}, line {line}: {len(cells)} cells, but the header has {len(header)} columns")
    return lines, {name: list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
