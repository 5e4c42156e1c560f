"""The judge of images: copies look like copies, noise is far, types are kept apart, words are matched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import fakes  # noqa: E402
import tiny_clip  # noqa: E402
from flawsmith import datasets  # noqa: E402
from flawsmith.comparison import anchors  # noqa: E402
from flawsmith.config import GenerateConfig  # noqa: E402
from flawsmith.evaluation import features  # noqa: E402
from flawsmith.evaluation import judge as judging  # noqa: E402
from flawsmith.evaluation.judge import Judge  # noqa: E402
from flawsmith.generation import run as generation  # noqa: E402
from flawsmith.records import Sample  # noqa: E402


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> features.Extractor:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "mobilenet"
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(depth_multiplier=0.1, image_size=64, num_labels=4, initializer_range=0.3)
    transformers.MobileNetV2ForImageClassification(config).save_pretrained(folder)
    return features.load(folder)


def defect(kind: str, seed: int) -> Sample:
    return Sample(*fakes.with_defect(fakes.photo(seed, (72, 96)), kind, seed), "widget", kind, f"a {kind}")


def some(start: int, count: int = 8, kinds: tuple[str, ...] = ("crack", "hole")) -> list[Sample]:
    return [defect(kind, start + 100 * k + i) for k, kind in enumerate(kinds) for i in range(count)]


def table(values) -> dict:
    return {(one.key, one.type): one for one in values}


SUPPORT, REAL = some(0, 3), some(1000)


def test_every_value_is_named_counted_and_per_type(extractor: features.Extractor) -> None:
    found = table(Judge(extractor, SUPPORT, REAL).values(some(5000), "ours"))
    for region in ("whole", "window"):
        for name in ("KID", "FID", "IS", "precision", "coverage", "pairwise-FD", "IC-FD", "IC-FD@empty=0"):
            for kind, n in (("crack", 8), ("hole", 8), ("all", 16)):
                one = found[f"{name}/mobilenet/{region}", kind]
                assert (one.method, one.n_generated, one.n_real) == ("ours", n, n) and one.value is not None
    assert "dimensions" in found["FID/mobilenet/window", "crack"].reason
    assert found["KID/mobilenet/window", "crack"].settings == {"subsets": 100, "size": 4}
    assert found["nearest_ratio/mobilenet@96/defect", "crack"].settings["turns"] == 48
    assert found["CLIP_score/mobilenet/window", "all"].reason == "the extractor reads no words"


def test_real_defects_are_nearer_than_noise(extractor: features.Extractor) -> None:
    rng = np.random.default_rng(0)
    noise = [Sample(rng.integers(0, 256, (72, 96, 3), dtype=np.uint8), s.mask, "w", s.defect_type) for s in some(5000)]
    judge = Judge(extractor, SUPPORT, REAL, ["kid"])
    own, other = (table(judge.values(made)) for made in (some(5000), noise))
    for region in ("whole", "window"):
        key = f"KID/mobilenet/{region}", "all"
        assert own[key].value < 0.2 * other[key].value


def test_copies_of_the_training_defects_are_found(extractor: features.Extractor) -> None:
    judge = Judge(extractor, SUPPORT, REAL, ["copies", "ic-lpips"])
    turned = [Sample(s.image[:, ::-1].copy(), s.mask[:, ::-1].copy(), "w", s.defect_type) for s in SUPPORT]
    copied, fresh = table(judge.values(turned)), table(judge.values(some(5000)))
    ratio, share = "nearest_ratio/mobilenet@96/defect", "near_copies/mobilenet@96/defect"
    assert copied[ratio, "all"].value < 0.05 and copied[share, "all"].value == 1
    assert fresh[ratio, "all"].value > 0.4
    same = table(judge.values(SUPPORT[:1] * 5))
    assert same["IC-FD/mobilenet/window", "crack"].value == 0 and same["pairwise-FD/mobilenet/whole", "all"].value == 0


def test_a_method_without_the_types_is_judged_pooled(extractor: features.Extractor) -> None:
    found = Judge(extractor, SUPPORT, REAL, ["kid"]).values([defect("perlin", i) for i in range(4)])
    assert {one.type for one in found} == {"all"}


def test_too_few_is_said_not_guessed(extractor: features.Extractor) -> None:
    found = table(Judge(extractor, [], REAL).values([defect("crack", 1)]))
    for name in ("KID", "FID", "precision", "IC-FD", "pairwise-FD"):
        one = found[f"{name}/mobilenet/window", "crack"]
        assert one.value is None and one.reason
    assert found["near_copies/mobilenet@96/defect", "all"].value is None


def test_spaced_takes_the_ends_and_no_more(extractor: features.Extractor) -> None:
    assert judging.spaced(10, 4).tolist() == [0, 3, 6, 9] and judging.spaced(3, 9).tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> features.Extractor:
    """A tiny CLIP with a tokenizer of single letters."""
    return features.load(tiny_clip.write(tmp_path_factory.mktemp("models") / "clip"))


def test_agreement_is_the_model_s_own_cosine(clip: features.Extractor) -> None:
    images, words = [fakes.photo(1), fakes.photo(2)], ["a crack", "hole", "spot"]
    found = clip.agreement(images, words)
    assert clip.joint is not None
    model, tokenizer = clip.joint
    tokens = tokenizer(words, padding=True, return_tensors="pt")
    own = model(pixel_values=clip._batch(images), **tokens)
    expected = own.logits_per_image / model.logit_scale.exp()
    assert found == pytest.approx(expected.detach().numpy(), abs=1e-5)
    assert clip.at(96) is clip  # a patch model takes one size only


def test_clip_score_and_retrieval_by_hand(clip: features.Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    cosines = np.array([[0.3, 0.1], [0.2, 0.25], [0.1, 0.4], [0.1, 0.2]])  # crack, crack, hole, hole
    monkeypatch.setattr(clip, "agreement", lambda images, words: cosines)
    made = [defect("crack", 1), defect("crack", 2), defect("hole", 3), defect("hole", 4)]
    found = table(Judge(clip, [], REAL[:2], ["clip"]).values(made))
    assert found["CLIP_score/clip/window", "crack"].value == pytest.approx(25)
    assert found["caption_retrieval/clip/window", "crack"].value == 0.5
    assert found["caption_retrieval/clip/window", "all"].value == 0.75
    assert found["caption_retrieval/clip/window", "all"].settings["chance"] == 0.5


def test_a_record_is_read_when_it_is_looked_at(extractor: features.Extractor, tmp_path: Path) -> None:
    folder = fakes.mvtec_tree(tmp_path, good=1, defects={"crack": 3}, size=(72, 96))
    records = [r for r in datasets.read("mvtec_ad", folder) if not r.is_good]
    judge = Judge(extractor, SUPPORT, REAL, ["kid"])
    assert table(judge.values(records)).keys() == table(judge.values([r.load() for r in records])).keys()
    for a, b in zip(judge.values(records), judge.values([r.load() for r in records]), strict=True):
        assert a == b


def test_held_out_defects_are_near_each_other_and_parts_stay_whole(extractor: features.Extractor) -> None:
    judge = Judge(extractor, [], REAL, ["kid", "ic-lpips"])
    found = table(anchors.held_out(judge, [f"part {i}" for i in range(len(REAL))]))
    own = found["KID/mobilenet/window", "all"]
    assert abs(own.value) < own.spread and own.n_real == len(REAL)  # around zero, as often below as above
    assert found["pairwise-FD/mobilenet/window", "crack"].value > 0
    alone = table(anchors.held_out(judge, ["one part"] * len(REAL)))["KID/mobilenet/window", "all"]
    assert alone.value is None and "too few" in alone.reason


def test_untouched_photographs_carry_the_labels_and_no_paint(tmp_path: Path) -> None:
    data = fakes.mvtec_tree(tmp_path / "data", good=4, defects={"crack": 6}, size=(72, 96))
    generation.run(GenerateConfig(method="copypaste", normal=f"mvtec_ad:{data}", out=tmp_path / "out", n=3))
    found = anchors.untouched(tmp_path / "out", [data])
    photographs = {r.load().image.tobytes() for r in datasets.read("mvtec_ad", data) if r.is_good}
    assert len(found) == 3 and all(s.mask.any() and s.image.tobytes() in photographs for s in found)
