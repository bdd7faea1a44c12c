"""The findings of `doctor`, each with its fix, and the lines of its report.

The table is the same as in `docs/doctor.md`; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple


class Level(str, Enum):
    """The severity of a line of the report."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Kind(NamedTuple):
    """A kind of finding: its severity, its meaning, and its fix."""

    level: Level
    meaning: str
    fix: str


_ERROR, _WARNING = Level.ERROR, Level.WARNING
KINDS: Final = {
    # settings
    "package_missing": Kind(_ERROR, "a package that is needed is not installed", 'Run: pip install "{package}"'),
    "package_old": Kind(
        _ERROR, "a package is older than what otel-progress needs", 'Run: pip install --upgrade "{package}"'
    ),
    "value_ignored": Kind(
        _WARNING, "a variable is invalid, so the default is used", "Correct the variable, or unset it."
    ),
    "scheme_missing": Kind(
        _WARNING,
        "an address for OTLP over HTTP names no scheme, so the default is used",
        "Write http://{address} in {variable}.",
    ),
    "disabled": Kind(_ERROR, "`OTEL_SDK_DISABLED` turns all telemetry off", "Unset OTEL_SDK_DISABLED."),
    "exporter_off": Kind(
        _WARNING, "a signal is not sent over OTLP", "Unset {variable}, or set it to otlp, unless this is intended."
    ),
    "endpoints_differ": Kind(
        _WARNING,
        "the signals go to different receivers",
        "Unset {variable} and set OTEL_EXPORTER_OTLP_ENDPOINT alone, unless this is intended.",
    ),
    "interval_blind": Kind(
        _ERROR,
        "metrics are sent so rarely that alerts on stuck and lost operations are blind",
        "Set OTEL_METRIC_EXPORT_INTERVAL to 60000 (ms) or less.",
    ),
    "timeout_unit": Kind(
        _WARNING,
        "a timeout looks like milliseconds, but Python's exporters read seconds",
        "Set {variable} in seconds, or unset it.",
    ),
    "timeout_short": Kind(
        _WARNING, "a timeout is so short that requests may fail too early", "Unset {variable}, or set it to 1."
    ),
    # endpoint
    "address": Kind(_ERROR, "the endpoint is not a valid address", "Write it as in http://localhost:4318."),
    "name_unknown": Kind(
        _ERROR,
        "the name of the endpoint does not resolve",
        "Correct the name in {variable}; in containers, take the name of the service, not localhost.",
    ),
    "refused": Kind(
        _ERROR,
        "nothing listens there",
        "Start `otel-progress monitor` or a Collector (otelcol --config collector-config/local.yaml) there, or "
        "name the right address in {variable}.",
    ),
    "unreachable": Kind(
        _ERROR,
        "no connection can be made",
        "Check firewalls, the network, and the address in {variable}.",
    ),
    "hangs": Kind(
        _ERROR,
        "a connection is made, but no answer comes in time",
        "Check whether the receiver is overloaded or stopped, or is not an OTLP receiver at all.",
    ),
    "port_of_grpc": Kind(
        _ERROR,
        "HTTP is sent to a port that speaks gRPC",
        'Use the port for HTTP (4318 on a Collector), or set {protocol}=grpc (pip install "otel-progress[grpc]").',
    ),
    "port_of_http": Kind(
        _ERROR,
        "gRPC is sent to a port that speaks HTTP/1",
        "Use the port for gRPC (4317 on a Collector), or set {protocol}=http/protobuf.",
    ),
    "path": Kind(
        _ERROR,
        "the receiver does not know this path or service",
        "Give {shared} without a path and {own} with /v1/{signal}; or add a pipeline for {signal} to the Collector.",
    ),
    "tls_needed": Kind(_ERROR, "plain text is sent to a port that speaks TLS", "Write https:// in {variable}."),
    "tls_not_spoken": Kind(_ERROR, "TLS is used with a port that does not speak it", "Write http:// in {variable}."),
    "certificate_untrusted": Kind(
        _ERROR,
        "the receiver's certificate comes from an authority that is not trusted",
        "Set OTEL_EXPORTER_OTLP_CERTIFICATE to a file with the certificate of its authority.",
    ),
    "certificate_expired": Kind(
        _ERROR,
        "the receiver's certificate is not valid at this time",
        "Renew the receiver's certificate; where it looks fresh, correct this machine's clock.",
    ),
    "certificate_name": Kind(
        _ERROR,
        "the receiver's certificate is for another name",
        "Name the receiver in {variable} as its certificate does, or have it made for this name.",
    ),
    "certificate_file": Kind(
        _ERROR, "a file with a certificate or key is unusable", "Correct the path in {variable}, and its permissions."
    ),
    "client_certificate": Kind(
        _ERROR,
        "the receiver requires a client certificate, or refuses the one it got",
        "Set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY to files that it accepts.",
    ),
    "unauthorized": Kind(
        _ERROR,
        "the receiver requires authentication (401)",
        "Set OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN, or what your receiver requires.",
    ),
    "forbidden": Kind(
        _ERROR,
        "the receiver denies access (403)",
        "Ask for permission to write {signal}, or use another token in OTEL_EXPORTER_OTLP_HEADERS.",
    ),
    "other_name": Kind(
        _ERROR,
        "the receiver does not answer to this name (421)",
        "Start the monitor with --allowed-host {host}, or name the receiver as it knows itself.",
    ),
    "redirected": Kind(_ERROR, "the receiver redirects requests", "Name the address it points to in {variable}."),
    "proxy": Kind(
        _ERROR,
        "the proxy can't be reached, or requires authentication",
        "Correct the proxy's variable, or add {host} to NO_PROXY.",
    ),
    "too_large": Kind(
        _ERROR, "the receiver takes no request of this size (413)", "Raise its limit to 4 MiB (max_request_body_size)."
    ),
    "busy": Kind(
        _ERROR,
        "the receiver asks to retry later (429, 503)",
        "Check its own metrics and log: a full queue, a rate limit, or an unreachable backend.",
    ),
    "gateway": Kind(
        _ERROR,
        "a gateway answers, but the receiver behind it does not (502, 504)",
        "Start the receiver behind the gateway, or correct the gateway's target.",
    ),
    "refused_data": Kind(
        _ERROR,
        "the receiver can't read the request",
        "Name an OTLP receiver in {variable}; set OTEL_EXPORTER_OTLP_COMPRESSION=none if it can't read gzip.",
    ),
    "web_page": Kind(
        _ERROR, "a web page answers, not an OTLP receiver", "Name the receiver's own address and port in {variable}."
    ),
    "not_otlp": Kind(_ERROR, "what answers is not an OTLP receiver", "Name an OTLP receiver in {variable}."),
    "failed": Kind(_ERROR, "a request failed in another way", "Read the message above, and the receiver's log."),
    # clock
    "batch_items": Kind(
        _WARNING,
        "the monitor refused too large requests: something before it, such as a Collector, batches by items",
        "Batch by bytes: sending_queue.batch with sizer: bytes and max_size: 2097152, as in collector-config/.",
    ),
    "sender_mistakes": Kind(
        _WARNING,
        "a program sends the monitor events that it can't use as they are",
        "Correct that program: docs/semantic-conventions.md has each name, type and unit; /health counts the mistakes.",
    ),
    "clock_skew": Kind(
        _WARNING,
        "two clocks differ by more than 10 s, so alerts fire early or late, and events of machines get out of order",
        "Synchronise both clocks by NTP (timedatectl set-ntp true).",
    ),
    # test operation
    "operation_failed": Kind(
        _ERROR,
        "the test operation could not run",
        "Read the message above; `python -c 'import otel_progress'` must work.",
    ),
    "not_sent": Kind(
        _ERROR,
        "nothing was sent for a signal within the time",
        "Give it more time with --timeout; for spans, check OTEL_TRACES_SAMPLER.",
    ),
    "not_sampled": Kind(
        _WARNING,
        "the sampler dropped the trace of the test operation",
        "Raise OTEL_TRACES_SAMPLER_ARG, or set OTEL_TRACES_SAMPLER=parentbased_always_on.",
    ),
    "not_accepted": Kind(_ERROR, "what was sent was not accepted", "Read the message above, and the receiver's log."),
    "partly_rejected": Kind(
        _ERROR,
        "the receiver took a request, but rejected some of its items (partial success)",
        "Read the message above: the receiver's limits or rules reject them.",
    ),
    "no_run_series": Kind(
        _WARNING,
        "series by operation id are turned off, so alerts can't see a run",
        "Unset OTEL_PROGRESS_RUN_SERIES_MAX.",
    ),
    "run_series_late": Kind(
        _WARNING,
        "operations get series of their own so late that alerts come late, and of short ones never",
        "Unset OTEL_PROGRESS_RUN_SERIES_AFTER, or set it to 5 (s).",
    ),
    "temporality_delta": Kind(
        _WARNING,
        "counters are sent as deltas, which Prometheus drops",
        "Unset OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, or have the Collector make them cumulative "
        "(deltatocumulative).",
    ),
    "instance_given": Kind(
        Level.NOTE,
        "`service.instance.id` is given, so counters of a further process under it can look like no news to alerts",
        "Remove service.instance.id from OTEL_RESOURCE_ATTRIBUTES, unless each process gets its own.",
    ),
    # end to end
    "backend_away": Kind(_ERROR, "a backend can't be reached", "Start it, or correct {option}."),
    "backend_forbids": Kind(
        _ERROR, "a backend denies access (401, 403)", "Write {option} http://user:password@host:port."
    ),
    "backend_wrong": Kind(_ERROR, "something other than this backend answers", "Name its own address in {option}."),
    "series_missing": Kind(
        _ERROR,
        "the run series did not arrive in Prometheus",
        "Add a metrics pipeline to Prometheus in the Collector and check its log; allow old samples by "
        "tsdb: {{out_of_order_time_window: 30m}}.",
    ),
    "otlp_receiver_off": Kind(
        _ERROR,
        "the run series did not arrive, and Prometheus does not accept OTLP",
        "Start Prometheus with --web.enable-otlp-receiver, or have the Collector write to it by remote write.",
    ),
    "names_unescaped": Kind(
        _ERROR,
        "Prometheus keeps the dots in names, so rules and dashboards don't find them",
        "Set otlp: {{translation_strategy: UnderscoreEscapingWithSuffixes}} in Prometheus.",
    ),
    "rules_missing": Kind(
        _WARNING,
        "Prometheus has no alert rules, so nobody is told of a run that hangs or is killed",
        "Load rules.yaml, panels.yaml and links.yaml in Prometheus: grafana/alerts/README.md, Install.",
    ),
    "labels_renamed": Kind(
        _ERROR,
        "Prometheus renames the labels `job` and `instance` of the series, so alerts take all jobs for one",
        "Set honor_labels: true in the scrape configuration of the Collector's prometheus exporter.",
    ),
    "rules_incomplete": Kind(
        _WARNING,
        "Prometheus lacks files of rules, so dashboards are empty, or nobody hears that it stopped",
        "Add them to rule_files: grafana/alerts/README.md, Install.",
    ),
    "rules_fail": Kind(
        _WARNING,
        "Prometheus can't evaluate some of the rules, so alerts are missing",
        "Load the rules of this version anew, each file once, in Prometheus 2.42 or newer; see its page Rules.",
    ),
    "alerts_fire": Kind(
        _WARNING,
        "alerts fire now; PipelineDown holds back all others",
        "Look at them in Prometheus (Alerts); docs/runbook.md says what each means.",
    ),
    "collector_down": Kind(
        _WARNING,
        "Prometheus can't scrape a Collector's own metrics",
        "Start that Collector, or correct the address of its own metrics (port 8888) in the job otel-collector.",
    ),
    "alertmanager_missing": Kind(
        _WARNING,
        "Prometheus has the alert rules, but sends alerts to no Alertmanager",
        "Name it under `alerting` in Prometheus, and check that it runs, unless others send the alerts.",
    ),
    "collector_unscraped": Kind(
        _WARNING,
        "Prometheus does not scrape the Collector's own metrics, so an outage makes every run look lost",
        "Scrape them each 15 s under the job name otel-collector: collector-config/README.md, Prometheus.",
    ),
    "link_unset": Kind(
        _WARNING,
        "alerts have links without an address",
        "Set the address in grafana/alerts/links.yaml, or by `otel-progress assets`, and load that file in Prometheus.",
    ),
    "link_invalid": Kind(
        _WARNING,
        "alerts have links with an invalid address",
        "Write it in links.yaml as in https://host/path, without ?, # or a slash at its end.",
    ),
    "link_unreachable": Kind(
        _WARNING,
        "an address in the links of alerts does not answer (only with `--links`)",
        "Correct it in links.yaml, or start that program, unless only others can reach it.",
    ),
    "events_missing": Kind(
        _ERROR,
        "the log events did not arrive in Loki",
        "Add a logs pipeline to Loki (otlp_http to http://loki:3100/otlp) in the Collector, and check its log.",
    ),
    "event_name_missing": Kind(
        _ERROR,
        "the log events arrived in Loki without their event names",
        "Keep the attribute event.name of log records in the Collector: no processor may drop it.",
    ),
    "trace_missing": Kind(
        _ERROR,
        "the trace did not arrive in Tempo",
        "Add a traces pipeline to Tempo in the Collector, exclude operations from tail sampling, and check its log.",
    ),
}


@dataclass(frozen=True)
class ReportLine:
    """One line of the report.

    Attributes:
        step: the step of the examination.
        level: its severity.
        text: what was found.
        code: its key in `KINDS`; empty if nothing is wrong.
        fix: how to fix it.
        signals: the signals that it concerns.
        seconds: how long it took, or the delay.
    """

    step: str
    level: Level
    text: str
    code: str = ""
    fix: str = ""
    signals: tuple[str, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True)
class Problem:
    """A problem: its key in `KINDS`, its description, and the values for its fix."""

    code: str
    text: str
    about: tuple[tuple[str, str], ...] = ()

    def line(self, step: str, signals: tuple[str, ...] = (), **about: str) -> ReportLine:
        """Its line in the report; `about` supplies values for the fix that the problem lacks."""
        kind = KINDS[self.code]
        fix = kind.fix.format(**{**about, **dict(self.about)})
        return ReportLine(step, kind.level, self.text, self.code, fix, signals)


def problem(code: str, text: str, **about: str) -> Problem:
    """Make a problem; `about` holds the values for its fix."""
    return Problem(code, text, tuple(about.items()))
