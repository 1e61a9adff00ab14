"""The server as a whole: what errors become, what is unknown, two servers on one run, a full disk."""

import sqlite3

import pytest

from mightnt.desk.server.app import ROUTES, _route
from mightnt.desk.store import StoreError, open_store
from mightnt.errors import InputError
from tests.desk.server.fakes import serving


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path) as server:
        yield server


def test_unknown_paths_and_methods_are_refused_in_json(served):
    with served.http() as http:
        for path in ("/nothing", "/v1", "/v1/chat", "/desk/events/x", "/v1/models/", "/desk/tickets"):
            response = http.get(path)
            assert response.status_code == 404, path
            assert response.json()["error"]["message"]
        wrong = http.delete("/v1/chat/completions")
        assert wrong.status_code == 405
        assert "POST" in wrong.headers["allow"]


def test_a_store_that_cannot_be_written_is_503_and_nothing_is_said(served, monkeypatch):
    def full(*arguments):
        raise StoreError("the disk is full")

    for method in ("open_conversation", "charge"):
        with monkeypatch.context() as patch:
            patch.setattr(served.store, method, full)
            response = served.chat("hello", headers={"X-Conversation": method})
            assert response.status_code == 503
            assert "turn 0" not in response.text
        assert served.chat("hello", headers={"X-Conversation": method}).status_code == 200


def test_a_decision_that_was_not_kept_is_not_acknowledged(served, monkeypatch):
    number = served.chat("ask").json()["mightnt"]["ticket"]

    def full(*arguments):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(served.store, "decide", full)
        assert served.decide(number, text=" yes").status_code == 503
    assert served.store.ticket(number).state == "waiting"
    assert served.decide(number, text=" yes").status_code == 200


def test_what_nobody_foresaw_is_500_without_its_words(served, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(served.store, "ticket", broken)
    with served.http() as http:
        response = http.get("/v1/tickets/0123")
    assert response.status_code == 500
    assert "secret" not in response.text


def test_two_servers_on_one_run(served):
    with pytest.raises(InputError, match="another server"), open_store(served.folder):
        pass


def test_the_files_of_a_run_are_sound_afterwards(tmp_path):
    with serving(tmp_path) as served:
        for _ in range(3):
            served.chat("ask")
    for name in ("desk.sqlite", "turns.sqlite"):
        db = sqlite3.connect(tmp_path / name)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()


def test_paths_are_counted_under_few_names():
    assert _route("/v1/tickets/0123") == "/v1/tickets"
    assert _route("/desk/tickets/x/decide") == "/desk"
    assert {_route(path) for path in ("/x", "/v1", "/deskx", "/")} == {"other"}
    assert all(_route(route) == route for route in ROUTES)
