"""Every method that needs no model against the promises in the docstring of methods/base.py."""

from __future__ import annotations

import pytest

from contract import Contract
from flawsmith.methods import METHODS
from flawsmith.methods.base import Synthesizer
from flawsmith.registry import resolve

# Diffusion methods need a model: they keep the same contract on a tiny one, in tests/diffusion/test_<name>.py.
DIFFUSION = {"anomalycontrol", "anomalyxfusion", "inpaint"}


@pytest.fixture(params=sorted(set(METHODS) - DIFFUSION))
def method(request: pytest.FixtureRequest) -> Synthesizer:
    return resolve(request.param, METHODS)()  # type: ignore[no-any-return]


class TestContract(Contract):
    """On the classics, `procedural` and `analogy`."""
