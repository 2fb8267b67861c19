"""A generator's first steps on a device: trained in float32 and bf16, stopped and gone on with, a bank filled, 16 bits.

    python benchmarks/first_steps.py --kind dcgan --device cuda

Each is tried, whatever became of the others, and said to be "ok" or what went wrong. The data are random discs. A
training is stopped as a scheduler stops it, by SIGTERM within a step, and gone on with by a generator made anew. On a
CPU it must end with the same weights as one that nobody stopped, bit for bit; on a GPU, whose sums are not always in
the same order, what it differs by is said. Textual Inversion stands on a base model of random weights
(``pip install '.[textual-inversion]'``).
"""

import argparse
import math
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from findings import Findings, add_json_option
from timing import machine
from torch import Tensor

from genmix_transforms import GenMix
from genmix_transforms.data import PatchDataset
from genmix_transforms.generators import ADM, DCGAN, StyleGAN, fill_bank
from genmix_transforms.generators.base import Generator

CLASSES = ("dark", "bright")
KINDS = ("dcgan", "stylegan", "adm", "textual-inversion")
OK = "ok"

TINY_ADM = {
    "image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 1], "attention_resolutions": [8],
    "num_head_channels": 32, "learn_sigma": True, "class_cond": True, "num_classes": 2, "diffusion_steps": 50,
}  # fmt: skip


def maker(kind: str, *, tiny: bool, scratch: Path) -> Callable[..., Generator]:
    """Makes a generator of a kind, at 64 pixels or tiny; ``bits=16`` for the other pixels."""
    side = 16 if tiny else 64
    common: dict[str, Any] = {"classes": CLASSES, "channels": 1}
    few = {"sampler": {"steps": 1 if tiny else 10, "batch_size": 8}}
    if kind == "dcgan":
        small = {"base_width": 4, "latent_size": 8} if tiny else {}
        return lambda **options: DCGAN(**common, resolution=side, **small, **options)
    if kind == "stylegan":
        small = {"fmap_base": 64, "fmap_max": 8, "latent_size": 8, "mapping_layers": 2} if tiny else {}
        return lambda **options: StyleGAN(**common, resolution=side, **small, **options)
    if kind == "adm":
        configuration: Any = TINY_ADM if tiny else "small-64"
        return lambda **options: ADM(**common, configuration=configuration, **few, **options)
    from ldm_shapes import SCALED, TINY, save_shapes

    from genmix_transforms.generators import TextualInversion
    from genmix_transforms.generators.textual_inversion.base_model import find_base_model, open_base_model

    # Opened once: it is frozen, and every generator may share it.
    base = open_base_model(find_base_model(save_shapes(TINY if tiny else SCALED, scratch / "base")))
    return lambda **options: TextualInversion(**common, resolution=side, base=base, vectors=2, **few, **options)


def discs(count: int, *, side: int, bits: int) -> PatchDataset:
    """Bright discs on dark ground, and dark ones on bright, with noise."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    grid = torch.arange(side) - side / 2
    disc = ((grid[:, None] ** 2 + grid**2) < (side / 4) ** 2).float()
    shown = torch.where(labels.view(-1, 1, 1) == 0, disc, 1 - disc)
    values = 0.8 * shown + 0.2 * torch.rand(count, side, side, generator=random)
    pixels = (values * (2**bits - 1)).to(torch.uint8 if bits == 8 else torch.uint16)
    return PatchDataset(images=pixels[:, None], labels=labels, classes=CLASSES, name="discs")


class Trial:
    """One kind on one device, and the parts of its trial.

    Args:
        make: a generator made anew, of the same weights every time.
        device: where it is trained.
        steps: of each training.
        batch: images in a step.
        scratch: a folder for runs and banks.
        findings: what takes the numbers.
    """

    def __init__(
        self,
        make: Callable[..., Generator],
        *,
        device: torch.device,
        steps: int,
        batch: int,
        scratch: Path,
        findings: Findings,
    ) -> None:
        self.make = make
        self.device = device
        self.steps = steps
        self.batch = batch
        self.scratch = scratch
        self.findings = findings
        self.trained: Generator | None = None

    def fit(self, name: str, *, bits: int = 8, steps: int | None = None, **options: Any) -> Generator:
        """Train one anew, or go on with the run of that name."""
        generator = self.make(bits=bits)
        patches = discs(64, side=generator.image_shape[-1], bits=bits)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="very few images")
            generator.fit(
                patches, out=self.scratch / name, steps=steps or self.steps, batch_size=self.batch, progress=False,
                device=str(self.device), **options,
            )  # fmt: skip
        return generator

    def timed(self, name: str, **options: Any) -> Generator:
        """Train one, and say how long a step takes, the loop and the last checkpoint included."""
        started = time.perf_counter()
        generator = self.fit(name, **options)
        taken = time.perf_counter() - started
        self.findings.add(f"{name}: ms a step, with start and checkpoint", 1e3 * taken / self.steps, "ms")
        broken = [key for key, value in weights_of(generator).items() if not value.float().isfinite().all()]
        if broken:
            raise ValueError(f"weights that are not finite: {', '.join(broken[:3])}")
        return generator

    def float32(self) -> str:
        """Trained in float32."""
        self.trained = self.timed("float32")
        return OK

    def bf16(self) -> str:
        """Trained in bf16."""
        self.timed("bf16", mixed_precision="bf16")
        return OK

    def resumed(self) -> str:
        """Stopped by SIGTERM half way, and gone on with: no step is taken twice."""
        if self.trained is None:
            raise ValueError("there is no unbroken training to compare with")
        taken = 0
        stop_at = self.steps // 2
        with counted_steps(type(self.trained), at=stop_at) as count:
            try:
                self.fit("resumed")
            except KeyboardInterrupt:
                taken = count[0]
            else:
                raise ValueError("SIGTERM did not stop it")
            again = self.fit("resumed")
        if count[0] != self.steps:
            raise ValueError(f"took {count[0]} steps in all, not {self.steps}, of which {taken} before the stop")
        difference = largest_difference(weights_of(again), weights_of(self.trained))
        self.findings.add("resumed: largest difference to the weights of an unbroken run", difference)
        if self.device.type == "cpu" and difference:
            raise ValueError(f"weights differ from those of an unbroken run by up to {difference:g}")
        return OK

    def filled(self) -> str:
        """A bank, written, verified, and made of the same images as they are drawn one by one."""
        if self.trained is None:
            raise ValueError("there is no training to draw from")
        count = 2 * self.batch
        started = time.perf_counter()
        bank = self._fill(self.trained, "bank", count)
        self.findings.add("filled: images/s, files included", count / (time.perf_counter() - started))
        bank.verify()
        few = slice(0, 3)
        alone = torch.cat([self.trained.sample([0], [seed]) for seed in range(3)]).cpu()
        if not torch.equal(bank.images[few].cpu(), alone):
            off = (bank.images[few].cpu().int() - alone.int()).abs().max().item()
            raise ValueError(f"an image drawn alone is not the bank's: up to {off} grey values apart")
        return OK

    def sixteen_bits(self) -> str:
        """Pixels of 16 bits: trained on, drawn, and mixed into a batch of 32."""
        generator = self.fit("16 bits", bits=16, steps=2)
        bank = self._fill(generator, "bank of 16 bits", 40)
        bank.verify()
        mix = GenMix(bank.to(self.device))
        images = torch.rand(32, *generator.image_shape, device=self.device)
        mixed, labels = mix(images, torch.arange(32, device=self.device) % 2)
        if not (mixed.isfinite().all() and labels.isfinite().all() and mixed.min() >= 0 and mixed.max() <= 1):
            raise ValueError(f"mixed values run from {mixed.min():g} to {mixed.max():g}")
        return OK

    def _fill(self, generator: Generator, name: str, count: int) -> Any:
        half = {CLASSES[0]: count // 2, CLASSES[1]: count - count // 2}
        return fill_bank(generator.to(self.device), counts=half, out=self.scratch / name, progress=False)


@contextmanager
def counted_steps(kind: type[Generator], *, at: int) -> Any:
    """Counts the steps of all trainings of a kind; in step number ``at`` SIGTERM arrives, once."""
    count = [0]
    plain = kind.make_trainee

    def make_trainee(self: Generator, *arguments: Any, **options: Any) -> Any:
        trainee = plain(self, *arguments, **options)
        step = trainee.training_step

        def training_step(*values: Any) -> Any:
            count[0] += 1
            if count[0] == at:
                signal.raise_signal(signal.SIGTERM)
            return step(*values)

        trainee.training_step = training_step
        return trainee

    kind.make_trainee = make_trainee  # type: ignore[method-assign]
    try:
        yield count
    finally:
        kind.make_trainee = plain  # type: ignore[method-assign]


def weights_of(generator: Generator) -> Mapping[str, Tensor]:
    """What was trained: a network, or of a Textual Inversion its vectors."""
    return getattr(generator, "embeddings", None) or generator.network.state_dict()


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Between two sets of weights of the same names."""
    if one.keys() != other.keys():
        raise ValueError("weights of other names")
    return max(float((one[name].float().cpu() - other[name].float().cpu()).abs().max()) for name in one)


PARTS = ("float32", "bf16", "resumed", "filled", "sixteen_bits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--steps", type=int, default=20, help="of each training; the one of 16 bits takes two")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tiny", action="store_true", help="networks that train a step in milliseconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_json_option(parser)
    given = parser.parse_args()
    if given.steps < 2 or not math.log2(given.batch_size).is_integer():
        parser.error("--steps must be at least 2, --batch-size a power of two")
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    findings = Findings(given.json, device=device)
    print(f"{given.kind}, {given.steps} steps of {given.batch_size}; {machine(device)}", flush=True)
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        trial = Trial(
            maker(given.kind, tiny=given.tiny, scratch=scratch), device=device, steps=given.steps,
            batch=given.batch_size, scratch=scratch, findings=findings,
        )  # fmt: skip
        for part in PARTS:
            try:
                said = getattr(trial, part)()
            except Exception as error:
                traceback.print_exc()
                said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                broken.append(part)
            findings.add(part.replace("sixteen_bits", "16 bits, batch of 32"), said)
            print(f"{part}: {said}", flush=True)
    if broken:
        sys.exit(f"{given.kind}: {', '.join(broken)} went wrong")


if __name__ == "__main__":
    main()
