"""What an audit says to somebody who reads no tables: six questions, each answered in one or two sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from genmix_transforms.evaluation.audit.labels import LabelHonesty
from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.usefulness import Usefulness
from genmix_transforms.evaluation.audit.verdict import CopyShare, Kind, Verdict

Status = Literal["good", "look", "fault", "open"]

STATUS_WORDS: Mapping[Status, str] = {
    "good": "Good",
    "look": "Look closer",
    "fault": "Fault",
    "open": "Not checked",
}

ADVICE: Mapping[Kind, str] = {
    "noise": "Do not train with this bank. Look at its generator's sample sheets: it has not learned, or its training "
    "has broken down.",
    "collapsed": "Do not train with this bank: it shows the same pictures again and again. Train its "
    "generator again, or take an earlier checkpoint.",
    "wrong classes": "Do not train with this bank: it teaches wrong diagnoses. See how the classes were named and "
    "ordered when the generator was trained and the bank was filled.",
    "copies": "Do not publish this bank, and do not take it for anonymous: it shows patients' images. Leave the copies "
    "out, or train the generator for fewer steps or on more patients.",
    "nothing like real": "Do not train with this bank: its generator has not learned yet, or has learned from other "
    "images. Look at its sample sheets, and train it for longer.",
    "unlike real": "It may be of use all the same: whether it helps a classifier, only a comparison on your own data "
    "tells. Look at the pictures below, and at what is marked.",
    "incomplete": "Have the rest measured before you rely on this bank.",
    "no fault found": "Have an expert look at the pictures all the same: numbers do not see everything.",
}
"""What to do, by the worst finding."""


MANY_DOUBLES = 0.1
"""Share of doubles in the bank that is told beside its variety."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A question that a reader has, and the answer.

    Args:
        question: in plain words.
        status: good; look: something that a reader should look at; fault: named in the verdict; open: not measured.
        text: the answer, in sentences.
    """

    question: str
    status: Status
    text: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dict(vars(self))


def answers(
    overall: Mapping[str, Measured],
    verdict: Verdict,
    *,
    copies: CopyShare | None,
    labels: LabelHonesty | None,
    usefulness: Usefulness | None,
) -> tuple[Answer, ...]:
    """Six questions and what the numbers answer.

    Args:
        overall: numbers by name, of :func:`~genmix_transforms.evaluation.audit.quality.measure_quality`.
        verdict: on the bank: what it names is a fault.
        copies: what the search for copies found; None: not searched.
        labels: what a classifier says of the labels; None: not asked.
        usefulness: what classifiers learn; None: none were trained.
    """
    faults = {one.kind: one.text for one in verdict.findings}
    return (
        _copied(copies, faults),
        _real(overall, faults),
        _varied(overall, faults, copies),
        _labeled(labels, faults),
        _gray(overall, faults),
        _useful(usefulness),
    )


def _copied(copies: CopyShare | None, faults: Mapping[Kind, str]) -> Answer:
    question = "Are patients' images copied?"
    if copies is None:
        return Answer(question=question, status="open", text="Nobody has looked for copies.")
    if "copies" in faults:
        return Answer(question=question, status="fault", text=faults["copies"])
    expected = copies.expected_share * copies.images
    by_chance = f"of as many images of other patients about {expected:.2g} would be"
    if not copies.near_copies:
        return Answer(
            question=question,
            status="good",
            text=f"None of {copies.images} images is as near to a training image as a copy is; {by_chance}.",
        )
    are = "is" if copies.near_copies == 1 else "are"
    return Answer(
        question=question,
        status="look",
        text=f"{copies.near_copies} of {copies.images} images {are} very near to a training image; {by_chance}. "
        "That may be chance: see the pairs in the report.",
    )


def _real(overall: Mapping[str, Measured], faults: Mapping[Kind, str]) -> Answer:
    question = "Do the images look real?"
    worst: tuple[Kind, ...] = ("noise", "nothing like real")
    for kind in worst:
        if kind in faults:
            return Answer(question=question, status="fault", text=faults[kind])
    precision, kid = _known(overall, "precision"), _known(overall, "KID x 1000")
    if precision is None and kid is None:
        return Answer(question=question, status="open", text="There are too few images to tell.")
    said = []
    if precision is not None:
        said.append(
            f"{_percent(precision.value)} of them look like some real image; of real images of other patients "
            f"{_percent(precision.real)} do."
        )
    if kid is not None and "unlike real" in faults:
        said.append("As a whole they can be told from real ones.")
    elif kid is not None:
        said.append("As a whole they are as near to real images as other patients' images are.")
    worse = "unlike real" in faults or (precision is not None and precision.high < precision.real_low)
    return Answer(question=question, status="look" if worse else "good", text=" ".join(said))


def _varied(overall: Mapping[str, Measured], faults: Mapping[Kind, str], copies: CopyShare | None) -> Answer:
    question = "Are they varied?"
    if "collapsed" in faults:
        return Answer(question=question, status="fault", text=faults["collapsed"])
    coverage = _known(overall, "coverage")
    if coverage is None:
        return Answer(question=question, status="open", text="There are too few images to tell.")
    poor = coverage.high < coverage.real_low
    text = (
        f"{_percent(coverage.value)} of real images have a synthetic one like them; among real images of other "
        f"patients {_percent(coverage.real)} have one."
    )
    if poor:
        text += " Some presentations are missing."
    if copies is not None and copies.doubles > MANY_DOUBLES * copies.images:
        poor = True
        across = f", {copies.across} of them of one with another label" if copies.across else ""
        text += f" {copies.doubles} of {copies.images} images are near doubles of another one{across}."
    return Answer(question=question, status="look" if poor else "good", text=text)


def _labeled(labels: LabelHonesty | None, faults: Mapping[Kind, str]) -> Answer:
    question = "Are the labels right?"
    if labels is None:
        return Answer(question=question, status="open", text="No classifier was asked.")
    if "wrong classes" in faults:
        return Answer(question=question, status="fault", text=faults["wrong classes"])
    share = labels.overall[1]
    unknown = share.high < share.real_low
    said = [labels.text]
    if unknown:
        said.append("So it does not know these images well: their labels cannot be confirmed.")
    status: Status = "look" if unknown or labels.warnings else "good"
    return Answer(question=question, status=status, text=" ".join((*said, *labels.warnings)))


def _gray(overall: Mapping[str, Measured], faults: Mapping[Kind, str]) -> Answer:
    question = "Are brightness and grain right?"
    histogram, grain = _known(overall, "histogram distance"), _known(overall, "fine noise")
    if histogram is None or grain is None:
        return Answer(question=question, status="open", text="There are too few images to tell.")
    unit = f" {histogram.unit}" if histogram.unit else ""
    far, other = histogram.low > histogram.real_high, grain.differs
    said = [
        f"Gray values lie {histogram.value:.2g}{unit} off on average, {histogram.real:.2g} between real images of "
        "different patients."
    ]
    if other:
        said.append(f"Fine grain is {abs(grain.value):.1f} dB {'stronger' if grain.value > 0 else 'weaker'} than real.")
    else:
        said.append("Fine grain is as in real images.")
    status: Status = "fault" if "noise" in faults else "look" if far or other else "good"
    return Answer(question=question, status=status, text=" ".join(said))


def _useful(usefulness: Usefulness | None) -> Answer:
    question = "Can a classifier learn from them?"
    if usefulness is None:
        return Answer(question=question, status="open", text="No classifier was trained.")
    one = usefulness.overall[0]
    return Answer(
        question=question,
        status="look" if one.high < one.real_low else "good",
        text=f"Taught by this bank alone, it finds {_percent(one.value)} of each class of real patients on average "
        f"({_percent(one.low)} to {_percent(one.high)}); taught by the real training images, {_percent(one.real)}.",
    )


def _known(overall: Mapping[str, Measured], name: str) -> Measured | None:
    found = overall.get(name)
    return None if found is None or found.refused else found


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def answers_text(found: Sequence[Answer]) -> str:
    """The answers for the screen, a line each."""
    width = max(len(one.question) for one in found)
    return "\n".join(f"  {one.question:<{width}}  {STATUS_WORDS[one.status]:<12} {one.text}" for one in found)
