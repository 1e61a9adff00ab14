"""The paper's own form, end to end: a mixture of experts and a classifier on disk, chats, imitators, a run under a budget.

The models are tiny and random; the commands for the real ones are read from docs/paper-form.md.
"""

import contextlib
import io
import json
import runpy
import shlex
from collections import Counter
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from mightnt import cli
from mightnt.dialogues import write_dialogues
from mightnt.lm.imitators import load_imitators
from mightnt.lm.networks import HuggingFaceReader, NetworkMember, load_network, save_network
from mightnt.lm.rewards import resolve_reward
from mightnt.lm.scoring import scores
from mightnt.lm.tokens import content_tokens, decode_reply
from mightnt.worlds.chat.corpus import demonstrations

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "paper-form.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- footprint: begin -->\n", "<!-- footprint: end -->"
BUDGET_NATS = 3.0


def tokenizer_of_its_kind(chats):
    """A tokenizer built as Mixtral's is: ``▁`` before every word, bytes for strange characters, ``<s>`` put in front."""
    texts = [message.content for chat in chats for message in chat]
    words = [f"▁{word}" for word, _ in Counter(" ".join(texts).split()).most_common(60)]
    merges = list(dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word))))
    letters = sorted({"▁", *"".join(texts).replace(" ", "▁")})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *map("".join, merges)]
    numbers = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    core = Tokenizer(models.BPE(numbers, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(spaces)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``mixtral`` with a tokenizer that knows no marks, in bfloat16 as published ones are, ``distilbert``, ``chats.jsonl``."""
    place = tmp_path_factory.mktemp("paper")
    chats = demonstrations(24, 0)
    write_dialogues(place / "chats.jsonl", chats)
    tokenizer = tokenizer_of_its_kind(chats)
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    save_network(MixtralForCausalLM(config).to(torch.bfloat16), place / "mixtral", tokenizer)
    labels = {0: "NEGATIVE", 1: "POSITIVE"}
    small = {
        "dim": 8,
        "hidden_dim": 16,
        "n_layers": 1,
        "n_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 1.0,
    }
    classifier = DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(tokenizer) + 1, id2label=labels, label2id={n: i for i, n in labels.items()}, **small
        )
    )
    classifier.save_pretrained(place / "distilbert")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(place / "distilbert")
    return place


def command(*words):
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


SMALL = ["--iterations", "2", "--episodes", "4", "--evaluation-episodes", "6", "--turns", "2", "--turn-tokens", "6"]


@pytest.fixture(scope="module")
def imitators_folder(place):
    """The frozen model as the one network."""
    frozen = ["--model", place / "mixtral", "--frozen", "--precision", "bfloat16", "--steps", "3"]
    command("imitate", place / "chats.jsonl", "--out", place / "imitators", *frozen)
    return place / "imitators"


@pytest.fixture(scope="module")
def played(place, imitators_folder):
    """``(what a run of the paper's form says of itself, every reply that was rewarded with its score)``."""
    rewarded = []

    def noting(name):
        reward = resolve_reward(name)

        def noted(replies):
            scores = reward(replies)
            rewarded.extend(zip(replies, scores, strict=True))
            return scores

        return noted

    what = ["--base", "single", "--kl-budget", BUDGET_NATS, "--reward", f"hf:{place / 'distilbert'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mightnt.lm.finetune.resolve_reward", noting)
        command("finetune", imitators_folder, "--out", place / "run", *what, *SMALL)
    return json.loads((place / "run" / "run.json").read_text()), rewarded


@pytest.fixture(scope="module")
def record(played):
    """The first of them."""
    return played[0]


def test_the_record_says_who_played_the_student_and_what_was_rewarded(record, place):
    assert record["user_played_by"] == "the first network"
    assert record["reward"] == f"hf:{place / 'distilbert'}"
    assert record["answered_by"] == "nobody (no asking)"
    assert (record["base"], record["device"]) == ("single", "cpu")


def test_no_episode_is_over_its_budget(record, place):
    assert (record["over_budget_episodes"], record["training_over_budget_episodes"]) == (0, 0)
    assert 0 < record["kl_base_nats"]["max"] <= BUDGET_NATS + 1e-6
    assert "✓ kept" in command("audit", place / "run").stdout


def test_the_reward_is_the_classifiers_of_what_the_model_said_as_the_student(played):
    """Two replies in each of 2 x 4 episodes that were learnt from and 6 fresh ones; the last are those measured."""
    record, rewarded = played
    assert len(rewarded) == 2 * (2 * 4 + 6)
    fresh = [score for _, score in rewarded[-12:]]
    assert record["proxy_reward"]["mean"] == pytest.approx(sum(fresh) / 12, abs=1e-9)
    assert len({reply for reply, _ in rewarded}) > 5, "a model that always says the same shows nothing"
    assert max(fresh) - min(fresh) > 0.05, "a classifier without opinions shows nothing"


def test_the_frozen_model_is_as_it_was_but_for_the_marks(place, imitators_folder):
    before = load_network(place / "mixtral", "as saved")
    after = load_imitators(imitators_folder).networks[0]
    assert {p.dtype for p in after.parameters()} == {torch.bfloat16}
    now = after.state_dict()
    for name, weight in before.state_dict().items():
        assert torch.equal(now[name][: len(weight)], weight), name
    marks = after.get_input_embeddings().weight[-4:].float()
    assert torch.cdist(marks, marks).fill_diagonal_(1).min() > 0, "marks alike could not be told from each other"


def test_its_kind_of_tokenizer_reads_a_turn_and_says_it_again(imitators_folder):
    """No ``<s>`` within a dialogue, and a turn begins like any text."""
    tokenizer = load_imitators(imitators_folder).tokenizer
    texts = ["", "good work so far", "naïve 4 m²", "</s> is text here"]
    for text, ids in zip(texts, content_tokens(tokenizer, texts), strict=True):
        assert tokenizer.bos_token_id not in ids
        assert tokenizer.eos_token_id not in ids
        assert decode_reply(tokenizer, ids) == text


def test_experts_are_read_token_by_token_as_in_one_pass(place):
    """Key-value cache and routing: many rows side by side say what each says alone in one forward pass."""
    network = load_network(place / "mixtral")
    tokens = torch.randint(0, network.config.vocab_size, (6, 20), generator=torch.Generator().manual_seed(0))
    alone = torch.cat([scores(network, row[None]) for row in tokens])
    member = NetworkMember(network)
    assert isinstance(member.reader, HuggingFaceReader)
    state = member.start(len(tokens))
    for t in range(tokens.shape[1]):
        state = member.advance(state, tokens[:, t])
        torch.testing.assert_close(state.log_probs, alone[:, t], atol=1e-5, rtol=1e-5)
    assert alone.std() > 0.1, "a model without opinions shows nothing"


def test_the_router_sends_tokens_to_different_experts(place):
    """Else the test above would hold for one expert."""
    network = load_network(place / "mixtral")
    tokens = torch.arange(60)[None] % network.config.vocab_size
    with torch.no_grad():
        routed = network(input_ids=tokens, output_router_logits=True).router_logits[0]
    assert len(routed.topk(2).indices.unique()) == network.config.num_local_experts


def test_in_bfloat16_it_is_read_in_float32_numbers(place):
    tokens = torch.arange(12).view(2, 6)
    said = {}
    for precision in ("bfloat16", "float32"):
        member = NetworkMember(load_network(place / "mixtral", precision))
        state = member.advance(member.start(2), tokens)
        assert (state.log_probs.dtype, state.hidden.dtype) == (torch.float32, torch.float32)
        said[precision] = state.log_probs
    torch.testing.assert_close(said["bfloat16"], said["float32"], atol=0.5, rtol=0.05)


def commands():
    """The commands of the page, as words."""
    blocks = PAGE.split("```sh\n")[1:]
    lines = [line for block in blocks for line in block.split("```")[0].replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("mightnt ")]


@pytest.mark.parametrize("words", [w for w in commands() if w[1] in ("imitate", "finetune")], ids=" ".join)
def test_the_commands_of_the_page_are_understood(words, monkeypatch):
    """Every flag exists and every value is allowed: up to the call that would load the model."""
    called = []

    def noted(*arguments, **named):
        called.append((arguments, named))
        raise SystemExit(0)

    monkeypatch.setattr("mightnt.lm.imitate.imitate_file", noted)
    monkeypatch.setattr("mightnt.lm.finetune.finetune_folder", noted)
    command(*words[1:])
    ((arguments, _),) = called
    if words[1] == "finetune":
        resolve = arguments[2]
        assert resolve.reward == "sentiment" or resolve.reward.startswith("hf:")


def test_the_page_has_both_steps_of_the_full_size():
    verbs = [words[1] for words in commands() if any("mixtral" in word.lower() for word in words)]
    assert "imitate" in verbs
    assert "finetune" in verbs


def test_the_table_of_the_page_is_computed():
    shown = PAGE[PAGE.index(BEGIN) + len(BEGIN) : PAGE.index(END)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(ROOT / "examples" / "paper_form.py"), run_name="__main__")
    assert shown == printed.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("how", [["--networks", "1"], ["--adapters", "2", "--rank", "2", "--precision", "bfloat16"]])
@pytest.mark.parametrize("base", ["mixture", "situations"])
def test_other_bases_and_ways_of_fitting_a_mixture_of_experts(place, tmp_path, how, base):
    model = ["--model", place / "mixtral", "--steps", "3"]
    command("imitate", place / "chats.jsonl", "--out", tmp_path / "imitators", *model, *how)
    what = ["--base", base, "--kl-budget", BUDGET_NATS, "--reward", f"hf:{place / 'distilbert'}"]
    command("finetune", tmp_path / "imitators", "--out", tmp_path / "run", *what, *SMALL)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["over_budget_episodes"], record["training_over_budget_episodes"]) == (0, 0)
