"""`--ray`: actors give the bytes of this process, whatever becomes of them. One Ray of two cores serves all tests."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flawsmith import config as configs
from flawsmith import images
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import read_manifest
from flawsmith.errors import FlawsmithError
from flawsmith.generation import actors, executors
from flawsmith.generation import run as generation
from flawsmith.generation.loading import Loader
from written import Run, tree

ray = pytest.importorskip("ray")


def asked(source: Path, out: Path, **more: object) -> GenerateConfig:
    return GenerateConfig(**{"method": "perlin", "normal": f"mvtec_ad:{source}", "out": out, "n": 12, **more})


def test_an_address_where_nobody_answers_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        for start in ("", "ray://"):
            address = f"{start}127.0.0.1:{free.getsockname()[1]}"
            with pytest.raises(FlawsmithError, match=f"No Ray cluster answers at {address} "):
                actors.connect(ray, asked(tmp_path, tmp_path, ray=address))
    with pytest.raises(FlawsmithError, match="No Ray cluster answers at nonsense "):
        actors.connect(ray, asked(tmp_path, tmp_path, ray="nonsense"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray as `--ray` starts it."""
    assert actors.connect(ray, asked(Path("data"), Path("out"), ray="local", actors=2))
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="sockets are looked up in Linux's /proc")
def test_no_other_machine_reaches_the_ray_that_we_start() -> None:
    ray.get(ray.remote(lambda: None).remote())  # a worker listens, too
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # it listens
                sockets[f"socket:[{fields[9]}]"] = fields[1].partition(":")[0]
    heard = [sockets[end] for process in below(os.getpid()) for end in opened(process) if end in sockets]
    assert len(heard) >= 5 and set(heard) <= loopback


def below(process: int) -> list[int]:
    """A process and all that it and its children have started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found = [process]
    for one in found:  # it grows while it is walked
        found += children.get(one, [])
    return found


def opened(process: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(link))
    return found


@pytest.mark.usefixtures("cluster")
def test_two_actors_write_the_bytes_of_one_process(
    run: Run, widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are those of this process, wherever an actor begins."""
    monkeypatch.chdir(tmp_path)
    command = ("generate", "perlin", "--normal", "data/widget", "-n", "6", "--gate", "normal", "--defects", "1,2")
    code, said, _ = run(*command, "--jobs", "1", "--out", "one")
    assert code == 0 and not said.startswith("0 images")
    assert run(*command, "--set", "actors=2", "--out", "two", "--ray")[0] == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.usefixtures("cluster")
def test_a_lost_actor_costs_only_its_unfinished_images(
    widget: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends itself by SIGKILL in the midst of an image."""
    more = {"method": "odd_method:Grief", "options": {"how": "once", "note": str(tmp_path / "ended")}, "n": 20}
    generation.run(asked(widget, tmp_path / "one", **more))
    assert not (tmp_path / "ended").exists()
    with caplog.at_level(logging.WARNING, "flawsmith"):
        generation.run(asked(widget, tmp_path / "two", **more, ray="local"))
    assert (tmp_path / "ended").exists() and caplog.text.count("was lost") == 1
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.usefixtures("cluster")
def test_images_that_no_actor_survives_end_the_run_with_what_was_made(
    widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors, "DEATHS", 0)
    more = {"method": "odd_method:Grief", "options": {"how": "exit", "note": str(tmp_path / "ended"), "bad": 3}}
    with pytest.raises(FlawsmithError, match=r"2 Ray actors ended one after the other .* resumes"):
        generation.run(asked(widget, tmp_path / "o", **more, ray="local", actors=1))
    made = read_manifest(tmp_path / "o")
    assert all(line["seed"] % 3 for line in made)
    generation.run(asked(widget, tmp_path / "o", **more))
    generation.run(asked(widget, tmp_path / "whole", **more))
    assert len(made) < 12 and tree(tmp_path / "o") == tree(tmp_path / "whole")


@pytest.mark.usefixtures("cluster")
def test_an_error_in_an_actor_is_the_error_of_the_run(widget: Path, tmp_path: Path) -> None:
    said, written = [], []
    for more in ({}, {"ray": "local", "actors": 1}):
        with pytest.raises(FlawsmithError, match="No grief for seed") as caught:
            generation.run(asked(widget, tmp_path / str(len(said)), method="odd_method:Grief", **more))
        said.append(str(caught.value))
        written.append(tree(tmp_path / str(len(written))))
    assert said[0] == said[1] and written[0] == written[1] and "manifest.jsonl" in written[0]
    with pytest.raises(RuntimeError, match="StrangeError: 3 times a strange grief"):
        options = {"how": "strange"}
        generation.run(asked(widget, tmp_path / "o", method="odd_method:Grief", options=options, ray="local", actors=1))


@pytest.mark.usefixtures("cluster")
def test_what_repeats_another_image_is_painted_again_by_an_actor(widget: Path, tmp_path: Path) -> None:
    """One photograph, one mask, one method that can do three things."""
    images.write_image(tmp_path / "single" / "0.png", images.read_image(widget / "train" / "good" / "000.png"))
    mask = images.read_mask(next((widget / "ground_truth" / "hole").iterdir()))
    images.write_image(tmp_path / "mask.png", images.mask_image(mask))
    more = {"normal": f"folder:{tmp_path / 'single'}", "mask": str(tmp_path / "mask.png"), "gate": "normal", "n": 6}
    more |= {"method": "odd_method:Grief", "options": {"bad": 2**62}, "max_redraws": 3}
    generation.run(asked(tmp_path, tmp_path / "one", **more))
    generation.run(asked(tmp_path, tmp_path / "two", **more, ray="local", actors=1))
    refused = {entry["check"] for line in read_manifest(tmp_path / "one") for entry in line.get("refused", ())}
    assert "duplicate" in refused
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.usefixtures("cluster")
def test_a_model_paints_the_same_blocks_in_an_actor(widget: Path, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    more = {"method": "inpaint", "options": {"steps": 1}, "n": 3, "batch_size": 2}
    generation.run(asked(widget, tmp_path / "one", **more))
    generation.run(asked(widget, tmp_path / "two", **more, ray="local", actors=1))
    assert [line["status"] for line in read_manifest(tmp_path / "one")].count("kept") == 3
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.usefixtures("cluster")
def test_what_has_no_room_is_refused(widget: Path, tmp_path: Path) -> None:
    for more in ({"actor_gpus": 1}, {"actor_cpus": 64}):
        with pytest.raises(FlawsmithError, match=r"this Ray cluster has 2 CPU, 0 GPU: give smaller"):
            generation.run(asked(widget, tmp_path / "o", ray="local", **more))


def test_as_many_actors_as_have_room(tmp_path: Path) -> None:
    has = {"CPU": 16.0, "GPU": 4.0}
    for more, count in (({}, 16), ({"actor_cpus": 3}, 5), ({"actor_gpus": 1}, 4), ({"actor_gpus": 0.5}, 8)):
        assert actors.room(has, asked(tmp_path, tmp_path, **more)) == count


def test_what_cannot_be_is_refused_before_anything_is_written(
    run: Run, widget: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("generate", "perlin", "--normal", widget, "--out", tmp_path / "o")
    code, _, error = run(*command, "--ray", "--jobs", "2")
    assert code == 2 and "leave one of them out" in error
    file = tmp_path / "stranger.json"
    file.write_text('{"ray": "198.51.100.7:6379"}')
    code, _, error = run(*command, "--config", file)
    assert code == 2 and "on the command line" in error and "198.51.100.7" in error
    file.write_text('{"ray": "local", "actors": 3}')
    assert configs.load(GenerateConfig, {"method": "perlin", "normal": "x", "out": "o"}, file).actors == 3
    monkeypatch.setattr(actors, "find_spec", lambda name: None)
    code, _, error = run(*command, "--ray")
    assert code == 2 and "pip install 'flawsmith[ray]'" in error
    assert not (tmp_path / "o").exists()


def test_the_plan_names_the_actors(run: Run, widget: Path, tmp_path: Path) -> None:
    code, out, _ = run("generate", "perlin", "--normal", widget, "--ray", "auto", "--dry-run", "--out", tmp_path / "o")
    assert code == 0 and "Painted by Ray actors (auto)." in out


def test_another_machine_knows_files_by_their_content(widget: Path, tmp_path: Path) -> None:
    """Times and numbers differ there; who would read other bytes is refused."""
    made, method, loader = generation.prepare(asked(widget, tmp_path / "o", ray="local", actor_gpus=0.5))
    blocks = executors.Blocks(made, loader, method, None).abroad()
    path = made.jobs[0].normal.image
    assert blocks.loader.known[path] == (images.file_sha(path), None)
    assert blocks.loader.config.device == "cuda" and loader.config.device is None
    there = Loader(blocks.loader.config, blocks.loader.known)
    os.utime(path, (1, 1))
    there.sha(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(FlawsmithError, match="has changed since this run began"):
        Loader(blocks.loader.config, blocks.loader.known).sha(path)
