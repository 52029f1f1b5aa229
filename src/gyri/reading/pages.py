"""The files of the pages, all of them in the package: nothing is asked from any network."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, HTTPException, Response

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_LIBRARY = "niivue-0.69.0.js"


def add_pages(app: FastAPI, first: str) -> None:
    """Serve the static files, and `first` at the root.

    Parameters
    ----------
    app : gets the routes ``/`` and ``/static/...``.
    first : name of an HTML file.
    """
    # What is served is decided here and not by a path that a request spells.
    files = {path.name: path for path in _STATIC.iterdir() if path.suffix in _TYPES}

    def page(name: str) -> Response:
        # The library never changes under its name; everything else is asked for again.
        keep = {"Cache-Control": "max-age=31536000, immutable"} if name == _LIBRARY else {}
        path = files[name]
        return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers=keep)

    @app.get("/")
    def _() -> Response:
        return page(first)

    @app.get("/static/{name}")
    def _(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "no such file")
        return page(name)
