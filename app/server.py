"""The page as a server: `streamlit run app/server.py`, or any ASGI server with `app.server:app`.

Streamlit draws the pages (`main.py`); the viewer's volumes and files go past it, by routes that know whose they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from app.catalogue import own_shelf, put_on_shelf
from app.desk import close, desk
from app.fences import Fences
from app.gate import refuse_open_server
from app.routes import ROUTES
from app.visitors import Visitors


@asynccontextmanager
async def _life(_: st.App) -> AsyncIterator[None]:
    refuse_open_server()
    put_on_shelf(own_shelf())  # before any process starts: each keeps the environment that it was started with
    desk().warm_up()
    try:
        yield
    finally:
        close()


MIDDLEWARE = [Middleware(Fences), Middleware(Visitors)]
app = st.App(Path(__file__).with_name("main.py"), routes=ROUTES, middleware=MIDDLEWARE, lifespan=_life)
