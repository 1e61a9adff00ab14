"""The verb imitate: demonstrations in, a folder of imitators out; everything wrong with a file is one sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from mightnt import cli
from mightnt.lm.networks import load_network

SMALL = ["--networks", "1", "--steps", "6", "--width", "16", "--vocabulary", "320"]
LINE = json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]})


def invoke(path, out, *words):
    return CliRunner().invoke(cli.app, ["imitate", str(path), "--out", str(out), *SMALL, *words])


def byte_pairs(demonstrations_file):
    """A tokenizer as other people make it, of 300 tokens."""
    texts = [json.loads(line)["messages"][1]["content"] for line in demonstrations_file.read_text().splitlines()]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|eos|>"], show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|eos|>")


def test_a_whole_folder_is_left(imitators_folder):
    kept = json.loads((imitators_folder / "imitators.json").read_text())
    assert kept["summary"]["held_out_dialogues"] == 3
    assert {row["name"] for row in kept["summary"]["members"]} == {"network-0", "counts", "mixture"}
    assert any("held-out turns" in warning for warning in kept["summary"]["warnings"])
    assert {path.name for path in imitators_folder.iterdir()} == {
        *("imitators.json", "counts.safetensors", "situations.safetensors"),
        *("fitted.jsonl", "held_out.jsonl", "network-0", "tokenizer"),
    }


def test_the_summary_is_printed_and_json_is_json(demonstrations_file, tmp_path):
    result = invoke(demonstrations_file, tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["held_out_turns"] == 18


def test_imitators_are_not_overwritten(demonstrations_file, imitators_folder):
    before = (imitators_folder / "imitators.json").read_bytes()
    result = invoke(demonstrations_file, imitators_folder)
    assert result.exit_code == 2
    assert "holds imitators already" in result.stderr
    assert (imitators_folder / "imitators.json").read_bytes() == before
    assert invoke(demonstrations_file, imitators_folder, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        (LINE + "\n", "got 1 dialogue"),
        (LINE + "\n{oops\n", "chats.jsonl:2: not JSON"),
        ('{"messages": []}\n', "chats.jsonl:1: needs a non-empty list 'messages'"),
        ('{"messages": [{"content": "hi"}]}\n', "message 0 has role None"),
        ('{"messages": [{"role": "user", "content": "hi"}]}\n', "no assistant turn"),
        ('{"messages": [{"role": "assistant", "content": 3}]}\n', "content of type int"),
    ],
)
def test_bad_demonstrations_are_one_sentence_and_leave_nothing(tmp_path, content, expected):
    path = tmp_path / "chats.jsonl"
    path.write_text(content)
    result = invoke(path, tmp_path / "out")
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_files_and_folders_that_are_no_model(demonstrations_file, tmp_path):
    assert "there is no such file" in invoke(tmp_path / "none.jsonl", tmp_path / "out").stderr
    (tmp_path / "no-model").mkdir()
    result = invoke(demonstrations_file, tmp_path / "out", "--model", str(tmp_path / "no-model"))
    assert result.exit_code == 2
    assert "no-model" in result.stderr


def test_a_pre_trained_model_of_another_kind_with_its_own_tokenizer(demonstrations_file, tmp_path):
    byte_pairs(demonstrations_file).save_pretrained(tmp_path / "model")
    config = GPT2Config(vocab_size=308, n_positions=256, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    result = invoke(demonstrations_file, tmp_path / "out", "--model", str(tmp_path / "model"))
    assert result.exit_code == 0, result.output
    few = ["--iterations", "1", "--episodes", "2", "--evaluation-episodes", "2", "--turns", "1", "--turn-tokens", "6"]
    words = ["finetune", str(tmp_path / "out"), "--out", str(tmp_path / "run"), *few]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--frozen"], "say which with --model"),
        (["--model", "m", "--frozen", "--adapters", "2"], "gets no adapters"),
        (["--precision", "int3"], "unknown precision 'int3'; allowed are float32, bfloat16"),
        (["--model", "m", "--precision", "bfloat16"], "add --frozen or --adapters"),
        (["--device", "abacus"], "no device 'abacus' here"),
    ],
)
def test_bad_ways_to_keep_a_model_are_one_sentence_and_leave_nothing(demonstrations_file, tmp_path, words, expected):
    result = invoke(demonstrations_file, tmp_path / "out", *words)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_too_small_is_refused(demonstrations_file, tmp_path):
    result = invoke(demonstrations_file, tmp_path / "out", "--vocabulary", "100")
    assert result.exit_code == 2
    assert "too small" in result.stderr


@pytest.fixture(scope="module")
def model_folder(demonstrations_file, tmp_path_factory):
    """A Llama with random weights and a tokenizer of its own, which knows no marks."""
    folder = tmp_path_factory.mktemp("model") / "llama"
    byte_pairs(demonstrations_file).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": None, "eos_token_id": None}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=256, **sizes, **ends)).save_pretrained(folder)
    return folder


ADAPTERS = ["--adapters", "2", "--rank", "2", "--shared-layers", "1", "--steps", "6"]


@pytest.fixture(scope="module")
def adapters_folder(demonstrations_file, model_folder, tmp_path_factory):
    """Imitators whose members are adapters on that model."""
    out = tmp_path_factory.mktemp("adapters") / "set"
    words = ["imitate", str(demonstrations_file), "--out", str(out), "--model", str(model_folder), *ADAPTERS]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    return out


def test_adapters_are_kept_as_one_model_and_what_is_added(adapters_folder, model_folder):
    assert {path.name for path in adapters_folder.iterdir()} == {
        *("imitators.json", "counts.safetensors", "situations.safetensors"),
        *("fitted.jsonl", "held_out.jsonl", "tokenizer", "trunk", "adapters"),
    }
    kept = json.loads((adapters_folder / "imitators.json").read_text())
    assert [row["name"] for row in kept["summary"]["members"]] == ["network-0", "network-1", "counts", "mixture"]
    before, after = load_network(model_folder), load_network(adapters_folder / "trunk")
    new = len(after.get_input_embeddings().weight) - len(before.get_input_embeddings().weight)
    assert new == 4, "the marks"
    for name, weight in before.state_dict().items():
        assert torch.equal(after.state_dict()[name][: len(weight)], weight), name
    marks = after.get_input_embeddings().weight[-4:]
    assert torch.cdist(marks, marks).fill_diagonal_(1).min() > 0, "marks alike could not be told from each other"
    adapter = load_file(adapters_folder / "adapters" / "adapter-1" / "adapter_model.safetensors")
    assert all(".layers.1." in name for name in adapter)


def test_members_that_are_adapters_are_loaded_fitted_against_and_audited(adapters_folder, tmp_path):
    few = ["--iterations", "1", "--episodes", "2", "--evaluation-episodes", "2", "--turns", "1", "--turn-tokens", "6"]
    for base in ("mixture", "pessimistic"):
        words = ["finetune", str(adapters_folder), "--base", base, "--out", str(tmp_path / base), *few]
        result = CliRunner().invoke(cli.app, words)
        assert result.exit_code == 0, result.output
    result = CliRunner().invoke(cli.app, ["audit", str(tmp_path / "pessimistic")])
    assert result.exit_code == 0, result.output


def test_adapters_are_not_fitted_twice_and_resumed_only_as_they_were(
    demonstrations_file, adapters_folder, model_folder
):
    before = (adapters_folder / "imitators.json").read_bytes()
    words = [
        "imitate",
        str(demonstrations_file),
        "--out",
        str(adapters_folder),
        "--model",
        str(model_folder),
        "--resume",
    ]
    assert CliRunner().invoke(cli.app, [*words, *ADAPTERS]).exit_code == 0
    assert (adapters_folder / "imitators.json").read_bytes() == before
    result = CliRunner().invoke(cli.app, [*words, *ADAPTERS, "--rank", "3"])
    assert result.exit_code == 2
    assert "another configuration" in result.stderr


def test_adapters_need_a_model_that_has_the_layers(demonstrations_file, model_folder, tmp_path):
    out = tmp_path / "out"
    result = invoke(demonstrations_file, out, "--adapters", "2")
    assert (result.exit_code, out.exists()) == (2, False)
    assert "say which with --model" in result.stderr
    result = invoke(demonstrations_file, out, "--rank", "4")
    assert "say how many with --adapters" in result.stderr
    words = ["--model", str(model_folder), "--adapters", "2", "--shared-layers", "2"]
    result = invoke(demonstrations_file, out, *words)
    assert (result.exit_code, out.exists()) == (2, False)
    assert "2 of 2 layers are to be shared; at least one must differ" in result.stderr
