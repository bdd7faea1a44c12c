"""The schemas of the OpenAPI document: what the routes return, and what processes send."""

from __future__ import annotations

from typing import Final

from otel_progress.model.states import STATES, TROUBLE
from otel_progress.model.status import Health, Status, word
from otel_progress.monitor.intake.mistakes import KINDS
from otel_progress.monitor.state.room import REASONS as ASIDE_REASONS
from otel_progress.monitor.web.openapi_terms import (
    Json,
    boolean,
    integer,
    list_of,
    map_of,
    number,
    object_of,
    or_null,
    ratio,
    ref,
    seconds,
    text,
    time,
)

STATUSES: Final = [status.value for status in Status if status is not Status.SKIPPED]
"""The status words of an operation."""


def schemas() -> Json:
    """All schemas, by name."""
    return {
        "Error": object_of(("error",), error=text("What is wrong, and what to do.")),
        "OtlpError": object_of(("message",), message=text("What is wrong.")),
        "Health": object_of(
            ("status", "product", "version", "pid"),
            status=text(enum=["ok", "degraded"]),
            product=text(const="otel-progress"),
            version=text(),
            pid=integer(),
            temporary=boolean("Present if it ends with a command, as a monitor of `run -f` does."),
            operations=object_of(
                ("running", "trouble", "stored"),
                running=integer(),
                trouble=integer("Running operations in trouble."),
                stored=integer("Stored operations that ended."),
            ),
            records=object_of(
                (),
                taken=integer("Records that were stored."),
                refused=integer("Records that were refused although their request was accepted: invalid or too large."),
            ),
            readers=integer("Connected readers of streams."),
            denied=integer("Requests with an unknown token."),
            unshown=integer("Operations that lists leave out because they cannot be shown."),
            intake=object_of(
                ("waiting", "refused", "no_room", "too_fast", "client_gone", "too_large", "records", "too_slow"),
                waiting=integer("Requests in the queue."),
                refused=integer("Requests refused, for whatever reason."),
                no_room=integer("Requests refused because the queue was full."),
                too_fast=integer("Requests refused because one client sent too many per second."),
                client_gone=integer("Requests dropped because the client disconnected while they were queued."),
                too_large=integer("Requests refused because they were too large."),
                records=integer("Records and spans skipped because they were too large."),
                too_slow=integer("Bodies and calls aborted because they arrived slowly while many others did."),
            ),
            mistakes=object_of(
                ("newest",),
                newest=text("The last mistake that was told, with its sender."),
                fields=map_of(integer()),
                **{kind: integer() for kind in KINDS},
            ),
            clocks=object_of(
                ("wrong", "newest"),
                wrong=integer("Processes whose clock is more than 10 s ahead of the monitor's or behind it."),
                newest=text("What is wrong with the clock of the last one, with its instance."),
            ),
            keyframes=object_of(
                ("missing", "newest"),
                missing=integer(
                    "Open operations whose updates can't be read, as they build on events that never arrived."
                ),
                newest=text("The id of the last one."),
            ),
            put_aside=object_of(
                (),
                **{reason: integer() for reason in ASIDE_REASONS},
                newest=text("The last message about operations that were put aside to make room, with its sender."),
                trouble=text("The same, if it was within the last minute."),
            ),
            redis=object_of(
                ("published", "dropped", "taken", "skipped", "lost", "lag"),
                published=integer("Entries written to Redis."),
                dropped=integer("Entries that could not be written."),
                taken=integer("Entries of other monitors that were stored."),
                skipped=integer("Entries of other monitors that could not be read."),
                lost=integer("Entries trimmed from the stream before they were read."),
                lag=or_null(integer("Entries not read yet.")),
                skipped_why=text("Why the last skipped entry could not be read."),
                trouble=text("Why Redis is not usable."),
            ),
            forward=object_of(
                ("lost", "rejected"),
                lost=integer("Requests given up: refused for what they hold, or dropped because too many waited."),
                rejected=integer("Items that a receiver rejected from requests which it accepted."),
                trouble=text("Which signals the receiver has not accepted for 30 s, and why; they wait in the store."),
            ),
            trouble=text(
                "Why nothing can be stored, what is wrong with the file, or why forwarding or Redis does not work."
            ),
            loading=ref("Loading"),
            integrity=object_of(
                ("status",),
                status=text(
                    "The result of the last integrity check of the file.", enum=["not looked at yet", "ok", "damaged"]
                ),
                checked_at=number("When it was checked, in Unix seconds."),
                seconds=number("How long the check took, in seconds."),
            ),
        ),
        # Only after a start, until all earlier operations are loaded; only tokens that see everything get the counts.
        "Loading": object_of(
            (),
            loaded=integer("Operations loaded.", minimum=0),
            of=integer("Operations that were running before the start.", minimum=0),
        ),
        "Page": object_of(
            ("operations", "next", "total", "counts", "trouble", "position"),
            operations=list_of(ref("Row")),
            next=or_null(text("The cursor of the next page.")),
            total=integer(minimum=0),
            counts=map_of(integer("Operations in this state, over all pages.", minimum=0)),
            trouble=integer(f"Operations in trouble: {', '.join(sorted(TROUBLE))}.", minimum=0),
            position=text("The position from which `/stream` continues.", pattern="^[0-9a-f]+-[0-9]+$"),
            unshown=integer("Operations of this page that are left out because they cannot be shown."),
            loading=ref("Loading"),
        ),
        "Row": object_of(("id", "name", "status", "attempt", "timestamp", "revision"), **_row_fields()),
        "Child": object_of(
            ("id", "name", "status", "attempt", "timestamp", "revision"),
            **_row_fields(),
            description=text(),
            attributes=map_of({}),
        ),
        "Detail": object_of(
            ("id", "name", "status", "attempt", "timestamp", "revision"), **{**_row_fields(), **_detail_fields()}
        ),
        "Mute": object_of(
            ("since",),
            by=text("Who muted it."),
            reason=text(),
            since=time(),
            until=time("When webhooks speak of it again; without it, when the attempt ends."),
            through=text("The operation above it that is muted, if it is not muted itself."),
        ),
        "AskedMute": object_of(
            (),
            by=or_null(text("Who mutes it.", maxLength=100)),
            reason=or_null(text(maxLength=500)),
            until=or_null(time("When webhooks speak of it again; by default when the attempt ends.")),
        )
        | {"additionalProperties": False},
        "Verdict": _verdict(),
        "Eta": _eta(),
        "Progress": _progress(),
        "Stage": _stage(),
        "Statistics": _statistics(),
        "Wait": object_of((), reason=text(), elapsed=seconds(), overdue_after=seconds()),
        "Events": object_of(
            ("events", "next"),
            events=list_of(ref("Event")),
            next=or_null(integer("`after`, or `before`, of the next page.")),
        ),
        "Event": _event(),
        "Cancel": object_of(
            ("state",), state=text(enum=["obeyed", "received", "timed out"]), detail=text("The outcome in words.")
        ),
        "Asked": _control_poll(),
        "Commands": object_of(
            ("commands",),
            commands=list_of(
                {
                    "anyOf": [
                        object_of(
                            ("id", "kind", "operation_id", "reason"),
                            id=text(),
                            kind=text("Cancel the operation, or log the reason as a warning.", enum=["cancel", "warn"]),
                            operation_id=text(),
                            attempt=integer(),
                            reason=text(),
                        ),
                        object_of(
                            ("do", "ids"),
                            do=text("Send all updates for some seconds, or whole events.", enum=["live", "keyframe"]),
                            ids=or_null(list_of(text())),
                            **{"for": number()},
                        ),
                    ]
                }
            ),
        ),
    }


def _row_fields() -> Json:
    return {
        "id": text(),
        "name": text(),
        "status": text(enum=STATUSES),
        "state": text("The verdict in one word, or the final status.", enum=list(STATES)),
        "trouble": boolean("Present if it is in trouble."),
        **_snapshot_fields(),
        "reason": text("The reason of a final status."),
        "hint": text("What to do about the failure, where the code said it."),
        "attempt": integer("The number of the attempt, counted over all processes."),
        "also_running": {**list_of(_rival_run()), "description": "Older runs of the same id that are still alive."},
        "warning": text(
            "Says that two processes run this id, that its updates can't be read as their keyframe is missing, or that "
            "the clock of its process is wrong."
        ),
        "muted": {**ref("Mute"), "description": "Present if webhooks are silent about it."},
        "presumed": boolean("Present if its loss is not proven: its next event undoes it."),
        "parent_id": text(),
        "labels": {**map_of({}), "description": "Short attributes of a child, to tell it apart from its siblings."},
        "agent": text(),
        "service": text(),
        "host": text(),
        "pid": integer(),
        "started_at": time(),
        "timestamp": time(
            "The time to which `elapsed`, `idle` and `wait` refer, by the clock of the process: the time of the "
            "response while the process is heard, otherwise that of its last sign of life; for an ended operation, its "
            "end."
        ),
        "as_of": time("When `elapsed`, `idle` and `wait` were computed, by the monitor's clock; absent once it ended."),
        "said_at": time("When its newest event happened."),
        "elapsed": seconds("At `timestamp`."),
        "idle": seconds("At `timestamp`."),
        "stage": text("The path of the innermost running stage."),
        "progress": ref("Progress"),
        "stage_progress": ref("Progress"),
        "wait": ref("Wait"),
        "stuck_at": text(),
        "cancel": text("Present if a cancel was requested.", const="requested"),
        "cost": map_of(number("Including its children, by currency.")),
        "tokens": map_of(number("Including its children, by direction.")),
        "children": integer(minimum=0),
        "ended": boolean("Present if it has ended."),
        "source": text("Known from spans only.", const="spans"),
        "revision": integer("Rises with each change; of two rows of an id, the higher one is newer."),
    }


def _rival_run() -> Json:
    return object_of(
        ("attempt", "instance"),
        attempt=integer(),
        started_at=time(),
        instance=text(),
        pid=integer(),
        host=text(),
    )


def _attempt() -> Json:
    return object_of(
        ("attempt",),
        attempt=integer(),
        started_at=time(),
        ended_at=time("Missing if no end was reported."),
        status=text(
            "Missing for an earlier attempt that is not known to run, and of which no end was reported.", enum=STATUSES
        ),
        reason=text(),
        signal=text("The signal that killed its process."),
        exit_code=integer(),
        ratio=ratio(),
        **{"from": ratio()},
    )


def _branch() -> Json:
    texts = ("label", "path", "lane", "child", "reason", "stuck_at")
    return object_of(
        ("label", "health"),
        health=text(enum=sorted({word(health) for health in Health})),
        idle=seconds(),
        stall_after=seconds(),
        wait=ref("Wait"),
        **{name: text() for name in texts},
    )


def _snapshot_fields() -> Json:
    """Fields with the names and meanings of `Snapshot.to_dict()`."""
    return {
        "operation_id": text("The same as `id`."),
        "percentage": or_null(number("From 0 to 100, including its children.")),
        "current_step": or_null(text("The message, or else the running stage.")),
        "eta": or_null(ref("Eta")),
        "verdict": or_null(ref("Verdict")),
    }


def _stage_fields() -> Json:
    """Fields of a detail with the names and meanings of `Snapshot.to_dict()`."""
    ended = object_of(
        ("stage", "status", "duration"),
        stage=text("Its path."),
        status=text(enum=STATUSES),
        started_at=or_null(time()),
        duration=or_null(seconds()),
        message=or_null(text()),
        reason=or_null(text()),
    )
    runs = object_of(
        ("path", "name", "count", "counts", "seconds", "median", "p90", "p95", "longest", "folded"),
        path=text(),
        name=text(),
        count=integer("Runs that ended."),
        counts=map_of(integer()),
        folded=integer("Runs that are not listed among the stages."),
        p99=or_null(seconds()),
        buckets={
            **list_of(list_of(integer())),
            "description": "Once it has ended: [bucket, runs], from which quantiles of many operations follow.",
        },
        **{name: seconds() for name in ("seconds", "median", "p90", "p95", "longest")},
    )
    return {
        "current_stage": or_null(integer("The index of the running stage, from 0.")),
        "total_stages": or_null(integer("Outermost stages, by name.")),
        "stages_completed": or_null(integer()),
        "failed_stage": or_null(text("The path of the last failed stage.")),
        "stage_history": list_of(ended),
        "average_stage_duration": or_null(seconds()),
        "elapsed_time": seconds(),
        "estimated_completion": or_null(text("A time, in ISO 8601; null during a declared wait.")),
        "updated_at": time(),
        "repeated": list_of(runs),
        "statistics": ref("Statistics"),
        "resources": or_null(_resources()),
    }


def _statistics() -> Json:
    """The statistics of an operation, as `Statistics.to_dict()`."""
    counts = ("ok", "failed", "skipped", "retried")
    tally = object_of(
        counts, **{name: integer() for name in counts}, success_rate=or_null(ratio()), others=map_of(integer())
    )
    quantiles = ("mean", "p50", "p90", "p99", "longest")
    spread = object_of(
        ("count", "total"), count=integer(), total=seconds(), **{name: or_null(seconds()) for name in quantiles}
    )
    amounts = ("units", "rate", "tokens", "cost", "cost_per_unit")
    stage = object_of(
        ("path", "runs", "items"),
        path=text(),
        runs=tally,
        durations=or_null(spread),
        items=tally,
        units=map_of(number()),
        tokens=map_of(number()),
        cost=map_of(number()),
        cpu_seconds=or_null(seconds()),
        peak_memory=or_null(number("In bytes.")),
    )
    return object_of(
        ("runs", "items", "stages", "failures"),
        runs=tally,
        durations=or_null(spread),
        items=tally,
        children=tally,
        stages=list_of(stage),
        components=map_of(tally),
        failures=list_of(object_of(("message", "count"), message=text(), count=integer())),
        curve={**list_of(list_of(number())), "description": "Seconds since the start, completed units."},
        **{name: map_of(number()) for name in amounts},
    )


def _resources() -> Json:
    """What the process of an operation used, as `Resources.to_dict()`."""
    amounts = ("memory", "peak_memory", "read_bytes", "written_bytes", "children_memory")
    return object_of(
        (),
        cpu_seconds=seconds("Since the start of the operation."),
        cpu=number("In cores, lately."),
        threads=integer(),
        children=integer(),
        **{name: number("In bytes.") for name in amounts},
    )


def _detail_fields() -> Json:
    """The fields of a detail that a row does not have."""
    timeline = object_of(
        ("kind", "from", "to"),
        kind=text(enum=["wait", "stall"]),
        stage=or_null(text()),
        to=or_null(time()),
        reason=or_null(text()),
        stuck_at=text(),
        **{"from": time()},
    )
    limits = ("stall_after", "slow_after", "start_within")
    sources = ("stall_after_source", "slow_after_source")
    anything: Json = {}
    return {
        **_stage_fields(),
        "description": text(),
        "attributes": map_of(anything),
        "result": map_of(anything),
        "outcomes": map_of(number()),
        "counters": map_of(number()),
        "usage": map_of(number("Without its children, as reported.")),
        "limits": object_of((), **{name: seconds() for name in limits}, **{name: text() for name in sources}),
        "stages": list_of(ref("Stage")),
        "folded": {**list_of(list_of(anything)), "description": "Older stages: status, how many, seconds."},
        "timeline": list_of(timeline),
        "attempts": {**list_of(_attempt()), "description": "Present if the id ran more than once; in order."},
        "checkpoint_at": time("When it last reported a checkpoint; present if it ended."),
        "sender_mistakes": list_of(text("What its process sends that cannot be used, in words.")),
        "command": object_of(
            ("args", "line"),
            args=list_of(text()),
            folder=text("Its working directory."),
            line=text("The line that starts it again in a POSIX shell."),
            masked=boolean("Secrets are masked, so they have to be filled in."),
            cut=boolean("It was too long to be kept."),
        ),
        "children_rows": list_of(ref("Child")),
        "ancestors": list_of(object_of(("id",), id=text(), name=text())),
        "stack": text(),
        "branches": {**list_of(_branch()), "description": "Lines of work that run in parallel, the worst first."},
        "loop": object_of((), kind=text(), keys=list_of(text()), repeats=integer()),
        "notes_url": text("The path of its history."),
        "trace": object_of(
            ("trace_id", "span_id", "sampled", "url"),
            trace_id=text(),
            span_id=text(),
            sampled=boolean(),
            url=or_null(text()),
        ),
        "process": object_of(
            ("instance", "heard_ago", "resource"),
            instance=text("Its `service.instance.id`, with pid and creation time if another process has the same."),
            pid=integer(),
            host=text(),
            service=text(),
            heard_ago=seconds(),
            heartbeat=seconds("The longest silence that it promises; three times as long means dead."),
            resource=map_of(anything),
        ),
        "control": boolean("Whether its process can be asked to cancel."),
    }


def _verdict() -> Json:
    texts = ("reason", "limit", "clock", "source", "seen")
    return object_of(
        ("health",),
        health=text(enum=sorted({word(health) for health in Health})),
        overdue=boolean(),
        frozen=boolean("The process is dead, and proven to be stopped."),
        child=text("The id of the child operation in another process that decides."),
        branch=text("The branch that decides."),
        seconds=seconds(),
        allowed=seconds(),
        **{name: text() for name in texts},
    )


def _eta() -> Json:
    return object_of(
        (), seconds=seconds(), low=seconds(), high=seconds(), source=text(), runs=integer("Earlier runs that it uses.")
    )


def _progress() -> Json:
    return object_of(
        (),
        percentage=number(),
        current_step=text(),
        ratio=ratio(),
        ratio_raw={
            **ratio(),
            "description": "The ratio of the counts, if it differs: `ratio` never falls, also if the total grows.",
        },
        completed=number(),
        restored=number("Those of the completed units that an earlier attempt completed."),
        total=number(),
        unit=text(),
        rate=number("Units per second."),
        eta=ref("Eta"),
        rolled_up=boolean("Computed from its children."),
    )


def _stage() -> Json:
    anything: Json = {}
    numbers = ("weight", "expected", "started_at", "elapsed", "idle", "cpu_seconds", "peak_memory")
    return object_of(
        ("name", "path", "status", "progress"),
        name=text(),
        path=text(),
        status=text(enum=[status.value for status in Status]),
        planned=boolean(),
        progress=ref("Progress"),
        message=text(),
        reason=text(),
        description=text(),
        wait=ref("Wait"),
        critical=boolean(),
        depends_on=list_of(text()),
        attributes=map_of(anything),
        outcomes=map_of(number()),
        counters=map_of(number()),
        usage=map_of(number("What it spent itself.")),
        child_outcomes=map_of(number("Child operations of its process that ended inside it.")),
        **{name: number() for name in numbers},
    )


def _event() -> Json:
    return object_of(
        ("id", "timestamp", "event", "text", "operation_id", "attempt", "sequence"),
        id=integer(),
        timestamp=time(),
        event=text(),
        text=text(),
        operation_id=text(),
        attempt=integer(),
        sequence=integer(),
        stage=text(),
        agent=text(),
        status=text(),
        ratio=ratio(),
        attributes=map_of({}),
    )


def _control_poll() -> Json:
    answer = object_of(
        ("command", "state"),
        command=text(minLength=1, maxLength=200),
        state=text(enum=["received", "refused", "unknown"]),
        detail=text(),
    )
    return object_of(
        ("instance",),
        instance=text("The `service.instance.id` of the process.", minLength=1, maxLength=200),
        pid={"type": ["integer", "null"], "minimum": 0, "maximum": 2**32},
        answers={**list_of(answer), "maxItems": 1_000},
        wait=number("Seconds to wait for commands; 60 at most.", minimum=0),
        does=list_of(text("A command besides cancel that the process knows: `live`, `keyframe`.")),
    )
