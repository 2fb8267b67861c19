"""A module's own random generator, whose state goes into its checkpoints."""

from typing import Any

import torch
from torch import nn

from genmix_transforms.transforms.randomness import UniformSource


class OwnGenerator(nn.Module):
    """A module that draws from a generator of its own, or from torch's global one.

    A checkpoint of the module, alone or within a model, then goes on with the same numbers.
    """

    _uniform: UniformSource

    @property
    def generator(self) -> torch.Generator | None:
        """Of all draws; None: torch's global one."""
        return self._uniform.generator

    @generator.setter
    def generator(self, generator: torch.Generator | None) -> None:
        self._uniform = UniformSource(generator)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.generator is not None:
            destination[f"{prefix}generator_state"] = self.generator.get_state()

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        key = f"{prefix}generator_state"
        if self.generator is None:
            return
        if key not in state_dict:
            if strict:
                missing_keys.append(key)
            return
        if key in unexpected_keys:
            unexpected_keys.remove(key)
        try:
            self.generator.set_state(state_dict[key].cpu())
        except (RuntimeError, TypeError) as error:
            error_msgs.append(
                f"{type(self).__name__}: {key} is no state of a generator on {self.generator.device}: {error}"
            )
