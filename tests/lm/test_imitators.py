"""A set of imitators: made as its parts say, saved and loaded without a bit changed, and each base with its members."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.known import Known
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.mixture import Mixture
from mightnt.lm.bases.single import Single
from mightnt.lm.calibration import log_cap_nats, mixture_log_weights
from mightnt.lm.imitate import LOOSE_CAP_NATS, warnings
from mightnt.lm.imitators import (
    ImitatorsConfig,
    action_mask,
    calibrate,
    closed_on,
    dialogue_of,
    fit_suffix_counts,
    load_imitators,
    member_scores,
    save_imitators,
    share_of_turns,
    spoken,
    states_before_actions,
    summarize,
)
from mightnt.lm.members import over_actions
from mightnt.lm.scoring import logits_of, token_log_probs
from mightnt.lm.tokens import encode, word_tokenizer
from mightnt.models.counts import Support
from mightnt.worlds.chat import words


@pytest.fixture(scope="module")
def folder(imitators, tmp_path_factory):
    """The imitators, saved."""
    folder = tmp_path_factory.mktemp("imitators") / "set"
    save_imitators(imitators, folder, {"why": "a test"}, seed=7)
    return folder


def test_what_was_saved_predicts_what_was_kept(imitators, folder):
    loaded = load_imitators(folder)
    corpus = encode(imitators.tokenizer, imitators.held_out)
    again = encode(loaded.tokenizer, loaded.held_out)
    np.testing.assert_array_equal(again.tokens, corpus.tokens)
    np.testing.assert_array_equal(
        member_scores(loaded.networks, loaded.counts, again),
        member_scores(imitators.networks, imitators.counts, corpus),
    )
    suffixes = np.array([[-1, -1, -1, -1], [2, 4, 5, 6], [1, 2, 3, 2]])
    for rule in (loaded.support, imitators.support):
        np.testing.assert_array_equal(
            loaded.counts.supported(suffixes, rule), imitators.counts.supported(suffixes, imitators.support)
        )
    for name in ("support", "log_weights", "log_cap_nats", "fitted", "held_out", "summary", "marks"):
        assert getattr(loaded, name) == getattr(imitators, name), name
    assert loaded.counts.longest == imitators.counts.longest
    assert loaded.counts.strength == imitators.counts.strength


def test_the_record_says_where_it_came_from(folder):
    record = json.loads((folder / "imitators.json").read_text())
    assert record["provenance"]["seed"] == 7
    assert record["provenance"]["config"] == {"why": "a test"}


def test_an_unfinished_folder_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"no imitators\.json"):
        load_imitators(tmp_path)
    (tmp_path / "imitators.json").write_text('{"kind": "something else"}')
    with pytest.raises(InputError, match="is not a record of imitators"):
        load_imitators(tmp_path)
    (tmp_path / "imitators.json").write_text("[]")
    with pytest.raises(InputError, match="is not a record of imitators"):
        load_imitators(tmp_path)


def test_saving_that_breaks_off_leaves_no_finished_folder(imitators, folder, tmp_path, monkeypatch):
    save_imitators(imitators, tmp_path, {}, 0)

    def stop(*_):
        raise InputError("the disk is full")

    monkeypatch.setattr("mightnt.lm.imitators.write_dialogues", stop)
    with pytest.raises(InputError, match="full"):
        save_imitators(imitators, tmp_path, {}, 0)
    with pytest.raises(InputError, match="no finished set"):
        load_imitators(tmp_path)


def test_broken_counts_are_one_sentence(imitators, tmp_path):
    save_imitators(imitators, tmp_path, {}, 0)
    (tmp_path / "counts.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"counts\.safetensors: cannot be read"):
        load_imitators(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "networks", "counts", "support"),
    [
        ("none", Single, [0], False, False),
        ("single", Single, [0], False, False),
        ("network-0", Single, [0], False, False),
        ("network-1", Single, [1], False, False),
        ("mixture", Mixture, [0, 1], True, False),
        ("mixture-fixed", Mixture, [0, 1], True, False),
        ("pessimistic", Capped, [0], True, True),
        ("pessimistic-minimum", Minimum, [0], True, False),
        ("counts", Single, [0], True, False),
        ("known", Known, [0], False, False),
    ],
)
def test_each_base_comes_with_the_members_it_looks_at(name, kind, networks, counts, support, imitators):
    base, members = imitators.base(name), imitators.members(name)
    assert isinstance(base, kind)
    assert [member.network for member in members.networks] == [imitators.networks[i] for i in networks]
    assert (members.counts is not None) == counts
    assert (members.support is not None) == support
    members.start(1)
    members.advance(torch.tensor([imitators.marks.assistant]))
    mu = torch.full((1, len(imitators.counts.is_action)), -math.log(len(imitators.counts.is_action))).double()
    step = members.predict(torch.tensor([0]), mu)
    log_nu = base.predict(base.start(1), step)
    assert base.name == name

    def mixed():
        log_weights = torch.tensor(imitators.log_weights).double()
        return torch.logsumexp(log_weights[:, None, None] + torch.cat([step.networks, step.counts[None]]), 0)

    expected = {
        "mixture": mixed,
        "mixture-fixed": mixed,
        "pessimistic": lambda: torch.minimum(step.networks[0], step.counts + imitators.log_cap_nats).masked_fill(
            ~step.supported, -torch.inf
        ),
        "pessimistic-minimum": lambda: torch.minimum(step.networks[0], step.counts),
        "counts": lambda: step.counts,
        "known": lambda: mu,
    }.get(name, lambda: step.networks[0])()
    torch.testing.assert_close(log_nu, expected)


@pytest.mark.parametrize("name", ["nonsense", "network-2", "network-x", "network-", ""])
def test_an_unknown_base_is_refused(name, imitators):
    with pytest.raises(InputError, match="unknown base"):
        imitators.base(name)
    imitators.members(name)


def test_marks_that_are_given_are_no_actions_and_the_end_is():
    mask = action_mask(word_tokenizer(["a", "b"]))
    assert mask.tolist() == [False, False, False, True, True, True]
    tokenizer = word_tokenizer(["a", "b"])
    tokenizer.add_tokens(["<|other|>"], special_tokens=True)
    assert action_mask(tokenizer).tolist() == [False, False, False, True, True, True, False]


def test_the_counts_are_of_the_demonstrators_choices_alone(imitators):
    """After "assistant" the first words of turns; after "hello" never "teacher", which only the student says there."""
    counts = fit_suffix_counts(imitators.tokenizer, imitators.fitted, ImitatorsConfig(longest_suffix=1, strength=1e-9))
    corpus = encode(imitators.tokenizer, imitators.fitted)
    p = np.exp(counts.predict(np.array([[words.ASSISTANT]])))[0]
    first_words = corpus.tokens[1:][corpus.tokens[:-1] == words.ASSISTANT]
    np.testing.assert_allclose(p, np.bincount(first_words, minlength=len(p)) / len(first_words), atol=1e-6)
    hello, teacher = words.tokens_of("hello teacher")
    assert ((corpus.tokens[:-1] == hello) & (corpus.tokens[1:] == teacher)).any()
    assert np.exp(counts.predict(np.array([[hello]])))[0][teacher] < 1e-6


def test_member_scores_are_log_probabilities_of_the_actions_in_order(imitators):
    corpus = encode(imitators.tokenizer, imitators.held_out[:2])
    found = member_scores(imitators.networks, imitators.counts, corpus)
    assert found.shape == (3, corpus.is_action.sum())
    np.testing.assert_array_equal(found[1], token_log_probs(imitators.networks[1], corpus)[corpus.is_action])
    places = np.flatnonzero(corpus.is_action)
    for column in (0, 7, len(places) - 1):
        place = places[column]
        begin = corpus.starts[np.searchsorted(corpus.starts, place, side="right") - 1]
        suffix = [-1] * 4 + corpus.tokens[begin:place].tolist()
        row = imitators.counts.predict(np.array([suffix[-4:]]))[0]
        assert found[2, column] == row[corpus.tokens[place]]


def test_every_token_knows_its_dialogue(imitators):
    corpus = encode(imitators.tokenizer, imitators.held_out[:3])
    assert dialogue_of(corpus).tolist() == [i for i, n in enumerate(corpus.lengths.tolist()) for _ in range(n)]


def test_calibration_takes_weights_and_cap_from_held_out_dialogues_alone(imitators):
    """By the slow way: sums dialogue by dialogue, ratios of the first network to the counts."""
    corpus = encode(imitators.tokenizer, imitators.held_out)
    owner = dialogue_of(corpus)[corpus.is_action]
    scores = member_scores(imitators.networks, imitators.counts, corpus)
    sums = [[row[owner == d].sum() for row in scores] for d in range(len(imitators.held_out))]
    assert imitators.log_weights == pytest.approx(mixture_log_weights(np.array(sums)).tolist())
    turns = corpus.turn[corpus.is_action]
    assert imitators.log_cap_nats == log_cap_nats(scores[0] - scores[2], owner, turns, 0.01)
    looser = ImitatorsConfig(veto_rate=0.5)
    parts = (imitators.tokenizer, imitators.networks, imitators.counts, imitators.fitted, imitators.held_out)
    assert calibrate(*parts, looser).log_cap_nats == log_cap_nats(scores[0] - scores[2], owner, turns, 0.5)


def test_the_summary_by_hand():
    """Two dialogues of one and two turns; log-losses 3 and 5 for the network, 1 and 1 for the counts; weights (.5, .5)."""
    scores = np.array([[-1.0, -2.0, -5.0, 0.0], [-0.5, -0.5, -1.0, 0.0]])
    per_dialogue = np.array([[-3.0, -1.0], [-5.0, -1.0]])
    dialogue, turn = np.array([0, 0, 1, 1]), np.array([1, 1, 1, 3])
    summary = summarize(scores, per_dialogue, dialogue, turn, np.log([0.5, 0.5]), 1.5)
    network, counts, mixture = summary["members"]
    assert (network["name"], counts["name"], mixture["name"]) == ("network-0", "counts", "mixture")
    assert network["held_out_nats_per_token"] == 2.0
    assert network["held_out_nats_per_turn"] == pytest.approx(8 / 3)
    assert network["held_out_nats_per_dialogue"] == 4.0
    assert network["standard_error_per_dialogue"] == pytest.approx(1.0)
    assert counts["standard_error_per_dialogue"] == 0.0
    expected = -sum(math.log((math.exp(-a) + math.exp(-1)) / 2) for a in (3, 5))
    assert mixture["held_out_nats_per_token"] == pytest.approx(expected / 4)
    assert (summary["held_out_turns"], summary["held_out_dialogues"], summary["log_cap_nats"]) == (3, 2, 1.5)
    assert summary["weights"] == pytest.approx([0.5, 0.5])


def test_one_held_out_dialogue_has_no_standard_error():
    summary = summarize(
        np.array([[-1.0]] * 2), np.array([[-1.0] * 2]), np.zeros(1, int), np.ones(1, int), np.log([0.5] * 2), 0.0
    )
    assert all(member["standard_error_per_dialogue"] is None for member in summary["members"])


def test_the_veto_of_situations_is_as_strict_as_held_out_turns_allow(imitators):
    """The first value that vetoes few enough turns is taken; the last of all closes nothing and vetoes nothing."""
    check, values = encode(imitators.tokenizer, imitators.held_out), (1.0, 0.3, 0.1, 0.0)
    hidden = states_before_actions(imitators.networks[0], check)
    endless = replace(imitators.situations, farthest=math.inf)

    def vetoed(missing, rate, asking_rate=1.0):
        config = ImitatorsConfig(
            situation_support=Support(1, 2), missing=missing, missing_rate=rate, asking_rate=asking_rate
        )
        network = imitators.networks[0]
        situations, support, said, asking = closed_on(check, endless, hidden, network, imitators.counts, config)
        assert situations.rule.missing == support.missing
        return support.missing, share_of_turns(check, np.isnan(said)), share_of_turns(check, asking)

    each = [vetoed((value,), 0.0)[1] for value in values]
    assert each == sorted(each, reverse=True)
    assert each[0] > each[-1] == 0.0
    for rate in (0.0, 0.02, each[1], 1.0):
        taken, share, _ = vetoed(values, rate)
        assert taken == next(value for value, of in zip(values, each, strict=True) if of <= rate)
        assert share <= rate
    asks = [vetoed((value,), 0.0)[2] for value in values]
    assert asks[0] > asks[-1] == 0.0
    for rate in (0.0, asks[1], 1.0):
        taken, _, share = vetoed(values, 1.0, rate)
        assert taken == next(value for value, of in zip(values, asks, strict=True) if of <= rate)
        assert share <= rate
    assert imitators.summary["situation_vetoed_turns"] <= 0.02
    assert imitators.summary["situation_asking_turns"] <= 0.05
    assert imitators.summary["situation_missing"] == imitators.situation_support.missing


def test_a_turn_counts_once(imitators):
    check = encode(imitators.tokenizer, imitators.held_out)
    n = int(check.is_action.sum())
    assert share_of_turns(check, np.ones(n, dtype=bool)) == 1.0
    assert share_of_turns(check, np.zeros(n, dtype=bool)) == 0.0
    one = np.zeros(n, dtype=bool)
    one[:2] = True
    assert share_of_turns(check, one) == pytest.approx(1 / check.n_action_turns)


def test_what_the_network_says_from_its_hidden_states_is_what_it_says(imitators):
    check, network = encode(imitators.tokenizer, imitators.held_out[:3]), imitators.networks[0]
    said = spoken(network, states_before_actions(network, check), imitators.counts.is_action)
    expected = []
    for begin, end in pairwise(check.starts):
        tokens = torch.from_numpy(check.tokens[begin:end].astype(np.int64))[None]
        everywhere = over_actions(logits_of(network, tokens)[0].detach(), torch.from_numpy(imitators.counts.is_action))
        expected.append(everywhere[np.flatnonzero(check.is_action[begin:end]) - 1].exp())
    np.testing.assert_allclose(said, torch.cat(expected), atol=1e-6)


@pytest.mark.parametrize(("cap", "warned"), [(LOOSE_CAP_NATS, False), (LOOSE_CAP_NATS + 1, True), (math.inf, True)])
def test_a_cap_that_bounds_nothing_is_warned_of(cap, warned, imitators):
    loose = replace(imitators, summary={**imitators.summary, "situation_log_cap_nats": cap})
    assert any(f"log c = {cap:.0f} nats" in warning for warning in warnings(loose)) == warned
