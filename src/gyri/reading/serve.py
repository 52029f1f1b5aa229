"""Listen on an address, by default one that only this machine can reach."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from gyri.errors import UnavailableError, UsageError

LOOPBACK = "127.0.0.1"
REMOTE = (
    "WARNING: other machines can reach this server and its traffic is not encrypted. Real scans "
    "are personal data: use it inside a closed network, or behind a proxy with TLS. Nobody gets in "
    "without a token."
)


def needs_server() -> None:
    """Raise `UnavailableError` where the optional packages are missing."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise UnavailableError(
            'The pages need FastAPI and Uvicorn: pip install "gyri[read]".'
        ) from None


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach a host."""
    return host in ("localhost", "::1") or host.startswith("127.")


def refuse_unnamed(host: str, names: tuple[str, ...]) -> None:
    """Refuse to listen everywhere without knowing under which name readers come."""
    if host in ("0.0.0.0", "::") and not names:
        raise UsageError(
            f"--host {host} listens on every address; say under which name readers reach it, for "
            "example --name reading.hospital.example. Requests for other names are refused."
        )


def listen(make: Callable[[int], Any], host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until the process is interrupted.

    Parameters
    ----------
    make : returns the ASGI application for a port.
    host, port : where to listen; port 0 takes a free one.
    ready : told the address, once it accepts connections.

    Raises
    ------
    UnavailableError
        The address is taken or is none of this machine.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
    except OSError as error:
        raise UnavailableError(
            f"Cannot listen on {host} port {port} ({error.strerror}). Give another --port."
        ) from None
    server.listen(64)
    port = server.getsockname()[1]
    app = make(port)
    ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off",
        timeout_keep_alive=30, limit_concurrency=64,
    )  # fmt: skip
    with server:
        uvicorn.Server(config).run(sockets=[server])
