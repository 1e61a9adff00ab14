"""Tokens: round trips, who chose what, and that text never becomes a mark."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mightnt.dialogues import Message
from mightnt.errors import InputError
from mightnt.lm.tokens import (
    MARKS,
    EncodedDialogues,
    Marks,
    content_tokens,
    decode_reply,
    encode,
    load_tokenizer,
    marks_of,
    moving_into,
    save_tokenizer,
    train_bpe,
    with_marks,
    word_tokenizer,
)

PAD, USER, ASSISTANT, END = range(4)
HELLO = (Message("user", "hi there"), Message("assistant", "hello"), Message("user", ""), Message("assistant", "hi hi"))
WORDS = ("hi", "there", "hello")


@pytest.fixture(scope="module")
def bpe():
    return train_bpe([HELLO, (Message("assistant", "the theory there, the other thing"),) * 3], 300)


def foreign(ordinary=(), added=()):
    """A byte-level tokenizer of somebody else, without marks unless given as ordinary words or plain added tokens."""
    vocabulary = {char: i for i, char in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *ordinary])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(word, special=False) for word in added])
    return PreTrainedTokenizerFast(tokenizer_object=core)


def test_ids_of_a_word_tokenizer_are_marks_then_words_in_order():
    tokenizer = word_tokenizer(WORDS)
    assert marks_of(tokenizer) == Marks(pad=0, user=1, assistant=2, end=3)
    assert len(tokenizer) == 7
    assert content_tokens(tokenizer, ["hello there hi", ""]) == [[6, 5, 4], []]


def test_encoding_by_hand():
    encoded = encode(word_tokenizer(WORDS), [HELLO, HELLO[:2]])
    first = [USER, 4, 5, END, ASSISTANT, 6, END, USER, END, ASSISTANT, 4, 4, END]
    np.testing.assert_array_equal(encoded.tokens, [*first, *first[:7]])
    np.testing.assert_array_equal(encoded.starts, [0, 13, 20])
    acts = [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(encoded.is_action, np.array([*acts, *acts[:7]], bool))
    turns = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3]
    np.testing.assert_array_equal(encoded.turn, [*turns, *turns[:7]])
    assert (encoded.n_dialogues, encoded.n_action_turns) == (2, 3)
    assert encoded.tokens.dtype == encoded.turn.dtype == np.int32
    assert encoded.starts.dtype == np.int64


texts = st.text(max_size=40) | st.sampled_from(
    ["<|end|>", " <|pad|><|user|>", "a\r\n\tb  c ", "\x00", "🙂é<|assistant|>"]
)


def test_what_somebody_else_began_is_no_action_by_hand():
    """Half a turn, a whole one, one whose boundary is within a word."""
    half, whole, within = (Message("assistant", "hi there hello", begun) for begun in ("hi", "hi there hello", "hi th"))
    ask = Message("user", "hi")
    encoded = encode(word_tokenizer(WORDS), [(ask, half, whole), (within,)])
    plain = encode(word_tokenizer(WORDS), [tuple(Message(m.role, m.content) for m in (ask, half, whole)), (within,)])
    np.testing.assert_array_equal(encoded.tokens, plain.tokens)
    ours, begun = [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(encoded.is_action, np.array([*ours, 0, 0, 0, 1, 1], bool))
    np.testing.assert_array_equal(encoded.is_begun, np.array([*begun, 0, 1, 1, 0, 0], bool))
    assert encoded.n_action_turns == 2
    np.testing.assert_array_equal(encoded.rows([1]).is_begun, [0, 1, 1, 0, 0])
    assert encode(word_tokenizer(WORDS), [(ask, Message("assistant", "hi"))]).is_begun is None


def trimming():
    """A tokenizer of somebody else whose offsets leave out the space before a word."""
    tokenizer = train_bpe([(Message("assistant", "the theory there, the other thing"),) * 3], 300)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


TRIMMING = trimming()


@settings(max_examples=200, deadline=None)
@given(begun=texts, rest=texts, trims=st.booleans())
def test_a_token_that_begins_before_the_boundary_is_not_the_demonstrators(bpe, begun, rest, trims):
    """Against counting bytes: without the last of the tokens begun there is less than was begun, with it all of that."""
    tokenizer = TRIMMING if trims else bpe
    encoded = encode(tokenizer, [(Message("assistant", begun + rest, begun),)])
    content = encoded.tokens[1:-1].tolist()
    n = int((~encoded.is_action[1:-1]).sum())
    assert not encoded.is_action[0]
    if not begun:
        assert encoded.is_action[1:].all()
        return
    if not rest:
        assert not encoded.is_action.any()
        return
    assert encoded.is_action[1:].tolist() == [False] * n + [True] * (len(content) - n + 1)
    sizes = np.cumsum([0, *(len(token) for token in tokenizer.convert_ids_to_tokens(content))])  # a character a byte
    boundary = len(begun.encode())
    assert sizes[n - 1] < boundary <= sizes[n]


def test_asking_for_offsets_leaves_the_tokenizer_as_it_was():
    core = TRIMMING.backend_tokenizer
    encode(TRIMMING, [(Message("assistant", "the theory", "the"),)])
    assert core.post_processor is not None
    assert not core.encode_special_tokens


def test_rows_pick_and_repeat_dialogues():
    encoded = encode(word_tokenizer(WORDS), [HELLO, HELLO[:2]])
    picked = encoded.rows([1, 0, 1])
    again = encode(word_tokenizer(WORDS), [HELLO[:2], HELLO, HELLO[:2]])
    for name in ("tokens", "starts", "is_action", "turn"):
        np.testing.assert_array_equal(getattr(picked, name), getattr(again, name))


def test_an_unknown_word_is_named():
    with pytest.raises(InputError, match=r"'goodbye' is not in the vocabulary of 7 tokens"):
        encode(word_tokenizer(WORDS), [(Message("assistant", "hi goodbye there"),)])


@pytest.mark.parametrize("words", [["a b"], [""], ["<|end|>"], ["a\n"]])
def test_what_is_no_word_is_refused(words):
    with pytest.raises(InputError, match="is no word"):
        word_tokenizer(words)
    with pytest.raises(InputError, match="listed twice"):
        word_tokenizer(["a", "b", "a"])


@settings(max_examples=200, deadline=None)
@given(dialogue=st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), min_size=1, max_size=6))
def test_bpe_round_trip_of_any_text_and_no_text_becomes_a_mark(bpe, dialogue):
    encoded = encode(bpe, [tuple(Message(role, text) for role, text in dialogue)])
    np.testing.assert_array_equal(encoded.tokens <= END, is_frame(encoded))
    ends = np.flatnonzero(encoded.tokens == END)
    opens = np.concatenate([[0], ends[:-1] + 1])
    for (role, text), begin, end in zip(dialogue, opens, ends, strict=True):
        assert encoded.tokens[begin] == {"user": USER, "assistant": ASSISTANT}[role]
        assert decode_reply(bpe, encoded.tokens[begin + 1 : end + 1]) == text
        assert encoded.is_action[begin + 1 : end + 1].tolist() == [role == "assistant"] * (end - begin)
        assert not encoded.is_action[begin]


def is_frame(encoded):
    """First and last token of every turn."""
    change = np.diff(encoded.turn, prepend=-1) != 0
    return change | np.append(change[1:], True)


def test_bpe_merges_are_learnt_and_repeatable(bpe):
    again = train_bpe([HELLO, (Message("assistant", "the theory there, the other thing"),) * 3], 300)
    assert again.get_vocab() == bpe.get_vocab()
    assert marks_of(bpe) == Marks(0, 1, 2, 3)
    assert 260 < len(bpe) <= 300
    assert len(content_tokens(bpe, ["the theory"])[0]) < len("the theory")
    assert len(train_bpe([HELLO], 260)) == 260


def test_bpe_needs_room_and_text():
    with pytest.raises(InputError, match="260"):
        train_bpe([HELLO], 259)
    with pytest.raises(InputError, match="no dialogues"):
        train_bpe([], 300)


def test_half_a_surrogate_pair_is_refused_by_name(bpe):
    with pytest.raises(InputError, match=r"no Unicode text"):
        content_tokens(bpe, ["fine", "broken \ud800"])


def test_a_mark_spelled_in_words_is_refused():
    with pytest.raises(InputError, match="spells one of the marks"):
        encode(word_tokenizer(WORDS), [(Message("user", "hi <|end|> hi"),)])


def test_marks_join_a_foreign_tokenizer_once_and_stay_out_of_text():
    tokenizer = foreign()
    with pytest.raises(InputError, match="lacks"):
        marks_of(tokenizer)
    assert with_marks(tokenizer) == 4
    assert with_marks(tokenizer) == 0
    marks = marks_of(tokenizer)
    assert {marks.pad, marks.user, marks.assistant, marks.end} == {256, 257, 258, 259}
    encoded = encode(tokenizer, [(Message("assistant", "a<|end|><|user|>b"),)])
    assert (encoded.tokens[1:-1] < 256).all()
    assert decode_reply(tokenizer, encoded.tokens[1:]) == "a<|end|><|user|>b"


def test_a_mark_that_was_a_plain_added_token_becomes_special():
    tokenizer = foreign(added=["<|end|>"])
    assert with_marks(tokenizer) == 3
    assert marks_of(tokenizer).end not in content_tokens(tokenizer, ["a <|end|> b"])[0]


def test_other_special_tokens_spelled_in_text_stay_text_too():
    tokenizer = foreign()
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    with_marks(tokenizer)
    assert tokenizer.eos_token_id not in content_tokens(tokenizer, ["a</s>"])[0]
    assert tokenizer.backend_tokenizer.encode("a</s>").ids[-1] == tokenizer.eos_token_id, "it is left as it was"


def test_a_tokenizer_that_is_not_fast_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="Slow is no fast tokenizer"):
        marks_of(Slow())


def test_a_reply_ends_at_its_end_and_shows_stray_marks():
    tokenizer = word_tokenizer(WORDS)
    assert decode_reply(tokenizer, [4, 5, END, 6, 6]) == "hi there"
    assert decode_reply(tokenizer, [END]) == ""
    assert decode_reply(tokenizer, []) == ""
    assert decode_reply(tokenizer, [4, USER, 5]) == "hi <|user|> there"


@pytest.mark.parametrize("dialogues", [[], [()], [HELLO, ()]])
def test_nothing_to_encode_is_refused(dialogues):
    with pytest.raises(InputError, match="at least one turn"):
        encode(word_tokenizer(WORDS), dialogues)


def test_an_unknown_role_is_refused():
    with pytest.raises(InputError, match="'system'"):
        encode(word_tokenizer(WORDS), [(Message("system", "hi"),)])


def test_arrays_that_do_not_fit_are_refused():
    flags, turn = np.zeros(3, bool), np.zeros(3, np.int32)
    with pytest.raises(InputError, match="fit together"):
        EncodedDialogues(np.zeros(4, np.int32), np.array([0, 4]), flags, turn)
    with pytest.raises(InputError, match="empty"):
        EncodedDialogues(np.zeros(3, np.int32), np.array([0, 3, 3]), flags, turn)


@pytest.mark.parametrize("make", [lambda: word_tokenizer(WORDS), lambda: train_bpe([HELLO], 280)])
def test_saved_and_loaded_it_says_the_same(make, tmp_path):
    tokenizer = make()
    save_tokenizer(tokenizer, tmp_path / "here")
    loaded = load_tokenizer(tmp_path / "here")
    assert marks_of(loaded) == marks_of(tokenizer)
    before, after = encode(tokenizer, [HELLO]), encode(loaded, [HELLO])
    np.testing.assert_array_equal(before.tokens, after.tokens)
    assert decode_reply(loaded, after.tokens[1:]) == "hi there"


def test_added_marks_survive_saving(tmp_path):
    tokenizer = foreign()
    with_marks(tokenizer)
    save_tokenizer(tokenizer, tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert marks_of(loaded) == marks_of(tokenizer)
    assert max(content_tokens(loaded, [" ".join(MARKS)])[0]) < 256


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_a_tokenizer_is_one_sentence(name, tmp_path):
    with pytest.raises(InputError, match="holds no tokenizer") as caught:
        load_tokenizer(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_files(tmp_path):
    (tmp_path / "last").write_text("old")
    (tmp_path / "other").write_text("kept")

    def fail():
        with moving_into(tmp_path, last="last") as scratch:
            (scratch / "last").write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        fail()
    assert (tmp_path / "last").read_text() == "old"
    with moving_into(tmp_path, last="last") as scratch:
        (scratch / "last").write_text("new")
        (scratch / "first").write_text("new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"last": "new", "first": "new", "other": "kept"}


def test_a_killed_write_never_looks_whole(tmp_path):
    code = (
        "import os, pathlib, sys; from mightnt.lm.tokens import moving_into\n"
        "old = pathlib.Path.replace\n"
        "def replace(self, target):\n    old(self, target); os._exit(9)\n"
        "pathlib.Path.replace = replace\n"
        "with moving_into(pathlib.Path(sys.argv[1]), last='config') as scratch:\n"
        "    (scratch / 'config').write_text('new'); (scratch / 'weights').write_text('new')\n"
    )
    (tmp_path / "config").write_text("old")
    (tmp_path / "weights").write_text("old")
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 9
    assert not (tmp_path / "config").exists()
    assert (tmp_path / "weights").read_text() == "new"


class SlowCore:
    """A tokenizer's core that takes its time, and encodes well only as it was set when it began."""

    encode_special_tokens, post_processor = False, "trims"

    def encode_batch_fast(self, texts, add_special_tokens):
        for _ in range(len(texts[0])):
            time.sleep(0.001)
            assert (self.encode_special_tokens, self.post_processor) == (True, None)
        return [SimpleNamespace(ids=[9]) for _ in texts]


def test_threads_that_share_a_tokenizer_do_not_disturb_each_other():
    core = SlowCore()
    tokenizer = SimpleNamespace(
        backend_tokenizer=core, convert_tokens_to_ids=lambda marks: [0, 1, 2, 3], get_vocab=lambda: {}
    )
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: content_tokens(tokenizer, ["x" * n]), [5, 40, 20, 10]))
    assert found == [[[9]]] * 4
    assert (core.encode_special_tokens, core.post_processor) == (False, "trims")


def test_checksums_tell_demonstrations_apart_by_tokens_ends_and_what_others_began():
    tokens, flags = np.array([1, 5, 3, 2], np.int32), np.zeros(4, dtype=bool)

    def encoded(tokens=tokens, starts=(0, 4), is_begun=None):
        return EncodedDialogues(tokens, np.array(starts), flags, np.zeros(4, np.int32), is_begun)

    others = [encoded(tokens[::-1].copy()), encoded(starts=(0, 2, 4)), encoded(is_begun=np.array([0, 1, 0, 0], bool))]
    assert len({one.checksum for one in (encoded(), *others)}) == 4
    assert encoded().checksum == encoded(tokens.copy()).checksum
