"""Blocks made by Ray actors, here or on a cluster, each with a method and photographs of its own.

Ray schedules the actors, starts machines for them where it may, and tells of those that are lost. Actors see the files
of this process under the same paths: on a cluster data sets and runs lie in a shared folder. Only this process writes.

Reference: docs.ray.io, "Actors".
"""

from __future__ import annotations

import logging
import math
import os
import pickle  # between this process and its own actors only; never from a file
import platform
import socket
import sys
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from flawsmith import __version__, images
from flawsmith.config import GenerateConfig
from flawsmith.errors import FlawsmithError
from flawsmith.generation.blocks import Blocks
from flawsmith.generation.finished import Finished
from flawsmith.generation.here import Threads, overlapping
from flawsmith.generation.pool import AHEAD, DEATHS, WINDOW, Failure, Pool, unpacked

CHUNK = 4  # small images of a classic method that are asked for at once: asking takes some ms each time
SMALL = 1 << 20  # pixels of a photograph
PATIENCE = 30.0  # seconds after which we say that no actor has begun

log = logging.getLogger("flawsmith")


class Maker:
    """What an actor is. The method is loaded by the first block that it is asked for, so that an error is that block's.

    packed: the blocks. home: the folder that relative paths begin in. path: where modules may lie.
    """

    def __init__(self, packed: bytes, home: str, path: list[str], version: str) -> None:
        self.packed, self.home, self.path, self.version = packed, home, path, version
        self.loading = ThreadPoolExecutor(1)
        self.work: Blocks | None = None

    def ready(self) -> None:
        pass

    def make(self, starts: Sequence[int]) -> list[list[Finished] | Failure]:
        """The blocks that begin with these images; an error stands in the place of its own."""
        return [self._make(start) for start in starts]

    def _make(self, start: int) -> list[Finished] | Failure:
        try:
            return self._blocks().make(start)
        except Exception as error:
            return Failure.of(error)

    def again(self, index: int, repeated: Collection[int]) -> list[Finished] | Failure:
        try:
            return [self._blocks().again(index, repeated)]
        except Exception as error:
            return Failure.of(error)

    def _blocks(self) -> Blocks:
        return self.loading.submit(self._load).result()  # by one thread: several may ask at once

    def _load(self) -> Blocks:
        if self.work is None:
            if self.version != __version__:
                raise FlawsmithError(
                    f"A Ray actor on {platform.node()} runs flawsmith {__version__}, this command {self.version}: "
                    "install the same version on every machine."
                )
            try:
                os.chdir(self.home)
            except OSError as error:
                raise FlawsmithError(
                    f"Folder {self.home} is not on {platform.node()}: run the command in a folder that all machines "
                    "of the cluster share."
                ) from error
            sys.path += [folder for folder in self.path if folder not in sys.path]  # for a method of the user's own
            work: Blocks = pickle.loads(self.packed)
            count = overlapping(work)
            if count > 1:
                Threads(work, count)  # the model in a thread of its own; Ray's threads do the rest
            else:
                import cv2

                cv2.setNumThreads(1)
            self.work = work
        return self.work


@dataclass(eq=False)
class Actor:
    """An actor, and the blocks that it has been told of by the answers that are awaited."""

    handle: Any
    begun: Any  # the answer that says that it runs
    told: dict[Any, list[int]] = field(default_factory=dict)


class Actors(Pool):
    """As many actors as the cluster has room for, or as were asked for; one that is lost is replaced.

    Those that Ray has not begun yet are given no block: they join when there is room.
    """

    def __init__(self, work: Blocks) -> None:
        super().__init__(work, 0)
        self.actors: list[Actor] = []
        self.ray: Any = None
        self._ours = False

    def __enter__(self) -> Actors:
        config = self.work.loader.config
        self.ray = _ray()
        try:
            self._ours = connect(self.ray, config)
            self.count = config.actors or room(self.ray.cluster_resources(), config)
            self.ahead = max(AHEAD, overlapping(self.work))
            small = math.prod(images.image_size(self.work.plan.jobs[0].normal.image)) <= SMALL
            self.chunk = CHUNK if small and self.work.size == 1 else 1
            self.window = max(WINDOW, (self.ahead + 1) * self.chunk)
            self._packed = self.ray.put(pickle.dumps(self.work.abroad()))
            resources = {"num_cpus": config.actor_cpus, "num_gpus": config.actor_gpus}
            self._kind = self.ray.remote(**resources, max_concurrency=overlapping(self.work))(Maker)
            self.actors = [self._start() for _ in range(self.count)]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self.actors:
            self.ray.kill(actor.handle)
        self.actors.clear()
        if self._ours:
            self.ray.shutdown()

    def again(self, index: int, repeated: Collection[int]) -> Finished:
        """By an actor: this process may have no GPU, whose roundings are its own."""
        lost = self.ray.exceptions.RayActorError
        for actor in self.actors:
            if actor.begun is None:
                try:
                    return unpacked(self.ray.get(actor.handle.again.remote(index, list(repeated))))[0]
                except lost:
                    continue  # heard of below
        return self.work.again(index, repeated)

    def _start(self) -> Actor:
        handle = self._kind.remote(self._packed, os.getcwd(), sys.path, __version__)
        return Actor(handle, handle.ready.remote())

    def tell(self, left: deque[int]) -> None:
        for turn in range(self.ahead):  # in turns: no actor has two blocks while another has none
            for actor in self.actors:
                if actor.begun is None and len(actor.told) == turn and (self.lost or left):
                    source, many = (self.lost, 1) if self.lost else (left, self.chunk)  # one of them may be deadly
                    starts = [source.popleft() for _ in range(min(many, len(source)))]
                    actor.told[actor.handle.make.remote(starts)] = starts

    def hear(self, made: dict[int, list[Finished] | Failure]) -> None:
        awaited = {ref: actor for actor in self.actors for ref in ([actor.begun] if actor.begun else actor.told)}
        done, rest = self.ray.wait(list(awaited), timeout=PATIENCE)
        if not done:
            if all(actor.begun for actor in self.actors):
                log.warning("No Ray actor has begun yet: the cluster has no room for one now. Waiting.")
            return
        done += self.ray.wait(rest, num_returns=len(rest), timeout=0)[0] if rest else []
        for ref in done:
            actor = awaited[ref]
            if actor not in self.actors:
                continue  # lost, with all that it had been told
            try:
                found = self.ray.get(ref)
            except self.ray.exceptions.RayActorError as error:
                self._replace(actor, error)
                continue
            except self.ray.exceptions.ObjectLostError:  # the machine that held it is gone
                self.lost.extend(actor.told.pop(ref))
                continue
            if ref == actor.begun:
                actor.begun = None
                continue
            made.update(zip(actor.told.pop(ref), found, strict=True))
            self.deaths = 0

    def _replace(self, actor: Actor, error: Exception) -> None:
        self.deaths += 1
        why = str(error).strip().splitlines()[-1].split(". ")[0]  # Ray adds a page of causes that may be
        if self.deaths > DEATHS + self.count:  # a machine takes all of its actors along
            raise FlawsmithError(
                f"{self.deaths} Ray actors ended one after the other ({why}). What was finished is kept; the same "
                "command resumes."
            )
        log.warning("A Ray actor was lost (%s); what it had not finished is painted again.", why)
        self.lost.extend(start for starts in actor.told.values() for start in starts)
        self.actors[self.actors.index(actor)] = self._start()


def refuse_without_ray() -> None:
    if find_spec("ray") is None:
        raise FlawsmithError("--ray needs Ray, which is not installed: pip install 'flawsmith[ray]'.")


def _ray() -> Any:
    refuse_without_ray()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers
    import ray

    return ray


def connect(ray: Any, config: GenerateConfig) -> bool:
    """Connect to the cluster, or start one here; returns whether it is ours to end. One that a script has connected to
    is used as it is.
    """
    if ray.is_initialized():
        return False
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if config.ray == "local":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        quiet["num_cpus"] = max(cores, math.ceil((config.actors or 1) * config.actor_cpus))
    host, colon, port = str(config.ray).removeprefix("ray://").rpartition(":")
    try:
        if colon:  # Ray itself would ask for ten minutes and more
            socket.create_connection((host, int(port)), timeout=10).close()
        with _loopback(config.ray == "local"):
            ray.init(address=config.ray, **quiet)
    except Exception as error:  # Ray raises plain ones, too, as where starting takes it too long
        raise FlawsmithError(
            f"No Ray cluster answers at {config.ray} ({' '.join(str(error).split())[:200]}): start one (ray start "
            "--head), name its address, or leave the address out to start one on this machine."
        ) from error
    return True


@contextmanager
def _loopback(alone: bool) -> Iterator[None]:
    """Where Ray is `alone` on this machine it listens on 127.0.0.1 only, as it does by itself on Windows and macOS.

    Its argument for that, `_node_ip_address`, gives way to a public address elsewhere.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not alone
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def room(resources: dict[str, float], config: GenerateConfig) -> int:
    """How many actors a cluster has room for. Raises FlawsmithError where it has none."""
    asked = {"CPU": config.actor_cpus, "GPU": config.actor_gpus}
    rooms = [int(resources.get(name, 0) / amount) for name, amount in asked.items() if amount]
    if rooms and min(rooms) < 1:
        has = ", ".join(f"{resources.get(name, 0):g} {name}" for name in asked)
        raise FlawsmithError(
            f"An actor wants {config.actor_cpus:g} CPU and {config.actor_gpus:g} GPU, and this Ray cluster has {has}: "
            "give smaller --set actor_cpus and actor_gpus, or --set actors for one that grows."
        )
    return min(rooms, default=1)
