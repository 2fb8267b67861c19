"""What is in a bank: copies of real images, how real and how varied its images are, whether its labels are honest."""

from typing import TYPE_CHECKING

from genmix_transforms.lazy import load_lazily

if TYPE_CHECKING:
    from genmix_transforms.evaluation.audit.auditing import Audit as Audit
    from genmix_transforms.evaluation.audit.auditing import AuditSettings as AuditSettings
    from genmix_transforms.evaluation.audit.auditing import audit as audit
    from genmix_transforms.evaluation.audit.copies import find_copies as find_copies
    from genmix_transforms.evaluation.audit.found_copies import Copies as Copies
    from genmix_transforms.evaluation.audit.found_copies import Reidentification as Reidentification
    from genmix_transforms.evaluation.audit.neighbors import nearest_neighbors as nearest_neighbors
    from genmix_transforms.evaluation.audit.report.writing import save_audit as save_audit
    from genmix_transforms.evaluation.audit.transformations import Transformation as Transformation

_HOME = {
    "Audit": "auditing",
    "AuditSettings": "auditing",
    "Copies": "found_copies",
    "Reidentification": "found_copies",
    "Transformation": "transformations",
    "audit": "auditing",
    "find_copies": "copies",
    "nearest_neighbors": "neighbors",
    "save_audit": "report.writing",
}

__all__ = sorted(_HOME)  # noqa: PLE0605

__getattr__, __dir__ = load_lazily(__name__, {name: f"{__name__}.{home}" for name, home in _HOME.items()})
