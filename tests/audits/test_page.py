"""A page: everything escaped but our own pictures, one style, nothing missing in silence."""

import jinja2
import pytest

from mightnt.audits.drawing import STYLES
from mightnt.audits.figures import Panel
from mightnt.audits.page import drawn, page, pretty


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "t.html.jinja"
    path.write_text(
        '<style>{% include "page.css.jinja" %}</style><p>{{ words }} {{ 0.5 | percent }}</p>{{ panel.svg }}'
    )
    return path


def test_words_are_escaped_and_pictures_are_not(template):
    text = page(template, words="<b>", panel=drawn(Panel("t", "<svg></svg>")))
    assert "<p>&lt;b&gt; 50.0%</p><svg></svg>\n" in text
    assert all(f"--{base}: {style.color}" in text for base, style in STYLES.items())


def test_a_value_that_is_not_given_is_an_error(template):
    with pytest.raises(jinja2.UndefinedError, match="words"):
        page(template, panel=drawn(Panel("t", "")))


def test_values_of_a_record_as_text():
    assert pretty({"b": float("inf"), "a": 1}) == '{\n "a": 1,\n "b": "inf"\n}'
    assert (pretty(None), pretty(3)) == ("not recorded", "3")
