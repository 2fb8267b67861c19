"""The generators of few_labels.py: what each learns from the pool, and how it is adapted to labelled images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from few_labels_views import Colored, Folded, Plain, View

from genmix_transforms import SyntheticBank
from genmix_transforms.bank.manifest import INDEX
from genmix_transforms.data import PatchDataset
from genmix_transforms.evaluation import Protocol
from genmix_transforms.evaluation.bank_making import Recipe
from genmix_transforms.evaluation.labelling import label_bank
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.generators import fill_bank
from genmix_transforms.generators.adm import ADM
from genmix_transforms.generators.adm.classifier_training import train_classifier
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.registry import load_generator

FACES, LATENT = "faces", "latent"
"""Ways that need files which are not in the package: of a published DCGAN, and of an autoencoder."""

WAYS = ("dcgan", "dcgan-soft", "dcgan-labelled", "adm", "adm-classes", "adm-guided")
"""Those that need nothing else."""

_ADM = {
    "num_channels": 64, "channel_mult": [1, 2], "num_res_blocks": 1, "attention_resolutions": [],
    "num_head_channels": 64, "resblock_updown": True, "learn_sigma": False, "class_cond": False,
    "noise_schedule": "cosine", "dropout": 0.0,
}  # fmt: skip
"""Not narrower: with 32 groups, the norms of 32 channels take the mean of each from the image, and the brightness of
what is drawn is left to chance."""
_SAMPLER = {"eta": 1.0}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a generator is adapted to labelled images.

    Args:
        fit: settings of its training on them; None: it is not trained.
        guide: settings of a classifier's training on them that guides it; None: no classifier.
        scale: of the guidance.
        soft: the images are drawn from soft labels of this concentration (GeMix); None: of one class each.
        labelled: so many images are drawn from the generator as it is, which knows no classes, and get the
            probabilities of a classifier for labels; None: it is asked for classes.
    """

    fit: Mapping[str, Any] | None = None
    guide: Mapping[str, Any] | None = None
    scale: float = 1.0
    soft: float | None = None
    labelled: int | None = None


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A generator that knows something from elsewhere.

    Args:
        kind: of generator.
        ways: of adapting it, by the names of their banks.
        pool: settings of its training on the pool; None: ``weights`` know something else.
        network: options of its constructor.
        view: how it sees patches.
        weights: a folder with a generator that others have trained.
    """

    kind: str
    ways: Mapping[str, Way]
    pool: Mapping[str, Any] | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    view: View = field(default_factory=Plain)
    weights: Path | None = None

    def learn(self, pool: PatchDataset, *, out: Path, progress: bool) -> None:
        """Train on the pool; a training that is finished is only looked at."""
        if self.pool is not None:
            images = self.view.of(pool)
            generator = Recipe(kind=self.kind, network=self.network).untrained(images)
            generator.fit(images, out=out, progress=progress, **self.pool)

    def bank(
        self,
        way: str,
        splits: Splits,
        *,
        judge: Protocol,
        pool_run: Path,
        run: Path,
        out: Path,
        per_class: int,
        seed: int,
    ) -> SyntheticBank:
        """Adapt to labelled images, and draw so many of each class; what is there is only read.

        Args:
            way: which.
            splits: the labelled images, and the parts that no generator sees.
            judge: how a classifier is trained that labels images.
            pool_run: where :meth:`learn` has left the generator.
            run: a folder for the adapted one.
            out: a folder for the bank; what the generator has drawn, as it sees images, is left beside it.
            per_class: images.
            seed: of the training and of the images.
        """
        if not (out / INDEX).exists():
            train, chosen = splits[0], self.ways[way]
            images = self.view.of(train)
            if chosen.labelled is not None:
                drawn = _as_it_is(load_generator(self.weights or pool_run), chosen.labelled, seed=seed)
                label_bank(self.view.back(drawn, train.images.shape[-1]), splits, soft=True, protocol=judge).save(out)
                return SyntheticBank.load(out)
            generator = self._adapted(self.ways[way], images, start=self.weights or pool_run, run=run, seed=seed)
            drawn, counts = out.with_name(f"{out.name}-as-drawn"), dict.fromkeys(train.classes, per_class)
            filled = fill_bank(generator, counts=counts, out=drawn, seed=seed, soft=self.ways[way].soft, progress=False)
            self.view.back(filled, train.images.shape[-1]).save(out)
        return SyntheticBank.load(out)

    def _adapted(self, way: Way, images: PatchDataset, *, start: Path, run: Path, seed: int) -> Generator:
        if way.guide is None:
            generator = Recipe(kind=self.kind, weights=start).untrained(images)
            generator.fit(images, out=run, seed=seed, warm_start=True, progress=False, **(way.fit or {}))
            return load_generator(run)
        known = load_generator(start)
        assert isinstance(known, ADM)
        classifier = train_classifier(images, generator=known, out=run, seed=seed, progress=False, **way.guide)
        return known.with_classifier(classifier, scale=way.scale, classes=images.classes)


def _as_it_is(generator: Generator, number: int, *, seed: int) -> SyntheticBank:
    """Images of a generator that knows one class: all."""
    seeds = torch.arange(number) + seed * number
    images = generator.sample(torch.zeros(number, dtype=torch.int64), seeds)
    return SyntheticBank(
        images, torch.zeros(number, dtype=torch.int64), classes=generator.classes, seeds=seeds,
        provenance={"generator": generator.describe(), "training_set": generator.training_record()},
    )  # fmt: skip


def _adm_ways(name: str, *, adapted: Mapping[str, Any], few: Mapping[str, Any]) -> dict[str, Way]:
    """Fine-tune all weights, or a vector for each class and nothing else, or nothing, and a classifier guides it."""
    return {
        name: Way(fit={"preset": "fine-tune", **adapted}),
        f"{name}-classes": Way(fit={"preset": "classes", "batch_size": 16, "steps": 300, **few}),
        f"{name}-guided": Way(guide={"batch_size": 16, "steps": 300, **few}, scale=3.0),
    }


def teachers(
    side: int, *, quick: bool = False, faces: Path | None = None, latent: View | None = None
) -> dict[str, Teacher]:
    """The generators, by name.

    Args:
        side: of the patches in pixels.
        quick: only to see whether everything runs.
        faces: a folder with a DCGAN of 64 x 64 color images that was trained on faces, as ``genmix convert dcgan``
            leaves it; None: without.
        latent: an autoencoder's view, for a diffusion model of its latents; None: without.
    """
    tiny = {"steps": 2, "batch_size": 4} if quick else {}
    few = {"steps": 2} if quick else {}
    adapted = {"batch_size": 16, "steps": 300, "learning_rate": 1e-4, **few}
    longer = {**adapted, "steps": 400, **few}
    known = {
        "dcgan": Teacher(
            kind="dcgan",
            pool={"steps": 6_000, "batch_size": 32, **tiny},
            network={"base_width": 4 if quick else 32},
            ways={
                "dcgan": Way(fit=longer),
                "dcgan-soft": Way(fit=longer, soft=2.0),
                "dcgan-labelled": Way(labelled=24 if quick else 1_000),
            },
        ),
        "adm": Teacher(
            kind="adm",
            pool={"steps": 4_000, "batch_size": 16, "learning_rate": 2e-4, **tiny},
            network={"configuration": {"image_size": side // 2, **_ADM}, "sampler": _SAMPLER},
            view=Folded(),
            ways=_adm_ways("adm", adapted=adapted, few=few),
        ),
    }
    if faces is not None:
        known[FACES] = Teacher(kind="dcgan", weights=faces, view=Colored(64), ways={FACES: Way(fit=adapted)})
    if latent is not None:
        known[LATENT] = Teacher(
            kind="adm",
            pool={"steps": 5_000, "batch_size": 16, "learning_rate": 4e-4, **tiny},
            network={"configuration": {"image_size": 8, **_ADM}, "sampler": _SAMPLER},
            view=latent,
            ways=_adm_ways(LATENT, adapted=adapted, few=few),
        )
    return known
