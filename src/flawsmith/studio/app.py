"""The studio's server. Paths come from registered data sets and ids of ours alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from flawsmith.errors import FlawsmithError
from flawsmith.studio import asked
from flawsmith.studio.data_routes import add_data, add_masks
from flawsmith.studio.job_routes import add_jobs
from flawsmith.studio.result_routes import add_results
from flawsmith.studio.security import Guard
from flawsmith.studio.set_routes import add_sets
from flawsmith.studio.shared import Studio
from flawsmith.studio.store import ConflictError

STATIC = Path(__file__).parent / "static"
TOKENS = Path(__file__).parents[1] / "report" / "tokens.css"


def create(
    out: Path,
    sources: list[str],
    runs: list[Path],
    hosts: frozenset[str],
    token: str | None = None,
    features: list[Path] | None = None,
) -> Guard:
    """The application; `hosts`: what the header Host may say. Raises FlawsmithError for a data set that is none."""
    studio = Studio(out, sources, runs, features or [])

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        studio.queue.close()

    app = FastAPI(
        title="flawsmith studio",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses={status: {"model": asked.Refused} for status in (400, 401, 403, 404, 405, 409, 413, 421, 422)},
    )
    app.state.studio = studio

    @app.exception_handler(FlawsmithError)
    async def refused(_: Request, error: FlawsmithError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409 if isinstance(error, ConflictError) else 400)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        """Field and reason; not the input, which may hold what no JSON can (1e999)."""
        told = "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()[:5])
        return JSONResponse({"error": told.encode("utf-8", "replace").decode()}, 422)

    @app.exception_handler(HTTPException)
    async def missing(_: Request, error: HTTPException) -> JSONResponse:
        """No such address, or none that takes this kind of request."""
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    _pages(app)
    add_data(app, studio)
    add_masks(app, studio)
    add_jobs(app, studio)
    add_sets(app, studio)
    add_results(app, studio)
    return Guard(app, hosts, token)


def _pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/static/tokens.css", include_in_schema=False)
    def tokens() -> FileResponse:
        return FileResponse(TOKENS, headers={"cache-control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response(status_code=204)

    app.mount("/static", StaticFiles(directory=STATIC))
