"""Which mask family suits a kind of defect, where the user names none."""

from __future__ import annotations

from flawsmith import captions

FAMILY = {
    "scratch": "scratch",
    "crack": "crack",
    "dent": "blob",
    "hole": "blob",
    "chip": "polygon",
    "stain": "blob",
    "spots": "spots",
    "fibre": "scratch",
    "discolouration": "perlin",
    "missing_part": "polygon",
    "bend": "blob",
}


def family_of(defect_type: str) -> str:
    """The family of a defect's name or of the kind that it is a synonym of; a name that says nothing is a blob."""
    if "pitt" in defect_type.lower():
        return "blob"  # pits crowd in one worn place, unlike a sprinkle of spots
    name = "_".join(captions.words(defect_type.lower()).split())
    return FAMILY.get(name, "") or FAMILY.get(next(iter(captions.kinds_of(defect_type)), ""), "blob")


def choose(family: str, defect_type: str, has_reference: bool, caption: str) -> str:
    """A method's own `family`, unless that follows a real mask and there is none: then what happens to a whole
    component ("missing", "swapped") covers a component, and everything else takes the family of its kind. What happens
    to a component has its shape: a real one is moved, never varied.
    """
    if family not in ("reference", "varied"):
        return family
    logical = captions.logical(caption or defect_type)
    if has_reference:
        return "reference" if logical else family
    if logical:
        return "component"
    return family_of(captions.parse(caption).kind or defect_type)
