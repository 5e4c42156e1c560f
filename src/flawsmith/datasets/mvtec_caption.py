"""Captions for MVTec AD and MVTec LOCO out of the public MVTec Caption scripts, read but never run.

flawsmith ships no captions: they have no licence of their own. The scripts `tools/Construct_MVTEC-AD-Caption.py` and
`tools/Construct_MVTEC-LOCO-Caption.py` of hujiecpp/MVTec-Caption hold one dictionary per category,
`bottle = {"broken_large": ["A bottle with ...", ...], ...}`; item i belongs to image i of the original numbering.

Reference: AnomalyXFusion, section on MVTec Caption.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from flawsmith import images
from flawsmith.datasets import tree
from flawsmith.errors import FlawsmithError

Captions = dict[str, dict[str, list[str]]]  # category -> defect type -> captions in image order


def parse(script: str | Path) -> Captions:
    """The captions a script spells out: every `name = {type: [text, ...]}` at its top level.

    Whatever is not a literal of that form is skipped. Raises FlawsmithError for a file that is no Python or has none.
    """
    path = Path(script)
    try:
        module = ast.parse(path.read_text(encoding="utf-8-sig"), filename=str(path))
    except OSError as error:
        raise FlawsmithError(f"Caption script {path} cannot be read ({error.strerror or error}).") from error
    except (SyntaxError, ValueError) as error:
        raise FlawsmithError(f"{path} is not a Python file ({error}): give the MVTec Caption script itself.") from error
    found: Captions = {}
    for node in module.body:
        if not isinstance(node, ast.Assign):
            continue
        try:
            value = ast.literal_eval(node.value)
        except ValueError:  # the scripts' own `categories` holds names, not texts
            continue
        if _is_captions(value):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = {kind: list(texts) for kind, texts in value.items()}
    if not found:
        raise FlawsmithError(
            f"{path} holds no captions of the form name = {{type: [text, ...]}}: give "
            "Construct_MVTEC-AD-Caption.py or Construct_MVTEC-LOCO-Caption.py."
        )
    return found


def _is_captions(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(kind, str) and isinstance(texts, (list, tuple)) and all(isinstance(text, str) for text in texts)
            for kind, texts in value.items()
        )
    )


def build_prompts(script: str | Path, root: str | Path) -> list[dict[str, Any]]:
    """Write `<category>/prompt/<type>/<NNN>.txt` below a data set root, for the categories it holds.

    Returns one row per category and type: category, type, captions, different. Nothing is written unless every count
    equals the number of ground-truth items; else raises FlawsmithError naming the type and both counts. Categories
    the root does not hold are skipped.
    """
    root = Path(root)
    tree.require_folder(root)
    captions = parse(script)
    rows: list[dict[str, Any]] = []
    writes: list[tuple[Path, str]] = []
    wrong = []
    for category, kinds in captions.items():
        folder = root / category
        if not folder.is_dir():
            continue
        for kind, texts in kinds.items():
            folders, files = tree.listing(folder / "ground_truth" / kind)
            items = len(folders) + sum(map(tree.is_image_file, files))  # MVTec LOCO: one folder per image
            if items != len(texts):
                wrong.append(f"{category}/{kind}: {len(texts)} captions, {items} in ground_truth/{kind}")
            rows.append({"category": category, "type": kind, "captions": len(texts), "different": len(set(texts))})
            writes += [(folder / "prompt" / kind / f"{index:03d}.txt", text) for index, text in enumerate(texts)]
    if not rows:
        raise FlawsmithError(
            f"{root} holds none of the categories of {script} ({', '.join(captions)}): name the data set's root folder."
        )
    if wrong:
        raise FlawsmithError(
            "Captions and masks do not match, nothing was written. "
            + "; ".join(wrong)
            + ". Restore the original, complete data set: captions follow its numbering."
        )
    for path, text in writes:
        images.write_bytes(path, (" ".join(text.splitlines()) + "\n").encode())
    return rows
