"""Dialogues as tokens, with every token marked as the demonstrator's action or an observation.

A dialogue becomes, turn by turn, ``role mark, content tokens, <|end|>``. Role marks are given by the environment. The
content and the closing ``<|end|>`` of an assistant turn are the demonstrator's actions; those of a user turn are
observations. What somebody else began of an assistant turn (``Message.begun``) is neither: a token that begins in it is not
the demonstrator's. Text is data: content that spells a mark, such as "<|end|>", never becomes one.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mightnt.dialogues import Dialogue, Message
from mightnt.errors import InputError

PAD, USER, ASSISTANT, END = MARKS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
"""The marks; a tokenizer made here gives them the ids 0, 1, 2, 3."""

SMALLEST_BPE = len(MARKS) + 256
"""Size of a byte-level vocabulary without a single merge: the marks and every byte."""

FastTokenizer: TypeAlias = Any
"""A ``transformers.PreTrainedTokenizerFast`` (transformers publishes no types that a checker can follow)."""

IntArray = NDArray[np.int64]
_ENCODING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Marks:
    """The ids of the four marks in one tokenizer."""

    pad: int
    user: int
    assistant: int
    end: int


def marks_of(tokenizer: FastTokenizer) -> Marks:
    """The ids of the marks; :class:`~mightnt.errors.InputError` where the tokenizer lacks one or is not a fast one."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(f"{type(tokenizer).__name__} is no fast tokenizer; one with a tokenizer.json is needed")
    vocabulary = tokenizer.get_vocab()
    missing = [mark for mark in MARKS if mark not in vocabulary]
    if missing:
        raise InputError(f"the tokenizer lacks {', '.join(missing)}; add them with with_marks(tokenizer)")
    return Marks(*(vocabulary[mark] for mark in MARKS))


def word_tokenizer(words: Sequence[str]) -> FastTokenizer:
    """A tokenizer with one token a word: the marks are 0 to 3, then ``words`` in the given order.

    Text is split at white space and decoded with single spaces. There is no unknown token: encoding another word raises
    :class:`~mightnt.errors.InputError` naming it. Words must be distinct, without white space, and no marks.
    """
    refused = [word for word in words if word in MARKS or word.split() != [word]]
    if refused:
        raise InputError(
            f"{refused[0]!r} is no word: a word is no mark and holds at least one character, no white space"
        )
    ids = {word: index for index, word in enumerate((*MARKS, *words))}
    if len(ids) != len(MARKS) + len(words):
        raise InputError("a word is listed twice; each word gets one id, so list it once")
    core = Tokenizer(models.WordLevel(ids))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _fast(core)


def train_bpe(dialogues: Iterable[Dialogue], vocabulary_size: int) -> FastTokenizer:
    """A byte-level BPE tokenizer trained on the text of ``dialogues``: the marks are 0 to 3, then bytes, then merges.

    Every text can be encoded and ``decode(encode(text)) == text``. The vocabulary is smaller than asked where the text
    has too few pairs to merge. The same dialogues give the same tokenizer.

    Errors: :class:`~mightnt.errors.InputError` for a size below 260 (the marks and 256 bytes) or no dialogues.
    Cost: about a second for a million characters.
    """
    contents = [message.content for dialogue in dialogues for message in dialogue]
    if vocabulary_size < SMALLEST_BPE:
        raise InputError(
            f"vocabulary size {vocabulary_size} is too small; {SMALLEST_BPE} holds the marks and all bytes"
        )
    if not contents:
        raise InputError("got no dialogues; a tokenizer needs text to be trained on")
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(contents, trainer, length=len(contents))
    return _fast(core)


def _fast(core: Tokenizer) -> FastTokenizer:
    """``core`` as a transformers tokenizer whose marks are special tokens."""
    core.add_special_tokens([_mark(mark) for mark in MARKS])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END)


def _mark(mark: str) -> AddedToken:
    return AddedToken(mark, special=True, normalized=False)


def with_marks(tokenizer: FastTokenizer) -> int:
    """Make the four marks special tokens of a pre-trained tokenizer, in place; how many are new to its vocabulary.

    A network then needs as many embedding rows as ``len(tokenizer)``: see ``networks.resize_for``.
    """
    before = len(tokenizer)
    tokenizer.add_tokens([_mark(mark) for mark in MARKS], special_tokens=True)
    marks_of(tokenizer)
    return len(tokenizer) - before


def save_tokenizer(tokenizer: FastTokenizer, folder: Path) -> None:
    """Write the tokenizer's files into ``folder``, beside a network's if there is one; never half of it."""
    with moving_into(folder, last="tokenizer.json") as temporary:
        tokenizer.save_pretrained(temporary)


def load_tokenizer(path_or_name: Path | str) -> FastTokenizer:
    """The tokenizer in a folder (nothing is downloaded then) or of a published model; it may lack the marks."""
    try:
        return AutoTokenizer.from_pretrained(
            str(path_or_name), local_files_only=is_local(path_or_name), trust_remote_code=False
        )
    except Exception as error:  # transformers raises many kinds; to the user they are one
        raise InputError(f"{path_or_name}: holds no tokenizer that can be loaded ({first_line(error)})") from error


def is_local(path_or_name: Path | str) -> bool:
    """Whether this means a folder here: it exists, or is written as a path. Any other text names a published model."""
    return isinstance(path_or_name, Path) or path_or_name.startswith((".", "/", "~")) or Path(path_or_name).exists()


def first_line(error: Exception) -> str:
    """The first line of an error's message, for a one-sentence error of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def moving_into(folder: Path, last: str) -> Iterator[Path]:
    """A temporary folder whose files move into ``folder`` when the block ends without an error.

    ``last`` names the file without which nothing takes the folder for whole: an old one goes first, the new one comes
    last. Other files in ``folder`` stay. Raises :class:`~mightnt.errors.InputError` where the disk is full or the place
    cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
            yield Path(scratch)
            (folder / last).unlink(missing_ok=True)
            for file in sorted(Path(scratch).iterdir(), key=lambda file: file.name == last):
                file.replace(folder / file.name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error})") from error


@dataclass(frozen=True, slots=True, eq=False)
class EncodedDialogues:
    """Dialogues end to end in flat arrays; dialogue ``i`` is the slice ``starts[i]:starts[i + 1]``."""

    tokens: NDArray[np.int32]
    """Token ids, shape ``(n_tokens,)``."""
    starts: IntArray
    """Offsets, shape ``(n_dialogues + 1,)``; the last one is ``n_tokens``."""
    is_action: NDArray[np.bool_]
    """True where the demonstrator chose: content and ``<|end|>`` of assistant turns. Shape ``(n_tokens,)``."""
    turn: NDArray[np.int32]
    """Index of the turn within its dialogue, role mark and ``<|end|>`` included. Shape ``(n_tokens,)``."""
    is_begun: NDArray[np.bool_] | None = None
    """True where somebody else spoke in the demonstrator's place: read, and never learnt. ``None``: nowhere."""

    def __post_init__(self) -> None:
        n = self.tokens.size
        if self.is_action.shape != (n,) or self.turn.shape != (n,) or self.starts[0] != 0 or self.starts[-1] != n:
            raise InputError(f"arrays of encoded dialogues do not fit together: {n} tokens, starts {self.starts}")
        if (np.diff(self.starts) <= 0).any():
            raise InputError("an encoded dialogue is empty; each needs at least one turn")

    @property
    def checksum(self) -> str:
        """Eight hexadecimal digits that tell one set of encoded dialogues from another."""
        data = crc32(self.starts.data, crc32(self.tokens.data))
        return f"{data if self.is_begun is None else crc32(self.is_begun.data, data):08x}"

    @property
    def n_dialogues(self) -> int:
        """Number of dialogues."""
        return self.starts.size - 1

    @property
    def lengths(self) -> IntArray:
        """Tokens of each dialogue, shape ``(n_dialogues,)``."""
        return np.diff(self.starts)

    @property
    def n_action_turns(self) -> int:
        """Number of assistant turns: runs of actions, each opened by a role mark that is none."""
        before = np.concatenate([[False], self.is_action[:-1]])
        return int((self.is_action & ~before).sum())

    def rows(self, indices: Sequence[int] | IntArray) -> EncodedDialogues:
        """These dialogues only, in the given order; an index may repeat."""
        chosen = np.asarray(indices, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(self.lengths[chosen])])
        flat = _ranges(self.starts[:-1][chosen], self.lengths[chosen])
        is_begun = None if self.is_begun is None else self.is_begun[flat]
        return EncodedDialogues(self.tokens[flat], starts, self.is_action[flat], self.turn[flat], is_begun)


def _ranges(begins: IntArray, lengths: IntArray) -> IntArray:
    """The integers ``begin, ..., begin + length - 1`` of every pair, end to end."""
    shifts = begins - (np.cumsum(lengths) - lengths)
    return np.repeat(shifts, lengths) + np.arange(lengths.sum())


@contextlib.contextmanager
def _taking_marks_for_text(tokenizer: FastTokenizer) -> Iterator[Any]:
    """The core of a tokenizer as texts are encoded here, and as it was afterwards. One thread at a time: a core that is
    encoding cannot be changed."""
    core = tokenizer.backend_tokenizer
    with _ENCODING:
        before = core.encode_special_tokens, core.post_processor
        core.encode_special_tokens = True
        core.post_processor = None  # some trim the space before a word from its offsets
        try:
            yield core
        finally:
            core.encode_special_tokens, core.post_processor = before


def content_tokens(tokenizer: FastTokenizer, contents: Sequence[str]) -> list[list[int]]:
    """The content tokens of each text, without marks; marks and other special tokens spelled in a text stay text.

    Errors: :class:`~mightnt.errors.InputError` for a text that cannot be encoded (an unknown word, half a surrogate
    pair) or, in a tokenizer whose ordinary vocabulary holds a mark, would yield one.
    """
    with _taking_marks_for_text(tokenizer) as core:
        try:
            encoded = [row.ids for row in core.encode_batch_fast(list(contents), add_special_tokens=False)]
        except Exception as error:  # the tokenizers library raises bare exceptions
            raise InputError(_refusal(tokenizer, contents)) from error
    marks = set(tokenizer.convert_tokens_to_ids(list(MARKS)))
    for text, ids in zip(contents, encoded, strict=True):
        if not marks.isdisjoint(ids):
            raise InputError(f"the text {text[:60]!r} spells one of the marks {' '.join(MARKS)}; take it out")
    return encoded


def _refusal(tokenizer: FastTokenizer, contents: Sequence[str]) -> str:
    """The sentence that names the first text that cannot be encoded, and its unknown word if that is the reason."""
    vocabulary = tokenizer.get_vocab()
    for text in contents:
        try:
            tokenizer.backend_tokenizer.encode_batch_fast([text], add_special_tokens=False)
        except Exception as error:
            unknown = [word for word in text.split() if word not in vocabulary]
            if unknown and "UNK" in str(error):
                return (
                    f"the word {unknown[0]!r} is not in the vocabulary of {len(vocabulary)} tokens (in {text[:60]!r})"
                )
            return f"the text {text[:60]!r} cannot be encoded; it holds characters that are no Unicode text"
    return "the texts cannot be encoded together"


def encode(tokenizer: FastTokenizer, dialogues: Sequence[Dialogue]) -> EncodedDialogues:
    """Every dialogue as ``role mark, content tokens, <|end|>`` a turn, flat, with actions and turns marked.

    Errors: :class:`~mightnt.errors.InputError` for a dialogue without turns, an unknown role, or text that
    :func:`content_tokens` refuses.
    Kind: exact. Cost: the tokenizer's, once for each distinct text; the rest is vectorized.
    """
    marks = marks_of(tokenizer)
    messages = list(chain.from_iterable(dialogues))
    turns_per_dialogue = np.fromiter(map(len, dialogues), np.int64, len(dialogues))
    if not messages or (turns_per_dialogue == 0).any():
        raise InputError("got no dialogues, or one without turns; each needs at least one turn")
    roles = {"user": marks.user, "assistant": marks.assistant}
    strange = [message.role for message in messages if message.role not in roles]
    if strange:
        raise InputError(f"role {strange[0]!r} is unknown; allowed are {', '.join(roles)}")

    role_ids = np.fromiter((roles[message.role] for message in messages), np.int32, len(messages))
    contents, lengths = _flat_contents(tokenizer, [message.content for message in messages])
    turn_lengths = lengths + 2
    turn_starts = np.cumsum(turn_lengths) - turn_lengths
    tokens = np.empty(turn_lengths.sum(), np.int32)
    tokens[turn_starts] = role_ids
    tokens[_ranges(turn_starts + 1, lengths)] = contents
    tokens[turn_starts + 1 + lengths] = marks.end
    is_action = np.repeat(role_ids == marks.assistant, turn_lengths)
    is_action[turn_starts] = False
    turn = np.repeat(_ranges(np.zeros_like(turns_per_dialogue), turns_per_dialogue), turn_lengths).astype(np.int32)
    first_turns = np.cumsum(turns_per_dialogue) - turns_per_dialogue
    starts = np.append(turn_starts[first_turns], tokens.size)
    is_begun = None
    if begun := [i for i, message in enumerate(messages) if message.begun]:
        is_begun = np.zeros(tokens.size, dtype=np.bool_)
        counts = begun_tokens(tokenizer, [messages[i] for i in begun])
        is_begun[_ranges(turn_starts[begun] + 1, counts)] = True
        is_action &= ~is_begun
    return EncodedDialogues(tokens, starts, is_action, turn, is_begun)


def begun_tokens(tokenizer: FastTokenizer, messages: Sequence[Message]) -> IntArray:
    """How many tokens of each turn somebody else began: those of its content up to the last that begins in ``begun``, and
    the ``<|end|>`` where all of it was theirs. Shape (messages,). Kind: exact, by the tokenizer's own offsets."""
    with _taking_marks_for_text(tokenizer) as core:
        encoded = core.encode_batch([message.content for message in messages], add_special_tokens=False)
    counts = []
    for message, row in zip(messages, encoded, strict=True):
        inside = [i for i, (begin, _) in enumerate(row.offsets) if begin < len(message.begun)]
        counts.append(len(row.ids) + 1 if not message.demonstrates else max(inside, default=-1) + 1)
    return np.array(counts, dtype=np.int64)


def _flat_contents(tokenizer: FastTokenizer, contents: list[str]) -> tuple[NDArray[np.int32], IntArray]:
    """Content tokens of all texts end to end and the length of each; equal texts are encoded once."""
    index = {text: i for i, text in enumerate(dict.fromkeys(contents))}
    encoded = content_tokens(tokenizer, list(index))
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    flat = np.fromiter(chain.from_iterable(encoded), np.int32, int(lengths.sum()))
    which = np.fromiter((index[text] for text in contents), np.int64, len(contents))
    begins = np.cumsum(lengths) - lengths
    return flat[_ranges(begins[which], lengths[which])], lengths[which]


def decode_reply(tokenizer: FastTokenizer, ids: Sequence[int] | IntArray, marks: Marks | None = None) -> str:
    """The text of one turn: ``ids`` up to its first ``<|end|>``. Other marks among them stay visible in the text.

    ``marks``: those of the tokenizer, for who has them at hand (looking them up takes longer than decoding).
    """
    end = (marks or marks_of(tokenizer)).end
    content = [int(i) for i in ids]
    content = content[: content.index(end)] if end in content else content
    return str(tokenizer.decode(content, skip_special_tokens=False, clean_up_tokenization_spaces=False))
