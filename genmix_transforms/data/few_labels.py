"""Few labels a class, drawn from many: what a study of few labels repeats, each draw another."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.splitting import Numbers
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed, whole_number

_DRAW = 20
"""What the random stream is for: the first word of its seed, apart from other streams of the user's seed."""


def few_labels(
    patches: PatchDataset, per_class: int | Mapping[str, int], *, seed: int
) -> tuple[PatchDataset, PatchDataset]:
    """Draw a number of patches of each class, from as many groups as possible.

    A larger draw of the same seed contains the smaller one: ten labels are the first five and five more. A second image
    of a group (a patient) is drawn only when every group of its class has given one.

    Args:
        patches: to draw from: a training part. Draw nothing from what is tested.
        per_class: how many of each class: one number for all, or a number by the class's name.
        seed: of the draw; not negative.

    Returns:
        What was drawn, and the rest, both in the order of ``patches``. They may share groups.

    Raises:
        InputError: a class with fewer patches than asked for, names that are not those of the classes, no labels at
            all, or a seed or a number that is none.

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> train, _, _ = LesionPhantom(size=16, train=(4, 3, 3), val=(1, 1, 1), test=(1, 1, 1)).dataset().split()
        >>> few, rest = few_labels(train, 2, seed=0)
        >>> few.class_counts, len(rest)
        ({'cyst': 2, 'hemangioma': 2, 'metastasis': 2}, 4)
    """
    check_seed(seed, name="the draw's seed")
    wanted = _by_class(patches, per_class)
    labels = patches.labels.numpy()
    groups = np.arange(len(patches)) if patches.groups is None else patches.groups.numpy()
    drawn = np.zeros(len(patches), dtype=bool)
    for label, (class_name, count) in enumerate(wanted.items()):
        places = np.flatnonzero(labels == label)
        if count > len(places):
            raise InputError(
                f"{patches.name}: {count} labels of {class_name!r} are asked for, but only {len(places)} patches are "
                "of that class; ask for fewer"
            )
        order = np.random.default_rng([_DRAW, label, seed]).permutation(places)
        drawn[order[np.argsort(_earlier_of_group(groups[order]), kind="stable")][:count]] = True
    return (
        patches.subset(np.flatnonzero(drawn), name=f"{patches.name} ({drawn.sum()} labels)"),
        patches.subset(np.flatnonzero(~drawn), name=f"{patches.name} (the rest)"),
    )


def _by_class(patches: PatchDataset, per_class: int | Mapping[str, int]) -> dict[str, int]:
    """How many of each class, in the order of the classes."""
    wanted = per_class if isinstance(per_class, Mapping) else dict.fromkeys(patches.classes, per_class)
    if set(wanted) != set(patches.classes):
        raise InputError(
            f"{patches.name}: labels are asked for the classes {', '.join(map(str, wanted))}; its classes are "
            f"{', '.join(patches.classes)}"
        )
    for class_name, count in wanted.items():
        whole_number(count, name=f"{patches.name}: the number of labels of {class_name!r}", least=0)
    if not any(wanted.values()):
        raise InputError(f"{patches.name}: no labels are asked for; ask for one of some class at least")
    return {class_name: wanted[class_name] for class_name in patches.classes}


def _earlier_of_group(groups: Numbers) -> list[int]:
    """For each place, how often its group came before it."""
    seen: Counter[int] = Counter()
    earlier = []
    for group in groups.tolist():
        earlier.append(seen[group])
        seen[group] += 1
    return earlier
