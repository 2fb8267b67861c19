"""A visual Turing test: real and synthetic images mixed, and a reader who says which are which.

The answers are kept in ``bank.turing.jsonl`` beside the bank, a line each, and nothing of the images with them. Which
images are shown, and which of them are real, follows from the bank, the data and the seed alone; no answer of the
server's says it before the last image is answered.
"""

import hashlib
import json
import secrets
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genmix_transforms.bank.curation import largest_remainder
from genmix_transforms.bank.decisions import LONGEST_NAME
from genmix_transforms.bank.manifest import REVIEW_LOCK, TURING, now
from genmix_transforms.bank.rows import places_by_name
from genmix_transforms.data import PatchDataset
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.evaluation.audit.review.desk import (
    OPEN,
    Answer,
    check_number,
    check_verdict,
    open_to_show,
    pixel_range,
)
from genmix_transforms.evaluation.audit.review.pictures import to_png
from genmix_transforms.evaluation.audit.review.score import TuringScore
from genmix_transforms.files.checks import check_seed, whole_number
from genmix_transforms.files.journal import Journal


class BlindDesk:
    """As many real as synthetic images, in random order. It is a :class:`~...review.desk.Desk`.

    Each class has as many real as synthetic images, so that the class says nothing; of the classes, the bank's shares,
    as far as there are enough images of both kinds.

    Args:
        folder: of the bank.
        patches: real images of the bank's size, channels and classes.
        images: how many are shown in all; an odd one more is left out.
        seed: which ones, and their order.
        reviewer: who answers. Each reader has a test, and a score, of his own.

    Raises:
        InputError: no such bank, patches of another size or of other classes, or fewer images than are asked for; or no
            answer can be kept.
        CorruptFileError: the bank, or the file of answers, is not what was written.
    """

    answers: tuple[Answer, Answer] = (Answer("real", "r", "r", "Real"), Answer("synthetic", "s", "s", "Synthetic"))
    is_private = True

    folder: Path
    reviewer: str

    def __init__(
        self, folder: str | Path, patches: PatchDataset, *, images: int = 100, seed: int = 0, reviewer: str = ""
    ) -> None:
        self.folder, self.reviewer = Path(folder).absolute(), reviewer[:LONGEST_NAME]
        images, seed = whole_number(images, name="images", least=2), check_seed(seed, name="seed")
        self._rows, self._patches = open_to_show(self.folder), patches
        if tuple(patches.images.shape[1:]) != self._rows.image_shape:
            raise InputError(
                f"--blind: the bank's images are {_by(self._rows.image_shape)}, those of {patches.name} "
                f"{_by(patches.images.shape[1:])}: which is which would show; --size and --channels mend that"
            )
        if patches.images.dtype != self._rows.pixel_dtype:
            raise InputError(
                f"--blind: the bank's pixels are {self._rows.pixel_dtype}, those of {patches.name} "
                f"{patches.images.dtype}: which is which would show"
            )
        self._range = _common_range(pixel_range(self._rows.manifest), patches)
        self._draw(images // 2, seed)
        entries = [(entry.file, entry.xxh3) for entry in self._rows.manifest.shards]
        content = json.dumps(["turing", entries, patches.fingerprint, images // 2, seed])
        self._test = hashlib.sha256(content.encode()).hexdigest()[:16]
        self._journal = Journal(self.folder / TURING, lock=self.folder / REVIEW_LOCK)
        self._journal.append()
        self._lock, self._made = threading.Lock(), 0
        self._of: list[list[str]] = [[] for _ in self._number]  # by image: the answers that were not undone
        self._given: dict[str, tuple[int, str]] = {}
        self._refresh()

    def _draw(self, half: int, seed: int) -> None:
        """Choose the images and their order."""
        rows, patches = self._rows, self._patches
        places_by_name(rows.classes, patches.classes, counts=rows.counts.tolist())  # refuses other classes
        of_data = {name: patches.labels == number for number, name in enumerate(patches.classes)}
        real = np.array([int(of_data[name].sum()) if name in of_data else 0 for name in rows.classes])
        enough = np.minimum(rows.counts, real)
        if not enough.sum():
            raise InputError(f"--blind: of no class are there both synthetic images and patches of {patches.name}")
        if half > enough.sum():
            raise InputError(
                f"--blind: {2 * half} images need {half} real and {half} synthetic ones, as many of each class; there "
                f"are {int(enough.sum())} such pairs: take --images {2 * int(enough.sum())} or fewer"
            )
        # In the bank's proportions, as far as both kinds last.
        wanted = np.minimum(largest_remainder(rows.counts, half), enough)
        wanted = wanted + largest_remainder(enough - wanted, half - int(wanted.sum()))
        random = np.random.Generator(np.random.Philox(key=[seed, half]))
        number, is_real, labels = [], [], []
        starts = rows.counts.cumsum() - rows.counts
        for label, (name, count) in enumerate(zip(rows.classes, wanted.tolist(), strict=True)):
            if count:
                mine = starts[label] + random.permutation(int(rows.counts[label]))[:count]
                theirs = np.flatnonzero(of_data[name].numpy())[random.permutation(int(real[label]))[:count]]
                number += [mine, theirs]
                is_real += [np.zeros(count, dtype=bool), np.ones(count, dtype=bool)]
                labels.append(np.full(2 * count, label))
        order = random.permutation(2 * half)
        self._number, self._is_real = np.concatenate(number)[order], np.concatenate(is_real)[order]
        self._labels = np.concatenate(labels)[order]

    @property
    def is_finished(self) -> bool:
        """Whether every image is answered: then nothing can be changed any more, and there is a score."""
        return all(self._of)

    @property
    def score(self) -> TuringScore | None:
        """None: before the last answer."""
        if not self.is_finished:
            return None
        said_real = np.array([self._given[given[-1]][1] == "real" for given in self._of])
        return TuringScore(
            real=int(self._is_real.sum()),
            synthetic=int((~self._is_real).sum()),
            real_called_real=int((said_real & self._is_real).sum()),
            synthetic_called_real=int((said_real & ~self._is_real).sum()),
        )

    def start(self) -> dict[str, Any]:
        """See :class:`~...review.desk.Desk`."""
        return {
            "mode": "blind",
            "name": self.folder.name,
            "total": len(self._number),
            "version": self._test,
            "classes": list(self._rows.classes),
            "labels": self._labels.tolist(),
            "marks": {},
            "answers": [answer._asdict() for answer in self.answers],
        }

    def state(self) -> dict[str, Any]:
        """See :class:`~...review.desk.Desk`. With ``score`` and ``truth`` when all is answered."""
        with self._lock:
            self._refresh()
            letters = "".join(self._given[given[-1]][1][0] if given else OPEN for given in self._of)
            score = self.score
        state: dict[str, Any] = {"letters": letters}
        state["text"] = f"{len(letters) - letters.count(OPEN)} of {len(letters)} answered"
        if score is not None:
            state["score"] = {**score.to_dict(), "text": score.text}
            state["truth"] = "".join("r" if real else "s" for real in self._is_real.tolist())
        return state

    def picture(self, number: int) -> bytes:
        """See :class:`~...review.desk.Desk`."""
        check_number(number, len(self._number))
        at = int(self._number[number])
        image = self._patches.images[at] if self._is_real[number] else self._rows.rows(torch.tensor([at]))[0]
        return to_png(image, low=self._range[0], high=self._range[1])

    def decide(self, number: int, verdict: str) -> str:
        """See :class:`~...review.desk.Desk`."""
        check_number(number, len(self._number))
        check_verdict(verdict, self.answers)
        with self._lock:
            self._refresh()
            self._refuse_finished()
            identity = secrets.token_hex(8)
            record = {"id": identity, "test": self._test, "image": number, "answer": verdict}
            self._journal.append({**record, "reviewer": self.reviewer, "time": now()})
            self._made += 1
            self._refresh()
        return identity

    def undo(self, identity: str) -> int:
        """See :class:`~...review.desk.Desk`."""
        with self._lock:
            self._refresh()
            if not isinstance(identity, str) or identity not in self._given:
                raise InputError(f"there is no answer {str(identity)[:40]!r} to undo")
            number = self._given[identity][0]
            if identity in self._of[number]:
                self._refuse_finished()
                self._journal.append({"undo": identity, "test": self._test, "reviewer": self.reviewer, "time": now()})
                self._refresh()
        return number

    def summary(self) -> str:
        """See :class:`~...review.desk.Desk`."""
        state = self.state()
        made = f"{self._made} answer{'s' * (self._made != 1)} given"
        score = f"\n{state['score']['text']}" if "score" in state else ""
        return f"{self.folder}: {made}; {state['text']}{score}"

    def _refuse_finished(self) -> None:
        if self.is_finished:
            raise InputError(
                "every image is answered, and the score was shown; another --seed or --reviewer, another test"
            )

    def _refresh(self) -> None:
        for record in self._journal.new():
            if record.get("test") != self._test or record.get("reviewer") != self.reviewer:
                continue
            if "undo" in record:
                number, _ = self._given.get(str(record["undo"]), (None, ""))
                if number is not None:
                    self._of[number] = [one for one in self._of[number] if one != record["undo"]]
                continue
            number, identity = record.get("image"), str(record.get("id"))
            try:
                number = check_number(number, len(self._of))
                check_verdict(record.get("answer"), self.answers)
            except InputError as error:
                raise CorruptFileError(f"{self._journal.path}: not an answer ({error})") from error
            if identity not in self._given:
                self._given[identity] = (number, str(record["answer"]))
                self._of[number].append(identity)


def _common_range(bank: tuple[int, int], patches: PatchDataset) -> tuple[int, int]:
    """Which pixel values are black and white, for real and synthetic images alike."""
    if patches.images.dtype == torch.uint8:
        return bank
    values = patches.images.to(torch.int32)
    return min(bank[0], int(values.min())), max(bank[1], int(values.max()))


def _by(shape: Any) -> str:
    return " x ".join(map(str, shape))
