"""What is served is what was trained: the same words and charges as in episodes, no conversation over its budget."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mightnt.desk.speaking import Asked, Ended, Piece
from mightnt.dialogues import Message, write_dialogues
from mightnt.errors import BudgetError, InputError
from mightnt.lm import episodes as episodes_module
from mightnt.lm.account import Account
from mightnt.lm.actor import Actor, Stay
from mightnt.lm.checkpoint import save_training
from mightnt.lm.episodes import play_episodes
from mightnt.lm.finetune import FinetuneConfig, finetune_folder
from mightnt.lm.imitators import save_imitators
from mightnt.lm.members import Members
from mightnt.lm.protect import Training, round_seed
from mightnt.lm.run import cast_for, new_actor
from mightnt.lm.speaker import PolicySpeaker, load_speaker
from mightnt.lm.update import ANSWERS
from mightnt.worlds.chat import words

BASES = ("single", "mixture", "pessimistic", "pessimistic-minimum", "situations", "counts")
HELLO = (Message("user", "hello teacher"),)


def speaker_with(imitators, base, account, share_bias=0.0, actor=None, turn_tokens=words.MAX_TURN_TOKENS):
    """A speaker with an untrained actor that spends freely."""
    if actor is None:
        torch.manual_seed(0)
        actor = Actor(imitators.networks[0].config.hidden_size, len(imitators.counts.is_action), account)
        with torch.no_grad():
            actor.share.bias.fill_(share_bias)
            actor.leaning.weight.mul_(30.0)
    return PolicySpeaker("toy", imitators, imitators.members(base), imitators.base(base), account, actor, turn_tokens)


def whole_turn(speaker, messages, spent=0.0, turn=0, seed=0, **more):
    """``(text, the last event, the turn)``; what pieces cost is part of what the turn cost."""
    speaking = speaker.begin(messages, spent, turn, seed, **more)
    pieces = []
    while isinstance(event := speaking.next_piece(), Piece):
        pieces.append(event)
    assert speaking.next_piece() == event
    assert sum(piece.nats for piece in pieces) <= speaking.spent_nats + 1e-9
    return "".join(piece.text for piece in pieces), event, speaking


def conversation(speaker, seed, n_turns, answer=" what is the sum of this square ?"):
    """A conversation with a student who says one thing; ``(messages, spent, events, what was begun of answered ones)``."""
    messages, spent, events, answered = HELLO, 0.0, [], {}
    for turn in range(n_turns):
        text, event, speaking = whole_turn(speaker, messages, spent, turn, seed, answered=answered)
        if isinstance(event, Asked):
            answered[len(messages)] = text
            assert event.inquiry.begun == text
            speaking.continue_with(answer)
            text += answer
            assert speaking.next_piece() == Ended("stop")
        spent += speaking.spent_nats
        events.append(event)
        messages = (*messages, Message("assistant", text), Message("user", "okay"))
    return messages, spent, events, answered


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("asking", ["floor", "charged"])
@pytest.mark.parametrize("budget", [0.0, 0.5, 6.0])
def test_a_whole_conversation_never_spends_more_than_its_budget(base, asking, budget, imitators):
    speaker = speaker_with(imitators, base, Account(budget, asking), share_bias=3.0)
    _, spent, _, _ = conversation(speaker, 0, 4)
    assert 0.0 <= spent <= budget + 1e-6
    if budget == 6.0:
        assert spent > 0.5  # it is a budget that matters


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from(["pessimistic", "mixture", "single"]))
def test_the_first_turn_is_that_of_an_episode_with_the_same_dice(imitators, seed, base):
    """Same opening, same generator: the same words, and the same charge for each of them."""
    from mightnt.lm.scenes import ChatScene

    account = Account(4.0)
    speaker = speaker_with(imitators, base, account)
    scene = ChatScene()
    scene.n_turns, scene.demonstrator_known = 1, False
    scene.demonstrator = lambda rows: None
    cast = cast_for(imitators, scene, base, account, speaker.actor)
    played = play_episodes(cast, 1, round_seed(seed, 0), n_transcripts=1)
    said = [token for token in played.transcripts[0] if token.kl_base_nats is not None]
    opening = [token.token for token in played.transcripts[0][: played.transcripts[0].index(said[0])]]
    text, event, speaking = whole_turn(speaker, (Message("user", words.text_of(opening)),), seed=seed)
    own = [token.token for token in said if not token.asked]
    assert text == words.text_of(own)
    assert speaking.spent_nats == pytest.approx(float(played.spent_nats[0]), abs=1e-5)
    assert isinstance(event, Asked) == any(token.asked for token in said)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("budget", [3.0, 30.0])
def test_the_same_words_cost_the_same_in_every_turn_of_an_episode(base, budget, imitators, short_chat, monkeypatch):
    """An episode is told again to the speaker, turn by turn, with its dice replaced by what was said."""
    account = Account(budget, "charged", 0.3)
    speaker = speaker_with(imitators, base, account, share_bias=-1.0)
    cast = cast_for(imitators, short_chat, base, account, speaker.actor)
    n_later = 0
    for seed in range(2):
        played = play_episodes(cast, 1, seed, n_transcripts=1)
        messages, answered, spent = [], {}, 0.0
        for speaker_name, tokens in runs(played.transcripts[0]):
            if speaker_name == "user":
                messages.append(Message("user", words.text_of([token.token for token in tokens])))
                continue
            own = [token for token in tokens if token.kl_base_nats is not None and not token.asked]
            asks = any(token.asked for token in tokens)
            script = iter([*(token.token for token in own), *([words_and_ask(imitators)] * asks)])
            first = next((token for token in tokens if token.asked), None)
            forced = first is not None and first.kl_base_nats == 0.0
            monkeypatch.setattr(
                episodes_module,
                "draw",
                lambda log_p, generator, script=script: torch.tensor(
                    [next(script) if log_p.shape[1] > words_and_ask(imitators) else 0 for _ in log_p], dtype=torch.int64
                ),
            )
            text, event, speaking = whole_turn(
                speaker, tuple(messages), spent, len(messages) // 2, 0, answered=answered
            )
            monkeypatch.undo()
            assert text == words.text_of([token.token for token in own])
            assert speaking.spent_nats == pytest.approx(sum(token.kl_base_nats or 0.0 for token in tokens), abs=1e-4)
            assert isinstance(event, Asked) == asks
            if asks:
                assert event.inquiry.forced == forced
                answered[len(messages)] = text
            n_later += len(messages) > 1
            spent += speaking.spent_nats
            messages.append(Message("assistant", words.text_of([token.token for token in tokens])))
        assert spent == pytest.approx(float(played.spent_nats[0]), abs=1e-4)
    assert n_later == 2


def words_and_ask(imitators):
    """The number of the choice to ask."""
    return len(imitators.counts.is_action)


def runs(said):
    """A transcript as turns: ``[(speaker, tokens)]``."""
    turns = []
    for token in said:
        if not turns or turns[-1][0] != token.speaker:
            turns.append((token.speaker, []))
        turns[-1][1].append(token)
    return turns


def test_the_state_of_the_base_is_that_of_reading_token_by_token(imitators):
    speaker = speaker_with(imitators, "pessimistic", Account(5.0))
    tight = replace(speaker, base=replace(speaker.base, log_cap_nats=0.5))
    reached = []
    for seed in range(4):
        messages, _, _, answered = conversation(speaker, seed, 4)
        heard = tight.hear(messages, answered)
        members, state = tight.fresh_members(), tight.base.start(1)
        members.start(1)
        chosen = dict(zip(heard.chosen, heard.own, strict=True))
        for place, token in enumerate(heard.tokens):
            if place in chosen:
                step = members.predict(torch.tensor([0]))
                state = tight.base.advance(state, step, torch.tensor([token]), torch.tensor([chosen[place]]))
            members.advance(torch.tensor([token]))
        torch.testing.assert_close(tight.state_after(heard), state, atol=1e-4, rtol=1e-4)
        reached.append(float(state))
    assert max(reached) > 0.0


def test_an_answered_turn_does_not_move_the_ratio_and_an_own_one_does(imitators):
    speaker = speaker_with(imitators, "pessimistic", Account(5.0))
    messages = (*HELLO, Message("assistant", "great great great great"), Message("user", "okay"))
    own, theirs = (float(speaker.state_after(speaker.hear(messages, said))) for said in ({}, {1: ""}))
    half = float(speaker.state_after(speaker.hear(messages, {1: "great great"})))
    assert theirs == 0.0
    assert 0.0 != own != half != 0.0


@pytest.mark.parametrize("asking", ["floor", "charged"])
def test_with_nothing_left_it_must_ask(asking, imitators):
    speaker = speaker_with(imitators, "pessimistic-minimum", Account(5.0, asking))
    text, event, speaking = whole_turn(speaker, HELLO, spent=5.0)
    inquiry = event.inquiry
    assert text == inquiry.begun == ""
    assert (inquiry.forced, inquiry.limit_nats, inquiry.left_nats) == (True, 5.0, 0.0)
    assert inquiry.asking_probability > 0.0
    assert (inquiry.turn, inquiry.messages) == (0, HELLO)
    assert speaking.spent_nats == 0.0


def test_a_question_shows_what_each_member_would_say_with_its_probability(imitators):
    speaker = speaker_with(imitators, "pessimistic", Account(5.0), actor=Stay())
    found = {}
    for seed in range(60):
        text, event, _ = whole_turn(speaker, HELLO, seed=seed)
        if isinstance(event, Asked) and text:
            found = {proposal.model: proposal for proposal in event.inquiry.proposals}
            break
    assert set(found) == {"network-0", "counts"}
    assert "by network-0" in event.inquiry.disagreement
    for name, proposal in found.items():
        tokens = words.tokens_of(text + proposal.text)
        closed = len(tokens) < speaker.turn_tokens
        log_p = replayed(speaker, HELLO, [*tokens, *([words.END] * closed)], name)[len(words.tokens_of(text)) :]
        assert proposal.probability == pytest.approx(math.exp(sum(log_p)), rel=1e-3)
        assert 0 < proposal.probability < 1


def replayed(speaker, messages, tokens, name):
    """log p of each of these tokens of a turn by one member, read token by token."""
    imitators = speaker.imitators
    members = Members(speaker.members.networks, imitators.counts.is_action, imitators.counts)
    members.start(1)
    members.advance(torch.tensor([speaker.hear(messages, {}).tokens]))
    found = []
    for token in tokens:
        step = members.predict(torch.tensor([0]))
        found.append(float((step.networks[0] if name == "network-0" else step.counts)[0, token]))
        members.advance(torch.tensor([token]))
    return found


def test_turns_of_one_speaker_do_not_hear_each_other(imitators):
    speaker = speaker_with(imitators, "pessimistic", Account(5.0))
    alone = [whole_turn(speaker, HELLO, seed=seed)[:2] for seed in (1, 2)]
    turns = [speaker.begin(HELLO, 0.0, 0, seed) for seed in (1, 2)]
    texts, last = ["", ""], [None, None]
    for _ in range(speaker.turn_tokens + 1):
        for i, turn in enumerate(turns):
            last[i] = turn.next_piece()
            texts[i] += last[i].text if isinstance(last[i], Piece) else ""
    assert list(zip(texts, last, strict=True)) == alone


def test_another_turn_or_seed_is_another_turn(imitators):
    speaker = speaker_with(imitators, "single", Account(5.0))
    texts = [whole_turn(speaker, HELLO, turn=turn, seed=seed)[0] for turn, seed in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_a_turn_is_cut_at_its_longest(imitators):
    speaker = speaker_with(imitators, "single", Account(5.0), turn_tokens=2)
    events = [whole_turn(speaker, HELLO, seed=seed) for seed in range(12)]
    cut = [text for text, event, _ in events if event == Ended("length")]
    assert cut
    assert all(len(text.split()) == 2 for text in cut)


def test_the_end_of_a_turn_that_was_cut_off_was_nobodys_choice(imitators):
    speaker = speaker_with(imitators, "pessimistic", Account(5.0), turn_tokens=4)
    for text, answered, own in (("great job !", {}, 4), ("great great job !", {}, 4), ("great job !", {1: "great"}, 1)):
        heard = speaker.hear((*HELLO, Message("assistant", text), *HELLO), answered)
        assert (len(heard.chosen), sum(heard.own)) == (4, own)
        last = heard.tokens[heard.chosen[-1]]
        assert (last == words.END) == (text == "great job !")
        assert heard.tokens.count(words.END) == 3


def test_what_does_not_fit_the_context_is_dropped_message_by_message_from_the_beginning(imitators):
    speaker = speaker_with(imitators, "pessimistic", Account(5.0))
    late = (Message("assistant", "try to draw the square first ."), Message("user", "okay"))
    long = tuple(Message("user", "hello teacher " * 20) for _ in range(4))
    heard = speaker.hear((*long, *late), {}).tokens
    assert len(heard) + speaker.turn_tokens <= speaker.context
    assert heard == speaker.hear((*long[:3], *late), {}).tokens
    assert len(heard) + 42 + speaker.turn_tokens > speaker.context
    whole_turn(speaker, (*long, *late))
    with pytest.raises(InputError, match="last message"):
        speaker.begin((Message("user", "hello " * 200),), 0.0, 0, 0)


@pytest.mark.parametrize("budget", [2.0])
def test_what_people_type_is_text_or_refused(budget, imitators):
    speaker = speaker_with(imitators, "pessimistic-minimum", Account(budget))
    for text in ("<|end|>", "hello <|assistant|> great", "an unheard-of word", "half \ud800"):
        with pytest.raises(InputError):
            speaker.begin((Message("user", text),), 0.0, 0, 0)
    _, event, speaking = whole_turn(speaker, HELLO, spent=budget)
    assert isinstance(event, Asked)
    with pytest.raises(InputError):
        speaking.continue_with("an unheard-of word")
    assert speaking.next_piece() == event
    speaking.continue_with(" try to draw the square first .")
    with pytest.raises(InputError, match="nothing was asked"):
        speaking.continue_with("again")


def test_wrong_amounts_and_orders_are_refused(imitators):
    speaker = speaker_with(imitators, "single", Account(2.0))
    for spent in (-1.0, math.nan):
        with pytest.raises(BudgetError):
            speaker.begin(HELLO, spent, 0, 0)
    with pytest.raises(InputError, match="the assistant's"):
        speaker.begin((*HELLO, Message("assistant", "hello !")), 0.0, 0, 0)
    with pytest.raises(InputError, match="role"):
        speaker.begin((Message("system", "hello !"), *HELLO), 0.0, 0, 0)
    with pytest.raises(InputError, match="go on from"):
        speaker.begin((*HELLO, Message("assistant", "hello !"), *HELLO), 0.0, 0, 0, answered={1: "great"})
    assert whole_turn(speaker, ())[1] is not None  # the agent may open a conversation


# answers teach


@pytest.mark.parametrize("base", ["pessimistic", "pessimistic-minimum", "counts", "mixture"])
def test_what_was_answered_becomes_likelier_with_every_answer(base, imitators):
    speaker = speaker_with(imitators, base, Account(5.0), actor=Stay())
    probabilities = []
    for _ in range(4):
        log_nu = speaker.base.predict(speaker.base.start(1), predicted(speaker))[0]
        probabilities.append(float(log_nu[words.tokens_of("try")[0]].exp()))
        speaker = speaker.taught([(*HELLO, Message("assistant", "try two"))] * 10)
    assert probabilities == sorted(probabilities)
    assert (
        probabilities[-1] > probabilities[0] or base == "pessimistic"
    )  # it is the first network's, once it is vouched for


def predicted(speaker, messages=HELLO):
    """What the members say of the first token of a turn."""
    members = speaker.fresh_members()
    members.start(1)
    members.advance(torch.tensor([speaker.hear(messages, {}).tokens]))
    return members.predict(torch.tensor([0]))


@pytest.mark.parametrize("base", ["pessimistic", "pessimistic-minimum"])
def test_the_same_question_is_asked_with_a_lower_theta_after_many_answers(base, imitators):
    """The answers are drawn from the first network: what it would say is right, and only the counts did not vouch for it.

    Not after each: a first answer makes the counts sure of itself before they know what else may be said.
    """
    speaker = speaker_with(imitators, base, Account(5.0), actor=Stay())
    before, after = [], []
    for opening in ("great job !", "what is two ?", "okay"):
        messages = (Message("user", opening),)
        said = torch.multinomial(predicted(speaker, messages).networks[0, 0].exp(), 400, True, generator=DICE)
        answers = [
            (*messages, Message("assistant", words.text_of([token]))) for token in said.tolist() if token != words.END
        ]
        for theta, asker in ((before, speaker), (after, speaker.taught(answers))):
            text, event, _ = whole_turn(asker, messages, spent=5.0)
            assert (text, type(event)) == ("", Asked)
            theta.append(event.inquiry.asking_probability)
    assert all(new < 0.8 * old for new, old in zip(after, before, strict=True))
    assert sum(after) < 0.5 * sum(before)


DICE = torch.Generator().manual_seed(0)


def test_the_agents_own_words_teach_nothing(imitators):
    """Whatever the agent says in a whole turn, or begins: counts, weights and the next words are the same."""
    speaker = speaker_with(imitators, "mixture", Account(5.0))

    def lesson(own, begun):
        own = (Message("assistant", own, own), Message("user", "okay"))
        return (*HELLO, *own, Message("assistant", f"{begun} yay", begun))

    plain = speaker.imitators.counts.tables[0].counts.sum()
    one, other = (speaker.taught([lesson(*said)]) for said in (("great", "try"), ("what is two ?", "try")))
    for taught in (one, other):
        assert taught.imitators.counts.tables[0].counts.sum() == plain + 2  # "yay" and the end, and nothing else
    nothing = speaker.taught([(*HELLO, Message("assistant", "yay yay", "yay yay"))])
    assert nothing.imitators.log_weights == imitators.log_weights
    assert nothing.imitators.counts.tables[0].counts.sum() == plain
    assert whole_turn(nothing, HELLO, seed=3)[0] == whole_turn(speaker, HELLO, seed=3)[0]


def test_one_at_a_time_is_the_same_speaker_in_every_process(imitators):
    speaker = speaker_with(imitators, "mixture", Account(5.0))
    lessons = [(*HELLO, Message("assistant", f"try {word}", "try")) for word in ("two", "three", "four")]

    def pupil():
        taught = speaker
        for lesson in lessons:
            taught = taught.taught([lesson])
        return taught

    one, other = pupil(), pupil()
    assert one.imitators.log_weights == other.imitators.log_weights != imitators.log_weights
    assert [whole_turn(x, HELLO, seed=5)[0] for x in (one, other)] == [whole_turn(one, HELLO, seed=5)[0]] * 2


def test_a_turn_in_progress_does_not_notice(imitators):
    speaker = speaker_with(imitators, "mixture", Account(5.0))
    alone = whole_turn(speaker, HELLO, seed=2)[0]
    turn = speaker.begin(HELLO, 0.0, 0, 2)
    first = turn.next_piece()
    speaker.taught([(*HELLO, Message("assistant", "yay yay yay"))] * 50)
    text = first.text if isinstance(first, Piece) else ""
    while isinstance(event := turn.next_piece(), Piece):
        text += event.text
    assert text == alone
    assert turn.speaker is None  # nothing of a speaker is held by a turn that is over


# bytes


def test_characters_are_whole_when_they_are_said(imitators, tmp_path):
    """Byte-level tokens of one character each cost something, and are told when the character is there."""
    from mightnt.lm.speaker import PolicyTurn
    from mightnt.lm.tokens import marks_of, train_bpe

    tokenizer = train_bpe([(Message("user", "a"), Message("assistant", "b"))], 260)
    turn = PolicyTurn.__new__(PolicyTurn)
    turn.tokenizer, turn.marks = tokenizer, marks_of(tokenizer)
    turn.tokens, turn.text, turn.last = [], "", None
    texts = []
    for token in tokenizer.encode("a€😀!", add_special_tokens=False):
        turn.tokens.append(token)
        texts.append(turn.whole_text())
    assert texts == ["a", *["a"] * 2, "a€", *["a€"] * 3, "a€😀", "a€😀!"]
    turn.tokens = turn.tokens[:2]
    assert turn.whole_text() == "a"
    turn.last = Ended("length")
    assert turn.whole_text() == "a\ufffd"


# from a folder


SMALL = FinetuneConfig(kl_budget_nats=3.0, turns=2, turn_tokens=8, iterations=2, episodes=4, evaluation_episodes=4)


class Nobody:
    """Watches nothing."""

    def began(self, name):
        pass

    def moved(self, name, done, of):
        pass

    def ended(self, name, reused):
        pass


@pytest.fixture(scope="module")
def run_folder(imitators, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    save_imitators(imitators, root / "imitators", {}, 0)
    finetune_folder(root / "imitators", root / "run", SMALL, 0, Nobody())
    return root / "run"


def test_a_finished_run_is_served_with_what_it_learnt(run_folder, imitators):
    speaker = load_speaker(run_folder)
    assert (speaker.name, speaker.limit_nats, speaker.turn_tokens) == ("run", 3.0, 8)
    assert speaker.base == imitators.base("situations")
    fresh = new_actor(speaker.imitators, finetune_settings(), 0)
    different = [not torch.equal(a, b) for a, b in zip(speaker.actor.parameters(), fresh.parameters(), strict=True)]
    assert any(different)
    text, _, speaking = whole_turn(speaker, HELLO, seed=4)
    assert (text, speaking.spent_nats) == (
        whole_turn(load_speaker(run_folder), HELLO, seed=4)[0],
        pytest.approx(speaking.spent_nats),
    )


def finetune_settings():
    from mightnt.lm.finetune import run_config

    return run_config(SMALL)


def test_run_and_imitators_may_move_together_or_be_named(run_folder, tmp_path):
    shutil.copytree(run_folder.parent, tmp_path / "moved")
    (tmp_path / "alone").mkdir()
    shutil.copytree(run_folder, tmp_path / "alone" / "run")
    shutil.move(run_folder.parent / "imitators", run_folder.parent / "hidden")
    try:
        assert load_speaker(tmp_path / "moved" / "run").limit_nats == 3.0
        with pytest.raises(InputError, match="its imitators are not at"):
            load_speaker(tmp_path / "alone" / "run")
        named = load_speaker(tmp_path / "alone" / "run", tmp_path / "moved" / "imitators")
        assert named.limit_nats == 3.0
    finally:
        shutil.move(run_folder.parent / "hidden", run_folder.parent / "imitators")


def test_other_imitators_are_refused_and_updates_of_the_same_are_not(run_folder, tmp_path):
    shutil.copytree(run_folder.parent / "imitators", tmp_path / "others")
    path = tmp_path / "others" / "imitators.json"
    kept = json.loads(path.read_text())
    before = json.loads((run_folder / "run.json").read_text())["imitators"]
    path.write_text(json.dumps({**kept, "situation_log_cap_nats": 1.0}))
    with pytest.raises(InputError, match="not the imitators"):
        load_speaker(run_folder, tmp_path / "others")
    path.write_text(json.dumps({**kept, "situation_log_cap_nats": 1.0, "updated_from": [before]}))
    assert load_speaker(run_folder, tmp_path / "others").base.log_cap_nats == 1.0


def test_an_answer_that_the_imitators_were_updated_with_is_not_learnt_again(run_folder, tmp_path):
    """The update learnt from the export of a conversation; the lessons are those of its two answers, and a new one."""
    shutil.copytree(run_folder.parent / "imitators", tmp_path / "set")
    path = tmp_path / "set" / "imitators.json"
    kept = json.loads(path.read_text())
    before = json.loads((run_folder / "run.json").read_text())["imitators"]
    path.write_text(json.dumps({**kept, "updated_from": [before]}))
    half, own = Message("assistant", "try two", "try"), Message("assistant", "great", "great")
    exported = (*HELLO, half, *HELLO, own, *HELLO, Message("assistant", "try three"))
    write_dialogues(tmp_path / "set" / ANSWERS, [exported])
    speaker = load_speaker(run_folder, tmp_path / "set")
    marked = (*HELLO, replace(half, begun=half.content), *HELLO, own, *HELLO)
    lessons = [(*HELLO, half), (*marked, Message("assistant", "try three"))]
    n_before = speaker.imitators.counts.tables[0].counts.sum()
    for lesson in lessons:
        speaker = speaker.taught([lesson])
    assert speaker.imitators.counts.tables[0].counts.sum() == n_before
    again = speaker.taught([lessons[0]])  # the same words once more, in another conversation
    assert again.imitators.counts.tables[0].counts.sum() == n_before + 2


def test_what_is_no_finished_run_is_one_sentence(run_folder, tmp_path):
    for name in ("run.json", "training.safetensors"):
        shutil.copytree(run_folder, tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(InputError, match="no finished run"):
            load_speaker(tmp_path / name)
    shutil.copytree(run_folder, tmp_path / "other")
    (tmp_path / "other" / "run.json").write_text('{"provenance": {"config": {"a": 1}}}')
    with pytest.raises(InputError, match="no record of"):
        load_speaker(tmp_path / "other")
    shutil.copytree(run_folder.parent, tmp_path / "root")
    settings = finetune_settings()
    speaker = load_speaker(run_folder)
    other = Training.fresh(new_actor(speaker.imitators, settings, 1), settings.training)
    save_training(other, tmp_path / "root" / "run" / "training.safetensors", {"seed": 1})
    with pytest.raises(InputError, match="another configuration"):
        load_speaker(tmp_path / "root" / "run")
