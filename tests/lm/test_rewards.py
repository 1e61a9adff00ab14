"""Rewards: the positive label is found by name whatever its index, and nothing that is no finite number gets through."""

import math
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    PreTrainedTokenizerFast,
)

from mightnt.errors import InputError
from mightnt.lm.rewards import checked, own_function, positive_label, resolve_reward, sentiment

WORDS = ("[PAD]", "[UNK]", "well", "done", "oh", "no", "hm")


def save_tokenizer(folder, pad=True):
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]"} if pad else {}
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **special).save_pretrained(folder)


def tiny_config(labels, **more):
    return DistilBertConfig(
        vocab_size=len(WORDS), dim=8, hidden_dim=16, n_layers=1, n_heads=2, max_position_embeddings=12,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)}, **more,
    )  # fmt: skip


def save_classifier(folder, labels, pad=True, **more):
    """A random classifier with decided opinions; the same weights for every choice of labels of one length."""
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(tiny_config(labels, **more))
    with torch.no_grad():
        model.classifier.weight *= 200
    model.save_pretrained(folder)
    save_tokenizer(folder, pad)
    return f"hf:{folder}"


REPLIES = ["well done", "oh no", "", "hm", " \n", "well " * 50, "unheard-of"]


# Sentiment


def test_sentiment_orders_replies_and_silence_is_neither_good_nor_bad():
    good, bad, empty, blank, flat = resolve_reward("sentiment")(["I love this!", "I hate this.", "", " \t", "a table"])
    assert 0 <= bad < 0.3 < 0.7 < good <= 1
    assert empty == blank == flat == 0.5


def test_sentiment_of_a_known_compound():
    """VADER: 'good' has valence 1.9, compound = 1.9 / sqrt(1.9^2 + 15)."""
    assert sentiment(["good"])[0] == pytest.approx((1.9 / math.sqrt(1.9**2 + 15) + 1) / 2, abs=1e-4)


@given(st.lists(st.text(max_size=40), max_size=5))
def test_sentiment_is_one_number_in_the_unit_interval_a_reply(replies):
    scores = resolve_reward("sentiment")(replies)
    assert len(scores) == len(replies)
    assert all(0 <= score <= 1 for score in scores)


# Classifiers


def test_swapping_the_labels_swaps_the_reward(tmp_path):
    """Never by index: the same weights under both orders of the labels."""
    first = resolve_reward(save_classifier(tmp_path / "a", ["NEGATIVE", "POSITIVE"]))(REPLIES)
    second = resolve_reward(save_classifier(tmp_path / "b", ["Positive", "Negative"]))(REPLIES)
    assert [a + b for a, b in zip(first, second, strict=True)] == pytest.approx([1] * len(REPLIES), abs=1e-6)
    assert abs(first[0] - 0.5) > 0.05, "the classifier has no opinion, so this test shows nothing"


def test_the_score_is_the_probability_of_the_positive_label(tmp_path):
    scores = resolve_reward(save_classifier(tmp_path, ["neutral", "pos", "neg"]))(["well done"])
    model = DistilBertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([[2, 3]])).logits.softmax(-1)[0, 1].item()
    assert scores == pytest.approx([wanted], abs=1e-6)


def test_labels_that_do_not_exclude_each_other_are_scored_alone(tmp_path):
    scores = resolve_reward(
        save_classifier(tmp_path, ["pos", "formal", "long"], problem_type="multi_label_classification")
    )(["well done"])
    model = DistilBertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([[2, 3]])).logits.sigmoid()[0, 0].item()
    assert scores == pytest.approx([wanted], abs=1e-6)


def test_batches_change_nothing_and_silence_scores_half(tmp_path):
    reward = resolve_reward(save_classifier(tmp_path, ["NEGATIVE", "POSITIVE"]))
    replies = REPLIES * 12
    scores = reward(replies)
    assert scores == pytest.approx([reward([reply])[0] for reply in replies], abs=1e-5)
    assert scores[2] == scores[4] == 0.5
    assert all(0 <= score <= 1 for score in scores)
    assert reward([]) == []
    assert reward(["", " "]) == [0.5, 0.5]


def test_a_tokenizer_without_padding_is_read_reply_by_reply(tmp_path):
    with_padding = resolve_reward(save_classifier(tmp_path / "a", ["neg", "pos"]))(REPLIES)
    without = resolve_reward(save_classifier(tmp_path / "b", ["neg", "pos"], pad=False))(REPLIES)
    assert without == pytest.approx(with_padding, abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "index"),
    [
        (["negative", "positive"], 1),
        (["POS", "NEU", "NEG"], 0),
        (["LABEL_NEG", "LABEL_POSITIVE"], 1),
        (["non-positive", "positive"], 1),
        (["sad", "positive sentiment"], 1),
    ],
)
def test_the_positive_label_is_found_by_name(labels, index):
    assert positive_label(dict(enumerate(labels)), "model") == index


@pytest.mark.parametrize(
    "labels",
    [
        ["LABEL_0", "LABEL_1"],
        ["1 star", "5 stars"],
        ["not positive", "other"],
        ["composition", "position"],
        ["negative", "positive", "very positive"],
        ["positive"],
    ],
)
def test_no_clear_positive_label_is_refused_with_the_list(labels):
    with pytest.raises(InputError, match=r"has the labels .*; exactly one") as refusal:
        positive_label(dict(enumerate(labels)), "model")
    assert all(repr(label) in str(refusal.value) for label in labels)


def test_a_classifier_without_a_positive_label_is_refused(tmp_path):
    with pytest.raises(InputError, match="'LABEL_0', 'LABEL_1'"):
        resolve_reward(save_classifier(tmp_path, ["LABEL_0", "LABEL_1"]))


def test_folders_that_hold_no_classifier_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        with pytest.raises(InputError, match="cannot be loaded as a sequence classifier"):
            resolve_reward(f"hf:{tmp_path / name}")


def test_loading_a_classifier_draws_no_progress_bars(tmp_path, capfd):
    name = save_classifier(tmp_path, ["neg", "pos"])
    capfd.readouterr()
    resolve_reward(name)
    assert capfd.readouterr() == ("", "")


def test_pickled_weights_are_refused(tmp_path):
    name = save_classifier(tmp_path, ["neg", "pos"])
    model = DistilBertForSequenceClassification.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        resolve_reward(name)


def test_a_model_whose_head_was_never_trained_is_refused(tmp_path):
    DistilBertModel(tiny_config(["neg", "pos"])).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(InputError, match=r"no trained classifier: .*classifier\.bias"):
        resolve_reward(f"hf:{tmp_path}")


# Your own function


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, importable and forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_function_in_the_current_folder(folder):
    (folder / "taste_of_mine.py").write_text("def length(replies):\n    return [len(r) - 3.5 for r in replies]\n")
    assert resolve_reward("taste_of_mine:length")(["", "four", "ö"]) == [-3.5, 0.5, -2.5], (
        "any finite number is allowed"
    )


def test_a_function_in_a_package_and_numpy_scores(folder):
    (folder / "tastes").mkdir()
    (folder / "tastes" / "mine.py").write_text(
        "import numpy as np\ndef flat(replies):\n    return np.full(len(replies), 0.25, dtype=np.float32)\n"
    )
    scores = resolve_reward("tastes.mine:flat")(["a", "b"])
    assert scores == [0.25, 0.25]
    assert [type(score) for score in scores] == [float, float]


def test_installed_modules_come_before_the_current_folder(folder, monkeypatch):
    (folder / "colorsys.py").write_text("raise RuntimeError")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert own_function("colorsys", "rgb_to_hsv")(0, 0, 0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("source", "name", "says"),
    [
        ("", "no_such_module_here:f", "no_such_module_here cannot be imported .*No module named"),
        ("x = 1", "broken_taste:missing", "no function missing .*there is none"),
        ("x = 1", "broken_taste:x", "no function x .*it is a int"),
        ("def f(:", "broken_taste:f", "cannot be imported .*SyntaxError"),
        ("1 / 0", "broken_taste:f", "cannot be imported .*ZeroDivisionError"),
    ],
)
def test_functions_that_cannot_be_had_are_refused(folder, source, name, says):
    (folder / "broken_taste.py").write_text(source)
    with pytest.raises(InputError, match=says):
        resolve_reward(name)


def test_errors_inside_a_function_keep_their_own_kind(folder):
    (folder / "angry_taste.py").write_text(textwrap.dedent("def f(replies):\n    raise LookupError('mine')\n"))
    with pytest.raises(LookupError, match="mine"):
        resolve_reward("angry_taste:f")(["a"])


# Names and checks


@pytest.mark.parametrize(
    "name", ["", "happiness", "sentiment:", "hf:", "hf", ":f", "module:", "a b:c", "a:b:c", "../a:f"]
)
def test_unknown_names_list_what_is_allowed(name):
    with pytest.raises(InputError, match=r"unknown reward .*sentiment, hf:NAME_OR_PATH .* module:function"):
        resolve_reward(name)


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, np.float64("nan"), None, "0.5", [0.5], 1j], ids=lambda bad: repr(bad)
)
def test_scores_that_are_no_finite_number_are_refused(bad):
    reward = checked(lambda replies: [0.5, bad], "mine")
    with pytest.raises(InputError, match="reward mine gave") as refusal:
        reward(["fine", "the culprit"])
    assert "the culprit" in str(refusal.value)
    assert repr(bad) in str(refusal.value)
    assert "fine'" not in str(refusal.value)


def test_long_replies_are_shortened_in_messages():
    with pytest.raises(InputError) as refusal:
        checked(lambda replies: [math.nan], "mine")(["word " * 1000])
    assert "word word" in str(refusal.value)
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(("returned", "says"), [([0.5], "1 number"), ([0.5] * 3, "3 number"), (0.5, "a list of 2")])
def test_a_wrong_number_of_scores_is_refused(returned, says):
    with pytest.raises(InputError, match=f"reward mine returned .*{says}"):
        checked(lambda replies: returned, "mine")(["a", "b"])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5) | st.booleans(), max_size=5))
def test_finite_numbers_pass_unchanged(scores):
    assert checked(lambda replies: iter(scores), "mine")(["reply"] * len(scores)) == scores
