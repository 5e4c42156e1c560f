"""Does the diffusion model do as it is told? Only the mask, only a word, or only the reference changes; what follows?

mask       same photograph, words and seed, two masks: does the change lie where it was asked, and the label too?
colour     same photograph, mask and seed, only the colour word differs: measured colour inside the mask, right when the
           difference of the two images points from one named colour to the other (and is at least 2 units of Lab).
type       same photograph, mask and seed, only the kind differs: a probe trained on painted windows with the same masks
           judges which of the two images is more of which kind; its figure on held-out painted pairs is the ceiling.
reference  same photograph, mask and seed, no words, two references: is each image nearer to its own reference than to
           the other? Compared are colours, their spread, slopes and skewness against the surroundings.
text       painted windows, noised: does their own caption, of eight, give the lowest denoising loss?

Intervals are bootstraps over scenes. Each part is written to OUT/<part>.json; parts found there are not measured again.

Example: python benchmarks/control.py --backbone compact --data data --features weights/mobilenet --out runs/control
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.optimize import minimize

from flawsmith import captions, compose, images, masks
from flawsmith.demo import TEXTURES, render_washer
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.denoise import draw_noise
from flawsmith.evaluation import features
from flawsmith.evaluation.metrics.scores import paired_bootstrap
from flawsmith.methods.base import Synthesizer
from flawsmith.methods.classic.copypaste import CopyPaste
from flawsmith.methods.diffusion.runs import fingerprint
from flawsmith.methods.diffusion.synthesizer import DiffusionSynthesizer
from flawsmith.methods.mask_choice import FAMILY
from flawsmith.methods.procedural.colours import PIGMENTS
from flawsmith.methods.procedural.synthesizer import Procedural
from flawsmith.records import Request, Sample
from flawsmith.training.losses import batch_loss
from flawsmith.training.pretrain_config import PretrainConfig

SIDE = 192  # photographs are cut to squares of this side
KINDS = {  # kinds that a mask of this family can hold; "blob" also takes lines, which a probe must tell from areas
    "blob": ("scratch", "hole", "crack", "stain", "spots"),
    "line": ("scratch", "crack", "fibre"),
}
TINTS = ((1.0, 0.93, 0.8), (0.75, 0.9, 1.0), (0.85, 1.0, 0.85), (1.0, 0.85, 0.8))


@dataclass(frozen=True)
class Scene:
    """A photograph to paint on, (SIDE, SIDE, 3) uint8, and where defects may sit."""

    name: str
    image: np.ndarray
    allowed: np.ndarray

    @property
    def is_grey(self) -> bool:
        return bool((np.ptp(self.image.astype(int), axis=2) <= 2).all())

    def sample(self) -> Sample:
        return Sample(self.image, np.zeros(self.image.shape[:2], bool), "")


def photographs(data: Path | None, seed: int, each: int = 12) -> list[Scene]:
    """Squares of good photographs: textures grey and tinted, rendered washers, and every data set in `data`."""
    from skimage import data as shipped

    rng = np.random.default_rng(seed)
    found: list[tuple[str, np.ndarray]] = []
    for name in TEXTURES:
        whole = getattr(shipped, name)()
        for turn in range(each):
            tint = TINTS[turn % len(TINTS)] if turn % 2 else (1.0, 1.0, 1.0)
            found.append((name, np.rint(whole[..., None] * np.array(tint)).astype(np.uint8)))
    found += [("washer", render_washer(1000 + seed + number)) for number in range(each // 2)]
    for folder in sorted(data.glob("**/train/good")) if data else []:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in images.SUFFIXES)
        chosen = rng.permutation(len(paths))[:each]
        found += [(folder.parents[1].name, images.read_image(paths[i])) for i in sorted(chosen)]
    scenes = []
    for name, whole in found:
        image, side = whole, min(whole.shape[:2])
        if side > 2 * SIDE:  # a large photograph is halved, so that a window still shows something of the product
            image = images.resize(whole, whole.shape[0] // 2, whole.shape[1] // 2)
        elif side < SIDE:
            image = images.resize(whole, *(int(np.ceil(n * SIDE / side)) for n in whole.shape[:2]))
        allowed = masks.foreground(image)
        for _ in range(20):
            top, left = (int(rng.integers(0, n - SIDE + 1)) for n in image.shape[:2])
            view = np.s_[top : top + SIDE, left : left + SIDE]
            if allowed[view].mean() > 0.7:
                scenes.append(Scene(name, np.ascontiguousarray(image[view]), allowed[view].copy()))
                break
    return [scenes[i] for i in rng.permutation(len(scenes))]


def draw(family: str, scene: Scene, rng: np.random.Generator, area: tuple[int, int] = (250, 2500)) -> np.ndarray:
    """A mask for this scene; "line" is an elongated one, wide enough for a scratch or a crack to wander in."""
    size = (area[0] / scene.allowed.sum(), area[1] / scene.allowed.sum())
    if family == "line":
        mask, _ = masks.draw(str(rng.choice(["scratch", "crack"])), scene.allowed, rng)
        return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    options = masks.MaskOptions() if family in ("scratch", "crack") else masks.MaskOptions(size=size)
    return masks.draw(family, scene.allowed, rng, options)[0]


def says(kind: str, colour: str, seed: int) -> str:
    """A caption that differs between colours, or kinds, in that word only as far as grammar allows."""
    return captions.describe(captions.Attributes(kind, colour), "", np.random.default_rng([seed, 5]))


class Model:
    """The method under test. Nothing is refused for being faint: what did not follow counts as wrong.

    `procedural` (which the model learned its words from) and `copypaste` may stand in for it: what the judges say of
    them is the most that can be asked.
    """

    def __init__(self, method: str, backbone: str, options: dict[str, Any]) -> None:
        options = {"min_visibility": 0.0, "min_share": 0.0, **options}
        self.backbone: Backbone | None = None
        self.method: Synthesizer
        if method == "inpaint":
            self.backbone = Backbone.from_pretrained(backbone).freeze()
            told = {"start": "noise", **options}  # else a reference's own pixels would answer for the reader
            self.method = DiffusionSynthesizer(self.backbone, **told)
        else:
            self.method = {"procedural": Procedural, "copypaste": CopyPaste}[method](**options)
        self.parts = {"inpaint": list(PARTS), "procedural": ["mask", "colour", "type"], "copypaste": ["reference"]}[
            method
        ]

    def paint(self, requests: Sequence[Request]) -> list[Sample]:
        made: list[Sample] = []
        for start in range(0, len(requests), 48):
            made += self.method.generate(requests[start : start + 48])
        return made


# -- looking -----------------------------------------------------------------------------------------------------------


def lab(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) RGB in 0..255 to CIE Lab."""
    from skimage.color import rgb2lab

    return np.asarray(rgb2lab(np.clip(np.asarray(rgb, np.float64), 0, 255) / 255))


def look(image: np.ndarray, mask: np.ndarray, size: int = 96) -> np.ndarray:
    """The defect against the colour of its surroundings, (size, size, 3) uint8: grey where there is no defect."""
    near, far = (cv2.dilate(mask.astype(np.uint8), np.ones((k, k), np.uint8)).astype(bool) for k in (5, 17))
    ring = far & ~near
    around = image[ring if ring.any() else ~mask].astype(np.float32).mean(axis=0)
    alpha = cv2.GaussianBlur(near.astype(np.float32), (0, 0), 1.0)[..., None]
    drawn = np.clip(128 + alpha * (image.astype(np.float32) - around), 0, 255).astype(np.uint8)
    view = compose.square_window(mask, 32, 1.3).slices
    return images.resize(np.ascontiguousarray(drawn[view]), size, size)


def statistics(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Simple facts of a look inside its mask: mean and spread in Lab, slopes, skewness; (9,) float32."""
    ring = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool) & ~mask
    colours = lab(image)
    inside, outside = colours[mask], colours[ring if ring.any() else ~mask]
    light = colours[..., 0]
    slope = np.hypot(cv2.Sobel(light, cv2.CV_64F, 1, 0), cv2.Sobel(light, cv2.CV_64F, 0, 1))
    away = inside - outside.mean(axis=0)
    skew = ((inside[:, 0] - inside[:, 0].mean()) ** 3).mean() / (inside[:, 0].std() + 1) ** 3
    share = (np.abs(away).max(axis=1) > 8).mean()
    return np.array([*away.mean(axis=0), *away.std(axis=0), slope[mask].mean(), skew, share], dtype=np.float32)


class Eye:
    """Images with masks to vectors: a frozen network's features of the look, and simple statistics."""

    def __init__(self, source: str) -> None:
        self.extractor = features.load(source, None if source == "compact" else 96)

    def pooled(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        return self.extractor([look(*pair) for pair in pairs]).pooled

    def all(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        return np.concatenate([self.pooled(pairs), np.stack([statistics(*pair) for pair in pairs])], axis=1)


class Probe:
    """Logistic regression on standardised principal components; classes by name."""

    def __init__(self, x: np.ndarray, names: Sequence[str], parts: int = 32, weight: float = 0.01) -> None:
        self.classes = sorted(set(names))
        y = np.array([self.classes.index(name) for name in names])
        self.mean, self.std = x.mean(axis=0), x.std(axis=0) + 1e-3
        z = (x - self.mean) / self.std
        last = z.shape[1] - 9  # the statistics stand beside the components, not in them
        _, _, basis = np.linalg.svd(z[:, :last], full_matrices=False)
        self.basis, self.last = basis[:parts], last
        self.scale = np.maximum((z[:, :last] @ self.basis.T).std(axis=0), 1e-3)
        inputs = self._inputs(x)
        k, d = len(self.classes), inputs.shape[1]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            table = flat.reshape(d, k)
            logits = inputs @ table
            logits -= logits.max(axis=1, keepdims=True)
            p = np.exp(logits)
            p /= p.sum(axis=1, keepdims=True)
            value = -np.log(p[np.arange(len(y)), y] + 1e-12).mean() + weight * (table[:-1] ** 2).sum()
            gradient = inputs.T @ (p - np.eye(k)[y]) / len(y)
            gradient[:-1] += 2 * weight * table[:-1]
            return float(value), gradient.ravel()

        self.table = minimize(loss, np.zeros(d * k), jac=True, method="L-BFGS-B").x.reshape(d, k)

    def _inputs(self, x: np.ndarray) -> np.ndarray:
        z = (x - self.mean) / self.std
        return np.concatenate(
            [z[:, : self.last] @ self.basis.T / self.scale, z[:, self.last :], np.ones((len(z), 1))], 1
        )

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(N, K), comparable within a row."""
        return np.asarray(self._inputs(x) @ self.table)


def interval(right: Sequence[float], scenes: Sequence[int]) -> dict[str, float]:
    """Mean and 95 % interval, resampling scenes; pairs of one scene are not independent."""
    by_scene: dict[int, list[float]] = {}
    for value, scene in zip(right, scenes, strict=True):
        by_scene.setdefault(scene, []).append(value)
    _, low, high = paired_bootstrap([float(np.mean(values)) for values in by_scene.values()], draws=2000)
    return {"value": float(np.mean(right)), "low": low, "high": high, "n": len(right), "scenes": len(by_scene)}


# -- the parts -------------------------------------------------------------------------------------------------------


def measure_mask(model: Model, scenes: list[Scene], eye: Eye, count: int) -> dict[str, Any]:
    requests, kinds = [], list(FAMILY)
    for number in range(count // 2):
        scene, rng = scenes[number % len(scenes)], np.random.default_rng([number, 11])
        kind = kinds[number % len(kinds)]
        caption = says(kind, "dark" if kind in ("stain", "spots", "discolouration") else "", number)
        for _ in range(2):
            requests.append(Request(scene.sample(), draw(FAMILY[kind], scene, rng), kind, caption, None, number))
    found = model.paint(requests)
    change, asked, moved, empty = [], [], [], 0
    for index, (request, sample) in enumerate(zip(requests, found, strict=True)):
        other = requests[index ^ 1].mask
        if not sample.mask.any():
            empty += 1
            change, asked, moved = [*change, 0.0], [*asked, 0.0], [*moved, 0.0]
            continue
        tolerance = float(np.clip(3 * compose.noise_level(request.normal.image), 4, 12))
        seen = compose.changed_region(request.normal.image, sample.image, tolerance)
        change.append(_iou(seen, sample.mask))
        asked.append(_iou(sample.mask, request.mask))
        moved.append(float(_iou(sample.mask, request.mask) > _iou(sample.mask, other)))
    by_kind = {k: round(float(np.mean([a for a, r in zip(asked, requests, strict=True) if r.defect_type == k])), 3)
               for k in kinds}  # fmt: skip
    return {
        "requests": len(requests),
        "nothing_changed": empty,
        "change_label_iou": float(np.mean(change)),
        "label_asked_iou": float(np.mean(asked)),
        "moved": float(np.mean(moved)),
        "label_asked_iou_by_kind": by_kind,
    }


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def target(word: str, level: np.ndarray) -> np.ndarray:
    """The Lab colour that a word asks for on a surface of mean RGB `level` (3,)."""
    bright = float(level @ np.array([0.299, 0.587, 0.114]))
    rgb = {
        "black": level * 0.15,
        "dark": level * 0.42,
        "white": np.full(3, max(240.0, bright)),
        "bright": level + 0.7 * (min(255.0, 1.7 * bright + 35) - level),
    }.get(word)
    return lab(np.array(PIGMENTS[word]) * 235 if rgb is None else rgb)


def colour_words(scene: Scene, level: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Words that this surface can show, far from each other and from the surface; four where it has colours."""
    bright = float(level @ np.array([0.299, 0.587, 0.114]))
    neutral = ["black", "dark"] * (bright > 60) + ["white", "bright"] * (bright < 190)
    words = neutral if scene.is_grey else [*neutral, "red", "blue", "green", "rusty", "yellow", "purple", "orange"]
    chosen: list[str] = []
    for word in rng.permutation(words):
        others = [lab(level), *(target(w, level) for w in chosen)]
        if min(float(np.linalg.norm(target(word, level) - other)) for other in others) > 22:
            chosen.append(str(word))
    return chosen[:4]


def measure_colour(model: Model, scenes: list[Scene], eye: Eye, count: int) -> dict[str, Any]:
    requests: list[Request] = []
    plans: list[tuple[Scene, np.ndarray, list[str], int]] = []
    pairs = number = 0
    while pairs < count and number < 4 * count:
        scene, rng = scenes[number % len(scenes)], np.random.default_rng([number, 12])
        kind = ("stain", "spots", "stain", "scratch", "fibre")[number % 5]
        mask = draw(FAMILY[kind], scene, rng, (200, 2500))
        level = scene.image[mask].mean(axis=0).astype(np.float64)
        words = colour_words(scene, level, rng)
        number += 1
        if len(words) < 2:
            continue
        plans.append((scene, level, words, len(requests)))
        requests += [
            Request(scene.sample(), mask, kind, says(kind, word, number), None, number) for word in ["", *words]
        ]
        pairs += len(words) * (len(words) - 1) // 2
    found = model.paint(requests)
    right, close, owner, against_plain, plain_owner = [], [], [], [], []
    by_word: dict[str, list[float]] = {}
    for index, (_, level, words, first) in enumerate(plans):
        block = found[first : first + len(words) + 1]
        where = np.logical_or.reduce([sample.mask for sample in block])
        where = where if where.any() else requests[first].mask
        shown = [lab(sample.image[where]).mean(axis=0) for sample in block]
        for i, j in combinations(range(len(words)), 2):
            delta, wanted = shown[i + 1] - shown[j + 1], target(words[i], level) - target(words[j], level)
            size = float(np.linalg.norm(delta))
            angle = float(delta @ wanted / max(size * np.linalg.norm(wanted), 1e-9))
            good = float(size >= 2 and angle > 0)
            right, close, owner = [*right, good], [*close, float(size >= 2 and angle > 0.5)], [*owner, index]
            for word in (words[i], words[j]):
                by_word.setdefault(word, []).append(good)
        for i, word in enumerate(words):  # the word against no colour word at all
            delta, wanted = shown[i + 1] - shown[0], target(word, level) - shown[0]
            against_plain.append(float(delta @ wanted > 0))
            plain_owner.append(index)
    return {
        "right": interval(right, owner),
        "within_60_degrees": interval(close, owner),
        "word_against_no_word": interval(against_plain, plain_owner),
        "by_word": {word: [round(float(np.mean(v)), 3), len(v)] for word, v in sorted(by_word.items())},
    }


def painted(
    scenes: list[Scene], family: str, kinds: Sequence[str], count: int, salt: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str], list[int]]:
    """Procedural images with masks of one family for every kind, so that the mask tells no kind: for the probe."""
    painter, pairs, names, owner = Procedural(min_visibility=0.0, min_share=0.0), [], [], []
    for number in range(count):
        scene, rng = scenes[number % len(scenes)], np.random.default_rng([number, salt])
        mask = draw(family, scene, rng)
        for kind in kinds:
            request = Request(scene.sample(), mask, kind, "", None, number + salt)
            sample = painter.generate([request], severity=float(rng.uniform(0.4, 1)))[0]
            pairs.append((sample.image, mask))
            names.append(kind)
            owner.append(number)
    return pairs, names, owner


def judged_pairs(logits: np.ndarray, names: Sequence[str], owner: Sequence[int], classes: list[str]) -> dict[str, Any]:
    """Two images of one scene and two kinds: right when the first is more of its kind, relative to the second."""
    right, single, scene_of = [], [], []
    by_pair: dict[str, list[float]] = {}
    for scene in dict.fromkeys(owner):
        rows = [i for i, o in enumerate(owner) if o == scene]
        for i, j in combinations(rows, 2):
            a, b = classes.index(names[i]), classes.index(names[j])
            first, second = logits[i, a] - logits[i, b], logits[j, a] - logits[j, b]
            right.append(float(first > second))
            single.append((float(first > 0) + float(second < 0)) / 2)
            scene_of.append(scene)
            by_pair.setdefault(" / ".join(sorted((names[i], names[j]))), []).append(right[-1])
    return {
        "right": interval(right, scene_of),
        "each_image_alone": interval(single, scene_of),
        "by_pair": {pair: round(float(np.mean(v)), 3) for pair, v in by_pair.items()},
    }


def measure_type(model: Model, scenes: list[Scene], eye: Eye, count: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    half = len(scenes) // 2  # the probe learns on one half of the photographs and is tried on the other
    for family, kinds in KINDS.items():
        pairs, names, _ = painted(scenes[:half], family, kinds, 150, 21)
        probe = Probe(eye.all(pairs), names)
        pairs, names, owner = painted(scenes[half:], family, kinds, 40, 22)
        logits = probe.logits(eye.all(pairs))
        accuracy = float(np.mean([probe.classes[i] == n for i, n in zip(logits.argmax(1), names, strict=True)]))
        ceiling = judged_pairs(logits, names, owner, probe.classes)
        requests: list[Request] = []
        owner = []
        each = len(kinds) * (len(kinds) - 1) // 2
        for number in range(-(-count // (each * len(KINDS)))):
            scene, rng = scenes[half + number % (len(scenes) - half)], np.random.default_rng([number, 13])
            mask = draw(family, scene, rng)
            requests += [Request(scene.sample(), mask, kind, says(kind, "", number), None, number) for kind in kinds]
            owner += [number] * len(kinds)
        found = model.paint(requests)
        logits = probe.logits(eye.all([(s.image, r.mask) for s, r in zip(found, requests, strict=True)]))
        judged = judged_pairs(logits, [r.defect_type for r in requests], owner, probe.classes)
        result[family] = {"probe_accuracy": accuracy, "classes": len(kinds), "ceiling": ceiling, **judged}
    total = [result[family]["right"] for family in KINDS]
    n = sum(part["n"] for part in total)
    result["right"] = {"value": sum(part["value"] * part["n"] for part in total) / n, "n": n}
    return result


def measure_reference(model: Model, scenes: list[Scene], eye: Eye, count: int) -> dict[str, Any]:
    """References are painted on other photographs, with other masks of one family, two kinds or colours for each."""
    painter, requests, references = Procedural(), [], []
    number = 0
    looks = [("hole", "black"), ("stain", "red"), ("stain", "white"), ("spots", "dark"), ("stain", "blue"),
             ("spots", "white"), ("stain", "rusty"), ("dent", ""), ("stain", "green"), ("hole", "")]  # fmt: skip
    while len(requests) < 2 * count and number < 4 * count:
        scene, rng = scenes[number % len(scenes)], np.random.default_rng([number, 14])
        lender = scenes[(number * 7 + 3) % len(scenes)]
        number += 1
        mask = draw("blob", scene, rng, (400, 3000))
        chosen, shown = rng.permutation(len(looks)), []
        for index in chosen:
            kind, colour = looks[index]
            if colour in PIGMENTS and (scene.is_grey or lender.is_grey):
                continue
            place = draw("blob", lender, rng, (400, 3000))
            words = says(kind, colour, number)
            sample = painter.generate([Request(lender.sample(), place, kind, words, None, int(rng.integers(2**31)))])[0]
            if "rejected" not in sample.info:
                shown.append(sample)
            if len(shown) == 2:
                break
        if len(shown) == 2:
            requests += [Request(scene.sample(), mask, "defect", "", one, number) for one in shown]
            references += shown
    found = model.paint(requests)
    views = [(s.image, r.mask) for s, r in zip(found, requests, strict=True)], [(s.image, s.mask) for s in references]
    facts = [np.stack([statistics(*view) for view in side]) for side in views]
    scale = np.concatenate(facts).std(axis=0)
    facts = [side / scale for side in facts]
    # What all images of a side share (the model's habits, the painter's) says nothing about one reference.
    own, theirs = (_unit(side - side.mean(axis=0)) for side in facts)
    deep_own, deep_theirs = (_unit(eye.pooled(side)) for side in views)
    single, pair, deep, tint, owner = [], [], [], [], []
    for i in range(0, len(requests), 2):
        near = own[i : i + 2] @ theirs[i : i + 2].T
        single += [float(near[0, 0] > near[0, 1]), float(near[1, 1] > near[1, 0])]
        for result, x, y in ((pair, facts[0], facts[1]), (deep, deep_own, deep_theirs)):
            far = ((x[i : i + 2, None] - y[None, i : i + 2]) ** 2).sum(axis=2)
            result.append(float(far[0, 0] + far[1, 1] < far[0, 1] + far[1, 0]))
        tint.append(float((facts[0][i, :3] - facts[0][i + 1, :3]) @ (facts[1][i, :3] - facts[1][i + 1, :3]) > 0))
        owner.append(i)
    return {
        "right": interval(single, np.repeat(owner, 2).tolist()),
        "pair_right": interval(pair, owner),
        "pair_right_deep": interval(deep, owner),
        "colour_towards_reference": interval(tint, owner),
    }


def _unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def measure_text(model: Model, scenes: list[Scene], eye: Eye, count: int) -> dict[str, Any]:
    """Eight captions, all of the same form; kinds and colours differ. Chance is one in eight."""
    from flawsmith.methods.diffusion.tiles import resized

    painter, config, backbone = Procedural(), PretrainConfig(), model.backbone
    assert backbone is not None
    size = backbone.size
    shape = (backbone.latent_channels, size // backbone.factor, size // backbone.factor)
    looks = [("hole", "black"), ("stain", "red"), ("stain", "white"), ("spots", "dark"), ("stain", "blue"),
             ("scratch", "bright"), ("crack", "dark"), ("fibre", "white"), ("dent", ""), ("stain", "rusty"),
             ("spots", "red"), ("chip", "bright"), ("discolouration", "yellow")]  # fmt: skip
    steps = (450, 600, 750, 850, 930)
    first, kinds_first, by_look = [], [], {}
    tried = 0
    while len(first) < count and tried < 4 * count:
        scene, rng = scenes[tried % len(scenes)], np.random.default_rng([tried, 15])
        kind, colour = looks[tried % len(looks)]
        tried += 1
        if colour in PIGMENTS and scene.is_grey:
            continue
        request = Request(scene.sample(), draw(FAMILY[kind], scene, rng), kind, says(kind, colour, tried), None, tried)
        sample = painter.generate([request])[0]
        if "rejected" in sample.info:
            continue
        others = [one for one in looks if one != (kind, colour)]
        candidates = [(kind, colour), *(others[i] for i in rng.permutation(len(others))[:7])]
        view = compose.square_window(sample.mask, size, 1.5)
        image, mask = resized(sample.image, sample.mask, view, size)
        clean, _ = resized(scene.image, sample.mask, view, size)
        texts = [says(k, c, tried) for k, c in candidates]
        losses = np.zeros(8)
        for step in steps:
            noise = draw_noise([tried * 1000 + step], shape).expand(8, -1, -1, -1)
            batch = Batch(*(np.stack([a] * 8) for a in (image, clean, mask)), captions=texts, references=[None] * 8)
            with torch.no_grad():
                losses += batch_loss(backbone, batch, torch.full((8,), step), noise, config).numpy()
        best = int(losses.argmin())
        first.append(float(best == 0))
        kinds_first.append(float(candidates[best][0] == kind))
        by_look.setdefault(f"{colour} {kind}".strip(), []).append(first[-1])
    return {
        "top1": interval(first, range(len(first))),
        "kind_right": interval(kinds_first, range(len(first))),
        "chance": 1 / 8,
        "by_look": {name: [round(float(np.mean(v)), 2), len(v)] for name, v in sorted(by_look.items())},
    }


PARTS: dict[str, tuple[Callable[[Model, list[Scene], Eye, int], dict[str, Any]], int]] = {
    "mask": (measure_mask, 120),
    "colour": (measure_colour, 240),
    "type": (measure_type, 240),
    "reference": (measure_reference, 200),
    "text": (measure_text, 120),
}


def report(results: dict[str, dict[str, Any]]) -> str:
    """One line for each figure that has a bar, with the figures that explain it."""

    def shown(part: dict[str, Any]) -> str:
        spread = f" [{part['low']:.1%}, {part['high']:.1%}]" if "low" in part else ""
        return f"{part['value']:.1%}{spread} of {part['n']}"

    rows = []
    if found := results.get("mask"):
        met = "met" if found["change_label_iou"] >= 0.9 else "missed"
        rows.append(
            f"mask: change/label IoU {found['change_label_iou']:.3f} (bar 0.9: {met}), label/asked IoU "
            f"{found['label_asked_iou']:.3f}, moved with the mask {found['moved']:.1%}, nothing changed in "
            f"{found['nothing_changed']} of {found['requests']}"
        )
    for name in ("colour", "type"):
        if found := results.get(name):
            met = "met" if found["right"]["value"] >= 0.85 else "missed"
            rows.append(f"{name} word: {shown(found['right'])} right (bar 85 %: {met})")
    if found := results.get("colour"):
        rows.append(
            f"  within 60 degrees of the named direction {shown(found['within_60_degrees'])}; a word against none "
            f"{shown(found['word_against_no_word'])}; by word {found['by_word']}"
        )
    if found := results.get("type"):
        for family in KINDS:
            part = found[family]
            rows.append(
                f"  masks {family}: {shown(part['right'])}; the probe on painted pairs "
                f"{shown(part['ceiling']['right'])}, accuracy {part['probe_accuracy']:.1%} of {part['classes']} kinds; "
                f"by pair {part['by_pair']}"
            )
    if found := results.get("reference"):
        rows.append(
            f"reference: nearer to its own {shown(found['right'])}, pairs {shown(found['pair_right'])} "
            f"({shown(found['pair_right_deep'])} by the frozen network), colour towards it "
            f"{shown(found['colour_towards_reference'])}"
        )
    if found := results.get("text"):
        rows.append(
            f"text: own caption of eight first {shown(found['top1'])} (chance 12.5 %), kind "
            f"{shown(found['kind_right'])}; by look {found['by_look']}"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="compact", help="compact, a folder in diffusers format, or a hub id")
    parser.add_argument("--method", choices=["inpaint", "procedural", "copypaste"], default="inpaint")
    parser.add_argument("--features", required=True, help="folder or hub id of a vision model, or compact (smoke)")
    parser.add_argument("--data", type=Path, help="folder of data sets whose good photographs join the textures")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="default: all the method can do")
    parser.add_argument(
        "--share", type=float, default=1.0, help="less for a quick look: 0.2 makes a fifth of the pairs"
    )
    parser.add_argument("--options", default="{}", help="JSON: options of the method, for example guidance_scale")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model, eye = Model(args.method, args.backbone, json.loads(args.options)), Eye(args.features)
    scenes = photographs(args.data, args.seed)
    settings = {
        "backbone": fingerprint(model.backbone) if model.backbone else args.method,
        "extractor": eye.extractor.describe(),
        "options": model.method.options.model_dump(mode="json"),
        "scenes": {name: sum(s.name == name for s in scenes) for name in sorted({s.name for s in scenes})},
        "share": args.share,
        "seed": args.seed,
    }
    results = {}
    for name in args.parts or model.parts:
        file = args.out / f"{name}.json"
        stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if stored.get("settings") != json.loads(json.dumps(settings)):
            measure, count = PARTS[name]
            started = time.perf_counter()
            stored = {"settings": settings, **measure(model, scenes, eye, max(8, round(count * args.share)))}
            stored["seconds"] = round(time.perf_counter() - started, 1)
            images.write_bytes(file, (json.dumps(stored, indent=1) + "\n").encode())
            print(f"{name}: {stored['seconds']} s", flush=True)
        results[name] = stored
    print(report(results))


if __name__ == "__main__":
    main()
