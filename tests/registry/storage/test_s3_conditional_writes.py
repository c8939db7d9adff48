"""Writes if absent, on servers that honour the condition and on those that do not."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from oubli.registry.errors import ObjectExists, StoreError
from oubli.registry.storage.s3_store import S3Store


class Careless(http.server.BaseHTTPRequestHandler):
    """An S3 server that stores objects and never heard of If-None-Match (as some gateways)."""

    objects: dict[str, tuple[bytes, dict[str, str]]]
    conditions: str  # "ignored", "rejected" or "answer lost"

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        conditional = self.headers["If-None-Match"] == "*"
        if conditional and self.conditions == "rejected":
            self.answer(501, b"<Error><Code>NotImplemented</Code></Error>")
            return
        if conditional and self.conditions == "answer lost" and self.path in self.objects:
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            return
        metadata = {name: value for name, value in self.headers.items() if name.startswith("x-amz-meta-")}
        self.objects[self.path] = (data, metadata)
        if conditional and self.conditions == "answer lost":
            self.answer(503, b"<Error><Code>ServiceUnavailable</Code></Error>")
            return
        self.answer(200)

    def do_HEAD(self) -> None:
        self.answer(200, headers=self.objects[self.path][1])

    def do_DELETE(self) -> None:
        self.objects.pop(self.path, None)
        self.answer(204)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def careless(keyed: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[dict]:
    objects: dict[str, tuple[bytes, dict[str, str]]] = {}
    handler = type("Handler", (Careless,), {"objects": objects, "conditions": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield objects
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("careless", ["ignored", "rejected"], indirect=True)
def test_a_server_without_conditional_writes_is_found_out(careless: dict) -> None:
    for _ in range(2):
        with pytest.raises(StoreError, match="does not honour conditional writes") as caught:
            S3Store().write("s3://bucket/a", b"x", if_absent=True)
        assert not isinstance(caught.value, ObjectExists)
    # Neither the object nor the probe stays behind.
    assert careless == {}
    S3Store().write("s3://bucket/a", b"x")
    assert list(careless) == ["/bucket/a"]


@pytest.mark.slow
@pytest.mark.parametrize("careless", ["answer lost"], indirect=True)
def test_a_retry_that_finds_its_own_first_attempt_has_succeeded(careless: dict) -> None:
    S3Store().write("s3://bucket/a", b"x", if_absent=True)
    assert careless["/bucket/a"][0] == b"x"
    with pytest.raises(ObjectExists):
        S3Store().write("s3://bucket/a", b"x", if_absent=True)
