"""What is shown to whoever is asked: likeliest continuations with exact probabilities, and the word in dispute."""

import math

import numpy as np
import pytest
import torch

from mightnt.experiments.chat import chat_tokenizer
from mightnt.lm.members import Members
from mightnt.lm.networks import NetworkMember
from mightnt.lm.proposals import counts_teller, disagreement, greedy, propose, share
from mightnt.worlds.chat import words
from tests.lm.toys import said

END = 0


def scripted(*rows):
    """A teller with these probabilities at its first, second, ... telling; it checks that it is told what was said."""
    told = iter(rows)
    return lambda _: torch.tensor(next(told), dtype=torch.float64).log()


def test_the_likeliest_token_each_time_but_not_the_end_at_first():
    tokens, log_p = greedy(scripted([0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [0.9, 0.05, 0.05]), END, 9)
    assert tokens == [1, 2, END]
    assert math.exp(log_p) == pytest.approx(0.3 * 0.7 * 0.9)


@pytest.mark.parametrize("longest", [0, 1, 2])
def test_it_stops_at_the_length_and_says_one_word_at_least(longest):
    tokens, log_p = greedy(scripted(*[[0.1, 0.8, 0.1]] * 3), END, longest)
    assert tokens == [1] * max(1, longest)
    assert math.exp(log_p) == pytest.approx(0.8 ** max(1, longest))


def test_the_counts_are_told_what_was_said(imitators):
    counts, hello = imitators.counts, words.word_ids()["hello"]
    suffix = np.array([-1, -1, words.USER, hello])
    tell = counts_teller(counts, suffix)
    for token, seen in ((None, suffix), (words.END, [-1, words.USER, hello, words.END])):
        np.testing.assert_array_equal(tell(token).numpy(), counts.predict(np.array([seen]))[0])


def test_every_member_goes_on_from_what_was_begun_and_white_space_is_no_proposal(imitators):
    members = Members([NetworkMember(n) for n in imitators.networks], imitators.counts.is_action, imitators.counts)
    begun = [words.word_ids()[word] for word in ("what", "is")]
    members.start(1)
    members.advance(torch.tensor([[words.USER, words.word_ids()["okay"], words.END, words.ASSISTANT, *begun]]))
    found = propose(imitators.tokenizer, members, imitators.marks, begun, 6)
    assert [proposal.model for proposal in found] == ["network-0", "network-1", "counts"]
    for proposal in found:
        assert proposal.text.startswith(" ")
        assert 1 <= len(proposal.text.split()) <= 6
        assert 0.0 < proposal.probability <= 1.0


def test_the_word_in_dispute_is_named_with_what_each_gives_it():
    tokenizer = chat_tokenizer()
    great, size = words.word_ids()["great"], len(tokenizer)
    network, counts, supported = np.zeros((1, 1, size)), np.full((1, size), 1 / size), np.ones((1, size), dtype=bool)
    network[0, 0, [great, words.END]] = 0.7, 0.3
    supported[0, great] = False
    step = said(network, counts, supported)
    base = torch.full((1, size), -torch.inf, dtype=torch.float64)
    base[0, words.END] = math.log(0.3)
    text = disagreement(tokenizer, step, base)
    by_counts = f"{1 / size:.1%} by the counts"
    assert text == (
        f'Most in doubt is "great" next: 70.0% by network-0, {by_counts}; 0.0% is vouched for: the demonstrations never go on so'
    )
    assert disagreement(tokenizer, step, step.networks[0]) == ""
    base[0, great], base[0, words.END] = math.log(0.7), math.log(0.1)
    text = disagreement(tokenizer, step, base)
    assert text.startswith("Most in doubt is the end of the turn next: 30.0% by network-0")
    assert text.endswith("10.0% is vouched for")


def test_what_is_possible_is_not_shown_as_impossible():
    assert [share(p) for p in (0.0, 1e-9, 0.001, 0.5, 1.0)] == ["0.0%", "under 0.1%", "0.1%", "50.0%", "100.0%"]
