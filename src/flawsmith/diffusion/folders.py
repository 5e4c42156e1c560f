"""Folders in diffusers format, and hub ids: every part of a backbone by name, or a reason why not.

Only safetensors are read: a pickle (.bin, .ckpt) may run code when it is opened.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from flawsmith import inputs
from flawsmith.diffusion.denoise import scheduler_for
from flawsmith.errors import FlawsmithError

__all__ = ["fetch", "load_parts", "read_index"]

PARTS = {  # our names, and theirs in Stable Diffusion and LDM folders
    "unet": ("unet",),
    "vae": ("vae", "vqvae"),
    "text_encoder": ("text_encoder", "bert"),
    "tokenizer": ("tokenizer",),
    "scheduler": ("scheduler",),
}
WEIGHTLESS = ("tokenizer", "scheduler")
FOREIGN = {  # part of a folder -> why it cannot be used
    "text_encoder_2": "it has two text encoders (Stable Diffusion XL and later)",
    "transformer": "its denoiser is a transformer (Stable Diffusion 3, Flux)",
    "prior": "it has a prior (Kandinsky, unCLIP)",
    "low_res_scheduler": "it enlarges images",
}
KINDS = "Stable Diffusion 1.x or 2.x, its inpainting version, or LDM text2img-large"


def load_parts(path: Path) -> dict[str, Any]:
    """The parts of a folder in diffusers format by our names, weights in float32 on the CPU.

    One safetensors file, shards, and variants (fp16) load alike. Raises FlawsmithError naming the part that is
    missing, damaged, a pickle, or of a kind that no method here can use.
    """
    named = {key: v for key, v in read_index(path).items() if isinstance(v, list) and len(v) == 2 and _words(v)}
    for part, reason in FOREIGN.items():
        if named.get(part, [None])[0]:
            raise FlawsmithError(f"{path.name} cannot be a backbone: {reason}. Give {KINDS}.")
    found = {}
    for part, theirs in PARTS.items():
        name = next((n for n in theirs if named.get(n, [None])[0]), None)
        if name is None or not (path / name).is_dir():
            what = " or ".join(theirs) if name is None else name
            raise FlawsmithError(
                f"{path.name} has no part {what}: copy or fetch the whole folder; a backbone is {', '.join(PARTS)}."
            )
        library, kind = named[name]
        found[part] = _load(path, name, library, kind, part not in WEIGHTLESS)
    _check(path, found)
    # training adds noise by the betas alone; some schedulers of pipelines (Euler, PNDM) do it otherwise or not at all
    found["scheduler"] = scheduler_for(found["scheduler"].config)
    return found


def read_index(path: Path) -> dict[str, Any]:
    """A folder's model_index.json. Raises FlawsmithError when it is damaged."""
    try:
        index: dict[str, Any] = inputs.parse_json((path / "model_index.json").read_text(encoding="utf-8"))
        return index
    except (OSError, ValueError) as error:
        raise FlawsmithError(
            f"{path / 'model_index.json'} cannot be read ({error}): fetch the folder again."
        ) from error


def _words(pair: list[Any]) -> bool:
    return all(one is None or isinstance(one, str) for one in pair)


def _load(path: Path, name: str, library: str, kind: str, weights: bool) -> Any:
    folder = path / name
    import transformers

    maker = _class(library, kind)
    if maker is None:
        raise FlawsmithError(f"{path.name}: part {name} is of class {library}.{kind}, which is not known here.")
    options: dict[str, Any] = {"local_files_only": True}
    if weights:
        options |= {"use_safetensors": True, "variant": _variant(folder, f"{library}.{kind}")}
        options["dtype" if issubclass(maker, transformers.PreTrainedModel) else "torch_dtype"] = torch.float32
    transformers.logging.disable_progress_bar()  # one per part, for a tenth of a second
    try:
        loaded = maker.from_pretrained(folder, **options)
    except Exception as error:  # diffusers, transformers and safetensors raise a dozen kinds for a damaged part
        raise FlawsmithError(
            f"{path.name}: part {name} cannot be read ({str(error).splitlines()[0] if str(error) else error!r}): "
            "fetch it again."
        ) from error
    return loaded.eval() if weights else loaded


def _class(library: str, kind: str) -> Any:
    import diffusers
    import transformers

    if kind == "LDMBertModel":  # old folders name a module, new ones the library
        from diffusers.pipelines import latent_diffusion

        return latent_diffusion.LDMBertModel
    return getattr({"diffusers": diffusers, "transformers": transformers}.get(library), kind, None)


def _variant(folder: Path, kind: str) -> str | None:
    """Which of a part's weights to read: None for the plain file, else the variant there is ("fp16")."""
    names = [file.name for file in folder.iterdir()]
    stem = r"(?:diffusion_pytorch_model|model)"
    shard = r"(?:-\d+-of-\d+)?"
    if any(re.fullmatch(rf"{stem}{shard}\.safetensors(\.index\.json)?", name) for name in names):
        return None
    marks = [
        re.fullmatch(rf"{stem}(?:\.([\w]+){shard}\.safetensors|\.safetensors\.index\.([\w]+)\.json)", n) for n in names
    ]
    found = sorted({mark[1] or mark[2] for mark in marks if mark})
    if found:
        return "fp16" if "fp16" in found else found[0]
    pickles = [name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    if pickles:
        library, _, name = kind.rpartition(".")
        raise FlawsmithError(
            f"{folder} holds only a pickle ({pickles[0]}), which may run code when it is opened. Take the safetensors "
            'published beside it, or, if you trust its source, convert it once: python -c "from '
            f"{'diffusers.pipelines.latent_diffusion' if name == 'LDMBertModel' else library} import {name} as M; "
            f"M.from_pretrained('{folder}', use_safetensors=False).save_pretrained('{folder}')\""
        )
    raise FlawsmithError(f"{folder} holds no weights (*.safetensors): fetch it again.")


def _check(path: Path, found: dict[str, Any]) -> None:
    """Parts that load, but cannot work together or with our methods."""
    unet, text = found["unet"], found["text_encoder"]
    if type(unet).__name__ != "UNet2DConditionModel":
        raise FlawsmithError(
            f"{path.name}: its denoiser is a {type(unet).__name__}, not a UNet2DConditionModel. Give {KINDS}."
        )
    width = getattr(text.config, "hidden_size", None) or getattr(text.config, "d_model", None)
    if width is not None and int(width) != int(unet.config.cross_attention_dim):
        raise FlawsmithError(
            f"{path.name}: the text encoder makes tokens of width {width}, the denoiser reads "
            f"{unet.config.cross_attention_dim}: the parts are of two models."
        )
    prediction = found["scheduler"].config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise FlawsmithError(f"{path.name} predicts {prediction!r}; known are epsilon and v_prediction.")


def fetch(name: str) -> Path:
    """The folder of a hub id, from this machine where it was fetched before."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
    unwanted = ["*non_ema*", "safety_checker/*", "feature_extractor/*"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=[*unwanted, "*fp16*"]))
        if not any((folder / "unet").glob("*.safetensors")):  # some have nothing but half precision
            folder = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=unwanted))
    except Exception as error:
        raise FlawsmithError(
            f"Backbone {name!r} is neither 'compact', nor a folder, nor on the hub ({type(error).__name__}): "
            "download it elsewhere and give the folder."
        ) from error
    return folder
