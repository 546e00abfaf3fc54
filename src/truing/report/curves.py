"""Pictures as inline SVG: training curves and intervals of win rates. Colours follow the page, light or dark."""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from truing.errors import redacted, visible
from truing.evaluate.intervals import FEWEST, student
from truing.records import Finding
from truing.report import figures
from truing.report.distance import Way
from truing.report.words import label

# Stand-ins that matplotlib draws with and that become the page's own colours afterwards.
_INK, _MUTED, _GRID, _LINE, _BETTER, _WORSE = "#010201", "#010202", "#010203", "#010204", "#010205", "#010206"
_WARN = "#010207"
_PAGE = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _GRID: "var(--rule)",
    _LINE: "var(--line)",
    _BETTER: "var(--good)",
    _WORSE: "var(--bad)",
    _WARN: "var(--warn)",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "truing",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.5,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_EACH = ((_LINE, "o"), (_WORSE, "s"), (_BETTER, "^"), (_WARN, "D"), (_MUTED, "v"), (_INK, "P"))  # of several curves
_POINTS = 600  # drawn per curve; more than a screen can tell apart
_BOOKKEEPING = figures.BOOKKEEPING | {"grad_norm", "epoch", "tokens_per_second"}
_TELLING = (
    "reward", "mean_reward", "gold", "held_out_accuracy", "accuracy", "kl", "kl_to_reference", "margin_nats", "margin",
    "sampled_entropy", "held_out_loss", "chosen_log_ratio", "mean_length",
)  # fmt: skip


def choose(metrics: Sequence[Mapping[str, float]], most: int = 4) -> list[str]:
    """The metrics worth a curve: the loss first, then what the method is judged by, then others; `most` in all.

    >>> choose([{"step": 1, "loss": 0.7, "grad_norm": 1.0, "zeta": 2.0, "accuracy": 0.5}])
    ['loss', 'accuracy', 'zeta']
    """
    names = dict.fromkeys(name for row in metrics for name in row)
    first = [name for name in ("loss", *_TELLING) if name in names]
    return [*first, *(name for name in names if name not in first and name not in _BOOKKEEPING)][:most]


def curve(metrics: Sequence[Mapping[str, float]], name: str, end: float | None = None, spread: str = "") -> str:
    """One metric over the steps as SVG: what was measured drawn faintly, a light smoothing of it on top. `end` is the
    figure that stands for where it ended, which the last step alone is not; `spread` the metric that says how far
    single ones lie around it, drawn as a band."""
    rows = [(row.get("step", i + 1), row[name]) for i, row in enumerate(metrics) if name in row]
    points = np.array([p for p in rows if np.isfinite(p).all()], dtype=np.float64)
    if not len(points):
        return ""
    steps, raw = points[:, 0], points[:, 1]
    smooth = smoothed(raw)
    keep = np.unique(np.linspace(0, len(raw) - 1, min(len(raw), _POINTS)).round().astype(int))

    band = _around(metrics, name, spread) if len(raw) >= 3 else None

    def draw(axes: Any) -> None:
        if band is not None:
            axes.fill_between(steps[keep], (smooth - band)[keep], (smooth + band)[keep], color=_LINE, alpha=0.15, lw=0)
        if len(raw) < 3:
            axes.plot(steps, raw, "o", color=_LINE, markersize=3)
        elif len(raw) >= 20:
            axes.plot(steps[keep], raw[keep], color=_LINE, linewidth=0.8, alpha=0.3)
        if len(raw) >= 3:
            axes.plot(steps[keep], smooth[keep], color=_LINE, linewidth=1.5, solid_capstyle="round")
        axes.margins(x=0.02, y=0.1)
        axes.locator_params(axis="x", nbins=4, integer=True)
        axes.locator_params(axis="y", nbins=4)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("step")
        axes.tick_params(labelsize=9)
        axes.xaxis.label.set_size(9)

    ended = "" if end is None else f" to {end:.4g}"
    return _svg(draw, (2.75, 1.7), f"{label(name)} over {len(raw)} steps, from {raw[0]:.4g}{ended}")


def _around(metrics: Sequence[Mapping[str, float]], name: str, spread: str) -> NDArray[np.float64] | None:
    """The smoothed deviation of single values at each step that has the metric; None if a step lacks it."""
    deviations = [row.get(spread, np.nan) for row in metrics if name in row and np.isfinite(row[name])]
    around = np.array(deviations, dtype=np.float64)
    return smoothed(around) if len(around) and np.isfinite(around).all() else None


def smoothed(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred moving mean over about a tenth of the steps, over those that exist at both ends.

    >>> smoothed(np.array([1.0, 2.0, 3.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    half = len(raw) // 20
    total = np.concatenate([[0.0], np.cumsum(raw)])
    at = np.arange(len(raw))
    first, after = np.maximum(at - half, 0), np.minimum(at + half + 1, len(raw))
    return np.asarray((total[after] - total[first]) / (after - first))


def intervals(findings: Sequence[Finding], most: int = 24) -> str:
    """Win rates with their intervals, one line each, against the level of 50 %."""
    shown = list(findings)[:most]
    if not shown:
        return ""

    def draw(axes: Any) -> None:
        for i, f in enumerate(shown):
            low, high = f.interval or (f.value, f.value)
            colour = _BETTER if low > 0.5 else _WORSE if high < 0.5 else _MUTED
            axes.plot([100 * low, 100 * high], [i, i], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot([100 * f.value], [i], "o", color=colour, markersize=5.5)
            axes.annotate(
                f"{100 * f.value:.0f} %",
                (100 * f.value, i),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=7.5,
            )
        axes.axvline(50, color=_MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(shown)), [_name(f) for f in shown], color=_INK)
        axes.set_ylim(len(shown) - 0.5, -0.75)
        ends = [100 * x for f in shown for x in (f.interval or (f.value, f.value))]
        axes.set_xlim(min(25.0, *ends) - 3, max(75.0, *ends) + 3)
        axes.locator_params(axis="x", nbins=7)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0f} %")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    values = "; ".join(f"{_name(f)}: {100 * f.value:.0f} %" for f in shown)
    return _svg(draw, (6.4, 0.55 + 0.36 * len(shown)), f"win rates with 95 % intervals. {values}")


def over_distance(ways: Sequence[Way], truth: str) -> str:
    """Gold and proxy over the distance from the start, side by side: a point per evaluation with its 95 % interval, the
    fitted form dashed, a ring around the evaluation of highest gold. The first six curves are drawn."""
    shown = list(zip(ways, _EACH, strict=False))
    if not shown:
        return ""

    def draw(panels: Any) -> None:
        for way, (colour, marker) in shown:
            point = {"color": colour, "marker": marker, "markersize": 3.2, "linewidth": 0.7, "elinewidth": 0.6}
            values = ((way.gold, way.gold_error), (way.gained, way.proxy_error))
            for axes, (value, error) in zip(panels, values, strict=True):
                few = error is None or way.prompts < FEWEST
                bars = None if few else [student(0.0, e, way.prompts)[1] for e in error or ()]
                axes.errorbar(way.distance, value, bars, label=_short(way.name), alpha=0.75, **point)
            if way.line:
                panels[0].plot(*zip(*way.line, strict=True), color=colour, linewidth=1.5, linestyle=(0, (4, 2)))
            top = (way.distance[way.best], way.gold[way.best])
            panels[0].plot(*top, "o", markersize=9, markerfacecolor="none", markeredgecolor=colour)
        for axes, title in zip(panels, (_short(truth), "proxy above its start"), strict=True):
            axes.set_title(title, fontsize=9, loc="left", color=_INK)
            axes.set_xlabel("distance √KL, KL in nats")
            axes.locator_params(nbins=5)
            axes.grid(axis="x", visible=False)
        panels[1].legend(frameon=False, fontsize=8, handlelength=1.2)

    courses = "; ".join(
        f"{way.name}: {truth} {way.word}, from {way.gold[0]:.3g} to {way.gold[-1]:.3g}" for way, _ in shown
    )
    return _svg(draw, (6.8, 2.9), f"{truth} and proxy over the square root of the KL. {courses}", panels=2)


def _name(f: Finding) -> str:
    text = f"{f.model} against {f.against}" if f.against else f.model
    return _short(text + (f" ({f.slice})" if f.slice != "all" else ""))


def _short(text: str) -> str:
    text = visible(redacted(text)).replace("\n", " ")
    return text if len(text) <= 44 else text[:43] + "…"


def _svg(draw: Any, inches: tuple[float, float], description: str, panels: int = 1) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots(1, panels))
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _inline(written.getvalue(), description)


def _inline(svg: str, description: str) -> str:
    """Cut matplotlib's file down to what a page may hold: no prologue, no outside names, ids of its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.S)
    for stand_in, colour in _PAGE.items():
        body = body.replace(stand_in, colour)
    box = re.search(r'viewBox="([\d. ]+)"', body)
    mark = _mark(body)
    body = re.sub(r'\bid="([\w.-]+)"', rf'id="{mark}-\1"', body)
    body = re.sub(r"url\(#([\w.-]+)\)", rf"url(#{mark}-\1)", body)
    body = re.sub(r'xlink:href="#([\w.-]+)"', rf'href="#{mark}-\1"', body)
    inner = body[body.index(">") + 1 :].strip()
    view = box[1] if box else "0 0 100 100"
    return f'<svg viewBox="{view}" role="img" aria-label="{_escaped(visible(redacted(description)))}">{inner}'


def _mark(body: str) -> str:
    return "s" + hashlib.sha256(body.encode("utf-8", "replace")).hexdigest()[:8]


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
