"""The verb imitate: demonstrations in, a folder of imitators out; everything wrong with a file is one sentence."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

from mightnt import cli

SMALL = ["--networks", "1", "--steps", "6", "--width", "16", "--vocabulary", "320"]
LINE = json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]})


def invoke(path, out, *words):
    return CliRunner().invoke(cli.app, ["imitate", str(path), "--out", str(out), *SMALL, *words])


def test_a_whole_folder_is_left(imitators_folder):
    kept = json.loads((imitators_folder / "imitators.json").read_text())
    assert kept["summary"]["held_out_dialogues"] == 3
    assert {row["name"] for row in kept["summary"]["members"]} == {"network-0", "counts", "mixture"}
    assert any("held-out turns" in warning for warning in kept["summary"]["warnings"])
    assert {path.name for path in imitators_folder.iterdir()} == {
        *("imitators.json", "counts.safetensors", "fitted.jsonl", "held_out.jsonl", "network-0", "tokenizer")
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
    texts = [json.loads(line)["messages"][1]["content"] for line in demonstrations_file.read_text().splitlines()]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|eos|>"], show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|eos|>").save_pretrained(tmp_path / "model")
    config = GPT2Config(vocab_size=308, n_positions=256, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    result = invoke(demonstrations_file, tmp_path / "out", "--model", str(tmp_path / "model"))
    assert result.exit_code == 0, result.output
    few = ["--iterations", "1", "--episodes", "2", "--evaluation-episodes", "2", "--turns", "1", "--turn-tokens", "6"]
    words = ["finetune", str(tmp_path / "out"), "--out", str(tmp_path / "run"), *few]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output


def test_a_vocabulary_too_small_is_refused(demonstrations_file, tmp_path):
    result = invoke(demonstrations_file, tmp_path / "out", "--vocabulary", "100")
    assert result.exit_code == 2
    assert "too small" in result.stderr
