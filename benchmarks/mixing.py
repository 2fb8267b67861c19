"""One batch mixed: GenMix with a uint8 bank, beside v2.MixUp and timm's Mixup, interleaved in one process.

Everything is counted on every side: draws, gather, dequantising and normalising (GenMix), mixing, labels. timm mixes in
place and needs the `bench` extra; without it its row is left out.

    python benchmarks/mixing.py --threads 1
"""

import argparse

import torch
from timing import interleave, machine, table
from torchvision.transforms import v2

from genmix_transforms import GenMix, SyntheticBank

SHAPES = ((8, 3, 224, 224), (64, 3, 224, 224), (256, 3, 64, 64), (64, 1, 64, 64), (8, 3, 8, 8))
CLASSES = 10
BANK_IMAGES = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    print(machine(device))
    for shape in SHAPES:
        images = torch.rand(shape, device=device)
        labels = torch.randint(0, CLASSES, shape[:1], device=device)
        pixels = torch.randint(0, 256, (BANK_IMAGES, *shape[1:]), dtype=torch.uint8, device=device)
        bank = SyntheticBank(
            pixels,
            torch.arange(BANK_IMAGES, device=device) % CLASSES,
            classes=[str(number) for number in range(CLASSES)],
        )
        normalisation = {"mean": (0.5,), "std": (0.5,)}
        own = images.clone()
        mixup, genmix = v2.MixUp(num_classes=CLASSES), GenMix(bank, **normalisation)
        inplace = GenMix(bank, inplace=True, **normalisation)
        rivals = {
            "v2.MixUp": lambda images=images, labels=labels, mixup=mixup: mixup(images, labels),
            "GenMix": lambda images=images, labels=labels, genmix=genmix: genmix(images, labels),
            "GenMix, in place": lambda own=own, labels=labels, inplace=inplace: inplace(own, labels),
            "images.clone()": images.clone,
        }
        try:
            from timm.data.mixup import Mixup
        except ImportError:
            print("timm is not installed (pip install '.[bench]'): left out")
        else:
            timm_mixup, theirs = Mixup(num_classes=CLASSES, label_smoothing=0.0), images.clone()
            rivals["timm Mixup, in place"] = lambda theirs=theirs, labels=labels, mix=timm_mixup: mix(theirs, labels)
        print(f"\n{shape}, float32")
        print(table(interleave(rivals, rounds=arguments.rounds, device=device), against="v2.MixUp"))


if __name__ == "__main__":
    main()
