"""Every command that the README and the documentation show is run, on small data sets painted under the names in it.

A block of the README and a page of the documentation each have a folder of their own. What `CHEAP` adds at a command's
end makes it take seconds. Commands that are not run stand in `NOT_RUN`, each with its reason. Pages that train or judge
are marked slow: `make nightly` runs them.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import fakes
import fakes_annotated

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))

# Of a command by the words in it: few steps, images and seeds, no looks at validation. The last of an option counts.
FIT = ("--steps", "1", "--set", "batch_size=1", "--set", "patience=0", "--set", "mask_steps=0")
CHEAP = {
    "train": FIT,
    "evaluate": ("--set", "segmentation.steps=4", "--set", "segmentation.looks=1", "--seeds", "0"),
    "--compare": ("--images", "3", "--jobs", "1"),
    "segmentation,classification": ("--set", "classification.steps=2"),
}
FITS = ("--set", "fit.steps=1", "--set", "fit.batch_size=1", "--set", "fit.patience=0", "--set", "fit.mask_steps=0")
LEARNED = {"inpaint", "anomalyxfusion", "anomalycontrol"}
FEW = 2  # images that `generate` makes of the documentation's commands
SCORED = 24  # where limits of the gate are fitted to them

# what cannot be here, and what stands for it: random weights of the real classes, thin
INSTEAD = {
    "--backbone FOLDER": "--backbone models/sd-inpainting",
    "BLIP2": "models/blip2-itm",
    "FOLDER": "models/mobilenet",
    "weights/mobilenet": "models/mobilenet",
    "WEIGHTS": "models/sd-inpainting",
    "CLIP": "models/clip",
    "s3://bucket/painted": "stored",
    "DATA/": "data/",
    "data/SET": "data/ball_screw",
    "OUT": "out",
    "cuda": "cpu",
}

NOT_RUN = {
    "pip install": "needs the network; tests/package.py installs the wheel in an environment of its own",
    "make ": "is the demo, or this check itself",
    "flawsmith studio": "serves until it is stopped; tests/studio and tests/browser run it",
    "python benchmarks/": "takes minutes to hours, or wants real data; its options are looked for in its source",
    "nice -n 19 python benchmarks/": "likewise",
    "nice -n 10 flawsmith evaluate": "an experiment of an hour, whose arms are made by the loop before it",
    "python tests/mutations.py": "takes minutes; its options are looked for in its source",
}
ELSEWHERE = {"handoff": "tests/datasets/test_handoff.py runs it, with its blocks of Python"}

# what a page's commands take up that they do not make themselves, made by these
BEFORE = {
    "datasets": ("flawsmith generate procedural --normal mvtec_ad:data/widget --out out/painted",),
    "evaluation": ("flawsmith generate copypaste --normal mvtec_ad:data/widget --out out/painted",),
    "report": (
        "flawsmith generate procedural --normal mvtec_ad:data/widget --out out/painted",
        "flawsmith generate copypaste --normal mvtec_ad:data/widget --out out/copied",
        "flawsmith evaluate out/painted --real mvtec_ad:data/widget --metrics segmentation --out results/painted",
        "flawsmith evaluate --compare --real mvtec_ad:data/widget --arms real,copypaste --out results/help",
    ),
}


def commands(text: str) -> list[str]:
    """The commands in a text's blocks, each on one line, without what stands behind a #."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)
    shown = "\n".join(block for language, block in blocks if language in ("", "bash"))
    lines = re.sub(r"\\\n\s*", " ", shown).splitlines()
    starts = ("flawsmith ", "python ", "pip ", "make ", "nice ")
    return [line.partition(" #")[0].strip() for line in lines if line.startswith(starts)]


def reason(line: str) -> str | None:
    """Why a command is not run; None for one that is."""
    return next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)


def places() -> list[object]:
    """Blocks of the README and pages of the documentation that have commands to run."""
    found = []
    blocks = re.findall(r"```bash\n.*?```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    for number, block in enumerate(blocks):
        found.append(pytest.param("README", commands(block), id=f"README-{number}"))
    for page in PAGES:
        lines = [line for line in commands(page.read_text(encoding="utf-8")) if reason(line) is None]
        if lines and page.stem not in ELSEWHERE:
            if page.stem == "index":  # its blocks are for different readers: the last of them stands alone
                last = next(number for number, line in enumerate(lines) if "--backbone FOLDER" in line)
                found.append(pytest.param("index", lines[last:], id="index-gpu", marks=pytest.mark.slow))
                lines = lines[:last]
            long = re.search(r" (train|evaluate|inpaint) ", " ".join((*BEFORE.get(page.stem, ()), *lines)))
            marks = [pytest.mark.slow] if long else []
            found.append(pytest.param(page.stem, lines, id=page.stem, marks=marks))
    return found


def stage(lines: list[str]) -> None:
    """Paint what the commands read, in the working directory."""
    text = " ".join(lines)
    shape = {"good": 4, "defects": {"crack": 6, "hole": 6}, "size": (72, 96)}
    tile = {"good": 4, "defects": {"blowhole": 6, "break": 6, "crack": 6, "fray": 6}, "size": (72, 96)}
    for number, line in enumerate(lines):
        category = re.search(r"--category (\w+)", line)
        for name in re.findall(r"mvtec_ad:([\w/]+)|--data (data/\w+)", line):
            root = Path(name[0] or name[1])
            folder = root / category[1] if category else root / "widget" if root == Path("data") else root
            if not folder.exists():
                kind = tile if folder.name == "magnetic_tile" else shape
                fakes.mvtec_tree(folder.parent, category=folder.name, seed=97 * number, **kind)  # type: ignore[arg-type]
    for folder in dict.fromkeys(re.findall(r"folder:([\w/]+)", text)):
        for number in range(3):
            fakes.save(Path(folder) / f"part {number}.jpg", fakes.photo(number, (72, 96)))
    for image, mask in re.findall(r"--reference (\S+) --reference-mask (\S+)", text):
        pixels, where = fakes.with_defect(fakes.photo(7, (72, 96)), "hole", 7)
        fakes.save(Path(image), pixels)
        fakes.save(Path(mask), where)
    if "check data/parts" in text:
        fakes.folder_tree(Path("data/parts"))
    if "coco:parts" in text:
        fakes_annotated.coco_tree(Path("parts"))
        files = json.loads(next(Path("parts").rglob("*.json")).read_text())["images"]
        rows = "".join(f"{Path(file['file_name']).name},somebody's words\n" for file in files)
        fakes.write(Path("theirs.csv"), "file,caption\n" + rows)
    if "review out/bottle --refit" in text:
        page = (REPOSITORY / "docs/quality.md").read_text(encoding="utf-8")
        fakes.write(Path("everything.json"), re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)[0])
    if "textures=" in text:
        fakes.save(Path("textures/stone.png"), fakes.photo(3, (72, 96)))
    if "SEEN" in text:
        fakes.write(Path("SEEN"), "ball_screw/part 17\n")
    weights(text)


def weights(text: str) -> None:
    """Folders of models under the names that commands have for them."""
    if "models/" not in text:
        return
    from diffusion import thin

    if "models/sd-inpainting" in text:
        thin.write("sd-inpainting", Path("models/sd-inpainting"))
    if "models/clip" in text:
        thin.clip(Path("models/clip"))
    if "models/blip2-itm" in text:
        thin.blip(Path("models/blip2-itm"))
    if "models/mobilenet" in text:
        import transformers

        small = transformers.MobileNetV2Config(depth_multiplier=0.1, image_size=64, initializer_range=0.3)
        transformers.MobileNetV2Model(small).save_pretrained("models/mobilenet")


def fill_in() -> None:
    """A reviewer's work: every other image that is still there is dropped."""
    file = Path("out/bottle-review.csv")
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    for number, row in enumerate(rows):
        row["review"] = "drop" if number % 2 else "keep"
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def option(words: list[str], name: str) -> str:
    return words[len(words) - words[::-1].index(name)] if name in words else ""


@pytest.mark.parametrize(("page", "lines"), places())
def test_commands_run(
    page: str,
    lines: list[str],
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [*BEFORE.get(page, ()), *lines]
    if re.search(r" (train|evaluate|inpaint) ", " ".join(lines)):
        pytest.importorskip("diffusers")
    for theirs, ours in INSTEAD.items():
        lines = [re.sub(rf"(?<![\w/]){re.escape(theirs)}(?!\w)|{theirs}(?<=/)", ours, line) for line in lines]
    stage(lines)
    if any(" copied " in line for line in lines) and not any("--out copied" in line for line in lines):
        assert run("generate", "copypaste", "--normal", "mvtec_ad:data/widget", "-n", 4, "--out", "copied")[0] == 0
    learnt = any(" train " in line for line in lines)  # in one step: nothing that is sure to be visible
    for line in lines:
        words = shlex.split(line)
        words += [more for word in words for more in CHEAP.get(word, ())]
        arms = set(re.findall(r"\w+", option(words, "--arms")))
        if "--compare" in words and (not arms or arms & LEARNED):
            words += FITS
        if words[1] == "generate":
            while Path(option(words, "--out")).exists():  # another way to do what stands above it
                words += ["--out", option(words, "--out") + "-again"]
            if page == "quality" and "--gate" not in words:  # the crude images here would be refused
                words += ["--gate", "everything.json"]
            if page != "README" or learnt:
                words += ["-n", str(SCORED if "out/bottle-gate.json" in " ".join(lines) else FEW)]
        code, _, err = run(*words[1:])
        assert code == 0, (line, err)
        if out := option(words, "--out"):
            assert (tmp_path / out).exists(), line
        if words[1] == "generate":
            kept = len(list((tmp_path / out / "test").rglob("*.png")))
            refuses = "--gate" in words  # the crude images of these tests
            assert learnt or refuses or kept >= 0.75 * int(option(words, "-n") or 20), line
        if line == "flawsmith review out/bottle":
            fill_in()


def test_what_is_not_run_is_there_and_takes_its_options() -> None:
    used, missing = set(), []
    for page in (README, *PAGES):
        for line in commands(page.read_text(encoding="utf-8")):
            if reason(line) is None:
                assert line.startswith("flawsmith "), (page.name, line)
                continue
            used.add(next(start for start in NOT_RUN if line.startswith(start)))
            for file in re.findall(r"python (\S+\.py)", line):
                source = (REPOSITORY / file).read_text(encoding="utf-8")
                options = re.findall(r" (--[\w-]+)", re.sub(r"clock.py .*", "", line))  # behind clock.py: flawsmith's
                missing += [(line, word) for word in options if f'"{word}"' not in source]
    assert not missing
    assert used == set(NOT_RUN) and set(ELSEWHERE) <= {page.stem for page in PAGES}
