"""Which kind of image comes when: whole weights dealt in fixed turns, so that shares hold at every length of a run."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd

FINEST = 1000  # a weight that is no whole number is rounded to a thousandth of the sum


class Turns:
    """Deals images to kinds by their weights, each above 0, in an endless cycle.

    Of the first n images every kind has its share, n * weight / sum, to within one, for every n. Equal weights take
    turns in order.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.order = _dealt(_whole(weights))
        self.places: list[list[int]] = [[] for _ in weights]  # of each kind in the cycle
        self._before = []
        for place, kind in enumerate(self.order):
            self._before.append(len(self.places[kind]))
            self.places[kind].append(place)

    def at(self, index: int) -> tuple[int, int]:
        """The kind of image `index`, and how many of that kind come before it."""
        cycle, place = divmod(index, len(self.order))
        kind = self.order[place]
        return kind, cycle * len(self.places[kind]) + self._before[place]

    def index(self, kind: int, turn: int) -> int:
        """The image that is number `turn` of its kind: the inverse of `at`."""
        cycle, number = divmod(turn, len(self.places[kind]))
        return cycle * len(self.order) + self.places[kind][number]

    def count(self, kind: int, n: int) -> int:
        """How many of the first n images are of a kind."""
        cycles, rest = divmod(n, len(self.order))
        return cycles * len(self.places[kind]) + sum(place < rest for place in self.places[kind])


def _whole(weights: Sequence[float]) -> list[int]:
    """Whole numbers in the ratio of the weights, with no common divisor."""
    total = sum(weights)
    exact = total <= FINEST and all(float(weight).is_integer() for weight in weights)
    whole = [int(weight) if exact else max(1, round(FINEST * weight / total)) for weight in weights]
    common = gcd(*whole)
    return [weight // common for weight in whole]


def _dealt(weights: Sequence[int]) -> list[int]:
    """One cycle of sum(weights) kinds, by their numbers.

    Reference: Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980), theorem 2: of the kinds that
    are far enough behind, the one that would be too far behind first.
    """
    if set(weights) == {1}:
        return list(range(len(weights)))
    total, least = sum(weights), Fraction(1, max(1, 2 * len(weights) - 2))
    given = [0] * len(weights)
    order = []
    for n in range(1, total + 1):
        behind = [Fraction(weight * n, total) - had for weight, had in zip(weights, given, strict=True)]
        usable = [kind for kind, by in enumerate(behind) if by >= least]
        chosen = min(usable, key=lambda kind: (1 - least - behind[kind]) / weights[kind])
        given[chosen] += 1
        order.append(chosen)
    return order
