"""Pretrain the compact backbone; calling it again resumes.

    python recipes/compact/pretrain.py WINDOWS OUT [--config pretrain.json] [--steps N] [--device cuda]

WINDOWS is the folder made by make_windows.py (or several). OUT gets backbone/ (averaged weights in fp16),
metrics.jsonl and previews/.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger("pretrain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("windows", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--start-from", type=Path, help="a compact folder whose weights a new run starts with")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda where there is one")
    parser.add_argument("--workers", type=int, default=0, help="processes that put batches together meanwhile")
    parser.add_argument("--minutes", type=float, help="end this call after that time; the next one goes on")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    from flawsmith.training.pretrain import pretrain
    from flawsmith.training.pretrain_config import read_config

    changes: dict[str, Any] = {} if args.steps is None else {"steps": args.steps}
    folders = [found.parent for folder in args.windows for found in sorted(folder.rglob("windows-0000.npz"))]
    config = read_config(args.config, **changes)
    pretrain(
        config,
        folders,
        args.out,
        start_from=args.start_from,
        device=args.device,
        workers=args.workers,
        minutes=args.minutes,
        progress=lambda what, done, total, line: log.info("%s", line),
    )


if __name__ == "__main__":
    main()
