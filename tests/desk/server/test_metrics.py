"""The text format of Prometheus, and the arithmetic of a histogram against counting by hand."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mightnt.desk.server.metrics import BOUNDS_SECONDS, MEANINGS, Histogram, Metrics


@given(st.lists(st.one_of(st.sampled_from(BOUNDS_SECONDS), st.floats(0, 1000)), max_size=30))
def test_buckets_count_what_is_at_most_their_bound(seconds):
    histogram = Histogram()
    for value in seconds:
        histogram.add(value)
    lines = dict(line.rsplit(" ", 1) for line in histogram.lines("x"))
    for bound in BOUNDS_SECONDS:
        assert int(lines[f'x_bucket{{le="{bound:g}"}}']) == sum(value <= bound for value in seconds)
    assert int(lines['x_bucket{le="+Inf"}']) == int(lines["x_count"]) == len(seconds)
    assert float(lines["x_sum"]) == sum(seconds, 0.0)


def test_every_line_is_of_the_format():
    metrics = Metrics()
    metrics.count("mightnt_calls_total", route="/v1/models", status="200")
    metrics.count("mightnt_calls_total", route="/v1/models", status="200")
    metrics.count("mightnt_spent_nats_total", 0.25)
    metrics.turn_seconds.add(0.2)
    text = metrics.text()
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\})? [0-9.e+-]+')
    comment = re.compile(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))")
    for line in text.splitlines():
        assert sample.fullmatch(line) or comment.fullmatch(line), line
    assert 'mightnt_calls_total{route="/v1/models",status="200"} 2\n' in text
    assert "mightnt_spent_nats_total 0.25\n" in text
    assert text.endswith("\n")


def test_what_is_always_there_is_there_before_anything_happened():
    text = Metrics().text()
    for name in ("asks_total", "waiting", "spent_nats_total", "tokens_total", "turn_seconds_count"):
        assert f"mightnt_{name} 0" in text
    assert all(name.startswith("mightnt_") for name in MEANINGS)
