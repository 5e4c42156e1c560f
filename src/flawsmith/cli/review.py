"""`flawsmith review`: a person's keep and drop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def review(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that `flawsmith generate` wrote.")],
    table: Annotated[
        Path | None, typer.Option("--csv", help="CSV with the columns image and review (keep or drop), reason if any.")
    ] = None,
) -> None:
    """Keep or drop generated images: without --csv it writes OUT-review.csv to fill in, with it the verdicts are taken.

    Dropped images move to OUT/dropped: no reader, export or evaluation meets them. `keep` brings them back.

    Example: `flawsmith review out/painted --csv out/painted-review.csv`
    """
    from flawsmith import images
    from flawsmith.datasets import review as reviewing
    from flawsmith.inputs import home

    out = home(out)
    if table is None:
        path = out.parent / f"{out.name}-review.csv"
        images.write_bytes(path, reviewing.template(out))
        typer.echo(f"Write keep or drop in the column review of {path}, then: flawsmith review {out} --csv {path}")
        return
    done = reviewing.apply(out, reviewing.read_verdicts(home(table)))
    typer.echo(f"{out} keeps {done.kept} images, {done.dropped} are dropped; {done.changed} verdicts were new.")
