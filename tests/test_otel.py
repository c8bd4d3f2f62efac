"""Spans and metrics, as OpenTelemetry's own SDK exports them."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import ratelimit
from ratelimit import otel
from ratelimit.admission.events import Finished
from ratelimit.cli import run
from ratelimit.errors import BadSettings
from ratelimit.otel import Telemetry, exporting
from ratelimit.settings import load_settings
from ratelimit.testing.mock import MockServer
from ratelimit.wire.messages import Reply, Request
from ratelimit.wire.transport import Transport

ASK: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "hi"}],
    "service_tier": "default",
}


class Recorder:
    """An SDK that keeps what it is given."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracing = TracerProvider()
        self.tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = Telemetry(self.tracing, MeterProvider([self.reader]), server="127.0.0.1")

    def client(self, mock: MockServer) -> ratelimit.Client:
        return ratelimit.open(base_url=mock.base_url, api_key="sk-x", observer=self.telemetry)

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        found = [each for of in data.resource_metrics for scope in of.scope_metrics for each in scope.metrics]
        return {each.name: list(each.data.data_points) for each in found}


def span_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_span_covers_a_request_with_all_its_attempts_and_stands_below_its_callers() -> None:
    recorder = Recorder()
    mock = MockServer(tier="tier-1", echo=True, latency="2", faults=["500:from=1,to=1"])
    async with mock, recorder.client(mock) as client:
        with recorder.tracing.get_tracer("caller").start_as_current_span("mine"):
            reply = await client.send(ASK)
        with pytest.raises(ratelimit.RateLimitError):
            await client.send({**ASK, "messages": []})
    failed_try, second_try, whole, mine, _, refused = recorder.exporter.get_finished_spans()
    assert (whole.name, whole.kind, whole.status.status_code) == (
        "chat gpt-4o-mini",
        SpanKind.CLIENT,
        StatusCode.UNSET,
    )
    assert parent_of(whole) == span_of(mine)
    assert dict(whole.attributes or {}) == {
        "server.address": "127.0.0.1",
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": reply.json()["model"],
        "gen_ai.response.id": reply.json()["id"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 1,
        "openai.request.service_tier": "default",
    }
    assert [dict(each.attributes or {}) for each in (failed_try, second_try)] == [
        {
            "server.address": "127.0.0.1",
            "http.request.method": "POST",
            "http.response.status_code": 500,
            "error.type": "500",
        },
        {
            "server.address": "127.0.0.1",
            "http.request.method": "POST",
            "http.request.resend_count": 1,
            "http.response.status_code": 200,
        },
    ]
    for each in (failed_try, second_try):
        assert parent_of(each) == span_of(whole)
    times = [each for span in (whole, failed_try, second_try) for each in (span.start_time or 0, span.end_time or 0)]
    assert times[0] <= times[2] < times[3] <= times[4] < times[5] <= times[1]
    assert (refused.status.status_code, refused.status.description) == (StatusCode.ERROR, "400")
    assert (refused.attributes or {})["error.type"] == "400"


@pytest.mark.parametrize(
    ("opt_in", "provider", "duration", "tokens"),
    [
        ("", "gen_ai.system", "gen_ai.client.operation.duration", {"gen_ai.client.token.usage": [1, 7]}),
        (
            "http, gen_ai_latest_experimental",
            "gen_ai.provider.name",
            "gen_ai.client.inference.duration",
            {
                "gen_ai.client.inference.usage.input_tokens": [7],
                "gen_ai.client.inference.usage.output_tokens": [1],
            },
        ),
    ],
)
async def test_metrics_go_by_the_names_that_are_asked_for(
    opt_in: str, provider: str, duration: str, tokens: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
    recorder = Recorder()
    async with MockServer(tier="tier-1", echo=True, latency="2") as mock, recorder.client(mock) as client:
        await client.send(ASK)
    found = recorder.metrics()
    assert set(found) == {duration, *tokens}
    (took,) = found[duration]
    assert (took.count, took.explicit_bounds[0], took.explicit_bounds[-1]) == (1, 0.01, 81.92)
    assert 2 <= took.sum < 3
    assert took.attributes[provider] == "openai"
    assert {name: sorted(point.sum for point in found[name]) for name in tokens} == tokens
    assert all(point.explicit_bounds[-1] == 67108864 for name in tokens for point in found[name])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("to_the_end", [True, False])
async def test_a_stream_has_the_names_that_it_gives_itself(path: str, to_the_end: bool) -> None:
    recorder = Recorder()
    text = {"messages": ASK["messages"]} if path == "/v1/chat/completions" else {"input": "hi"}
    body = {"model": "gpt-4o-mini", "stream": True, **text}
    mock = MockServer(tier="tier-1", latency="1", output_tokens="600")
    async with mock, recorder.client(mock) as client, client.stream(body, path) as stream:
        said = b"".join([piece async for piece in stream]) if to_the_end else await anext(aiter(stream))
    (identifier,) = set(re.findall(rb'"id": ?"((?:chatcmpl|resp)[^"]+)"', said))
    span = recorder.exporter.get_finished_spans()[-1]
    assert attributes(span)["gen_ai.response.id"] == identifier.decode()
    assert attributes(span)["gen_ai.response.model"].startswith("gpt-4o-mini")
    assert attributes(span).get("error.type") == (None if to_the_end else "cancelled")


async def test_who_records_nothing_has_nothing_recorded() -> None:
    recorder = Recorder()
    async with MockServer(tier="tier-1", echo=True) as mock, recorder.client(mock) as client:
        for key in (getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY"), "suppress_instrumentation"):  # noqa: B009
            token = context.attach(context.set_value(key, value=True))
            await client.send(ASK)
            context.detach(token)
        assert recorder.exporter.get_finished_spans() == ()
        await client.send(ASK)
    assert len(recorder.exporter.get_finished_spans()) == 2


async def test_what_has_a_span_gets_none_of_an_instrumentation_of_http(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, seen = Recorder(), []
    key = getattr(context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY")  # noqa: B009 - as instrumentations get it
    post = Transport.post

    async def watched(self: Transport, request: Request) -> Reply:
        seen.append(context.get_value(key))
        return await post(self, request)

    monkeypatch.setattr(Transport, "post", watched)
    async with MockServer(tier="tier-1", echo=True) as mock, recorder.client(mock) as client:
        await client.send(ASK)
    assert (seen, context.get_value(key)) == ([True], None)


class Collector(ThreadingHTTPServer):
    """Takes what an exporter brings."""

    def __init__(self, slow: float = 0.0) -> None:
        self.brought: dict[str, list[bytes]] = defaultdict(list)
        brought = self.brought

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                brought[self.path].append(gzip.decompress(body) if self.headers["Content-Encoding"] else body)
                time.sleep(slow)  # as long as it is said to take
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.mark.real_time
async def test_a_run_exports_what_it_sends(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_text(f"{json.dumps(ASK)}\n" * 3, encoding="utf-8")
    with Collector() as collector:
        serving = threading.Thread(target=collector.serve_forever, daemon=True)
        serving.start()
        environment = {
            **os.environ,
            "OPENAI_API_KEY": "sk-test",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        }
        async with MockServer(tier="tier-1", echo=True) as mock:
            words = ["run", "requests.jsonl", "-o", "out.jsonl", "--otel", "--quiet", "--base-url", mock.base_url]
            command = [sys.executable, "-m", "ratelimit", *words, "--shared", "off"]
            ran = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, env=environment, capture_output=True)
        collector.shutdown()
        serving.join()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    spans, metrics = (b"".join(collector.brought[f"/v1/{signal}"]) for signal in ("traces", "metrics"))
    assert spans.count(b"chat gpt-4o-mini") == 3
    assert b"gen_ai.client.token.usage" in metrics
    for told in (spans, metrics):
        assert re.search(rb"service\.name.{1,6}ratelimit", told, re.DOTALL)
        assert b"sk-test" not in told


def test_each_signal_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for signal in ("TRACES", "METRICS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    before = threading.active_count()
    with exporting("--otel"):
        assert threading.active_count() == before, "nothing is exported by anybody"


def test_what_is_left_of_both_is_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: dict[type[object], threading.Event] = {TracerProvider: threading.Event(), MeterProvider: threading.Event()}
    together = []

    def shutdown(provider: object) -> None:
        begun[type(provider)].set()
        together.append(all(event.wait(2) for event in begun.values()))

    for kind in begun:
        monkeypatch.setattr(kind, "shutdown", shutdown)
    for signal in ("TRACES", "METRICS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    with exporting("here"):
        pass
    assert together == [True, True]


def recorded(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """Export one span and one number; returns how long the end has taken."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    with exporting("--otel") as telemetry:
        telemetry(Finished("m", 1.0, "m", "/v1/chat/completions", None, 0.0, (), None, 7, 1, None, None, None))
        began = time.monotonic()
    return time.monotonic() - began


LOST = (
    "--otel: the collector has not taken all spans and metrics; see that one answers where OTEL_EXPORTER_OTLP_ENDPOINT "
    "says, or set log_level to debug for what it said"
)


@pytest.mark.parametrize(
    ("listens", "patience"),
    [(False, {"_AFTER_TROUBLE": 0.1, "_PATIENCE": 60.0}), (True, {"_AFTER_TROUBLE": 0.1, "_PATIENCE": 0.3})],
)
def test_a_collector_that_is_down_or_silent_costs_a_moment_and_a_sentence(
    listens: bool,
    patience: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, seconds in patience.items():
        monkeypatch.setattr(otel, name, seconds)
    caplog.set_level(logging.DEBUG, "ratelimit")
    before = set(threading.enumerate())
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        took = recorded(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
    assert took < 2
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == [LOST]
    theirs = [each.getMessage() for each in caplog.records if each.levelno == logging.DEBUG]
    assert any(each.startswith("OpenTelemetry: ") and "retrying" in each for each in theirs) is not listens
    assert capfd.readouterr().err == ""
    for left in set(threading.enumerate()) - before:  # which speak where another test listens
        left.join(10)
        assert not left.is_alive()


def test_a_collector_that_is_only_slow_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(otel, "_AFTER_TROUBLE", 0.01)
    with Collector(slow=0.2) as collector:
        serving = threading.Thread(target=collector.serve_forever, daemon=True)
        serving.start()
        assert recorded(f"http://127.0.0.1:{collector.server_port}", monkeypatch) >= 0.2
        collector.shutdown()
        serving.join()
    assert sorted(collector.brought) == ["/v1/metrics", "/v1/traces"]
    assert [each for each in caplog.records if each.name == "ratelimit"] == []


def test_the_providers_of_who_started_the_program_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", TracerProvider)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with exporting("--otel") as telemetry:
        assert isinstance(telemetry, Telemetry)


def test_without_an_exporter_a_run_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    message = "--otel needs an exporter: pip install 'ratelimit-scheduler[otlp]'"
    with pytest.raises(BadSettings, match=re.escape(message)), exporting("--otel"):
        pass


def test_without_the_library_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import ratelimit.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: ratelimit.otel needs OpenTelemetry; pip install 'ratelimit-scheduler[otel]'"
    )


def test_a_run_through_the_batch_api_says_that_it_exports_nothing() -> None:
    said: list[str] = []
    with run._exporting(load_settings(otel=True), "batch", said.append) as told:
        assert told == []
    assert said == ["--otel: the Batch API tells nothing of single requests, so there is nothing to export"]
