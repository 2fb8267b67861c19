"""The phases of a training: whose steps are whose, and where the learning rate begins again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.evaluation.phases import Phases, learning_rate_share
from genmix_transforms.evaluation.protocol import Protocol


@given(steps=st.integers(1, 1000), part=st.floats(0.001, 0.999))
def test_each_of_two_phases_has_a_step(steps, part):
    phases = Phases.of(Protocol(steps=steps, pretrain_part=part), part="pretrain_part")
    first = [step for step in range(1, steps + 1) if phases.is_first(step)]
    assert first == list(range(1, phases.first + 1))
    assert abs(len(first) - part * steps) <= 1
    assert phases.can_be_tested(steps)
    assert not any(phases.can_be_tested(step) for step in first)
    assert len(first) == 0 if steps == 1 else 1 <= len(first) < steps


def test_an_arm_of_one_phase():
    phases = Phases.of(Protocol(steps=7), part=None)
    assert all(phases.is_first(step) and phases.can_be_tested(step) for step in range(1, 8))
    assert [phases.rate(step) for step in range(7)] == [
        learning_rate_share(Protocol(steps=7), step) for step in range(7)
    ]


@pytest.mark.parametrize("restarts", [True, False])
def test_the_learning_rate_begins_again(restarts):
    protocol = Protocol(steps=10, pretrain_part=0.4, warmup=0.25)
    rates = [Phases.of(protocol, part="pretrain_part", restarts=restarts).rate(step) for step in range(10)]
    if restarts:
        whole = [(Protocol(steps=steps, warmup=0.25), steps) for steps in (4, 6)]
        assert rates == [learning_rate_share(one, step) for one, steps in whole for step in range(steps)]
    else:
        assert rates == [learning_rate_share(protocol, step) for step in range(10)]
