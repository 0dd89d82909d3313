"""A visitor who speaks Streamlit's protocol: one session, one cookie, no browser."""

from __future__ import annotations

import contextlib
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileUploaderState, UploadedFileInfo
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from urllib3.util import Retry
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ANSWER_S = 120
RETRIES = 2


class Visitor:
    """Runs the page as a browser would, and holds what it showed last."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.http = requests.Session()
        # As browsers do: a kept connection that the server closes just now is no reason to give up.
        self.http.mount("http://", HTTPAdapter(max_retries=Retry(total=RETRIES, backoff_factor=0.1)))
        self.http.get(base, timeout=ANSWER_S, headers={"Accept": "text/html"})  # a page brings the visitor's cookie
        self.http.get(f"{base}/_stcore/health", timeout=ANSWER_S)  # sets the cookie against forged requests
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies)
        self._closing = contextlib.ExitStack()
        opening = connect(
            base.replace("http", "ws", 1) + "/_stcore/stream",
            subprotocols=["streamlit", self._token() or "PLACEHOLDER_AUTH_TOKEN"],  # type: ignore[list-item]
            additional_headers={"Cookie": cookies, "Origin": base},
            max_size=None,
            open_timeout=ANSWER_S,
        )
        self._socket = self._closing.enter_context(opening)
        self.query, self._session = "", ""
        self._elements: list[Any] = []

    def close(self) -> None:
        """Leave, as one who shuts the browser."""
        with contextlib.suppress(ConnectionClosed, OSError):
            self._closing.close()
        self.http.close()

    @property
    def study(self) -> str:
        """The study in the address."""
        parts = dict(part.split("=", 1) for part in self.query.split("&") if "=" in part)
        return parts.get("study", "")

    @property
    def shown(self) -> str:
        """All that the page shows, as text."""
        return "\n".join(map(str, self._elements))

    def rerun(self, *changes: tuple[Any, str, Any]) -> None:
        """Run the page once, with changes (widget, kind of its value, value), and take in what it shows."""
        message = BackMsg()
        message.rerun_script.query_string = self.query
        for widget, kind, value in changes:
            state = message.rerun_script.widget_states.widgets.add(id=widget.id)
            if kind == "file_uploader_state_value":
                state.file_uploader_state_value.CopyFrom(value)
            else:
                setattr(state, kind, value)
        self._socket.send(message.SerializeToString())
        self._elements = []
        self._listen()

    def widget(self, kind: str, key: str) -> Any:
        """The widget with that key, or None."""
        found = [getattr(e, kind) for e in self._elements if e.WhichOneof("type") == kind]
        return next((one for one in found if one.id.endswith(f"-{key}")), None)

    def upload(self, name: str, content: bytes) -> Any:
        """Send a file as a browser does; the state of the uploader that holds it."""
        ask = BackMsg()
        ask.file_urls_request.request_id, ask.file_urls_request.session_id = "1", self._session
        ask.file_urls_request.file_names.append(name)
        self._socket.send(ask.SerializeToString())
        told = self._told()
        while told.WhichOneof("type") != "file_urls_response":
            told = self._told()
        urls = told.file_urls_response.file_urls[0]
        answer = self.http.put(
            self.base + urls.upload_url,
            files={"file": (name, content)},
            headers={"X-Xsrftoken": self._token()},
            timeout=ANSWER_S,
        )
        answer.raise_for_status()
        info = UploadedFileInfo(name=name, size=len(content), file_id=urls.file_id, file_urls=urls)
        return FileUploaderState(uploaded_file_info=[info])

    def status_of(self, study: str) -> int:
        """What the server answers to one who asks for a study's voxels."""
        return self.http.get(f"{self.base}/medseg/study/{study}/small.nii", timeout=ANSWER_S).status_code

    def _token(self) -> str:
        return self.http.cookies.get("_streamlit_xsrf", "") or ""

    def _told(self) -> ForwardMsg:
        told = ForwardMsg()
        told.ParseFromString(self._socket.recv(timeout=ANSWER_S))  # type: ignore[arg-type]
        return told

    def _listen(self) -> None:
        while True:
            told = self._told()
            kind = told.WhichOneof("type")
            if kind == "new_session":
                self._session = told.new_session.initialize.session_id or self._session
            elif kind == "page_info_changed":
                self.query = told.page_info_changed.query_string
            elif kind == "delta" and told.delta.WhichOneof("type") == "new_element":
                self._elements.append(told.delta.new_element)
            elif kind == "script_finished" and told.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                return
