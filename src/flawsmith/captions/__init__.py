"""Sentences about images: what a defect is called, how its parameters are said, and how they are read back.

`parse` and `describe` are the two directions of one small vocabulary: what `describe` says, `parse` understands, so
that a caption written by `procedural` and one typed by a person mean the same thing to every method.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from flawsmith.errors import unknown


def words(name: str) -> str:
    """A folder name as words: "broken_large" -> "broken large"."""
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def article(phrase: str) -> str:
    """The phrase with "a" or "an" in front."""
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


def product(category: str) -> str:
    """A category as words; "product" where it names none, as does a folder of photographs called "good"."""
    return "product" if category.lower() == "good" else words(category) or "product"


def sentence(category: str, defect_type: str) -> str:
    """A plain caption: "A photo of a bottle with a defect: broken large."; without a type of the product alone."""
    thing = product(category)
    if not defect_type:
        return f"A photo of {article(thing)}."
    if defect_type == "good":
        return f"A photo of {article(thing)} without defects."
    return f"A photo of {article(thing)} with a defect: {words(defect_type)}."


def together(category: str, defect_types: Sequence[str], said: Sequence[str]) -> str:
    """A caption of an image with several defects, of their types and of what is `said` of each.

    Where nothing but the plain captions is said: "A photo of a tile with 3 defects: crack, hole and hole."
    """
    if any(text != sentence(category, kind) for text, kind in zip(said, defect_types, strict=True)):
        return " ".join(dict.fromkeys(text.strip() for text in said if text.strip()))
    names = [words(kind) for kind in defect_types]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return f"A photo of {article(product(category))} with {len(names)} defects: {listed}."


# -- logical changes ------------------------------------------------------------------------------------------------

# What happens to a whole component, and how it is said.
LOGICAL: dict[str, str] = {
    "wrong_colour": r"wrong(ly)? colou?r(ed)?|colou?r (is )?wrong|different colou?r|other colou?r",
    "swapped": r"swapp?ed|exchanged|switched|mixed up|wrong (place|position|order|side)|misplaced|interchanged",
    "extra": r"extra|additional|surplus|one more|too many|two instead|superfluous",
    "missing": r"missing|absent|gone|lacks?|lacking|without|left out|empty",
}


def logical(text: str) -> str | None:
    """What a caption or a defect's name says of a whole component: a key of LOGICAL, or None."""
    said = words(text).lower()
    if "without defect" in said or "without any" in said:
        return None
    return next((kind for kind, pattern in LOGICAL.items() if re.search(rf"\b(?:{pattern})\b", said)), None)


# -- the vocabulary ------------------------------------------------------------------------------------------------

# What each kind may be called. "{}" marks where the adjectives go; a trailing "+" marks a plural (no article).
KINDS: dict[str, tuple[str, ...]] = {
    "scratch": ("{} scratch", "{} scratch", "{} scrape", "{} scratch mark", "{} score mark"),
    "crack": ("{} crack", "{} crack", "{} fracture", "{} fissure"),
    "dent": ("{} dent", "{} dent", "{} dimple", "{} depression"),
    "hole": ("{} hole", "{} hole", "{} cavity", "{} puncture"),
    "chip": ("{} chip", "{} chip", "{} chipped area", "{} nick", "{} broken-out spot"),
    "stain": ("{} stain", "{} stain", "{} blotch", "{} smear"),
    "spots": ("cluster of {} spots", "{} spots+", "{} specks+", "group of {} dots"),
    "fibre": ("{} fibre", "{} thread", "{} hair", "{} strand of fibre"),
    "discolouration": ("{} discolouration", "{} discoloration", "{} discoloured area"),
    "missing_part": ("{} missing part", "{} missing piece", "{} missing section"),
    "bend": ("{} bend", "{} bent area", "{} deformation", "{} kink"),
}

# Further words and folder names for a kind. Where several kinds fit, the first is the likeliest.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "scratch|scratches|scratched|scratching|scrape|scrapes|scuff|scuffs|scuffed|scoring|score mark|score marks|gouge|"
    "gouges|groove|abrasion|abraded|cut|cuts|slit|stroke": ("scratch",),
    "crack|cracks|cracked|cracking|fracture|fractures|fractured|fissure|fissures|split|craze|crazing|rupture|tear|"
    "torn": ("crack",),
    "dent|dents|dented|dimple|dimples|depression|depressions|ding|dings|bump|bumps|bulge|indentation|imprint|squeeze|"
    "squeezed|crush|crushed": ("dent",),
    "hole|holes|cavity|cavities|blowhole|blowholes|blow hole|puncture|punctures|punctured|poke|pothole|potholes|"
    "pit|pore|void|voids|perforation|burn through": ("hole",),
    "pinhole|pinholes|pin hole|pin holes": ("hole", "spots"),
    "chip|chips|chipped|chipping|nick|nicks|broken out spot|broken edge|broken|break|breakage|breaks|flaking|flake|"
    "flakes|peeling|peel|spall|spalling|damaged|damage|fray|frayed|mousebite|mouse bite|rough": ("chip",),
    "stain|stains|stained|blotch|blotches|smear|smears|smudge|smudges|smudged|oil|liquid|splash|drip|drips|droplet|"
    "glue|grease|paint|ink|watermark|residue|mold|mould|spill|patch|rust|corrosion|corroded": ("stain",),
    "spots|spot|specks|speck|speckles|dots|dot|pitting|pits|pitted|particles|porosity|pores|pimples|freckles|"
    "inclusions|inclusion|blister|blisters|bubbles": ("spots",),
    "fibre|fibres|fiber|fibers|thread|threads|hair|hairs|strand|strands|lint|fuzz|string": ("fibre",),
    "contamination|contaminated|contaminant|dirt|dirty|foreign object|foreign material|foreign body": (
        "stain",
        "fibre",
    ),
    "discolouration|discoloration|discoloured|discolored|discolour|discolor|heat tint|tarnish|tarnished|faded|"
    "fading|uneven|unevenness|color|colour|burn|burnt|burn mark|scorch|scorched|shade": ("discolouration",),
    "missing part|missing parts|missing piece|missing section|missing|absent|lost|gone|open|incomplete": (
        "missing_part",
    ),
    "bend|bends|bent|kink|kinks|kinked|deformation|deformed|warp|warped|distorted|distortion|misplaced|shifted|"
    "misaligned|twisted|fold|folded|wrinkle|wrinkled|crease|creased|dislocated": ("bend",),
}

# Colours by canonical name -> the ways to say them; the first few are the ones `describe` uses.
COLOURS: dict[str, tuple[str, ...]] = {
    "black": ("black", "jet-black", "blackish", "pitch black", "blackened"),
    "dark": ("dark", "dark-toned", "darkened", "darker"),
    "grey": ("grey", "gray", "greyish", "grayish", "ashen"),
    "white": ("white", "whitish", "milky", "chalky"),
    "bright": ("bright", "light-coloured", "shiny", "light-colored", "silvery", "pale", "glossy", "brighter"),
    "brown": ("brown", "brownish", "tan"),
    "rusty": ("rusty", "red-brown", "rust-coloured", "rust-colored", "reddish brown", "reddish-brown", "rusted"),
    "red": ("red", "reddish", "crimson", "scarlet"),
    "orange": ("orange", "orangey", "amber"),
    "yellow": ("yellow", "yellowish", "golden"),
    "green": ("green", "greenish"),
    "blue": ("blue", "bluish", "navy"),
    "purple": ("purple", "violet", "purplish"),
}

SEVERITIES: dict[str, tuple[str, ...]] = {
    "faint": ("faint", "slight", "subtle", "barely visible", "minor", "shallow", "weak", "hardly visible", "mild"),
    "strong": (
        "strong",
        "pronounced",
        "severe",
        "deep",
        "heavy",
        "marked",
        "intense",
        "obvious",
        "clearly visible",
        "extreme",
    ),
}
_DEPTH_KINDS = {"scratch", "crack", "dent", "hole", "chip"}  # what can be deep or shallow

SIZES: dict[str, tuple[str, ...]] = {
    "tiny": ("tiny", "very small", "minute", "pinpoint"),
    "small": ("small", "little"),
    "large": ("large", "big", "extensive", "huge"),
    "short": ("short",),
    "long": ("long",),
}
SHAPES: dict[str, tuple[str, ...]] = {
    "thin": ("thin", "narrow", "fine", "hairline"),
    "wide": ("wide", "broad", "thick"),
    "round": ("round", "circular"),
    "elongated": ("elongated", "oblong"),
    "irregular": ("irregular", "ragged", "irregularly shaped"),
}
_SAID = {"colour": 2, "size": 1, "shape": 2}  # how many ways of each `describe` uses


@dataclass(frozen=True)
class Attributes:
    """A defect in words; "" where nothing is said.

    kind: a key of KINDS; colour: of COLOURS; size: of SIZES; shape: of SHAPES; severity: of SEVERITIES.
    """

    kind: str = ""
    colour: str = ""
    size: str = ""
    shape: str = ""
    severity: str = ""


def level(severity: float) -> str:
    """The word for a severity in 0..1: "faint" below 0.3, "strong" above 0.7, "" between."""
    return "faint" if severity < 0.3 else "strong" if severity > 0.7 else ""


# -- reading -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _finder(table: str) -> tuple[re.Pattern[str], dict[str, str]]:
    """One pattern for a whole table (longest phrase first) and phrase -> canonical name."""
    meaning: dict[str, str] = {}
    if table == "kind":
        for phrases, kinds in SYNONYMS.items():
            meaning.update(dict.fromkeys(phrases.split("|"), kinds[0]))
    else:
        source = {"colour": COLOURS, "severity": SEVERITIES, "size": SIZES, "shape": SHAPES}[table]
        for name, phrases_of in source.items():
            meaning.update({words(phrase): name for phrase in phrases_of})
    ordered = sorted(meaning, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, ordered)) + r")\b"), meaning


def _first(table: str, text: str) -> str:
    pattern, meaning = _finder(table)
    found = pattern.search(text)
    return meaning[found.group()] if found else ""


def parse(text: str, category: str = "") -> Attributes:
    """Read a caption or prompt: "long thin rusty scratch" -> kind scratch, colour rusty, size long, shape thin.

    Unknown words are ignored, the first word of each group counts. `category` is the product's name: its words say
    nothing about the defect ("orange" in "orange juice bottle") and are left out.
    """
    plain = words(text.lower())
    if category:
        plain = re.sub(rf"\b{re.escape(words(category.lower()))}\b", " ", plain)
    if re.search(r"\b(?:without|no|free of)(?: any| visible)? defects?\b", plain):
        return Attributes()
    kind = _first("kind", plain)
    # "rust" alone names a stain and its colour at once.
    colour = _first("colour", plain) or ("rusty" if re.search(r"\b(?:rust|corrosion|corroded)\b", plain) else "")
    return Attributes(kind, colour, _first("size", plain), _first("shape", plain), _first("severity", plain))


def kinds_of(defect_type: str) -> tuple[str, ...]:
    """The kinds a defect name may mean, likeliest first: "blowhole" -> hole; "bent_lead" -> bend; () for none."""
    plain = words(defect_type.lower())
    if plain.replace(" ", "_") in KINDS:
        return (plain.replace(" ", "_"),)
    pattern, _ = _finder("kind")
    found = pattern.search(plain)
    if not found:
        return ()
    return next(kinds for phrases, kinds in SYNONYMS.items() if found.group() in phrases.split("|"))


# -- writing -------------------------------------------------------------------------------------------------------

_TEMPLATES = (
    "{Defect} on the {thing}.",
    "A photo of {a_thing} with {defect}.",
    "{A_thing} with {defect}.",
    "There is {defect} on the {thing}.",
    "The {thing} has {defect}.",
    "Close-up of {a_thing} showing {defect}.",
    "Photo of {defect} on {a_thing}.",
    "{Defect} on the surface of the {thing}.",
    "On the {thing} one can see {defect}.",
)


def _say(table: dict[str, tuple[str, ...]], name: str, what: str, ways: int, rng: np.random.Generator) -> str:
    if not name:
        return ""
    if name not in table:
        raise unknown(what, name, table)
    said = table[name][:ways]
    return said[int(rng.integers(len(said)))]


def describe(attributes: Attributes, category: str, rng: np.random.Generator) -> str:
    """Say the attributes in one sentence; all of it true, the wording drawn from `rng`.

    `parse(describe(a, category, rng), category)` gives back kind, colour, size, shape and severity.
    Raises FlawsmithError for a word outside the vocabulary.
    """
    kind = attributes.kind
    if kind not in KINDS:
        raise unknown("Defect kind", kind, KINDS)
    severe = attributes.severity
    ways = ("deep", "deep", "severe", "pronounced") if kind in _DEPTH_KINDS else ("strong", "intense", "pronounced")
    gentle = ("faint", "slight", "shallow", "subtle") if kind in _DEPTH_KINDS else ("faint", "slight", "subtle")
    severity = _say({"faint": gentle, "strong": ways}, severe, "Severity", 4, rng)
    adjectives = [
        severity,
        _say(SIZES, attributes.size, "Size", _SAID["size"], rng),
        _say(SHAPES, attributes.shape, "Shape", _SAID["shape"], rng),
        _say(COLOURS, attributes.colour, "Colour", _SAID["colour"], rng),
    ]
    # A severity word may stand first or just before the colour, as people write both.
    if severity and rng.random() < 0.4:
        adjectives = [*adjectives[1:3], severity, adjectives[3]]
    pattern = KINDS[kind][int(rng.integers(len(KINDS[kind])))]
    plural = pattern.endswith("+")
    phrase = " ".join(pattern.rstrip("+").format(" ".join(filter(None, adjectives))).split())
    defect = phrase if plural else article(phrase)
    thing = product(category)
    template = _TEMPLATES[int(rng.integers(len(_TEMPLATES)))]
    return template.format(
        defect=defect,
        Defect=defect[:1].upper() + defect[1:],
        thing=thing,
        a_thing=article(thing),
        A_thing=article(thing).capitalize() if thing.islower() else "A" + article(thing)[1:],
    )
