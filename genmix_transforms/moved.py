"""Modules that moved: their old names work for one more release, and say where their content is now."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_BANK, _DATA, _EVALUATION, _KINDS = (
    f"genmix_transforms.{room}" for room in ("bank", "data", "evaluation", "generators")
)

MOVED = {
    f"{_BANK}.dataset": (f"{_BANK}.blending",),
    f"{_BANK}.flags": (f"{_BANK}.rows",),
    f"{_BANK}.writer": (f"{_BANK}.writing",),
    f"{_DATA}.liver_windows": (f"{_DATA}.liver_slices",),
    f"{_EVALUATION}.pretrained": (f"{_EVALUATION}.classifiers",),
    f"{_KINDS}.adm.key_map": (f"{_KINDS}.adm.convert.guided_diffusion",),
    f"{_KINDS}.adm.sampler_settings": (f"{_KINDS}.adm.sampling",),
    f"{_KINDS}.adm.schedule": (f"{_KINDS}.adm.noise_schedule",),
    f"{_KINDS}.adm.tuning": (f"{_KINDS}.adm.training",),
    f"{_KINDS}.stylegan.growth": (f"{_KINDS}.stylegan.schedule",),
    f"{_KINDS}.textual_inversion.grey": (f"{_KINDS}.textual_inversion.images",),
    f"{_KINDS}.textual_inversion.initial_rows": (f"{_KINDS}.textual_inversion.rows",),
    f"{_KINDS}.textual_inversion.latent_diffusion": (f"{_KINDS}.textual_inversion.network",),
    f"{_KINDS}.textual_inversion.lora": (f"{_KINDS}.lora",),
    f"{_KINDS}.textual_inversion.resizing": (f"{_KINDS}.textual_inversion.images",),
    f"{_KINDS}.textual_inversion.sampler_settings": (f"{_KINDS}.textual_inversion.settings",),
}
"""The old name of every module that a page of the reference has named, and where its names are now."""


class MovedModules(MetaPathFinder, Loader):
    """Makes a module of an old name from the modules that have its content, and warns."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Python asks it for modules that are nowhere else."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module what is in the new ones."""
        homes = MOVED[module.__name__]
        warnings.warn(
            f"{module.__name__} has moved to {' and '.join(homes)}; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        for home in homes:
            public = {name: value for name, value in vars(import_module(home)).items() if not name.startswith("_")}
            vars(module).update(public)


def install() -> None:
    """Let Python find the old names."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
