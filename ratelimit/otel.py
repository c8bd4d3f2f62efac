"""What happens to requests as OpenTelemetry has it: a span for each, its attempts below it, and the client metrics.

    client = ratelimit.open(tier="tier-1", observer=Telemetry())

A span covers a request from when it was asked for to its end: waiting for its turn and all its attempts. It is made
when the request is done with, below whatever span its caller was in. Nothing of a prompt or an answer is ever in it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Final, NamedTuple

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError:
    raise ImportError("ratelimit.otel needs OpenTelemetry; pip install 'ratelimit-scheduler[otel]'") from None

from ratelimit.admission.events import Attempt, Event, Finished
from ratelimit.admission.log import LOGGER
from ratelimit.errors import BadSettings

__all__ = ["Telemetry", "exporting"]

_OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
_LATEST: Final = "gen_ai_latest_experimental"
_SECOND: Final = 1_000_000_000
_DURATIONS: Final = tuple(0.01 * 2**n for n in range(14))
_TOKENS: Final = tuple(float(4**n) for n in range(14))
_PATIENCE: Final = 5.0  # seconds at the end for what is left
_AFTER_TROUBLE: Final = 1.0  # and where the collector has failed before

# What instrumentations of OpenTelemetry go by. Nothing public names it yet, and the first has two spellings.
_SUPPRESSED: Final = (getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", ""), "suppress_instrumentation")
_SUPPRESS_HTTP: Final = getattr(context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation")

Attributes = dict[str, str | int]


class Names(NamedTuple):
    """What one generation of the conventions for generative AI calls what it has renamed."""

    provider: str
    duration: str
    input_tokens: str
    output_tokens: str
    token_type: str | None  # tells the two apart where they share a name


_NAMES: Final = {
    "shipped": Names(
        provider="gen_ai.system",
        duration="gen_ai.client.operation.duration",
        input_tokens="gen_ai.client.token.usage",
        output_tokens="gen_ai.client.token.usage",
        token_type="gen_ai.token.type",  # noqa: S106 - an attribute
    ),
    "latest": Names(
        provider="gen_ai.provider.name",
        duration="gen_ai.client.inference.duration",
        input_tokens="gen_ai.client.inference.usage.input_tokens",
        output_tokens="gen_ai.client.inference.usage.output_tokens",
        token_type=None,
    ),
}
"""The names that instrumentations ship, and those that OTEL_SEMCONV_STABILITY_OPT_IN asks for."""

_OPERATIONS: Final = {"/embeddings": "embeddings", "/chat/completions": "chat", "/completions": "text_completion"}


class Telemetry:
    """An observer that records spans and metrics with the providers it is given, or the global ones."""

    hears: Final = frozenset((Finished,))

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        *,
        server: str | None = None,
    ) -> None:
        wanted = os.environ.get(_OPT_IN, "").split(",")
        self._names = names = _NAMES["latest" if _LATEST in {each.strip() for each in wanted} else "shipped"]
        self._server: Attributes = {"server.address": server} if server else {}
        self._tracer = trace.get_tracer("ratelimit", tracer_provider=tracer_provider)
        meter = metrics.get_meter("ratelimit", meter_provider=meter_provider)
        about = dict.fromkeys((names.input_tokens, names.output_tokens), "Tokens as billed.")
        self._tokens = {
            name: meter.create_histogram(name, "{token}", text, explicit_bucket_boundaries_advisory=_TOKENS)
            for name, text in about.items()
        }
        self._duration = meter.create_histogram(
            names.duration, "s", "Duration of a request.", explicit_bucket_boundaries_advisory=_DURATIONS
        )

    def __call__(self, event: Event) -> None:
        """Record a request that is done with."""
        if isinstance(event, Finished) and not any(map(context.get_value, _SUPPRESSED)):
            common = self._common(event)
            self._measure(event, common)
            self._trace(event, common)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Keep an instrumentation of HTTP from a span of its own for what has one here."""
        token = context.attach(context.set_value(_SUPPRESS_HTTP, value=True))
        try:
            yield
        finally:
            context.detach(token)

    def _common(self, event: Finished) -> Attributes:
        operation = next((name for path, name in _OPERATIONS.items() if event.path.endswith(path)), "chat")
        known = {
            "gen_ai.operation.name": operation,
            self._names.provider: "openai",
            "gen_ai.request.model": event.model,
            "gen_ai.response.model": event.reply_model,
            "error.type": event.error,
        }
        return {**self._server, **{name: text for name, text in known.items() if text}}

    def _measure(self, event: Finished, common: Attributes) -> None:
        names = self._names
        self._duration.record(event.at - event.began, common)
        counts = (
            (names.input_tokens, event.input_tokens, "input"),
            (names.output_tokens, event.output_tokens, "output"),
        )
        for name, tokens, kind in counts if event.error is None else ():
            self._tokens[name].record(tokens, {**common, names.token_type: kind} if names.token_type else common)

    def _trace(self, event: Finished, common: Attributes) -> None:
        now = time.time_ns()

        def at(moment: float) -> int:
            return now - round((event.at - moment) * _SECOND)

        more = {
            "gen_ai.response.id": event.reply_id,
            "gen_ai.usage.input_tokens": event.input_tokens if event.error is None else None,
            "gen_ai.usage.output_tokens": event.output_tokens if event.error is None else None,
            "openai.request.service_tier": event.service_tier,
        }
        span = self._tracer.start_span(
            f"{common['gen_ai.operation.name']} {event.model}",
            kind=SpanKind.CLIENT,
            start_time=at(event.began),
            attributes={**common, **{name: value for name, value in more.items() if value is not None}},
        )
        within = trace.set_span_in_context(span)
        for number, attempt in enumerate(event.attempts):
            sending = self._tracer.start_span(
                "POST", within, SpanKind.CLIENT, self._sent(attempt, number), start_time=at(attempt.began)
            )
            if attempt.error:
                sending.set_status(Status(StatusCode.ERROR))
            sending.end(at(attempt.ended))
        if event.error:
            span.set_status(Status(StatusCode.ERROR, event.error))
        span.end(now)

    def _sent(self, attempt: Attempt, number: int) -> Mapping[str, str | int]:
        known = {
            "http.request.method": "POST",
            "http.request.resend_count": number or None,
            "http.response.status_code": attempt.status,
            "error.type": attempt.error,
        }
        return {**self._server, **{name: value for name, value in known.items() if value is not None}}


@contextmanager
def exporting(where: str, server: str | None = None) -> Iterator[Telemetry]:
    """Record with the global providers, where a program that started this one has set them; else export by OTLP.

    Where to is for OpenTelemetry's own variables to say, `OTEL_EXPORTER_OTLP_ENDPOINT` above all. `where` names what
    asked for it. What is left is sent at the end, but nobody waits long for a collector that does not take it.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        yield Telemetry(server=server)
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415 - slow
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415 - as above
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
    except ImportError:
        raise BadSettings(where, "needs an exporter", "pip install 'ratelimit-scheduler[otlp]'") from None
    wanted = {signal: os.environ.get(f"OTEL_{signal}_EXPORTER") != "none" for signal in ("TRACES", "METRICS")}
    resource = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "ratelimit"})
    logger, heard = logging.getLogger("opentelemetry"), _Heard()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(heard)
    spans = [OTLPSpanExporter()] if wanted["TRACES"] else []
    numbers = [OTLPMetricExporter()] if wanted["METRICS"] else []
    tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
    for each in spans:
        tracing.add_span_processor(BatchSpanProcessor(each))
    readers = [PeriodicExportingMetricReader(exporter) for exporter in numbers]
    metering = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    try:
        yield Telemetry(tracing, metering, server=server)
    finally:
        release = [*(exporter.shutdown for exporter in spans), *(exporter.shutdown for exporter in numbers)]
        over = _closed([tracing.shutdown, metering.shutdown], release, heard)
        if over:  # else the SDK may have more to say
            logger.removeHandler(heard)
            logger.propagate = propagate
        if heard.lost or not over:
            LOGGER.warning(
                "%s: the collector has not taken all spans and metrics; see that one answers where "
                "OTEL_EXPORTER_OTLP_ENDPOINT says, or set log_level to debug for what it said",
                where,
            )


class _Heard(logging.Handler):
    """Takes what the SDK says, which is long and comes again and again, to the lowest level of our own log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.trouble = False
        self.lost = False

    def emit(self, record: logging.LogRecord) -> None:
        """Note how bad it is."""
        self.trouble = True
        self.lost = self.lost or record.levelno >= logging.ERROR or "drop" in str(record.msg).lower()
        LOGGER.debug("OpenTelemetry: %s", record.getMessage())


def _closed(closing: Sequence[Callable[[], None]], release: Sequence[Callable[[], None]], heard: _Heard) -> bool:
    """Send what is left, all at once; returns whether that is over, or has taken too long and goes on by itself."""
    threads = [Thread(target=each, daemon=True) for each in closing]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for patience in (_AFTER_TROUBLE, _PATIENCE):
        for thread in threads:
            thread.join(max(began + patience - time.monotonic(), 0.0))
        if heard.trouble:
            break
    if any(thread.is_alive() for thread in threads):
        heard.lost = True
        for each in release:  # from waiting to try once more
            each()
        for thread in threads:
            thread.join(0.1)
    return not any(thread.is_alive() for thread in threads)
