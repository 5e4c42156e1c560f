"""Captions: what is said can be read back, and what people type is understood."""

from __future__ import annotations

import numpy as np
import pytest

from flawsmith import captions
from flawsmith.captions import Attributes, describe, parse
from flawsmith.errors import FlawsmithError


@pytest.mark.parametrize("kind", captions.KINDS)
def test_described_is_parsed_back(kind: str) -> None:
    rng = np.random.default_rng(0)
    for colour in ["", *captions.COLOURS]:
        for severity in ["", *captions.SEVERITIES]:
            size = str(rng.choice(["", *captions.SIZES]))
            shape = str(rng.choice(["", *captions.SHAPES]))
            said = Attributes(kind, colour, size, shape, severity)
            text = describe(said, "metal_nut", rng)
            assert parse(text, "metal_nut") == said, text
            assert "metal nut" in text.lower() and text.endswith(".") and text[0].isupper() and "  " not in text


def test_category_words_are_not_read_as_the_defect() -> None:
    rng = np.random.default_rng(1)
    for seed in range(40):
        text = describe(Attributes("stain", "blue"), "orange_juice_bottle", np.random.default_rng(seed))
        assert parse(text, "orange_juice_bottle").colour == "blue", text
    assert parse("A photo of a cracked tile with a hole.", "cracked tile").kind == "hole"
    assert describe(Attributes("dent"), "", rng)


def test_wording_varies_and_is_seeded() -> None:
    said = Attributes("scratch", "rusty", "long", "thin", "strong")
    texts = {describe(said, "cookie", np.random.default_rng(seed)) for seed in range(60)}
    assert len(texts) > 20
    assert describe(said, "cookie", np.random.default_rng(5)) == describe(said, "cookie", np.random.default_rng(5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("long thin rusty scratch", Attributes("scratch", "rusty", "long", "thin", "")),
        ("Photo of a metal surface with a deep black hole.", Attributes("hole", "black", "", "", "strong")),
        ("a barely visible grey-ish Smudge", Attributes("stain", "grey", "", "", "faint")),
        ("tiny white specks on the lens", Attributes("spots", "white", "tiny", "", "")),
        ("a blue thread", Attributes("fibre", "blue", "", "", "")),
        ("there is some rust", Attributes("stain", "rusty", "", "", "")),
        ("heat tint", Attributes("discolouration", "", "", "", "")),
        ("reddish-brown blotch", Attributes("stain", "rusty", "", "", "")),
        ("nothing to see here", Attributes()),
        ("A photo of a bottle without defects.", Attributes()),
        ("", Attributes()),
    ],
)
def test_people_s_words(text: str, expected: Attributes) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("blowhole", "hole"), ("pin_hole", "hole"), ("pitting", "spots"), ("broken_large", "chip"), ("break", "chip"),
        ("contamination", "stain"), ("bent_lead", "bend"), ("misplaced", "bend"), ("damaged_case", "chip"),
        ("missing_wire", "missing_part"), ("uneven", "discolouration"), ("scratch_head", "scratch"),
        ("oil", "stain"), ("thread", "fibre"), ("missing_part", "missing_part"), ("pothole", "hole"),
    ],
)  # fmt: skip
def test_folder_names_of_public_sets(folder: str, kind: str) -> None:
    assert captions.kinds_of(folder)[0] == kind


def test_unknown_names_and_words() -> None:
    assert captions.kinds_of("xyzzy") == ()
    with pytest.raises(FlawsmithError, match="known: bend, chip"):
        describe(Attributes("crak"), "cookie", np.random.default_rng(0))
    with pytest.raises(FlawsmithError, match="known: black"):
        describe(Attributes("crack", "mauve"), "cookie", np.random.default_rng(0))


def test_plain_sentences() -> None:
    assert captions.sentence("metal_nut", "good") == "A photo of a metal nut without defects."
    assert captions.sentence("bottle", "broken_large") == "A photo of a bottle with a defect: broken large."
    assert captions.article("orange") == "an orange" and captions.words("a_b-c") == "a b c"
    assert [captions.level(s) for s in (0.1, 0.5, 0.9)] == ["faint", "", "strong"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The left cable is missing.", "missing"),
        ("one almond too many", "extra"),
        ("cable_swap: two cables are swapped", "swapped"),
        ("a resistor of the wrong colour", "wrong_colour"),
        ("missing_wire", "missing"),
        ("a long thin scratch", None),
        ("A photo of a bottle without defects.", None),
    ],
)
def test_logical_changes_are_recognised(text: str, kind: str | None) -> None:
    assert captions.logical(text) == kind


@pytest.mark.parametrize(("category", "thing"), [("good", "product"), ("", "product"), ("metal_nut", "metal nut")])
def test_a_folder_called_good_names_no_product(category: str, thing: str) -> None:
    assert captions.sentence(category, "crack") == f"A photo of a {thing} with a defect: crack."
    said = captions.describe(captions.Attributes("crack"), category, np.random.default_rng(0))
    assert thing in said and "good" not in said
