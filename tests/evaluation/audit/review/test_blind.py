"""A visual Turing test: what is shown, what is kept, what is told, and when."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.manifest import TURING
from genmix_transforms.data import PatchDataset
from genmix_transforms.errors import CorruptFileError, InputError
from genmix_transforms.evaluation.audit.review.blind import BlindDesk
from genmix_transforms.evaluation.audit.review.score import TuringScore


def grays(desk: BlindDesk) -> list[int]:
    """The gray value of each picture: from 100 on it is real."""
    return [int(np.asarray(Image.open(io.BytesIO(desk.picture(n))))[0, 0]) for n in range(desk.start()["total"])]


def answer_all(desk: BlindDesk, *, wrong: int = 0) -> None:
    for number, gray in enumerate(grays(desk)):
        desk.decide(number, "real" if (gray >= 100) == (number >= wrong) else "synthetic")


def test_each_class_has_as_many_real_as_synthetic_images_none_of_them_twice(folder: Path, patches: PatchDataset):
    desk = BlindDesk(folder, patches, images=16)
    shown, labels = grays(desk), desk.start()["labels"]
    assert len(set(shown)) == 16
    real = np.array([gray >= 100 for gray in shown])
    assert real.sum() == 8
    for label in (0, 1):
        assert (real & (np.array(labels) == label)).sum() == (~real & (np.array(labels) == label)).sum()
    # A class is the one that the name says: the data has them in the other order (even grays are metastases).
    assert all((gray < 5) == (label == 0) for gray, label in zip(shown, labels, strict=True) if gray < 100)
    assert all((gray % 2 == 1) == (label == 0) for gray, label in zip(shown, labels, strict=True) if gray >= 100)


def test_the_seed_decides_what_is_shown_and_in_which_order(folder: Path, patches: PatchDataset):
    first = grays(BlindDesk(folder, patches, images=8))
    assert grays(BlindDesk(folder, patches, images=8)) == first
    assert grays(BlindDesk(folder, patches, images=8, seed=1)) != first
    assert len(grays(BlindDesk(folder, patches, images=9))) == 8


def test_nothing_is_told_before_the_last_answer_and_nothing_changes_after_it(folder: Path, patches: PatchDataset):
    desk = BlindDesk(folder, patches, images=4)
    order = grays(desk)
    for number in range(3):
        identity = desk.decide(number, "real")
        assert sorted(desk.state()) == ["letters", "text"]
        assert desk.score is None
    assert desk.undo(identity) == 2
    assert desk.state() == {"letters": "rr..", "text": "2 of 4 answered"}
    for number in (2, 3):
        identity = desk.decide(number, "synthetic")
    state = desk.state()
    assert state["letters"] == "rrss"
    assert state["truth"] == "".join("r" if gray >= 100 else "s" for gray in order)
    right = sum(a == b for a, b in zip(state["truth"], "rrss", strict=True))
    assert state["score"]["right"] == right
    with pytest.raises(InputError, match="the score was shown"):
        desk.decide(0, "synthetic")
    with pytest.raises(InputError, match="the score was shown"):
        desk.undo(identity)
    assert desk.summary().startswith(f"{folder}: 5 answers given; 4 of 4 answered\n{right} of 4 right")


def test_the_score_is_of_the_answers(folder: Path, patches: PatchDataset):
    desk = BlindDesk(folder, patches, images=16)
    answer_all(desk)
    assert desk.score == TuringScore(real=8, synthetic=8, real_called_real=8, synthetic_called_real=0)
    other = BlindDesk(folder, patches, images=16, reviewer="B")
    answer_all(other, wrong=3)
    assert other.score is not None
    assert other.score.right == 13


def test_it_goes_on_where_it_stopped_and_each_reader_has_a_test_of_his_own(folder: Path, patches: PatchDataset):
    desk = BlindDesk(folder, patches, images=4, reviewer="A")
    desk.decide(1, "real")
    desk.decide(1, "synthetic")
    assert BlindDesk(folder, patches, images=4, reviewer="A").state()["letters"] == ".s.."
    assert BlindDesk(folder, patches, images=4, reviewer="B").state()["letters"] == "...."
    assert BlindDesk(folder, patches, images=4, reviewer="A", seed=1).state()["letters"] == "...."


def test_no_image_and_no_truth_is_written_down_and_the_bank_stays_as_it_is(folder: Path, patches: PatchDataset):
    flags = SyntheticBank.load(folder).flags
    desk = BlindDesk(folder, patches, images=4, reviewer="A")
    desk.decide(2, "real")
    record = json.loads((folder / TURING).read_text())
    assert sorted(record) == ["answer", "id", "image", "reviewer", "test", "time"]
    assert SyntheticBank.load(folder).flags.equal(flags)


def test_data_that_would_show_which_is_which_is_refused(folder: Path, patches: PatchDataset):
    with pytest.raises(InputError, match=r"the bank's images are 1 x 8 x 8, those of real 1 x 4 x 4"):
        BlindDesk(folder, patches.resized(4))
    with pytest.raises(InputError, match=r"those of real 3 x 8 x 8"):
        BlindDesk(folder, patches.with_channels(3))
    with pytest.raises(InputError, match=r"those of real torch\.uint16"):
        BlindDesk(folder, replace(patches, images=patches.images.to(torch.uint16)))
    with pytest.raises(InputError, match="cyst is no class of the data"):
        BlindDesk(folder, replace(patches, classes=("metastasis", "normal")))


def test_more_images_than_there_are_pairs_of_are_refused(folder: Path, patches: PatchDataset):
    with pytest.raises(InputError, match="there are 10 such pairs: take --images 20 or fewer"):
        BlindDesk(folder, patches, images=22)
    assert len(grays(BlindDesk(folder, patches, images=20))) == 20
    with pytest.raises(InputError, match="images"):
        BlindDesk(folder, patches, images=1)


def test_a_line_that_is_no_answer_is_damage(folder: Path, patches: PatchDataset):
    BlindDesk(folder, patches, images=4).decide(0, "real")
    record = json.loads((folder / TURING).read_text())
    (folder / TURING).write_text(json.dumps({**record, "image": 4}) + "\n")
    with pytest.raises(CorruptFileError, match="not an answer"):
        BlindDesk(folder, patches, images=4)
