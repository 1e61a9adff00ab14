"""Adapters on disk: peft reads ours and we read peft's; whatever belongs to something else is one clear sentence."""

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from mightnt.errors import InputError
from mightnt.lm.adapter_files import (
    load_adapters,
    load_networks,
    read_adapters,
    save_adapters,
    save_networks,
)
from mightnt.lm.networks import NetworkShape, build_network, load_network, save_network
from mightnt.lm.scoring import scores
from mightnt.lm.tokens import word_tokenizer
from tests.lm.adapted import MAKERS, VOCABULARY, merged, network_of, random_adapters, tokens_of

WORDS = [f"w{i}" for i in range(VOCABULARY - 4)]


@pytest.fixture
def tokenizer():
    return word_tokenizer(WORDS)


@pytest.fixture
def saved(tmp_path, tokenizer):
    """A network, three members with weights, and the folder they were saved to."""
    network = network_of()
    adapters = replace(random_adapters(network), weights=(0.5, 0.3, 0.2))
    save_adapters(adapters, tmp_path / "set", network, tokenizer, seed=7)
    return network, adapters, tmp_path / "set"


def tensors(adapters):
    return dict(zip(adapters.names, zip(adapters.down, adapters.up, strict=True), strict=True))


def test_what_was_saved_is_loaded_without_a_bit_changed(saved, tokenizer):
    network, adapters, folder = saved
    loaded = load_adapters(folder, network, tokenizer)
    assert loaded.weights == adapters.weights
    assert set(loaded.names) == set(adapters.names)
    for name, (down, up) in tensors(adapters).items():
        assert torch.equal(tensors(loaded)[name][0], down)
        assert torch.equal(tensors(loaded)[name][1], up)
    manifest = json.loads((folder / "adapters.json").read_text())
    assert manifest["seed"] == 7
    assert manifest["network"]["class"] == "LlamaForCausalLM"
    assert sorted(path.name for path in folder.iterdir()) == ["adapter-0", "adapter-1", "adapter-2", "adapters.json"]


def test_the_network_may_have_been_saved_and_loaded_meanwhile(saved, tokenizer, tmp_path):
    network, _, folder = saved
    save_network(network, tmp_path / "network")
    load_adapters(folder, load_network(tmp_path / "network"), tokenizer)


@pytest.mark.filterwarnings("error:fan_in_fan_out")
@pytest.mark.parametrize("name", MAKERS)
def test_peft_reads_ours(name, tmp_path, tokenizer):
    network, tokens = network_of(name), tokens_of(3, 7)
    adapters = random_adapters(network)
    save_adapters(adapters, tmp_path, network, tokenizer)
    for i in range(3):
        there = PeftModel.from_pretrained(network_of(name), tmp_path / f"adapter-{i}").eval()
        expected = scores(merged(network, adapters, i), tokens)
        torch.testing.assert_close(scores(there, tokens), expected, rtol=0, atol=1e-5)
        there = there.merge_and_unload()
        torch.testing.assert_close(scores(there, tokens), expected, rtol=0, atol=1e-5)


def made_by_peft(folder, name="llama", seed=0, **settings):
    """An adapter that peft made, with random weights, saved by it; and what it says."""
    words = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    network = network_of(name)
    model = get_peft_model(network, LoraConfig(**words)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return scores(model, tokens_of(3, 7))


@pytest.mark.parametrize("name", MAKERS)
def test_we_read_what_peft_wrote(name, tmp_path):
    expected = [made_by_peft(tmp_path / str(seed), name, seed) for seed in range(2)]
    network = network_of(name)
    adapters = read_adapters([tmp_path / "0", tmp_path / "1"], network, (0.25, 0.75))
    assert adapters.weights == (0.25, 0.75)
    for member, said in zip(adapters.networks(network), expected, strict=True):
        torch.testing.assert_close(scores(member, tokens_of(3, 7)), said, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"use_rslora": True}, {"rank_pattern": {"q_proj": 2, "down_proj": 7}}, {"target_modules": ["q_proj"], "r": 9}],
)
def test_ranks_and_factors_of_all_kinds(tmp_path, settings):
    expected = made_by_peft(tmp_path, **settings)
    network = network_of()
    (member,) = read_adapters([tmp_path], network).networks(network)
    torch.testing.assert_close(scores(member, tokens_of(3, 7)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"lora_bias": True}, "lora_bias = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 4], [2, 4]]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"target_modules": ["embed_tokens", "q_proj"]}, "embed_tokens"),
    ],
)
def test_what_is_not_plain_lora_is_refused(tmp_path, settings, named):
    made_by_peft(tmp_path, **settings)
    with pytest.raises(InputError, match=r"only (plain LoRA|that) can be used") as caught:
        read_adapters([tmp_path], network_of())
    assert named in str(caught.value)


def test_settings_nobody_knows_yet_are_refused(tmp_path):
    made_by_peft(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_tomorrow": {"a": 1}}))
    with pytest.raises(InputError, match="use_tomorrow"):
        read_adapters([tmp_path], network_of())
    path.write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(InputError, match="is not the configuration of a LoRA adapter"):
        read_adapters([tmp_path], network_of())


def other_epsilon():
    network = network_of()
    network.config.rms_norm_eps = 0.5
    return network


def one_bit():
    network = network_of()
    with torch.no_grad():
        weight = network.model.layers[0].mlp.up_proj.weight
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    return network


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (lambda: network_of(seed=1), "its weights were others"),
        (one_bit, "its weights were others"),
        (lambda: network_of().bfloat16(), "its weights were others, or in another precision"),
        (other_epsilon, "its rms_norm_eps was"),
        (lambda: network_of("qwen2"), "a LlamaForCausalLM, this is a Qwen2ForCausalLM"),
        (lambda: build_network(NetworkShape(32, 4, 4, 40), VOCABULARY, 0), "its"),
    ],
)
def test_adapters_of_another_network_are_refused(saved, tokenizer, network, why):
    _, _, folder = saved
    with pytest.raises(InputError, match="these adapters belong to another network") as caught:
        load_adapters(folder, network(), tokenizer)
    assert why in str(caught.value)


def test_another_tokenizer_is_refused(saved):
    network, _, folder = saved
    with pytest.raises(InputError, match="were fitted with another tokenizer"):
        load_adapters(folder, network, word_tokenizer(WORDS[::-1]))


def test_tokens_without_an_embedding_are_refused(saved, tokenizer, tmp_path):
    network, adapters, folder = saved
    tokenizer.add_tokens(["one more"])
    for use in (
        lambda: load_adapters(folder, network, tokenizer),
        lambda: save_adapters(adapters, tmp_path / "new", network, tokenizer),
    ):
        with pytest.raises(InputError, match=r"has 21 tokens, the network embeddings for 20; use resize_for"):
            use()
    assert not (tmp_path / "new").exists()


def changed_manifest(folder, **change):
    path = folder / "adapters.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"weights": [0.5, 0.3, 0.3]}, "sum to one"),
        ({"weights": [0.5, 0.5]}, None),
        ({"weights": [0.4, 0.3, 0.2, 0.1]}, "there is no such file"),
        ({"weights": "half"}, "of another version, or not whole"),
        ({"network": {}}, "of another version, or not whole"),
        ({"kind": "mightnt imitators"}, "is not a manifest"),
    ],
)
def test_a_manifest_that_says_something_else(saved, tokenizer, change, why):
    network, _, folder = saved
    changed_manifest(folder, **change)
    if why is None:
        assert load_adapters(folder, network, tokenizer).n_members == 2
        return
    with pytest.raises(InputError, match=why):
        load_adapters(folder, network, tokenizer)


def spoiled(folder, change):
    path = folder / "adapter-1" / "adapter_model.safetensors"
    tensors = load_file(path)
    key = sorted(tensors)[0]
    save_file(change(dict(tensors), key), path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t, k: {**t, k: t[k] * torch.nan}, "holds NaN or infinity"),
        (lambda t, k: {**t, k: t[k] / 0}, "holds NaN or infinity"),
        (lambda t, k: {x: y for x, y in t.items() if x != k}, "which is no part of plain LoRA"),
        (lambda t, k: {**t, k: t[k][:, 1:].contiguous()}, "belongs to another network"),
        (lambda t, k: {**t, k: t[k][1:].contiguous()}, "belongs to another network"),
        (lambda t, k: {x.replace("layers.2", "layers.9"): y for x, y in t.items()}, "there is no such matrix"),
        (lambda t, k: {x.replace(".self_attn.q_proj", ""): y for x, y in t.items()}, "there is no such matrix"),
    ],
)
def test_a_member_that_is_spoiled_is_refused_by_its_folder(saved, tokenizer, change, why):
    network, _, folder = saved
    spoiled(folder, change)
    with pytest.raises(InputError, match=why) as caught:
        load_adapters(folder, network, tokenizer)
    assert "adapter-1" in str(caught.value)


def test_folders_that_are_not_whole(saved, tokenizer, tmp_path):
    network, _, folder = saved
    with pytest.raises(InputError, match=r"no adapters\.json"):
        load_adapters(tmp_path, network, tokenizer)
    with pytest.raises(InputError, match="at least one is needed"):
        read_adapters([], network)
    path = folder / "adapter-2" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_adapters(folder, network, tokenizer)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_adapters(folder, network, tokenizer)


def test_saving_that_breaks_off_leaves_no_set(saved, tokenizer, monkeypatch):
    network, adapters, folder = saved
    import mightnt.lm.adapter_files as files

    calls = []

    def torn(*words, **more):
        calls.append(words)
        if len(calls) == 2:
            raise OSError("the disk is full")
        save_file(*words, **more)

    monkeypatch.setattr(files, "save_file", torn)
    with pytest.raises(InputError, match="cannot be written"):
        save_adapters(adapters, folder, network, tokenizer)
    with pytest.raises(InputError, match=r"no adapters\.json"):
        load_adapters(folder, network, tokenizer)


def test_a_set_of_adapters_is_kept_as_one_network_and_what_is_added(saved, tokenizer, tmp_path):
    network, adapters, _ = saved
    members, tokens = adapters.networks(network), tokens_of(3, 7)
    save_networks(members, tmp_path / "kept", tokenizer)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["adapters", "trunk"]
    loaded = load_networks(tmp_path / "kept", 3, tokenizer)
    assert len({id(member.network) for member in loaded}) == 1
    for one, other in zip(loaded, members, strict=True):
        assert torch.equal(scores(one, tokens), scores(other, tokens))


def test_a_set_of_networks_is_kept_as_it_always_was(tokenizer, tmp_path):
    networks, tokens = [network_of(seed=seed) for seed in range(2)], tokens_of(3, 7)
    save_networks(networks, tmp_path / "kept", tokenizer)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["network-0", "network-1"]
    for one, other in zip(load_networks(tmp_path / "kept", 2, tokenizer), networks, strict=True):
        assert torch.equal(scores(one, tokens), scores(other, tokens))


def test_networks_and_adapters_are_no_set(saved, tokenizer, tmp_path):
    network, adapters, _ = saved
    members = adapters.networks(network)
    for mixed in ([members[0], network_of()], [members[0], random_adapters(network_of(), 1).networks(network_of())[0]]):
        with pytest.raises(InputError, match="cannot be saved as one set"):
            save_networks(mixed, tmp_path / "kept", tokenizer)
