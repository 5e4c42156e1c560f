"""What the real defects of one type tell the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flawsmith.quality.appearance import appearance, spread_of
from flawsmith.quality.borders import broken_lines
from flawsmith.quality.looks import Look
from flawsmith.quality.places import Homes
from flawsmith.quality.repeats import poses
from flawsmith.records import Sample

MANY = 24  # references of a type that are measured
USUAL_SURFACE, USUAL_DEFECT = 1.0, 3.0  # lines that real defects of the sets in docs/quality.md cut, where none tells


@dataclass(frozen=True)
class Known:
    """Real defects of a type: their appearances (n, 12), the spread of all of the product, the lines they cut."""

    references: Sequence[Sample] = ()
    appearances: np.ndarray = field(default_factory=lambda: np.zeros((0, 12)))
    spread: np.ndarray = field(default_factory=lambda: spread_of(()))
    surface: float = USUAL_SURFACE
    defect: float = USUAL_DEFECT
    homes: Homes = field(default_factory=lambda: Homes.of(()))
    poses: np.ndarray = field(default_factory=lambda: poses(()))


def learn(references: Mapping[str, Sequence[Sample]]) -> dict[str, Known]:
    """Defect type -> what its references tell; all are of one product. Each needs a mask."""
    looks = {
        kind: [Look.at(one.image, one.mask) for one in samples[:MANY]]
        for kind, samples in references.items()
        if samples
    }
    rows = {kind: np.array([appearance(look) for look in found]) for kind, found in looks.items()}
    spread = spread_of([row for found in rows.values() for row in found])
    known = {}
    for kind, found in looks.items():
        lines = np.array([broken_lines(look) for look in found]).max(axis=0)
        own = references[kind][:MANY]
        known[kind] = Known(own, rows[kind], spread, float(lines[0]), float(lines[1]), Homes.of(own), poses(own))
    return known
