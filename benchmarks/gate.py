"""What the quality gate costs: attempts of an image, and its share of the time that an attempt takes.

    python benchmarks/gate.py mvtec_ad:data/magnetic_tile mvtec_ad:data/bottle -n 60 --method copypaste

Processor time of this process, so that other work on the machine counts less; the requests' masks, the painting and the
encoding are the generation, everything in `quality` but what is learned once is the gate.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import read_manifest
from flawsmith.generation import blocks, gating
from flawsmith.generation import run as generation
from flawsmith.generation.loading import Loader
from flawsmith.methods.base import Synthesizer
from flawsmith.quality import repeats
from flawsmith.quality.watch import Watch

PARTS: tuple[tuple[Any, str, str], ...] = (
    (Loader, "request", "masks"),
    (Synthesizer, "generate", "painting"),
    (blocks, "finish", "encoding"),
    (Watch, "judge", "gate"),
    (Watch, "foresee", "gate"),
    (repeats, "print_of", "gate, in encoding"),
    (gating, "gate", "learning"),
)


def timed(spent: Counter[str]) -> None:
    """Count what the parts take, in processor seconds, and how often they are called."""

    def wrapped(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.process_time() - start

        return run

    for owner, attribute, name in PARTS:
        setattr(owner, attribute, wrapped(getattr(owner, attribute), name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("normal", nargs="+", help="READER:DIR")
    parser.add_argument("-n", type=int, default=60)
    parser.add_argument("--method", default="copypaste")
    parser.add_argument("--seed", type=int, default=3)
    asked = parser.parse_args()
    spent: Counter[str] = Counter()
    timed(spent)
    for source in asked.normal:
        spent.clear()
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            given = {"method": asked.method, "normal": source, "out": out, "n": asked.n, "seed": asked.seed}
            generation.run(GenerateConfig(**given, gate="normal", jobs=1))
            lines = read_manifest(out)
        attempts = sum(line["redraws"] + 1 for line in lines)
        gate = spent["gate"] + spent["gate, in encoding"]
        own = spent["masks"] + spent["painting"] + spent["encoding"] - spent["gate, in encoding"]
        refused = Counter(entry["check"] for line in lines for entry in line["refused"])
        print(
            f"{source}: {attempts / len(lines):.2f} attempts an image; generation {1000 * own / len(lines):.1f} ms an "
            f"image, gate {1000 * gate / len(lines):.1f} ms: {gate / own:.0%}; learned in {spent['learning']:.2f} s; "
            f"{sum(line['status'] == 'kept' for line in lines)} of {len(lines)} kept; refused {dict(refused)}"
        )


if __name__ == "__main__":
    main()
