"""A bank's card, and the contact sheet beside it: what tells whoever finds it on the hub what it holds.

A card is published. So it is made of what is known to be harmless (class names, numbers, checksums, the generator's
kind), and not of whatever a provenance holds: no path, no name of a user or a machine, no number of a patient.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from genmix_transforms.bank.rows import Bank, Flag
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_seed
from genmix_transforms.files.images import HIGHEST_PIXEL
from genmix_transforms.files.sheet import draw_sheet

SHEET = "sheet.png"
"""The contact sheet beside the card."""

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5)
"""Of the distances: copies are at the low end."""

_KIND = r"[A-Za-z][\w-]{0,39}"
_HASH = r"(sha256:)?[0-9a-f]{64}(\+[0-9a-f]{64})*"
_VERSION = r"\d+\.\d+[\w.+-]{0,30}"
LICENCE = r"[A-Za-z0-9][A-Za-z0-9.+-]{0,39}"
_DATE = r"\d{4}-\d{2}-\d{2}(T[\d:]{5,8}(Z|[+-]\d{2}:\d{2})?)?"
_IMPORTED = ("folder of images", "npz", "Hugging Face dataset")

_PATH = re.compile(
    r"(?<![\w./<])/[\w.-]+/[\w.-]"  # /home/name, anywhere in a text; not and/or, not https://
    r"|^/[\w.-]+/?$"  # /data
    r"|(?<!\w)[A-Za-z]:[\\/](?!/)"  # C:\
    r"|\\\\[\w.-]+\\"  # \\machine\share
    r"|(?<!\w)~[\w.-]*[\\/]"  # ~/data
    r"|file:/"
)


def bank_card(bank: Bank, *, licence: str | None = None, title: str | None = None, repo_id: str | None = None) -> str:
    """The card of a bank: a ``README.md`` for a dataset repository, with its front matter.

    Of the provenance it says the generator's kind, the hash of its weights, the training set's fingerprint and class
    counts, seeds, package version, date and license, where they are recorded, and nothing else.

    Args:
        bank: any.
        licence: the hub's identifier of it, such as "cc-by-4.0"; None: what the provenance records.
        title: of the page; None: made from the class names.
        repo_id: where the bank will be (owner/name), for the lines that load it.

    Raises:
        InputError: a title or a license that is a path, or nothing.

    Example:
        >>> import torch
        >>> from genmix_transforms import SyntheticBank
        >>> images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([0, 1, 1]), classes=["cyst", "metastasis"])
        >>> print(bank_card(bank).split("---")[2].strip().splitlines()[0])
        # Synthetic images of cyst and metastasis
    """
    from huggingface_hub import DatasetCardData

    title = _given(title, "title") or _default_title(bank.classes)
    licence = _given(licence, "licence") or _recorded_licence(bank.sources)
    data = DatasetCardData(
        license=licence,
        pretty_name=title,
        annotations_creators=["machine-generated"],
        size_categories=[_size_category(len(bank))],
        task_categories=["image-classification"],
        tags=["synthetic", "medical", "genmix", "genmix-transforms"],
        viewer=False,  # or the hub would take the contact sheet for the data
    )
    parts = [f"---\n{data.to_yaml()}\n---", f"# {_safe(title)}", _WARNING]
    if has_sheet(bank):
        parts.append(f"![Some images of each class, drawn at random]({SHEET})")
    parts += [_contents(bank), _loading(repo_id), _provenance(bank), _memorisation(bank), _licence_text(licence)]
    return "\n\n".join(parts) + "\n"


def bank_sheet(bank: Bank, *, columns: int = 12, seed: int = 0) -> Image.Image:
    """A row of images for each class that has any, drawn at random. Of soft labels the most probable class counts.

    Args:
        bank: of images, or of volumes, which show their middle slices.
        columns: images of each class, at most.
        seed: another seed, other images.

    Raises:
        InputError: a bank of neither, an empty one, or no columns.
    """
    if len(bank.image_shape) not in (3, 4):
        raise InputError(f"a sheet shows images or volumes, the bank's are {' x '.join(map(str, bank.image_shape))}")
    if not len(bank):
        raise InputError("a sheet of an empty bank shows nothing: fill the bank first")
    if columns < 1:
        raise InputError(f"a sheet needs at least one column, got columns={columns}")
    random = np.random.default_rng(check_seed(seed))
    rows, titles = [], []
    start = 0
    for name, count in zip(bank.classes, bank.class_count.tolist(), strict=True):
        if count:
            chosen = np.sort(random.permutation(count)[:columns])
            rows.append(bank.rows(torch.from_numpy(start + chosen).to(bank.class_count.device)).cpu())
            titles.append(f"{name}\n{count} images" + ("\nsoft labels" if bank.label_kind == "probabilities" else ""))
        start += count
    return draw_sheet(rows, titles)


def has_sheet(bank: Bank) -> bool:
    """Whether a contact sheet can be drawn of it: it has images or volumes."""
    return len(bank) > 0 and len(bank.image_shape) in (3, 4)


def paths_in(value: Any, where: str = "provenance") -> list[str]:
    """The places of a provenance where something looks like a path of somebody's machine.

    Example:
        >>> paths_in({"data": "/home/somebody/ct", "kind": "dcgan", "runs": ["https://host/a/b", "C:\\\\runs"]})
        ['provenance.data', 'provenance.runs[1]']
    """
    found: list[str] = []
    if isinstance(value, str):
        found += [where] if _PATH.search(value) else []
    elif isinstance(value, Mapping):
        for key, below in value.items():
            found += [f"{where}: a key"] if _PATH.search(str(key)) else paths_in(below, f"{where}.{key}")
    elif isinstance(value, Sequence):
        for number, below in enumerate(value):
            found += paths_in(below, f"{where}[{number}]")
    return found


_WARNING = """> **These images may reproduce training patients.** They are synthetic, but a generator learns some of its
> training images by heart, the more so the fewer there were. A synthetic image can then be a copy, slightly changed, of
> one person's scan. Nothing here makes it anonymous: treat the images with the care that the training images need. They
> are no medical evidence, and nothing to base a diagnosis on."""


def _contents(bank: Bank) -> str:
    counts = zip(bank.classes, bank.class_count.tolist(), strict=True)
    rows = "\n".join(f"| {_safe(name)} | {count:,} |" for name, count in counts)
    window = "none recorded: pixels have no unit"
    if bank.window is not None:
        low, high = bank.window
        window = f"{low:g} HU at pixel 0, {high:g} HU at pixel {HIGHEST_PIXEL[bank.pixel_dtype]}"
    shape = " x ".join(map(str, bank.image_shape))
    kind = "a class index" if bank.label_kind == "index" else "class probabilities (counted by the most probable class)"
    names = map(_safe, bank.mask_classes or ())
    masks = "" if bank.mask_classes is None else f"\n- Masks: one an image, of the classes {', '.join(names)}"
    return f"""## What it holds

| class | images |
|---|---:|
{rows}
| **all** | **{len(bank):,}** |

- Images: {shape} (channels first), {str(bank.pixel_dtype).removeprefix("torch.")}
- Labels: {kind}
- Window: {window}{masks}"""


def _loading(repo_id: str | None) -> str:
    return f"""## Load it

```python
from genmix_transforms import GenMix, SyntheticBank

bank = SyntheticBank.from_hub("{repo_id or "OWNER/NAME"}")
genmix = GenMix(bank)  # images, labels = genmix(images, labels)
```

`revision=` takes a tag or a commit, for a bank that stays as it is. The files are safetensors and JSON: opening them
runs nothing."""


def _provenance(bank: Bank) -> str:
    parts = ["## Where the images come from"]
    found = provenance_facts(bank)
    counts = np.bincount(bank.column("source").numpy(), minlength=len(found)).tolist()
    for number, facts in enumerate(found):
        table = ["| | |", "|---|---|", *(f"| {name} | {_safe(text)} |" for name, text in facts)]
        if len(found) > 1:
            parts.append(f"### Source {number}: {counts[number]:,} images")
        parts.append("\n".join(table) if facts else "Nothing is recorded.")
    return "\n\n".join(parts)


def provenance_facts(bank: Bank) -> list[list[tuple[str, str]]]:
    """What may be published of where a bank's images come from: for each source pairs of a name and a text.

    Example:
        >>> from genmix_transforms import SyntheticBank
        >>> images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
        >>> source = {"seed": 3, "data": "/home/me"}
        >>> bank = SyntheticBank(images, torch.tensor([0]), classes=["cyst"], provenance=source)
        >>> provenance_facts(bank)
        [[("bank's seed", '3')]]
    """
    of = bank.column("source").numpy()
    return [
        _facts(source, bank.classes) + _seeds(bank.column("seeds").numpy()[of == number])
        for number, source in enumerate(bank.sources)
    ]


def _facts(source: Mapping[str, Any], classes: Sequence[str]) -> list[tuple[str, str]]:
    """What a source's provenance says that may be published, as pairs of texts."""
    generator = _mapping(source.get("generator"))
    training = _mapping(generator.get("training"))
    training_set = _mapping(source.get("training_set")) or _mapping(training.get("training_set"))
    members = generator.get("members")
    kinds = [_mapping(member).get("kind") for member in members] if isinstance(members, list) else []
    several = sorted({kind for kind in kinds if isinstance(kind, str) and re.fullmatch(_KIND, kind)})
    pairs = [
        ("generator", _text(generator.get("kind"), _KIND)),
        ("its networks", ", ".join(several)),
        ("weights", _text(generator.get("weights"), _HASH)),
        ("training steps", _number(training.get("steps"))),
        ("training images seen", _number(training.get("images_seen"))),
        ("training set", _training_counts(training_set.get("class_counts"), classes)),
        ("training set's fingerprint", _text(training_set.get("fingerprint"), _HASH)),
        ("bank's seed", _number(source.get("seed"))),
        ("soft labels' concentration", _concentration(source.get("soft"))),
        ("imported from", source["source"] if source.get("source") in _IMPORTED else ""),
        ("genmix-transforms", _text(source.get("genmix_transforms"), _VERSION)),
        ("date", _text(source.get("date", source.get("created")), _DATE)),
    ]
    return [(name, text) for name, text in pairs if text]


def _training_counts(counts: Any, classes: Sequence[str]) -> str:
    # Only of classes that the card names already: another key could be anything.
    known = {name: n for name, n in _mapping(counts).items() if name in classes and _number(n)}
    others = sum(int(n) for name, n in _mapping(counts).items() if name not in classes and _number(n))
    texts = [f"{name} {int(n):,}" for name, n in known.items()] + ([f"other classes {others:,}"] if others else [])
    return ", ".join(texts)


def _seeds(seeds: NDArray[np.int64]) -> list[tuple[str, str]]:
    known = seeds[seeds >= 0]
    if not len(known):
        return []
    without = f"; {len(seeds) - len(known):,} images have none" if len(known) < len(seeds) else ""
    return [("seeds", f"{int(known.min())} to {int(known.max())}{without}")]


def _memorisation(bank: Bank) -> str:
    distance, flags = bank.column("distance").numpy(), bank.column("flags").numpy()
    known = distance[np.isfinite(distance)]
    parts = ["## Copies of training images"]
    if len(known):
        names = " | ".join("nearest" if q == 0 else f"{q:.0%}" for q in QUANTILES)
        values = " | ".join(f"{value:.4g}" for value in np.quantile(known, QUANTILES))
        parts.append(
            f"The distance to the nearest training image is known for {_share(len(known), len(bank))}. Its quantiles, "
            "in the measure that was used (less is nearer):"
        )
        parts.append(f"| {names} |\n|{'---:|' * len(QUANTILES)}\n| {values} |")
    else:
        parts.append("Nobody has measured how near these images are to the training images.")
    marked = {
        "nearer to a training image than training images are to each other": int((flags & Flag.NEAR_COPY != 0).sum()),
        "the same as another image of the bank, or nearly": int((flags & Flag.DUPLICATE != 0).sum()),
    }
    if len(known) or any(marked.values()):
        lines = [f"- Marked as {meaning}: {_share(count, len(bank))}" for meaning, count in marked.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} images ({count / max(1, total):.1%})"


def _licence_text(licence: str | None) -> str:
    text = "None is stated: ask whoever published the bank before you use it." if licence is None else _safe(licence)
    return f"## Licence\n\n{text}"


def _recorded_licence(sources: Sequence[Mapping[str, Any]]) -> str | None:
    """The license that every source records, if it is one and the same."""
    found = {_text(source.get("licence", source.get("license")), LICENCE) for source in sources}
    return found.pop() or None if len(found) == 1 else None


def _given(text: str | None, name: str) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str) or not text.strip() or not text.isprintable() or _PATH.search(text):
        raise InputError(f"bank_card: {name} must be a line of text without a path, as it is published; got {text!r}")
    return text.strip()


def _default_title(classes: Sequence[str]) -> str:
    if len(classes) > 4:
        return f"Synthetic images of {len(classes)} classes"
    *others, last = classes
    return f"Synthetic images of {', '.join(others) + ' and ' if others else ''}{last}"


def _size_category(count: int) -> str:
    if count < 1000:
        return "n<1K"
    bounds = [f"{number}{unit}" for unit in "KMB" for number in (1, 10, 100)] + ["1T"]
    place = min(len(str(count)) - 4, len(bounds) - 2)
    return f"{bounds[place]}<n<{bounds[place + 1]}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any, pattern: str) -> str:
    """A text of a known form, or nothing."""
    return value if isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) else ""


def _number(value: Any) -> str:
    """A whole number, or nothing."""
    return f"{value}" if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else ""


def _concentration(value: Any) -> str:
    """A number of a distribution, or nothing."""
    return f"{value:g}" if isinstance(value, float) and 0 < value < math.inf else ""


def _safe(text: str) -> str:
    """Text that Markdown takes for text."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(text, quote=False))
