"""A generator that keeps its discriminator, so that fine-tuning goes on with both networks."""

from pathlib import Path
from typing import Any, Self

from torch import nn

from genmix_transforms.errors import InputError
from genmix_transforms.files.tensors import read_tensors
from genmix_transforms.generators.adversarial import AdversarialTraining
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.folder import CONFIG, write_weights
from genmix_transforms.generators.state import weights_hash

DISCRIMINATOR = "discriminator.safetensors"


class AdversarialGenerator(Generator):
    """What a DCGAN and a StyleGAN have in common.

    A warm start takes the discriminator too. A new one would have to learn from the few images of the fine-tuning what
    an image is before it can say what a class is. Of the two networks it is the one whose transfer matters more (Wang
    et al., "Transferring GANs", arXiv 1805.01677).

    Attributes:
        discriminator: the one that the weights were trained with, or that came with converted weights; None without.
    """

    discriminator: nn.Module | None = None

    def new_discriminator(self) -> nn.Module:
        """A discriminator of this generator's sizes."""
        raise NotImplementedError(f"a {self.kind} generator has no discriminator")

    def with_network(self, network: nn.Module) -> Self:
        """The same generator with other weights, without a discriminator; see :meth:`Generator.with_network`."""
        other = super().with_network(network)
        other.discriminator = None
        return other

    def with_result(self, trainee: AdversarialTraining) -> Self:
        """What a training has made so far, with its discriminator."""
        other = super().with_result(trainee)
        other.discriminator = trainee.discriminator
        return other

    def take_up(self, trained: Self) -> None:
        """Draw from now on as ``trained`` does, and train on with its discriminator."""
        super().take_up(trained)
        self.discriminator = trained.discriminator

    def origin(self) -> dict[str, Any]:
        """What is recorded of the weights that a training starts from: the discriminator's too."""
        if self.discriminator is None:
            return super().origin()
        return {"discriminator": weights_hash(self.discriminator.state_dict()), **super().origin()}

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save as :meth:`Generator.save_pretrained` does, and the discriminator, where there is one, beside it."""
        super().save_pretrained(folder, overwrite=overwrite)
        beside = Path(folder) / DISCRIMINATOR
        if self.discriminator is None:
            beside.unlink(missing_ok=True)
        else:
            write_weights(beside, self.discriminator.state_dict(), provenance=self.provenance)

    @classmethod
    def _from_folder(cls, folder: Path, config: dict[str, Any]) -> Self:
        generator = super()._from_folder(folder, config)
        if (beside := folder / DISCRIMINATOR).exists():
            generator.discriminator = generator.new_discriminator()
            weights, _ = read_tensors(beside)
            try:
                generator.discriminator.load_state_dict(weights)
            except RuntimeError as error:
                raise InputError(f"{beside}: not the discriminator that {CONFIG} describes ({error})") from error
        return generator
