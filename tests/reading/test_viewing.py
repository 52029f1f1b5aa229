from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import DataError, UsageError
from gyri.reading.folder import listing, nearest, open_folder

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from gyri.reading.viewing import create_app

BASE = "http://127.0.0.1:8766"


def client(folder, beside=None, token="secret") -> TestClient:
    page = TestClient(create_app(folder, beside, "secret", "127.0.0.1", 8766), base_url=BASE)
    page.post("/api/enter", json={"token": token})
    return page


def test_a_folder_is_listed_with_its_conditions(samples):
    listed = listing(open_folder(samples))
    assert listed["kind"] == "synthetic"
    assert len(listed["cases"]) == 48
    age, sex = listed["columns"]
    assert (age["name"], sex["levels"]) == ("age", ["F", "M"])
    assert age["low"] <= listed["cases"][0]["facts"]["age"] <= age["high"]


def test_volumes_and_nearest_are_served(samples, cohort):
    page = client(open_folder(samples), open_folder(cohort))
    assert page.get("/api/list").json()["beside"]["kind"] == "prepared"
    assert len(page.get("/api/volume/3.nii").content) == 352 + 12 * 14 * 12
    near = page.get("/api/nearest/3").json()
    assert -1 <= near["correlation"] <= 1
    assert page.get(f"/api/beside/{near['row']}.nii").status_code == 200
    for path in ("volume/48.nii", "volume/-1.nii", "beside/999.nii", "nearest/48", "nearest/-1"):
        assert page.get(f"/api/{path}").status_code == 404
    assert page.get("/api/volume/../../x.nii").status_code == 404


def test_the_nearest_of_a_folder_to_itself_is_itself(cohort):
    folder = open_folder(cohort)
    assert all(nearest(folder, row, folder)["row"] == row for row in (0, 7, 30))


def test_nobody_enters_without_the_token(samples):
    page = client(open_folder(samples), token="guess")
    for path in ("/api/list", "/api/volume/0.nii", "/api/beside/0.nii", "/api/nearest/0"):
        assert page.get(path).status_code == 401
    entered = client(open_folder(samples))
    assert entered.get("/api/list").status_code == 200
    assert entered.get("/api/list", headers={"host": "evil.example"}).status_code == 421
    assert entered.get("/api/nearest/0").status_code == 404  # nothing beside


def test_a_raw_cohort_is_shown_too(tiny_cohort):
    raw = open_folder(tiny_cohort.parent / "raw")
    assert raw.kind == "raw"
    values, affine = raw.shown(0)
    assert values.dtype == np.uint8
    assert values.max() == 255
    assert affine.shape == (4, 4)
    assert len(listing(raw)["cases"]) == 14
    with pytest.raises(UsageError, match="share no grid"):
        create_app(raw, raw, "secret", "127.0.0.1", 8766)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="no prepared cohort, no synthetic folder"):
        open_folder(tmp_path)
