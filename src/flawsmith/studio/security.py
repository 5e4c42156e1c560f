"""Who may ask: the right host, the right page, and where the studio is open to others the right token.

- Host: only addresses the studio was started for, so that a name of an attacker's that is pointed at this machine (DNS
  rebinding) gets nothing.
- Origin: a browser says from which page a request comes; other pages' requests are refused, reading and writing alike.
  Whatever changes something must also carry a header that no form of another page can send (CSRF).
- Token: needed on every address but this machine's own.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

COOKIE = "flawsmith_token"
HEADER = b"x-flawsmith"
MOST_BODY = 64 << 20  # bytes of a request
HEADERS = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; style-src 'self'; "
     b"frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)  # fmt: skip


def is_local(host: str) -> bool:
    """Whether an address is this machine's own and nobody else's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware around the whole studio."""

    def __init__(self, app: Any, hosts: frozenset[str], token: str | None) -> None:
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        asked = self._asked(scope)
        taken = 0

        async def limited() -> MutableMapping[str, Any]:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BODY:  # a body without a length, or with a wrong one
                return {"type": "http.disconnect"}
            return message

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
                if asked is not None:
                    text = f"{COOKIE}={asked}; HttpOnly; SameSite=Strict; Path=/"
                    message["headers"].append((b"set-cookie", text.encode("latin-1")))
            await send(message)

        await self.app(scope, limited, guarded)

    def _refused(self, scope: Scope, headers: dict[bytes, str]) -> tuple[int, str] | None:
        if headers.get(b"host", "") not in self.hosts:
            return 421, "This address is not one of the studio's: open the one that it printed when it started."
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        own = origin is None or (urlsplit(origin).scheme in ("http", "https") and urlsplit(origin).netloc in self.hosts)
        followed = headers.get(b"sec-fetch-mode") == "navigate" and scope["method"] == "GET"
        if not own or (site not in (None, "same-origin", "none") and not followed):
            return 403, "The request comes from another page."
        if scope["method"] not in ("GET", "HEAD") and HEADER not in headers:
            return 403, "A request that changes something needs the header X-Flawsmith."
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BODY:
            return 413, f"More than {MOST_BODY >> 20} MB in one request."
        if self.token is not None and not self._knows(scope, headers):
            return 401, "A token is needed: open the address that the studio printed when it started."
        return None

    def _asked(self, scope: Scope) -> str | None:
        """The right token, where it stands in the address: it becomes a cookie."""
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        return given if self.token is not None and _same(given, self.token) else None

    def _knows(self, scope: Scope, headers: dict[bytes, str]) -> bool:
        assert self.token is not None
        if self._asked(scope) is not None:
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except Exception:
            cookie = None
        bearer = headers.get(b"authorization", "").removeprefix("Bearer ")
        return _same(cookie.value if cookie else "", self.token) or _same(bearer, self.token)


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


async def _answer(send: Send, status: int, said: str) -> None:
    body = json.dumps({"error": said}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
