"""The viewer's server: a folder of volumes, and beside each the nearest real one."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response

from gyri.cohort.nifti import write_volume
from gyri.errors import UsageError
from gyri.reading.answers import Enter
from gyri.reading.folder import Folder, GriddedFolder, listing, nearest
from gyri.reading.guard import Guard, own_names
from gyri.reading.pages import add_pages

COOKIE = "gyri_view"


def create_app(
    folder: Folder,
    beside: Folder | None,
    token: str,
    host: str,
    port: int,
    names: Iterable[str] = (),
) -> Any:
    """Return the ASGI application that shows a folder.

    Parameters
    ----------
    folder : what is listed.
    beside : real volumes, of which the nearest is shown beside each; None shows none.
    token : opens the page; others on this machine do not know it.
    host, port, names : as for `gyri.reading.server.create_app`.

    Raises
    ------
    UsageError
        The two folders are not on one grid.
    """
    pair = _comparable(folder, beside)
    session = secrets.token_urlsafe(32)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def entered(request: Request) -> None:
        if not secrets.compare_digest(request.cookies.get(COOKIE, "").encode(), session.encode()):
            raise HTTPException(401, "no session")

    inside = [Depends(entered)]

    @app.post("/api/enter")
    def _(given: Enter, response: Response) -> dict[str, bool]:
        if not secrets.compare_digest(given.token.encode(), token.encode()):
            raise HTTPException(403, "unknown token")
        response.set_cookie(COOKIE, session, httponly=True, samesite="strict")
        return {"entered": True}

    @app.get("/api/list", dependencies=inside)
    def _() -> dict[str, Any]:
        return listing(folder) | {"beside": listing(beside) if beside else None}

    @app.get("/api/volume/{row}.nii", dependencies=inside)
    def _(row: int) -> Response:
        return _file(folder, row)

    @app.get("/api/beside/{row}.nii", dependencies=inside)
    def _(row: int) -> Response:
        if beside is None:
            raise HTTPException(404, "nothing beside")
        return _file(beside, row)

    @app.get("/api/nearest/{row}", dependencies=inside)
    def _(row: int) -> dict[str, Any]:
        if pair is None or not 0 <= row < len(folder.table):
            raise HTTPException(404, "no such case")
        return nearest(pair[0], row, pair[1])

    add_pages(app, "view.html")
    return Guard(app, own_names(host, port, names), lambda reason: None)


def _comparable(
    folder: Folder, beside: Folder | None
) -> tuple[GriddedFolder, GriddedFolder] | None:
    if beside is None:
        return None
    if not (isinstance(folder, GriddedFolder) and isinstance(beside, GriddedFolder)):
        raise UsageError(
            "--beside compares prepared and synthetic volumes; raw scans share no grid."
        )
    grids = [each.source.cohort.grid for each in (folder, beside)]
    if grids[0].shape != grids[1].shape:
        raise UsageError(
            f"--beside: {folder.name} has {grids[0].shape} voxels, {beside.name} has "
            f"{grids[1].shape}. Give the cohort that the model was trained on."
        )
    return folder, beside


def _file(folder: Folder, row: int) -> Response:
    if not 0 <= row < len(folder.table):
        raise HTTPException(404, "no such case")
    values, affine = folder.shown(row)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "case.nii"
        write_volume(path, values, affine, descrip="")
        return Response(path.read_bytes(), media_type="application/octet-stream")
