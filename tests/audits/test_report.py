"""The page holds every run, stands alone, escapes what people and models wrote, and is the same every time."""

import re
from html.parser import HTMLParser

import pytest

from mightnt.audits.report import report_html, separator, shade, shown_nats, write_report
from mightnt.audits.results import Results, Token, parse_results, read_results
from mightnt.errors import InputError
from mightnt.files import write_json

EVIL = "<script>alert('x')</script>"


class Tags(HTMLParser):
    """Collects open tags and checks that those which must be closed are."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag in ("table", "section", "details", "summary", "figure", "div", "span", "svg", "g", "main", "dl"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and tag in (
            "table",
            "section",
            "details",
            "summary",
            "figure",
            "div",
            "span",
            "svg",
            "g",
            "main",
            "dl",
        ):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(synthetic, runs=None, **changes):
    return report_html(parse_results(synthetic.results(runs, **changes), "x"))


@pytest.fixture(scope="module")
def page(synthetic):
    return page_of(synthetic)


def test_every_run_is_a_row_with_its_numbers(synthetic, page):
    rows = re.findall(r'<tr class="run">.*?</tr>', page, re.DOTALL)
    assert len(rows) == 18
    for run, row in zip(sorted_runs(synthetic), rows, strict=True):
        text = re.sub(r"<svg.*?</svg>|<[^>]*>", " ", row, flags=re.DOTALL).split()
        assert text[:3] == [run["base"], str(run["seed"]), "1000"]
        assert f"{run['kl_demonstrator_nats']['mean']:#.3g}".rstrip(".") in text
        assert f"{run['proxy_reward']['mean']:#.3g}" in text


def sorted_runs(synthetic):
    runs = synthetic.results()["runs"]
    return [run for run in runs if run["base"] != "none"] + [run for run in runs if run["base"] == "none"]


def test_the_page_is_well_formed_and_stands_alone(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert page.startswith("<!doctype html>")
    assert not {tag for tag, _ in tags.seen} & {"script", "link", "img", "iframe"}
    for tag, attributes in tags.seen:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href"):
                assert value.startswith("#"), (tag, value)
    assert "url(http" not in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_opens_with_the_verdict_and_the_first_figure(page):
    title = "Pessimistic kept the policy near the demonstrator; pessimistic-minimum did so by asking too often; "
    assert f"<h1>{title}single and mixture did not.</h1>" in page
    order = ["<h1>", "KL to the base (hollow)", "Reward optimized, utility meant", 'class="checks"', "Every run"]
    assert [page.index(words) for words in order] == sorted(page.index(words) for words in order)


def test_what_people_and_models_wrote_is_escaped(synthetic):
    run = synthetic.run("mixture", kind_of_base=EVIL)
    run["transcripts"][0]["turns"][0]["tokens"][0]["text"] = EVIL
    run["transcripts"][0]["turns"][1]["tokens"][0]["text"] = EVIL
    changes = {"profile": EVIL, "provenance": {"command": EVIL, "config": {"reward": EVIL}}}
    imitators = [synthetic.results()["imitators"][0] | {"name": EVIL}]
    page = page_of(synthetic, [run], imitators=imitators, **changes)
    assert EVIL not in page
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 7


def test_the_same_results_give_the_same_page(synthetic):
    runs = [synthetic.run("mixture"), synthetic.run("pessimistic")]
    assert page_of(synthetic, runs) == page_of(synthetic, runs)


def test_an_unmeasured_demonstrator_is_said_not_faked(synthetic):
    runs = [synthetic.run("mixture", seed, kl_demonstrator="unmeasured") for seed in (0, 1)]
    page = page_of(synthetic, runs, demonstrator=None)
    assert "the distance to the demonstrator was not measured.</h1>" in page
    assert "True utility was not measured" in page
    assert "Share of the KL to the demonstrator" not in page
    assert "the star is the demonstrator" not in page
    assert ">not measured</span>" in page


def test_one_seed_and_no_runs_have_pages_too(synthetic):
    assert "one seed" in page_of(synthetic, [synthetic.run("mixture")])
    empty = page_of(synthetic, [])
    assert "There are no runs to judge." in empty
    assert "No run was read." in empty
    assert "No transcript was kept." in empty


def test_other_settings_have_sections_of_their_own(synthetic):
    page = page_of(synthetic, [synthetic.run("mixture"), synthetic.run("mixture", n_demonstrations=10000)])
    assert "Also run: n = 10000 demonstrations, B = 10 nats" in page


def test_a_single_run_with_nothing_around_it(synthetic, tmp_path):
    write_json(tmp_path / "run.json", synthetic.run("pessimistic", kl_demonstrator="inf", transcripts=[]))
    page = report_html(read_results([tmp_path]))
    assert "not recorded" in page
    assert "Not described in these files." in page
    assert "∞" in page


def test_asked_turns_and_silence_are_marked(synthetic):
    run = synthetic.run("pessimistic")
    run["transcripts"] = run["transcripts"][:1]
    turns = run["transcripts"][0]["turns"]
    for turn in turns:
        turn["asked"] = False
    turns[2]["asked"] = True
    turns[4]["tokens"] = []
    page = page_of(synthetic, [run])
    assert page.count('class="turn assistant asked"') == 1
    assert page.count("(nothing)") == 1


@pytest.mark.parametrize(
    ("base", "demonstrator", "expected"),
    [(5.0, None, 4), (5.0, 0.05, 0), (None, None, 0), (0.0, 0.1, 1), (0.0, 9.99, 4), (0.0, float("inf"), 5)],
)
def test_a_token_is_shaded_by_the_demonstrator_where_measured(base, demonstrator, expected):
    token = Token("a", base, demonstrator)
    assert shade(token) == expected
    assert shown_nats(token) == (base if demonstrator is None else demonstrator)


def test_spaces_stand_between_words_unless_tokens_bring_their_own(synthetic):
    run = synthetic.run("mixture")
    assert separator(parse_results(synthetic.results([run]), "x").runs[0]) == " "
    run["transcripts"][1]["turns"][0]["tokens"][1]["text"] = " well"
    assert separator(parse_results(synthetic.results([run]), "x").runs[0]) == ""


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    results = Results(None, None, (), (), ())
    write_report(results, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == report_html(results)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(results, tmp_path / "file" / "report.html")
