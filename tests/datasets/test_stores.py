"""Exports into stores: the bytes of a folder, an index that tells them, resumed by shard, read by public readers."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes
from flawsmith import datasets, images
from flawsmith.datasets.exports import places
from flawsmith.datasets.exports.run import export
from flawsmith.errors import FlawsmithError
from written import Run, tree

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flawsmith.datasets.exports.shards.SHARD", 20_000)


@pytest.fixture
def store() -> Iterator[Any]:
    """An empty store in memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def held(files: Any) -> dict[str, bytes]:
    return {name.removeprefix("/set/"): files.cat_file(name) for name in files.find("/set")}


def test_a_store_holds_the_bytes_of_a_folder(run: Run, widget: Path, tmp_path: Path, store: Any) -> None:
    command = ("export", widget, "--format", "webdataset", "--out")
    assert run(*command, tmp_path / "out")[0] == 0
    code, said, err = run(*command, "memory://set")
    assert code == 0 and "webdataset in memory://set" in said, err
    assert held(store) == tree(tmp_path / "out")
    assert run(*command, f"file://{tmp_path}/url")[0] == 0
    assert tree(tmp_path / "url") == tree(tmp_path / "out")


def test_the_index_tells_every_shard_and_image(widget: Path, store: Any) -> None:
    export(widget, "memory://set", ["webdataset"])
    files = held(store)
    index = json.loads(files["index.json"])
    assert index["images"] == len(datasets.read("mvtec_ad", widget)) == sum(one["count"] for one in index["shards"])
    shards = [name for name in files if name.endswith(".tar")]
    assert sorted(shards) == sorted(one["shard"] for one in index["shards"]) and len(shards) > 4
    named = set()
    expected: dict[str, int] = {}
    for one in index["shards"]:
        content = files[one["shard"]]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (one["bytes"], one["sha256"])
        assert one["first"] == expected.get(one["split"], 0)
        expected[one["split"]] = one["first"] + one["count"]
        listed = json.loads(files[one["shard"].replace(".tar", ".json")])
        assert {key: listed[key] for key in one} == one and len(listed["images"]) == one["count"]
        named |= {row["origin_file"] for row in listed["images"]}
    assert named == {record.name for record in datasets.read("mvtec_ad", widget)}


@pytest.mark.parametrize("written", range(0, 12, 3))
def test_a_killed_export_goes_on_where_it_was(
    written: int, widget: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after some writes; the same call writes no whole shard again, reads no image of one, and ends equal."""
    export(widget, "memory://set", ["webdataset"])
    whole = held(store)
    store.store.clear()
    put, left = places.Store.write, [1 + written]

    def dies(*given: Any, **how: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        put(*given, **how)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(places.Store, "write", dies)
        export(widget, "memory://set", ["webdataset"])
    before = held(store)
    sure = {name for name in before if name.endswith(".tar") and name.replace(".tar", ".json") in before}
    put_now: list[str] = []
    read_now: list[Path] = []
    verify = images.verify
    monkeypatch.setattr(places.Store, "write", lambda *given, **_: put_now.append(given[1]) or put(*given))
    monkeypatch.setattr(images, "verify", lambda path: read_now.append(path) or verify(path))
    done = export(widget, "memory://set", ["webdataset"])
    assert held(store) == whole
    packed = sum(json.loads(before[name.replace(".tar", ".json")])["count"] for name in sure)
    assert done.already == packed and len(read_now) == done.images - packed
    assert sure.isdisjoint(put_now) and len(sure) == written // 2


def test_damaged_shards_are_made_again(widget: Path, store: Any) -> None:
    export(widget, "memory://set", ["webdataset"])
    whole = held(store)
    shards = [one["shard"] for one in json.loads(whole["index.json"])["shards"] if one["split"] == "train"]
    store.pipe_file(f"/set/{shards[-1]}", b"\0" * len(whole[shards[-1]]))  # the last one: its bytes are compared
    assert export(widget, "memory://set", ["webdataset"]).already > 0 and held(store) == whole
    assert len(shards) > 2
    store.pipe_file(f"/set/{shards[0]}", b"half")  # not the last one: its size is compared
    assert export(widget, "memory://set", ["webdataset"]).already > 0 and held(store) == whole
    store.pipe_file(f"/set/{shards[1]}", b"half")
    store.pipe_file("/set/train-000002.json", b'{"shard": 7}')
    assert export(widget, "memory://set", ["webdataset"]).already > 0 and held(store) == whole
    listed = json.loads(whole["train-000000.json"])
    listed["images"][0]["file"] = "train-000000.tar/another.png"
    store.pipe_file("/set/train-000000.json", json.dumps(listed).encode())
    with pytest.raises(FlawsmithError, match="which is not the next image of this data set"):
        export(widget, "memory://set", ["webdataset"])


def test_defects_without_a_pixel_stay_out_when_it_resumes(run: Run, widget: Path, store: Any) -> None:
    (widget / "ground_truth/crack/002_mask.png").unlink()
    for again in (False, True):
        code, said, err = run("export", widget, "--format", "webdataset", "--out", "memory://set")
        assert code == 0 and "1 defect images mark no pixel" in err and ("already there" in said) == again


def test_what_a_store_cannot_take_is_refused(
    run: Run, widget: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(out: str, *more: object) -> str:
        code, _, err = run("export", widget, "--format", "webdataset", "--out", out, *more)
        assert code == 2 and "Traceback" not in err
        return err

    assert "give --format webdataset or a folder" in refused("memory://set", "--format", "coco")
    assert "Protocol 'nowhere' of --out nowhere://set is not known; known are abfs, gs, hf, s3, sftp" in refused(
        "nowhere://set"
    )
    assert "chains 'simplecache::memory'" in refused("simplecache::memory://set")
    assert "names the machine other" in refused("file://other/set")
    assert not store.store
    store.pipe_file("/set/mine.txt", b"mine")
    assert "memory://set is not empty and was not made by flawsmith" in refused("memory://set")
    store.rm_file("/set/mine.txt")
    export(widget, "memory://set", ["webdataset"])
    assert "val was 0.1, now it is 0.3" in refused("memory://set", "--val", 0.3)
    store.pipe_file("/set/export.json", b"half")
    assert "memory://set/export.json is damaged" in refused("memory://set")
    fakes.save(widget / "test/good/077.png", fakes.photo(3))
    store.rm_file("/set/export.json")
    assert "is not empty" in refused("memory://set")
    with monkeypatch.context() as patch:
        patch.setattr(places, "find_spec", lambda name: None)
        assert "needs fsspec: pip install 'flawsmith[store]'" in refused("memory://set")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError("Access Denied"), "give the driver credentials"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate"), "give the driver credentials"),
        (FileNotFoundError("no such bucket"), "make the bucket, or the folder above it, first"),
        (NotImplementedError(), "this protocol cannot do it"),
        (ConnectionError("reset by ftp://me:secret@host"), "run the same command again; it resumes"),
    ],
)
def test_what_a_driver_says_is_told(
    error: Exception, words: str, run: Run, widget: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(type(store), "pipe_file", fails)
    code, _, err = run("export", widget, "--format", "webdataset", "--out", "memory://me:secret@set")
    assert code == 2 and words in err and type(error).__name__ in err
    assert "secret" not in err


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import known_implementations

    monkeypatch.setitem(
        known_implementations, "nodriver", {"class": "no_such.module.Files", "err": "Install nodriver to access it"}
    )
    with pytest.raises(FlawsmithError, match=r"needs a driver: Install nodriver to access it"):
        places.Store("nodriver://bucket/set")


def test_webdataset_reads_a_store(widget: Path, store: Any) -> None:
    tariterators = pytest.importorskip("webdataset.tariterators")
    export(widget, "memory://set", ["webdataset"])
    before = {record.name: record for record in datasets.read("mvtec_ad", widget)}
    index = json.loads(store.cat_file("/set/index.json"))
    streams = ({"url": one["shard"], "stream": store.open(f"/set/{one['shard']}")} for one in index["shards"])
    samples = list(tariterators.group_by_keys(tariterators.tar_file_expander(streams)))
    for sample in samples:
        old = before[json.loads(sample["json"])["origin"]["origin_file"]].load()
        assert np.array_equal(decoded(sample["png"]), old.image)
        assert np.array_equal(decoded(sample["mask.png"])[..., 0] > 0, old.mask)
    assert len(samples) == len(before)


def test_hugging_face_datasets_reads_a_store(widget: Path, tmp_path: Path) -> None:
    load = pytest.importorskip("datasets.load", reason="Hugging Face's datasets is not installed")
    export(widget, f"file://{tmp_path}/set", ["webdataset"])
    before = {record.name: record for record in datasets.read("mvtec_ad", widget)}
    files = {split: f"{tmp_path}/set/{split}-*.tar" for split in ("train", "validation", "test")}
    files["validation"] = f"{tmp_path}/set/val-*.tar"
    loaded = load.load_dataset("webdataset", data_files=files, cache_dir=str(tmp_path / "cache"))
    seen = 0
    for rows in loaded.values():
        for row in rows:
            old = before[row["json"]["origin"]["origin_file"]].load()
            assert np.array_equal(np.asarray(row["png"]), old.image)
            assert np.array_equal(np.asarray(row["mask.png"].convert("L")) > 0, old.mask)
            seen += 1
    assert seen == len(before)


def decoded(content: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
