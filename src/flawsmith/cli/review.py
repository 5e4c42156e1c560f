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
    refit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Fit the gate's limits to what is kept and dropped, for generate --gate FILE.json.",
        ),
    ] = None,
) -> None:
    """Keep or drop generated images: without --csv it writes OUT-review.csv to fill in, with it the verdicts are taken.

    --refit learns the gate's limits from at least ten kept and ten dropped images; what is not dropped counts as kept.

    Dropped images move to OUT/dropped: no reader, export or evaluation meets them. `keep` brings them back.

    Example: `flawsmith review out/painted --csv out/painted-review.csv`
    """
    from flawsmith import images
    from flawsmith.datasets import review as reviewing
    from flawsmith.inputs import home

    out = home(out)
    if table is None and refit is None:
        path = out.parent / f"{out.name}-review.csv"
        images.write_bytes(path, reviewing.template(out))
        typer.echo(f"Write keep or drop in the column review of {path}, then: flawsmith review {out} --csv {path}")
        return
    if table is not None:
        done = reviewing.apply(out, reviewing.read_verdicts(home(table)))
        typer.echo(f"{out} keeps {done.kept} images, {done.dropped} are dropped; {done.changed} verdicts were new.")
    if refit is not None:
        _refit(out, home(refit))


def _refit(out: Path, path: Path) -> None:
    """Fit limits to the verdicts, save them, and say what they would have refused."""
    from flawsmith.datasets import review as reviewing
    from flawsmith.quality import profile
    from flawsmith.quality.gate import CHECKS

    kept, dropped = reviewing.scores(out)
    fitted = profile.fit(kept, dropped)
    profile.save(fitted, path, out.name, (len(kept), len(dropped)))
    moved = [
        f"{name} {'none' if limit is None else f'{limit:g}'} (was {CHECKS[name].normal:g})"
        for name, limit in fitted.limits.items()
        if limit != CHECKS[name].normal
    ]
    typer.echo(f"Limits that moved: {', '.join(moved) or 'none'}.")
    typer.echo(
        f"They refuse {fitted.dropped:.0%} of {len(dropped)} dropped and {fitted.kept:.0%} of {len(kept)} kept images, "
        f"those that they were fitted to. Use them: flawsmith generate ... --gate {path}"
    )
