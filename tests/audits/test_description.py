"""Known behaviors come in their known order; the code is a code; the smallest policy is as small as its source."""

import itertools
import lzma
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mightnt.audits.description import (
    ASSISTANT,
    END,
    USER,
    Code,
    Family,
    Units,
    code_bits,
    cut,
    describe,
    dialogue_of,
    fitted_family,
    flatten,
    loss_by_dialogue,
    smallest_policy,
)
from mightnt.audits.results import Token, Transcript, Turn
from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.models.counts import fit_counts
from mightnt.worlds.chat import words
from mightnt.worlds.chat.corpus import N_ROUNDS, chat
from mightnt.worlds.chat.demonstrator import ChatDemonstrator

WORDS = Units(words.vocabulary()[len(words.MARKS) :])
AB = Units(("a", "b"))


def one_word(round_, category, rng):
    """The same word four times, always."""
    return [*words.tokens_of("great great great great"), words.END]


def silence_or_phrase(round_, category, rng):
    """Silent, or one phrase, by a coin."""
    return [*(words.tokens_of("great job !") if rng.random() < 0.5 else []), words.END]


def demonstrator(round_, category, rng):
    return ChatDemonstrator().sample_turn(category, 2 * round_ >= N_ROUNDS, rng)


def noise(round_, category, rng):
    """Ten words, uniformly."""
    return [*rng.integers(words.END + 1, len(words.vocabulary()), size=10).tolist(), words.END]


def chats(teacher, n, seed=0):
    return [chat(teacher, np.random.default_rng([seed, i])) for i in range(n)]


@pytest.mark.parametrize("seed", [0, 1])
def test_simple_behaviors_are_short_and_noise_is_long(seed):
    sizes = [describe(chats(t, 40, seed), Code(WORDS)) for t in (one_word, silence_or_phrase, demonstrator, noise)]
    for figure in ("bits_per_turn", "bits_per_token", "lzma_bits_per_turn"):
        values = [getattr(size, figure) for size in sizes]
        assert values == sorted(values), figure
        assert values[2] > 3 * values[1], figure
    assert sizes[3].bits_per_turn > 1.5 * sizes[2].bits_per_turn


def test_the_order_is_the_same_in_characters_once_the_letters_are_known():
    """Each letter costs 20 bits when it is first met, and there are four more of them in the phrase."""
    code = Code(Units(), depth=32)
    one, phrase, taught, noisy = (
        describe(chats(t, 40), code) for t in (one_word, silence_or_phrase, demonstrator, noise)
    )
    assert len(set("great job !")) == len(set("great great")) + 4
    assert one.bits + 4 * 20 < phrase.bits < taught.bits / 3 < noisy.bits / 4


def test_incompressible_is_not_compressed_and_a_coin_costs_a_bit():
    n = len(WORDS.vocabulary)
    noisy = describe(chats(noise, 60), Code(WORDS))
    assert noisy.bits_per_turn > 10 * math.log2(n)
    coin = describe(chats(silence_or_phrase, 300), Code(WORDS, depth=2))
    assert 1.0 < coin.bits_per_turn < 1.15
    assert describe(chats(one_word, 300), Code(WORDS)).bits_per_turn < 0.1


def test_what_follows_from_the_history_is_free():
    """Echoes cost hardly anything given the history, though by themselves (lzma) they are as long as what they echo."""
    rng = np.random.default_rng(0)
    asked = ["".join(rng.choice(list("ab"))) for _ in range(600)]
    echo = [(Message("user", text), Message("assistant", text)) for text in asked]
    other = rng.permutation(asked)
    random = [
        (Message("user", text), Message("assistant", str(text2))) for text, text2 in zip(asked, other, strict=True)
    ]
    assert describe(echo, Code(AB)).bits_per_turn < 0.1
    assert describe(random, Code(AB)).bits_per_turn > 0.98
    echoed, mixed = describe(echo, Code(AB)).lzma_bits_per_turn, describe(random, Code(AB)).lzma_bits_per_turn
    assert echoed == pytest.approx(mixed, rel=0.1)


def slow_bits(dialogues, depth, strength):
    """The formula, from scratch at every symbol: counts by looking through all that was chosen before."""
    passed, spent = [], []
    for dialogue in dialogues:
        bits, symbols = 0.0, []
        for message in dialogue:
            own = message.role == "assistant"
            symbols.append("A" if own else "U")
            for unit in [*message.content.split(), "END"]:
                p = 1.0 / 3.0
                for k in range(min(depth, len(symbols)) + 1):
                    context = tuple(symbols[len(symbols) - k :])
                    seen = Counter(
                        x for before, x in passed if len(before) >= k and before[len(before) - k :] == context
                    )
                    p = (seen[unit] + strength * p) / (sum(seen.values()) + strength)
                if own:
                    bits -= math.log2(p)
                    passed.append((tuple(symbols), unit))
                symbols.append(unit)
        spent.append(bits)
    return spent


TURN = st.lists(st.sampled_from("ab"), max_size=3).map(" ".join)
DIALOGUE = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TURN), min_size=1, max_size=3).map(
    lambda turns: tuple(Message(*turn) for turn in turns)
)


@given(st.lists(DIALOGUE, min_size=1, max_size=4), st.integers(0, 4), st.sampled_from([0.3, 2.0]))
def test_the_code_is_its_formula(dialogues, depth, strength):
    found = code_bits([AB.symbols(dialogue) for dialogue in dialogues], Code(AB, depth, strength))
    assert found == pytest.approx(slow_bits(dialogues, depth, strength))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_it_is_a_code_all_it_could_encode_adds_up_to_one(depth):
    """Over every choice of three symbols: sum 2^-bits = 1, so that somebody could decode it (Kraft)."""
    total = 0.0
    for choice in itertools.product([END, 3, 4], repeat=3):
        symbols = [ASSISTANT, 3, *choice]
        total += 2 ** -code_bits([(symbols, [False, False, True, True, True])], Code(AB, depth))[0]
    assert total == pytest.approx(1.0)


RAW = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]


def raw_lzma(text):
    return lzma.compress(text.encode(), lzma.FORMAT_RAW, filters=RAW)


def test_a_transcript_is_read_as_its_words():
    def turn(speaker, *texts):
        return Turn(speaker, tuple(Token(text) for text in texts))

    kept = Transcript((turn("user", "a", "b", "<|end|>"), turn("assistant", "<|end|>"), turn("user", "a")), 0.5, None)
    assert dialogue_of(kept) == (Message("user", "a b"), Message("assistant", ""), Message("user", "a"))
    assert dialogue_of(kept, separator="")[0].content == "ab"


def test_counting_and_lzma():
    dialogues = [(Message("user", "a a"), Message("assistant", "a b")), (Message("assistant", ""),)]
    found = describe(dialogues, Code(AB))
    assert (found.dialogues, found.turns, found.tokens) == (2, 2, 4)
    assert found.bits == pytest.approx(sum(found.bits_by_dialogue))
    assert found.bits_per_turn == found.bits / 2
    assert lzma.decompress(raw_lzma("a b\n\n"), lzma.FORMAT_RAW, filters=RAW) == b"a b\n\n"
    assert found.lzma_bits == 8 * len(raw_lzma("a b\n\n"))
    assert found.as_record()["bits_per_token"] == found.bits / 4
    assert AB.symbols(dialogues[0]) == ([USER, 3, 3, END, ASSISTANT, 3, 4, END], [False] * 5 + [True] * 3)


def test_what_cannot_be_described_is_refused():
    with pytest.raises(InputError, match="no turn"):
        describe([(Message("user", "a"),)], Code(AB))
    with pytest.raises(InputError, match="'c' is not among"):
        describe([(Message("assistant", "a c"),)], Code(AB))
    for depth, strength in ((-1, 1.0), (2, 0.0), (2, math.nan)):
        with pytest.raises(InputError, match="depth"):
            Code(AB, depth, strength)


# the smallest policy


def talk(order, n=60, length=40, noise=0.1, seed=0):
    """One long turn each: a symbol repeats the one ``order`` before it, but for some noise; order 0: a coin."""
    rng, dialogues = np.random.default_rng(seed), []
    for _ in range(n):
        said = rng.integers(2, size=max(order, 1)).tolist()
        while len(said) < length:
            fresh = order == 0 or rng.random() < noise
            said.append(int(rng.integers(2)) if fresh else said[-order])
        dialogues.append((Message("user", ""), Message("assistant", " ".join("ab"[x] for x in said))))
    return dialogues


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_smallest_policy_looks_as_far_back_as_the_source(order):
    found = smallest_policy(talk(order), AB, within_nats=0.03)
    assert found.policy.depth == order
    assert found.low <= found.parameters <= found.high


def test_more_memory_needs_more_parameters_and_less_care_fewer():
    sizes = [smallest_policy(talk(order), AB, within_nats=0.03).parameters for order in (0, 1, 2, 3)]
    assert sizes == sorted(set(sizes))
    loose = smallest_policy(talk(3), AB, within_nats=1.0)
    assert loose.parameters == min(policy.parameters for policy in loose.family)


def test_chat_behaviors_come_in_order():
    sizes = [
        smallest_policy(chats(teacher, 60), WORDS).parameters for teacher in (silence_or_phrase, one_word, demonstrator)
    ]
    assert sizes[0] <= sizes[1] + 3
    assert max(sizes[:2]) * 10 < sizes[2]


def test_a_known_loss_is_the_yardstick_and_out_of_reach_is_infinite():
    coin = talk(0)
    known = 40 / 41 * math.log(2)  # a coin for each symbol; the end is seen coming by the known behavior alone
    assert math.isinf(smallest_policy(coin, AB, 0.01, known_nats_per_token=known / 2).parameters)
    found = smallest_policy(coin, AB, within_nats=0.2, known_nats_per_token=known)
    assert found.policy.depth == 0
    assert found.target_nats_per_token == known + 0.2
    assert found.as_record()["policy"]["depth"] == 0


def test_the_interval_is_steady_and_wide_where_the_choice_is_close():
    close = talk(1, n=40, length=12, noise=0.9)
    one, again = (smallest_policy(close, AB, 0.005, seed=0) for _ in range(2))
    assert one == again
    assert one.low < one.high
    sure = smallest_policy(talk(1), AB, within_nats=0.1)
    assert sure.low == sure.high == sure.parameters


def test_the_interval_is_the_bootstrap_written_out():
    """Each resample finds its own best and the smallest within reach of it."""
    close = talk(1, n=40, length=12, noise=0.9)
    found = smallest_policy(close, AB, 0.005, resamples=200, confidence=0.9)
    policies, losses, tokens = fitted_family(close, AB, Family(), 0.3, 0)
    smallest = []
    for weights in np.random.default_rng(0).multinomial(len(tokens), np.full(len(tokens), 1 / len(tokens)), 200):
        means = [(row * weights).sum() / (tokens * weights).sum() for row in losses]
        smallest.append(
            min(p.parameters for p, mean in zip(policies, means, strict=True) if mean <= min(means) + 0.005)
        )
    assert (found.low, found.high) == (sorted(smallest)[9], sorted(smallest)[189])


def test_cutting_is_counting_without():
    """Against counts of a shorter suffix, and rows seen too rarely left out by hand."""
    (flat,) = flatten([talk(2, n=5)], AB)
    is_action = np.array([True, False, False, True, True])
    full = fit_counts(flat.symbols, flat.starts, flat.chosen, is_action, 3, 0.5)
    short = fit_counts(flat.symbols, flat.starts, flat.chosen, is_action, 1, 0.5)
    np.testing.assert_allclose(loss_by_dialogue(cut(full, 1, 1), flat), loss_by_dialogue(short, flat))
    floor = int(np.median(full.tables[3].totals))
    assert floor in full.tables[3].totals, "a suffix seen just so often stays"
    floored = cut(full, 3, floor)
    for kept, table in zip(floored.tables[1:], full.tables[1:], strict=True):
        rows = [i for i, total in enumerate(table.totals) if total >= floor]
        assert kept.keys.tolist() == table.keys[rows].tolist()
        assert kept.totals.tolist() == [kept.counts[a:b].sum() for a, b in itertools.pairwise(kept.row_starts)]
        assert len(kept.counts) == kept.row_starts[-1]
    assert len(floored.tables[3].keys) < len(full.tables[3].keys)
    assert loss_by_dialogue(full, flat).sum() < loss_by_dialogue(floored, flat).sum()


def test_sizes_count_what_is_kept():
    found = smallest_policy(talk(1), AB, family=Family((0, 1), (1,)))
    assert [policy.parameters for policy in found.family] == [3, 3 + 2 * 3 + 2]


@pytest.mark.parametrize(
    "bad", [{"within_nats": 0.0}, {"within_nats": math.nan}, {"confidence": 1.0}, {"resamples": 0}]
)
def test_numbers_that_say_nothing_are_refused(bad):
    with pytest.raises(InputError, match="above 0"):
        smallest_policy(talk(0), AB, **bad)
    with pytest.raises(InputError, match="at least 10"):
        smallest_policy(talk(0, n=9), AB)
    with pytest.raises(InputError, match="no turn of an assistant"):
        smallest_policy([(Message("user", "a"),)] * 20, AB)
