"""The backends that the tests use receive OTLP with our configurations, and answer queries."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .backends import Backend, BackendError, Loki, Prometheus, Tempo
from .needed import built

if TYPE_CHECKING:
    from collections.abc import Iterator

    B = Prometheus | Loki | Tempo

SCOPE = {"name": "tests.stack"}


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """Return a running Prometheus."""
    with Prometheus(built("prometheus"), tmp_path / "prometheus") as running:
        yield running


@pytest.fixture
def loki(tmp_path: Path) -> Iterator[Loki]:
    """Return a running Loki."""
    with Loki(built("loki"), tmp_path / "loki") as running:
        yield running


@pytest.fixture
def tempo(tmp_path: Path) -> Iterator[Tempo]:
    """Return a running Tempo."""
    with Tempo(built("tempo"), tmp_path / "tempo") as running:
        yield running


def attributes(**values: str | float) -> list[dict[str, Any]]:
    """Return OTLP/JSON attributes; `__` in a name means a dot."""
    return [
        {
            "key": name.replace("__", "."),
            "value": {"stringValue": value} if isinstance(value, str) else {"doubleValue": value},
        }
        for name, value in values.items()
    ]


RESOURCE = {"attributes": attributes(service__name="shop", service__instance__id="one", host__name="here")}


def gauge(name: str, value: float, moment: float, unit: str = "", **labels: str) -> dict[str, Any]:
    """Return a request with one gauge point."""
    point = {"timeUnixNano": str(int(moment * 1e9)), "asDouble": value, "attributes": attributes(**labels)}
    metric = {"name": name, "unit": unit, "gauge": {"dataPoints": [point]}}
    return {"resourceMetrics": [{"resource": RESOURCE, "scopeMetrics": [{"scope": SCOPE, "metrics": [metric]}]}]}


def record(event: str, moment: float, **more: Any) -> dict[str, Any]:
    """Return a request with one log event."""
    logged = {"eventName": event, "timeUnixNano": str(int(moment * 1e9)), "severityNumber": 9, **more}
    return {"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [{"scope": SCOPE, "logRecords": [logged]}]}]}


def spans(trace: str, *names: str, seconds: float = 1, **labels: str) -> dict[str, Any]:
    """Return a request with spans that just ended; the first one is the root."""
    end = time.time()
    ids = [secrets.token_hex(8) for _ in names]
    made = [
        {
            "traceId": trace,
            "spanId": own,
            "parentSpanId": "" if own == ids[0] else ids[0],
            "name": name,
            "kind": 1,
            "startTimeUnixNano": str(int((end - seconds) * 1e9)),
            "endTimeUnixNano": str(int(end * 1e9)),
            "attributes": attributes(**labels),
            "events": [{"name": "progress.note", "timeUnixNano": str(int(end * 1e9))}],
            "status": {"code": 2},
        }
        for name, own in zip(names, ids, strict=True)
    ]
    return {"resourceSpans": [{"resource": RESOURCE, "scopeSpans": [{"scope": SCOPE, "spans": made}]}]}


class TestPrometheus:
    """Metrics by OTLP, and PromQL."""

    def test_gauge_has_the_names_that_rules_know(self, prometheus: Prometheus) -> None:
        """Dots become underscores, the unit is a suffix, and the service's name and instance are job and instance."""
        now = time.time()
        prometheus.send(gauge("progress.run.idle", 7, now, "s", progress__operation__name="import"))
        [sample] = prometheus.wait_for(lambda: prometheus.query("progress_run_idle_seconds"))
        assert sample.value == 7
        assert sample.labels == {
            "__name__": "progress_run_idle_seconds",
            "job": "shop",
            "instance": "one",
            "host_name": "here",
            "progress_operation_name": "import",
        }

    def test_old_points_are_taken_after_new_ones(self, prometheus: Prometheus) -> None:
        """Data that was queued during an outage of hours fills the gap."""
        now = time.time()
        prometheus.send(gauge("progress.run.active", 1, now))
        prometheus.send(gauge("progress.run.active", 0, now - 5 * 3600))
        [sample] = prometheus.wait_for(lambda: prometheus.query("progress_run_active[6h]", at=now + 1))
        assert [value for _, value in sample.values] == [0, 1]
        [ranged] = prometheus.query_range("max_over_time(progress_run_active[6h])", now - 1, now + 1)
        assert ranged.value == 1

    def test_rejected_points_are_an_error(self, prometheus: Prometheus) -> None:
        """A point that is older than the window is refused visibly."""
        now = time.time()
        prometheus.send(gauge("progress.run.active", 1, now))
        with pytest.raises(BackendError, match="answered 4"):
            prometheus.send(gauge("progress.run.active", 0, now - 7 * 3600))


@pytest.mark.loki
class TestLoki:
    """Log events by OTLP, and LogQL."""

    def test_event_is_found_by_the_name_of_its_operation(self, loki: Loki) -> None:
        """Attributes are structured metadata with underscores; of the resource only the service's name is a label."""
        now = time.time()
        names: dict[str, Any] = {
            "progress__operation__name": "import",
            "progress__operation__id": "op-1",
            "progress__ratio": 0.5,
        }
        more = {"body": {"stringValue": "import: started"}, "traceId": "0af7651916cd43dd8448eb211c80319c"}
        loki.send(record("progress.operation.started", now, attributes=attributes(**names), **more))
        loki.send(record("progress.operation.started", now, attributes=attributes(progress__operation__name="other")))
        [line] = loki.wait_for(
            lambda: loki.query_range('{service_name="shop"} | progress_operation_name="import" | progress_ratio > 0.2')
        )
        assert (line.time, line.text) == (int(now * 1e9), "import: started")
        assert line.labels["progress_operation_id"] == "op-1"
        assert line.labels["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        assert line.labels["service_instance_id"] == "one"
        assert loki.labels() == ["service_name"]

    def test_event_name_is_not_kept(self, loki: Loki) -> None:
        """Loki drops the event_name of a record, so senders must also put it into an attribute."""
        now = time.time()
        loki.send(record("progress.noted", now, body={"stringValue": "bare"}))
        loki.send(record("progress.noted", now, attributes=attributes(event_name="progress.noted")))
        lines = loki.wait_for(lambda: len(found := loki.query_range('{service_name="shop"}')) == 2 and found)
        assert lines
        assert [line.text for line in lines if "progress.noted" not in line.labels.values()] == ["bare"]
        [named] = loki.query_range('{service_name="shop"} | event_name="progress.noted"')
        assert named.text == ""

    def test_event_with_all_it_may_carry_is_taken(self, loki: Loki) -> None:
        """200 attributes of 1,000 characters are below the limits."""
        many = {f"a{number}": "x" * 1000 for number in range(200)}
        loki.send(record("progress.updated", time.time(), attributes=attributes(**many)))
        [line] = loki.wait_for(lambda: loki.query_range('{service_name="shop"}'))
        assert many.items() <= line.labels.items()

    def test_events_are_counted_by_operation(self, loki: Loki) -> None:
        """A metric query over structured metadata returns numbers."""
        for number in range(3):
            name = "import" if number else "export"
            loki.send(record("progress.updated", time.time(), attributes=attributes(progress__operation__name=name)))
        logql = 'sum by (progress_operation_name) (count_over_time({service_name="shop"}[5m]))'
        found = loki.wait_for(lambda: len(samples := loki.query(logql)) == 2 and samples)
        assert found
        assert {sample.labels["progress_operation_name"]: sample.value for sample in found} == {
            "import": 2,
            "export": 1,
        }


@pytest.mark.tempo
class TestTempo:
    """Spans by OTLP, and TraceQL."""

    def test_trace_is_found_by_its_id(self, tempo: Tempo) -> None:
        """All spans of a trace arrive with their attributes, events and status."""
        trace = secrets.token_hex(16)
        assert tempo.trace(trace) == []
        tempo.send(spans(trace, "import", "fetch", progress__operation__id="op-1"))
        found = {span.name: span for span in tempo.wait_for(lambda: tempo.trace(trace))}
        assert found.keys() == {"import", "fetch"}
        fetch = found["fetch"]
        assert fetch.attributes == {"progress.operation.id": "op-1"}
        assert fetch.resource["service.name"] == "shop"
        assert fetch.events == ["progress.note"]
        assert fetch.status == "STATUS_CODE_ERROR"

    def test_stage_is_found_before_its_operation_ends(self, tempo: Tempo) -> None:
        """TraceQL finds a span without its root within seconds."""
        trace = secrets.token_hex(16)
        request = spans(trace, "import", "fetch", progress__operation__name="import")
        del request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
        tempo.send(request)
        traceql = '{ name = "fetch" && span.progress.operation.name = "import" }'
        [found] = tempo.wait_for(lambda: tempo.search(traceql))
        assert found["traceID"].zfill(32) == trace
        assert [span["name"] for span in found["spanSets"][0]["spans"]] == ["fetch"]
        assert tempo.search('{ name = "fetch" && span.progress.operation.name = "export" }') == []

    def test_trace_with_thousands_of_stages_is_whole(self, tempo: Tempo) -> None:
        """A trace of more than 5 MB, Tempo's default limit, is kept whole."""
        trace = secrets.token_hex(16)
        names = [f"stage-{number}" for number in range(1000)]
        for _ in range(6):
            tempo.send(spans(trace, *names, progress__message="x" * 1000))
            tempo.wait_for(lambda: tempo.trace(trace))
        tempo.wait_for(lambda: len(tempo.trace(trace)) == 6000)

    def test_spans_are_counted(self, tempo: Tempo) -> None:
        """A TraceQL metrics query counts the spans by an attribute."""
        for name in ("import", "import", "export"):
            tempo.send(spans(secrets.token_hex(16), name, progress__operation__name=name))
        traceql = "{} | count_over_time() by (span.progress.operation.name)"

        def counted() -> dict[str, float]:
            now = time.time()
            return {
                next(iter(series["labels"][0]["value"].values())): sum(
                    sample.get("value", 0) for sample in series["samples"]
                )
                for series in tempo.query_range(traceql, now - 60, now + 10)
            }

        tempo.wait_for(lambda: counted() == {"import": 2, "export": 1})


@pytest.mark.parametrize(
    "kind",
    [Prometheus, pytest.param(Loki, marks=pytest.mark.loki), pytest.param(Tempo, marks=pytest.mark.tempo)],
)
class TestBackend:
    """Tests common to all backends."""

    def test_data_outlive_a_kill(self, kind: type[B], tmp_path: Path) -> None:
        """Acknowledged data survives SIGKILL and a restart at the same address."""
        trace = secrets.token_hex(16)
        with kind(built(kind.name), tmp_path / "one") as backend:
            if isinstance(backend, Prometheus):
                backend.send(gauge("kept", 1, time.time()))
            elif isinstance(backend, Loki):
                backend.send(record("kept", time.time()))
            else:
                backend.send(spans(trace, "kept"))
                backend.wait_for(lambda: backend.search('{ name = "kept" }'))
            endpoint = backend.endpoint
            backend.kill()
            assert backend.pid is None
            backend.start()
            assert backend.endpoint == endpoint
            if isinstance(backend, Prometheus):
                backend.wait_for(lambda: backend.query("kept"))
            elif isinstance(backend, Loki):
                backend.wait_for(lambda: backend.query_range('{service_name="shop"}'))
            else:
                backend.wait_for(lambda: backend.trace(trace))

    def test_bad_configuration_is_reported(self, kind: type[B], tmp_path: Path) -> None:
        """The error has the program's output."""
        config = tmp_path / "bad.yaml"
        config.write_text("no_such_key: 1\n", encoding="utf-8")
        backend: Backend = kind(built(kind.name), tmp_path / "bad", config=config)
        with pytest.raises(BackendError, match="no_such_key"):
            backend.start()
        assert backend.pid is None

    def test_query_that_is_wrong_is_an_error(self, kind: type[B], tmp_path: Path) -> None:
        """A query that does not parse fails with the server's message."""
        with kind(built(kind.name), tmp_path / "one") as backend:
            with pytest.raises(BackendError, match=r"answered 400 .*pars"):
                backend.search("{ no") if isinstance(backend, Tempo) else backend.query("sum(no")
