"""Who may come in: addresses, tokens and rights, foreign pages, rates."""

import hmac
import itertools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.desk.server import safety
from mightnt.desk.server.refusal import Refusal
from mightnt.desk.server.safety import (
    COOKIE,
    RIGHTS,
    Guard,
    Rates,
    fingerprint,
    holder_of,
    holder_of_session,
    is_own,
    read_tokens,
    session_of,
)
from mightnt.errors import InputError
from tests.desk.server.fakes import CLIENT, DEMONSTRATOR, said, serving

CHAT = {"model": "fake", "messages": said("hello")}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# who\nclient app {CLIENT}\n\ndemonstrator ann {DEMONSTRATOR}  # the first\n")
    return path


@pytest.fixture
def guarded(tokens, tmp_path):
    (tmp_path / "run").mkdir()
    guard = Guard(read_tokens(tokens), own_machine=False, calls=Rates(1e6, 1e6))
    with serving(tmp_path / "run", guard=guard) as served:
        yield served


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path) as server:
        yield server


class TestTokens:
    def test_each_right_opens_its_own_doors_only(self, guarded):
        with guarded.http() as http:
            for headers, chat, desk in (({}, 401, 401), (bearer("x" * 30), 401, 401), (bearer(CLIENT), 200, 403),
                                        (bearer(DEMONSTRATOR), 403, 200)):  # fmt: skip
                assert http.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == chat
                assert http.get("/v1/models", headers=headers).status_code == chat
                assert http.get("/v1/tickets/0123", headers=headers).status_code == {200: 404}.get(chat, chat)
                assert http.get("/desk/me", headers=headers).status_code == desk
                assert http.get("/desk/tickets/0123", headers=headers).status_code == {200: 404}.get(desk, desk)
                assert http.get("/metrics", headers=headers).status_code == (200 if 200 in (chat, desk) else 401)
            for path in ("/desk", "/desk/desk.js", "/healthz", "/openapi.json"):
                assert http.get(path).status_code == 200

    @pytest.mark.parametrize("method", ["decide", "undo"])
    def test_a_client_cannot_decide(self, guarded, method):
        number = guarded.chat("ask", headers=bearer(CLIENT)).json()["mightnt"]["ticket"]
        body = {"verdict": "answer", "key": "12345678", "text": "yes"} if method == "decide" else {}
        with guarded.http() as http:
            refused = http.post(f"/desk/tickets/{number}/{method}", json=body, headers=bearer(CLIENT))
        assert refused.status_code == 403
        assert guarded.store.ticket(number).state == "waiting"

    def test_the_name_is_that_of_the_token(self, guarded):
        number = guarded.chat("ask", headers=bearer(CLIENT)).json()["mightnt"]["ticket"]
        decided = guarded.decide(number, text="yes", headers=bearer(DEMONSTRATOR), person="bob")
        assert decided.json()["decided_by"] == "ann"

    def test_a_cookie_instead_of_the_token(self, guarded):
        number = guarded.chat("ask", headers=bearer(CLIENT)).json()["mightnt"]["ticket"]
        with guarded.http() as http:
            assert http.post("/desk/login", json={"token": CLIENT}).status_code == 401
            login = http.post("/desk/login", json={"token": DEMONSTRATOR})
            cookie = login.headers["set-cookie"].lower()
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert DEMONSTRATOR not in cookie
            body = {"verdict": "refuse", "key": "12345678"}
            assert http.post(f"/desk/tickets/{number}/decide", json=body).status_code == 403  # no stamp
            stamp = {"X-Desk-Stamp": http.get("/desk/me").json()["stamp"]}
            assert http.post("/v1/chat/completions", json=CHAT).status_code == 401  # a cookie is no client
            assert http.post(f"/desk/tickets/{number}/decide", json=body, headers=stamp).status_code == 200

    def test_signing_in_cannot_be_tried_often(self, guarded):
        with guarded.http() as http:
            statuses = [http.post("/desk/login", json={"token": "guess"}).status_code for _ in range(8)]
        assert statuses[:5] == [401] * 5
        assert 429 in statuses[5:]

    def test_nothing_says_a_token(self, guarded, caplog):
        caplog.set_level(logging.DEBUG)
        wrong = "wrong-token-0123456789"
        with guarded.http() as http:
            http.post("/desk/login", json={"token": DEMONSTRATOR})
            texts = [
                http.get("/desk/me", headers=bearer(wrong)).text,
                http.get("/metrics", headers=bearer(CLIENT)).text,
            ]
        logged = "\n".join(
            record.getMessage() for record in caplog.records if record.name.startswith(("mightnt", "uvicorn"))
        )
        for secret in (DEMONSTRATOR, CLIENT, wrong):
            assert secret not in logged + "".join(texts) + repr(read_tokens(guarded.folder.parent / "tokens"))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("client app short\n", "5 characters"),
            (f"admin app {CLIENT}\n", ":1: should be"),
            (f"client app {CLIENT} more\n", ":1: should be"),
            (f"client app {CLIENT}\n", "no token for a demonstrator"),
            (f"client app {CLIENT}\ndemonstrator ann {CLIENT}\n", "of its own"),
            ("", "no token for a client"),
        ],
    )
    def test_a_file_that_does_not_do(self, tmp_path, text, says):
        path = tmp_path / "bad"
        path.write_text(text)
        with pytest.raises(InputError, match=says) as caught:
            read_tokens(path)
        assert CLIENT not in str(caught.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_tokens(tmp_path / "none")

    def test_every_comparison_is_made_in_constant_time(self, tokens, monkeypatch):
        compared = []
        real = hmac.compare_digest
        monkeypatch.setattr(safety.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
        holders = read_tokens(tokens)
        for token in (CLIENT, DEMONSTRATOR, "", "x"):
            compared.clear()
            holder_of(token, "client", holders)
            assert [b for _, b in compared] == [fingerprint(CLIENT), fingerprint(DEMONSTRATOR)]
            assert all(len(a) == 32 for a, _ in compared)

    @given(st.text(max_size=40))
    def test_only_a_token_is_a_token(self, text):
        holders = (safety.Holder("client", "app", fingerprint(CLIENT)),)
        for right in RIGHTS:
            assert (holder_of(text, right, holders) is None) == (text != CLIENT or right != "client")


class TestSessions:
    ANN = safety.Holder("demonstrator", "ann", fingerprint(DEMONSTRATOR))

    def test_it_holds_until_it_expires_and_for_this_token(self):
        cookie = session_of(self.ANN, 1000.0)
        assert holder_of_session(cookie, (self.ANN,), 1001.0) == self.ANN
        assert holder_of_session(cookie, (self.ANN,), 1000.0 + safety.SESSION_SECONDS + 1) is None
        other = safety.Holder("demonstrator", "ann", fingerprint("another-token-0123456789"))
        assert holder_of_session(cookie, (other,), 1001.0) is None
        client = safety.Holder("client", "ann", fingerprint(DEMONSTRATOR))
        assert holder_of_session(cookie, (client,), 1001.0) is None

    def test_it_cannot_be_changed(self):
        cookie = session_of(self.ANN, 1000.0)
        name, expires, mark = cookie.split(".")
        for forged in (f"{name}.{int(expires) + 1}.{mark}", f"{name}.{expires}.", "", "..", f"é.{expires}.{mark}"):
            assert holder_of_session(forged, (self.ANN,), 1001.0) is None

    @given(st.text(max_size=100))
    def test_no_text_is_a_session(self, text):
        assert holder_of_session(text, (self.ANN,), 0.0) is None


class TestForeignPages:
    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]"])
    def test_another_name_does_not_reach_this_machine(self, served, host):
        with served.http(headers={"Host": host}) as http:
            for path in ("/desk/me", "/v1/models", "/desk", "/metrics"):
                assert http.get(path).status_code in (400, 421)  # 400: no host at all

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "localhost:1234"])
    def test_its_own_names_do(self, served, host):
        with served.http(headers={"Host": host}) as http:
            assert http.get("/v1/models").status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_a_page_from_elsewhere_can_neither_call_nor_decide(self, served, headers):
        number = served.chat("ask").json()["mightnt"]["ticket"]
        assert served.decide(number, "refuse", headers=headers).status_code == 403
        assert served.chat("hello", headers=headers).status_code == 403
        assert served.store.ticket(number).state == "waiting"

    def test_its_own_page_can(self, served):
        number = served.chat("ask").json()["mightnt"]["ticket"]
        headers = {"Origin": served.url, "Sec-Fetch-Site": "same-origin"}
        assert served.decide(number, "refuse", headers=headers).status_code == 200

    @pytest.mark.parametrize("stamp", [None, "", "0" * 64, "é"])
    def test_without_its_stamp_nothing_is_decided(self, served, stamp):
        number = served.chat("ask").json()["mightnt"]["ticket"]
        headers = {} if stamp is None else {"X-Desk-Stamp": stamp.encode()}
        with served.http() as http:
            for what, body in (("decide", {"verdict": "refuse", "key": "12345678"}), ("undo", {})):
                assert http.post(f"/desk/tickets/{number}/{what}", json=body, headers=headers).status_code == 403

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    )
    def test_what_a_form_can_send_is_not_heard(self, served, kind):
        with served.http() as http:
            for path in ("/v1/chat/completions", "/desk/login"):
                assert http.post(path, content=b"{}", headers={"Content-Type": kind}).status_code == 415

    def test_every_answer_forbids_what_it_can(self, served):
        with served.http() as http:
            for path in ("/desk", "/desk/me", "/nothing", "/v1/models", "/desk/desk.js"):
                headers = http.get(path).headers
                policy = headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
                assert "*" not in policy
                assert headers["x-content-type-options"] == "nosniff"
                assert "access-control-allow-origin" not in headers

    def test_the_page_asks_for_nothing_that_its_policy_forbids(self, served):
        with served.http() as http:
            html, script, style = (http.get(path).text for path in ("/desk", "/desk/desk.js", "/desk/desk.css"))
        assert " style=" not in html
        assert "<script>" not in html
        assert " onclick" not in html
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
            assert sink not in script
        assert "http" not in style
        assert "url(" not in style


class TestRates:
    def test_some_at_once_then_so_many_a_second(self):
        time = [0.0]
        rates = Rates(2.0, 3.0, lambda: time[0])
        for _ in range(3):
            rates.take("a")
        with pytest.raises(Refusal) as caught:
            rates.take("a")
        assert caught.value.status == 429
        rates.take("b")
        time[0] = 0.5
        rates.take("a")
        with pytest.raises(Refusal):
            rates.take("a")

    @given(st.lists(st.floats(0, 2), max_size=60))
    def test_never_more_than_burst_and_rate(self, pauses):
        times = list(itertools.accumulate(pauses))
        now, taken = [0.0], []
        rates = Rates(1.0, 2.0, lambda: now[0])
        for time in times:
            now[0] = time
            try:
                rates.take("a")
                taken.append(time)
            except Refusal:
                pass
        for i, first in enumerate(taken):
            for j in range(i, len(taken)):
                assert j - i + 1 <= 2 + (taken[j] - first) * 1.0 + 1e-9

    def test_it_forgets(self, monkeypatch):
        monkeypatch.setattr(safety, "MOST_CALLERS", 3)
        rates = Rates(1.0, 1.0)
        for name in "abcde":
            rates.take(name)
        assert list(rates.left) == ["c", "d", "e"]

    def test_a_caller_that_hurries_is_told_when_to_come_again(self, tmp_path):
        with serving(tmp_path, guard=Guard(calls=Rates(1.0, 3.0))) as served, served.http() as http:
            responses = [http.get("/healthz") for _ in range(6)]
        assert responses[-1].status_code == 429
        assert int(responses[-1].headers["retry-after"]) >= 1


def test_own_addresses():
    assert [is_own(host) for host in ("127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost")] == [True] * 5
    assert [is_own(host) for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.evil")] == [False] * 5


def test_a_stamp_belongs_to_a_session(guarded):
    with guarded.http() as http:
        stamps = []
        for _ in range(2):
            http.cookies.clear()
            http.post("/desk/login", json={"token": DEMONSTRATOR})
            stamps.append(http.get("/desk/me").json()["stamp"])
            http.cookies.set(COOKIE, "none")
        assert http.get("/desk/me", headers=bearer(DEMONSTRATOR)).json()["stamp"] != stamps[-1]
