"""Networks: made, loaded, saved, resized, and read token by token as their forward pass would."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from mightnt.dialogues import Message
from mightnt.errors import ContractError, InputError
from mightnt.lm.llama import LlamaReader
from mightnt.lm.networks import (
    HuggingFaceReader,
    NetworkMember,
    NetworkShape,
    build_network,
    load_network,
    resize_for,
    save_network,
)
from mightnt.lm.scoring import scores
from mightnt.lm.tokens import encode, load_tokenizer, marks_of, train_bpe, with_marks, word_tokenizer

SHAPE = NetworkShape(width=32, layers=2, heads=2, context=40)
GPT2 = GPT2Config(vocab_size=20, n_positions=40, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
SIZES = {
    "vocab_size": 20,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
    "sliding_window": None,
}
MISTRAL = MistralConfig(**SIZES)
MIXTRAL = MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)


def spread(network):
    """The same network with larger weights, so that predictions differ visibly."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1.3)
    return network.eval()


def plain(seed=0):
    return spread(build_network(SHAPE, 20, seed))


def tokens_of(rows, n):
    return torch.randint(0, 20, (rows, n), generator=torch.Generator().manual_seed(0))


MAKERS = {
    "own": lambda: NetworkMember(plain()),
    "hugging face": lambda: NetworkMember(plain(), hugging_face=True),
    "gpt2": lambda: NetworkMember(spread(GPT2LMHeadModel(GPT2))),
    "mistral": lambda: NetworkMember(spread(MistralForCausalLM(MISTRAL))),
    "mixtral": lambda: NetworkMember(spread(MixtralForCausalLM(MIXTRAL))),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_reading_token_by_token_is_the_forward_pass(kind):
    member, tokens = MAKERS[kind](), tokens_of(5, 12)
    expected = scores(member.network, tokens)
    assert expected.std() > 0.1
    state = member.start(5)
    for t in range(12):
        state = member.advance(state, tokens[:, t])
        torch.testing.assert_close(state.log_probs, expected[:, t], atol=1e-5, rtol=1e-5)
    assert state.position == 12
    prompted = member.advance(member.advance(member.start(5), tokens[:, :7]), tokens[:, 7:])
    torch.testing.assert_close(prompted.log_probs, state.log_probs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(prompted.hidden, state.hidden, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_hidden_state_is_what_the_output_layer_reads(kind):
    member = MAKERS[kind]()
    state = member.advance(member.start(5), tokens_of(5, 6))
    logits = member.network.get_output_embeddings()(state.hidden)
    torch.testing.assert_close(logits.log_softmax(-1), state.log_probs, atol=1e-5, rtol=1e-5)
    assert state.hidden.shape == (5, 32)


def test_plain_llama_is_read_fast_and_others_by_hugging_face():
    kinds = {name: type(make().reader) for name, make in MAKERS.items()}
    assert kinds.pop("own") is LlamaReader
    assert set(kinds.values()) == {HuggingFaceReader}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_a_state_says_outlives_it_and_takes_part_in_gradients(kind):
    member = MAKERS[kind]()
    first = member.advance(member.start(2), tokens_of(2, 1)[:, 0])
    said = first.log_probs.clone()
    member.advance(first, torch.tensor([1, 2]))
    assert torch.equal(first.log_probs, said)
    assert not first.log_probs.requires_grad
    assert not first.hidden.requires_grad
    weight = torch.zeros(32, requires_grad=True)
    (first.hidden @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, first.hidden.sum(0))


@pytest.mark.parametrize("kind", ["own", "hugging face"])
def test_a_state_advanced_twice_is_refused(kind):
    member = MAKERS[kind]()
    state = member.start(2)
    member.advance(state, torch.tensor([1, 2]))
    with pytest.raises(ContractError, match="advanced before"):
        member.advance(state, torch.tensor([1, 2]))


@pytest.mark.parametrize("kind", ["own", "gpt2"])
def test_a_full_context_is_refused(kind):
    member = MAKERS[kind]()
    state = member.advance(member.start(2), tokens_of(2, 40))
    with pytest.raises(InputError, match="41 tokens do not fit the network's context of 40"):
        member.advance(state, torch.tensor([1, 2]))
    assert state.log_probs.isfinite().all()


@pytest.mark.parametrize("shape", [(3,), (2, 0), (2, 1, 1), (1, 2)])
def test_tokens_of_another_shape_are_refused(shape):
    member = NetworkMember(plain())
    with pytest.raises(InputError, match=r"\(2,\) or \(2, n\) fits"):
        member.advance(member.start(2), torch.zeros(shape, dtype=torch.int64))


def test_before_the_first_token_nothing_is_predicted():
    state = NetworkMember(plain()).start(3)
    assert state.log_probs.shape == state.hidden.shape == (3, 0)


def test_the_seed_alone_makes_the_network():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    networks = [build_network(SHAPE, 20, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    first, same, other = (n.model.embed_tokens.weight for n in networks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not networks[0].training
    assert networks[0].lm_head.weight is first
    assert first.norm(dim=1).min() > 0, "no row may be nailed to zero: its logit could never move"


@pytest.mark.parametrize(
    "changes", [{"width": 0}, {"heads": 3}, {"width": 36, "heads": 4}, {"context": 1}, {"layers": 0}]
)
def test_shapes_that_cannot_be_are_refused(changes):
    if changes == {"width": 36, "heads": 4}:
        with pytest.raises(InputError, match="even share"):
            NetworkShape(**changes)
    else:
        with pytest.raises(InputError):
            NetworkShape(**changes)


def test_saved_and_loaded_it_says_the_same(tmp_path):
    network, tokenizer = plain(), word_tokenizer([f"w{i}" for i in range(16)])
    save_network(network, tmp_path / "member", tokenizer)
    names = {path.name for path in (tmp_path / "member").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    loaded = load_network(tmp_path / "member")
    assert marks_of(load_tokenizer(tmp_path / "member")) == marks_of(tokenizer)
    torch.testing.assert_close(scores(loaded, tokens_of(2, 9)), scores(network, tokens_of(2, 9)), atol=0, rtol=0)
    assert not loaded.training
    assert loaded.dtype == torch.float32
    save_network(plain(seed=1), tmp_path / "member")
    assert torch.equal(
        scores(load_network(tmp_path / "member"), tokens_of(1, 4)), scores(plain(seed=1), tokens_of(1, 4))
    )
    assert (tmp_path / "member" / "tokenizer.json").exists()


def test_saving_and_loading_draw_no_progress_bars(tmp_path, capfd):
    save_network(plain(), tmp_path)
    load_network(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_half_precision_is_loaded_as_float32(tmp_path):
    save_network(plain().to(torch.bfloat16), tmp_path)
    assert load_network(tmp_path).dtype == torch.float32
    assert load_network(tmp_path, "bfloat16").dtype == torch.bfloat16
    assert load_network(tmp_path, "as saved").dtype == torch.bfloat16
    save_network(plain(), tmp_path)
    assert load_network(tmp_path, "as saved").dtype == torch.float32


def test_a_precision_or_device_that_is_not_there_is_one_sentence(tmp_path):
    save_network(plain(), tmp_path)
    with pytest.raises(InputError, match="unknown precision 'int3'; allowed are float32, bfloat16, as saved"):
        load_network(tmp_path, "int3")
    for device in ("abacus", "cuda:99", "meta"):
        with pytest.raises(InputError, match=f"no device '{device}' here") as caught:
            load_network(tmp_path, device=device)
        assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match="no causal language model in safetensors") as caught:
            load_network(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_pickled_weights_are_not_read(tmp_path):
    network = plain()
    network.config.save_pretrained(tmp_path)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="no causal language model in safetensors"):
        load_network(tmp_path)


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    save_network(plain(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InputError):
        load_network(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_refused_not_drawn_at_random(tmp_path):
    save_network(plain(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"weights are missing.*layers\.2"):
        load_network(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_get_the_mean_of_the_old_rows(tied):
    tokenizer = train_bpe([(Message("user", "a"),)], 260)
    network = build_network(SHAPE, 256, 0)
    if not tied:
        network.config.tie_word_embeddings = False
        network.lm_head.weight = torch.nn.Parameter(torch.randn(256, 32))
    old_in, old_out = network.get_input_embeddings().weight.clone(), network.get_output_embeddings().weight.clone()
    assert resize_for(network, tokenizer) == 4
    for layer, old in ((network.get_input_embeddings(), old_in), (network.get_output_embeddings(), old_out)):
        assert torch.equal(layer.weight[:256], old)
        torch.testing.assert_close(layer.weight[256:], old.mean(0).expand(4, 32))
    assert resize_for(network, tokenizer) == 0
    assert (network.get_output_embeddings().weight is network.get_input_embeddings().weight) == tied
    assert scores(network, torch.tensor([[259, 256]])).shape == (1, 2, 260)


def test_a_pretrained_network_with_marks_added_reads_dialogues(tmp_path):
    tokenizer = train_bpe([(Message("user", "abc"),)], 260)
    network = spread(GPT2LMHeadModel(GPT2Config(**{**GPT2.to_dict(), "vocab_size": 258})))
    with_marks(tokenizer)
    assert resize_for(network, tokenizer) == 2
    save_network(network, tmp_path, tokenizer)
    encoded = encode(load_tokenizer(tmp_path), [(Message("user", "a<|end|>"), Message("assistant", "b"))])
    member = NetworkMember(load_network(tmp_path))
    state = member.advance(member.start(1), torch.from_numpy(encoded.tokens[None].astype("int64")))
    assert state.log_probs.shape == (1, 260)


def test_a_disk_that_is_full_is_one_sentence_and_no_model_is_left(tmp_path):
    code = (
        "import resource, signal, sys, pathlib; from mightnt.errors import InputError\n"
        "from mightnt.lm.networks import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "network = build_network(NetworkShape(), 100, 0)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: save_network(network, pathlib.Path(sys.argv[1]))\n"
        "except InputError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "m"], capture_output=True, text=True, check=True)
    assert "cannot be written" in run.stdout
    assert list((tmp_path / "m").iterdir()) == []
