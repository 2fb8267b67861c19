"""Embeddings learned elsewhere, made a generator: read and checked first, the base model opened after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genmix_transforms.errors import InputError
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.generators.textual_inversion.base_model import PAPER_MODEL
from genmix_transforms.generators.textual_inversion.embeddings_file import find_embeddings, read_embeddings
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion
from genmix_transforms.generators.textual_inversion.tokens import check_classes

if TYPE_CHECKING:
    from genmix_transforms.generators.textual_inversion.generator import TextualInversion


def from_embeddings(
    files: Mapping[str, str | Path],
    *,
    base: str | Path | LatentDiffusion = PAPER_MODEL,
    revision: str | None = None,
    **options: Any,
) -> "TextualInversion":
    """A generator of embeddings that others learned; their files are those that :func:`read_embeddings` reads.

    A class's token is ours, ``<cyst>``, whatever the file calls it; what the file called it is kept in the provenance.

    Args:
        files: for each class a file, or a folder with one, of one token.
        base: the base model that they were learned for: a folder, a hub id, or an opened one.
        revision: branch, tag or commit on the hub.
        **options: others of :class:`TextualInversion`: resolution, channels, templates, modality, prompt, sampler,
            bits.

    Raises:
        InputError: no files, files of something else or of several tokens, or embeddings of another width than the base
            model's; before the base model is opened as far as can be.

    Example:
        >>> generator = from_embeddings(
        ...     {"cyst": "embeddings_gs-6099.pt"}, base="CompVis/ldm-text2im-large-256", prompt="a photo of {}"
        ... )  # doctest: +SKIP
    """
    from genmix_transforms.generators.textual_inversion.generator import TextualInversion

    if not isinstance(files, Mapping) or not files:
        raise InputError(f"from_embeddings: expected files for the classes, {{'cyst': 'cyst.pt', ...}}, got {files!r}")
    classes = check_classes(tuple(files))
    embeddings, tokens, hashes = {}, {}, {}
    for name in classes:
        file = find_embeddings(files[name])
        found = read_embeddings(file)
        if len(found) != 1:
            raise InputError(
                f"{file}: holds {len(found)} tokens ({', '.join(list(found)[:4])}), and one file is one class; save "
                "the vectors of each in a file of its own"
            )
        ((tokens[name], embeddings[name]),) = found.items()
        hashes[name] = f"sha256:{file_hash(file)}"
        first = classes[0]
        if embeddings[name].shape[1] != embeddings[first].shape[1]:
            raise InputError(
                f"{file}: vectors of {embeddings[name].shape[1]} numbers, and those of {first} have "
                f"{embeddings[first].shape[1]}: they were learned for different base models"
            )
    vectors = {name: len(values) for name, values in embeddings.items()}
    generator = TextualInversion(classes=classes, base=base, revision=revision, vectors=vectors, **options)
    width = generator.model.width
    for name in classes:
        if embeddings[name].shape[1] != width:
            raise InputError(
                f"{files[name]}: vectors of {embeddings[name].shape[1]} numbers, and the base model's word vectors "
                f"have {width}: they were learned for another; give that one as the base"
            )
    generator = generator.with_embeddings(embeddings)
    generator.provenance = {"converted": "Textual Inversion embeddings", "files": hashes, "tokens": tokens}
    return generator


def one_file_a_class(files: Sequence[str | Path], classes: Sequence[str]) -> dict[str, str | Path]:
    """Files and the names of their classes, in the same order, as :func:`from_embeddings` takes them.

    Raises:
        InputError: not as many names as files, or a name twice.
    """
    if len(files) != len(classes):
        raise InputError(
            f"{len(files)} files of embeddings and {len(classes)} class names ({', '.join(classes)}): one file is "
            "one class"
        )
    return dict(zip(check_classes(classes), files, strict=True))
