"""T1's pictures: infinite prices are drawn as arrows and named, and nothing finite is called infinite."""

from math import inf

from mightnt.experiments.theory.novelty_pictures import BITS_OF, panels


def curves(pessimistic):
    rounds = {"rounds": [10, 100], "event": ["e", "observation 1 has occurred"], "bound": [10, 10], "mixture": [4, 5]}
    rounds |= {"no ifs": [5, 8], "pessimistic": pessimistic, "demonstrator": ["inf", "inf"]}
    point = dict.fromkeys(BITS_OF, 2.0)
    steps = {key: [1.0, 0.5] for key in ("all", "demonstrated", "pessimistic", "demonstrator")}
    points = [point | {"value": value, "least": value} for value in (0.5, 0.7)]
    return {"by_rounds": rounds, "along_the_episode": steps, "term_by_term": {"points": points}}


def test_infinite_prices_are_arrows_with_a_name_and_finite_ones_are_curves():
    infinite, finite = (panels(curves(values))[0] for values in ([inf, inf], [3.0, 4.0]))
    assert "pessimistic: infinite" in infinite.svg
    assert "pessimistic: infinite" not in finite.svg
    assert "demonstrator: infinite" in finite.svg  # from a record, where infinity is a string
    assert '"observation 1 has occurred"' in infinite.note


def test_every_term_of_the_bound_is_named():
    terms = panels(curves([inf, inf]))[1].svg
    assert all(name in terms for name in (*BITS_OF, "least KL", "bits"))


def test_every_account_of_the_episode_is_named():
    steps = panels(curves([inf, inf]))[2].svg
    assert all(name in steps for name in ("evidence: all", "evidence: demonstrated", "pessimistic", "nats"))
