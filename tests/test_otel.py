"""Spans and metrics, as OpenTelemetry's own SDK exports them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import ratelimit
from ratelimit.otel import Telemetry
from ratelimit.testing.mock import MockServer

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


def test_without_the_library_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import ratelimit.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: ratelimit.otel needs OpenTelemetry; pip install 'ratelimit-scheduler[otel]'"
    )
