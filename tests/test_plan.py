"""The plan: jobs are worked out one by one, and the first round of them shows all that any can have."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from flawsmith import methods
from flawsmith.config import GenerateConfig
from flawsmith.generation import sources
from flawsmith.generation.planning import Plan, plan


def planned(source: Path, n: int, **more: object) -> Plan:
    config = GenerateConfig(method="copypaste", normal=f"mvtec_ad:{source}", out=source.parent / "o", n=n, **more)
    return plan(config, sources.read(config), methods.load("copypaste"))


def test_a_job_is_the_same_however_it_is_asked_for(widget: Path) -> None:
    jobs = planned(widget, 40).jobs
    assert list(jobs) == [jobs[i] for i in range(40)] == jobs[:] == jobs[:13] + jobs[13:]
    assert jobs[-1] == jobs[39] and [job.index for job in jobs[5:9]] == [5, 6, 7, 8]
    with pytest.raises(IndexError):
        jobs[40]
    assert list(planned(widget, 10_000_000).jobs[:40]) == list(jobs)
    assert list(pickle.loads(pickle.dumps(jobs))) == list(jobs)


def test_the_first_round_shows_every_photograph_and_reference(widget: Path) -> None:
    made = planned(widget, 400, shots=5)
    early, every = made.jobs.first_round(), list(made.jobs)
    assert len(early) == 2 * 5  # two types; five references are more than the four photographs
    for of in ("normal", "reference"):
        assert {getattr(job, of) for job in early} == {getattr(job, of) for job in every}
    assert planned(widget, 3, shots=5).jobs.first_round() == every[:3]


def test_each_pass_shows_every_photograph_once_and_in_another_order(widget: Path) -> None:
    walks = [[job.normal.name for job in planned(widget, 16, defect=("crack",)).jobs][i : i + 4] for i in (0, 4, 8, 12)]
    assert all(len(set(walk)) == 4 for walk in walks) and len({tuple(walk) for walk in walks}) > 1
