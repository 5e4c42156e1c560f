"""The networks that a comparison trains: each alone by what it is told, so that several can be trained at a time.

A network as small as ours gains little from a second thread, and two of them side by side nearly twice.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import torch

from flawsmith import processes
from flawsmith.comparison import verdict
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.detectors import downstream, one_class
from flawsmith.evaluation.detectors.classification import ClassificationConfig
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig
from flawsmith.evaluation.results import Value
from flawsmith.records import Progress, Record


@dataclass(frozen=True)
class Task:
    """One network: what it is trained on, chosen with and tested on. `part` names it in the ledger."""

    part: str
    label: str  # the arm's name in tables
    config: SegmentationConfig | ClassificationConfig | one_class.OneClassConfig
    real: tuple[Record, ...]
    generated: tuple[Record, ...]
    normals: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]

    @property
    def what(self) -> str:
        if isinstance(self.config, one_class.OneClassConfig):
            return one_class.NAME
        return "segmentation" if isinstance(self.config, SegmentationConfig) else "classification"


@dataclass(frozen=True)
class Outcome:
    """A task's values; of a detector of pixels also what the bootstrap needs of the test set, of a segmenter what it
    misses of the validation defects.
    """

    values: list[Value]
    scored: verdict.Scored | None = None
    misses: list[dict[str, Any]] = field(default_factory=list)


def run(task: Task, progress: Progress | None = None) -> Outcome:
    """Train and test one network."""
    started, scored, misses = time.perf_counter(), None, list[dict[str, Any]]()
    sides = task.validation, task.test
    units = [f"{r.defect_type}/{r.group or r.name}" for r in task.test]
    if isinstance(task.config, SegmentationConfig):
        done = downstream.segment(task.real, task.generated, task.normals, *sides, task.config, task.label, progress)
        values, misses = done.values, done.misses
        scored = verdict.coarsen(done.judged, units)
    elif isinstance(task.config, one_class.OneClassConfig):
        found = one_class.run(task.real, task.generated, task.normals, *sides, task.config, task.label, progress)
        values, scored = found.values, verdict.coarsen(found.judged, units)
    else:
        values = downstream.classify(task.real, task.generated, *sides, task.config, task.label, progress)
    seconds = round(time.perf_counter() - started, 1)
    values.append(Value(f"seconds/{task.what}", seconds, "", task.label, task.config.seed))
    return Outcome(values, scored, misses)


def run_all(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """Run the tasks in `jobs` processes of one thread each, yielding what is done as it is done.

    Stopping the iteration, Ctrl-C or an error in a task ends the others. The values do not depend on the number of
    processes. Raises FlawsmithError where the system ended one, as for want of memory.
    """
    with ProcessPoolExecutor(min(jobs, len(tasks)), processes.spawn, _begin) as pool:
        with processes.starting():
            waiting = {pool.submit(run, task): task for task in tasks}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool as error:
            raise FlawsmithError(
                f"The system ended one of {jobs} training processes, most likely for want of memory: give fewer --jobs."
            ) from error
        finally:
            if not all(future.done() for future in waiting):
                for child in multiprocessing.active_children():
                    child.terminate()


def _begin() -> None:
    torch.set_num_threads(1)
    processes.serve()
