"""Where the time of a whole `flawsmith` command goes: processor and wall seconds of every stage, from start to exit.

The command runs in a process of its own, with a clock around the functions in STAGES; a stage's time is without that of
the stages inside it. Judge by processor seconds where other work shares the machine. Windows and passes of the denoiser
are counted beside. Blocks of a learned method do not overlap here, since stages that run at once cannot be told apart;
workers (`--jobs`) are not seen into. A second run of the same command finds the files in the system's cache; the first
may not.

Example: python benchmarks/clock.py generate inpaint --normal mvtec_ad:DIR --prompt "a scratch" --mask scratch -n 16
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

# stage -> functions, "module:object.attribute"; a module is wrapped when it has been imported
STAGES = {
    "imports of the method (torch, diffusers)": ["flawsmith.registry:resolve"],
    "the backbone's weights": ["flawsmith.diffusion.backbone:Backbone.from_pretrained"],
    "data set and plan": ["flawsmith.generation.sources:read", "flawsmith.generation.run:plan"],
    "checking the photographs": ["flawsmith.generation.run:_check_sources"],
    "photographs and masks": ["flawsmith.generation.loading:Loader.request"],
    "windows cut": ["flawsmith.methods.diffusion.painting:Painting._canvas"],
    "words and references": ["flawsmith.diffusion.backbone:Backbone.context"],
    "denoising": ["flawsmith.methods.diffusion.painting:denoise"],
    "codec, pasting back": ["flawsmith.methods.diffusion.painting:Painting._paint"],
    "contrast and labels": ["flawsmith.methods.diffusion.painting:Painting.generate"],
    "PNG": ["flawsmith.images:encode_png"],
    "manifest and files": ["flawsmith.datasets.writer:Writer.write"],
    "training: batches drawn": [
        "flawsmith.training.windows:FewShotWindows.batch",
        "flawsmith.training.fitting:TypeWindows.batch",
    ],
    "training: steps": ["flawsmith.training.trainer:Trainer.step"],
    "training: held-out loss": ["flawsmith.training.steps:Steps.held_out"],
    "training: mask model": ["flawsmith.training.mask_run:train"],
    "training: previews": ["flawsmith.training.support:preview"],
}


class Clock:
    """Stages that nest: each is charged with what no stage inside it was charged with."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self.inside: list[list[float]] = []

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            begun, inner = (time.process_time(), time.perf_counter()), [0.0, 0.0]
            self.inside.append(inner)
            try:
                return function(*args, **options)
            finally:
                self.inside.pop()
                whole = time.process_time() - begun[0], time.perf_counter() - begun[1]
                entry = self.spent.setdefault(stage, [0.0, 0.0, 0])
                for i in (0, 1):
                    entry[i] += whole[i] - inner[i]
                    if self.inside:
                        self.inside[-1][i] += whole[i]
                entry[2] += 1

        return timed

    def wrap(self) -> None:
        """Put the clock around every stage whose module is there, once; stages nest, so parts of a batch take turns."""
        if "flawsmith.diffusion.side_by_side" in sys.modules:
            sys.modules["flawsmith.diffusion.side_by_side"].LEAST = sys.maxsize  # type: ignore[attr-defined]
        for stage, places in STAGES.items():
            for place in places:
                name, _, path = place.partition(":")
                if name not in sys.modules:
                    continue
                *owners, attribute = path.split(".")
                owner: Any = sys.modules[name]
                for part in owners:
                    owner = getattr(owner, part, None)
                found = vars(owner).get(attribute) if owner is not None else None
                raw = getattr(found, "__func__", found)
                if raw is None or hasattr(raw, "_clocked"):
                    continue
                timed: Any = self.around(stage, raw)
                timed._clocked = True
                setattr(
                    owner, attribute, type(found)(timed) if isinstance(found, (classmethod, staticmethod)) else timed
                )


def child(report: Path, arguments: list[str]) -> None:
    """Run the command with the clock on; leaves its stages in `report`."""
    clock = Clock()
    begun = time.process_time(), time.perf_counter()
    start = clock.around(
        "imports of the program", lambda: [import_module(m) for m in ("flawsmith.cli.main", "flawsmith.generation.run")]
    )
    start()
    registry = sys.modules["flawsmith.registry"]
    plain = registry.resolve

    def resolve(*args: Any, **options: Any) -> Any:
        found = clock.around(next(iter(STAGES)), plain)(*args, **options)
        clock.wrap()
        return found

    resolve._clocked = True  # type: ignore[attr-defined]
    for name, module in list(sys.modules.items()):
        if name.startswith("flawsmith") and getattr(module, "resolve", None) is plain:
            module.resolve = resolve  # type: ignore[attr-defined]
    clock.wrap()
    sys.modules["flawsmith.generation.here"].OVERLAPPED = 0  # type: ignore[attr-defined]
    sys.argv = ["flawsmith", *arguments]
    code: Any = 0
    try:
        sys.modules["flawsmith.cli.main"].main()
    except SystemExit as error:
        code = error.code
    whole = time.process_time() - begun[0], time.perf_counter() - begun[1]
    named = [sum(entry[i] for entry in clock.spent.values()) for i in (0, 1)]
    clock.spent["the rest"] = [whole[0] - named[0], whole[1] - named[1], 1]
    content = {"stages": clock.spent, "before": begun[0], "end": time.process_time(), "at": time.time()}
    report.write_text(json.dumps(content), encoding="utf-8")
    sys.exit(code)


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--child":
        child(Path(sys.argv[2]), sys.argv[3:])
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return
    with tempfile.TemporaryDirectory() as folder:
        report, arguments = Path(folder) / "clock.json", sys.argv[1:]
        if "--out" not in arguments:
            arguments += ["--out", str(Path(folder) / "out")]
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, __file__, "--child", str(report), *arguments], check=False)
        wall, ended = time.perf_counter() - begun, time.time()
        if not report.is_file():
            sys.exit(done.returncode)
        found = json.loads(report.read_text(encoding="utf-8"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = used.ru_utime + used.ru_stime
    rows = [(stage, cpu, seconds, count) for stage, (cpu, seconds, count) in found["stages"].items()]
    leaving = ended - found["at"]
    rows.insert(0, ("the interpreter starts", found["before"], wall - leaving - sum(row[2] for row in rows), 1))
    rows.append(("the interpreter leaves", total - found["end"], leaving, 1))
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    print(f"\n{os.cpu_count()} cores, {load}, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}\n")
    print("| stage | calls | processor s | share | wall s |\n|---|---|---|---|---|")
    for stage, cpu, seconds, count in rows:
        print(f"| {stage} | {count} | {cpu:.2f} | {cpu / total:.0%} | {seconds:.2f} |")
    print(f"| all | | {total:.2f} | | {wall:.2f} |")


if __name__ == "__main__":
    main()
