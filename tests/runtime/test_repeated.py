"""Options of several values may be given in several places: nothing that was said is dropped."""

from __future__ import annotations

from medseg.commands.measuring import evaluate
from medseg.commands.models import import_model
from medseg.commands.training import train
from medseg.runtime.repeated import several, together


def test_which_options_take_several_values() -> None:
    assert several(train) == {"--set"}
    assert several(evaluate) == {"--organs", "--within-contoured", "--against", "--seeds"}
    assert several(import_model) == {"--folds"}  # the files are no option


def test_what_was_given_in_several_places_is_put_together() -> None:
    said = ["train", "smoke", "--set", "a=1", "b=-2", "-o", "RUN", "--set", "c=3", "--resume", "--set=d={x: 1}"]
    wanted = ["train", "smoke", "--set", "a=1", "b=-2", "c=3", "d={x: 1}", "-o", "RUN", "--resume"]
    assert together(said, {"--set"}) == wanted


def test_the_rest_stays_as_it_was() -> None:
    said = ["x", "--one", "1", "--one", "2", "--flag", "--", "-y"]
    assert together(said, {"--set"}) == said
    assert together([], {"--set"}) == []
