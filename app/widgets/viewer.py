"""The slice viewer: three planes through one point, organs in colour, drawn on the server."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import streamlit as st

from app.text import name_of, say
from medseg.results.pictures import AXIS, PLANES, WINDOWS, Colour, Look, Plane, Position, Scene, draw, to_png

Organs = Mapping[str, tuple[int, Colour]]
_SMALL, _LARGE = 560, 900


@st.fragment
def show_viewer(study: str, scene: Scene, organs: Organs, window: str) -> None:
    """Draw the viewer. Moving a slider redraws this part of the page alone.

    Args:
        study: id of the study; keeps the sliders of different studies apart.
        scene: the scan and its mask.
        organs: name -> (value in the mask, colour), those that were found.
        window: the window to open with, one of `WINDOWS`.
    """
    _start_at(study, scene)
    look, planes = _controls(study, scene, organs, window)
    columns = st.columns(len(planes))
    position = _position(study)
    for column, plane in zip(columns, planes, strict=True):
        with column:
            _show_plane(study, scene, plane, position, look)
    st.caption(say("viewer.convention"))


def _key(study: str, name: str) -> str:
    return f"viewer-{study}-{name}"


def _start_at(study: str, scene: Scene) -> None:
    """Open on the middle of what was found."""
    if _key(study, "position") not in st.session_state:
        _go_to(study, scene.start)


def _go_to(study: str, position: Position) -> None:
    st.session_state[_key(study, "position")] = position


def _position(study: str) -> Position:
    position: Position = st.session_state[_key(study, "position")]
    return position


def _controls(study: str, scene: Scene, organs: Organs, window: str) -> tuple[Look, tuple[Plane, ...]]:
    left, middle, right = st.columns([4, 3, 3], vertical_alignment="bottom")
    with left:
        window = _choose_window(study, window)
    with middle:
        planes = _choose_planes(study)
    with right:
        _jump(study, scene, organs)
    left, right = st.columns([7, 3])
    with left:
        shown = _choose_organs(study, organs)
    with right:
        opacity = st.slider(say("viewer.opacity"), 0, 100, 45, 5, format="%d%%", key=_key(study, "opacity"))
    colours = {organs[name][0]: organs[name][1] for name in shown}
    size = _SMALL if len(planes) > 1 else _LARGE
    return Look(WINDOWS[window], colours, opacity / 100, size, lines=len(planes) > 1), planes


def _choose_window(study: str, first: str) -> str:
    choice = st.segmented_control(
        say("viewer.window"),
        list(WINDOWS),
        default=first,
        required=True,
        format_func=lambda name: name_of("window", name),
        key=_key(study, "window"),
    )
    return str(choice)


def _choose_planes(study: str) -> tuple[Plane, ...]:
    choice = st.segmented_control(
        say("viewer.planes"),
        ["all", *PLANES],
        default="all",
        required=True,
        format_func=lambda name: say("viewer.all") if name == "all" else name_of("plane", name),
        key=_key(study, "planes"),
    )
    return tuple(plane for plane in PLANES if choice in ("all", plane))


def _choose_organs(study: str, organs: Organs) -> list[str]:
    chosen = st.pills(
        say("viewer.organs"),
        list(organs),
        selection_mode="multi",
        default=list(organs),
        format_func=lambda name: f"{_swatch(organs[name][1])} {name_of('organ', name)}",
        key=_key(study, "organs"),
    )
    return [str(name) for name in chosen or []]


def _swatch(colour: Colour) -> str:
    """A square of that colour as a Markdown picture, without a request."""
    fill = "#{:02x}{:02x}{:02x}".format(*colour)
    square = f'<rect width="8" height="8" rx="2" fill="{fill}"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">{square}</svg>'
    return f"![](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _jump(study: str, scene: Scene, organs: Organs) -> None:
    def go() -> None:
        name = st.session_state[_key(study, "jump")]
        if name is not None:
            _go_to(study, scene.middles[organs[name][0]])

    st.selectbox(
        say("viewer.jump"),
        list(organs),
        index=None,
        placeholder=say("viewer.jump.none"),
        format_func=lambda name: name_of("organ", name),
        key=_key(study, "jump"),
        on_change=go,
    )


def _show_plane(study: str, scene: Scene, plane: Plane, position: Position, look: Look) -> None:
    count, words = scene.shape[AXIS[plane]], name_of("plane", plane)
    alt = say("viewer.alt", plane=words, index=position[AXIS[plane]] + 1, count=count)
    st.image(to_png(draw(scene, plane, position, look)), width="stretch", output_format="PNG", alt=alt)
    # A slider needs two ends; a scan of one slice in this direction has nothing to move.
    if count > 1:
        _slider(study, plane, position, say("viewer.slice", plane=words, count=count), count)


def _slider(study: str, plane: Plane, position: Position, label: str, count: int) -> None:
    key, axis = _key(study, plane), AXIS[plane]

    def move() -> None:
        moved = list(_position(study))
        moved[axis] = int(st.session_state[key]) - 1
        _go_to(study, (moved[0], moved[1], moved[2]))

    # The position outlives the slider: Streamlit forgets the state of a plane that is not on the page.
    st.session_state[key] = position[axis] + 1
    st.slider(label, 1, count, key=key, on_change=move)
