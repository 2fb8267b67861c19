"""Files of learned embeddings: ours, which diffusers opens, and those that others wrote. Nothing is unpickled."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.atomic import write_tensors
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.generators.textual_inversion.tokens import check_classes
from genmix_transforms.generators.weights_file import read_weights

EMBEDDINGS = "learned_embeds.safetensors"
"""Diffusers' name for the file in a folder."""

_OLD = "learned_embeds.bin"


def save_embeddings(target: str | Path, token: str, vectors: Tensor) -> Path:
    """Write the vectors of one token, so that diffusers' ``load_textual_inversion`` opens the folder or the file.

    Args:
        target: a folder, made if need be, or a file that ends in ``.safetensors``.
        token: the placeholder, such as "<cyst>". Of several vectors, the others are ``<cyst>_1``, ``<cyst>_2``, ...: so
            diffusers names them, and puts them in where a prompt has ``<cyst>``.
        vectors: ``(V, D)``, floating-point.

    Returns:
        The file.

    Raises:
        InputError: vectors of another shape, or that are no numbers.

    Example:
        >>> file = save_embeddings("runs/ti/cyst", "<cyst>", torch.zeros(2, 1280))  # doctest: +SKIP
        >>> pipeline.load_textual_inversion("runs/ti/cyst")  # doctest: +SKIP
    """
    target = Path(target)
    file = target if target.suffix == ".safetensors" else target / EMBEDDINGS
    vectors = _checked(file, token, vectors)
    file.parent.mkdir(parents=True, exist_ok=True)
    # One tensor a file: with two, diffusers' loader raises.
    write_tensors(file, {token: vectors})
    return file


def read_embeddings(source: str | Path, *, width: int | None = None) -> dict[str, Tensor]:
    """Read learned embeddings, ours or somebody else's.

    * diffusers: ``learned_embeds.safetensors`` and the older ``learned_embeds.bin``, ``{token: vectors}``;
    * Gal et al.: ``embeddings_gs-N.pt``, ``{"string_to_token": ..., "string_to_param": ParameterDict}``;
    * AUTOMATIC1111: ``{"name": ..., "string_to_param": {"*": vectors}}``, whose token is the name.

    PyTorch's files are read with ``weights_only=True``; the one class that is let through is ``ParameterDict``, a dict
    of tensors, which Gal's files hold. Nothing else that a file names is made or run.

    Args:
        source: the file, or a folder with a ``learned_embeds.safetensors`` or ``.bin``.
        width: of the base model's word vectors (1280 for the paper's, 768 for Stable Diffusion 1); None: any.

    Returns:
        ``{token: vectors (V, D)}``, float32; the token as the file has it ("*" is usual).

    Raises:
        InputError: no such file, not a whole one, one of something else or of code, vectors that are no numbers, or of
            another width.

    Source: Gal et al. (arXiv 2208.01618), rinongal/textual_inversion, ldm/modules/embedding_manager.py.
    """
    file = find_embeddings(source)
    # What the files of Gal's manager hold the vectors in; its attributes are looked at, none of its methods is called.
    with torch.serialization.safe_globals([nn.ParameterDict]):
        content = read_weights(file)
    found = _vectors_in(content)
    if not found:
        raise InputError(
            f"{file}: expected learned embeddings (a token and its vectors, as diffusers, Gal et al. or AUTOMATIC1111 "
            f"save them), found {_describe(content)}"
        )
    return {token: _checked(file, token, value, width=width) for token, value in found.items()}


def find_embeddings(source: str | Path) -> Path:
    """The file itself, or the one in a folder, by diffusers' names; it need not exist if it is named itself.

    Raises:
        MissingPathError: a folder without one.
    """
    source = Path(source)
    if not source.is_dir():
        return source
    for name in (EMBEDDINGS, _OLD):
        if (source / name).is_file():
            return source / name
    raise MissingPathError(f"{source}: neither a {EMBEDDINGS} nor a {_OLD} in this folder; name the file itself")


def read_class_embeddings(files: Mapping[str, str | Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the vectors of several classes, each from a file of its own.

    Args:
        files: for each class a file, or a folder with one, of one token.

    Returns:
        ``{class: vectors (V, D)}``, float32, and a provenance: the files' hashes, and what each called its token.

    Raises:
        InputError: no files, files of something else or of several tokens, or vectors of different widths.
    """
    if not isinstance(files, Mapping) or not files:
        raise InputError(f"from_embeddings: expected files for the classes, {{'cyst': 'cyst.pt', ...}}, got {files!r}")
    embeddings: dict[str, Tensor] = {}
    tokens, hashes = {}, {}
    for name in check_classes(tuple(files)):
        file = find_embeddings(files[name])
        found = read_embeddings(file)
        if len(found) != 1:
            raise InputError(
                f"{file}: holds {len(found)} tokens ({', '.join(list(found)[:4])}), and one file is one class; save "
                "the vectors of each in a file of its own"
            )
        ((tokens[name], embeddings[name]),) = found.items()
        hashes[name] = f"sha256:{file_hash(file)}"
        first, rows = next(iter(embeddings.items()))
        if embeddings[name].shape[1] != rows.shape[1]:
            raise InputError(
                f"{file}: vectors of {embeddings[name].shape[1]} numbers, and those of {first} have {rows.shape[1]}: "
                "they were learned for different base models"
            )
    return embeddings, {"converted": "Textual Inversion embeddings", "files": hashes, "tokens": tokens}


def one_file_a_class(files: Sequence[str | Path], classes: Sequence[str]) -> dict[str, str | Path]:
    """Files and the names of their classes, in the same order, as :func:`read_class_embeddings` takes them.

    Raises:
        InputError: not as many names as files, or a name twice.
    """
    if len(files) != len(classes):
        raise InputError(
            f"{len(files)} files of embeddings and {len(classes)} class names ({', '.join(classes)}): one file is "
            "one class"
        )
    return dict(zip(check_classes(classes), files, strict=True))


def _vectors_in(content: Any) -> dict[Any, Any]:
    """Tokens and what is said to be their vectors; nothing where the content is something else."""
    if not isinstance(content, Mapping):
        return {}
    held = content.get("string_to_param")
    if held is None:
        return dict(content) if all(_like_vectors(value) for value in content.values()) else {}
    # The parameters alone: files of old PyTorch lack what the dict's own methods ask for.
    inside = vars(held).get("_parameters") if isinstance(held, nn.ParameterDict) else held
    if not isinstance(inside, Mapping):
        return {}
    name = content.get("name")
    if isinstance(name, str) and len(inside) == 1:
        return dict.fromkeys([name], next(iter(inside.values())))
    return dict(inside)


def _like_vectors(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim in (1, 2)


def _checked(file: Path, token: Any, vectors: Any, *, width: int | None = None) -> Tensor:
    if not isinstance(token, str) or not token or token != token.strip():
        raise InputError(f"{file}: a token must be a text without spaces around it, got {token!r}")
    if not _like_vectors(vectors) or not vectors.is_floating_point() or not vectors.numel():
        got = (
            f"{vectors.dtype} of shape {tuple(vectors.shape)}"
            if isinstance(vectors, Tensor)
            else type(vectors).__name__
        )
        raise InputError(f"{file}: the vectors of {token} must be floating-point of shape (V, D), got {got}")
    values: Tensor = vectors.detach().to("cpu", torch.float32)
    values = values[None] if values.ndim == 1 else values
    if width is not None and values.shape[1] != width:
        raise InputError(
            f"{file}: the vectors of {token} have {values.shape[1]} numbers, and the base model's {width}: they were "
            "learned for another model; give that one as the base"
        )
    if not values.isfinite().all():
        raise InputError(
            f"{file}: the vectors of {token} hold NaN or infinity: a training that diverged, or a damaged file"
        )
    return values.contiguous().clone()


def _describe(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    names = ", ".join(map(str, list(content)[:4]))
    return f"{names}{', ...' if len(content) > 4 else ''}" if names else "nothing"
