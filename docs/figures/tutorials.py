"""Run a tutorial as written, and put what it prints and draws into the page.

    python docs/figures/tutorials.py docs/tutorials/first-bank.md
    python docs/figures/tutorials.py docs/tutorials/does-it-help.md --data pneumoniamnist.npz

It runs in a folder of its own. A ``python`` block with a title is saved as that file, one without is executed; of a
``bash`` block the lines that begin with ``genmix`` are. A ``text`` block holds what the block before it printed. A line
``<!-- picture: NAME -->`` stands before a picture that the page has drawn.
"""

import argparse
import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BLOCK = re.compile(
    r'^(?:<!-- (?P<mark>[^>]+) -->\n)?```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$',
    flags=re.MULTILINE | re.DOTALL,
)
PICTURE = re.compile(r"^<!-- picture: (\S+) -->\n!\[[^\]]*\]\(([^)]+)\)$", flags=re.MULTILINE)
SKIPPED = "needs the entry point"


def run_page(text: str, *, smaller: Mapping[str, str] | None = None) -> str:
    """Run a page in the working folder.

    Args:
        text: of the page.
        smaller: what to replace in its code, so that it takes less time; each must be there.

    Returns:
        The page with the outputs in it.

    Raises:
        ValueError: something to replace is not there, or a block prints what the page does not show.
    """
    for there, here in (smaller or {}).items():
        if there not in text:
            raise ValueError(f"the page has no {there!r}")
        text = text.replace(there, here)
    names: dict[str, Any] = {"__name__": "__main__"}
    pieces, end, printed = [], 0, ""
    for block in BLOCK.finditer(text):
        pieces.append(text[end : block.start()])
        end = block.end()
        code = block["code"]
        if block["language"] == "text":
            pieces.append(f"```text\n{printed}```")
            printed = ""
            continue
        if printed and block["language"] in ("python", "bash"):
            raise ValueError(f"a page must show what it prints:\n{printed}")
        if block["title"]:
            Path(block["title"]).write_text(code, encoding="utf-8")
        elif block["language"] == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(code, "<page>", "exec"), names)
            printed = out.getvalue()
        elif block["language"] == "bash" and block["mark"] != SKIPPED:
            printed = run_commands(code)
        pieces.append(block[0])
    return "".join([*pieces, text[end:]])


def run_commands(code: str) -> str:
    """Run the ``genmix`` lines of a shell block in this process, and return what they print."""
    from genmix_transforms.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as out:
        for line in re.sub(r"\\\n\s*", "", code).splitlines():
            if not line.startswith("genmix "):
                continue
            sys.argv = shlex.split(line)
            try:
                main()
            except SystemExit as done:
                if done.code:
                    raise ValueError(f"{line}: ended with {done.code}") from done
    # What only names the file that was asked for is not worth a line of the page.
    return "".join(line for line in out.getvalue().splitlines(keepends=True) if not re.fullmatch(r"\S+\.png\n", line))


def main() -> None:
    """Run the page that is named."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("page", type=Path)
    options.add_argument("--data", type=Path, nargs="*", default=[], help="files that the page reads")
    given = options.parse_args()
    page, before = given.page.resolve(), Path.cwd()
    data = [file.resolve() for file in given.data]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.path.insert(0, folder)
        for file in data:
            os.symlink(file, file.name)
        text = run_page(page.read_text(encoding="utf-8"))
        for name, address in PICTURE.findall(text):
            (page.parent / address).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, page.parent / address)
        os.chdir(before)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
