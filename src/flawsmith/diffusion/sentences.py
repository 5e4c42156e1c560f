"""What a frozen text encoder makes of each sentence, computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

__all__ = ["Sentences"]

LOCK = threading.Lock()


class Sentences:
    """Keeps the last `limit` sentences' tensors, on the CPU.

    `encode(sentences)` gives one tensor for each. It should run them one by one: what a sentence becomes may not
    depend on which others were asked for before or beside it, not even in its last digit. Several threads may ask, one
    after another: some tokenizers serve one at a time.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Iterable[Tensor]], limit: int = 1024) -> None:
        self.encode, self.limit = encode, limit
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def __call__(self, words: Sequence[str]) -> list[Tensor]:
        """One tensor per sentence, encoding those not known yet."""
        with LOCK:
            return self._found(words)

    def _found(self, words: Sequence[str]) -> list[Tensor]:
        found = {sentence: self._kept[sentence] for sentence in words if sentence in self._kept}
        missing = [sentence for sentence in dict.fromkeys(words) if sentence not in found]
        if missing:
            found.update((sentence, made.cpu()) for sentence, made in zip(missing, self.encode(missing), strict=True))
        for sentence, tensor in found.items():
            self._kept[sentence] = tensor
            self._kept.move_to_end(sentence)
        while len(self._kept) > self.limit:
            self._kept.popitem(last=False)
        return [found[sentence] for sentence in words]
