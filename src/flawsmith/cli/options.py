"""Options that mean the same in every command that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

READERS = (
    "btad, coco, cvat, datumaro, folder, hf_dataset, ksdd, ksdd2, label_studio, labelme, mpdd, mvtec_ad, mvtec_ad2, "
    "mvtec_loco, real_iad, visa, voc, webdataset or yolo, as coco:DIR; of DIR alone the layout is recognised"
)

Category = Annotated[str | None, typer.Option(help="Only this category of the data set. Default: all.")]
GroupBy = Annotated[
    str | None, typer.Option(help="Column of origin.csv that names the physical part in a photograph. Default: group.")
]
Backbone = Annotated[
    str | None,
    typer.Option(help="Of diffusion methods: compact (shipped, the default), a folder in diffusers format, a hub id."),
]
Device = Annotated[str | None, typer.Option(help="Where neural networks run: cpu (default) or cuda.")]
Memory = Annotated[int | None, typer.Option(help="GiB of the GPU to stay within: 8, 12, 16 or 24. Default: no limit.")]
Runtime = Annotated[
    str | None,
    typer.Option(
        help="What computes the denoiser: torch (default), or openvino on the CPU, whose images differ in roundings. A "
        "folder is finished with what began it."
    ),
]
Config = Annotated[
    Path | None, typer.Option(help="JSON or YAML file with the same settings (group_by: part); options given here win.")
]


class WithRay(TyperCommand):
    """A command whose option --ray may stand without its value, which is `local` then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        whole: list[str] = []
        for word, after in zip(args, [*args[1:], "-"], strict=True):
            whole += [word, "local"] if word == "--ray" and after.startswith("-") else [word]
        return super().parse_args(ctx, whole)
