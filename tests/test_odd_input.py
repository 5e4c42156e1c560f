"""Odd input gets an answer: exit code 2, one sentence with what was given and what to do, nothing written elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import datasets, images
from flawsmith.errors import FlawsmithError

Run = Callable[..., tuple[int, str, str]]
NOBODY = "~nobody-here/x"
LATIN = os.fsdecode(b"caf\xe9")  # a name that is no UTF-8, as Python hands it on
GENERATE = ("generate", "nsa", "--normal", "data", "--out", "out", "-n", "1")
TRAIN = ("train", "inpaint", "--data", "data", "--out", "out", "--shots", "1", "--steps", "1")
JUDGE = ("evaluate", "data", "--real", "data", "--out", "out")

FILES = {
    "deep.yaml": "options: " + "[" * 1500 + "]" * 1500,
    "deep.json": '{"options":' * 1000 + "1" + "}" * 1000,
    "nested.json": '{"options":' + '{"a":' * 9 + "1" + "}" * 10,
    "laugh.yaml": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "cycle.yaml": "options: &a\n  x: *a\n",
    "number.yaml": "1: 2\n",
    "keys.yaml": "options: {1: 2}\n",
    "group.yaml": "options: 5\n",
    "date.yaml": "n: 2024-13-45\n",
    "huge.yaml": "n: " + "9" * 5000 + "\n",
    "tag.yaml": "n: !!int ''\n",
    "half.json": '{"prompt":"\\ud800"}',
    "nul.json": '{"defect":["a\\u0000b"]}',
    "python.yaml": "references_from: spying.readers:read:data\n",
    "deep/card.json": "[" * 3000 + "]" * 3000,
    "list/card.json": '{"method":"nsa","options":[1]}',
    "learned/card.json": '{"method":"inpaint","learned":{"a/b":{}}}',
    "config/card.json": '{"method":"inpaint","config":3}',
    "compact/model_index.json": '{"_class_name":"FlawsmithCompact"}',
    "parts/model_index.json": '{"unet":[5,5]}',
    "eyes/config.json": '{"model_type":"vit","hidden_size":"x"}',
    "nan/card.json": '{"method":"nsa","options":{"min_visibility":NaN}}',
    "images/manifest.jsonl": "[" * 3000 + "]" * 3000 + "\n{}\n",
    "lines/manifest.jsonl": "[]\n{}\n",
    "listed/generate.json": "[]",
    "nested/generate.json": "[" * 3000 + "]" * 3000,
}

REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    # paths of a user whom this machine does not know
    "check ~": (("check", NOBODY), "write the whole path"),
    "check folder:~": (("check", f"folder:{NOBODY}"), "write the whole path"),
    "normal ~": (("generate", "nsa", "--normal", f"mvtec_ad:{NOBODY}", "--out", "out"), "write the whole path"),
    "out ~": ((*GENERATE, "--out", NOBODY), "write the whole path"),
    "roi ~": ((*GENERATE, "--roi", NOBODY), "write the whole path"),
    "mask ~": ((*GENERATE, "--mask", NOBODY), "write the whole path"),
    "reference ~": ((*GENERATE, "--reference", NOBODY, "--reference-mask", "auto"), "write the whole path"),
    "config ~": ((*GENERATE, "--config", NOBODY), "write the whole path"),
    "mask.run ~": ((*GENERATE, "--mask", "learned", "--set", f"mask.run={NOBODY}"), "write the whole path"),
    "references_from ~": (
        ("generate", "copypaste", "--normal", "data", "--out", "out", "--set", f"references_from={NOBODY}"),
        "write the whole path",
    ),
    "textures ~": (
        ("generate", "perlin", "--normal", "data", "--out", "out", "--set", f"textures={NOBODY}"),
        "write the whole path",
    ),
    "backbone ~": ((*GENERATE, "--backbone", NOBODY), "write the whole path"),
    "show ~": (("show", NOBODY), "write the whole path"),
    "demo ~": (("demo", "--out", NOBODY), "write the whole path"),
    "merge ~": (("merge", NOBODY, "--out", "out"), "write the whole path"),
    "merge out ~": (("merge", "list", "--out", NOBODY), "write the whole path"),
    "train data ~": (("train", "--data", NOBODY, "--out", "out"), "write the whole path"),
    "evaluate ~": (("evaluate", NOBODY, "--real", "data", "--out", "out"), "write the whole path"),
    "real ~": (("evaluate", "data", "--real", NOBODY, "--out", "out"), "write the whole path"),
    "features ~": ((*JUDGE, "--features", NOBODY), "write the whole path"),
    "seen ~": ((*JUDGE, "--seen", NOBODY), "write the whole path"),
    # names that are no UTF-8
    "argument": (("check", LATIN), "convmv"),
    "prompt": ((*GENERATE, "--prompt", LATIN), "convmv"),
    "latin file": (("check", "latin-file"), "convmv"),
    "latin type": (("generate", "copypaste", "--normal", "latin-type", "--out", "out"), "convmv"),
    "latin category": (("generate", "nsa", "--normal", "latin-category", "--out", "out"), "convmv"),
    # settings
    "deep yaml": ((*GENERATE, "--config", "deep.yaml"), "nested too deeply"),
    "deep json": ((*GENERATE, "--config", "deep.json"), "nested too deeply"),
    "nested json": ((*GENERATE, "--config", "nested.json"), "write it flat"),
    "laughs": ((*GENERATE, "--config", "laugh.yaml"), "write it flat"),
    "cycle": ((*GENERATE, "--config", "cycle.yaml"), "write it flat"),
    "deep --set": ((*GENERATE, "--set", "resize=" + "[" * 3000), "is not allowed"),
    "number for a key": ((*GENERATE, "--config", "number.yaml"), "write a word"),
    "number for an option": ((*GENERATE, "--config", "keys.yaml"), "write a word"),
    "no group": ((*GENERATE, "--config", "group.yaml", "--set", "tries=3"), "must hold key: value pairs"),
    "no month": ((*GENERATE, "--config", "date.yaml"), "month must be in 1..12"),
    "date": ((*GENERATE, "--set", "resize=2024-01-01"), "a text in quotes"),
    "5000 digits": ((*GENERATE, "--config", "huge.yaml"), "cannot be read as JSON or YAML"),
    "5000 digits in --set": ((*GENERATE, "--set", "seed=" + "9" * 5000), "an integer"),
    "tag": ((*GENERATE, "--config", "tag.yaml"), "cannot be read as JSON or YAML"),
    "half a character": ((*GENERATE, "--config", "half.json"), "no UTF-8 text"),
    "nul": ((*GENERATE, "--config", "nul.json"), "no UTF-8 text"),
    "sampling": (("generate", "inpaint", "--normal", "data", "--out", "out", "--set", "sampling=[]"), "known: fast"),
    # numbers
    "resize 0": ((*GENERATE, "--set", "resize=[0,0]"), "between 0.05 and 20"),
    "resize nan": ((*GENERATE, "--set", "resize=[.nan,1]"), "give a finite number"),
    "resize turned": ((*GENERATE, "--set", "resize=[1,0.5]"), "low then high"),
    "visibility nan": ((*GENERATE, "--set", "min_visibility=.nan"), "give a finite number"),
    "tolerance inf": ((*GENERATE, "--set", "tolerance=inf"), "finite number"),
    "mask size inf": ((*GENERATE, "--set", "mask.size=[0.1,inf]"), "finite number"),
    "beta": (("generate", "perlin", "--normal", "data", "--out", "out", "--set", "beta=[0,0]"), "between 0.001 and 1"),
    "segmentation nan": ((*JUDGE, "--set", "segmentation.steps=.nan"), "give a finite number"),
    "ratios nan": (("evaluate", "--compare", "--real", "data", "--out", "out", "--ratios", "nan"), "finite number"),
    # settings of dataclasses
    "beta2": ((*TRAIN, "--set", "beta2=2"), "less than or equal to 1"),
    "learning rate": ((*TRAIN, "--set", "learning_rate=-1"), "greater than 0"),
    "batch of none": ((*TRAIN, "--set", "batch_size=0"), "greater than or equal to 1"),
    "half a rank": ((*TRAIN, "--set", "rank=1.5"), "valid integer"),
    "seed": ((*TRAIN, "--set", "seed=-3"), "greater than or equal to 0"),
    "yes": ((*TRAIN, "--set", "batch_size=true"), "valid integer"),
    "norm": ((*TRAIN, "--set", "loss_norm=most"), "'area' or 'all'"),
    "schedule": ((*TRAIN, "--set", "schedule=foo"), "'linear' or 'constant'"),
    "segmentation steps": ((*JUDGE, "--set", "segmentation.steps=-1"), "greater than or equal to 1"),
    "segmentation share": ((*JUDGE, "--set", "segmentation.synthetic=2"), "less than or equal to 1"),
    # what is no method and no reader
    "os:system": (("generate", "os:system", "--normal", "data", "--out", "out"), "Python's own library"),
    "train os:system": (("train", "os:system", "--data", "data", "--out", "out"), "Python's own library"),
    "arm os:system": (
        ("evaluate", "--compare", "--real", "data", "--out", "out", "--arms", "os:system"),
        "Python's own library",
    ),
    "json:JSONDecoder": (("generate", "json:JSONDecoder", "--normal", "data", "--out", "out"), "Python's own library"),
    "os.path:join:DIR": (("check", "os.path:join:data"), "Python's own library"),
    "numpy:array": (("generate", "numpy:array", "--normal", "data", "--out", "out"), "must be a subclass"),
    "main": (("generate", "flawsmith.cli.main:main", "--normal", "data", "--out", "out"), "must be a subclass"),
    "main:DIR": (("check", "flawsmith.cli.main:main:data"), "must be a function of root, category, group_by"),
    "class:DIR": (
        ("check", "flawsmith.methods.classic.nsa:NSA:data"),
        "must be a function of root, category, group_by",
    ),
    ":x": (("generate", ":x", "--normal", "data", "--out", "out"), "known: analogy"),
    "..:x": (("generate", "..:x", "--normal", "data", "--out", "out"), "known: analogy"),
    "reader in a file": (
        ("generate", "copypaste", "--normal", "data", "--out", "out", "--config", "python.yaml"),
        "typed on the command line",
    ),
    "[/]": (("generate", "[/]", "--normal", "data", "--out", "out"), "known: analogy"),
    # strangers' runs and images
    "deep card": (("show", "deep"), "nested too deeply"),
    "card of a list": (("generate", "list", "--normal", "data", "--out", "out"), "name the folder of a trained run"),
    "card of nothing learned": (("show", "learned"), "name the folder of a trained run"),
    "card of a number": (("show", "config"), "name the folder of a trained run"),
    "card of NaN": (("generate", "nan", "--normal", "data", "--out", "out"), "finite number"),
    "compact of nothing": (
        ("generate", "inpaint", "--normal", "data", "--out", "out", "--backbone", "./compact"),
        "fetch it again",
    ),
    "parts of numbers": (
        ("generate", "inpaint", "--normal", "data", "--out", "out", "--backbone", "parts"),
        "copy or fetch the whole folder",
    ),
    "extractor of words": ((*JUDGE, "--features", "eyes"), "Give a folder in transformers format"),
    "deep manifest": (("show", "images"), "run `generate` again"),
    "manifest of lists": (("show", "lines"), "run `generate` again"),
    "manifest of bytes": (("show", "bytes"), "run `generate` again"),
    "settings of a list": ((*GENERATE, "--out", "listed"), "choose another --out"),
    "deep settings": ((*GENERATE, "--out", "nested"), "choose another --out"),
    # files and lists that are none
    "link to itself": ((*GENERATE, "--out", "loop"), "broken link"),
    "no arm": (("evaluate", "--compare", "--real", "data", "--out", "out", "--arms", ","), "names nothing"),
    "no metric": ((*JUDGE, "--metrics", "\u2028"), "names nothing"),
    "folder for an image": ((*GENERATE, "--roi", "data"), "not a file"),
    "pipe for an image": ((*GENERATE, "--roi", "pipe.png"), "not a file"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set, its odd copies, and the odd files."""
    root = tmp_path_factory.mktemp("odd")
    fakes.mvtec_tree(root / "data", good=2, defects={"crack": 3}, test_good=1)
    for name in ("latin-file", "latin-type", "latin-category"):
        shutil.copytree(root / "data", root / name)
    try:
        (root / "latin-file/widget/train/good/000.png").rename(root / f"latin-file/widget/train/good/{LATIN}.png")
        for part in ("test", "ground_truth"):
            (root / f"latin-type/widget/{part}/crack").rename(root / f"latin-type/widget/{part}/{LATIN}")
        (root / "latin-category/widget").rename(root / f"latin-category/{LATIN}")
        os.mkfifo(root / "pipe.png")
        (root / "loop").symlink_to("loop")
    except (OSError, AttributeError):
        pytest.skip("this file system takes UTF-8 names only, or has no pipes")
    for name, text in FILES.items():
        fakes.write(root / name, text)
    fakes.write(root / "bytes/manifest.jsonl", b"\xff\xfe\n{}\n")
    return root


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder as the current one; whatever a command writes there, but for `out`, fails the test."""
    monkeypatch.chdir(place)
    before = sorted(map(str, place.rglob("*")))
    yield place
    shutil.rmtree(place / "out", ignore_errors=True)
    assert sorted(map(str, place.rglob("*"))) == before


@pytest.mark.parametrize("name", REFUSED)
def test_odd_input_is_refused_with_a_remedy(run: Run, inside: Path, name: str) -> None:
    arguments, words = REFUSED[name]
    code, _, err = run(*arguments)
    assert code == 2 and words in err, err
    assert "fault of flawsmith" not in err and "Traceback" not in err
    assert not list(inside.glob("out/**/*.png"))


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (1, 1)])
@pytest.mark.parametrize("method", ["copypaste", "nsa", "procedural"])
def test_photographs_of_one_line(run: Run, tmp_path: Path, method: str, size: tuple[int, int]) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", good=2, defects={}, size=size)
    for index in range(3):
        image, mask = fakes.photo(90 + index, size), np.zeros(size, dtype=bool)
        mask[size[0] // 2 :, size[1] // 2 :][:20, :20] = True
        fakes.save(data / f"test/crack/{index}.png", np.where(mask[..., None], image // 3, image))
        fakes.save(data / f"ground_truth/crack/{index}.png", mask)
    code, _, err = run("generate", method, "--normal", data, "-n", "2", "--out", tmp_path / "out")
    assert code == 0 or (method == "copypaste" and "No place was found for a reference mask" in err), err
    for record in datasets.read("mvtec_ad", tmp_path / "out") if (tmp_path / "out/test").is_dir() else []:
        assert images.read_image(record.image).shape[:2] == size


def test_the_home_folder_is_found_wherever_a_path_is_asked_for(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for source in ("~/data", "mvtec_ad:~/data"):
        assert run("check", source)[0] == 0
    assert run("generate", "nsa", "--normal=~/data", "--out=~/made", "-n", "1")[0] == 0
    assert run("show", "~/made", "--sheet=~/sheet.png")[0] == 0
    assert (tmp_path / "made/manifest.jsonl").is_file() and (tmp_path / "sheet.png").is_file()


def test_a_caption_may_hold_a_line_separator(run: Run, place: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert run("generate", "nsa", "--normal", place / "data", "--prompt", "a\u2028b", "-n", "2", "--out", made)[0] == 0
    code, _, err = run("show", made)
    assert code == 0, err


def test_names_in_brackets_are_shown_as_they_are(run: Run, tmp_path: Path) -> None:
    data = fakes.mvtec_tree(tmp_path, good=1, defects={"[red]crack[/red]": 1, ":smile:": 1}, test_good=1)
    code, out, err = run("check", data)
    assert code == 0 and "[red]crack[/red]" in out and ":smile:" in out, err


def test_a_stray_file_with_an_odd_name_is_reported(run: Run, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / f"data/widget/{LATIN}.png").write_bytes(b"x")
    code, out, err = run("check", tmp_path / "data")
    assert code == 0 and "caf\\udce9.png" in out, err


SPY = """
from pathlib import Path
from flawsmith.methods.classic.nsa import NSA
Path({spied!r}).write_text("imported")
class Own(NSA):
    name = "own"
def read(root, category=None, group_by="group"):
    from flawsmith.datasets import mvtec_ad
    return mvtec_ad.read(root, category, group_by)
def careless(root, category=None, group_by="group"):
    return ["a.png"]
"""


def test_a_module_is_imported_when_its_name_is_typed_and_never_for_a_file(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    spied = tmp_path / "spied"
    fakes.write(tmp_path / "spying/__init__.py", "")
    fakes.write(tmp_path / "spying/readers.py", SPY.format(spied=str(spied)))
    fakes.write(tmp_path / "spying/leaving.py", "raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    code, _, err = run("generate", "copypaste", "--normal", "data", "--out", out, "--config", "python.yaml")
    assert code == 2 and not spied.exists() and "spying.readers" not in sys.modules, err
    code, _, err = run("check", "spying.readers:read:data")
    assert code == 0 and spied.exists(), err
    code, _, err = run("check", "spying.readers:careless:data")
    assert code == 2 and "returned no list" in err
    code, _, err = run("check", "spying.leaving:read:data")
    assert code == 2 and "cannot be imported" in err
    code, _, err = run("generate", "spying.readers:Own", "--normal", "data", "--out", out, "-n", "1")
    assert code == 0, err
    for name in [name for name in sys.modules if name.startswith("spying")]:
        del sys.modules[name]


def test_a_reader_from_python_keeps_the_same_contract() -> None:
    with pytest.raises(FlawsmithError, match="function of root, category, group_by"):
        datasets.read("numpy:array", ".")
