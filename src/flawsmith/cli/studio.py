"""`flawsmith studio`: the page to paint, make, compare, keep and export."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer


def studio(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A trained run, offered among the methods. Default: none.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="READER:DIR",
            help="A data set to open; repeat for several. Default: the demo's images. Only these are readable.",
        ),
    ] = None,
    features: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="A vision model in transformers' format, for the gate and for evaluations; repeat for several.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything is written; the same folder goes on.")] = Path("studio"),
    host: Annotated[str, typer.Option(help="Address to listen at; any but this machine's own needs the token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 = any that is free.")] = 8642,
    token: Annotated[
        str | None, typer.Option(help="Needed by everyone who asks. Default: none on this machine, else a random one.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Look, paint, decide: a page in your browser; needs the extra studio.

    Pick an image, paint or generate a mask, make several defects, compare them with the original, keep or drop, queue
    a batch, review it, export. Everything is on disk at once: a reload or a restart loses nothing.

    Example: `flawsmith studio --data mvtec_ad:data/widget`
    """
    from importlib.util import find_spec

    from flawsmith.errors import FlawsmithError
    from flawsmith.inputs import home

    if not (find_spec("fastapi") and find_spec("uvicorn")):
        raise FlawsmithError("The studio needs its extra: pip install 'flawsmith[studio]'.")
    from flawsmith.studio import serve
    from flawsmith.studio.security import is_local

    if token is None and not is_local(host):
        token = secrets.token_urlsafe(24)
    server = serve.Server(
        home(out), data or [], [home(run)] if run else [], host, port, token, [home(one) for one in features or ()]
    )
    typer.echo(f"Studio: {server.address}")
    typer.echo(f"Everything is written to {home(out)}. Stop with Ctrl-C; the same command goes on.")
    if browser:
        typer.launch(server.address)
    server.run()
