"""Neural members: causal language models that are made, loaded, saved, and read token by token.

Any Hugging Face causal language model can be a member. Reading token by token, where a run spends its time, has a path of
its own for plain Llama networks (the kind made here; see :mod:`mightnt.lm.llama`). The Hugging Face forward pass serves
every other network and is the oracle of that path. Dropout is off everywhere. Networks are float32 on the CPU; a large
pre-trained one may be kept in bfloat16 and on a GPU: what is read from it comes to the CPU, in float32.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from mightnt.errors import ContractError, InputError
from mightnt.lm.llama import LlamaReader, is_plain_llama
from mightnt.lm.scoring import Network as Network
from mightnt.lm.scoring import check_length, context_tokens
from mightnt.lm.tokens import FastTokenizer, first_line, is_local, moving_into, save_tokenizer

PRECISIONS: dict[str, Any] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "as saved": "auto"}
"""What weights can be kept in."""


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Size of a network made from scratch: Llama-style, tied embeddings, no dropout."""

    width: int = 64
    """Numbers in a hidden state; a multiple of twice ``heads``."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 2
    """Attention heads in each; reading token by token takes longer with more."""
    context: int = 256
    """Longest dialogue, in tokens, that it can read."""

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads) < 1 or self.context < 2:
            raise InputError(f"{self}: width, layers and heads must be at least 1, context at least 2")
        if self.width % (2 * self.heads):
            raise InputError(
                f"width {self.width} is no multiple of twice the {self.heads} heads; each needs an even share"
            )


def build_network(shape: NetworkShape, vocabulary_size: int, seed: int) -> Network:
    """A fresh ``LlamaForCausalLM``; the same seed gives the same weights, and no other random state is touched.

    Weights have standard deviation 1 / (2 sqrt(width)): the usual 0.02 is meant for wide networks, and narrow ones with
    tied embeddings hardly learn from it.
    """
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=shape.width,
        intermediate_size=8 * math.ceil(shape.width / 3),
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        initializer_range=0.5 / math.sqrt(shape.width),
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def load_network(path_or_name: Path | str, precision: str = "float32", device: str = "cpu") -> Network:
    """The causal language model in a folder (nothing is downloaded then) or of that published name.

    Weights are read from safetensors only, and code that comes with a model is never run.

    Args:
        precision: of the weights; see ``PRECISIONS``.
        device: where it is put, as torch calls it. Read on the CPU first, so they must fit there too.

    Errors: :class:`~mightnt.errors.InputError` for a folder that holds no such model, or one with weights missing; an unknown
    precision; a device that is not at hand.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; allowed are {', '.join(PRECISIONS)}")
    check_device(device)
    local = is_local(path_or_name)
    try:
        with no_progress_bars():
            network, report = AutoModelForCausalLM.from_pretrained(
                str(path_or_name),
                local_files_only=local,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=PRECISIONS[precision],
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises many kinds; to the user they are one
        what = "no causal language model in safetensors" if local else "no such folder, nor a model that can be fetched"
        raise InputError(f"{path_or_name}: {what} ({first_line(error)})") from error
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise InputError(f"{path_or_name}: weights are missing or of another shape: {', '.join(missing[:3])}")
    return network.eval().to(device)


def check_device(device: str) -> None:
    """Refuse a device that torch does not know, that this machine does not have, or that keeps no numbers."""
    try:
        torch.zeros(1, device=device).cpu()
    except Exception as error:  # RuntimeError, AssertionError, ... by device
        raise InputError(f"no device {device!r} here ({first_line(error)}); cpu is always there") from error


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars: loading a network here takes an instant, or says why not."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save_network(network: Network, folder: Path, tokenizer: FastTokenizer | None = None) -> None:
    """Write the network (safetensors), and its tokenizer if given, into ``folder``; never half of it."""
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder)
    with moving_into(folder, last="config.json") as temporary, no_progress_bars():
        network.save_pretrained(temporary)


def resize_for(network: Network, tokenizer: FastTokenizer) -> int:
    """Give every token of the tokenizer a row in the embeddings, in place; the number of rows added.

    A new row is the mean of the old ones (a fixed choice, no dice). A network with rows to spare is left as it is.
    """
    before, needed = network.get_input_embeddings().num_embeddings, len(tokenizer)
    if needed <= before:
        return 0
    network.resize_token_embeddings(needed, mean_resizing=False)
    with torch.no_grad():
        for layer in (network.get_input_embeddings(), network.get_output_embeddings()):
            layer.weight[before:] = layer.weight[:before].mean(dim=0)
    return int(needed - before)


class Reader(Protocol):
    """Reads tokens row by row and remembers them in a memory of its own kind, which it changes."""

    def start(self, rows: int) -> Any:
        """An empty memory for so many rows."""
        ...

    def read(self, memory: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the next token (rows, vocabulary) and the hidden state (rows, width) after ``tokens``."""
        ...


class HuggingFaceReader:
    """Reads with the network's own forward pass: any causal language model, about three times slower when tiny."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def start(self, rows: int) -> Any:
        """An empty key-value cache; it takes the number of rows from the first tokens."""
        return DynamicCache(config=self.network.config)

    def read(self, memory: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`Reader` says."""
        output = self.network(
            input_ids=tokens.to(self.network.device),
            past_key_values=memory,
            use_cache=True,
            output_hidden_states=True,
            logits_to_keep=1,
        )
        log_probs = output.logits[:, -1].float().log_softmax(dim=-1)
        return log_probs.cpu(), output.hidden_states[-1][:, -1].float().cpu()


@dataclass(frozen=True, slots=True, eq=False)
class NetworkState:
    """What a network says after the tokens it has read, one dialogue a row.

    Single use, the one exception to "states are values": advancing a state hands its memory on, and advancing it again is
    refused. What it says stays valid.
    """

    log_probs: Tensor
    """log p(next token), float32, shape (rows, vocabulary); (rows, 0) before the first token, which is always given."""
    hidden: Tensor
    """What the output layer reads: the last hidden state after the final norm, (rows, width); (rows, 0) at the start."""
    position: int
    """Tokens read."""
    memory: Any
    """The reader's memory and, to catch a second use, how many tokens it holds."""


class NetworkMember:
    """A network read token by token, many dialogues at once: ``start``, then ``advance``. Every row reads one token a step.

    The network's distribution is left as it is: role marks and padding keep their probability, masking is the caller's.
    The weights may be copied when it is made: make a new member after fitting the network on.

    Args:
        network: any causal language model.
        hugging_face: read with the network's own forward pass even where the faster path serves. Its oracle.
    """

    def __init__(self, network: Network, hugging_face: bool = False) -> None:
        self.network = network
        self.context = context_tokens(network)
        fast = is_plain_llama(network) and not hugging_face
        self.reader: Reader = LlamaReader(network) if fast else HuggingFaceReader(network)

    def start(self, batch_size: int) -> NetworkState:
        """The state of so many dialogues before their first token."""
        nothing = torch.empty(batch_size, 0)
        return NetworkState(nothing, nothing, 0, Memory(self.reader.start(batch_size)))

    @torch.no_grad()
    def advance(self, state: NetworkState, tokens: Tensor) -> NetworkState:
        """The state after one more token a row, shape (rows,), or several, shape (rows, n): a prompt of equal lengths.

        Errors: :class:`~mightnt.errors.InputError` where the context is full or the shape does not fit;
        :class:`~mightnt.errors.ContractError` for a state that was advanced before.
        Kind: exact (float32). Cost: one step of the network.
        """
        table = tokens[:, None] if tokens.ndim == 1 else tokens
        rows = state.log_probs.shape[0]
        if table.ndim != 2 or table.shape[0] != rows or not table.numel():
            raise InputError(f"got tokens of shape {tuple(tokens.shape)}; ({rows},) or ({rows}, n) fits this state")
        if state.memory.position != state.position:
            raise ContractError("this state was advanced before, and its memory went with that; use the newer state")
        check_length(self.network, state.position + table.shape[1])
        log_probs, hidden = self.reader.read(state.memory.cache, table)
        state.memory.position += table.shape[1]
        return NetworkState(log_probs, hidden, state.memory.position, state.memory)


@dataclass(slots=True)
class Memory:
    """A reader's cache and how many tokens it holds. Changes in place."""

    cache: Any
    position: int = 0
