"""What the numbers of an audit say, in plain sentences: the worst first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from genmix_transforms.evaluation.audit.labels import LabelHonesty
from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.usefulness import Usefulness

Kind = Literal[
    "noise", "collapsed", "wrong classes", "copies", "nothing like real", "unlike real", "incomplete", "no fault found"
]

WHITE = 0.5
"""Share of fine detail above which an image has no structure to speak of; white noise has 0.75."""
CLEARLY_MORE = 0.2
FEW = 0.25
"""Of the real variety: below it a bank is collapsed."""
MANY = 2.0
"""Times as many near copies as new patients' images would be."""
BY_CHANCE = 0.001
"""How seldom so many would be flagged if the bank's images were those of new patients."""
HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class CopyShare:
    """What the verdict has to know of the search for copies.

    Args:
        near_copies: images of the bank that were flagged as near copies.
        images: of the bank.
        expected_share: share of real images of unseen patients that would be flagged, 0 to 1.
        doubles: images of the bank that are as near to another one that stands before them.
        across: how many of those are doubles of an image with another label.

    Example:
        >>> CopyShare(near_copies=2, images=300, expected_share=0.005).by_chance > 0.4
        True
    """

    near_copies: int
    images: int
    expected_share: float
    doubles: int = 0
    across: int = 0

    @property
    def by_chance(self) -> float:
        """How likely so many or more would be flagged among as many images of new patients (binomial)."""
        count, share = self.images, self.expected_share
        if not 0 < share < 1:
            return float(self.near_copies == 0 or share >= 1)
        fewer = sum(
            math.exp(
                math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
                + k * math.log(share) + (count - k) * math.log1p(-share)
            )
            for k in range(self.near_copies)
        )  # fmt: skip
        return max(0.0, 1 - fewer)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is so.

    Args:
        kind: by a word.
        text: one plain sentence.
    """

    kind: Kind
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is wrong with a bank, the worst first; or that nothing was found.

    Args:
        findings: at least one.
    """

    findings: tuple[Finding, ...]

    @property
    def kind(self) -> Kind:
        """Of the worst finding."""
        return self.findings[0].kind

    @property
    def text(self) -> str:
        """The worst finding in one plain sentence."""
        return self.findings[0].text

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"kind": self.kind, "text": self.text, "findings": [vars(one) for one in self.findings]}


def judge(
    overall: Mapping[str, Measured],
    by_class: Mapping[str, Mapping[str, Measured]],
    labels: LabelHonesty | None = None,
    copies: CopyShare | None = None,
    usefulness: Usefulness | None = None,
) -> Verdict:
    """Name what is wrong with a bank.

    The rules, in this order: *noise*: more than half of the power is fine detail, and at least 0.2 more of it than in
    real images. *Collapsed*: a class's images are more alike in pairs (MS-SSIM) than real ones, and its Vendi score,
    above the 1 of images that are all the same, is below a quarter of the real; or more than half of the images are
    near doubles of another one. *Wrong classes*: a classifier that knows real images finds the bank's own labels at
    most half as far above chance; and one that knows the bank alone finds real labels no better than by chance, or
    classes are swapped among each other (images that a classifier does not know at all have no wrong labels). *Copies*:
    more than twice as many near copies as new patients' images would give, and more than chance would bring about in
    one of a thousand banks. *Nothing like real*: less than a quarter as many of the images look like some real one
    (precision) as real images of other patients do. *Unlike real*: KID lies above all halves of the real images.

    Args:
        overall: numbers by name.
        by_class: the same of each class.
        labels: what a classifier says of the labels; None: not asked.
        copies: what the search for copies found; None: not searched.
        usefulness: what a classifier learns of the bank; None: none was trained.
    """
    found = [
        *_noise(overall),
        *(_collapsed(by_class) or _doubled(copies)),
        *(() if labels is None else _wrong(labels, usefulness)),
        *(() if copies is None else _copied(copies)),
        *(_nothing_like(overall) or _unlike(overall)),
    ]
    if not found:
        found.append(_nothing(overall, labels, copies))
    return Verdict(findings=tuple(found))


def _noise(overall: Mapping[str, Measured]) -> Sequence[Finding]:
    fine = overall.get("share of fine detail")
    if fine is None or fine.refused or fine.low <= max(WHITE, fine.real_high + CLEARLY_MORE):
        return ()
    text = (
        f"These images are noise: {100 * fine.value:.0f} % of what is in them is detail of less than 4 pixels, in real "
        f"images {100 * fine.real:.0f} %."
    )
    return (Finding(kind="noise", text=text),)


def _collapsed(by_class: Mapping[str, Mapping[str, Measured]]) -> Sequence[Finding]:
    alike = [name for name, numbers in by_class.items() if _is_collapsed(numbers)]
    if not alike:
        return ()
    which = "of every class" if len(alike) == len(by_class) else f"of {', '.join(alike)}"
    likeness, vendi = (by_class[alike[0]][name] for name in ("MS-SSIM of pairs", "Vendi score"))
    text = (
        f"The bank is collapsed: its images {which} are nearly all alike (likeness in pairs {likeness.value:.2f}, real "
        f"images {likeness.real:.2f}; as varied as {vendi.value:.1f} different images, real ones as {vendi.real:.1f})."
    )
    return (Finding(kind="collapsed", text=text),)


def _doubled(copies: CopyShare | None) -> Sequence[Finding]:
    if copies is None or copies.doubles <= HALF * copies.images:
        return ()
    text = (
        f"The bank repeats itself (collapsed): {copies.doubles} of its {copies.images} images are near doubles of "
        f"another one in it{f', {copies.across} of them of one with another label' if copies.across else ''}."
    )
    return (Finding(kind="collapsed", text=text),)


def _is_collapsed(numbers: Mapping[str, Measured]) -> bool:
    likeness, vendi = (numbers.get(name) for name in ("MS-SSIM of pairs", "Vendi score"))
    if likeness is None or vendi is None or likeness.refused or vendi.refused:
        return False
    return likeness.low > likeness.real_high and vendi.value - 1 < FEW * (vendi.real - 1)


def _wrong(labels: LabelHonesty, usefulness: Usefulness | None) -> Sequence[Finding]:
    share, chance = labels.overall[1], 1 / len(labels.predicted)
    if share.real_low <= chance:
        return ()  # the classifier knows nothing of real images either
    if share.high >= chance + HALF * (share.real - chance):
        return ()
    names = tuple(labels.by_class)
    swapped = {}
    for place, (name, row) in enumerate(zip(names, labels.predicted, strict=True)):
        likeliest = max(range(len(row)), key=lambda number: row[number])
        knows = labels.by_class[name][1].real > HALF
        if knows and likeliest != place and row[likeliest] > HALF * sum(row):
            swapped[name] = names[likeliest]
    learned = usefulness is not None and usefulness.overall[0].low > chance
    exchanged = len(swapped) > 1 and len(set(swapped.values())) == len(swapped)
    if learned and not exchanged:
        return ()
    which = f" ({'; '.join(f'{name} looks like {other}' for name, other in swapped.items())})" if swapped else ""
    text = (
        f"The labels are wrong{which}: a classifier of the real images finds the own label in "
        f"{100 * share.value:.0f} % of the synthetic images, in {100 * share.real:.0f} % of real ones."
    )
    return (Finding(kind="wrong classes", text=text),)


def _copied(copies: CopyShare) -> Sequence[Finding]:
    expected = copies.expected_share * copies.images
    if copies.near_copies <= MANY * expected or copies.by_chance >= BY_CHANCE:
        return ()
    text = (
        f"The bank holds copies: {copies.near_copies} of its {copies.images} images are nearer to a training image "
        f"than images of other patients are, where {expected:.2g} would be by chance."
    )
    return (Finding(kind="copies", text=text),)


def _nothing_like(overall: Mapping[str, Measured]) -> Sequence[Finding]:
    precision = overall.get("precision")
    if precision is None or precision.refused or precision.high >= FEW * precision.real:
        return ()
    text = (
        f"The images look nothing like real ones: {100 * precision.value:.0f} % of them look like some real image, of "
        f"real images of other patients {100 * precision.real:.0f} %."
    )
    return (Finding(kind="nothing like real", text=text),)


def _unlike(overall: Mapping[str, Measured]) -> Sequence[Finding]:
    kid = overall.get("KID x 1000")
    if kid is None or kid.refused or kid.low <= kid.real_high:
        return ()
    text = (
        f"The images can be told from real ones: their distance (KID x 1000) is {kid.value:.1f}, between halves of the "
        f"real images {kid.real:.1f}."
    )
    return (Finding(kind="unlike real", text=text),)


def _nothing(overall: Mapping[str, Measured], labels: LabelHonesty | None, copies: CopyShare | None) -> Finding:
    kid = overall.get("KID x 1000")
    left = [
        what
        for what, there in (
            ("how real they are", kid is not None and not kid.refused),
            ("labels", labels is not None),
            ("copies", copies is not None),
        )
        if not there
    ]
    if left:
        return Finding(kind="incomplete", text=f"No fault was found, but not all was looked at: not {', '.join(left)}.")
    return Finding(
        kind="no fault found", text="No fault was found: as real, as varied and as well labeled as can be told."
    )
