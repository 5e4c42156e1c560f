"""Learned masks: the shapes, sizes and places of the real ones, none copied; saved, loaded, and used by any method."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import fakes  # noqa: E402
from flawsmith import images  # noqa: E402
from flawsmith.config import GenerateConfig, TrainConfig  # noqa: E402
from flawsmith.diffusion import mask_model as learned_masks  # noqa: E402
from flawsmith.diffusion.mask_examples import example, outline, varied  # noqa: E402
from flawsmith.diffusion.mask_model import COPY, REDRAWS, LearnedMasks  # noqa: E402
from flawsmith.errors import FlawsmithError  # noqa: E402
from flawsmith.generation import run as generation  # noqa: E402
from flawsmith.records import Sample  # noqa: E402
from flawsmith.training import mask_run as mask_training  # noqa: E402
from flawsmith.training.mask_run import MaskSettings, learn  # noqa: E402
from flawsmith.training.settings import FitConfig  # noqa: E402

OBJECT = np.zeros((120, 160), bool)
OBJECT[20:100, 30:130] = True


def bar(rng: np.random.Generator) -> np.ndarray:
    """A lying bar near the object's left end."""
    mask = np.zeros((120, 160), bool)
    top, left, length = rng.integers(50, 66), rng.integers(34, 42), rng.integers(28, 36)
    mask[top : top + 4, left : left + length] = True
    return mask


def disc(rng: np.random.Generator) -> np.ndarray:
    """A disc near its right end."""
    y, x = np.ogrid[:120, :160]
    return np.asarray(np.hypot(y - rng.integers(50, 70), x - rng.integers(108, 116)) < rng.integers(9, 13))


def sample(mask: np.ndarray, caption: str = "") -> Sample:
    return Sample(np.full((*mask.shape, 3), 128, np.uint8), mask, "widget", "kind", caption)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[LearnedMasks, Path]:
    rng = np.random.default_rng(0)
    material = {
        "widget/bar": [(sample(bar(rng), "a thin line"), OBJECT) for _ in range(6)],
        "widget/disc": [(sample(disc(rng), "a round hole"), OBJECT) for _ in range(6)],
    }
    run = tmp_path_factory.mktemp("run")
    return learn(material, run, MaskSettings(steps=90, batch_size=12, save_every=45, evaluate_every=45)), run


def test_masks_look_like_their_type_and_land_on_the_object(trained: tuple[LearnedMasks, Path]) -> None:
    made, _ = trained
    for name, draw in (("bar", bar), ("disc", disc)):
        drawn = [made.draw(f"widget/{name}", "", OBJECT, np.random.default_rng(seed)) for seed in range(5)]
        real = [draw(np.random.default_rng(100 + seed)) for seed in range(40)]
        assert all(mask.any() and not (mask & ~OBJECT).any() for mask in drawn)
        columns = np.median([np.nonzero(mask)[1].mean() for mask in drawn])
        assert abs(columns - np.median([np.nonzero(mask)[1].mean() for mask in real])) < 15
        longest = [max(np.ptp(np.nonzero(mask)[axis]) for axis in (0, 1)) + 1 for mask in drawn]
        true = [max(np.ptp(np.nonzero(mask)[axis]) for axis in (0, 1)) + 1 for mask in real]
        assert 0.65 < np.median(longest) / np.median(true) < 1.35  # after 90 steps; hundreds are the default
        area = np.median([mask.sum() for mask in drawn]) / np.median([mask.sum() for mask in real])
        assert 0.6 < area < 1.6


def test_a_hairline_stays_a_line() -> None:
    """A crack 1 px wide and 100 long, a third of a cell: its field gives most of it back, as a line of few pieces."""
    mask = np.zeros((120, 160), bool)
    for column in range(20, 120):
        mask[60 + round(8 * np.sin(column / 15)), column] = True
    one = example("w/crack", sample(mask), np.ones_like(mask))
    drawn = outline(one.shape, one.fill, 125)
    pieces = cv2.connectedComponents(drawn.astype(np.uint8), connectivity=8)[0] - 1
    assert pieces <= 3 and drawn.any(axis=0).sum() > 60 and drawn.sum() < 2 * mask.sum()


def test_same_seed_same_mask_other_seed_another(trained: tuple[LearnedMasks, Path]) -> None:
    made, run = trained
    again = LearnedMasks.load(run)
    first, second = (m.draw("widget/disc", "a hole", OBJECT, np.random.default_rng(3)) for m in (made, again))
    assert np.array_equal(first, second) and again.names == made.names
    assert not np.array_equal(first, made.draw("widget/disc", "a hole", OBJECT, np.random.default_rng(4)))
    with pytest.raises(FlawsmithError, match="widget/bar"):
        made.draw("widget/dent", "", OBJECT, np.random.default_rng(0))


def test_the_caption_chooses_among_the_real_ones() -> None:
    """Two captions under one type, left and right: what is said decides where it goes."""
    left, right = np.zeros((120, 160), bool), np.zeros((120, 160), bool)
    left[55:65, 35:45], right[55:65, 115:125] = True, True
    both = [example("w/x", sample(m, c), OBJECT) for m, c in ((left, "red wire missing"), (right, "blue scratch"))] * 2
    made = LearnedMasks(both)
    for caption, column in (("the red wire is missing", 40), ("a blue scratched line", 120)):
        middles = [np.nonzero(made.draw("w/x", caption, OBJECT, np.random.default_rng(s)))[1].mean() for s in range(3)]
        assert abs(np.median(middles) - column) < 20


def test_copies_are_known_in_any_turn() -> None:
    shape = np.zeros((120, 160), bool)
    shape[40:80, 50:60], shape[70:80, 50:90] = True, True
    made = LearnedMasks([example("w/x", sample(shape), OBJECT)])
    assert min(map(made.likeness, (shape, np.rot90(shape), shape[:, ::-1]))) > COPY
    other = np.zeros((120, 160), bool)
    other[40:80, 50:90] = True
    assert made.likeness(other) < COPY
    one = made.examples[0]
    varieties = [varied(np.random.default_rng(s), one) for s in range(20)]
    assert not any(np.array_equal(v, one.shape) for v in varieties) and all((v > 0).any() for v in varieties)


class Memory(LearnedMasks):
    """A model that remembers its real shape `copies` times before it thinks of others."""

    copies, drawn = 0, 0

    def shape(self, *given: object) -> np.ndarray:
        self.drawn += 1
        other = example("", sample(disc(np.random.default_rng(0))), OBJECT)
        return (self.examples[0] if self.drawn <= self.copies else other).shape


@pytest.mark.parametrize(("copies", "drawn"), [(0, 1), (2, 3), (REDRAWS, REDRAWS)])
def test_a_copy_is_drawn_again(copies: int, drawn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as REDRAWS; then it is taken, no smaller than the first was, and the same seed takes the same one."""
    monkeypatch.setattr(learned_masks, "COPY", 0.6)  # fill varies at random, which alone makes some no copies at 0.9
    angle = np.zeros((120, 160), bool)
    angle[40:80, 50:60], angle[70:80, 50:90] = True, True
    found = []
    for _ in range(2):
        made = Memory([example("w/x", sample(angle), OBJECT)])
        made.copies = copies
        found.append(made.draw("w/x", "", OBJECT, np.random.default_rng(1)))
        assert made.drawn == drawn
    assert (made.likeness(found[0]) > 0.6) == (copies == REDRAWS)
    assert np.array_equal(*found) and found[0].sum() > 0.5 * angle.sum()


@pytest.mark.parametrize("kind", ["shape", "whole"])
def test_any_method_draws_with_a_runs_masks(kind: str, tmp_path: Path) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", good=3, defects={"crack": 4}, size=(60, 80))
    run, out = tmp_path / "run", tmp_path / "out"
    from flawsmith import datasets

    records = datasets.read("mvtec_ad", data)
    config = TrainConfig(data=f"mvtec_ad:{data}", out=run, shots=3)
    fit = FitConfig(mask_steps=2, mask_model=kind)
    mask_training.train(config, fit, records, [("widget", "crack")], None)
    images.write_bytes(
        run / "card.json",
        json.dumps(
            {"method": "inpaint", "learned": {"widget/crack": {"file": "a", "support": {"a.png": "1"}}}}
        ).encode(),
    )
    settings = {"method": "copypaste", "normal": f"mvtec_ad:{data}", "mask": "learned", "n": 2, "out": out}
    with pytest.raises(FlawsmithError, match=r"mask\.run"):
        generation.run(GenerateConfig(**settings))
    generation.run(GenerateConfig(**settings, mask_options={"run": str(run)}))
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["mask_source"] for line in lines] == ["learned"] * 2
    assert json.loads((out / "generate.json").read_text())["support"]["a.png"] == "1"  # what the masks have seen
    assert LearnedMasks.load(run).kind == kind
    mask_training.train(config, fit, records, [("widget", "crack")], None)  # nothing left to do
    with pytest.raises(FlawsmithError, match=f"mask_model={kind}"):
        other = FitConfig(mask_steps=2, mask_model={"shape": "whole", "whole": "shape"}[kind])
        mask_training.train(config, other, records, [("widget", "crack")], None)
    (run / "masks.safetensors").write_bytes(b"damaged")
    with pytest.raises(FlawsmithError, match=r"masks\.safetensors"):
        LearnedMasks.load(run)
