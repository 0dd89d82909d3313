"""The scorecard for the eye: a table in the terminal and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from medseg.evaluation.policy import Outcome
from medseg.imaging.emit import emit

if TYPE_CHECKING:
    from medseg.evaluation.arrays import OrganScore
    from medseg.evaluation.scorecard import Scorecard

FOUND, MISSED, INVENTED, WHOLE = "#1f6f8b", "#c0392b", "#e08e0b", "#555555"


def summary_table(card: Scorecard) -> Table:
    """A row per organ, the mean of organs last; everything that is not a plain score goes into the caption.

    The Dice in the whole scan has a column only where an organ is scored within its contoured slices.
    """
    table = Table(title=f"{len(card.cases)} cases", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.caption, table.caption_justify = _caption(card), "left"
    table.add_column("organ", min_width=13)
    scoped = any("plain" in figures for figures in card.summary["organs"].values())
    plain = ["plain\nDice"] if scoped else []
    for name in ("n", "Dice", "95 % CI", *plain, "surface\nDice", "HD95\nmm", "missed", "false\npos."):
        table.add_column(name, justify="right", no_wrap=True)  # numbers stay whole in 80 columns; names may wrap
    for organ, figures in card.summary["organs"].items():
        table.add_row(*_cells(organ, figures, scoped=scoped))
    table.add_section()
    table.add_row(*_cells("mean of organs", card.summary["overall"], scoped=scoped))
    return table


def _cells(name: str, figures: dict[str, Any], *, scoped: bool) -> list[str]:
    dice = figures["dice"]
    plain = _number(figures["plain"]["dice"]["mean"]) if "plain" in figures else ""
    interval = "–".join(f"{bound:.3f}" for bound in dice["ci95"]) if dice["ci95"] else ""
    return [
        name.replace("_", " "),
        str(figures["n"]),
        _number(dice["mean"]),
        interval,
        *([plain] if scoped else []),
        _number(figures["surface_dice"]["mean"]),
        _number(figures["hd95_mm"]["mean"], 1),
        str(figures["misses"]),
        str(figures["false_positives"]),
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _caption(card: Scorecard) -> str:
    lines = [f"Left-right swaps: {len(card.left_right_swapped)}"]
    lines[0] += f" ({', '.join(card.left_right_swapped)})" if card.left_right_swapped else ""
    lines.append(f"HD95 is the mean over found organs; 'missed' stands beside it. {_tolerance_line(card)}")
    scoped = [organ for organ in card.organs if organ in card.settings.within_contoured]
    if scoped:
        scope = card.settings.scope_of(scoped[0])
        lines.append(f"Scored within the {scope}: {', '.join(scoped)}; 'plain' is the Dice in the whole scan.")
    for title, names in (
        ("References without a prediction (counted as misses)", card.references_without_prediction),
        ("Predictions without a reference (not scored)", card.predictions_without_reference),
    ):
        if names:
            lines.append(f"{title}: {', '.join(names)}")
    return "\n".join([*lines, *card.notes])


def _tolerance_line(card: Scorecard) -> str:
    tolerances = sorted({card.settings.tolerance_of(organ) for organ in card.organs})
    return f"Surface Dice tolerance {', '.join(f'{mm:g}' for mm in tolerances)} mm."


def save_plot(card: Scorecard, path: Path) -> Path:
    """Box and strip plots of Dice and surface Dice, an organ to a line; misses and false positives at 0, marked."""
    figure = Figure(figsize=(11, 1.9 + 0.52 * len(card.organs)), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    for panel, name, title in zip(axes, ("dice", "surface_dice"), ("Dice", "Surface Dice"), strict=True):
        _panel(panel, card, name)
        panel.set_xlabel(title)
    axes[0].set_yticks(range(len(card.organs)), [_organ_line(card, organ) for organ in card.organs])
    axes[0].set_ylim(len(card.organs) - 0.45, -0.55)
    figure.suptitle(_title(card), fontsize=11)
    handles, names = _legend(axes)
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return emit(path, lambda temporary: figure.savefig(temporary, dpi=130, format="png"))


def _panel(axes: Axes, card: Scorecard, name: str) -> None:
    jitter = np.random.default_rng(0)
    for line, organ in enumerate(card.organs):
        rows = [row for row in card.rows if row.organ == organ]
        counted = [row for row in rows if card.settings.policy.in_mean(row.figures.outcome)]
        _box(axes, line, [getattr(row.figures, name) for row in counted])
        for outcome, marker, colour, label in _MARKS:
            chosen = [row for row in rows if row.figures.outcome is outcome]
            heights = line + jitter.uniform(-0.2, 0.2, len(chosen))
            _strip(axes, [getattr(row.figures, name) for row in chosen], heights, marker, colour, label)
        if organ in card.settings.within_contoured:
            _whole_scan_mean(axes, line, card, rows, name)
    axes.set_xlim(-0.04, 1.04)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


_MARKS = (
    (Outcome.SCORED, "o", FOUND, "a case"),
    (Outcome.MISS, "x", MISSED, "missed (0)"),
    (Outcome.FALSE_POSITIVE, "^", INVENTED, "false positive (0)"),
)


def _box(axes: Axes, line: int, values: Sequence[float]) -> None:
    if not values:
        return
    axes.boxplot(
        [values],
        positions=[line],
        orientation="horizontal",
        widths=0.6,
        showfliers=False,
        manage_ticks=False,
        medianprops={"color": "black"},
        boxprops={"color": "#888888"},
        whiskerprops={"color": "#888888"},
        capprops={"color": "#888888"},
    )
    axes.plot(np.mean(values), line, "D", color="black", markersize=4.5, label="mean", zorder=4, linestyle="none")


def _strip(axes: Axes, values: Sequence[float], heights: Any, marker: str, colour: str, label: str) -> None:
    if values:
        size = 13 if marker == "o" else 34
        axes.scatter(values, heights, s=size, marker=marker, color=colour, alpha=0.75, label=label, zorder=3)


def _whole_scan_mean(axes: Axes, line: int, card: Scorecard, rows: Sequence[OrganScore], name: str) -> None:
    values = [getattr(row.plain, name) for row in rows if card.settings.policy.in_mean(row.plain.outcome)]
    if values:
        label = "mean in the whole scan (plain)"
        mean = np.mean(values)
        axes.plot(mean, line, "D", mfc="none", mec=WHOLE, markersize=9, label=label, zorder=4, linestyle="none")


def _organ_line(card: Scorecard, organ: str) -> str:
    figures = card.summary["organs"][organ]
    counts = f"n {figures['n']}" + (f", missed {figures['misses']}" if figures["misses"] else "")
    scope = f"\n{figures['scope']}" if organ in card.settings.within_contoured else ""
    return f"{organ.replace('_', ' ')} ({counts}){scope}"


def _title(card: Scorecard) -> str:
    overall = card.summary["overall"]
    means = ", ".join(
        f"{title} {_number(overall[name]['mean']) or 'undefined'}"
        for name, title in (("dice", "Dice"), ("surface_dice", "surface Dice"))
    )
    swaps = f"left-right swaps {len(card.left_right_swapped)}"
    counts = f"{len(card.cases)} cases, mean of organs: {means}"
    return f"{counts}\nmisses {overall['misses']}, {swaps}. {_tolerance_line(card)}"


def _legend(axes: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    seen: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            seen.setdefault(label, handle)
    return list(seen.values()), list(seen)
