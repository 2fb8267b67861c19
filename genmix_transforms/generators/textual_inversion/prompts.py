"""Prompt templates: what stands around a class's tokens while they are learned, and when images are drawn."""

from collections.abc import Sequence

from genmix_transforms.errors import InputError

MAX_TOKENS = 77
"""The length of a prompt in tokens, both families'. LDM's tokenizer does not know it."""

MOST_VECTORS = MAX_TOKENS - 2
"""That a prompt has room for, between its beginning and its end."""

PLAIN = (
    "a medical image of {}",
    "an image of {}",
    "a picture of {}",
    "a medical scan of {}",
    "a scan showing {}",
    "a medical image showing {}",
    "a close-up image of {}",
    "a cropped image of {}",
    "a diagnostic image of {}",
    "a clinical image showing {}",
)
"""For any modality. Gal et al. learn with "a nice photo of {}", "a rendering of {}" and their likes, which are about
photographs and say of a medical image what it is not."""

OF_MODALITY = (
    "{modality} image of {}",
    "a medical {modality} image of {}",
    "an image in {modality} of {}",
    "{modality} of {}",
    "{modality} showing {}",
    "a medical {modality} image showing {}",
    "a close-up {modality} image of {}",
    "a cropped {modality} image of {}",
    "a diagnostic {modality} image of {}",
    "a clinical {modality} image showing {}",
)
"""The same with the modality's name. No article stands before it: "a CT", but "an MRI"."""


def choose_templates(templates: str | Sequence[str] | None, *, modality: str | None) -> tuple[str, ...]:
    """The templates given, or those for a modality, or those for any.

    Args:
        templates: each with one ``{}``, where the class's tokens go; None: the defaults.
        modality: a word for the defaults: "ultrasound", "CT", "X-ray", "MRI".

    Raises:
        InputError: templates and a modality, no templates, or such that do not have one ``{}``.

    Example:
        >>> choose_templates(None, modality="ultrasound")[0]
        'ultrasound image of {}'
    """
    if templates is None:
        if modality is None:
            return PLAIN
        if not isinstance(modality, str) or not modality.strip() or "{" in modality or "}" in modality:
            raise InputError(f"modality must be a word, such as 'ultrasound', 'CT' or 'X-ray', got {modality!r}")
        return tuple(template.replace("{modality}", modality.strip()) for template in OF_MODALITY)
    if modality is not None:
        raise InputError("give templates or a modality, not both: the modality is for the default templates")
    chosen = (templates,) if isinstance(templates, str) else tuple(templates)
    if not chosen:
        raise InputError("templates must be at least one, such as 'a medical image of {}'; None: the defaults")
    return tuple(check_template(template) for template in chosen)


def check_template(template: str) -> str:
    """The template, or an :class:`InputError` if it has not exactly one ``{}``, or other braces."""
    if not isinstance(template, str) or template.count("{}") != 1 or set("{}") & set(template.replace("{}", "", 1)):
        raise InputError(
            "a template needs exactly one {}, where the class's tokens go, and no other braces, such as "
            f"'a medical image of {{}}'; got {template!r}"
        )
    return template
