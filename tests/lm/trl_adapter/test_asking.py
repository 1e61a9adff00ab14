"""Asking by a token: its price is that of the account, what it brings is the demonstrator's, and silence stops the run."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mightnt.desk.demonstrators import Function
from mightnt.desk.tickets import Decision, Verdict
from mightnt.dialogues import Message
from mightnt.errors import InputError, NoAnswer
from mightnt.lm.account import Account, offer, system_kl_nats
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.full_kl import kl_step_nats
from mightnt.lm.members import MemberStep
from mightnt.lm.reference import Reference, score_by_hand
from mightnt.lm.scoring import scores
from mightnt.lm.trl_adapter import AskEnvironment, AskToken, ask_template, attach
from mightnt.lm.trl_adapter.asking import answered_or_raise, asking_probability, tools_of
from mightnt.models.counts import Support, fit_counts
from tests.lm.trl_adapter.test_attach import caught
from tests.lm.trl_adapter.tiny import logged, network, tokenizer, trainer

WORDS = ["<pad>", "<end>", "<ask>", "a", "b", "c"]
END, ASK = 1, 2
CAN_SAY = np.array([False, True, False, True, True, True])
THRESHOLD = 0.1


def talker():
    """A tokenizer whose chats TRL can follow."""
    made = tokenizer(WORDS)
    made.chat_template = "{% for m in messages %}{{ m.content }} {{ m.tool_calls }} {% endfor %}"
    made.response_template = ask_template("<ask>")
    return made


def asking(base=None, threshold=THRESHOLD, **settings):
    members = [network(seed, rows=len(WORDS)) for seed in (0, 1)]
    base = AskToken(base or Minimum(), ASK, threshold)
    return Reference(members, base, tokenizer=talker(), is_action=CAN_SAY, **settings)


def priced(log_nu, threshold=THRESHOLD):
    """log rho of one row of log nu over WORDS."""
    step = MemberStep(torch.tensor([log_nu], dtype=torch.float64)[None], None, None, None, torch.zeros(1, 1))
    return AskToken(Minimum(), ASK, threshold).predict(torch.empty(1, 0), step)[0].exp()


def test_prices_by_hand():
    """theta 0.7: everything over 1.7. theta 0.05, below the threshold: as it was. theta 1: half."""
    log = np.log(np.array([1e-300, 0.1, 1e-300, 0.2, 1e-300, 1e-300]))
    log[[0, 2, 4, 5]] = -np.inf
    assert priced(log.tolist()).tolist() == pytest.approx([0, 0.1 / 1.7, 0.7 / 1.7, 0.2 / 1.7, 0, 0])
    log[[1, 3]] = np.log([0.55, 0.4])
    assert priced(log.tolist()).tolist() == pytest.approx([0, 0.55, 0, 0.4, 0, 0])
    assert priced(log.tolist(), 0.04).tolist() == pytest.approx([0, 0.55 / 1.05, 0.05 / 1.05, 0.4 / 1.05, 0, 0])
    assert priced([-math.inf] * 6).tolist() == [0, 0, 0.5, 0, 0, 0]


chances = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3)


def spread(weights):
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)


@given(chances, chances, st.floats(0.01, 0.99), st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4))
def test_the_kl_to_it_is_the_charge_of_the_account_and_bounds_the_system(mu, below, kept, chosen):
    """nu = mu times numbers below one. KL(pi, rho) = KL(pi, extended base) + toll >= KL(policy with mu's answers, mu)."""
    mu, policy = spread(mu), spread(chosen)
    log_nu = (mu * torch.tensor(below, dtype=torch.float64) * kept).log()
    words = torch.full((6,), -torch.inf, dtype=torch.float64)
    words[3:] = log_nu
    rho = priced(words.tolist(), 0.0)[[3, 4, 5, ASK]].log()[None]
    terms = offer(log_nu[None], Account(math.inf, "charged", 0.0))
    kl = kl_step_nats(policy.log()[None], rho)
    assert kl.item() == pytest.approx(float(kl_step_nats(policy.log()[None], terms.log_base) + terms.toll_nats))
    assert kl.item() >= system_kl_nats(policy.log()[None], mu.log()[None]).item() - 1e-9


def test_without_the_charge_nothing_is_bounded():
    """The neighbor: theta as the price of an ask, no log(1 + theta). At the base its KL is 0, and the system is not mu."""
    mu, nu = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([0.5, 0.1], dtype=torch.float64)
    policy = torch.cat([nu, 1 - nu.sum(0, keepdim=True)]).log()[None]
    assert system_kl_nats(policy, mu.log()[None]).item() > 0.01


@pytest.mark.parametrize("kind", ["minimum", "capped"])
def test_sequences_with_asks_score_as_by_hand(kind):
    """Also where the base has a state: an ask leaves it as it is."""
    tokens = np.array([3, 4, 5, 1] * 30)
    counts = fit_counts(tokens, np.array([0, 120]), np.ones(120, bool), CAN_SAY, 2)
    settings = {"counts": counts, "support": Support(10, 1)}
    ours = asking(Capped(0.5), 0.05, **settings) if kind == "capped" else asking()
    ids = torch.tensor([[3, ASK, 4, END, 0], [4, 5, ASK, 3, END], [0, 5, 3, 4, ASK]])
    mask = ids != 0
    own = mask & (torch.arange(5) > 1)
    found, expected = ours.score(ids, mask, own), score_by_hand(ours, ids, mask, own)
    torch.testing.assert_close(found.log_nu, expected.log_nu, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.log_kept, expected.log_kept, atol=1e-5, rtol=1e-5)
    assert bool(found.log_nu[1, 2].isfinite()), "asking is open somewhere"


def test_it_moves_as_its_base_moves():
    """Capped remembers how far it ran ahead of the counts: min(0.9, 0.5 e^0.5) / 0.5 is e^0.5."""
    said, counted = (torch.tensor([row], dtype=torch.float64).log() for row in ([0.1, 0.9], [0.5, 0.5]))
    step = MemberStep(said[None], counted, torch.ones(1, 2, dtype=torch.bool), None, torch.zeros(1, 1))
    base = AskToken(Capped(0.5), 0)
    moved = base.advance(base.start(1), step, torch.tensor([1]), torch.tensor([True]))
    assert moved.tolist() == [[pytest.approx(0.5)]]


def test_a_token_that_members_may_say_cannot_ask():
    with pytest.raises(InputError, match="token 2 asks and is an action"):
        Reference([network(rows=6)], AskToken(Minimum(), ASK), tokenizer=talker(), is_action=np.ones(6, dtype=bool))


def theta_of(ours, ids):
    """theta after these tokens, from logits."""
    can = torch.from_numpy(CAN_SAY)
    said = [scores(m, torch.tensor([ids]))[0, -1].double().masked_fill(~can, -torch.inf) for m in ours.networks]
    return 1 - float(torch.stack([x.log_softmax(-1) for x in said]).amin(0).exp().sum())


def test_the_question_says_where_it_was_asked_and_how_much_was_missing():
    asked = []
    ours = asking()
    environment = AskEnvironment(Function(lambda inquiry: asked.append(inquiry) or "b"), ours)
    environment.reset([{"role": "user", "content": "a c"}], right=3)
    assert environment.ask() == "b"
    (inquiry,) = asked
    assert inquiry.messages == (Message("user", "a c"),)
    assert inquiry.asking_probability == pytest.approx(theta_of(ours, [3, 5]), abs=1e-6)
    assert inquiry.turn == 0
    environment.ask()
    assert [message.content for message in asked[1].messages] == ["a c", "b"]
    assert asked[1].turn == 1
    assert asked[1].conversation == inquiry.conversation
    environment.reset([{"role": "user", "content": "b"}])
    environment.ask()
    assert asked[2].conversation != inquiry.conversation
    assert len(asked[2].messages) == 1


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_theta_is_found_whether_asking_is_open_or_closed(threshold):
    ours = asking(threshold=threshold)
    found = asking_probability(ours, [Message("user", "a")])
    assert found == pytest.approx(theta_of(ours, [3]), abs=1e-6)
    plain = Reference([network(rows=6)], Minimum(), tokenizer=talker(), is_action=CAN_SAY)
    with pytest.raises(InputError, match="no token that asks"):
        asking_probability(plain, [Message("user", "a")])


def test_tools_are_public_methods():
    class Mine(AskEnvironment):
        def look(self) -> str:
            """Look."""
            return "a"

        def get_reward(self):
            return 1.0

    assert {tool.__name__ for tool in tools_of(Mine(Function(lambda _: "a"), asking()))} == {"ask", "look"}


class Silent:
    """Nobody answers, or somebody refuses."""

    def __init__(self, refuses):
        self.refuses = refuses

    def answer(self, inquiry):
        if self.refuses:
            return Decision(Verdict.REFUSE, "somebody", "key")
        raise NoAnswer("nobody is there")


@pytest.mark.parametrize(("refuses", "match"), [(False, "nobody is there"), (True, "somebody decided refuse")])
def test_no_answer_stops_what_trl_would_go_on_with(refuses, match):
    environment = AskEnvironment(Silent(refuses), asking())

    class Trainer:
        environments = (environment,)

    environment.reset([{"role": "user", "content": "a"}])
    answered_or_raise(Trainer)
    with pytest.raises(NoAnswer, match=match):
        environment.ask()
    with pytest.raises(NoAnswer, match=match):
        answered_or_raise(Trainer)
    environment.reset([{"role": "user", "content": "a"}])
    answered_or_raise(Trainer)


# --- in TRL ------------------------------------------------------------------------------------------------------------------


def run(demonstrator, **settings):
    """A trainer of GRPO with the environment, protected; its policy, fresh; its reference."""
    pytest.importorskip("trl")
    ours, policy = asking(), network(5, rows=len(WORDS))
    policy.generation_config.eos_token_id = [END, ASK]
    made = trainer(
        "GRPO",
        model=policy,
        words=talker(),
        prompts=[[{"role": "user", "content": text}] for text in ("a b", "c")],
        reward=lambda completion_ids, **_: [float(len(ids)) for ids in completion_ids],
        more={"environment_factory": lambda: AskEnvironment(demonstrator, ours)},
        max_steps=1,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=8,
        **settings,
    )
    attach(made, ours, beta=0.1, exact_kl_every=0)
    return made, ours


def test_in_an_environment_of_trl_an_ask_is_charged_and_its_answer_is_not():
    """k1 of every episode from logits: own words at nu / (1 + theta), asks at theta / (1 + theta), answers free; asks counted."""
    asked = []
    made, ours = run(Function(lambda inquiry: asked.append(inquiry) or "c b"))
    _, kept = caught(made)
    made.train()
    (output,) = kept
    policy, expected, n_asks = network(5, rows=len(WORDS)), [], 0
    for row in range(16):
        there = torch.cat([output["prompt_mask"][row], output["completion_mask"][row]]).bool()
        ids = torch.cat([output["prompt_ids"][row], output["completion_ids"][row]])[there].tolist()
        n_prompt = int(output["prompt_mask"][row].sum())
        mine = output["tool_mask"][row][output["completion_mask"][row].bool()].bool().tolist()
        said, kl = scores(policy, torch.tensor([ids]))[0].double().log_softmax(-1), 0.0
        for t, own in enumerate(mine, n_prompt):
            if t and ids[t - 1] == ASK:
                assert not own
                assert ids[t : t + 2] == [5, 4], "the answer stands where the ask was"
            if own:
                theta, nu = theta_of(ours, ids[:t]), nu_of(ours, ids[:t])
                is_open = theta > THRESHOLD
                vouched = is_open * theta if ids[t] == ASK else nu[ids[t]]
                kl += float(said[t - 1, ids[t]]) - (math.log(vouched / (1 + is_open * theta)) if vouched else -100.0)
                n_asks += ids[t] == ASK
        expected.append(kl)
    assert logged(made, "mightnt/sequence_kl_nats") == [pytest.approx(sum(expected) / 16, abs=1e-3)]
    assert logged(made, "mightnt/asks_per_episode") == [n_asks / 16]
    assert n_asks == len(asked) > 0
    assert logged(made, "tools/failure_frequency") == [0.0]


def nu_of(ours, ids):
    """nu after these tokens, from logits."""
    can = torch.from_numpy(CAN_SAY)
    said = [scores(m, torch.tensor([ids]))[0, -1].double().masked_fill(~can, -torch.inf) for m in ours.networks]
    return torch.stack([x.log_softmax(-1) for x in said]).amin(0).exp().tolist()


def test_in_trl_nothing_is_learnt_where_nobody_answers():
    made, _ = run(Silent(False))
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    with pytest.raises(NoAnswer, match="nobody is there"):
        made.train()
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())
