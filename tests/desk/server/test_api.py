"""What clients see: the real OpenAI client and raw requests, with and without streaming, with and without a person."""

import asyncio
import json
import threading
import time

import httpx
import openai
import pytest

from mightnt.desk.server.conversations import Terms
from tests.desk.server.fakes import FakeSpeaker, said, serving

USER = [{"role": "user", "content": "hello"}]
ASK = [{"role": "user", "content": "ask me"}]


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path) as server:
        yield server


@pytest.fixture
def client(served):
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def later(seconds, do):
    threading.Timer(seconds, do).start()


def answer_next(served, text=" stay.", verdict="answer"):
    """Decide the next question in a thread."""
    thread = threading.Thread(target=lambda: served.decide(served.waiting()[0].number, verdict, text))
    thread.start()
    return thread


class TestWithTheRealClient:
    def test_models(self, client):
        assert [model.id for model in client.models.list()] == ["fake"]
        assert client.models.retrieve("fake").id == "fake"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other")

    def test_a_turn_says_its_words_and_its_account(self, client, served):
        completion = client.chat.completions.create(model="fake", messages=USER)
        (choice,) = completion.choices
        seed = served.speaker.begun[0][3]
        assert choice.message.content == f"turn 0 seed {seed} heard 1"
        assert choice.finish_reason == "stop"
        assert completion.usage.completion_tokens == 3
        own = completion.model_extra["mightnt"]
        assert (own["limit_nats"], own["spent_nats"], own["left_nats"]) == (4.0, 0.75, 3.25)
        assert (own["asked"], own["ticket"], own["turn"]) == (False, None, 0)

    def test_a_person_is_asked_and_the_call_waits(self, client, served):
        thread = answer_next(served)
        completion = client.chat.completions.create(model="fake", messages=ASK)
        thread.join()
        assert completion.choices[0].message.content == "I would stay."
        assert completion.choices[0].finish_reason == "stop"
        assert completion.model_extra["mightnt"]["asked"]
        assert completion.model_extra["mightnt"]["spent_nats"] == 0.5  # the person's words are free
        assert served.heard_answers(1) == [" stay."]

    def test_nobody_answers_in_time_then_the_ticket_does(self, client, served):
        completion = client.chat.completions.create(
            model="fake", messages=ASK, extra_body={"mightnt": {"wait_seconds": 0.1}}
        )
        assert completion.choices[0].finish_reason == "ask"
        assert completion.choices[0].message.content == ""
        number = completion.model_extra["mightnt"]["ticket"]
        with served.http() as http:
            ticket = http.get(f"/v1/tickets/{number}").json()
            assert ticket["state"] == "waiting"
            assert ticket["completion"] is None
            served.decide(number, text=" stay.")
            ticket = http.get(f"/v1/tickets/{number}", params={"wait_seconds": 5}).json()
        assert ticket["state"] == "answered"
        assert ticket["completion"]["choices"][0]["message"]["content"] == "I would stay."
        again = client.chat.completions.create(
            model="fake", messages=ASK, extra_headers={"X-Conversation": ticket["conversation"]}
        )
        assert again.choices[0].message.content == "I would stay."
        assert len(served.speaker.begun) == 1

    def test_streaming(self, client, served):
        stream = client.chat.completions.create(
            model="fake", messages=USER, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
        assert words == ["turn 0", f" seed {served.speaker.begun[0][3]}", " heard 1"]
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-2].model_extra["mightnt"]["spent_nats"] == 0.75
        assert chunks[-1].usage.completion_tokens == 3

    def test_streaming_a_question(self, client, served):
        thread = answer_next(served)
        words, tickets = [], []
        for chunk in client.chat.completions.create(model="fake", messages=ASK, stream=True):
            words.append(chunk.choices[0].delta.content or "")
            tickets.append((chunk.model_extra.get("mightnt") or {}).get("ticket"))
        thread.join()
        assert "".join(words) == "I would stay."
        assert len({number for number in tickets if number}) == 1

    @pytest.mark.parametrize(("verdict", "reason"), [("refuse", "refused"), ("stop", "stopped")])
    @pytest.mark.parametrize("stream", [False, True])
    def test_no_answer_no_act(self, client, served, verdict, reason, stream):
        thread = answer_next(served, "", verdict)
        result = client.chat.completions.create(model="fake", messages=ASK, stream=stream)
        thread.join()
        if stream:
            assert [chunk.choices[0].finish_reason for chunk in result][-1] == reason
        else:
            assert result.choices[0].finish_reason == reason
            assert result.choices[0].message.content == ""

    def test_the_clients_own_helper_for_streams_takes_our_finish_reasons(self, client, served):
        with client.chat.completions.stream(
            model="fake", messages=ASK, extra_body={"mightnt": {"wait_seconds": 0}}
        ) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].finish_reason == "ask"

    def test_the_asynchronous_client(self, served):
        async def words():
            async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
                completion = await client.chat.completions.create(model="fake", messages=USER)
                return completion.choices[0].message.content

        assert asyncio.run(words()).startswith("turn 0")

    def test_errors_are_the_clients_own(self, client):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt", messages=USER)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="fake", messages=USER, temperature=0.2)


class TestAccounts:
    def test_it_goes_on_by_name(self, served):
        header = {"X-Conversation": "talk-1"}
        first = served.chat("a", headers=header).json()
        words = first["choices"][0]["message"]["content"]
        second = served.chat("a", words, "b", headers=header).json()
        assert second["mightnt"]["conversation"] == "talk-1"
        assert second["mightnt"]["spent_nats"] == 1.5
        assert second["mightnt"]["turn"] == 1
        assert [begun[1:3] for begun in served.speaker.begun] == [(0.0, 0), (0.75, 1)]

    def test_it_goes_on_by_metadata(self, served):
        first = served.chat("a", metadata={"conversation": "m"}).json()
        words = first["choices"][0]["message"]["content"]
        assert served.chat("a", words, "b", metadata={"conversation": "m"}).json()["mightnt"]["spent_nats"] == 1.5

    def test_it_goes_on_by_history_alone(self, served):
        first = served.chat("a")
        name = first.headers["x-conversation"]
        words = first.json()["choices"][0]["message"]["content"]
        second = served.chat("a", words, "b")
        assert second.headers["x-conversation"] == name
        assert second.json()["mightnt"]["spent_nats"] == 1.5

    def test_a_new_conversation_has_a_name_and_a_budget_of_its_own(self, served):
        names = {served.chat("a").headers["x-conversation"] for _ in range(3)}
        assert len(names) == 3

    @pytest.mark.parametrize("named", [True, False])
    def test_no_other_history_refills_it(self, served, named):
        first = served.chat("a", headers={"X-Conversation": "n"} if named else {})
        header = {"X-Conversation": "n"} if named else {}
        words = first.json()["choices"][0]["message"]["content"]
        served.chat("a", words, "b", headers=header)
        n_begun = len(served.speaker.begun)
        others = [("a", words, "c"), ("a", "other words", "b"), ("other", words, "b"), ("a", words, "b", "no", "d")]
        for messages in others:
            refused = served.chat(*messages, headers=header)
            assert refused.status_code == 409, messages
            assert refused.headers["x-should-retry"] == "false"
        if named:
            assert served.chat("other", headers=header).status_code == 409
        assert len(served.speaker.begun) == n_begun

    def test_the_same_turn_again_is_the_same_words_and_free(self, served):
        first, second = (served.chat("a", headers={"X-Conversation": "same"}).json() for _ in range(2))
        assert first == second
        assert len(served.speaker.begun) == 1

    def test_when_nothing_is_left_the_demonstrator_speaks(self, served):
        history, header = [], {"X-Conversation": "spender"}
        for turn in range(5):
            history.append("more")
            body = served.chat(*history, headers=header).json()
            history.append(body["choices"][0]["message"]["content"])
            assert body["mightnt"]["spent_nats"] == 0.75 * (turn + 1)
        body = served.chat(*history, "more", headers=header).json()
        assert body["choices"][0]["finish_reason"] == "ask"
        assert body["mightnt"]["spent_nats"] == 4.0
        assert body["mightnt"]["left_nats"] == 0.0

    def test_a_speaker_that_spends_too_much_is_not_heard(self, served):
        refused = served.chat("spend", headers={"X-Conversation": "x"})
        assert refused.status_code == 500
        assert "turn 0" not in refused.text
        assert served.store.account("x").spent_nats == 0

    def test_after_a_stop_the_conversation_is_over(self, served):
        thread = answer_next(served, "", "stop")
        served.chat("ask", headers={"X-Conversation": "over"}, wait=5)
        thread.join()
        refused = served.chat("ask", "", "please", headers={"X-Conversation": "over"})
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "stopped"

    @pytest.mark.parametrize("repeats", [(), ("",), ("I would",)])
    def test_after_a_refusal_it_goes_on_as_if_nothing_was_said(self, served, repeats):
        thread = answer_next(served, "", "refuse")
        served.chat("ask", headers={"X-Conversation": "no"}, wait=5)
        thread.join()
        body = {"model": "fake", "messages": [said("ask")[0], *[{"role": "assistant", "content": r} for r in repeats]]}
        body["messages"].append({"role": "user", "content": "well"})
        with served.http() as http:
            reply = http.post("/v1/chat/completions", json=body, headers={"X-Conversation": "no"}).json()
        assert reply["choices"][0]["finish_reason"] == "stop"
        messages, spent_nats, turn, _, answered = served.speaker.begun[-1]
        assert [message.content for message in messages] == ["ask", "well"]
        assert (spent_nats, turn, answered) == (0.5, 1, {})

    def test_the_speaker_learns_whose_words_they_were(self, served):
        thread = answer_next(served)
        header = {"X-Conversation": "whose"}
        words = served.chat("ask", headers=header, wait=5).json()["choices"][0]["message"]["content"]
        thread.join()
        served.chat("ask", words, "and", headers=header)
        assert served.speaker.begun[-1][4] == {1: "I would"}


class TestQuestions:
    def test_a_repeated_call_is_one_question(self, served):
        for _ in range(3):
            served.chat("ask", headers={"Idempotency-Key": "k1"})
        assert len(served.waiting()) == 1
        assert len(served.speaker.begun) == 1

    def test_calls_at_once_are_one_question(self, served):
        threads = [
            threading.Thread(target=served.chat, args=("ask",), kwargs={"headers": {"Idempotency-Key": "k2"}})
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(served.waiting()) == 1
        assert len(served.speaker.begun) == 1

    def test_the_key_with_other_words_is_refused(self, served):
        served.chat("ask", headers={"Idempotency-Key": "k3"})
        assert served.chat("ask other", headers={"Idempotency-Key": "k3"}).status_code == 409

    def test_other_words_while_a_question_waits_are_refused(self, served):
        served.chat("ask", headers={"X-Conversation": "w"})
        assert served.chat("ask", "", "quick", headers={"X-Conversation": "w"}).status_code == 409

    def test_a_question_expires_and_says_so(self, tmp_path):
        from mightnt.desk.rota import Rota, Shift

        (tmp_path / "run").mkdir()
        with serving(tmp_path / "run", rota=Rota((Shift("ann", 0.2), Shift("bob", 0.2)))) as served:
            body = served.chat("ask", wait=5).json()
            assert body["choices"][0]["finish_reason"] == "expired"
            assert body["choices"][0]["message"]["content"] == ""

    def test_the_inquiry_is_whole(self, served):
        served.chat("ask", headers={"X-Conversation": "c9"})
        inquiry = served.waiting()[0].inquiry
        assert (inquiry.conversation, inquiry.turn, inquiry.begun) == ("c9", 0, "I would")
        assert (inquiry.limit_nats, inquiry.left_nats) == (4.0, 3.5)

    def test_it_survives_a_restart(self, tmp_path):
        with serving(tmp_path) as served:
            number = served.chat("ask", headers={"X-Conversation": "r"}).json()["mightnt"]["ticket"]
        with serving(tmp_path, FakeSpeaker()) as served:
            served.decide(number, text=" stay.")
            body = served.chat("ask", headers={"X-Conversation": "r"}, wait=5).json()
            assert body["choices"][0]["message"]["content"] == "I would stay."
            assert served.speaker.begun == []
            assert served.chat("ask", "I would stay.", "b", headers={"X-Conversation": "r"}).status_code == 200
            assert served.speaker.begun[0][1] == 0.5

    def test_a_foreign_ticket(self, served):
        with served.http() as http:
            assert http.get("/v1/tickets/0123456789abcdef").status_code == 404
            assert http.get("/v1/tickets/%2e%2e%2f").status_code == 404


class TestStreams:
    def test_a_heartbeat_while_waiting(self, served, monkeypatch):
        monkeypatch.setattr("mightnt.desk.server.api.HEARTBEAT_SECONDS", 0.05)
        body = {"model": "fake", "messages": ASK, "stream": True, "mightnt": {"wait_seconds": 0.3}}
        with served.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line for line in response.iter_lines() if line]
        assert lines.count(": waiting") >= 3
        assert lines[-1] == "data: [DONE]"
        assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "ask"

    def test_words_come_as_they_are_said(self, tmp_path):
        with serving(tmp_path, FakeSpeaker(piece_seconds=0.2)) as served:
            body = {"model": "fake", "messages": USER, "stream": True}
            times = []
            with served.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
                for line in response.iter_lines():
                    if '"content": "' in line:
                        times.append(time.monotonic())
        assert len(times) == 4  # who speaks, and three pieces
        assert times[-1] - times[1] > 0.3

    def test_a_client_that_leaves_does_not_stop_the_turn(self, tmp_path):
        with serving(tmp_path, FakeSpeaker(piece_seconds=0.1)) as served:
            body = {"model": "fake", "messages": USER, "stream": True}
            headers = {"X-Conversation": "gone"}
            with (
                served.http() as http,
                http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response,
            ):
                next(response.iter_lines())
            until = time.monotonic() + 5
            while served.store.account("gone").spent_nats < 0.75:
                assert time.monotonic() < until
                time.sleep(0.02)
            assert served.chat("hello", headers=headers).json()["mightnt"]["spent_nats"] == 0.75
            assert len(served.speaker.begun) == 1

    def test_a_turn_that_fails_half_way_ends_the_stream_with_an_error(self, served):
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.APIError) as caught:
            list(
                client.chat.completions.create(
                    model="fake", messages=[{"role": "user", "content": "fail"}], stream=True
                )
            )
        assert "secret" not in str(caught.value)

    def test_what_cannot_be_read_is_the_clients_fault_and_leaves_no_trace(self, served):
        for stream in (False, True):
            refused = served.chat("unreadable", stream=stream, headers={"X-Conversation": "u"})
            assert refused.status_code == 400
        assert served.chat("hello", headers={"X-Conversation": "u"}).status_code == 200


class TestLimits:
    def test_tokens(self, served):
        body = served.chat("hello", max_tokens=2).json()
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["completion_tokens"] == 2
        assert body["mightnt"]["spent_nats"] == 0.5

    def test_too_many_turns_at_once(self, tmp_path):
        terms = Terms(most_queued=2, tick_seconds=0.02)
        with serving(tmp_path, FakeSpeaker(piece_seconds=0.2), terms) as served:
            threads = [threading.Thread(target=served.chat, args=("hello",)) for _ in range(2)]
            for thread in threads:
                thread.start()
            until = time.monotonic() + 5
            while len(served.speaker.begun) < 1:
                assert time.monotonic() < until
                time.sleep(0.01)
            time.sleep(0.1)
            refused = served.chat("hello")
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            for thread in threads:
                thread.join()
            assert served.speaker.most_at_once == 1

    def test_too_many_questions(self, tmp_path):
        with serving(tmp_path, terms=Terms(most_waiting=2, tick_seconds=0.02)) as served:
            for _ in range(2):
                assert served.chat("ask").status_code == 200
            assert served.chat("ask").status_code == 429

    def test_waiting_too_long(self, served):
        assert served.chat("hello", wait=601).status_code == 400

    def test_width_is_how_many_speak_at_once(self, tmp_path):
        speaker = FakeSpeaker(piece_seconds=0.1)
        with serving(tmp_path, speaker, Terms(width=3, tick_seconds=0.02)) as served:
            threads = [threading.Thread(target=served.chat, args=("hello",)) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert speaker.most_at_once == 3


def test_health_and_headers(served):
    response = httpx.get(f"{served.url}/healthz")
    assert response.json() == {"status": "ok"}
    assert response.headers["content-security-policy"].startswith("default-src 'none'")


def test_metrics_count_what_happened(served):
    served.chat("hello")
    number = served.chat("ask").json()["mightnt"]["ticket"]
    text = httpx.get(f"{served.url}/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines["mightnt_asks_total"]) == 1
    assert float(lines["mightnt_waiting"]) == 1
    assert float(lines["mightnt_spent_nats_total"]) == 1.25
    assert float(lines["mightnt_tokens_total"]) == 5
    assert float(lines['mightnt_turns_total{reason="stop"}']) == 1
    assert float(lines["mightnt_turn_seconds_count"]) == 2
    served.decide(number, "refuse")
    until = time.monotonic() + 5
    while 'mightnt_settled_total{state="refused"} 1' not in httpx.get(f"{served.url}/metrics").text:
        assert time.monotonic() < until
        time.sleep(0.02)
