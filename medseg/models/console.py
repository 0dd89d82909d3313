"""The shelf on a terminal: a table of models, one card."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medseg.models.card import ModelCard
from medseg.models.store import list_models, load_model, shelves
from medseg.models.versions import Version, own_shelf, promote, register, roll_back, versions_of


def print_models(*, as_json: bool) -> int:
    """Print all installed models; returns the exit code."""
    _warn_of_missing()
    cards = list_models()
    if as_json:
        print(json.dumps([card.model_dump(mode="json") for card in cards], indent=2))
        return 0
    table = Table("model", "version", "organs", "field", "mean Dice", title="Installed models")
    for card in cards:
        organs = "; ".join(label.title.lower() for label in card.label_table)
        table.add_row(*map(escape, (card.name, card.version, organs, card.field_of_view, _mean_dice(card))))
    Console().print(table)
    return 0


def _warn_of_missing() -> None:
    """A shelf that is not there is no error, because it may be yet to come; or it is misspelt."""
    console = Console(stderr=True, soft_wrap=True)
    for shelf in shelves()[:-1]:  # the last one ships with medseg
        if not shelf.is_dir():
            said = f"$MEDSEG_MODELS names {shelf}, and there is no such folder."
            console.print(f"[yellow]Warning:[/yellow] {escape(said)}", highlight=False)


def print_card(name: str, *, as_json: bool) -> int:
    """Print the card of one model, with its hashes checked; returns the exit code."""
    card = load_model(name).card
    if as_json:
        print(card.model_dump_json(indent=2))
        return 0
    console = Console()
    console.print(f"[bold]{escape(card.title)}[/bold]  {escape(card.id)}\n{escape(card.description)}\n")
    facts = f"Field: {card.field_of_view}\nIntended use: {card.intended_use}\nLicence: {card.licence}\n"
    console.print(facts, markup=False)
    console.print("Limits:\n" + "\n".join(f"  - {limit}" for limit in card.limits), markup=False)
    if card.metrics:
        console.print(_scores(card))
    return 0


def change_versions(what: str, model: str, shelf: Path | None) -> list[Version]:
    """Register, promote or roll back, and show what stands on the shelf then; returns the versions of that name."""
    place = own_shelf(shelf)
    act = {"register": lambda: register(Path(model), place), "promote": lambda: promote(model, place)}
    done = act[what]() if what in act else roll_back(model, place)
    name = done.id.split("@")[0]
    found = versions_of(name, place)
    for version in found:
        print(f"{'*' if version.current else ' '} {version.id}  {version.folder}")
    meant = "the one with the star" if any(version.current for version in found) else "none of these, as before,"
    print(f"`--model {name}` means {meant} where $MEDSEG_MODELS names {place}.")
    return found


def _mean_dice(card: ModelCard) -> str:
    value = card.metrics.get("mean_dice")
    return _score(value) if value is not None else "no references"


def _scores(card: ModelCard) -> Table:
    title = escape(str(card.metrics.get("data", "")))
    table = Table("organ", "cases", "Dice", "surface Dice", "misses", title=title)
    for organ, row in card.metrics.get("organs", {}).items():
        table.add_row(
            escape(organ), str(row["n"]), _score(row["dice"]), _score(row["surface_dice"]), str(row["misses"])
        )
    return table


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
