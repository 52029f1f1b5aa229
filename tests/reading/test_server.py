"""The readers' server by its requests: the whole course of a reading, and what is refused."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from gyri.errors import DataError
from gyri.reading.guard import MAX_BODY
from gyri.reading.ledger import Ledger
from gyri.reading.study import SCALES

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from gyri.reading.server import COOKIE, create_app

BASE = "http://127.0.0.1:8765"


def client(study) -> TestClient:
    return TestClient(create_app(study, "127.0.0.1", 8765), base_url=BASE)


def entered(study, tokens, reader="ann", consent=True) -> TestClient:
    page = client(study)
    assert page.post("/api/enter", json={"token": tokens(study)[reader]}).status_code == 200
    if consent:
        assert page.post("/api/consent", json={"agreed": True}).status_code == 200
    return page


def answer_to(trial, choice=0, **more):
    if trial["block"] == "ratings":
        faults = [
            {"name": "truncated", "place": [1.0, -2.5, 3.0]},
            {"name": "other", "place": None},
        ]
        return {
            "trial": trial["id"],
            "shown_ms": 900,
            "grades": dict.fromkeys(SCALES, 4),
            "faults": faults,
            **more,
        }
    sides = ("left", "right") if trial["block"] == "pairs" else ("real", "synthetic")
    return {"trial": trial["id"], "shown_ms": 900, "choice": sides[choice], **more}


def refusals(study) -> list[str]:
    ledger = Ledger(study / "sealed.sqlite")
    rows = ledger.rows("SELECT detail FROM log WHERE event = 'refused' ORDER BY seq")
    return [json.loads(row["detail"])["reason"] for row in rows]


def test_a_reader_finishes_and_comes_back(study, tokens):
    page = entered(study, tokens)
    state, seen = page.get("/api/state").json(), []
    while state["stage"] == "trial":
        trial = state["trials"][0]
        for case in trial["cases"]:
            volume = page.get(f"/api/case/{case}.nii")
            assert volume.status_code == 200
            assert len(volume.content) == 352 + 12 * 14 * 12
        seen.append(trial)
        if len(seen) == 5:  # closes the page, and comes back in another browser
            page = entered(study, tokens, consent=False)
            assert page.get("/api/state").json()["trials"][0] == trial
        state = page.post("/api/answer", json=answer_to(trial)).json()
    # 8 + 4 + 4, a quarter of each block once more
    assert [sum(t["block"] == b for t in seen) for b in ("yes_no", "pairs", "ratings")] == [
        10,
        5,
        5,
    ]
    assert len({case for trial in seen for case in trial["cases"]}) == 10 + 2 * 5 + 5
    assert state["stage"] == "done"
    assert state["receipt"] == Ledger(study / "sealed.sqlite").head()
    assert refusals(study) == []


def test_the_browser_never_learns_the_truth(study, tokens):
    page = entered(study, tokens)
    state = page.get("/api/state").json()
    assert set(state) == {
        "study",
        "reader",
        "pilot",
        "blocks",
        "scales",
        "faults",
        "stage",
        "trials",
    } - (set() if "pilot" in state else {"pilot"})
    assert all(set(trial) == {"id", "block", "cases"} for trial in state["trials"])
    ledger = Ledger(study / "sealed.sqlite")
    volumes = [row["id"] for row in ledger.rows("SELECT id FROM volumes")]
    assert not any(volume in json.dumps(state) for volume in volumes)
    reply = page.get(f"/api/case/{state['trials'][0]['cases'][0]}.nii")
    assert not any(volume in str(reply.headers) for volume in volumes)


def test_files_of_both_classes_are_equal_but_for_voxels(study):
    files = [path.read_bytes() for path in (study / "volumes").iterdir()]
    assert len({(len(file), file[:352]) for file in files}) == 1
    assert (study / "sealed.sqlite").stat().st_mode & 0o077 == 0
    assert (study / "readers.txt").stat().st_mode & 0o077 == 0


def test_other_cases_are_refused_and_logged(study, tokens):
    page = entered(study, tokens)
    ledger = Ledger(study / "sealed.sqlite")
    later = ledger.row(
        "SELECT c.id FROM cases c JOIN trials t ON t.id = c.trial "
        "WHERE t.reader = 'ann' AND t.position = 7"
    )["id"]
    other = ledger.row(
        "SELECT c.id FROM cases c JOIN trials t ON t.id = c.trial WHERE t.reader = 'ben'"
    )["id"]
    volume = ledger.row("SELECT id FROM volumes")["id"]
    for case in (later, other, volume, "0" * 32, "..%2f..%2fsealed", "%2e%2e%2fsealed.sqlite%00"):
        assert page.get(f"/api/case/{case}.nii").status_code == 404
    assert refusals(study).count("no such case") >= 4


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../../etc/passwd",
        "/static/..%2f..%2fsealed.sqlite",
        "/static/%2e%2e/new.py",
        "/static//etc/passwd",
        "/sealed.sqlite",
        "/readers.txt",
        "/volumes/",
        "/docs",
        "/openapi.json",
    ],
)
def test_paths_lead_nowhere(drawn, path):
    assert client(drawn).get(path).status_code == 404


def test_forged_tokens_and_sessions_are_refused(study, tokens):
    page = client(study)
    assert page.get("/api/state").status_code == 401
    assert page.post("/api/enter", json={"token": "x" * 32}).status_code == 403
    page.cookies.set(COOKIE, "forged")
    assert page.get("/api/state").status_code == 401
    real = entered(study, tokens)
    other = entered(study, tokens, consent=False)  # a new session ends the old one
    assert real.get("/api/state").status_code == 401
    assert other.get("/api/state").status_code == 200
    assert refusals(study) == ["unknown token"] + ["forged or ended session"] * 2


def test_nothing_is_shown_or_kept_before_consent(study, tokens):
    page = entered(study, tokens, consent=False)
    state = page.get("/api/state").json()
    assert state["stage"] == "consent"
    assert "trials" not in state
    trial = Ledger(study / "sealed.sqlite").row("SELECT id FROM trials WHERE reader = 'ann'")["id"]
    answer = {"trial": trial, "shown_ms": 1, "choice": "real"}
    assert page.post("/api/answer", json=answer).status_code == 403
    assert page.post("/api/consent", json={"agreed": False}).status_code == 422


def test_an_answer_is_taken_once_and_in_order(study, tokens):
    page = entered(study, tokens)
    first, second = page.get("/api/state").json()["trials"]
    assert page.post("/api/answer", json=answer_to(second)).status_code == 409
    assert page.post("/api/answer", json=answer_to(first)).status_code == 200
    assert page.post("/api/answer", json=answer_to(first, 1)).status_code == 409
    ben = entered(study, tokens, "ben")
    assert ben.post("/api/answer", json=answer_to(second)).status_code == 404
    rows = Ledger(study / "sealed.sqlite").rows("SELECT answer FROM answers")
    assert [json.loads(row["answer"])["choice"] for row in rows] == ["real"]
    assert refusals(study) == ["not the present trial", "answered before", "no such trial"]


def test_two_answers_at_once_keep_one(study, tokens):
    app = create_app(study, "127.0.0.1", 8765)
    page = TestClient(app, base_url=BASE)
    page.post("/api/enter", json={"token": tokens(study)["ann"]})
    trial = page.post("/api/consent", json={"agreed": True}).json()["trials"][0]
    codes = []
    threads = [
        threading.Thread(
            target=lambda k=k: codes.append(
                page.post("/api/answer", json=answer_to(trial, k % 2)).status_code
            )
        )
        for k in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] + [409] * 5
    assert (
        Ledger(study / "sealed.sqlite").verify(
            json.loads((study / "gyri-reading.json").read_text())["seal"]
        )
        == []
    )


@pytest.mark.parametrize(
    "change",
    [
        {"choice": "left"},
        {"choice": None},
        {"choice": "maybe"},
        {"shown_ms": -1},
        {"shown_ms": "9"},
        {"truth": "real"},
        {"grades": {"anatomy": 3}},
        {"trial": "../../x"},
    ],
)
def test_wrong_answers_are_no_answers(study, tokens, change):
    page = entered(study, tokens)
    trial = page.get("/api/state").json()["trials"][0]
    assert page.post("/api/answer", json=answer_to(trial) | change).status_code == 422
    assert Ledger(study / "sealed.sqlite").rows("SELECT * FROM answers") == []


@pytest.mark.parametrize(
    "change",
    [
        {"grades": dict.fromkeys(SCALES, 6)},
        {"grades": {"anatomy": 3}},
        {"choice": "real"},
        {"faults": [{"name": "nose"}]},
        {"faults": [{"name": "other", "place": [1.0, 2.0]}]},
        {"faults": [{"name": "other", "place": [1e9, 0.0, 0.0]}]},
        {"faults": [{"name": "other"}] * 2},
    ],
)
def test_wrong_ratings_are_no_ratings(study, tokens, change):
    page = entered(study, tokens)
    state = page.get("/api/state").json()
    while state["trials"][0]["block"] != "ratings":
        state = page.post("/api/answer", json=answer_to(state["trials"][0])).json()
    answer = answer_to(state["trials"][0])
    assert page.post("/api/answer", json=answer | change).status_code == 422
    assert page.post("/api/answer", json=answer).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1:1"}, 421),
        ({"host": "localhost.evil.example:8765"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_other_sites_and_hosts_are_refused(study, tokens, headers, status):
    page = entered(study, tokens)
    trial = page.get("/api/state").json()["trials"][0]
    body = json.dumps(answer_to(trial))
    sent = {"content-type": "application/json", **headers}
    assert page.post("/api/answer", content=body, headers=sent).status_code == status
    assert len(refusals(study)) == 1
    assert Ledger(study / "sealed.sqlite").rows("SELECT * FROM answers") == []


def test_own_origin_is_taken_and_other_methods_are_not(study, tokens):
    page = entered(study, tokens)
    trial = page.get("/api/state").json()["trials"][0]
    assert (
        page.post("/api/answer", json=answer_to(trial), headers={"origin": BASE}).status_code == 200
    )
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert page.request(method, "/api/answer").status_code == 405
    assert page.get("/api/state", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_oversize_bodies_are_refused(study, tokens):
    page = entered(study, tokens)
    json_type = {"content-type": "application/json"}
    large = b'{"trial": "' + b"0" * MAX_BODY + b'"}'
    assert page.post("/api/answer", content=large, headers=json_type).status_code == 413
    # without a declared length, in pieces
    pieces = (large[k : k + 1000] for k in range(0, len(large), 1000))
    assert page.post("/api/answer", content=pieces, headers=json_type).status_code == 413
    wrong = {**json_type, "content-length": "-1"}
    assert page.post("/api/answer", content=b"{}", headers=wrong).status_code == 413
    assert page.post("/api/answer", content=b"[" * 9000, headers=json_type).status_code == 400
    assert page.get("/api/state").status_code == 200


def test_pages_ask_for_nothing_from_outside(drawn):
    page = client(drawn)
    first = page.get("/")
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert first.headers["x-frame-options"] == "DENY"
    for name in ("read.js", "viewer.js", "pages.css", "view.html", "view.js"):
        text = page.get(f"/static/{name}")
        assert text.status_code == 200
        assert "://" not in text.text.replace("chrome://gpu", "")
    library = page.get("/static/niivue-0.69.0.js")
    assert "immutable" in library.headers["cache-control"]


def test_the_library_is_the_one_that_is_named(drawn):
    import hashlib
    from pathlib import Path

    import gyri.reading

    static = Path(gyri.reading.__file__).parent / "static"
    digest = hashlib.sha256((static / "niivue-0.69.0.js").read_bytes()).hexdigest()
    text = (static / "niivue-0.69.0.txt").read_text()
    assert digest in text
    assert "BSD 2-Clause" in text


def test_a_changed_ledger_is_not_served(study, tokens):
    page = entered(study, tokens)
    trial = page.get("/api/state").json()["trials"][0]
    page.post("/api/answer", json=answer_to(trial))
    ledger = Ledger(study / "sealed.sqlite")
    ledger.rows(
        "UPDATE log SET detail = replace(detail, 'real', 'synthetic') WHERE event = 'answered'"
    )
    with pytest.raises(DataError, match="log was changed"):
        create_app(study, "127.0.0.1", 8765)


def test_serve_listens_on_loopback_and_prints_links(drawn, study, capsys):
    from gyri.reading import serve

    found = threading.Event()
    address = []

    def ready(where):
        address.append(where)
        found.set()

    threading.Thread(
        target=lambda: serve.listen(
            lambda port: create_app(study, "127.0.0.1", port), "127.0.0.1", 0, ready
        ),
        daemon=True,
    ).start()
    assert found.wait(20)
    port = int(address[0].rsplit(":", 1)[1].rstrip("/"))
    assert address[0].startswith("http://127.0.0.1:")
    time.sleep(0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(
            f"GET /static/../../sealed.sqlite HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        reply = b""
        while part := raw.recv(65536):
            reply += part
    assert reply.startswith(b"HTTP/1.1 404")
    assert b"SQLite" not in reply
