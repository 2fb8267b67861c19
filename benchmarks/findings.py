"""What a script measures, as numbers with names, in a file that is whole after each: what ends a script leaves them."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from timing import machine

Value = float | str


class Findings:
    """Numbers by name, in the order in which they were found.

    Args:
        path: a JSON file, written anew, whole, with every number; None: they are only kept.
        device: where they are found; for the record.
    """

    def __init__(self, path: Path | None, *, device: torch.device) -> None:
        self.path = path
        self.device = device
        self.found: list[dict[str, Any]] = []
        self._write()

    def add(self, name: str, value: Value, unit: str = "") -> None:
        """Write down a number, or words where there is none.

        Args:
            name: unique within the script's run.
            value: what was found.
            unit: such as "ms"; empty for shares, ratios and counts.
        """
        if any(finding["name"] == name for finding in self.found):
            raise ValueError(f"found twice: {name}")
        self.found.append({"name": name, "value": value, "unit": unit})
        self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        content = {"device": self.device.type, "machine": machine(self.device), "findings": self.found}
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


def add_json_option(options: argparse.ArgumentParser) -> None:
    """``--json``, of every script whose numbers another one reads."""
    options.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too, after each of them")
