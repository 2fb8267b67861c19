"""What the page of a report says in plain words."""

import math
from collections.abc import Mapping

from genmix_transforms.evaluation.audit.answers import Status
from genmix_transforms.evaluation.audit.measured import Measured
from genmix_transforms.evaluation.audit.verdict import Kind

HEADLINES: Mapping[Kind, tuple[Status, str]] = {
    "noise": ("fault", "Not usable: noise"),
    "collapsed": ("fault", "Not usable: collapsed"),
    "wrong classes": ("fault", "Not usable: wrong labels"),
    "copies": ("fault", "Holds copies of patients' images"),
    "nothing like real": ("fault", "Not usable: nothing like real images"),
    "unlike real": ("look", "Usable with care: not quite like real images"),
    "incomplete": ("open", "Not everything was checked"),
    "no fault found": ("good", "No fault found"),
}
"""How the worst finding is told at a glance."""

MEANING: Mapping[str, str] = {
    "KID x 1000": "How far the synthetic images lie from real ones, as a whole. About 0 between real images.",
    "FID": "The same by other means; only for thousands of images.",
    "precision": "Share of synthetic images that look like some real one.",
    "recall": "Share of real images that the bank could have made.",
    "density": "How thickly synthetic images lie where real ones are; above real: typical cases are preferred.",
    "coverage": "Share of real images that have a synthetic one nearby.",
    "MS-SSIM of pairs": "How alike two images of a class are: 1 is the same picture.",
    "Vendi score": "As how many entirely different images these count.",
    "mean": "Brightness.",
    "standard deviation": "Contrast within an image.",
    "5th percentile": "The dark parts.",
    "50th percentile": "The middle gray.",
    "95th percentile": "The bright parts.",
    "share of fine detail": "Share of the image that is grain, structures of less than 4 pixels; pure noise has 0.75.",
    "histogram distance": "How far gray values would have to be moved to be distributed as in real images.",
    "spectrum difference": "How much the texture differs, coarse and fine.",
    "fine noise": "Grain above (+) or below (-) that of real images; 3 dB is twice the noise power.",
    "confidence of the own label": "How sure a classifier of real images is of the label that an image carries.",
    "own label is the likeliest": "How often that classifier would have given the same label.",
    "train on synthetic, test on real": "What a classifier that saw this bank alone finds in real patients.",
    "train on real, test on synthetic": "What a classifier of real images finds in the bank.",
}


def short(value: float) -> str:
    """A number of about three digits, with a true minus; empty where there is none.

    Example:
        >>> short(0.5), short(123.4), short(-0.001), short(-1.25), short(math.nan)
        ('0.5', '123', '0', '\u22121.25', '')
    """
    if not math.isfinite(value):
        return ""
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text.replace("-", "\u2212")


def interval(low: float, high: float) -> str:
    """An interval, as a cell of a table has it; empty where there is none.

    Example:
        >>> interval(0.25, 1.0)
        '(0.25 to 1)'
    """
    return f"({short(low)} to {short(high)})" if math.isfinite(low + high) else ""


def compare(one: Measured) -> str:
    """How a number lies to that of real images, in two words; empty where nothing can be said.

    Example:
        >>> compare(Measured(name="coverage", value=0.4, low=0.3, high=0.5, real=0.9, real_low=0.8, real_high=1.0))
        'worse than real'
    """
    if one.refused or not math.isfinite(one.real) or one.better == "none":
        return ""
    if not one.differs:
        return "as real"
    higher = one.value > one.real
    if one.better == "like real":
        return "above real" if higher else "below real"
    return "better than real" if higher == (one.better == "high") else "worse than real"
