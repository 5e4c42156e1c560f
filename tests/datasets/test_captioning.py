"""Captions of a data set: attributes in closed form, tables that survive editing, refusals that lose nothing."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes
import fakes_annotated as painted
from flawsmith import datasets
from flawsmith.captions import parse
from flawsmith.captions.measured import caption, measure
from flawsmith.datasets import caption_table, captioning
from flawsmith.datasets.check import check
from flawsmith.errors import FlawsmithError
from flawsmith.records import Sample


def surface(grey: int | tuple[int, int, int] = 120, size=(200, 300)) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 2, (*size, 1))
    return np.clip(np.full((*size, 3), grey) + noise, 0, 255).astype(np.uint8)


def marked(draw, colour=(60, 60, 60), grey=120, kind="flaw", size=(200, 300)) -> Sample:
    """A surface with what `draw` draws on a mask painted in a colour."""
    mask = np.zeros(size, dtype=np.uint8)
    draw(mask)
    image = surface(grey, size)
    image[mask > 0] = colour
    return Sample(image, mask > 0, "tile", kind)


def disc(x=150, y=100, radius=20):
    return lambda mask: cv2.circle(mask, (x, y), radius, 1, -1)


@pytest.mark.parametrize(
    ("draw", "size", "shape"),
    [
        (disc(radius=2), "tiny", ""),
        (disc(radius=7), "small", "round"),
        (disc(radius=20), "", "round"),
        (disc(radius=60), "large", "round"),
        (lambda m: cv2.line(m, (20, 100), (220, 130), 1, 3), "", "thin"),
        (lambda m: cv2.rectangle(m, (40, 80), (180, 110), 1, -1), "large", "elongated"),
        (lambda m: cv2.rectangle(m, (100, 80), (135, 110), 1, -1), "", ""),
        (lambda m: (cv2.line(m, (90, 60), (190, 140), 1, 5), cv2.line(m, (190, 60), (90, 140), 1, 5)), "", "irregular"),
    ],
)
def test_size_and_shape(draw, size, shape):
    found = measure(marked(draw)).attributes
    assert (found.size, found.shape) == (size, shape)


@pytest.mark.parametrize(
    ("colour", "ground", "word"),
    [
        ((70, 70, 70), 120, "dark"),
        ((10, 10, 10), 120, "black"),
        ((170, 170, 170), 120, "bright"),
        ((240, 240, 240), 120, "white"),
        ((200, 40, 35), 120, "red"),
        ((235, 130, 30), 120, "orange"),
        ((240, 205, 45), 120, "yellow"),
        ((50, 130, 55), 120, "green"),
        ((40, 75, 185), 120, "blue"),
        ((115, 50, 150), 120, "purple"),
        ((100, 65, 35), 150, "brown"),
        ((80, 50, 30), (140, 90, 50), "dark"),  # a darker shade of what is around it
        ((120, 120, 120), 120, ""),
    ],
)
def test_colours_are_named_against_the_surroundings(colour, ground, word):
    assert measure(marked(disc(), colour, ground)).attributes.colour == word


@pytest.mark.parametrize(("x", "y", "place"), [(30, 20, "in the upper left"), (150, 100, "in the centre"),
                                               (270, 100, "on the right"), (150, 180, "at the bottom")])  # fmt: skip
def test_place_and_number(x, y, place):
    sample = marked(lambda m: (disc(x, y, 10)(m), disc(60, 150, 7)(m), disc(200, 60, 1)(m)))
    found = measure(sample)
    assert found.place == place and found.count == 2  # the third is a speck beside the largest
    assert caption(sample).endswith(f"with a defect: flaw, 2 small round dark areas, the largest {place}.")


def test_contrast_is_said_only_where_it_can_be_told():
    assert measure(marked(disc(), (128, 128, 128))).attributes.severity == "faint"
    assert measure(marked(disc(), (90, 90, 90))).attributes.severity == ""
    assert measure(marked(disc(), (10, 10, 10), 200)).attributes.severity == "strong"
    lively = marked(disc(), (128, 128, 128))
    lively.image[::2] = np.where(lively.mask[::2, :, None], lively.image[::2], 60)
    assert measure(lively).attributes.severity != "faint"
    half = marked(disc(), (40, 40, 40))
    half.image[(half.mask) & (np.arange(300) > 150)] = 200  # dark on one side, bright on the other: not faint
    assert measure(half).attributes.severity != "faint"


@given(st.integers(0, 2**31), st.sampled_from(["flaw", "odd_thing"]))
@settings(max_examples=60, deadline=None)
def test_what_is_said_is_parsed_back_and_spans_every_mask(seed, kind):
    rng = np.random.default_rng(seed)
    mask = rng.random((rng.integers(1, 30), rng.integers(1, 30))) < rng.uniform(0.02, 1)
    mask.flat[rng.integers(mask.size)] = True
    sample = Sample(rng.integers(0, 256, (*mask.shape, 3)).astype(np.uint8), mask, "tile", kind)
    said, found = caption(sample), measure(sample)
    assert parse(said, "tile") == found.attributes
    assert said.startswith(f"A photo of a tile with a defect: {kind.replace('_', ' ')}, ") and "  " not in said


def test_the_name_of_the_type_is_not_repeated_and_good_parts_are_good():
    small = marked(disc(radius=60), kind="broken_small")
    assert "large" not in caption(small) and ", a round dark area" in caption(small)
    good = Sample(surface(), np.zeros((200, 300), dtype=bool), "tile")
    assert caption(good) == "A photo of a tile without defects."


@pytest.fixture
def bare(tmp_path):
    """Six defects without captions, two types."""
    folder = fakes.mvtec_tree(tmp_path / "set")
    for path in (folder / "prompt").rglob("*.txt"):
        path.unlink()
    return folder


def captions_of(folder):
    return {record.name: record.caption for record in datasets.read_source(folder) if record.caption}


@pytest.mark.parametrize("name", ["captions.csv", "captions.jsonl"])
def test_editing_round_trip(bare, run, name):
    table = bare / name
    code, shown, _ = run("captions", bare)
    assert code == 0 and "Nothing is written" in shown and not captions_of(bare) and not table.exists()
    assert run("captions", bare, "--out", table)[0] == 0
    told = captions_of(bare)
    assert len(told) == 6 and all("widget with a defect" in text for text in told.values())
    before = table.read_bytes()
    assert run("captions", bare, "--out", table)[0] == 0 and table.read_bytes() == before
    lines = before.decode().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if "test/crack/001.png" in line)
    lines[place] = lines[place].replace(told["test/crack/001.png"], "A crack, seen by Ada.")
    table.write_text("".join(line for line in lines if "test/hole/002.png" not in line))  # one is lost
    assert captions_of(bare)["test/crack/001.png"] == "A crack, seen by Ada." and len(captions_of(bare)) == 5
    assert run("captions", bare, "--out", table)[0] == 0
    assert captions_of(bare) == {**told, "test/crack/001.png": "A crack, seen by Ada."}
    assert run("captions", bare, "--out", table, "--anew")[0] == 0 and table.read_bytes() == before
    assert not [one for one in check(bare).findings if "caption" in one.kind]


def test_own_captions_stay_and_tables_of_other_tools_are_taken(tmp_path, run):
    folder = fakes.mvtec_tree(tmp_path / "set")
    own = captions_of(folder)
    given = tmp_path / "theirs.csv"
    given.write_text("image_path;text\n./test/crack/000.png;Seen   twice.\nhole/001.png;By its end.\n")
    assert run("captions", folder, "--from", given, "--out", tmp_path / "all.jsonl")[0] == 0
    rows = {row["file"]: row for row in map(json.loads, (tmp_path / "all.jsonl").read_text().splitlines())}
    expected = {**own, "test/crack/000.png": "Seen twice.", "test/hole/001.png": "By its end."}
    assert {name: row["caption"] for name, row in rows.items()} == expected
    assert rows["test/hole/001.png"]["defect_type"] == "hole" and captions_of(folder) == own


def test_lines_about_images_that_are_gone_are_found_by_check(bare):
    fakes.write(bare / "captions.csv", "file,caption\ntest/hole/000.png,A hole.\ntest/hole/099.png,Gone.\n")
    found = {one.kind: one for one in check(bare).findings}["caption-absent"]
    assert (found.file, found.severity) == ("captions.csv", "warning") and "test/hole/099.png" in found.reason


@pytest.mark.parametrize("reader", ["coco", "yolo", "voc", "labelme"])
def test_annotated_sets_read_the_table_too(tmp_path, reader):
    paint = {"coco": painted.coco_tree, "yolo": painted.yolo_tree, "voc": painted.voc_tree,
             "labelme": painted.labelme_tree}[reader]  # fmt: skip
    paint(tmp_path)
    captioning.write_captions(datasets.read(reader, tmp_path), tmp_path / "captions.csv")
    told = {record.image.stem: record.caption for record in datasets.read_source(tmp_path)}
    assert told["good"] == "" and ": hole, " in told["hole"] and ": combined, 2 " in told["both"]


def test_tables_of_categories_stand_in_their_folders(tmp_path):
    fakes.mvtec_tree(tmp_path, category="gear")
    fakes.mvtec_tree(tmp_path, category="bolt")
    fakes.write(tmp_path / "bolt/captions.csv", "file,caption\ntest/hole/000.png,A bolt's hole.\n")
    told = captions_of(tmp_path)
    assert told["bolt/test/hole/000.png"] == "A bolt's hole." != told["gear/test/hole/000.png"]


REFUSED = {
    "no column": ("file,words\na,b\n", r"captions\.csv has the columns"),
    "twice": ("file,caption\na.png,x\na.png,y\n", r"line 3 describes a\.png, and so does .*line 2"),
    "no file": ("file,caption\n,x\n", r"line 2 names no image"),
    "no text": (b"file,caption\n\xff\xfe,x\n", r"captions\.csv cannot be read"),
    "comma": ("file,caption\ntest/hole/000.png,A hole, small.\n", r"line 2, has not the 2 columns .* quotation marks"),
    "short": ("file,category,caption\ntest/hole/000.png,A hole.\n", r"line 2, has not the 3 columns"),
    "quotes": ('file,caption\n"a' + "x" * 140_000 + '",y\n', r"captions\.csv, line .* is no CSV"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_damaged_tables_are_refused_by_file_and_line(bare, run, case):
    content, message = REFUSED[case]
    fakes.write(bare / "captions.csv", content)
    with pytest.raises(FlawsmithError, match=message):
        datasets.read_source(bare)
    code, _, err = run("captions", bare)
    assert code == 2 and "captions.csv" in err and "Traceback" not in err


@pytest.mark.parametrize("line", ["{", "[]", "7", '{"file": 3, "caption": "x"}', '{"file": "a", "caption": ["x"]}'])
def test_damaged_lines_of_jsonl(bare, line):
    fakes.write(bare / "captions.jsonl", '{"file": "test/hole/000.png", "caption": "x"}\n' + line + "\n")
    with pytest.raises(FlawsmithError, match=r"captions\.jsonl, line 2"):
        datasets.read_source(bare)


def test_nothing_foreign_is_overwritten_or_lost(bare, tmp_path, run):
    fakes.write(tmp_path / "list.csv", "name,price\na,3\n")
    fakes.write(tmp_path / "others.csv", "file,caption\ntest/dent/000.png,Of another set.\n")
    for name, message in (
        ("list.csv", "needs one of"),
        ("others.csv", "would be lost"),
        ("x.txt", "no .csv or .jsonl"),
    ):
        code, _, err = run("captions", bare, "--out", tmp_path / name)
        assert code == 2 and message in err, err
    assert (tmp_path / "list.csv").read_text() == "name,price\na,3\n" and not (tmp_path / "x.txt").exists()
    code, _, err = run("captions", bare, "--from", "Construct_MVTEC-AD-Caption.py")
    assert code == 2 and "mvtec_caption.build_prompts" in err
    code, _, err = run("captions", bare, "--from", tmp_path / "others.csv", "--out", tmp_path / "new.csv")
    assert code == 2 and "others.csv, line 2 names 'test/dent/000.png'" in err and not (tmp_path / "new.csv").exists()


def test_a_stopped_description_keeps_what_it_has(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(captioning, "EVERY", 2)
    seen = []

    def describe(sample):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(sample)
        return f"Caption {len(seen)}, with a comma."

    records = datasets.read_source(bare)
    with pytest.raises(KeyboardInterrupt):
        captioning.write_captions(records, tmp_path / "out.csv", describe=describe)
    with open(tmp_path / "out.csv") as file:
        assert [row["caption"] for row in csv.DictReader(file)] == [f"Caption {n}, with a comma." for n in range(1, 5)]
    found = captioning.write_captions(records, tmp_path / "out.csv", describe=lambda sample: "The rest.")
    assert [one.record.caption for one in found][4:] == ["The rest."] * 2 and found[0].source == captioning.TABLE


def test_the_sheet_shows_them(bare, tmp_path, run):
    assert run("captions", bare, "--sheet", tmp_path / "sheet.png", "-n", 3)[0] == 0
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_a_match_by_the_end_needs_to_be_the_only_one(bare):
    records = datasets.read_source(bare)
    lines = [caption_table.Line("x", "000.png", "a"), caption_table.Line("y", "crack/000.png", "b")]
    found, lost = caption_table.match(lines, records, bare)
    assert [path.parent.name for path in found] == ["crack"] and lost == lines[:1]


def test_a_model_of_a_folder_describes(bare, tmp_path, run):
    pytest.importorskip("transformers")
    folder = painted_blip(tmp_path / "blip")
    for _ in range(2):
        code, _, err = run("captions", bare, "--model", folder, "--out", tmp_path / "out.csv", "--anew")
        assert code == 0, err
        with open(tmp_path / "out.csv") as file:
            said = [row["caption"] for row in csv.DictReader(file)]
        assert len(said) == 6 and all(text[0].isupper() and text.endswith(".") for text in said)
        assert set(" ".join(said).lower().replace(".", "").split()) <= set(WORDS)
    code, _, err = run("captions", bare, "--model", bare)
    assert code == 2 and "holds no config.json" in err
    (folder / "config.json").write_text('{"model_type": "bert"}')
    code, _, err = run("captions", bare, "--model", folder)
    assert code == 2 and "no image-to-text model" in err


WORDS = ("a", "photo", "of", "dark", "scratch", "tile")


def painted_blip(folder):
    """BLIP with few random weights: says random words, as the real one says true ones."""
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor

    pil = pytest.importorskip("transformers.models.blip.image_processing_pil_blip").BlipImageProcessorPil
    folder.mkdir()
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": 0, "sep_token_id": 3}
    text = {**small, **ids, "vocab_size": len(vocabulary), "encoder_hidden_size": 16, "max_position_embeddings": 128}
    torch.manual_seed(1)
    config = BlipConfig(
        text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16}, projection_dim=16
    )
    model = BlipForConditionalGeneration(config)
    head = model.text_decoder.cls.predictions
    for bias in (head.bias, head.decoder.bias):
        bias.data[len(vocabulary) - len(WORDS) :] = 9.0  # words, not marks
    model.save_pretrained(folder)
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = BertTokenizer(vocab=numbers, additional_special_tokens=["[DEC]"])
    BlipProcessor(pil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder
