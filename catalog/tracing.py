"""OpenTelemetry traces, if a setting names where to: a span a unit, a span a run, a span an HTTP request.

A run's trace id is its own id, a UUID of 128 bits, so whatever any process ever does for the run lands in one trace and
nothing has to be carried along or stored. Off by default, and then nothing of OpenTelemetry is imported.
"""

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

from catalog.errors import ConfigError
from catalog.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext, Tracer

EXPORT_SECONDS = 3.0
"""A collector that is away must not keep a process from stopping."""
TRACES = "/v1/traces"
_STATE: "list[tuple[Tracer, TracerProvider]]" = []
_WANTED: ContextVar[tuple[int, int] | None] = ContextVar("winnow_wanted_ids", default=None)


def configure(settings: Settings, service: str) -> None:
    """Begin to send spans, if ``otlp_endpoint`` is set; once a process.

    Raises
    ------
    ConfigError : it is no http or https URL, or the extra is not installed.
    """
    endpoint = settings.otlp_endpoint
    if not endpoint or _STATE:
        return
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"otlp_endpoint={endpoint!r} must begin with http:// or https://, e.g. http://127.0.0.1:4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ImportError as error:
        raise ConfigError(
            f"otlp_endpoint is set, but OpenTelemetry is not installed ({error}); pip install 'winnow[otel]'"
        ) from error

    class Ids(RandomIdGenerator):
        """Random, but where a run's root span asks for its own."""

        def generate_trace_id(self) -> int:
            wanted = _WANTED.get()
            return super().generate_trace_id() if wanted is None else wanted[0]

        def generate_span_id(self) -> int:
            wanted = _WANTED.get()
            return super().generate_span_id() if wanted is None else wanted[1]

    provider = TracerProvider(id_generator=Ids(), resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + TRACES, timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _STATE.append((provider.get_tracer("winnow"), provider))


def is_on() -> bool:
    """Whether spans are sent."""
    return bool(_STATE)


def shut_down() -> None:
    """Send what is left, and stop."""
    while _STATE:
        _STATE.pop()[1].shutdown()


def ids_of_run(run_id: str) -> tuple[int, int]:
    """Trace id and root span id of a run.

    >>> [hex(one) for one in ids_of_run("00000000-0000-4000-8000-0000000000ff")]
    ['0x400080000000000000ff', '0x312b5144c37f441a']
    """
    return uuid.UUID(run_id).int, int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big")


def _root(run_id: str) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags

    trace, span = ids_of_run(run_id)
    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def unit_span(name: str, run_id: str, **attributes: str | int) -> "AbstractContextManager[Span | None]":
    """A span of a run's trace around the body; None when traces are off."""
    return _unit_span(name, run_id, attributes) if _STATE else nullcontext()


@contextmanager
def _unit_span(name: str, run_id: str, attributes: Mapping[str, str | int]) -> "Iterator[Span]":
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    tracer, _ = _STATE[0]
    parent = set_span_in_context(NonRecordingSpan(_root(run_id)))
    told = {f"winnow.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(name, context=parent, attributes={"winnow.run_id": run_id, **told}) as span:
        yield span


def run_span(kind: str, run_id: str, state: str, begin: datetime, end: datetime) -> None:
    """Send the root span of a run that has ended; whoever ended it calls this once."""
    from opentelemetry.context import Context
    from opentelemetry.trace import Status, StatusCode

    tracer, _ = _STATE[0]
    before = _WANTED.set(ids_of_run(run_id))
    try:
        span = tracer.start_span(
            kind,
            context=Context(),
            start_time=_nanoseconds(begin),
            attributes={"winnow.run_id": run_id, "winnow.state": state},
        )
    finally:
        _WANTED.reset(before)
    span.set_status(Status(StatusCode.OK if state == "done" else StatusCode.ERROR))
    span.end(_nanoseconds(end))


def submitted(kind: str, run_id: str) -> None:
    """Note in the run's trace and in the span of whoever asked for it that the two belong together."""
    if not _STATE:
        return
    from opentelemetry.trace import Link, NonRecordingSpan, get_current_span, set_span_in_context

    asking = get_current_span()
    links = [Link(asking.get_span_context())] if asking.get_span_context().is_valid else []
    asking.set_attribute("winnow.run_id", run_id)
    asking.add_link(_root(run_id))
    parent = set_span_in_context(NonRecordingSpan(_root(run_id)))
    _STATE[0][0].start_span(f"submit {kind}", context=parent, links=links, attributes={"winnow.run_id": run_id}).end()


def request_span(method: str, headers: Iterable[tuple[bytes, bytes]]) -> "AbstractContextManager[Span | None]":
    """A span around the answer to an HTTP request, below the caller's if its ``traceparent`` says so."""
    return _request_span(method, headers) if _STATE else nullcontext()


@contextmanager
def _request_span(method: str, headers: Iterable[tuple[bytes, bytes]]) -> "Iterator[Span]":
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    parent = TraceContextTextMapPropagator().extract(told)
    attributes: dict[str, Any] = {"http.request.method": method}
    with _STATE[0][0].start_as_current_span(
        method, context=parent, kind=SpanKind.SERVER, attributes=attributes
    ) as span:
        yield span


def name_request(span: "Span", name: str, route: str, status: int) -> None:
    """Say which route answered, and how; never the path, which holds ids."""
    from opentelemetry.trace import Status, StatusCode

    span.update_name(name)
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
