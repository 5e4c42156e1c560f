"""Captions by a vision-language model of your own, for `flawsmith captions --model FOLDER`.

Any image-to-text model that transformers loads from a folder. Chat models are asked; others (BLIP, GIT) just describe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.captions import product, words
from flawsmith.diffusion.devices import refuse_device
from flawsmith.errors import FlawsmithError
from flawsmith.records import Sample

LONGEST = 60  # tokens of a caption
CONTEXT = 1.0  # surroundings shown on every side of a defect, in parts of its longer side
LEAST = 96  # pixels of the part of the image that is shown
QUESTION = "This is a photo of {thing} with a defect called {defect}. Describe the defect in one short sentence."


class Captioner:
    """Called with a Sample, it describes the defect: the model sees its surroundings cut out of the image."""

    def __init__(self, model: Any, processor: Any, device: str = "cpu") -> None:
        self.model, self.processor, self.device = model.to(device).eval(), processor, device

    @classmethod
    def from_pretrained(cls, folder: Path, device: str = "cpu") -> Captioner:
        """Load model and processor from a folder; nothing is downloaded and no code of the folder is run.

        Raises FlawsmithError for a folder that transformers cannot load.
        """
        refuse_device(device)
        if not (folder / "config.json").is_file():
            raise FlawsmithError(f"--model {folder} holds no config.json: name the folder of a downloaded model.")
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor, logging
        except ImportError:
            raise FlawsmithError(
                "--model needs transformers, which is not installed: pip install 'flawsmith[diffusion]'."
            ) from None
        logging.disable_progress_bar()  # for a tenth of a second
        settings: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor = AutoProcessor.from_pretrained(folder, **settings)
            model = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True, **settings)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise FlawsmithError(
                f"--model {folder} is no image-to-text model that transformers loads ({error}): give BLIP, GIT, or a "
                "chat model with images, in safetensors."
            ) from error
        return cls(model, processor, device)

    def __call__(self, sample: Sample) -> str:
        """One sentence, always the same for the same image. Raises FlawsmithError where the model says nothing."""
        import torch
        from PIL import Image

        shown = Image.fromarray(surroundings(sample))
        asked = bool(getattr(self.processor, "chat_template", None))
        if asked:
            text = QUESTION.format(thing=product(sample.category), defect=words(sample.defect_type))
            content = [{"type": "image", "image": shown}, {"type": "text", "text": text}]
            given = self.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        else:
            given = self.processor(images=shown, return_tensors="pt")
        given = given.to(self.device)
        with torch.inference_mode():
            tokens = self.model.generate(**given, max_new_tokens=LONGEST, do_sample=False)[0]
        if asked:
            tokens = tokens[given["input_ids"].shape[1] :]
        said = " ".join(self.processor.decode(tokens, skip_special_tokens=True).split())
        if not said:
            raise FlawsmithError("The model of --model says nothing about an image: take another, or leave it out.")
        return said[:1].upper() + said[1:] + ("" if said.endswith((".", "!", "?")) else ".")


def surroundings(sample: Sample) -> np.ndarray:
    """The defect and what is around it, (h, w, 3) uint8 cut out of the image; all of it where nothing is marked."""
    if not sample.mask.any():
        return sample.image
    rows, columns = np.flatnonzero(sample.mask.any(axis=1)), np.flatnonzero(sample.mask.any(axis=0))
    longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    reach = max(LEAST // 2, round(longer * (0.5 + CONTEXT)))
    cut = []
    for ends, side in zip((rows, columns), sample.mask.shape, strict=True):
        middle = int(ends[0] + ends[-1] + 1) // 2
        start = max(0, min(middle - reach, side - 2 * reach))
        cut.append(slice(start, min(side, start + 2 * reach)))
    return np.ascontiguousarray(sample.image[cut[0], cut[1]])
