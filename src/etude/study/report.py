"""What a person sees of a run: the claims table in the terminal and the self-contained HTML report.

Both show the same things in the same words: for every claim its statement, the paper's value, each
estimate with its interval, the rule and the verdict. A verdict is never told by colour alone.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import math
import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

if TYPE_CHECKING:
    from etude.study.definition import Study
    from etude.study.evidence import Evidence
    from etude.study.rules import Part, Verdict

SMOKE = "smoke: not evidence"
SYMBOLS = {"holds": "✓", "fails": "✗", "undecided": "?", "untested": "–"}
MEANINGS = {
    "holds": "the interval lies inside the rule",
    "fails": "it lies wholly outside",
    "undecided": "it straddles the rule, is not finite or has fewer than 3 units",
    "untested": "the evidence could not be had here",
}
_TERMINAL = {"holds": "green", "fails": "red", "undecided": "yellow", "untested": "bright_black"}

# -- numbers -----------------------------------------------------------------------------------------------------------


def number(value: float, decimals: int | None = None) -> str:
    """A number as people write it: a true minus sign, no exponent unless the number is very large or small.

    Args:
        value: any float; the not-a-number is written `not finite`.
        decimals: digits after the point; None keeps four significant digits.
    """
    if math.isnan(value):
        return "not finite"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value and not 1e-4 <= abs(value) < 1e6 and (decimals is None or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.2e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{float(mantissa):g} × 10{power}"
    elif decimals is None:
        text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    else:
        text = f"{value:.{decimals}f}"
        if float(text) == 0:
            text = text.lstrip("-")
    return text.replace("-", "−")


def estimate_text(part: Part) -> str:
    """An estimate and its interval, written to two significant digits of the interval's half-width."""
    if not math.isfinite(part.value) and not (math.isfinite(part.low) or math.isfinite(part.high)):
        return number(part.value)
    if part.n is None or part.low == part.high == part.value:
        return number(part.value)
    half = (part.high - part.low) / 2
    largest = max(abs(x) for x in (part.value, part.low, part.high))
    decimals = None
    if math.isfinite(half) and half > 0 and 1e-4 <= largest < 1e6:
        shown = min(half, abs(part.value) * 10) or half  # enough digits that a small estimate is not written as 0
        decimals = min(max(1 - math.floor(math.log10(shown) + 1e-9), 0), 8)
        # More digits where rounding would make an end look as if it lay on the rule's edge.
        bounds = {end for stretch in part.region or () for end in stretch if math.isfinite(end)}
        while decimals < 8 and any(
            end != bound and number(end, decimals) == number(bound, decimals)
            for end in (part.low, part.high)
            for bound in bounds
        ):
            decimals += 1
    return f"{number(part.value, decimals)} [{number(part.low, decimals)}, {number(part.high, decimals)}]"


def basis_text(part: Part) -> str:
    """What the interval rests on: its level, the number of units and the method."""
    if part.n is None:
        return part.method or "exact"
    # No-break spaces keep each piece on one line.
    level = f"{100 * (1 - part.alpha):.3g}\u00a0%\u00a0interval"
    return ", ".join(filter(None, (level, f"n\u00a0=\u00a0{part.n}", part.method)))


def rule_text(part: Part) -> str:
    """The rule as mathematics is set: `<= -0.5` becomes `≤ −0.5`."""
    text = part.relation.replace("<=", "≤").replace(">=", "≥")
    text = re.sub(r"\d[\d.]*e[+-]\d+", lambda found: number(float(found[0])), text)
    return re.sub(r"-(?=[\d.∞])", "−", text)


def label_text(part: Part) -> str:
    """The estimate's label in words; a bare place in a composite rule, such as `2.1`, becomes `part 2.1`."""
    return f"part {part.label}" if re.fullmatch(r"[\d.]+", part.label) else part.label.replace("_", " ")


def reason(verdict: Verdict) -> str:
    """What the verdict's `why` adds to the estimates shown beside it; they are not said twice."""
    judged = _judged(verdict)
    if judged == 1 and verdict.status in ("holds", "fails"):
        return ""
    if judged > 1 and all(part.status in (None, verdict.status) for part in verdict.estimates):
        return ""
    return verdict.why.partition(": ")[0] if judged > 1 and not verdict.error else verdict.why


def _judged(verdict: Verdict) -> int:
    return sum(part.region is not None for part in verdict.estimates)


def title(name: str) -> str:
    """A claim's or figure's name as words: `tickets-learn-faster` becomes `Tickets learn faster`."""
    words = name.replace("_", "-").replace("-", " ").strip()
    return words[:1].upper() + words[1:]


def is_smoke(evidence: Evidence[Any]) -> bool:
    """Whether the evidence comes from the preset that only checks that the code runs."""
    return bool(evidence.preset == "smoke")


def summary(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many verdicts have each status, all four statuses present."""
    counts = Counter(verdict.status for verdict in verdicts)
    return {status: counts.get(status, 0) for status in ("holds", "fails", "undecided", "untested")}


def changed_fields(study: Study[Any], evidence: Evidence[Any]) -> tuple[str | None, dict[str, Any]]:
    """The preset a configuration is nearest to, and that preset's values of the fields which differ from it.

    Returns:
        The preset's name (None when the study ships none of this configuration's type) and `{field: preset's value}`.
    """
    config = evidence.config
    fields = type(config).model_fields

    def differing(base: Any) -> dict[str, Any]:
        return {name: getattr(base, name) for name in fields if getattr(base, name) != getattr(config, name)}

    if evidence.preset is not None and evidence.preset in study.presets:
        return evidence.preset, differing(study.presets[evidence.preset])
    candidates = {name: differing(base) for name, base in study.presets.items() if isinstance(base, type(config))}
    if not candidates:
        return None, {}
    # On a tie the default preset is named, as it is the one a reader would start from.
    nearest = min(candidates, key=lambda name: (len(candidates[name]), name != "laptop"))
    return nearest, candidates[nearest]


def command(study: Study[Any], evidence: Evidence[Any]) -> str:
    """The exact command line that makes this evidence again."""
    preset, changed = changed_fields(study, evidence)
    # A study outside any package is named by its file, as on the command line that ran it.
    outside = "." not in study.module and study.path is not None
    words: list[str] = ["etude", "run", os.path.relpath(str(study.path)) if outside else study.name]
    if preset is not None:
        words += ["--preset", preset]
    for name in changed:
        value = getattr(evidence.config, name)
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else "--no-" + option[2:])
        elif isinstance(value, (tuple, list)):
            words += [option, *map(str, value)]
        else:
            words += [option, str(value)]
    return shlex.join(words)


# -- the terminal ------------------------------------------------------------------------------------------------------


def claims_table(study: Study[Any], evidence: Evidence[Any], verdicts: Sequence[Verdict]) -> RenderableType:
    """The verdicts for the terminal: for every claim its statement, the paper's value, the estimates and the rule.

    Args:
        study: the study that was judged.
        evidence: what was measured; at the preset `smoke` no verdict is shown, as it is no evidence.
        verdicts: one for every claim shown, in the order to show them.

    Returns:
        A renderable for `rich.print`, readable from 60 columns on.
    """
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    smoke = is_smoke(evidence)
    for verdict in verdicts:
        style = _TERMINAL[verdict.status]
        mark = Text("· smoke", "bright_black") if smoke else Text(f"{SYMBOLS[verdict.status]} {verdict.status}", style)
        if not smoke and verdict.status in ("holds", "fails"):
            mark.stylize("bold")
        grid.add_row(mark, Padding(_claim_lines(study, verdict, smoke), (0, 0, 1, 0)))
    heading = Text.assemble((study.name, "bold"), f"  {evidence.preset or 'custom configuration'}")
    return Group(heading, Text(), grid, _summary_line(verdicts, smoke))


def _claim_lines(study: Study[Any], verdict: Verdict, smoke: bool) -> RenderableType:
    claim = study.claims[verdict.claim]
    lines = Grid.grid(padding=(0, 1, 0, 0))
    lines.add_column(no_wrap=True, style="bright_black")
    lines.add_column(ratio=1)
    lines.add_row("paper", Text(claim.reported or "not stated"))
    several = _judged(verdict) > 1
    for part in verdict.estimates:
        text = Text.assemble((estimate_text(part), "bold" if part.region is not None else ""))
        if part.relation:
            text.append(f"   rule: {rule_text(part)}")
            if several and part.status is not None and not smoke:
                text.append(f"  {SYMBOLS[part.status]}", _TERMINAL[part.status])
        if part.label:
            text = Text.assemble((f"{label_text(part)}: ", "italic"), text)
        units = part.method or "exact" if part.n is None else f"{100 * (1 - part.alpha):.3g} %, n = {part.n}"
        text.append(f"   ({units})", "bright_black")
        lines.add_row("here" if part.region is not None else "also", text)
    if claim.deviation:
        lines.add_row("differs", Text(claim.deviation))
    if (why := reason(verdict)) and not (smoke and verdict.estimates):
        lines.add_row("why", Text(why))
    heading = Text.assemble((verdict.claim, "bold"))
    return Group(heading, Text(_one_line(claim.statement)), lines)


def _summary_line(verdicts: Sequence[Verdict], smoke: bool) -> Text:
    if smoke:
        return Text(SMOKE, "bold yellow")
    text = Text()
    for status, count in summary(verdicts).items():
        text.append(
            f"{SYMBOLS[status]} {count} {_plural(status, count)}   ", _TERMINAL[status] if count else "bright_black"
        )
    return text


def _plural(status: str, count: int) -> str:
    return {"holds": "hold", "fails": "fail"}.get(status, status) if count != 1 else status


def _one_line(text: str) -> str:
    return " ".join(text.split())


# -- one small axis an estimate ----------------------------------------------------------------------------------------

_MARGIN = 2.0  # per cent of the drawing left free on either side of the axis


@dataclass(frozen=True)
class Axis:
    """Where an estimate, its interval and its rule lie on a horizontal axis; positions in per cent of the width.

    Attributes:
        low, high: the ends of the axis in the estimate's unit.
        bands: (start, width) of the stretches where the rule is met.
        bounds: (position, label, text anchor) of the rule's finite ends.
        ticks: (position, label).
        point: position of the estimate, or None when it is not finite.
        bar: (start, end) of the interval, or None when there is none to draw.
        arrows: whether the interval goes on beyond the left and the right end.
    """

    low: float
    high: float
    bands: tuple[tuple[float, float], ...]
    bounds: tuple[tuple[float, str, str], ...]
    ticks: tuple[tuple[float, str], ...]
    point: float | None
    bar: tuple[float, float] | None
    arrows: tuple[bool, bool]


def axis(part: Part) -> Axis:
    """Lay out the axis of one estimate.

    The axis holds the estimate, the rule's finite ends and as much of the interval as leaves those apart: an
    interval more than twelve times wider than they are is cut and ends in an arrow.
    """
    ends = sorted({end for stretch in part.region or () for end in stretch if math.isfinite(end)})
    anchors = [*ends, *([part.value] if math.isfinite(part.value) else [])]
    if not anchors:
        anchors = [x for x in (part.low, part.high) if math.isfinite(x)] or [0.0]
    magnitude = max(abs(x) for x in anchors)
    core = max(max(anchors) - min(anchors), 0.05 * magnitude) or 1.0
    left, right = min(anchors) - 12 * core, max(anchors) + 12 * core
    finite = [x for x in (part.low, part.high) if math.isfinite(x)]
    low = min([*anchors, *(max(x, left) for x in finite)])
    high = max([*anchors, *(min(x, right) for x in finite)])
    spread = (high - low) or core
    cut = [not math.isnan(part.low) and part.low < left, not math.isnan(part.high) and part.high > right]
    low, high = low - 0.12 * spread, high + 0.12 * spread

    def x(value: float) -> float:
        inside = (min(max(value, low), high) - low) / (high - low)
        return round(_MARGIN + inside * (100 - 2 * _MARGIN), 2)

    def edge(value: float) -> float:
        return x(value) if math.isfinite(value) else 0.0 if value < 0 else 100.0

    bands = [(edge(a), round(edge(b) - edge(a), 2)) for a, b in part.region or ()]
    bar = None
    if part.n is not None and not (math.isnan(part.low) or math.isnan(part.high)):
        bar = (x(-math.inf if cut[0] else part.low), x(math.inf if cut[1] else part.high))
    return Axis(
        low=low,
        high=high,
        bands=tuple(bands),
        bounds=_bound_labels([(x(end), number(end)) for end in ends]),
        ticks=tuple((x(tick), number(tick)) for tick in _ticks(low, high)),
        point=x(part.value) if math.isfinite(part.value) else None,
        bar=bar,
        arrows=(bar is not None and cut[0], bar is not None and cut[1]),
    )


def _bound_labels(bounds: list[tuple[float, str]]) -> tuple[tuple[float, str, str], ...]:
    """Labels that touch neither the drawing's edge nor each other: two near ones lean away from one another."""
    placed = []
    for index, (position, label) in enumerate(bounds):
        anchor = "start" if position < 10 else "end" if position > 90 else "middle"
        if len(bounds) == 2 and abs(bounds[0][0] - bounds[1][0]) < 25:
            anchor = "end" if (index == 0) != (bounds[0][0] < 15) else "start"
            if bounds[0][0] < 15 or bounds[1][0] > 85:  # no room to lean: one label for both
                anchor = "start" if bounds[0][0] < 15 else "end"
                shown = index == (0 if anchor == "start" else 1)
                label = f"{bounds[0][1]} to {bounds[1][1]}" if shown else ""
        placed.append((position, label, anchor))
    return tuple(placed)


def _ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    step = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    ticks = [float(tick) for tick in step if low <= tick <= high]
    return [0.0 if abs(tick) < 1e-9 * (high - low) else tick for tick in ticks]


# -- figures -----------------------------------------------------------------------------------------------------------

# matplotlib draws in these stand-in colours; they are exchanged for CSS variables, so that one drawing serves light
# and dark. Black and white are exchanged too: a study that asks for black wants ink.
_PALETTE_LIGHT = ("#27598c", "#b8502a", "#2f7a4d", "#84499a", "#8f6b00", "#24808a", "#ad3768", "#66625c")
_PALETTE_DARK = ("#8ab8e6", "#f0a27f", "#86cda0", "#cfa3df", "#dcb95a", "#78cbd4", "#ee9bbd", "#b5b1aa")
_CYCLE = tuple(f"#fe01{index:02x}" for index in range(len(_PALETTE_LIGHT)))
_COLOURS = {
    "#fe0020": "var(--ink)",
    "#fe0021": "var(--muted)",
    "#fe0022": "var(--rule)",
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
} | {stand_in: f"var(--c{index})" for index, stand_in in enumerate(_CYCLE)}
_LIGHT = {"paper": "#fffefb", "ink": "#1d1c1a", "muted": "#605c55", "rule": "#e3dfd6"}
_DARK = {"paper": "#17181b", "ink": "#e9e6e0", "muted": "#a8a49c", "rule": "#34353a"}
_SIZES = {"wide": (6.5, 3.7), "narrow": (3.7, 3.2)}


def _variables(colours: Mapping[str, str], palette: Sequence[str]) -> str:
    pairs = [*colours.items(), *((f"c{index}", colour) for index, colour in enumerate(palette))]
    return " ".join(f"--{name}: {value};" for name, value in pairs)


@contextlib.contextmanager
def _style() -> Iterator[None]:
    import matplotlib
    from cycler import cycler

    ink, muted, rule = "#fe0020", "#fe0021", "#fe0022"
    settings: Any = {
        "font.family": ["DejaVu Sans"],
        "font.size": 8.5,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.titlepad": 9,
        "axes.labelsize": 8.5,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.titlecolor": ink,
        "axes.edgecolor": muted,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.prop_cycle": cycler(color=_CYCLE),
        "grid.color": rule,
        "grid.linewidth": 0.6,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "lines.linewidth": 1.6,
        "lines.markersize": 4,
        "patch.edgecolor": ink,
        "hatch.color": muted,
        "boxplot.boxprops.color": ink,
        "boxplot.whiskerprops.color": ink,
        "boxplot.capprops.color": ink,
        "boxplot.medianprops.color": _CYCLE[1],
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "svg.fonttype": "path",
        "svg.hashsalt": "etude",
    }
    with matplotlib.rc_context(settings):
        yield


def figure_svg(draw: Any, evidence: Evidence[Any], *, size: str = "wide", prefix: str = "") -> str:
    """Draw one figure of a study as SVG whose colours follow the page's light or dark theme.

    Args:
        draw: the study's function of (evidence, axes).
        evidence: what it draws.
        size: `wide` or `narrow` (for telephones).
        prefix: put before every id, to tell several figures on one page apart; empty makes the drawing stand alone,
            with its own colours for light and dark and its own background.

    Raises:
        Exception: whatever the drawing function raises.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with _style():
        figure = Figure(figsize=_SIZES[size], layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(evidence, axes)
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=empty)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda found: _COLOURS.get(found[0], found[0]), svg)
    # The sizes in points would override the page's; the viewBox keeps the proportions.
    opening, body = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', opening)
    box = view[0] if view else ""
    if prefix:
        body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
        body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body).replace("url(#", f"url(#{prefix}-")
        body = body.replace("xlink:href", "href")
        return f'<svg {box} fill="currentColor" aria-hidden="true" focusable="false">{body}'
    css = (
        f":root {{ {_variables(_LIGHT, _PALETTE_LIGHT)} background: var(--paper); color: var(--ink); }} "
        f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(_DARK, _PALETTE_DARK)} }} }}"
    )
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    label = escape(figure_caption(draw))
    head = f'<svg {names} {box} role="img" aria-label="{label}" fill="currentColor">\n <style>{css}</style>'
    return f"{head}{body}"


def figure_caption(draw: Any) -> str:
    """A figure's docstring on one line, else its name as words."""
    return _one_line(inspect.getdoc(draw) or "") or title(draw.__name__)


def _figures(study: Study[Any], evidence: Evidence[Any]) -> list[dict[str, Any]]:
    figures = []
    for index, draw in enumerate(study.figures):
        entry: dict[str, Any] = {"caption": figure_caption(draw), "drawings": {}, "error": ""}
        try:
            for size in _SIZES:
                drawing = figure_svg(draw, evidence, size=size, prefix=f"figure-{index + 1}-{size}")
                entry["drawings"][size] = Markup(drawing)
        except Exception as error:  # a figure that cannot be drawn must not cost the reader the verdicts
            entry["error"] = str(error) or type(error).__name__
        figures.append(entry)
    return figures


# -- the HTML report ---------------------------------------------------------------------------------------------------


class Page(str):
    """An HTML page that shows itself in a notebook, in a frame so that neither styles the other."""

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(str(self))}" title="Report" style="width:100%;height:48rem;border:0"></iframe>'


class Verdicts(list["Verdict"]):
    """Verdicts that show themselves: cards in a notebook, one line each elsewhere."""

    def __init__(
        self,
        verdicts: Iterable[Verdict] = (),
        study: Study[Any] | None = None,
        evidence: Evidence[Any] | None = None,
    ) -> None:
        super().__init__(verdicts)
        self.study = study
        self.evidence = evidence

    @property
    def smoke(self) -> bool:
        """Whether the verdicts are a smoke run's, which mean nothing."""
        return self.evidence is not None and is_smoke(self.evidence)

    def __repr__(self) -> str:
        lines = []
        for verdict in self:
            judged = [f"{estimate_text(part)}, rule: {rule_text(part)}" for part in verdict.estimates if part.relation]
            words = SMOKE if self.smoke else f"{SYMBOLS[verdict.status]} {verdict.status}"
            lines.append(f"{words:<12} {verdict.claim}  {'; '.join(judged) or verdict.why}".rstrip())
        return "\n".join(lines) or "no verdicts"

    def _repr_html_(self) -> str:
        return verdicts_html(self, self.study, smoke=self.smoke)


def verdicts_html(verdicts: Iterable[Verdict], study: Study[Any] | None = None, *, smoke: bool = False) -> str:
    """The verdicts as an HTML fragment with its own style, for a notebook.

    Args:
        verdicts: what to show.
        study: whose claims they are; with it the statements and the paper's values are shown.
        smoke: whether the evidence is a smoke run's, whose verdicts mean nothing.
    """
    cards = [_card(study, verdict, smoke) for verdict in verdicts]
    return _template().render(fragment=True, cards=cards, smoke=smoke, **_constants())


def render(study: Study[Any], evidence: Evidence[Any], verdicts: Sequence[Verdict]) -> Page:
    """The whole report as one HTML page that loads nothing from elsewhere.

    Args:
        study: its docstring, paper, claims and figures.
        evidence: what was measured.
        verdicts: what the study's claims came to.

    Returns:
        The page; it shows itself in a notebook.
    """
    preset, changed = changed_fields(study, evidence)
    text = _template().render(
        fragment=False,
        study=study,
        evidence=evidence,
        smoke=is_smoke(evidence),
        question=_paragraphs(study.doc)[:1],
        paragraphs=_paragraphs(study.doc)[1:],
        cards=[_card(study, verdict, is_smoke(evidence)) for verdict in verdicts],
        counts=[(status, count, _plural(status, count)) for status, count in summary(verdicts).items()],
        figures=_figures(study, evidence),
        preset=preset,
        changed=changed,
        configuration=_configuration(evidence.config, changed),
        measurements=_measurements(study, evidence),
        deviations=[(title(claim.name), claim.deviation) for claim in study.claims.values() if claim.deviation],
        environment=_flat(evidence.environment),
        minutes=_minutes(sum(trial.seconds for trial in evidence.trials)),
        minutes_now=_minutes(sum(trial.seconds for trial in evidence.trials if not trial.reused)),
        command=command(study, evidence),
        **_constants(),
    )
    return Page(text.lstrip())


def write(study: Study[Any], evidence: Evidence[Any], verdicts: Sequence[Verdict], path: Path | str) -> Path:
    """Render the report into a file, which is there whole or not at all.

    Returns:
        The file's absolute path.
    """
    return write_atomically(Path(path), render(study, evidence, verdicts))


def write_atomically(path: Path, text: str) -> Path:
    """Write a text file so that a reader sees the old one or the whole new one, making its folder if need be."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o644)  # mkstemp's own mode would hide a report from a web server or a colleague
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["inline"] = _inline
    source = resources.files("etude.study").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source)


def _constants() -> dict[str, Any]:
    return {
        "symbols": SYMBOLS,
        "meanings": MEANINGS,
        "smoke_words": SMOKE,
        "light": Markup(_variables(_LIGHT, _PALETTE_LIGHT)),
        "dark": Markup(_variables(_DARK, _PALETTE_DARK)),
    }


def _card(study: Study[Any] | None, verdict: Verdict, smoke: bool) -> dict[str, Any]:
    claim = study.claims[verdict.claim] if study is not None else None
    return {
        "id": verdict.claim,
        "title": title(verdict.claim),
        "verdict": verdict,
        "statement": _one_line(claim.statement) if claim else "",
        "reported": claim.reported if claim else "",
        "composite": _judged(verdict) > 1,
        "why": "" if smoke and verdict.estimates else reason(verdict),
        "deviation": claim.deviation if claim else "",
        "parts": [
            {
                "part": part,
                "estimate": estimate_text(part),
                "label": label_text(part),
                "rule": rule_text(part),
                "basis": basis_text(part),
                # One number with no interval and no rule says nothing more on an axis.
                "axis": axis(part) if part.n is not None or part.region is not None else None,
                "words": _axis_words(part),
            }
            for part in verdict.estimates
        ],
    }


def _axis_words(part: Part) -> str:
    words = f"{label_text(part) + ': ' if part.label else ''}estimate {number(part.value)}"
    if part.n is not None:
        words += f", interval {number(part.low)} to {number(part.high)}"
    if part.relation:
        words += f"; rule: {rule_text(part)}"
    return words


def _inline(text: str) -> Markup:
    """Escape text and set what stands between double or single backticks as code."""
    return Markup(re.sub(r"(`{1,2})([^`]+)\1", r"<code>\2</code>", str(escape(text))))


def _paragraphs(doc: str | None) -> list[dict[str, Any]]:
    """A docstring's paragraphs; one whose lines are indented or itemised keeps its lines."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(doc or "").strip())
    return [
        {"text": block, "lines": bool(re.search(r"^(\s+\S|[-*] |\d+\. )", block, re.MULTILINE))}
        for block in blocks
        if block.strip()
    ]


def _configuration(config: Any, changed: Mapping[str, Any]) -> list[dict[str, Any]]:
    fields = type(config).model_fields
    return [
        {
            "name": name,
            "value": _value(getattr(config, name)),
            "help": _one_line(field.description or ""),
            "changed": name in changed,
            "preset": _value(changed[name]) if name in changed else "",
        }
        for name, field in fields.items()
    ]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_value, value))
    return "none" if value is None else str(value)


def _measurements(study: Study[Any], evidence: Evidence[Any]) -> list[dict[str, Any]]:
    rows = []
    for name in study.measurements:
        trials = [trial for trial in evidence.trials if trial.measurement == name]
        failures = [failure for failure in evidence.failures if failure.measurement == name]
        rows.append(
            {
                "name": name,
                "planned": evidence.planned.get(name, 0),
                "run": sum(not trial.reused for trial in trials),
                "reused": sum(trial.reused for trial in trials),
                "checked": sum(trial.spot_checked for trial in trials),
                "failed": len(failures),
                "seeds": len({trial.seed for trial in trials}),
                "minutes": _minutes(sum(trial.seconds for trial in trials)),
                "failures": [
                    {"where": _where(failure.cell, failure.seed), "error": failure.error, "log": failure.log}
                    for failure in failures
                ],
                "unavailable": evidence.unavailable.get(name, ""),
            }
        )
    return rows


def _where(cell: Mapping[str, Any], seed: int) -> str:
    return ", ".join([*(f"{name} = {_value(value)}" for name, value in cell.items()), f"seed {seed}"])


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 or not seconds else f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min"


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in mapping.items():
        label = f"{prefix}{name}".replace("_", " ")
        rows += _flat(value, f"{label} ") if isinstance(value, Mapping) else [(label, _value(value))]
    return rows
