"""Plots as SVG whose colours are the page's: light and dark, told apart without colour. The only file with matplotlib.

Real is filled or solid, generated dashed and marked, so that a black and white print says the same.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from typing import Any

import numpy as np

from flawsmith.evaluation.metrics.spectrum import WAVELENGTHS
from flawsmith.report.measures import Measured
from flawsmith.report.metrics import PLOTTED, Judged, Row

# Colours that stand for the page's variables: matplotlib wants colours, a page with a dark side names.
INK, FAINT, REAL, MADE = "#010203", "#040506", "#070809", "#0a0b0c"
NAMES = {INK: "var(--ink)", FAINT: "var(--line)", REAL: "var(--real)", MADE: "var(--made)"}
MISSING = "Plots need matplotlib: pip install 'flawsmith[report]', then make the report again."


@dataclass(frozen=True)
class Plot:
    """An SVG, the sentence that says what it shows, and the same for those who do not see it."""

    svg: str
    title: str
    told: str

    @property
    def named(self) -> str:
        """The SVG as one image with a name, for those who hear the page."""
        return self.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(f"{self.title}. {self.told}")}" ', 1)


def available() -> bool:
    return find_spec("matplotlib") is not None


def _drawn(draw: Callable[[Any, Any], None], size: tuple[float, float], name: str) -> str:
    """An inline SVG of `size` inches. The same data give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "font.family": "sans-serif"}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "hatch.linewidth": 0.6}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK)
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.set_facecolor("none")
        draw(figure, axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would hold for the whole page
    for colour, variable in NAMES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?)px[^;\"]*", r"font: \1px var(--font)", text)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)  # several stand in one page


def distributions(name: str, made: Sequence[Measured], real: Sequence[Measured]) -> list[Plot]:
    """Size, contrast, spectrum and place of defects, real against generated; of generated alone where none is real."""
    plots = [
        _histogram(f"{name}-size", "Size", "area of the label, % of the image", _areas(made), _areas(real), log=True),
        _histogram(
            f"{name}-contrast",
            "Contrast",
            "grey of the defect less its surroundings",
            [one.contrast for one in made],
            [one.contrast for one in real],
        ),
        _spectrum(f"{name}-spectrum", made, real),
    ]
    places = [np.mean([one.place for one in side], axis=0) if side else np.zeros((1, 1)) for side in (made, real)]
    top = 100 * max(float(place.max()) for place in places)  # one scale for both
    plots.append(_places(f"{name}-made", "Place, generated", places[0], len(made), top))
    return [*plots, _places(f"{name}-real", "Place, real", places[1], len(real), top)] if real else plots


def _areas(side: Sequence[Measured]) -> list[float]:
    return [one.area for one in side]


def _histogram(
    name: str, title: str, label: str, made: Sequence[float], real: Sequence[float], log: bool = False
) -> Plot:
    sides = [np.array([value for value in side if np.isfinite(value)]) for side in (real, made)]
    both = np.concatenate(sides) if sum(map(len, sides)) else np.array([1.0])
    low, high = float(both.min()), float(both.max())
    if log:
        low = max(low, 1e-6)
        bins = np.geomspace(low / 1.2, max(high, low * 1.01) * 1.2, 21)
    else:
        bins = np.linspace(low - 1, high + 1, 21)

    def draw(_: Any, axes: Any) -> None:
        shares = [np.histogram(side, bins)[0] / max(1, len(side)) for side in sides]
        axes.stairs(shares[0], bins, fill=True, color=REAL, alpha=0.35, label=f"real ({len(sides[0])})")
        axes.stairs(shares[0], bins, color=REAL, linewidth=1.2)
        axes.stairs(shares[1], bins, color=MADE, linewidth=1.8, linestyle="--", label=f"generated ({len(sides[1])})")
        axes.set(xlabel=label, ylabel="share of defects", xscale="log" if log else "linear")
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)

    return Plot(_drawn(draw, (4.4, 2.9), name), title, _medians(label, sides[1], sides[0]))


def _medians(label: str, made: np.ndarray, real: np.ndarray) -> str:
    parts = [
        f"{side} median {np.median(values):.3g} (middle half {np.percentile(values, 25):.3g} to "
        f"{np.percentile(values, 75):.3g}, {len(values)} defects)"
        for side, values in (("real", real), ("generated", made))
        if len(values)
    ]
    return f"{label[:1].upper()}{label[1:]}: {'; '.join(parts)}."


def _spectrum(name: str, made: Sequence[Measured], real: Sequence[Measured]) -> Plot:
    centres = np.sqrt(np.array(WAVELENGTHS[:-1]) * np.array(WAVELENGTHS[1:]))
    sides = [np.array([one.spectrum for one in side]).reshape(-1, len(centres)) for side in (real, made)]
    quarters = [
        [_percentile(side, share) if len(side) else np.full(len(centres), np.nan) for share in (25, 50, 75)]
        for side in sides
    ]

    def draw(_: Any, axes: Any) -> None:
        looks = ((REAL, "-", "o", None, "real"), (MADE, "--", "s", "///", "generated"))
        for rows, (colour, line, mark, hatch, said), side in zip(quarters, looks, sides, strict=True):
            if not len(side):
                continue
            face = {"facecolor": "none", "edgecolor": colour, "hatch": hatch} if hatch else {"color": colour}
            axes.fill_between(centres, rows[0], rows[2], alpha=0.28, linewidth=0, **face)
            axes.plot(centres, rows[1], line, color=colour, marker=mark, markersize=4, label=said)
        axes.set(xlabel="wavelength, px", ylabel="power, dB", xscale="log")
        axes.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
        axes.minorticks_off()
        axes.grid(color=FAINT, linewidth=0.6)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)

    told = "Power of the grain in the square around the defect, by wavelength: medians, and bands of the middle half."
    if all(map(len, sides)):
        gap = float(np.nanmean(np.abs(quarters[0][1] - quarters[1][1])))
        told += f" The medians differ by {gap:.1f} dB in the mean."
    return Plot(_drawn(draw, (4.4, 2.9), name), "Spectrum", told)


def _percentile(rows: np.ndarray, share: float) -> np.ndarray:
    """Over rows (N, B), nan where a band is known to none."""
    known = np.isfinite(rows)
    return np.array([np.percentile(r[k], share) if k.any() else np.nan for r, k in zip(rows.T, known.T, strict=True)])


def _places(name: str, title: str, share: np.ndarray, count: int, top: float) -> Plot:
    def draw(figure: Any, axes: Any) -> None:
        drawn = axes.imshow(
            100 * share, cmap="cividis", vmin=0, vmax=max(top, 1e-3), interpolation="nearest", aspect="equal"
        )
        axes.set(xticks=[], yticks=[])
        bar = figure.colorbar(drawn, ax=axes, shrink=0.85, label="% of defects that lie here")
        bar.outline.set_visible(False)

    total, where = float(share.sum()), ""
    if total > 0:
        down, across = (
            float((axis * share).sum()) / total / max(1, length - 1)
            for axis, length in zip(np.indices(share.shape), share.shape, strict=True)
        )
        where = f" Their mean lies {100 * across:.0f} % across and {100 * down:.0f} % down the image."
    return Plot(_drawn(draw, (3.4, 2.9), name), title, f"Where the labels lie in the image, {count} defects.{where}")


def arms(name: str, judged: Judged) -> list[Plot]:
    """For each headline key a dot per arm with its 95 % interval over seeds, best at the top."""
    return [
        _arms(f"{name}-{number}", key, rows)
        for number, (key, rows) in enumerate(list(judged.headlines().items())[:PLOTTED])
    ]


def _arms(name: str, key: str, rows: Sequence[Row]) -> Plot:
    less = rows[0].better == "less"
    ordered = sorted(rows, key=lambda row: row.value or 0.0, reverse=less)

    def draw(_: Any, axes: Any) -> None:
        for place, row in enumerate(ordered):
            if row.low is not None:
                axes.plot([row.low, row.high], [place, place], color=MADE, linewidth=2, solid_capstyle="butt")
            axes.plot([row.value], [place], "o", color=MADE, markersize=6)
        axes.set_yticks(range(len(ordered)), [row.arm or "the folder" for row in ordered])
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        better = f"\n({rows[0].better} is better)" if rows[0].better else ""
        axes.set_xlabel(f"{key}{better}", loc="right")  # a long name has room on the left
        axes.grid(axis="x", color=FAINT, linewidth=0.6)

    best = ordered[-1]
    several = any(row.low is not None for row in ordered)
    told = f"{len(ordered)} arms; the best mean is {best.arm or 'the folder'} with {best.value:.4g}."
    told += " Bars: 95 % interval over seeds." if several else " One seed, so no interval."
    return Plot(_drawn(draw, (7.2, 0.9 + 0.3 * len(ordered)), name), key, told)
