"""What stands before every page on the loopback address: other sites, other hosts, large bodies.

A page of any web site that the user has open can send requests to the user's own machine. Here a
request must name this server as its host (against DNS rebinding), must not come from another site
and must not be larger than an answer can be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 16_384
"""Bytes; an answer with every fault placed has about 600."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; worker-src 'self' blob:; "
        "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


def own_names(host: str, port: int, names: Iterable[str] = ()) -> frozenset[str]:
    """Return the ``Host`` values under which a server answers."""
    hosts = {"127.0.0.1", "localhost", "[::1]", *names}
    if host not in ("0.0.0.0", "::"):
        hosts.add(f"[{host}]" if ":" in host else host)
    return frozenset({f"{name}:{port}" for name in hosts} | set(names))


class Guard:
    """Refuse what cannot be a reader's own request, before the application sees it.

    Parameters
    ----------
    app : the application.
    hosts : accepted ``Host`` values.
    refused : told why, for the log.
    """

    def __init__(self, app: App, hosts: frozenset[str], refused: Callable[[str], None]) -> None:
        self._app, self._hosts, self._refused = app, hosts, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            self._refused("not HTTP")
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1")
                   for key, value in scope["headers"]}  # fmt: skip
        fault = self._fault(scope["method"], headers)
        body = b""
        if fault is None and scope["method"] not in ("GET", "HEAD"):
            body, whole = await _body(receive, headers.get("content-length", ""))
            if not whole:
                fault = (413, "body too large")
        if fault is not None:
            self._refused(fault[1])
            await _respond(send, *fault)
            return

        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {key for key, _ in message.get("headers", [])}
                message["headers"] = [
                    *message.get("headers", []),
                    *((key.lower().encode(), value.encode()) for key, value in HEADERS.items()
                      if key.lower().encode() not in own),
                ]  # fmt: skip
            await send(message)

        await self._app(scope, replay, protected)

    def _fault(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            return 421, "other host"
        if method not in ("GET", "HEAD", "POST"):
            return 405, "method"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            # A link in an e-mail or a document may open the page itself and nothing else.
            opened = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
            return None if opened else (403, "other site")
        if method != "POST":
            return None
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return 403, "other site"
        # Forms of other sites cannot send this type; browsers ask first, and get no answer.
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return 415, "not JSON"
        return None


async def _body(receive: Receive, declared: str) -> tuple[bytes, bool]:
    """Return the body and whether it is whole; reading ends where it grows too large."""
    if declared and not (declared.isascii() and declared.isdigit() and int(declared) <= MAX_BODY):
        return b"", False
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return body, False
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return b"", False
        more = message.get("more_body", False)
    return body, True


async def _respond(send: Send, status: int, text: str) -> None:
    headers = [(key.lower().encode(), value.encode()) for key, value in HEADERS.items()]
    headers.append((b"content-type", b"text/plain; charset=utf-8"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
