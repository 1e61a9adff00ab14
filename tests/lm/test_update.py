"""Answers move counts and weights at once; networks only if that is no loss, whole or not at all, and no answer twice."""

import copy
import json
import shutil
from collections import Counter
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mightnt import cli
from mightnt.desk.database import locked
from mightnt.desk.speaking import Piece
from mightnt.dialogues import Message, write_dialogues
from mightnt.errors import InputError
from mightnt.files import read_json, write_json
from mightnt.lm import update
from mightnt.lm.account import Account
from mightnt.lm.actor import Stay
from mightnt.lm.finetune import fingerprint
from mightnt.lm.fitting import FitConfig, fit, learnable
from mightnt.lm.imitate import ADAPTERS_LEARNING_RATE
from mightnt.lm.imitators import ImitatorsConfig, calibrate, fit_suffix_counts, load_imitators, save_imitators
from mightnt.lm.scenes import openings
from mightnt.lm.speaker import PolicySpeaker
from mightnt.lm.tokens import encode
from mightnt.lm.update import (
    first_fit,
    gentler,
    learned,
    learned_from,
    losses,
    new_actions,
    sort_out,
    update_folder,
)
from mightnt.lm.windows import windows
from mightnt.worlds.chat.corpus import demonstrations
from tests.watchers import Quiet


def dialogue(*contents):
    """User and assistant in turn."""
    return tuple(Message(("user", "assistant")[i % 2], content) for i, content in enumerate(contents))


def same_counts(one, other):
    assert np.array_equal(one.token_codes, other.token_codes)
    for a, b in zip(one.tables, other.tables, strict=True):
        for name, value in vars(a).items():
            np.testing.assert_array_equal(value, getattr(b, name))


ANSWERS = demonstrations(25, seed=9)


# at once


def test_counts_learn_as_if_the_answers_had_been_demonstrated_from_the_start(imitators):
    config = ImitatorsConfig()
    again = fit_suffix_counts(imitators.tokenizer, [*imitators.fitted, *ANSWERS], config)
    taught = learned(imitators, ANSWERS)
    same_counts(taught.counts, again)
    twice = learned(learned(imitators, ANSWERS[:10]), ANSWERS[10:])
    same_counts(twice.counts, again)
    assert twice.fitted == taught.fitted == (*imitators.fitted, *ANSWERS)
    assert taught.networks == imitators.networks
    assert taught.log_cap_nats == imitators.log_cap_nats
    assert learned(imitators, []) is imitators


def test_weights_move_to_the_member_that_expected_the_answers(imitators):
    """By hand for one answer; and one at a time is all at once but for what the counts learn in between."""
    answer = ANSWERS[:1]
    per_dialogue = losses(imitators.networks, imitators.counts, encode(imitators.tokenizer, answer))[0]
    before = np.exp(imitators.log_weights)
    joint = before * np.exp(-(per_dialogue - per_dialogue.min()))
    n = len(imitators.held_out) + 3
    expected = (n * before + joint / joint.sum()) / (n + 1)
    taught = learned(imitators, answer)
    assert np.exp(taught.log_weights) == pytest.approx(expected)
    assert taught.summary["weights"] == pytest.approx(expected.tolist())
    best = int(per_dialogue.argmin())
    assert np.exp(learned(taught, ANSWERS[1:2]).log_weights).sum() == pytest.approx(1.0)
    many = learned(imitators, answer * 400)
    assert np.exp(many.log_weights)[best] > max(0.9, before[best])
    assert learned(taught, answer).summary["answers_weighed"] == 2


def test_what_the_demonstrator_did_not_choose_is_no_evidence(imitators):
    corpus = encode(imitators.tokenizer, ANSWERS[:3])
    nothing = learned_from(imitators, replace(corpus, is_action=np.zeros_like(corpus.is_action)))
    same_counts(nothing.counts, imitators.counts)
    assert nothing.log_weights == imitators.log_weights
    late = corpus.is_action & (corpus.turn >= 5)
    taught = learned_from(imitators, replace(corpus, is_action=late))
    grown = taught.counts.tables[0].counts.sum() - imitators.counts.tables[0].counts.sum()
    assert grown == late.sum()


def test_a_speaker_that_was_taught_says_what_it_could_not_say(imitators):
    """The counts as base: nobody ever said this; after three hundred answers they say little else."""
    account = Account(8.0, "floor")
    speaker = PolicySpeaker(
        "toy", imitators, imitators.members("counts"), imitators.base("counts"), account, Stay(), 15
    )
    odd = dialogue("hello teacher", "yay yay yay")

    def said(speaker):
        turns = [speaker.begin(odd[:1], 0.0, 0, seed) for seed in range(5)]
        return sum(first.text == "yay" for first in (turn.next_piece() for turn in turns) if isinstance(first, Piece))

    taught = speaker.taught([odd] * 300)
    assert said(speaker) == 0
    assert said(taught) >= 4
    assert taught.members.networks == speaker.members.networks
    single = replace(speaker, members=imitators.members("single"), base=imitators.base("single"))
    assert single.taught([odd]).members.counts is None


# from a file


def test_answers_that_were_learnt_before_are_told_and_the_tenth_is_held_out(imitators):
    first = [dialogue("hello teacher", f"what is {word} ?") for word in "two three four five six seven eight".split()]
    found = sort_out(imitators, [], [*first, *first[:3]])
    assert len(found.checking) == 1  # the tenth
    assert found.checking[0] == first[2]
    assert [begin for _, begin in found.fresh] == [0] * 9
    assert len(found.fitted) == len(imitators.fitted) + 9
    again = sort_out(replace(imitators, fitted=found.fitted, held_out=found.held_out), found.answers, first)
    assert (again.fresh, again.checking) == ((), ())
    assert sorted(map(str, again.answers)) == sorted(map(str, found.answers))


def test_a_conversation_that_went_on_is_learnt_from_where_it_was_left(imitators):
    short = dialogue("hello teacher", "what is two ?")
    longer = (*short, *dialogue("okay", "now find three times four ."))
    found = sort_out(imitators, [], [short])
    later = replace(imitators, fitted=found.fitted)
    grown = sort_out(later, found.answers, [longer])
    assert grown.fresh == ((longer, 2),)
    assert short not in grown.fitted
    assert grown.fitted.count(longer) == 1
    corpus = new_actions(imitators.tokenizer, grown.fresh)
    assert set(corpus.turn[corpus.is_action]) == {3}
    shrunk = sort_out(replace(imitators, fitted=grown.fitted), grown.answers, [short])
    assert shrunk.fresh == ()
    held = replace(imitators, held_out=(*imitators.held_out, short))
    aside = sort_out(held, [short], [longer])
    assert (aside.fresh, aside.checking) == ((), (longer,))
    assert short not in aside.held_out


@pytest.fixture
def folder(imitators, tmp_path):
    """A set on disk and a file of answers beside it."""
    save_imitators(imitators, tmp_path / "set", {"model": "somewhere"}, 0)
    write_dialogues(tmp_path / "answers.jsonl", ANSWERS)
    return tmp_path / "set"


def everything(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != update.LOCK
    }


def test_a_set_that_passes_takes_the_place_of_the_old_one(folder, imitators):
    answers = folder.parent / "answers.jsonl"
    record = update_folder(folder, answers, 0, Quiet(), steps=30)
    assert record["passed"], record["why"]
    assert (record["new_answers"], record["answers_held_out"]) == (25, 2)
    rows = {(row["of"], row["name"]): row for row in record["members"]}
    assert rows["answers", "mixture"]["rise"] <= 0.0
    assert all(row["rise"] <= 0.01 for (of, _), row in rows.items() if of == "demonstrations")
    new = load_imitators(folder)
    held, fitted = ANSWERS[9::10], [d for i, d in enumerate(ANSWERS) if i % 10 != 9]
    same_counts(new.counts, fit_suffix_counts(new.tokenizer, [*imitators.fitted, *fitted], ImitatorsConfig()))
    assert new.held_out == (*imitators.held_out, *held)
    old_weights, new_weights = (next(iter(x.networks[0].parameters())) for x in (imitators, new))
    assert not torch.equal(old_weights, new_weights)
    with pytest.raises(InputError, match="not learnt before"):
        update_folder(folder, answers, 0, Quiet())
    made = read_json(folder / "imitators.json")["provenance"]["config"]
    assert made == {"model": "somewhere", "update": {"answers": str(answers), "steps": 30, "seed": 0}}


def test_an_update_goes_on_at_the_rate_of_what_it_goes_on_from():
    rates = [first_fit(made, 500).learning_rate for made in ({}, {"model": "m"}, {"model": "m", "adapters": 2})]
    assert rates == [FitConfig().learning_rate, 1e-4, ADAPTERS_LEARNING_RATE]
    assert gentler(first_fit({"model": "m"}, 500), 500, 7).learning_rate == pytest.approx(update.GENTLER * 1e-4)


def test_a_frozen_model_is_not_fitted_on(folder):
    kept = read_json(folder / "imitators.json")
    kept["provenance"]["config"]["frozen"] = True
    write_json(folder / "imitators.json", kept)
    before = everything(folder)
    with pytest.raises(InputError, match="kept frozen"):
        update_folder(folder, folder.parent / "answers.jsonl", 0, Quiet(), steps=1)
    assert everything(folder) == before


def test_the_set_before_the_last_update_is_kept_and_no_more(folder, imitators, monkeypatch):
    monkeypatch.setattr(update, "compare", lambda *_: ([], ""))
    answers, chats, names = folder.parent / "answers.jsonl", list(ANSWERS), []
    for number in (1, 2, 3):
        names.append(fingerprint(folder))
        update_folder(folder, answers, 0, Quiet(), steps=1)
        kept = json.loads((folder / "imitators.json").read_text())
        assert (kept["at"], kept["updated_from"]) == (f"update-{number}", names)
        chats += demonstrations(12, seed=33 + number)
        write_dialogues(answers, chats)
    assert sorted(path.name for path in folder.glob("update-*")) == ["update-2", "update-3"]
    n_fitted = len(load_imitators(folder).fitted) - len(imitators.fitted)
    n_held_out = len(load_imitators(folder).held_out) - len(imitators.held_out)
    assert (n_fitted + n_held_out, n_held_out) == (25 + 12 + 12, 2 + 1 + 1)
    previous = load_imitators(folder / "update-2")
    assert len(previous.fitted) < len(load_imitators(folder).fitted)


def test_a_set_that_got_worse_is_not_taken(folder, monkeypatch):
    def spoil(network, *_, **__):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(3.0)

    before = everything(folder)
    monkeypatch.setattr(update, "fit", spoil)
    record = update_folder(folder, folder.parent / "answers.jsonl", 0, Quiet())
    assert not record["passed"]
    assert "network-0 predicts held-out demonstrations" in record["why"]
    assert everything(folder) == before


def test_answers_that_contradict_the_demonstrations_are_not_taken(folder):
    """The other half of the rule: nonsense that is learnt well makes the demonstrations less likely."""
    nonsense = [dialogue("hello teacher", "yay " * 14) for _ in range(400)]
    write_dialogues(folder.parent / "answers.jsonl", nonsense)
    record = update_folder(folder, folder.parent / "answers.jsonl", 0, Quiet(), steps=60)
    assert not record["passed"]
    assert "demonstrations" in record["why"]


def test_while_one_update_goes_on_another_is_refused(folder):
    before = everything(folder)
    with closing(locked(folder / update.LOCK)), pytest.raises(InputError, match="another update"):
        update_folder(folder, folder.parent / "answers.jsonl", 0, Quiet())
    assert everything(folder) == before


def test_old_demonstrations_are_gone_through_again_evenly(imitators):
    rng = np.random.default_rng(0)
    for n in (0, 3, 5, 12):
        drawn = Counter(update.drawn_evenly(ANSWERS[:5], n, rng))
        assert drawn.total() == n
        assert max(drawn.values(), default=0) - min((drawn[d] for d in ANSWERS[:5]), default=0) <= 1


def test_small_updates_hold_out_as_large_ones_do(imitators):
    chats = [dialogue("hello teacher", f"what is {word} ?") for word in "two three four five six seven".split()] * 4
    known, checked = [], []
    for begin in range(0, 24, 4):
        found = sort_out(imitators, known, [*known, *chats[begin : begin + 4]])
        known = list(found.answers)
        checked += found.checking
    assert len(checked) == 2


@pytest.mark.parametrize("dies_in", ["save_imitators", "write_dialogues", "write_json"])
def test_a_killed_update_leaves_the_old_set_and_the_next_one_works(folder, dies_in, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(update, dies_in, die)
    before = load_imitators(folder)
    with pytest.raises(KeyboardInterrupt):
        update_folder(folder, folder.parent / "answers.jsonl", 0, Quiet(), steps=5)
    after = load_imitators(folder)
    same_counts(after.counts, before.counts)
    assert after.fitted == before.fitted
    if dies_in == "write_json":
        monkeypatch.undo()
        assert update_folder(folder, folder.parent / "answers.jsonl", 0, Quiet(), steps=30)["passed"]


def test_the_verb_updates_and_says_so(folder):
    answers = folder.parent / "answers.jsonl"
    shutil.copytree(folder, folder.parent / "copy")

    def invoke(*words):
        return CliRunner().invoke(cli.app, ["imitate", str(answers), "--update", *words])

    done = invoke("--out", str(folder), "--steps", "30")
    assert done.exit_code == 0, done.output
    assert "taken the place" in done.stdout
    twice = invoke("--out", str(folder))
    assert (twice.exit_code, "not learnt before" in twice.stderr) == (2, True)
    as_json = invoke("--out", str(folder.parent / "copy"), "--steps", "30", "--json")
    assert json.loads(as_json.stdout)["passed"] is True
    assert "--update takes" in invoke("--out", str(folder), "--networks", "3").stderr
    assert "no finished set" in invoke("--out", str(folder.parent / "none")).stderr


# networks, to what the demonstrator chose alone


def test_fitting_to_actions_does_not_learn_what_others_say(imitators):
    """Another last word of the user, after the last action, changes nothing; another action does."""
    base = dialogue("hello teacher", "what is two ?", "okay")

    def fitted(changed):
        network = copy.deepcopy(imitators.networks[0])
        corpus = encode(imitators.tokenizer, [changed])
        update.fit_to_actions(network, corpus, FitConfig(3, learning_rate=0.01, warmup_steps=0), 0)
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    weights = fitted(base)
    assert torch.equal(weights, fitted(dialogue("hello teacher", "what is two ?", "fine")))
    assert not torch.equal(weights, fitted(dialogue("hello teacher", "what is three ?", "okay")))
    before = torch.cat([parameter.flatten() for parameter in imitators.networks[0].parameters()])
    assert torch.equal(before, fitted((base[0],)))
    assert not torch.equal(before, weights)


def test_networks_learn_the_answers_and_the_old_ones_stay(imitators):
    corpus = encode(imitators.tokenizer, ANSWERS)
    before = [parameter.clone() for parameter in imitators.networks[0].parameters()]
    new = update.networks_learned(imitators, corpus, 0, 30)
    old_loss, new_loss = (losses(x.networks, x.counts, corpus).mean(axis=0) for x in (imitators, new))
    assert (new_loss[:2] < old_loss[:2]).all()
    assert new_loss[2] == old_loss[2]
    assert all(torch.equal(a, b) for a, b in zip(before, imitators.networks[0].parameters(), strict=True))


def test_joined_dialogues_are_those_of_both(imitators):
    one, other, both = (encode(imitators.tokenizer, d) for d in (ANSWERS[:2], ANSWERS[2:5], ANSWERS[:5]))
    for name in ("tokens", "starts", "is_action", "turn"):
        np.testing.assert_array_equal(getattr(update.joined(one, other), name), getattr(both, name))


# what others began


def agents(dialogue, *indices):
    """The same dialogue with these turns said by the agent."""
    return tuple(replace(m, begun=m.content) if i in indices else m for i, m in enumerate(dialogue))


def test_what_the_agent_said_is_read_and_not_learnt_by_any_member(imitators):
    """Other words of the agent after the last answer change neither networks nor counts; those of the answer do."""
    chat = dialogue("hello teacher", "what is two ?", "okay", "what is three ?")

    def fitted(changed):
        network = copy.deepcopy(imitators.networks[0])
        fit(network, encode(imitators.tokenizer, [agents(changed, 3)]), FitConfig(3, learning_rate=0.01), 0)
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    other = dialogue("hello teacher", "what is two ?", "okay", "what is four ?")
    assert torch.equal(fitted(chat), fitted(other))
    assert not torch.equal(fitted(chat), fitted(dialogue("hello teacher", "what is four ?", "okay", "what is three ?")))
    both = [learned(imitators, [agents(d, 3)]) for d in (chat, other, chat[:3])]
    for taught in both[1:]:  # but for the rounding of float32, which knows how long a batch is
        assert taught.log_weights == pytest.approx(both[0].log_weights, abs=1e-6)
    assert len({x.counts.tables[0].counts.sum() for x in both}) == 1


def test_windows_that_are_all_the_agents_are_left_out(imitators):
    long = agents(dialogue("hello teacher", "great " * 400, "okay", "what is two ?"), 1)
    encoded = encode(imitators.tokenizer, [long])
    chosen = windows(encoded, 32)
    kept = learnable(encoded, chosen)
    assert 2 <= len(kept.begin) < len(chosen.begin) - 5
    fit(copy.deepcopy(imitators.networks[0]), encoded, FitConfig(4, batch_dialogues=1, learning_rate=0.01), 0)


def test_the_conversation_is_context_when_it_is_exported_learnt_and_exported_again(folder):
    """Answers with the agent's turns between them go through an update; what was begun is no action in counts or checks."""
    marked = [agents(d, 1) for d in ANSWERS]
    path = folder.parent / "answers.jsonl"
    write_dialogues(path, marked)
    old = load_imitators(folder)
    record = update_folder(folder, path, 0, Quiet(), steps=30)
    assert record["passed"], record["why"]
    new = load_imitators(folder)
    assert set(marked) <= {*new.fitted, *new.held_out}
    own = sum((encode(old.tokenizer, [d]).turn == 1).sum() - 1 for i, d in enumerate(marked) if i % 10 != 9)
    all_of = sum(encode(old.tokenizer, [d]).is_action.sum() for i, d in enumerate(ANSWERS) if i % 10 != 9)
    grown = new.counts.tables[0].counts.sum() - old.counts.tables[0].counts.sum()
    assert grown == all_of - own
    with pytest.raises(InputError, match="not learnt before"):
        update_folder(folder, path, 0, Quiet())


def test_openings_and_calibration_with_turns_of_the_agent(imitators):
    marked = [agents(d, 1) for d in ANSWERS]
    assert openings(imitators.tokenizer, marked, 20) == openings(imitators.tokenizer, ANSWERS, 20)
    config = ImitatorsConfig()
    found = calibrate(imitators.tokenizer, imitators.networks, imitators.counts, imitators.fitted, marked, config)
    n_turns = sum(m.demonstrates for d in marked for m in d)
    assert found.summary["held_out_turns"] == n_turns == sum(m.role == "assistant" for d in ANSWERS for m in d) - 25
    chosen = encode(imitators.tokenizer, marked)
    expected = losses(imitators.networks, imitators.counts, chosen).mean(axis=0)
    assert [row["held_out_nats_per_dialogue"] for row in found.summary["members"][:-1]] == pytest.approx(
        expected.tolist()
    )


def test_joined_keeps_what_was_begun(imitators):
    parts = [ANSWERS[:2], [agents(d, 1) for d in ANSWERS[2:4]]]
    for order in (parts, parts[::-1]):
        one, other = (encode(imitators.tokenizer, part) for part in order)
        both = encode(imitators.tokenizer, [*order[0], *order[1]])
        np.testing.assert_array_equal(update.joined(one, other).is_begun, both.is_begun)
