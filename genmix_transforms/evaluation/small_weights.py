"""Files of weights for the classifier "small": written by a pre-training, opened by ``weights``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.generators.folder import read_weights, write_weights

_KIND = "genmix small classifier"


@dataclass(frozen=True, kw_only=True)
class SmallWeights:
    """All layers of a small classifier but the last, and what they have learned from.

    Args:
        tensors: a state dict without the last layer.
        shape: ``(C, H, W)`` of the images.
        mean: of their values in [0, 1], one a channel; it is subtracted.
        std: what they were then divided by.
        training_set: the images' record, see :meth:`genmix_transforms.data.PatchDataset.training_set`.
        made: how: the method, its settings and seed.
    """

    tensors: Mapping[str, Tensor]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    training_set: Mapping[str, Any]
    made: Mapping[str, Any]

    def save(self, file: Path) -> None:
        """Write them, whole or not at all; no path is written."""
        facts = {"shape": list(self.shape), "mean": list(self.mean), "std": list(self.std), "made": dict(self.made)}
        write_weights(file, self.tensors, provenance={"kind": _KIND, "training_set": dict(self.training_set), **facts})

    @classmethod
    def load(cls, file: str | Path) -> "SmallWeights":
        """Read what :meth:`save` wrote.

        Raises:
            MissingPathError: no such file.
            InputError: another file of weights.
            CorruptFileError: a damaged one.
        """
        file = Path(file)
        if file.suffix != ".safetensors":
            raise InputError(f"{file}: {_ANOTHER}")
        tensors, facts = read_weights(file)
        if facts.get("kind") != _KIND:
            raise InputError(f"{file}: {_ANOTHER}")
        try:
            channels, height, width = facts["shape"]
            return cls(
                tensors=tensors,
                shape=(channels, height, width),
                mean=tuple(facts["mean"]),
                std=tuple(facts["std"]),
                training_set=facts["training_set"],
                made=facts["made"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: {_ANOTHER} ({error!r})") from error


_ANOTHER = "no weights of the classifier 'small'; genmix pretrain-classifier POOL --out FILE makes some"
