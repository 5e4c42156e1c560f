"""Findings about a whole data set: types that are rare, tiny or without captions, parts under several names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from flawsmith.datasets import exposures, leaks
from flawsmith.datasets.check_files import NOTE, WARNING, Finding
from flawsmith.datasets.check_images import Facts
from flawsmith.records import Record

Pairs = Sequence[tuple[Record, Facts]]

RARE = 10  # times fewer images than the largest type
SEEN = 4.0  # pixels that a defect must have in the image as a detector sees it
CLEAR = 0.8  # of a category's defect images that must show an object before anything counts as background
COPIES = 4  # captions of one type that are alike
LICENCES = ("licen", "copying")


def licences(root: Path, records: Sequence[Record]) -> list[str]:
    """Files that look like licences in the data set's folder, in those of its categories, and beside it."""
    categories = dict.fromkeys(record.category for record in records)
    folders = dict.fromkeys([root, *(root / name for name in categories), root.resolve().parent])
    found = []
    for folder in folders:
        names = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        found += [path for path in names if path.name.lower().startswith(LICENCES)]
    return [path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name for path in found]


def imbalance(records: Sequence[Record]) -> Iterator[Finding]:
    for category in dict.fromkeys(record.category for record in records):
        counted = Counter(r.defect_type for r in records if r.category == category and not r.is_good)
        most = counted.most_common(1)
        for kind, count in counted.items():
            if RARE * count <= most[0][1]:
                yield Finding(
                    NOTE,
                    f"{category}, {kind}",
                    f"{count} images, {most[0][0]} has {most[0][1]}: what is trained on them will miss it",
                    f"Add images, or generate some: flawsmith generate ... --defect {kind!r}.",
                    "imbalance",
                )


def tiny(pairs: Pairs, window: int) -> Iterator[Finding]:
    """Defects that are lost where whole images are shrunk to `window` pixels, as detectors do."""
    kinds: dict[tuple[str, str], list[tuple[Record, float]]] = {}
    for record, fact in pairs:
        if fact.area and fact.size:
            step = max(1.0, max(fact.size) / window)
            left = fact.area * fact.size[0] * fact.size[1] / step**2
            kinds.setdefault((record.category, record.defect_type), []).append((record, left))
    for (category, kind), members in kinds.items():
        lost = [(record, left) for record, left in members if left < SEEN]
        if lost:
            yield Finding(
                NOTE,
                lost[0][0].name,
                f"its mask is {lost[0][1]:.1f} pixels where the image is shrunk to {window} ({len(lost)} of "
                f"{len(members)} of {category}, {kind}): too few to be seen",
                "Train detectors on larger images or on tiles; --window says how large yours are.",
                "tiny",
            )


def background(pairs: Pairs) -> Iterator[Finding]:
    """Masks beside the object, where the images of a category show one: on a surface nothing is background."""
    for category in dict.fromkeys(record.category for record, _ in pairs):
        told = [(record, fact) for record, fact in pairs if record.category == category and fact.marked is not None]
        clear = [(record, fact.beside) for record, fact in told if fact.beside is not None]
        off = [record for record, beside in clear if beside]
        if len(clear) < CLEAR * len(told) or 2 * len(off) > len(clear):
            continue
        for record in off:
            yield Finding(
                WARNING,
                record.name,
                "its mask lies beside the object, on the background",
                "Check that mask and image belong together and that the mask is not shifted or turned.",
                "mask-background",
            )


def captions(records: Sequence[Record]) -> Iterator[Finding]:
    """Captions that some defects lack, and one caption for many images."""
    for category in dict.fromkeys(record.category for record in records):
        defects = [record for record in records if record.category == category and not record.is_good]
        bare = [record for record in defects if not record.caption]
        if bare and len(bare) < len(defects):
            yield Finding(
                NOTE,
                bare[0].name,
                f"no caption, as {len(bare)} of {len(defects)} defects of {category}",
                "Add the missing ones: flawsmith captions ... --out captions.csv.",
                "caption-missing",
            )
        owners: dict[str, list[Record]] = {}
        for record in defects:
            if record.caption:
                owners.setdefault(record.caption, []).append(record)
        for text, members in owners.items():
            kinds = {record.defect_type for record in members}
            every = sum(record.defect_type == members[0].defect_type for record in defects)
            if len(kinds) > 1 or (len(members) >= COPIES and 2 * len(members) > every):
                yield Finding(
                    WARNING if len(kinds) > 1 else NOTE,
                    members[0].name,
                    f"{len(members)} images{f' of {len(kinds)} types' if len(kinds) > 1 else ''} have the caption "
                    f"{text[:60]!r}: probably copied",
                    "Describe each one: flawsmith captions ... --anew --out captions.csv.",
                    "caption-copied",
                )


def parts(pairs: Pairs) -> tuple[dict[tuple[str, str], str], list[Finding]]:
    """((category, group) -> the group it should have, findings) of parts that several groups seem to show."""
    prints = [(record, fact.fingerprint) for record, fact in pairs if fact.fingerprint is not None]
    contents = {record.image: fact.sha for record, fact in pairs}
    clusters = leaks.same_parts(prints)
    findings = [
        lookalike(members) for members in clusters if len({contents[record.image] for record in members}) > 1
    ]  # true copies have their own finding
    named = exposures.suggest(clusters)
    seen = [(record, fact.fingerprint, fact.marked) for record, fact in pairs if fact.fingerprint is not None]
    untold = [one for one in seen if one[0].is_good or one[0].group == one[0].name]  # a group that is told is believed
    for members in exposures.same_defects(untold):
        groups = list(dict.fromkeys(named.get((r.category, r.group), r.group) for r in members))
        if len(groups) > 1:
            clusters.append(members)
            findings.append(_exposed(members))
    return exposures.suggest(clusters), findings


def lookalike(members: Sequence[Record]) -> Finding:
    """A part whose image nearly equals another part's: the same part under two group names, most likely."""
    across = len({record.split for record in members}) > 1
    names = ", ".join(record.name for record in members[1:5]) + (", ..." if len(members) > 5 else "")
    groups = list(dict.fromkeys(record.group for record in members if record.group != record.name))
    return Finding(
        WARNING if across or not all(record.is_good for record in members) else NOTE,
        members[0].name,
        f"nearly the same image as {names}"
        + (f" (groups {', '.join(groups)})" if groups else "")
        + ": probably one part photographed again"
        + (", in train and test" if across else ""),
        "Give them the same group in origin.csv (--groups FILE suggests one), so that no split puts them on two sides, "
        "or keep one.",
        "lookalike",
    )


def _exposed(members: Sequence[Record]) -> Finding:
    names = ", ".join(record.name for record in members[1:5]) + (", ..." if len(members) > 5 else "")
    return Finding(
        NOTE,
        members[0].name,
        f"its defect looks like that of {names}: one defect, photographed again in other light?",
        "Look at them; where it is so, give them the same group in origin.csv (--groups FILE suggests one).",
        "exposures",
    )
