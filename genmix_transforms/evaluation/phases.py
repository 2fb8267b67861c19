"""The phases of a training: in which steps an arm's own batches come, and how the learning rate goes."""

import math
from dataclasses import dataclass

from genmix_transforms.evaluation.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Steps with the arm's own batches, and then, for arms of two phases, steps with real batches as they are.

    Args:
        protocol: in steps.
        first: how many steps the first phase has; all, where there is but one.
        restarts: whether the learning rate's schedule begins again with the second phase: each has one of its own.
    """

    protocol: Protocol
    first: int
    restarts: bool = False

    @classmethod
    def of(cls, protocol: Protocol, *, part: str | None, restarts: bool = False) -> "Phases":
        """The phases of an arm.

        Args:
            protocol: in steps.
            part: the option that says for what share of the steps the first phase lasts; None: there is but one. Each
                of two phases has one step at least, or, of a single step, the second has it.
            restarts: see :class:`Phases`.

        Example:
            >>> Phases.of(Protocol(steps=10, pretrain_part=0.3), part="pretrain_part").first
            3
        """
        if part is None:
            return cls(protocol=protocol, first=protocol.steps)
        share: float = getattr(protocol, part)
        first = min(max(1, round(share * protocol.steps)), protocol.steps - 1)
        return cls(protocol=protocol, first=first, restarts=restarts)

    def is_first(self, step: int) -> bool:
        """Whether a step, counted from 1, shows the arm's own batches."""
        return step <= self.first

    def can_be_tested(self, step: int) -> bool:
        """Whether weights after so many steps have been through the last phase: others are no result of this arm."""
        return self.first == self.protocol.steps or step > self.first

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as a share of the highest."""
        if not self.restarts:
            return learning_rate_share(self.protocol, step)
        if step < self.first:
            return learning_rate_share(self.protocol, step, steps=self.first)
        return learning_rate_share(self.protocol, step - self.first, steps=self.protocol.steps - self.first)


def learning_rate_share(protocol: Protocol, step: int, *, steps: int | None = None) -> float:
    """The learning rate of a step, counted from 0, as a share of the highest.

    Args:
        protocol: its schedule.
        step: from 0.
        steps: that the schedule has; None: the protocol's.

    Example:
        >>> rates = Protocol(steps=4, warmup=0.5)
        >>> [round(learning_rate_share(rates, step), 3) for step in range(4)]
        [0.5, 0.854, 0.5, 0.146]
    """
    steps = protocol.steps if steps is None else steps
    rising = max(1, round(protocol.warmup * steps))
    share = min(1.0, (step + 1) / rising)
    return share * (0.5 * (1 + math.cos(math.pi * step / steps)) if protocol.schedule == "cosine" else 1.0)
