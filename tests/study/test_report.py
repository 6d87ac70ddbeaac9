"""Does the report say <what> it should?

The first paragraph of the protocol, with ``code`` and <script>alert(1)</script>.

    an indented line
"""

import dataclasses
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from etude.errors import Unavailable
from etude.study import report
from etude.study.definition import Config, Paper, Study
from etude.study.evidence import Evidence, Failure, TrialInfo
from etude.study.rules import Part, Verdict

INF, NAN = math.inf, math.nan
HOSTILE = '<script>alert("x")</script> & {{ 7 * 7 }} [b]'


class Settings(Config):
    size: int = 10
    """How <many> numbers."""
    rates: tuple[float, ...] = (0.1, 0.2)
    flag: bool = False
    words: str = "x"


def made(name="test-report"):
    study = Study(
        paper=Paper("A <paper>", "Some Body & Another", 2020, "2001.00001", "Venue"),
        topic="testing",
        presets={"smoke": Settings(seeds=2), "laptop": Settings(), "paper": Settings(size=1000)},
    )

    @study.measure()
    def draw(lab, config): ...

    @study.measure(since="paper")
    def large(lab, config): ...

    def claim(name, **options):
        def rule(evidence): ...

        rule.__name__, rule.__doc__ = name, f"The statement of {name} {HOSTILE}."
        study.claim(**options)(rule)

    claim("it_holds", reported=f"38 % {HOSTILE}", deviation=f"shorter {HOSTILE}")
    claim("it_fails", reported="1")
    claim("it_is_undecided", reported="2")
    claim("it_is_untested", reported="3")
    claim("it_is_composite", reported="4")

    @study.figure
    def line(e, axes):
        """A line & <its> caption."""
        axes.plot([1, 2, 3], [1, 4, 9], label="squares")
        axes.axhline(2, color="k")
        axes.legend()

    @study.figure
    def cannot(e, axes):
        raise Unavailable("nothing to <draw>", "Get it")

    return study


def part(value=0.6, low=0.5, high=0.7, *, label="", n=5, region=((-INF, 1.0),), relation="< 1", status="holds"):
    return Part(label, value, low, high, 0.05, n, "Student t", region, relation, status)


VERDICTS = [
    Verdict("it-holds", "holds", (part(), part(label="also", region=None, relation="", status=None)), "0.6 < 1"),
    Verdict("it-fails", "fails", (part(1.5, 1.4, 1.6, status="fails"),), "1.5, not < 1"),
    Verdict("it-is-undecided", "undecided", (part(NAN, NAN, NAN, status="undecided"),), f"not finite {HOSTILE}"),
    Verdict("it-is-untested", "untested", (), f"no data. {HOSTILE}."),
    Verdict(
        "it-is-composite",
        "undecided",
        (part(label="1"), part(1.0, -INF, INF, label="2.1", status="undecided"), part(label=HOSTILE, n=None)),
        "1 of 3 hold and 0 fail, 3 needed to hold; undecided: 1.0 [..], not decided: < 1",
    ),
]


def gathered(preset="laptop", config=None):
    def trial(seed, **options):
        return TrialInfo(
            "draw", {}, seed, "key", 60.0, **{"reused": False, "spot_checked": False, **options}, environment={}
        )

    return Evidence(
        study="test-report",
        preset=preset,
        config=config or Settings(),
        tables={},
        unavailable={"large": f"large is measured at paper {HOSTILE}"},
        failures=(Failure("draw", {"arm": "a"}, 3, f"ValueError: boom {HOSTILE}", f"Traceback\n{HOSTILE}"),),
        trials=(trial(0), trial(1, reused=True), trial(2, reused=True, spot_checked=True)),
        planned={"draw": 4},
        environment={"python": "3.11", "torch": HOSTILE, "nested": {"cores": 2}},
    )


@pytest.fixture(scope="module")
def page():
    return report.render(made(), gathered(), VERDICTS)


class Outline(HTMLParser):
    """Checks that tags close in order, and collects what a reader and a browser get."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.addresses, self.tags, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs, closed=False):
        self.tags.append((tag, dict(attrs)))
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "srcset", "xlink:href", "action", "data"):
                self.addresses.append(value)
        if tag not in self.VOID and not closed:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs, closed=True)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_page_is_well_formed_and_its_ids_are_unique(page):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    assert page.startswith("<!doctype html>")
    assert [tag for tag, _ in outline.tags].count("h1") == 1
    ids = set(outline.ids)
    assert all(attrs["aria-labelledby"] in ids for _, attrs in outline.tags if "aria-labelledby" in attrs)


def test_the_page_loads_nothing_from_elsewhere(page):
    outline = Outline(page)
    outside = [each for each in outline.addresses if not each.startswith(("#", "data:"))]
    assert set(outside) == {"https://arxiv.org/abs/2001.00001"}
    assert not {"script", "iframe", "object", "embed", "img"} & {tag for tag, _ in outline.tags}
    style = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert "@import" not in style
    assert "http" not in style
    # Every address inside the drawings points to something that is there.
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(outline.ids)
    assert {each[1:] for each in outline.addresses if each.startswith("#")} <= set(outline.ids)


def test_hostile_text_is_shown_and_never_run(page):
    outline = Outline(page)
    assert "script" not in {tag for tag, _ in outline.tags}
    assert "{{ 7 * 7 }}" in outline.text
    # statement, reported, deviation (card and section), why twice, label, unavailable, error and log, environment
    assert outline.text.count('alert("x")') >= 11


def test_everything_a_reader_needs_is_there(page):
    text = Outline(page).text
    for words in (
        "Does the report say <what> it should?",
        "A <paper>",
        "Some Body & Another",
        "arXiv 2001.00001",
        "The first paragraph of the protocol",
        "The statement of it_fails",
        "0.60 [0.50, 0.70]",
        "rule: < 1",
        "(shown, not judged)",
        "part 2.1",
        "A line & <its> caption.",
        "nothing to <draw>. Get it.",
        "Preset laptop, as shipped.",
        "How <many> numbers.",
        "Failed : draw (arm = a, seed 3): ValueError: boom",
        "nested cores 2",
        "3.0 min in all trials, 60 s of it in this run",
        "etude run",
    ):
        assert words in text, words
    row = re.search(r"<code>draw</code></th>(.*?)</tr>", page)[1]
    assert re.findall(r">([^<]+)</td>", row) == ["3", "4", "1", "2", "1", "1", "3.0 min"]


def test_every_status_is_told_in_words_and_by_a_symbol(page):
    for verdict in VERDICTS:
        card = re.search(rf'<article class="claim" id="{verdict.claim}">(.*?)</article>', page, re.DOTALL)[1]
        badge = re.search(r'<span class="badge (\w+)"><span[^>]*>(.)</span>(\w+)</span>', card)
        assert badge.groups() == (verdict.status, report.SYMBOLS[verdict.status], verdict.status)
    assert len(set(report.SYMBOLS.values())) == 4
    assert '<span class="count">2</span><span><span aria-hidden="true">?</span> undecided' in page


def test_a_smoke_run_shows_no_verdict():
    page = report.render(made(), gathered("smoke", Settings(seeds=2)), VERDICTS)
    text = Outline(page).text
    assert text.count("smoke: not evidence") == 1 + len(VERDICTS)
    legend = text[text.index("the interval lies inside") :]
    assert not re.search(r"[✓✗]", text.replace(legend, "").replace("✓ holds", "", 1))


def test_changed_fields_are_marked_and_in_the_command():
    study = made()
    study.module = "etude.papers.test_report"
    config = Settings(size=7, rates=(0.5, 1.0), flag=True, words="two words")
    evidence = gathered(None, config)
    assert report.changed_fields(study, evidence)[0] == "laptop"
    assert set(report.changed_fields(study, evidence)[1]) == {"size", "rates", "flag", "words"}
    assert report.command(study, evidence) == (
        "etude run test-report --preset laptop --size 7 --rates 0.5 1.0 --flag --words 'two words'"
    )
    page = report.render(study, evidence, VERDICTS)
    assert page.count('<tr class="changed">') == 4
    assert "(preset: 0.1, 0.2)" in Outline(page).text
    near_paper = gathered(None, Settings(size=1000, seeds=3))
    assert report.command(study, near_paper) == "etude run test-report --preset paper --seeds 3"


def test_a_study_outside_a_package_is_run_by_its_file():
    study = made()
    study.module = "test_report"
    assert re.search(r"etude run \S*test_report\.py --preset laptop$", report.command(study, gathered()))


def test_the_report_is_the_same_each_time(page):
    assert report.render(made(), gathered(), VERDICTS) == page


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = report.write(made(), gathered(), VERDICTS, tmp_path / "deep" / "r.html")
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    before = path.read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(report.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write_atomically(path, "half")
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


# -- the axis ----------------------------------------------------------------------------------------------------------


def inverse(axis, position):
    """The number at a position in per cent."""
    return axis.low + (position - 2.0) / 96.0 * (axis.high - axis.low)


def test_positions_are_linear_in_the_numbers():
    axis = report.axis(part(0.6, 0.5, 0.7, region=((-INF, 1.0),)))
    assert axis.low == pytest.approx(0.5 - 0.12 * 0.5)
    assert axis.high == pytest.approx(1.0 + 0.12 * 0.5)
    tolerance = 0.02 / 96 * (axis.high - axis.low)
    assert inverse(axis, axis.point) == pytest.approx(0.6, abs=tolerance)
    assert [inverse(axis, end) for end in axis.bar] == pytest.approx([0.5, 0.7], abs=tolerance)
    assert inverse(axis, axis.bounds[0][0]) == pytest.approx(1.0, abs=tolerance)
    assert axis.arrows == (False, False)
    for position, label in axis.ticks:
        assert inverse(axis, position) == pytest.approx(float(label.replace("−", "-")), abs=tolerance)


@pytest.mark.parametrize(
    ("region", "inside", "out"),
    [
        (((-INF, 1.0),), (0.2, 0.99), (1.01,)),
        (((0.3, INF),), (0.31, 1.0), (0.29,)),
        (((0.3, 0.9),), (0.31, 0.89), (0.29, 0.91)),
        (((-INF, 0.3), (0.9, INF)), (0.29, 0.91), (0.31, 0.89)),
    ],
)
def test_the_shaded_bands_are_the_region(region, inside, out):
    axis = report.axis(part(0.6, 0.2, 1.1, region=region))

    def shaded(value):
        position = 2.0 + 96.0 * (value - axis.low) / (axis.high - axis.low)
        return any(start <= position <= start + width for start, width in axis.bands)

    assert all(map(shaded, inside))
    assert not any(map(shaded, out))
    # A half-line is shaded to the drawing's edge.
    assert (axis.bands[0][0] == 0) == (region[0][0] == -INF)
    assert (sum(axis.bands[-1]) == pytest.approx(100)) == (region[-1][1] == INF)


@pytest.mark.parametrize("value", [0.6, 0.0, 1e-12, -1e12, NAN, INF, -INF])
@pytest.mark.parametrize("ends", [(0.5, 0.7), (NAN, NAN), (-INF, INF), (-INF, 0.7), (0.5, INF), (-1e300, 1e300)])
@pytest.mark.parametrize("region", [None, ((-INF, 1.0),), ((0.0, INF),), ((0.5, 0.5),), ((-INF, 0.2), (0.8, INF))])
def test_no_number_breaks_the_axis(value, ends, region):
    estimate = part(value, *ends, region=region)
    axis = report.axis(estimate)
    assert math.isfinite(axis.low)
    assert axis.low < axis.high < INF
    positions = [
        axis.point,
        *(axis.bar or ()),
        *(tick for tick, _ in axis.ticks),
        *(bound for bound, *_ in axis.bounds),
    ]
    positions += [x for start, width in axis.bands for x in (start, start + width)]
    assert all(position is None or -0.02 <= position <= 100.02 for position in positions)
    assert all(width >= 0 for _, width in axis.bands)
    assert (axis.point is None) == (not math.isfinite(value))
    if not math.isnan(ends[0]):
        assert axis.bar[0] <= axis.bar[1]
        assert all(arrow for arrow, end in zip(axis.arrows, ends) if math.isinf(end))
    html = report.verdicts_html([Verdict("c", "undecided", (estimate,), "")])
    assert not re.search(r'="[^"]*(nan|inf)', html.replace("information", ""))


def test_a_wide_interval_is_cut_and_says_so():
    axis = report.axis(part(0.5, -1000.0, 0.7, region=((-INF, 1.0),)))
    assert axis.arrows == (True, False)
    assert axis.low > -20  # estimate and bound stay apart


def test_an_exact_value_has_no_interval():
    axis = report.axis(part(0.0, 0.0, 0.0, n=None, region=((-INF, 0.0),)))
    assert axis.bar is None
    assert axis.bounds[0][0] == axis.point


def test_near_bounds_do_not_write_over_each_other():
    lower, upper = report.axis(part(0.5, -0.5, 1.5, region=((0.49, 0.51),))).bounds
    assert (lower[2], upper[2]) == ("end", "start")
    lower, upper = report.axis(part(9.0, 8.0, 10.0, region=((0.0, 0.01),))).bounds
    assert [label for _, label, _ in (lower, upper) if label] == ["0 to 0.01"]


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.5, None, "0.5"),
        (-0.0123456, None, "−0.01235"),
        (-0.0004, 2, "0.00"),
        (0.0, None, "0"),
        (12345.6, None, "12346"),
        (3e-7, None, "3 × 10⁻⁷"),
        (-2.5e9, None, "−2.5 × 10⁹"),
        (NAN, None, "not finite"),
        (-INF, 3, "−∞"),
    ],
)
def test_numbers(value, decimals, text):
    assert report.number(value, decimals) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (part(0.6234, 0.5411, 0.7155), "0.623 [0.541, 0.715]".replace("0.715]", "0.716]")),
        (part(12.34, 8.0, 16.7), "12.3 [8.0, 16.7]"),
        (part(0.5, -120, 130), "0.5 [−120.0, 130.0]"),
        (part(0.02, 0.0004, 0.0396, region=((0.0, INF),)), "0.0200 [0.0004, 0.0396]"),
        (part(0.9, 0.8, 0.9996), "0.9000 [0.8000, 0.9996]"),
        (part(0.02, -INF, INF), "0.02 [−∞, ∞]"),
        (part(0.25, 0.25, 0.25, n=None), "0.25"),
        (part(NAN, NAN, NAN), "not finite"),
    ],
)
def test_estimates_are_rounded_by_their_interval_but_never_onto_the_bound(estimate, text):
    assert report.estimate_text(estimate) == text


def shown(renderable, width=80):
    console = Console(width=width, color_system=None, file=None, record=True, quiet=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_terminal_table_fits_80_columns_and_says_all():
    text = shown(report.claims_table(made(), gathered(), VERDICTS))
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for status, symbol in report.SYMBOLS.items():
        assert f"{symbol} {status}" in flat
    assert "The statement of it_holds <script>" in flat
    assert "[b]" in flat  # markup in a statement is text
    assert "paper 38 %" in flat
    assert "0.60 [0.50, 0.70] rule: < 1" in flat
    assert "✓ 1 holds ✗ 1 fails ? 2 undecided – 1 untested" in flat


def test_the_terminal_table_of_a_smoke_run_is_no_evidence():
    text = shown(report.claims_table(made(), gathered("smoke"), VERDICTS))
    assert "smoke: not evidence" in text
    assert not re.search("[✓✗]", text)


def test_verdicts_show_themselves():
    verdicts = report.Verdicts(VERDICTS, study=made(), evidence=gathered())
    html = verdicts._repr_html_()
    Outline(html)
    assert html.count('<article class="claim"') == len(VERDICTS)
    assert repr(verdicts).splitlines()[0] == "✓ holds      it-holds  0.60 [0.50, 0.70], rule: < 1"
    smoke = report.Verdicts(VERDICTS, study=made(), evidence=gathered("smoke"))
    assert "smoke: not evidence" in repr(smoke)
    assert "✓" not in repr(smoke)
    assert verdicts == VERDICTS
    assert repr(report.Verdicts()) == "no verdicts"


def test_a_page_in_a_notebook_is_framed(page):
    frame = page._repr_html_()
    outline = Outline(frame)
    assert [tag for tag, _ in outline.tags] == ["iframe"]
    assert outline.tags[0][1]["srcdoc"] == page


# -- figures -----------------------------------------------------------------------------------------------------------


def test_a_figure_alone_is_xml_with_its_own_colours():
    svg = report.figure_svg(made().figures[0], gathered())
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "A line & <its> caption."
    assert "prefers-color-scheme: dark" in svg
    drawn = svg[svg.index("</style>") :]
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) == set()  # all colours follow the theme
    assert set(re.findall(r"var\((--\w+)\)", drawn)) <= set(re.findall(r"(--\w+):", svg))
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    report.figure_svg(made().figures[0], gathered())
    assert dict(matplotlib.rcParams) == before


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_and_lines_stand_out_from_the_page_in_light_and_dark(page):
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    light, dark = style.split("prefers-color-scheme: dark", 1)
    for part_of_style in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", part_of_style))
        assert {"paper", "ink", "muted", "accent", "holds", "fails", "undecided", "untested", "c0", "c7"} <= set(
            colours
        )
        paper = luminance(colours["paper"])
        for name, colour in colours.items():
            if name not in ("paper", "rule"):
                high, low = sorted((luminance(colour), paper), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (name, colour)


def test_docstrings_keep_their_lines_only_where_they_mean_something():
    blocks = report._paragraphs("One\ntwo.\n\n- a\n- b\n\n    x = 1\n")
    assert [block["lines"] for block in blocks] == [False, True, True]
    assert report._paragraphs(None) == []
    assert report._inline("``a<b`` and `c`") == "<code>a&lt;b</code> and <code>c</code>"


def test_environment_and_times_read_well():
    assert report._flat({"a_b": 1, "deep": {"c": (1, 2)}}) == [("a b", "1"), ("deep c", "1, 2")]
    assert (report._minutes(59.6), report._minutes(150), report._minutes(0.04)) == ("60 s", "2.5 min", "0.04 s")


def test_a_study_without_doc_figures_or_claims_has_a_report():
    study = made()
    bare = SimpleNamespace(
        **{name: getattr(study, name) for name in ("name", "module", "path", "paper", "presets", "measurements")},
        doc="",
        claims={},
        figures=[],
    )
    evidence = dataclasses.replace(gathered(), unavailable={}, failures=(), trials=())
    text = Outline(report.render(bare, evidence, [])).text
    assert "A <paper>" in text
    assert "The study makes no claim." in text
