"""The backends in which the test operation should arrive: Prometheus, Loki and Tempo."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from otel_progress import clock
from otel_progress import semconv as s
from otel_progress.cli.assets import UNSET
from otel_progress.cli.doctor import alerting
from otel_progress.cli.doctor.configuration import shown
from otel_progress.cli.doctor.findings import Problem, problem
from otel_progress.cli.doctor.probe import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_progress.outbound.session import Reply

ASK_SECONDS: Final = 2.0
ANSWER_BYTES: Final = 16 * 1024 * 1024
FIND_SECONDS: Final = 0.5
AROUND: Final = 3600
"""Seconds before and after now that are searched: clocks may differ."""


class BackendUnavailable(Exception):
    """The backend gave no usable answer."""

    def __init__(self, found: Problem, *, passing: bool = False) -> None:
        """Create it with the problem; `passing` if a retry may help."""
        super().__init__(found.text)
        self.problem = found
        self.passing = passing


@dataclass(frozen=True)
class ProbeIds:
    """The ids by which the test operation is searched."""

    id: str
    trace: str | None = None


@dataclass
class Backend:
    """One backend: `look` checks whether everything has arrived, `missing` explains why it may not have."""

    name: str
    option: str
    port: int
    signal: str
    what: str
    health: str
    url: str = ""
    ahead: float | None = None
    """The seconds by which its clock is ahead of ours, if it sent its time."""

    def look(self, trip: ProbeIds) -> Problem | bool:
        """Whether it has arrived; a problem if it arrived incomplete.

        Raises:
            BackendUnavailable: if the backend can't be queried.
        """
        raise NotImplementedError

    def missing(self, trip: ProbeIds) -> Problem:
        """Why it may not have arrived."""
        raise NotImplementedError

    def advice(self, *, reach: bool = False) -> Iterator[Problem]:
        """Yield further problems, independent of the test operation; with `reach`, also try its links."""
        del reach
        yield from ()

    def is_it(self) -> bool:
        """Whether this backend, and no other, answers at its address."""
        try:
            answer = self.get(self.health, FIND_SECONDS)
        except BackendUnavailable:
            return False
        return answer.status == 200 and self.knows(answer)

    def knows(self, answer: Reply) -> bool:
        """Whether an answer to the health request comes from this kind of backend."""
        return isinstance(_json(answer), dict)

    def get(self, path: str, timeout: float = ASK_SECONDS, **parameters: Any) -> Reply:
        """Send it a GET request.

        Raises:
            BackendUnavailable: if there is no answer, or access is denied.
        """
        import requests

        from otel_progress.outbound.session import Session

        address = f"{self.url.rstrip('/')}{path}"
        sent = clock.unix()
        try:
            with Session() as session:
                wanted = {"Accept": "application/json"}
                answer = session.ask("GET", address, timeout, ANSWER_BYTES, params=parameters, headers=wanted)
        except requests.Timeout:
            wrong = self._problem("backend_away", f"does not answer within {timeout:g} s")
            raise BackendUnavailable(wrong, passing=True) from None
        except (OSError, ValueError) as error:
            raise BackendUnavailable(self._problem("backend_away", f"can't be reached ({_reason(error)})")) from None
        self._hear_time(answer.headers.get("Date"), (sent + clock.unix()) / 2)
        if answer.status in (401, 403):
            raise BackendUnavailable(self._problem("backend_forbids", f"answers {answer.status}"))
        return answer

    def ask(self, path: str, **parameters: Any) -> Any:
        """Query it for JSON; None while it is not ready.

        Raises:
            BackendUnavailable: if it is not a backend of this kind.
        """
        answer = self.get(path, **parameters)
        found = _json(answer)
        if answer.status >= 500 or answer.status == 429:
            return None
        if answer.status != 200 or not isinstance(found, dict):
            raise BackendUnavailable(self.wrong(f"answers {answer.status} to {path}"))
        return found

    def wrong(self, text: str) -> Problem:
        """The problem that something else answers."""
        return self._problem("backend_wrong", text)

    def _problem(self, code: str, text: str) -> Problem:
        return problem(code, f"{self.name} at {shown(self.url)} {text}", option=self.option)

    def _hear_time(self, date: str | None, at: float) -> None:
        with suppress(ValueError, TypeError):
            self.ahead = parsedate_to_datetime(date or "").timestamp() + 0.5 - at


class Prometheus(Backend):
    """Receives the run series."""

    def look(self, trip: ProbeIds) -> Problem | bool:
        """Whether the series of the operation are there."""
        found = [it for it in self._series(f'{{{_label(s.OPERATION_ID)}="{trip.id}"}}') if it["__name__"] == RUN_ACTIVE]
        if found and all("exported_job" in labels for labels in found):
            return self._problem("labels_renamed", f"has the series with job {found[0].get('job')}, not the job's own")
        return bool(found)

    def missing(self, trip: ProbeIds) -> Problem:
        """Names with dots, a missing OTLP receiver, or a problem on the way."""
        try:
            dotted = self.get("/api/v1/series", **_matching(f'{{"{s.OPERATION_ID}"="{trip.id}"}}'))
            if dotted.status == 200 and (_json(dotted) or {}).get("data"):
                return self._problem("names_unescaped", f"has the series {s.RUN_ACTIVE.name}, with dots in its name")
            flags = (_json(self.get("/api/v1/status/flags")) or {}).get("data") or {}
            if flags.get("web.enable-otlp-receiver") == "false":
                return self._problem("otlp_receiver_off", f"has no series {RUN_ACTIVE}, and takes no OTLP")
        except BackendUnavailable as away:
            return away.problem
        return self._problem("series_missing", f"has no series {RUN_ACTIVE} of the test operation")

    def advice(self, *, reach: bool = False) -> Iterator[Problem]:
        """Yield what alerts lack: rules, an Alertmanager, the Collector's own metrics, addresses in their links.

        And which of them fire now.
        """
        where = f"{self.name} at {shown(self.url)}"
        try:
            rules = self._data("/api/v1/rules")
            if rules is None:
                return
            if not alerting.has_rules(rules):
                yield self._problem("rules_missing", "has no alert rules of otel-progress")
                return
            yield from alerting.of_rules(where, rules)
            yield from alerting.of_alerts(where, self._data("/api/v1/alerts") or {})
            alertmanagers = self._data("/api/v1/alertmanagers")
            if alertmanagers is not None and not alertmanagers.get("activeAlertmanagers"):
                yield self._problem("alertmanager_missing", "sends its alerts to no Alertmanager")
            yield from alerting.of_collectors(where, self._result(COLLECTORS))
            found = self._result(LINKS)
        except BackendUnavailable:
            return
        labels = found[0]["metric"] if found else {}
        for name in UNSET:
            address = labels.get(name, "")
            if address in ("", UNSET[name]):
                yield self._problem("link_unset", f"has alerts whose links lack the address of {name}")
            elif not _is_address(address):
                yield self._problem("link_invalid", f"has {shown(address)} as {name} in the links of alerts")
            elif reach and (reason := _unreachable(address)):
                yield self._problem("link_unreachable", f"has {shown(address)} as {name}, which {reason}")

    def knows(self, answer: Reply) -> bool:
        """Its answers have a status and data."""
        found = _json(answer)
        return isinstance(found, dict) and found.get("status") == "success"

    def _data(self, path: str, **parameters: Any) -> dict[str, Any] | None:
        """The data of an answer; None if there is none, as not every backend knows each path."""
        answer = self.get(path, **parameters)
        data = (_json(answer) or {}).get("data") if answer.status == 200 else None
        return data if isinstance(data, dict) else None

    def _result(self, query: str) -> list[Any]:
        """The series of a query."""
        found: list[Any] = (self._data("/api/v1/query", query=query) or {}).get("result", [])
        return found

    def _series(self, match: str) -> list[dict[str, str]]:
        found = self.ask("/api/v1/series", **_matching(match)) or {}
        return [labels for labels in found.get("data", []) if labels.get("__name__")]


class Loki(Backend):
    """Receives the log events."""

    def look(self, trip: ProbeIds) -> Problem | bool:
        """Whether the first event and the last are there, by name."""
        query = f'{{service_name=~".+"}} | {_label(s.OPERATION_ID)}="{trip.id}"'
        now = int(clock.unix())
        between = {"start": (now - AROUND) * 10**9, "end": (now + AROUND) * 10**9}
        found = self.ask("/loki/api/v1/query_range", query=query, limit=100, direction="forward", **between) or {}
        streams = found.get("data", {}).get("result", [])
        name = _label(s.EVENT_NAME)
        names = {stream["stream"][name] for stream in streams if name in stream["stream"]}
        if streams and not names:
            return self._problem("event_name_missing", "has the log events, but without their names")
        return {s.OPERATION_STARTED, s.OPERATION_ENDED} <= names

    def missing(self, trip: ProbeIds) -> Problem:
        """A problem on the way."""
        return self._problem("events_missing", f"has not all events of {trip.id}")


class Tempo(Backend):
    """Receives the trace."""

    def look(self, trip: ProbeIds) -> Problem | bool:
        """Whether the trace is there, with the operation's own span."""
        for version in ("/v2", ""):
            answer = self.get(f"/api{version}/traces/{trip.trace}")
            if answer.status == 200 and NAME in _text(answer):
                return True
            if "html" in answer.headers.get("Content-Type", ""):
                raise BackendUnavailable(self.wrong(f"answers {answer.status} with a web page"))
        return False

    def missing(self, trip: ProbeIds) -> Problem:
        """A problem on the way, or another server at its address."""
        if not self.is_it():
            return self.wrong("is no Tempo, or not ready")
        return self._problem("trace_missing", f"has no trace {trip.trace}")

    def knows(self, answer: Reply) -> bool:
        """It answers `echo`."""
        return bool(_text(answer).strip() == "echo")


def _is_address(text: str) -> bool:
    """Whether paths can follow an address: absolute, without a query, an anchor or a slash at its end."""
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not (set("?# ") & set(text) or text[-1] == "/")
        )
    except ValueError:
        return False


def _unreachable(address: str) -> str:
    """Why an address does not answer; empty if it does, or asks for a login."""
    import requests

    from otel_progress.outbound.session import Session

    try:
        with Session() as session:
            answer = session.ask("GET", address, ASK_SECONDS, ANSWER_BYTES)
    except (OSError, ValueError, requests.RequestException) as error:
        return f"can't be reached ({_reason(error)})"
    return f"answers {answer.status}" if answer.status >= 400 and answer.status not in (401, 403) else ""


def _label(attribute: str) -> str:
    return attribute.replace(".", "_")


RUN_ACTIVE: Final = _label(s.RUN_ACTIVE.name)
LINKS: Final = "progress:links"
"""The series of grafana/alerts/links.yaml."""
COLLECTORS: Final = 'up{job="otel-collector"}'


def all_three() -> tuple[Backend, ...]:
    """The backends, without addresses."""
    return (
        Prometheus(
            "Prometheus", "--prometheus", 9090, "metrics", f"the series {RUN_ACTIVE}", "/api/v1/status/buildinfo"
        ),
        Loki("Loki", "--loki", 3100, "logs", "the first and the last event", "/loki/api/v1/status/buildinfo"),
        Tempo("Tempo", "--tempo", 3200, "traces", "the trace", "/api/echo"),
    )


def _matching(match: str) -> dict[str, Any]:
    now = int(clock.unix())
    return {"start": now - AROUND, "end": now + AROUND, "match[]": match}


def _text(answer: Reply) -> str:
    return answer.body.decode("utf-8", "replace")


def _json(answer: Reply) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None


def _reason(error: BaseException) -> str:
    words = str(error)
    for text in ("Connection refused", "Name or service not known", "certificate verify failed"):
        if text.lower() in words.lower():
            return text.lower()
    return type(error).__name__
