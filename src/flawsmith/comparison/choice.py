"""Which method suits which defect type, asked of validation images: an arm such as "copypaste-or-analogy".

Methods are good at different types: a texture can be synthesised in a new shape, a lead that is cut off cannot. Test
images have no say in the choice, and each seed makes its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flawsmith.evaluation.detectors.downstream import CHOSEN_BY
from flawsmith.evaluation.results import Value


def chosen(types: Sequence[str], alone: Mapping[str, Sequence[Value]]) -> dict[str, str]:
    """Defect type -> the method whose own network has the highest validation pixel AP on it.

    alone: of each method the values of the network that learned from its images. Of equals the first method is taken,
    also where validation has no defect of a type.
    """
    told = {
        (method, value.type): value.value
        for method, values in alone.items()
        for value in values
        if value.key.startswith(f"{CHOSEN_BY}/") and value.value is not None
    }
    return {kind: max(alone, key=lambda method: told.get((method, kind), 0.0)) for kind in types}


def sentence(choice: Mapping[str, str]) -> str:
    """The choice in words: "analogy for break; copypaste for blowhole, crack"."""
    methods = sorted(set(choice.values()))
    return "; ".join(f"{m} for {', '.join(kind for kind in choice if choice[kind] == m)}" for m in methods)
