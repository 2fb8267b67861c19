"""The audit's numbers beside those of ``prdc`` and ``torch-fidelity`` on the same features, and banks of known faults.

    pip install prdc torch-fidelity        # each is skipped where it is not installed
    python benchmarks/audit_quality.py --data pneumoniamnist.npz --size 64 --features pixels

First the numbers: of one half of the real images beside the other, and beside noise; all programs see the same float64
features. Two numbers are equal that differ by at most 1e-5 (of the larger one, where that is above 1). Then the
verdicts: the validation part as a bank, as it is and with each fault put into it, against the test part; a perfect
generator and three useless ones.
"""

import argparse
import contextlib
import importlib
import io
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from timing import machine
from torch import Tensor

from genmix_transforms import SyntheticBank
from genmix_transforms.data import open_dataset
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit import fidelity
from genmix_transforms.evaluation.audit.features import feature_extractor
from genmix_transforms.evaluation.audit.quality import QualitySettings, measure_quality

TOLERANCE = 1e-5
SHOWN = ("KID x 1000", "precision", "recall", "density", "coverage", "MS-SSIM of pairs", "Vendi score", "fine noise")

Numbers = Mapping[str, float]


def of_ours(real: Tensor, synthetic: Tensor, nearest: int) -> Numbers:
    found: dict[str, float] = fidelity.prdc(real, synthetic, nearest=nearest)._asdict()
    found["KID"] = fidelity.kid(real, synthetic)
    if not fidelity.fid_refused(min(len(real), len(synthetic)), real.shape[1]):
        found["FID"] = fidelity.fid(real, synthetic)
    return found


def of_prdc(real: Tensor, synthetic: Tensor, nearest: int) -> Numbers:
    compute: Callable[..., Numbers] = importlib.import_module("prdc").compute_prdc
    return compute(real_features=real.numpy(), fake_features=synthetic.numpy(), nearest_k=nearest)


def of_torch_fidelity(real: Tensor, synthetic: Tensor, nearest: int) -> Numbers:
    kid, fid, prc = (importlib.import_module(f"torch_fidelity.metric_{name}") for name in ("kid", "fid", "prc"))
    one = {"kid_subsets": 1, "kid_subset_size": len(real), "verbose": False, "rng_seed": 0}
    found = {"KID": kid.kid_features_to_metric(real, synthetic, **one)[kid.KEY_METRIC_KID_MEAN]}
    # Generated images come first there.
    both = prc.prc_features_to_metric(synthetic, real, prc_neighborhood=nearest, verbose=False)
    found |= {"precision": both["precision"], "recall": both["recall"]}
    if not fidelity.fid_refused(len(real), real.shape[1]):
        parts = [fid.fid_features_to_statistics(part) for part in (real, synthetic)]
        found["FID"] = fid.fid_statistics_to_metric(*parts, verbose=False)[fid.KEY_METRIC_FID]
    return found


RIVALS = {"prdc": of_prdc, "torch_fidelity": of_torch_fidelity}


def compare(real: Tensor, synthetic: Tensor, *, nearest: int, what: str) -> bool:
    """Print a line a number and program; whether all agree."""
    started = time.perf_counter()
    ours = of_ours(real, synthetic, nearest)
    took, agree = time.perf_counter() - started, True
    print(f"\n{what}: {len(real)} and {len(synthetic)} images, {real.shape[1]} features; ours in {took:.2f} s")
    print("| program | number | theirs | ours | difference | |\n| --- | --- | --- | --- | --- | --- |")
    for name, measure in RIVALS.items():
        try:
            started = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                theirs = measure(real, synthetic, nearest)
            took = time.perf_counter() - started
        except ImportError as error:
            print(f"| {name} | | | | | skipped: not installed ({error}) |")
            continue
        for number, value in theirs.items():
            apart = abs(float(value) - ours[number])
            equal = apart <= TOLERANCE * max(1.0, abs(float(value)))
            agree &= equal
            mark = "equal" if equal else "NOT EQUAL"
            print(f"| {name} ({took:.2f} s) | {number} | {value:.7g} | {ours[number]:.7g} | {apart:.1e} | {mark} |")
    if "FID" not in ours:
        print(f"FID: {fidelity.fid_refused(min(len(real), len(synthetic)), real.shape[1])}.")
    return agree


def banks_of(patches: PatchDataset) -> dict[str, SyntheticBank]:
    """Patches as a bank, and with each fault."""
    good = SyntheticBank(patches.images, patches.labels, classes=patches.classes)
    generator = torch.Generator().manual_seed(0)
    first = {number: good.images[good.labels == number][0] for number in good.labels.unique().tolist()}
    alike = torch.stack([first[number] for number in good.labels.tolist()])
    shaken = (alike.int() + torch.randint(-3, 4, alike.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    noise = torch.randint(0, 256, good.images.shape, generator=generator, dtype=torch.uint8)
    return {
        "real images of other patients": good,
        "collapsed: one image a class, shaken by 3": good.replace(images=shaken),
        "wrong classes: each label moved on by one": SyntheticBank(
            good.images, (good.labels + 1) % len(good.classes), classes=good.classes
        ),
        "noise": good.replace(images=noise),
    }


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", type=Path, required=True)
    found.add_argument("--size", type=int, default=64)
    found.add_argument("--channels", type=int, default=1)
    found.add_argument("--features", default="efficientnet_lite0", help="efficientnet_lite0 or pixels")
    found.add_argument("--images", type=int, default=300, help="of each side, at most")
    found.add_argument("--nearest", type=int, default=5)
    found.add_argument("--draws", type=int, default=30)
    found.add_argument("--no-verdicts", action="store_true")
    return found


def main() -> None:
    given = parser().parse_args()
    torch.set_num_threads(1)
    print(machine(torch.device("cpu")))
    patches = open_dataset(given.data, size=given.size, channels=given.channels)
    train, validation, test = patches.split(seed=0)
    extractor = feature_extractor(given.features)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(patches))[: 2 * given.images])
    count = len(order) // 2
    images = patches.images[order]
    features = extractor(images).double()
    noise = torch.randint(0, 256, images[:count].shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    print(f"{patches!r}; features: {extractor.name}")
    # Of few features too: those of a network are too many for an FID of so few images.
    agree = compare(features[:count], features[count : 2 * count], nearest=given.nearest, what="real and real")
    agree &= compare(features[:count], extractor(noise).double(), nearest=given.nearest, what="real and noise")
    few = features[:, torch.linspace(0, features.shape[1] - 1, 32).long()]
    agree &= compare(few[:count], few[count : 2 * count], nearest=given.nearest, what="32 of the features")
    if not given.no_verdicts:
        settings = QualitySettings(draws=given.draws, images=given.images, against="unseen")
        # The bank is made of validation images, which must then not stand on the other side.
        half = len(test) // 2
        splits = (train, test.subset(torch.arange(half)), test.subset(torch.arange(half, len(test))))
        for name, bank in banks_of(validation).items():
            started = time.perf_counter()
            found = measure_quality(bank, splits, features=extractor, settings=settings)
            print(f"\n{name} ({len(bank)} images, {time.perf_counter() - started:.0f} s): {found.text}")
            for key in SHOWN:
                print(f"    {found.overall[key].text}")
            assert found.labels is not None
            assert found.usefulness is not None
            for one in (*found.labels.overall, *found.usefulness.overall):
                print(f"    {one.text}")
    if not agree:
        sys.exit("audit_quality: some numbers are not equal")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"audit_quality: {error}")
