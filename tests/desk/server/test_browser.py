"""The page in a real browser: answered by hand and by keyboard, offline, hostile words, the phone."""

import time

import pytest

from mightnt.desk.rota import Rota, Shift
from mightnt.desk.server.safety import Guard, Rates, read_tokens
from mightnt.desk.tickets import Inquiry, State
from mightnt.dialogues import Message
from tests.desk.server.browser import CHROMIUM, browser
from tests.desk.server.fakes import CLIENT, DEMONSTRATOR, PROPOSALS, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]

HOSTILE = "<img src=x onerror=alert(1)><script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def tab():
    with browser() as found:
        yield found


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path, rota=Rota((Shift("ann", 300.0), Shift("bob", 300.0))), undo_seconds=2.0) as server:
        yield server


@pytest.fixture
def page(tab, served):
    """The desk, live, at the size of a desktop."""
    tab.offline(False)
    tab.size(1280, 800)
    tab.problems.clear()
    tab.go("about:blank")
    tab.go(f"{served.url}/desk")
    tab.until("document.readyState === 'complete' && document.getElementById('connection').dataset.state === 'live'")
    tab.js("localStorage.clear()")
    yield tab
    assert tab.problems == []


def ask(served, name="c", begun="I would", content="ask me", proposals=PROPOSALS):
    inquiry = Inquiry(name, 0, (Message("user", content),), begun, 0.375, False, 4.0, 3.5, proposals, "they differ")
    return served.store.ask(f"key-{name}", inquiry, "ann", time.time() + 300, (("bob", 300.0),)).number


def opened(page, number):
    page.until(f"state.open && state.open.number === '{number}'")


def stands(served, number, *states, seconds=10.0):
    until = time.monotonic() + seconds
    while (ticket := served.store.ticket(number)).state not in states:
        assert time.monotonic() < until, f"it is {ticket.state}"
        time.sleep(0.02)
    return ticket


def test_a_proposal_taken_by_keyboard(page, served):
    number = ask(served)
    opened(page, number)
    page.press("1")
    assert page.js("document.getElementById('text').value") == " not."
    assert page.text("preview") == "I would not."
    page.press("Enter", ctrl=True)
    ticket = stands(served, number, State.DECIDED, State.ANSWERED)
    assert (ticket.decision.verdict, ticket.decision.text, ticket.decision.proposal) == ("answer", " not.", 0)
    assert ticket.decision.person == "ann"


def test_a_proposal_changed_is_an_edit(page, served):
    number = ask(served)
    opened(page, number)
    page.press("2")
    page.write(" Really.")
    page.click("#send")
    decision = stands(served, number, State.DECIDED, State.ANSWERED).decision
    assert (decision.verdict, decision.text, decision.proposal) == ("edit", " go. Really.", 1)


@pytest.mark.parametrize(("join", "sent"), [(False, " stay."), (True, "stay.")])
def test_written_words_go_on_after_a_space_unless_told_otherwise(page, served, join, sent):
    number = ask(served)
    opened(page, number)
    page.press("w")
    page.write("stay.")
    if join:
        page.click("#join")
    assert page.text("preview") == f"I would{sent}"
    page.press("Enter", ctrl=True)
    assert stands(served, number, State.DECIDED, State.ANSWERED).decision.text == sent


def test_enter_alone_sends_nothing(page, served):
    number = ask(served)
    opened(page, number)
    page.press("1")
    page.press("Enter")
    for id in ("send", "refuse", "stop", "pass"):
        page.js(f"document.getElementById('{id}').focus()")
        page.press("Enter")
    time.sleep(0.3)
    assert served.store.ticket(number).state is State.WAITING
    page.js("document.getElementById('refuse').focus()")
    page.press(" ")
    stands(served, number, State.DECIDED, State.REFUSED)


@pytest.mark.parametrize(("key", "state"), [("R", State.REFUSED), ("S", State.STOPPED)])
def test_refuse_and_stop_by_keyboard(page, served, key, state):
    number = ask(served)
    opened(page, number)
    page.press(key, shift=True)
    stands(served, number, state)


def test_pass_on(page, served):
    number = ask(served)
    opened(page, number)
    page.press("P", shift=True)
    until = time.monotonic() + 5
    while served.store.ticket(number).person != "bob":
        assert time.monotonic() < until
        time.sleep(0.02)
    page.click(".ticket")
    opened(page, number)
    assert page.js("document.getElementById('pass').getAttribute('aria-disabled')") == "true"


def test_of_two_tickets_the_one_chosen_last_is_shown(page, served):
    """Whatever comes first from the server; and what is chosen while a decision is on its way stays open."""
    first = ask(served, "one")
    opened(page, first)
    second = ask(served, "two", content="another")
    page.until("document.querySelectorAll('.ticket').length === 2")
    page.js("window.fetched = fetch; window.fetch = async (path, options) => { const found = await fetched(path, options);"
            f" if (path.includes('{first}')) await new Promise((then) => setTimeout(then, 500)); return found; }}")  # fmt: skip
    page.js(f"show('{first}'); show('{second}')")
    opened(page, second)
    time.sleep(0.7)
    assert page.js("state.open.number") == second
    page.js(f"show('{first}')")
    opened(page, first)
    page.press("R", shift=True)
    page.js(f"show('{first}')")
    stands(served, first, State.REFUSED, State.DECIDED)
    time.sleep(1.2)
    assert page.js("state.open.number") == first


def test_undo_brings_question_and_draft_back(page, served):
    number = ask(served)
    opened(page, number)
    page.press("1")
    page.press("Enter", ctrl=True)
    page.until("!document.getElementById('undo').hidden")
    assert page.text("undo-seconds") in ("1 s", "2 s")
    page.js("document.activeElement.blur()")
    page.press("u")
    stands(served, number, State.WAITING)
    opened(page, number)
    page.until("document.getElementById('text').value === ' not.'")


def test_without_undo_the_answer_becomes_final_and_leaves_the_list(page, served):
    number = ask(served)
    opened(page, number)
    page.press("1")
    page.press("Enter", ctrl=True)
    stands(served, number, State.ANSWERED)
    page.until("document.querySelectorAll('.ticket').length === 0 && document.getElementById('undo').hidden")
    assert page.js("document.title") == "Desk"


def test_what_people_and_models_wrote_stays_text(page, served):
    from mightnt.desk.tickets import Proposal

    number = ask(served, begun=HOSTILE, content=HOSTILE, proposals=(Proposal(HOSTILE, HOSTILE, 0.5),))
    opened(page, number)
    page.press("1")
    assert page.js("document.querySelectorAll('#question img, #question script, #queue img').length") == 0
    assert HOSTILE in page.text("messages")
    assert HOSTILE in page.text("proposals")
    assert "taken" not in page.js("document.title")


def test_offline_it_says_so_and_sends_nothing_later(page, served):
    number = ask(served)
    opened(page, number)
    page.press("1")
    page.offline(True)
    page.until("document.getElementById('connection').dataset.state === 'offline'", 25)
    assert "offline" in page.text("offline")
    for id in ("send", "refuse", "stop", "pass"):
        assert page.js(f"document.getElementById('{id}').getAttribute('aria-disabled')") == "true"
    page.press("Enter", ctrl=True)
    page.offline(False)
    page.until("document.getElementById('connection').dataset.state === 'live'", 25)
    time.sleep(0.3)
    assert served.store.ticket(number).state is State.WAITING
    assert page.js("document.getElementById('text').value") == " not."  # the draft is still there
    page.press("Enter", ctrl=True)
    stands(served, number, State.DECIDED, State.ANSWERED)


def test_a_new_question_is_announced_and_another_desk_is_seen(page, served):
    first = ask(served, "one")
    opened(page, first)
    second = ask(served, "two", content="another")
    page.until("document.getElementById('news').textContent.includes('another')")
    page.press("j")
    opened(page, second)
    served.decide(second, "refuse", person="bob")
    page.until("document.getElementById('verdict').textContent.includes('bob')")
    assert page.js("document.getElementById('answer').hidden")


def test_on_a_phone(page, served):
    page.size(390, 844, phone=True)
    number = ask(served)
    page.until("document.querySelectorAll('.ticket').length === 1")
    page.click(".ticket")
    opened(page, number)
    page.until("document.body.classList.contains('reading')")
    assert page.js("document.documentElement.scrollWidth") <= 390
    small = page.js(
        "[...document.querySelectorAll('#question button, .ticket')].filter(b => b.offsetParent && b.offsetHeight < 34).length"
    )
    assert small == 0
    page.click(".proposals button")
    page.click("#send")
    stands(served, number, State.DECIDED, State.ANSWERED)
    page.until("!document.body.classList.contains('reading')")


def test_help_by_key(page, served):
    page.press("?", shift=True)
    page.until("document.getElementById('help').open")
    page.press("Escape")
    page.until("!document.getElementById('help').open")


def test_signing_in(tab, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"client app {CLIENT}\ndemonstrator ann {DEMONSTRATOR}\n")
    (tmp_path / "run").mkdir()
    guard = Guard(read_tokens(tokens), calls=Rates(1e6, 1e6), logins=Rates(1e6, 1e6))
    with serving(tmp_path / "run", guard=guard) as served:
        tab.go("about:blank")
        tab.go(f"{served.url}/desk")
        tab.until("document.readyState === 'complete' && document.getElementById('sign-in').open")
        for token, good in (("wrong", False), (CLIENT, False), (DEMONSTRATOR, True)):
            tab.js(f"document.getElementById('token').value = '{token}'")
            tab.js("document.getElementById('sign-in-form').requestSubmit()")
            if good:
                tab.until("document.getElementById('connection').dataset.state === 'live'")
            else:
                tab.until("!document.getElementById('sign-in-trouble').hidden")
        assert tab.text("signed-in") == "ann"
        assert tab.js("document.cookie") == ""
        number = ask(served)
        opened(tab, number)
        tab.press("1")
        tab.press("Enter", ctrl=True)
        assert stands(served, number, State.DECIDED, State.ANSWERED).decision.person == "ann"
