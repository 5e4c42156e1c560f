"""Sentences about pictures: what a defect is called, and how its parameters are said."""

from __future__ import annotations


def words(name: str) -> str:
    """A folder name as words: "broken_large" -> "broken large"."""
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def article(phrase: str) -> str:
    """The phrase with "a" or "an" in front."""
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


def sentence(category: str, defect_type: str) -> str:
    """A plain caption: "A photo of a bottle with a defect: broken large." """
    thing = words(category) or "product"
    if defect_type == "good":
        return f"A photo of {article(thing)} without defects."
    return f"A photo of {article(thing)} with a defect: {words(defect_type)}."
