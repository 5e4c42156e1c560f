"""Starting the studio: where it listens, what it offers when it is given nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import uvicorn

from flawsmith import demo
from flawsmith.datasets.lock import Lock
from flawsmith.errors import FlawsmithError
from flawsmith.methods.base import read_card
from flawsmith.studio.app import create


class Server:
    """A studio that listens from the moment it is made; `address` is what to open. `run` serves until Ctrl-C."""

    def __init__(
        self,
        out: Path,
        data: list[str],
        runs: list[Path],
        host: str,
        port: int,
        token: str | None = None,
        features: list[Path] | None = None,
    ) -> None:
        """Raises FlawsmithError for an `out` that another studio uses; for a run, data set or port not to be had."""
        for folder in features or ():
            if not (folder / "config.json").is_file():
                raise FlawsmithError(
                    f"--features {folder} holds no vision model in transformers' format (config.json)."
                )
        for run in runs:
            read_card(run)
        self._lock = Lock(out)
        out = out.resolve()
        try:
            self._socket = _listen(host, port)
        except FlawsmithError:
            self._lock.close()
            raise
        port = self._socket.getsockname()[1]
        shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1", "::1") else host
        self.address = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
        self.app = create(out, data or [demo_data(out)], runs, names(host, port), token, features)

    def run(self) -> None:
        config = uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=2)
        try:
            uvicorn.Server(config).run(sockets=[self._socket])
        finally:
            self._lock.close()


def names(host: str, port: int) -> frozenset[str]:
    """What a browser's header Host may say: this machine's own names, and the address that is listened at."""
    own = ["localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host]
    if host in ("0.0.0.0", "::"):
        own += [socket.gethostname(), *_addresses()]
    return frozenset(f"{name}:{port}" for name in own)


def _addresses() -> list[str]:
    try:
        found = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return []
    return [f"[{one}]" if ":" in str(one) else str(one) for one in found]


def _listen(host: str, port: int) -> Any:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise FlawsmithError(
            f"Nothing can listen at {host}, port {port} ({error.strerror}): another studio may, or choose --port 0."
        ) from error


def demo_data(out: Path) -> str:
    """The demo's washers with a few painted defects, made in seconds where they are not there yet; as READER:DIR."""
    return f"mvtec_ad:{demo.few_defects(out / 'demo')}"
