"""What all figures share: axes without global state, colours, labels from unit suffixes."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cmsim.errors import InputError, Problem
from cmsim.numbers import UNITS
from cmsim.reading import written
from cmsim.results import Result, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")
INK, MUTED, FAINT = "#22262b", "#6b7280", "#d5d9df"
#: told apart by people who do not see red and green alike (after Okabe and Ito, 2008)
SERIES = ("#0072b2", "#d55e00", "#009e73", "#a9458b", "#b8860b", "#56b4e9", "#6b4c9a", "#444b54")
LIMITER_COLOURS = {
    "compute": "#0072b2",
    "memory": "#56b4e9",
    "link": "#d55e00",
    "latency": "#f0a35e",
    "imbalance": "#b03a5b",
    "host": "#8c8c8c",
    "bubble": "#e3e5e8",
}
FONT = {"title": 12.0, "label": 10.0, "tick": 9.0, "note": 8.5}
_DPI = 160
#: axes whose ends are no farther apart have more ticks
_NARROW = 5.0


def plain(draw: Callable[P, T]) -> Callable[P, T]:
    """A figure whose texts are shown as they are: a name with dollars in it is no formula."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        from matplotlib import rc_context

        with rc_context({"text.parse_math": False}):
            return draw(*args, **kwargs)

    return drawn


def axes(ax: Axes | None, *, size: tuple[float, float] = (8.0, 4.5)) -> Axes:
    """The axes given, or those of a new figure; either way with our looks."""
    if ax is None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = _figure()(figsize=size, dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.add_subplot()
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)
    ax.tick_params(labelsize=FONT["tick"], colors=MUTED, color=FAINT)
    ax.set_axisbelow(True)
    return ax


def panels(size: tuple[float, float], heights: tuple[float, float], *, same_x: bool = True) -> tuple[Axes, Axes]:
    """Two axes of a new figure, one above the other, over the same x or each over its own, with our looks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure()(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = (axes(one) for one in figure.subplots(2, 1, sharex=same_x, height_ratios=heights))
    for one in (upper, lower):
        one.tick_params(which="minor", color=FAINT)
    return upper, lower


def row(size: tuple[float, float], count: int) -> list[Axes]:
    """Axes of a new figure side by side over the same y, with our looks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure()(figsize=size, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return [axes(one) for one in figure.subplots(1, count, sharey=True)]


@functools.lru_cache(maxsize=1)
def _figure() -> type[Figure]:
    """Figures that draw every text as it is."""
    from matplotlib.figure import Figure

    class Plain(Figure):
        def draw(self, renderer: Any) -> None:
            as_written(self)
            super().draw(renderer)

    return Plain


def as_written(figure: Figure) -> None:
    """Texts of a figure as they are written: names in files are no formulas, and have no characters that nobody sees.

    Powers of ten along an axis are formulas of ours.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    ours: set[int] = set()
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        ours.add(id(axis.offsetText))
        for ticks, formatter in (
            (axis.get_major_ticks(), axis.get_major_formatter()),
            (axis.get_minor_ticks(), axis.get_minor_formatter()),
        ):
            if isinstance(formatter, LogFormatter):
                ours.update(id(text) for tick in ticks for text in (tick.label1, tick.label2))
    for text in figure.findobj(Text):
        if id(text) not in ours:
            text.set_parse_math(False)
            text.set_text(seen(text.get_text()))


def seen(text: str) -> str:
    r"""Text without characters that no font draws.

    >>> seen("a\x1b[0m") == "a\ufffd[0m"
    True
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def head(ax: Axes, title: str, *, above: float = 0.0) -> None:
    """A title at the left, where reading starts, ``above`` what stands on the axes. [points]"""
    ax.set_title(title, loc="left", fontsize=FONT["title"], color=INK, pad=10 + above)


def label(axis: Any, text: str) -> None:
    axis.set_label_text(text, fontsize=FONT["label"], color=INK)


def words(name: str, unit: str | None = None) -> str:
    """An axis label from a column's or metric's name; ``unit`` where the values were scaled.

    >>> words("energy_per_token_J"), words("tokens_per_s"), words("power_avg_W", "kW"), words("mfu")
    ('energy per token [J]', 'tokens per second [1/s]', 'power avg [kW]', 'mfu')
    >>> words("tokens_per_s_per_accelerator")
    'tokens per second and accelerator [1/s]'
    >>> words("ttft_s_p99", "ms")
    'ttft p99 [ms]'
    """
    if part := re.fullmatch(r"(.+_\w+)_(p\d+|mean)", name):  # of a distribution
        stem, bracket, rest = words(part[1], unit).partition(" [")
        return f"{stem} {part[2]}{bracket}{rest}"
    if "_per_s_per_" in name:
        return f"{name.replace('_per_s_per_', ' per second and ').replace('_', ' ')} [{unit or '1/s'}]"
    if name.endswith("_per_s"):
        return f"{name.removesuffix('_s').replace('_', ' ')} second [{unit or '1/s'}]"
    stem, _, suffix = name.rpartition("_")
    if not stem or suffix not in UNITS:
        return name.replace("_", " ")
    return f"{stem.replace('_', ' ')} [{unit or UNITS[suffix]}]"


def round_steps(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers from just below ``low`` to just above ``high``: 1, 2, 5 or, where these are too many, fewer.

    >>> round_steps(0.3, 2.5)
    [0.2, 0.5, 1.0, 2.0, 5.0]
    >>> round_steps(0.3, 70)
    [0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
    """
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    found: list[float] = []
    for digits in ((1, 2, 5), (1, 3), (1,)):
        steps = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in digits]
        below = max(step for step in steps if step <= low)
        above = min(step for step in steps if step >= high)
        found = [step for step in steps if below <= step <= above]
        if len(found) <= most:
            break
    return found


def pick(results: Results | Iterable[Result], run: str | None) -> Result:
    """The run asked for, or the first."""
    found = list(results)
    if not found:
        raise InputError("there is no result to draw")
    if run is None:
        return found[0]
    return results[run] if isinstance(results, Results) else Results(found)[run]


def legend(ax: Axes, colours: Mapping[str, str], *, columns: int | None = None) -> None:
    """Coloured words in a line above the axes."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    above(ax, patches, columns or len(colours), handlelength=1.0, handleheight=1.0)


def above(ax: Axes, handles: Sequence[Any], columns: int, **look: Any) -> None:
    """A legend in lines above the axes, where no data can lie."""
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=FONT["note"],
        labelcolor=INK,
        columnspacing=1.4,
        borderaxespad=0.2,
        borderpad=0.1,
        **look,
    )


def halo(text: Any) -> None:
    """A white edge, so that text is read over lines."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def thousands(axis: Any) -> None:
    """Ticks whose thousands stand apart, without idle zeros."""
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def log_ticks(axis: Any, *, few: bool = False) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5, written out, at more where it spans little; ``few``: at powers of ten
    alone. Called when everything is drawn.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    more = (1.2, 1.5, 2.5, 3.0, 4.0, 6.0, 8.0) if high < _NARROW * low else ()
    subs = (1.0,) if few else sorted((1.0, 2.0, 5.0, *more))
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def short(name: str, most: int = 30) -> str:
    """A kernel's name as a label: of a C++ signature the function alone, and no longer than ``most`` characters.

    >>> short("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float> >(at::native::ReduceOp<float>)")
    'reduce_kernel'
    """
    own = re.split("[<(]", name.removeprefix("void "), maxsplit=1)[0].rpartition("::")[2].strip() or name
    return own if len(own) <= most else own[: most - 1] + "…"


def save(ax: Axes, path: str | Path) -> Path:
    """Write the axes' figure; equal figures give equal bytes. Raises InputError where it cannot be written."""
    path = Path(path)
    figure = ax.get_figure(root=True)
    assert figure is not None, "axes without a figure"
    suffix = path.suffix.lower().lstrip(".") or "png"
    if suffix not in figure.canvas.get_supported_filetypes():
        allowed = ", ".join(sorted(figure.canvas.get_supported_filetypes()))
        raise InputError(Problem(f"cannot draw '.{suffix}' files. Allowed: {allowed}.", str(path)))
    stamps: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    from matplotlib import rc_context

    # without a salt, identifiers in SVG files are drawn by lot
    as_written(figure)
    with written(path) as beside, rc_context({"svg.hashsalt": "cmsim"}):
        figure.savefig(beside, format=suffix, dpi=_DPI, facecolor="white", metadata=stamps.get(suffix))
    return path
