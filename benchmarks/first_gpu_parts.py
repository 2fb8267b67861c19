"""The parts of a first contact with a GPU: which script measures what, for how long at most, and what it should reach.

Ordered by worth: whoever has less time than all of it takes loses the least. Each part is a script of this folder, as
anyone can run it alone; ``toy`` is the same at a size for two cores without a GPU.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST = 540
"""Seconds that all parts may take together."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What a number should be.

    Args:
        what: a regular expression, found in the names of the numbers that the aim is about; all must reach it.
        text: the aim in words.
        least: the smallest that reaches it.
        most: the largest.
        word: for what is said in words, the word.
    """

    what: str
    text: str
    least: float | None = None
    most: float | None = None
    word: str | None = None

    def reached_by(self, value: float | str) -> bool:
        """Whether a number, or a word, is as aimed for."""
        if self.word is not None:
            return value == self.word
        if isinstance(value, str):
            return False
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def judge(self, findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The aim, what was found, and whether it is met: None where nothing was found."""
        found = {finding["name"]: finding["value"] for finding in findings if re.search(self.what, finding["name"])}
        met = all(map(self.reached_by, found.values())) if found else None
        return {"aim": self.text, "found": found, "met": met}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One script's run.

    Args:
        name: for the command line.
        title: for tables.
        script: a file of this folder.
        limit: seconds after which it is killed.
        options: of the script, on a GPU.
        toy: of the script, on a CPU.
        aims: what it should reach.
        needs: packages beside torch, torchvision and NumPy.
        group: parts of one group, next to each other, run at the same time: they ask whether something works, not
            how long it takes.
    """

    name: str
    title: str
    script: str
    limit: int
    options: str
    toy: str
    aims: tuple[Aim, ...]
    needs: tuple[str, ...] = ()
    group: str | None = None


def _first_steps(kind: str, title: str, *needs: str) -> Part:
    return Part(
        name=kind,
        title=f"{title}: 20 steps in float32 and bf16, kill and resume, fill, 16 bits",
        script="first_steps.py",
        group="does it run?",
        limit=130,
        options=f"--kind {kind} --device cuda --threads 2",
        toy=f"--kind {kind} --device cpu --tiny --steps 2 --batch-size 4",
        aims=(
            Aim(what=r"^(float32|bf16)$", text="trains in float32 and bf16", word="ok"),
            Aim(what=r"^resumed$", text="killed, it goes on, and takes no step twice", word="ok"),
            Aim(what=r"^filled$", text="fills a bank; an image does not depend on its batch", word="ok"),
            Aim(what=r"^16 bits", text="16 bits: trained, drawn, mixed in a batch of 32", word="ok"),
        ),
        needs=needs,
    )


PARTS: tuple[Part, ...] = (
    Part(
        name="tests",
        title="The tests that need CUDA",
        script="cuda_tests.py",
        group="does it run?",
        limit=130,
        options="--processes 6",
        toy="--files tests/generators/test_randomness.py tests/bank/test_curation.py",
        aims=(
            Aim(what="tests that need CUDA: failed", text="none fails", most=0),
            Aim(what="tests that need CUDA: passed", text="they run", least=1),
        ),
        needs=("pytest", "hypothesis"),
    ),
    _first_steps("dcgan", "DCGAN"),
    _first_steps("stylegan", "StyleGAN"),
    _first_steps("adm", "ADM", "diffusers"),
    _first_steps("textual-inversion", "Textual Inversion", "diffusers", "transformers"),
    Part(
        name="compiled",
        title="StyleGAN compiled, across two phases, R1 at every second step",
        script="stylegan.py",
        group="does it run?",
        limit=130,
        options="--only phases --batch-size 8 --device cuda --threads 4",
        toy="--only phases --batch-size 4 --backend eager --device cpu",
        aims=(
            Aim(what="phase 1.*run compiled", text="the first phase runs", word="ok"),
            Aim(what="phase 2.*run compiled", text="and the one after it", word="ok"),
        ),
    ),
    Part(
        name="mixing",
        title="Mixing a batch of (256,3,224,224), with a bank of 10 GB",
        script="mixing.py",
        limit=45,
        options="--device cuda --shapes 256x3x224x224 --dtypes float32 bfloat16 --bank-gigabytes 10 --seconds 3",
        toy="--device cpu --shapes 8x3x8x8 --dtypes float32 --bank-gigabytes 0.001 --seconds 0.1 --threads 1 "
        "--bank-images 20 --one-process --without-numba --without-peers",
        aims=(
            Aim(what="float32: GenMix: share of the copy's bandwidth, device", text="80 % of a copy's", least=0.8),
            Aim(what="float32: GenMix: times as fast as v2.MixUp, device", text="3 x v2.MixUp", least=3),
            Aim(what="make the host wait", text="no call waits for the device", most=0),
            Aim(what="large bank that is on the device", text="the bank of 10 GB is on the device", least=0.999),
        ),
    ),
    Part(
        name="stylegan-kimg",
        title="StyleGAN, seconds for 1,000 images",
        script="stylegan.py",
        limit=60,
        options="--only kimg --batch-size 32 --rounds 8 --device cuda --threads 4",
        toy="--only kimg --resolutions 128 --fmap-base 128 --fmap-max 4 --batch-size 2 --rounds 1 --device cpu",
        aims=(Aim(what="bf16: share of the published", text="an A100's published time (StyleGAN2-ADA)", most=1),),
    ),
    Part(
        name="classifiers",
        title="A classifier's training, 8 images a step",
        script="evaluate_speed.py",
        limit=50,
        options="--data {data} --batch-size 8 --steps 60 --rounds 3 --warm-up 1 --classifiers small,vgg16 "
        "--arms baseline,classical --building --device cuda --threads 4",
        toy="--data {data} --batch-size 8 --steps 2 --rounds 1 --warm-up 1 --classifiers small "
        "--arms baseline --building --device cpu",
        aims=(Aim(what="times as fast as the plain loop$", text="3 x the plain loop", least=3),),
    ),
    Part(
        name="adm-training",
        title="ADM, a training step of the published network for 64 pixels",
        script="adm_training.py",
        limit=40,
        options="--configuration 64 --batch-size 64 --rounds 5 --only 'ours, bf16' ours --device cuda --threads 4",
        toy="--configuration small-32 --batch-size 1 --rounds 1 --warm-up 1 --only 'ours, bf16' --device cpu",
        aims=(Aim(what="training.*share of the bf16 matrix rate", text="40 % of the bf16 matrix rate", least=0.4),),
        needs=("diffusers",),
    ),
    Part(
        name="adm-sampling",
        title="ADM, 25 steps of sampling against 250",
        script="adm.py",
        limit=45,
        options="--preset 64 --batch-size 32 --methods ddpm ddim --precisions bfloat16 --rounds 2 --warm-up 1 "
        "--only steps --device cuda --threads 4",
        toy="--preset small-32 --batch-size 1 --few 1 --many 2 --methods ddim --precisions bfloat16 --rounds 1 "
        "--warm-up 1 --only steps --device cpu",
        aims=(Aim(what="sampling.*share of the bf16 matrix rate", text="40 % of the bf16 matrix rate", least=0.4),),
        needs=("diffusers",),
    ),
    Part(
        name="textual-inversion-full",
        title="Textual Inversion at the published shapes (872M + 582M)",
        script="textual_inversion.py",
        limit=70,
        options="--full-size --brief --bf16 --batch-size 8 --steps 4 --draws 1 --warm-up 1 --methods dpmsolver++ "
        "--device cuda --threads 8",
        toy="--quick --brief --batch-size 4 --steps 1 --draws 1 --warm-up 1 --many 2 --few 1 --methods dpmsolver++ "
        "--device cpu",
        aims=(Aim(what="times as fast as the example's", text="no slower than diffusers' example", least=1),),
        needs=("diffusers", "transformers"),
    ),
    Part(
        name="cost",
        title="The whole of the paper's table",
        script="table1_cost.py",
        limit=100,
        options="--data {data} --preset paper --random-weights --steps 10,40 --device cuda",
        toy="--data {data} --preset trial --generators adm,textual-inversion --random-weights --steps 1,2 --device cpu",
        aims=(Aim(what="hours of the whole table", text="two hours", most=2),),
        needs=("diffusers",),
    ),
)


def longest(parts: Sequence[Part] = PARTS) -> int:
    """Seconds that the parts take at most: those of a group run at the same time."""
    groups: dict[str, int] = {}
    for part in parts:
        key = part.group or part.name
        groups[key] = max(groups.get(key, 0), part.limit)
    return sum(groups.values())


def arguments_of(part: Part, *, toy: bool, data: str, earlier: Mapping[str, Any]) -> list[str]:
    """The script's arguments.

    Args:
        part: which.
        toy: at toy size.
        data: a file of patches.
        earlier: the results so far: the cost of the table takes a Textual Inversion's step from them.
    """
    arguments = [word.format(data=data) for word in shlex.split(part.toy if toy else part.options)]
    if part.name == "cost":
        for finding in earlier.get("textual-inversion-full", {}).get("findings", ()):
            if re.fullmatch(r"step, batch \d+, ours: ms", finding["name"]):
                arguments += ["--step-seconds", f"textual-inversion={finding['value'] / 1e3:.6f}"]
    return arguments
