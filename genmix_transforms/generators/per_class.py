"""One generator per class, as the paper does with GANs."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genmix_transforms.data.identity import join_training_sets
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.files.checks import check_output_folder
from genmix_transforms.generators.arguments import Labels, check_labels_and_seeds
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.estimate import Estimate
from genmix_transforms.generators.folder import CONFIG, TRAINING, check_free, read_config, write_config

FOLDER = "classes"


class PerClass(Generator):
    """Unconditional generators of one class each, combined into one generator of all classes.

    ``fit`` trains them one after the other, each on its class only and for the full schedule. It is resumable.

    Args:
        members: a generator for each class, each with that one class, all of one image shape and pixel type.
        training_set: fingerprint and class counts of the set they were trained on together; ``fit`` fills it in.

    Raises:
        InputError: members that have several classes, share one, or differ in shape.

    Source: Lee, Lee, Hong (arXiv 2405.20650), section 3.1.

    Example:
        >>> from genmix_transforms.generators import DCGAN
        >>> generator = PerClass.of(DCGAN, classes=["cyst", "metastasis"], resolution=16, base_width=4)
        >>> generator.sample(labels=[0, 1], seeds=[7, 8]).shape
        torch.Size([2, 1, 16, 16])
    """

    kind = "per-class"
    mixes_classes = False
    refuses_soft_labels: ClassVar[str | None] = "each class has its own network, and no network knows two classes"

    def __init__(self, members: Sequence[Generator], *, training_set: Mapping[str, Any] | None = None) -> None:
        if not members:
            raise InputError("PerClass: expected a generator for each class, got none")
        several = next((member for member in members if len(member.classes) != 1), None)
        if several is not None:
            raise InputError(f"PerClass: every member has one class, got one with {', '.join(several.classes)}")
        self.members: tuple[Generator, ...] = tuple(members)
        self.training_set: dict[str, Any] = dict(training_set or {})
        self.classes: tuple[str, ...] = tuple(member.classes[0] for member in members)
        if len(set(self.classes)) != len(self.classes):
            raise InputError(f"PerClass: every class has one member, got {', '.join(self.classes)}")
        looks = {(member.image_shape, member.pixel_dtype) for member in members}
        if len(looks) > 1:
            raise InputError(f"PerClass: members must draw images of one shape and type, got {sorted(map(str, looks))}")
        self.image_shape: tuple[int, ...] = members[0].image_shape
        self.draws_volumes: bool = all(member.draws_volumes for member in members)
        self.pixel_dtype: torch.dtype = members[0].pixel_dtype

    @classmethod
    def of(cls, generator: Callable[..., Generator], *, classes: Sequence[str], **options: Any) -> "PerClass":
        """One ``generator(classes=[name], **options)`` for each class."""
        return cls([generator(classes=[name], **options) for name in classes])

    @property
    def config(self) -> dict[str, Any]:
        """Where the members are, within the folder, and what they were trained on."""
        folders = [self._member_folder(number) for number in range(len(self.members))]
        return {"members": folders, "training_set": self.training_set}

    @property
    def network(self) -> nn.Module:
        """The members' networks, in the order of the classes."""
        return nn.ModuleList(member.network for member in self.members)

    @property
    def provenance(self) -> dict[str, Any]:  # type: ignore[override]
        """The members' provenances, and the training set as a whole."""
        members = [member.provenance for member in self.members]
        return {"members": members, **({"training_set": self.training_set} if self.training_set else {})}

    def describe(self) -> dict[str, Any]:
        """The members' own descriptions."""
        return {**super().describe(), "members": [member.describe() for member in self.members]}

    def to(self, device: str | torch.device) -> "PerClass":
        """Move every member."""
        for member in self.members:
            member.to(device)
        return self

    @property
    def sample_batch(self) -> int:
        """A multiple of every member's."""
        return math.lcm(*(member.sample_batch for member in self.members))

    def sample(self, labels: Labels, seeds: Tensor | Sequence[int]) -> Tensor:
        """Draw images; see :meth:`Generator.sample`."""
        labels, seeds = check_labels_and_seeds(
            labels, seeds, classes=self.classes, refuses_rows=self.refuses_soft_labels
        )
        images = torch.empty(len(labels), *self.image_shape, dtype=self.pixel_dtype)
        for number, member in enumerate(self.members):
            here = torch.nonzero(labels == number).flatten()
            if len(here):
                images[here] = member.sample(torch.zeros_like(here), seeds[here])
        return images

    def fit(self, dataset: PatchDataset, *, out: str | Path, **options: Any) -> "PerClass":
        """Train the members one after the other, each on its class.

        Args:
            dataset: the training set, with these classes.
            out: the run's folder; each class has its own below ``classes/``.
            **options: of the members' ``fit``. ``steps`` are steps of each member.
        """
        self.check_trainable_on(dataset)
        out = Path(out)
        check_output_folder(out)
        if (out / TRAINING).exists() or ((out / CONFIG).exists() and read_config(out)["kind"] != self.kind):
            raise OverwriteError(f"{out}: holds a different kind of generator; choose another folder")
        if options.get("restart"):
            (out / CONFIG).unlink(missing_ok=True)  # or a killed restart would pass for a mixture of old and new
        for number, (name, member) in enumerate(zip(self.classes, self.members, strict=True)):
            own = dataset.of_class(name)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="very few images")  # said above, of all classes together
                member.fit(own, out=out / self._member_folder(number), **options)
        self.training_set = dataset.training_set()
        for member in self.members:  # weights that they started from have seen what those were trained on
            if seen := member.provenance.get("started_from", {}).get("training_set"):
                self.training_set = join_training_sets(seen, self.training_set)
        write_config(out, kind=self.kind, config=self.config)
        return self

    def estimate(self, dataset: PatchDataset, *, out: str | Path, **options: Any) -> Estimate:
        """Say how long the training of all members would take here: as long as the first's, for each of them.

        Args:
            dataset: the training set, with these classes.
            out: the run's folder.
            **options: of the members' ``estimate``.
        """
        self.check_trainable_on(dataset)
        first = self.members[0].estimate(
            dataset.of_class(self.classes[0]), out=Path(out) / self._member_folder(0), **options
        )
        return replace(first, steps=first.steps * len(self.members))

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save every member below ``classes/``, then ``config.json``."""
        folder = Path(folder)
        check_free(folder, overwrite=overwrite)
        for number, member in enumerate(self.members):
            member.save_pretrained(folder / self._member_folder(number), overwrite=overwrite)
        write_config(folder, kind=self.kind, config=self.config)

    @classmethod
    def _from_folder(cls, folder: Path, config: dict[str, Any]) -> "PerClass":
        from genmix_transforms.generators.registry import load_generator

        members = []
        for name in config["members"]:
            member = (folder / str(name)).resolve()
            # A name that leaves the folder could have us read any file.
            if not member.is_relative_to(folder.resolve()):
                raise InputError(f"{folder}: config.json names a member outside the folder: {name!r}")
            read_config(member)
            members.append(load_generator(member))
        return cls(members, training_set=config.get("training_set"))

    def _member_folder(self, number: int) -> str:
        # The class's name is the user's and may hold anything; its number makes a safe name.
        return f"{FOLDER}/{number:03d}"
