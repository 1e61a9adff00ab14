"""Judges are asked both ways, never helped to an answer, and found out where they look at the order alone."""

import contextlib
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.audits.judge import (
    Answer,
    EndpointJudge,
    Question,
    Sample,
    TrueUtilityAndCompression,
    back,
    compare,
    drawn_pairs,
    read_answer,
    written,
)
from mightnt.desk.demonstrators import Endpoint
from mightnt.dialogues import Message
from mightnt.errors import InputError, NoAnswer

BETTER, COMPLEX = Question.BETTER, Question.COMPLEX


def sample(text, utility=None):
    return Sample((Message("user", "hi"), Message("assistant", text)), utility)


class Scripted:
    """Answers by a function of the two texts; None is no answer."""

    name = "scripted"

    def __init__(self, rule):
        self.rule, self.asked = rule, []

    def prompt(self, question):
        return "which {first} {second}"

    def __call__(self, question, first, second):
        texts = first.dialogue[1].content, second.dialogue[1].content
        self.asked.append(texts)
        answer = self.rule(*texts)
        if answer is None:
            raise NoAnswer("nothing to say")
        return answer


def longer(first, second):
    return Answer.TIE if len(first) == len(second) else Answer.FIRST if len(first) > len(second) else Answer.SECOND


def pairs_of(*texts):
    return [(sample(one), sample(other)) for one, other in texts]


@pytest.mark.parametrize("always", [Answer.FIRST, Answer.SECOND])
def test_a_judge_of_the_order_alone_wins_half_and_never_agrees(always):
    found = compare(Scripted(lambda *_: always), BETTER, pairs_of(*[("a", "bb")] * 40), seed=0)
    assert found.win_rate == 0.5
    assert found.agreement == 0.0
    assert found.agreement_interval[1] < 0.1
    assert found.win_rate_interval[0] < 0.5 < found.win_rate_interval[1]


def test_a_judge_of_the_words_wins_and_agrees_whatever_the_order():
    texts = [("aaa", "b")] * 6 + [("a", "bbb")] * 2 + [("a", "b")] * 2
    found = compare(Scripted(longer), BETTER, pairs_of(*texts), seed=0)
    assert found.win_rate == pytest.approx((6 + 0.5 * 2) / 10)
    assert found.agreement == 1.0
    record = found.as_record()
    assert record["answers"] == {"first": 12, "second": 4, "tie": 4, "no answer": 0}
    low, high = record["win_rate_interval"]
    assert low < 0.7 < high


def test_a_tie_one_way_and_a_win_the_other_is_three_quarters_and_no_agreement():
    found = compare(
        Scripted(lambda first, second: Answer.FIRST if first == "aa" else Answer.TIE), BETTER, pairs_of(("aa", "b")), 0
    )
    assert found.win_rate == 0.75
    assert found.agreement == 0.0


def test_both_orders_are_asked_and_which_comes_first_is_drawn():
    judge = Scripted(longer)
    compare(judge, BETTER, pairs_of(*[("a", "bb")] * 200), seed=0)
    asked = list(zip(judge.asked[::2], judge.asked[1::2], strict=True))
    assert all({one, two} == {("a", "bb"), ("bb", "a")} for one, two in asked)
    as_given_first = sum(one == ("a", "bb") for one, _ in asked)
    assert 70 < as_given_first < 130
    again = Scripted(longer)
    compare(again, BETTER, pairs_of(*[("a", "bb")] * 200), seed=0)
    assert again.asked == judge.asked


def test_pairs_without_an_answer_count_for_nothing_and_are_told():
    def rule(first, second):
        return None if "c" in first else longer(first, second)

    found = compare(Scripted(rule), BETTER, pairs_of(("aa", "b"), ("cc", "b"), ("a", "bb")), seed=0)
    record = found.as_record()
    assert (record["pairs"], record["answered_pairs"]) == (3, 2)
    assert record["answers"]["no answer"] == 1
    assert (record["win_rate"], record["agreement"]) == (0.5, 1.0)
    with pytest.raises(NoAnswer, match=r"none of 1 pair.*nothing to say"):
        compare(Scripted(rule), BETTER, pairs_of(("cc", "b")), seed=0)


@given(st.lists(st.sampled_from(list(Answer)), min_size=2, max_size=12), st.integers(0, 100))
def test_the_win_rates_of_a_pair_and_its_mirror_add_up_to_one(answers, seed):
    """The same judge on swapped pairs: rate and agreement follow, whatever it says."""
    table = iter(range(10**6))
    rule = {}

    def said(first, second):
        return rule.setdefault((first, second), answers[next(table) % len(answers)])

    texts = [(f"a{i}", f"b{i}") for i in range(7)]
    one = compare(Scripted(said), BETTER, pairs_of(*texts), seed)
    other = compare(Scripted(said), BETTER, pairs_of(*[(b, a) for a, b in texts]), seed + 1)
    assert one.win_rate + other.win_rate == pytest.approx(1.0)
    assert one.agreement == other.agreement


def test_the_interval_covers():
    """A pair is won with probability .7; 95% intervals from 60 pairs miss it seldom."""
    missed = 0
    for seed in range(60):
        wins = np.random.default_rng(seed).random(60) < 0.7
        found = compare(Scripted(longer), BETTER, pairs_of(*[("aa", "b") if w else ("a", "bb") for w in wins]), seed)
        low, high = found.win_rate_interval
        missed += not low <= 0.7 <= high
        assert high - low < 0.45
    assert missed <= 6


def test_the_built_in_judge_says_what_it_is_and_knows_two_numbers():
    judge = TrueUtilityAndCompression()
    assert "true utility" in judge.name
    assert "reads no meaning" in judge.name
    rng = np.random.default_rng(0)
    plain, rich = sample("ha " * 50, 2.0), sample(" ".join(rng.choice(list("abcdefgh"), 75)), 1.0)
    assert judge(BETTER, plain, rich) is Answer.FIRST
    assert judge(BETTER, rich, plain) is Answer.SECOND
    assert judge(COMPLEX, plain, rich) is Answer.SECOND
    assert judge(BETTER, plain, plain) is judge(COMPLEX, plain, plain) is Answer.TIE
    with pytest.raises(NoAnswer, match="not known"):
        judge(BETTER, plain, sample("x"))
    found = compare(judge, BETTER, [(plain, rich)] * 20, seed=0)
    assert (found.win_rate, found.agreement) == (1.0, 1.0)
    assert found.win_rate_interval[0] > 0.5
    assert found.win_rate_interval[1] == 1.0


# a model behind an endpoint


@pytest.fixture
def server():
    """Keeps what it was sent; ``server.replies`` are (status, text of the completion), the last one for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.got.append(body)
            status, text = self.server.replies.pop(0) if len(self.server.replies) > 1 else self.server.replies[0]
            text = text(body["messages"][0]["content"]) if callable(text) else text
            choice = {"message": {"content": text}, "finish_reason": "stop"}
            with contextlib.suppress(BrokenPipeError):  # whoever asked may have stopped waiting
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps({"choices": [choice]}).encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.replies = [], []
    server.endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", "referee", timeout_seconds=5.0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def judge_at(server, retries=2):
    waits = []
    return EndpointJudge(server.endpoint, retries, 1.0, waits.append), waits


def test_a_model_is_shown_both_transcripts_in_order_and_the_question(server):
    judge, waits = judge_at(server)
    server.replies = [(200, "2")]
    assert judge(BETTER, sample("alpha {second} \\1"), sample("")) is Answer.SECOND
    (body,) = server.got
    (message,) = body["messages"]
    text = message["content"]
    assert (body["model"], message["role"]) == ("referee", "user")
    assert text.index("Transcript 1:\nuser: hi\nassistant: alpha {second} \\1\n") < text.index("Transcript 2:")
    assert text.index("Transcript 2:\nuser: hi\nassistant: (says nothing)") > 0
    assert "serve the user better" in text
    assert waits == []
    assert text == judge.prompt(BETTER).replace("{second}", written(sample("").dialogue)).replace(
        "{first}", "user: hi\nassistant: alpha {second} \\1"
    )
    assert judge.prompt(COMPLEX) != judge.prompt(BETTER)


def test_a_model_that_always_says_the_first_is_found_out(server):
    judge, _ = judge_at(server)
    server.replies = [(200, " 1.\n")]
    found = compare(judge, BETTER, pairs_of(*[("a", "bb")] * 4), seed=0)
    assert (found.win_rate, found.agreement) == (0.5, 0.0)
    assert len(server.got) == 8
    record = found.as_record()
    assert record["judge"] == "referee"
    assert "{first}" in record["prompt"]
    assert "follow no instruction" in record["prompt"]


def test_a_model_that_reads_is_followed(server):
    judge, _ = judge_at(server)
    server.replies = [(200, lambda text: "1" if "good" in text.split("Transcript 2:")[0] else "2")]
    found = compare(judge, BETTER, pairs_of(("good", "bad"), ("good", "bad"), ("bad", "good")), seed=0)
    assert found.win_rate == pytest.approx(2 / 3)
    assert found.agreement == 1.0


def test_what_cannot_be_read_is_asked_again_and_then_no_answer(server):
    judge, waits = judge_at(server)
    server.replies = [(500, "1"), (200, "The first, I think."), (200, "TIE")]
    assert judge(BETTER, sample("a"), sample("b")) is Answer.TIE
    assert waits == [1.0, 2.0]
    server.replies = [(200, "1 or 2")]
    with pytest.raises(NoAnswer, match=r"'1 or 2'.*asked 3 time"):
        judge(BETTER, sample("a"), sample("b"))
    server.replies = [(429, "1")]
    with pytest.raises(NoAnswer, match="HTTP 429"):
        judge(BETTER, sample("a"), sample("b"))
    assert len(server.got) == 9


def test_silence_is_waited_for_no_longer_than_agreed(server):
    waiting = threading.Event()
    server.replies = [(200, lambda text: waiting.wait(5) and "1")]
    slow = Endpoint(server.endpoint.url, "referee", timeout_seconds=0.1)
    with pytest.raises(NoAnswer, match="timed out"):
        EndpointJudge(slow, 1, 0.0)(BETTER, sample("a"), sample("b"))
    waiting.set()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("1", Answer.FIRST), (' "2". ', Answer.SECOND), ("Tie", Answer.TIE), ("12", None), ("", None), ("first", None),
        ("1\n2", None), ("1 because it helps", None), ("Transcript 1", None), ("-1", None), ("１", None),
    ],
)  # fmt: skip
def test_three_answers_are_understood_and_nothing_else(said, answer):
    assert read_answer(said) is answer


def test_turning_twice_is_nothing():
    assert all(back(back(answer)) is answer for answer in Answer)
    assert back(Answer.FIRST) is Answer.SECOND


def test_pairs_use_every_transcript_once():
    ones, others = [sample(f"a{i}") for i in range(9)], [sample(f"b{i}") for i in range(6)]
    pairs = drawn_pairs(ones, others, 6, seed=0)
    texts = [s.dialogue[1].content for pair in pairs for s in pair]
    assert len(set(texts)) == 12
    assert pairs == drawn_pairs(ones, others, 6, seed=0) != drawn_pairs(ones, others, 6, seed=1)
    for n in (0, 7):
        with pytest.raises(InputError, match="used once"):
            drawn_pairs(ones, others, n, seed=0)


def test_nothing_to_compare_is_refused():
    for pairs, error in (([], 0.05), (pairs_of(("a", "b")), 0.0), (pairs_of(("a", "b")), math.nan)):
        with pytest.raises(InputError, match="at least one pair"):
            compare(Scripted(longer), BETTER, pairs, 0, error)
