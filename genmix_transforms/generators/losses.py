"""The losses of a run: summed on the device, read at log points only, and appended to a file."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from genmix_transforms.files.atomic import write_text
from genmix_transforms.files.disk import write_error
from genmix_transforms.generators.processes import Processes


class Losses:
    """The means of the losses between two log points, over the images of all processes.

    Args:
        path: the file, one JSON object a line: "images_seen", and every loss by name.
        images_seen: where the training stands; lines of later steps are removed, for those steps happen again.
        processes: who trains together; the main one writes.
    """

    def __init__(self, path: Path, *, images_seen: int, processes: Processes) -> None:
        self.path = path
        self._processes = processes
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        if processes.is_main:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["images_seen"] <= images_seen]
            write_text(path, "".join(f"{line}\n" for line in kept))

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the losses of a step: scalars, by name."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def take(self, images_seen: int) -> dict[str, float]:
        """Write the means since the last time, and begin anew. All processes call it together.

        Raises:
            FloatingPointError: in all processes, if a loss is not finite in one.
            DiskFullError: in the main process, if there is no space for the line.
        """
        names = list(self._sums)
        means = dict(
            zip(names, self._processes.mean([float(self._sums[name]) / self._count for name in names]), strict=True)
        )
        self._sums, self._count = {}, 0
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"the {name} loss is {mean} at {images_seen:,} images; "
                    "the last checkpoint is kept: start again with a lower learning rate"
                )
        if self._processes.is_main:
            try:
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"images_seen": images_seen, **means}) + "\n")
            except OSError as error:
                raise write_error(error, self.path, temporary=self.path) from error
        return means
