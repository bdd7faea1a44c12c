"""The names of all attributes, events, spans and metrics; no other module writes them.

`docs/semantic-conventions.md` is the same list for readers; a test compares the two.
"""

from __future__ import annotations

from typing import Final, NamedTuple

SCOPE: Final = "otel_progress"
PREFIX: Final = "progress."

# Attributes of an operation
OPERATION_ID: Final = "progress.operation.id"
OPERATION_NAME: Final = "progress.operation.name"
OPERATION_PARENT_ID: Final = "progress.operation.parent.id"
OPERATION_PARENT_NAME: Final = "progress.operation.parent.name"
OPERATION_PARENT_SERVICE: Final = "progress.operation.parent.service"
"""The parent's service as in the label `job` of Prometheus: its name, after its namespace and a slash if it has one."""
OPERATION_ATTEMPT: Final = "progress.operation.attempt"
OPERATION_DESCRIPTION: Final = "progress.operation.description"
STAGE_NAME: Final = "progress.stage.name"
STAGE_PATH: Final = "progress.stage.path"
STAGE_CURRENT: Final = "progress.stage.current"
STATUS: Final = "progress.status"
STATUS_REASON: Final = "progress.status.reason"
STATUS_HINT: Final = "progress.status.hint"
HEALTH: Final = "progress.health"
HEALTH_REASON: Final = "progress.health.reason"
OVERDUE: Final = "progress.overdue"
COMPLETED: Final = "progress.completed"
RESTORED: Final = "progress.restored"
TOTAL: Final = "progress.total"
UNIT: Final = "progress.unit"
RATIO: Final = "progress.ratio"
RATIO_RAW: Final = "progress.ratio.raw"
RATE: Final = "progress.rate"
MESSAGE: Final = "progress.message"
SEQUENCE: Final = "progress.sequence"
KEYFRAME: Final = "progress.keyframe"
UNSET: Final = "progress.unset"
START_TIME: Final = "progress.start_time"
ELAPSED: Final = "progress.elapsed"
ETA: Final = "progress.eta"
ETA_LOW: Final = "progress.eta.low"
ETA_HIGH: Final = "progress.eta.high"
ETA_SOURCE: Final = "progress.eta.source"
ETA_RUNS: Final = "progress.eta.runs"
IDLE: Final = "progress.idle"
STALL_AFTER: Final = "progress.stall_after"
UPDATE_PAUSE: Final = "progress.update.pause"
STALL_AFTER_SOURCE: Final = "progress.stall_after.source"
SLOW_AFTER: Final = "progress.slow_after"
SLOW_AFTER_SOURCE: Final = "progress.slow_after.source"
START_WITHIN: Final = "progress.start_within"
WAIT_REASON: Final = "progress.wait.reason"
WAIT_REMAINING: Final = "progress.wait.remaining"
WAIT_DURATION: Final = "progress.wait.duration"
WAIT_OVERDUE_BY: Final = "progress.wait.overdue_by"
STAGES: Final = "progress.stages"
STAGES_FOLDED: Final = "progress.stages.folded"
STAGES_REPEATED: Final = "progress.stages.repeated"
OUTCOMES: Final = "progress.outcomes"
USAGE: Final = "progress.usage"
RESULT: Final = "progress.result"
COUNTERS: Final = "progress.counters"
COMPONENTS: Final = "progress.components"
CHILD_OUTCOMES: Final = "progress.child_outcomes"
FAILURES: Final = "progress.failures"
CURVE: Final = "progress.curve"
RESOURCES: Final = "progress.resources"
ATTRIBUTES: Final = "progress.attributes"
DROPPED: Final = "progress.dropped"
CANCEL_REQUESTED: Final = "progress.cancel_requested"
OBSERVED: Final = "progress.observed"
LAST_HEARTBEAT: Final = "progress.last_heartbeat"
LOOP: Final = "progress.loop"
OF: Final = "progress.of"
STACK: Final = "progress.stack"
STUCK_AT: Final = "progress.stuck_at"
BRANCHES: Final = "progress.branches"
STUCK_BRANCHES: Final = "progress.stuck_branches"

# Attributes that the user sets and the product reads
OWNER: Final = "owner"

# Attributes of some events
NOTE_TEXT: Final = "progress.note.text"
NOTE_STATUS: Final = "progress.note.status"
OUTCOME: Final = "progress.outcome"
ITEM: Final = "progress.item"
ITEMS_UNSEEN: Final = "progress.items.unseen"
COMPONENT: Final = "progress.component"
STALL_DURATION: Final = "progress.stall.duration"
STAGE_ELAPSED: Final = "progress.stage.elapsed"
STAGE_STATUS: Final = "progress.stage.status"
CHECKPOINT_KEYS: Final = "progress.checkpoint.keys"

# What the resource of log events says, so that it is known without a heartbeat
SCHEMA: Final = "progress.schema"
HEARTBEAT_INTERVAL: Final = "progress.heartbeat.interval"

# Attributes of the heartbeat of a process
JUDGED_BY: Final = "progress.judged_by"
PROCESS_IN_FLIGHT: Final = "progress.process.in_flight"
PROCESS_LOOP_LAG: Final = "progress.process.loop_lag"

# How a lost process ended, as its watcher saw it
EXIT: Final = "progress.exit"
EXIT_CODE: Final = "progress.exit.code"
EXIT_SIGNAL: Final = "progress.exit.signal"
EXIT_OUT_OF_MEMORY: Final = "progress.exit.out_of_memory"
EXIT_STDERR: Final = "progress.exit.stderr"

# What a watcher needs to complete the trace of a lost process
SPAN_PARENT_ID: Final = "progress.span.parent_id"
SPAN_PARENT_REMOTE: Final = "progress.span.parent_remote"
SPAN_START_TIME: Final = "progress.span.start_time"
SPAN_KIND: Final = "progress.span.kind"

# Labels of metrics
TOKEN_DIRECTION: Final = "progress.token.direction"
CURRENCY: Final = "progress.currency"
DROP_REASON: Final = "progress.drop.reason"
DISK_DIRECTION: Final = "disk.io.direction"
LIMIT_NAME: Final = "progress.limit.name"

# From the GenAI conventions of OpenTelemetry
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_AGENT: Final = "gen_ai.agent.name"
GEN_AI_USAGE: Final = "gen_ai.usage"
"""With `.input_tokens` or `.output_tokens`."""
GEN_AI_INVOKE_AGENT: Final = "invoke_agent"

# Read from spans of the program, never sent; the first that is there counts
TOOL_NAMES: Final = ("gen_ai.tool.name", "tool.name")
TOOL_ARGUMENTS: Final = ("gen_ai.tool.call.arguments", "input.value", "tool.parameters")
TOOL_RESULTS: Final = ("gen_ai.tool.call.result", "tool_response", "output.value")
MODEL_NAMES: Final = ("gen_ai.request.model", "llm.model_name")
CONVERSATIONS: Final = ("gen_ai.conversation.id",)

# From OpenInference
LLM_TOKEN_COUNT: Final = "llm.token_count"
"""With `.prompt` or `.completion`; read from spans of other programs, never sent."""
INPUT_TOKENS: Final = (
    f"{GEN_AI_USAGE}.input_tokens",
    f"{LLM_TOKEN_COUNT}.prompt",
    f"{GEN_AI_USAGE}.prompt_tokens",
)
"""The attributes of a span that say how many tokens a model read; of several the first counts."""
OUTPUT_TOKENS: Final = (
    f"{GEN_AI_USAGE}.output_tokens",
    f"{LLM_TOKEN_COUNT}.completion",
    f"{GEN_AI_USAGE}.completion_tokens",
)
"""The same of those that it wrote."""

# From the conventions of OpenTelemetry for processes and hosts
SERVICE_NAME: Final = "service.name"
SERVICE_NAMESPACE: Final = "service.namespace"
ENVIRONMENT: Final = "deployment.environment.name"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
PROCESS_PID: Final = "process.pid"
PROCESS_CREATED: Final = "process.creation.time"
PROCESS_COMMAND_ARGS: Final = "process.command_args"
PROCESS_FOLDER: Final = "process.working_directory"
PROCESS_EXECUTABLE: Final = "process.executable.name"
"""Read from resources of other programs, never sent."""
PROCESS_CPU: Final = "process.cpu.utilization"
PROCESS_MEMORY: Final = "process.memory.usage"
HOST_NAME: Final = "host.name"

# Attributes of a resource that describe a process and do not identify it, by how they begin
DESCRIBING: Final = ("telemetry.", "os.", "process.command", "process.executable.", "process.runtime.", PROCESS_FOLDER)

# From the conventions of OpenTelemetry for events, before log records had a name of their own
EVENT_NAME: Final = "event.name"

# From the conventions of OpenTelemetry for exceptions
EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

# Events; log events and span events have the same names
OPERATION_STARTED: Final = "progress.operation.started"
OPERATION_ENDED: Final = "progress.operation.ended"
STAGE_STARTED: Final = "progress.stage.started"
STAGE_ENDED: Final = "progress.stage.ended"
UPDATED: Final = "progress.updated"
HEARTBEAT: Final = "progress.heartbeat"
PROCESS_HEARTBEAT: Final = "progress.process.heartbeat"
NOTE: Final = "progress.note"
WAIT_STARTED: Final = "progress.wait.started"
WAIT_ENDED: Final = "progress.wait.ended"
STALLED: Final = "progress.stalled"
RECOVERED: Final = "progress.recovered"
WAIT_OVERDUE: Final = "progress.wait.overdue"
SLOW: Final = "progress.slow"
CHECKPOINT: Final = "progress.checkpoint"

EVENTS: Final = frozenset(
    {
        OPERATION_STARTED,
        OPERATION_ENDED,
        STAGE_STARTED,
        STAGE_ENDED,
        UPDATED,
        HEARTBEAT,
        PROCESS_HEARTBEAT,
        NOTE,
        WAIT_STARTED,
        WAIT_ENDED,
        STALLED,
        RECOVERED,
        WAIT_OVERDUE,
        SLOW,
        CHECKPOINT,
    }
)

# Events of single items, for handlers that ask for them; they never leave the process
ITEM_STARTED: Final = "progress.item.started"
ITEM_COMPLETED: Final = "progress.item.completed"

ITEM_EVENTS: Final = frozenset({ITEM_STARTED, ITEM_COMPLETED})

# Proposed events of the GenAI conventions, on the spans of operations with an agent
GEN_AI_PAUSED: Final = "gen_ai.agent.paused"
GEN_AI_RESUMED: Final = "gen_ai.agent.resumed"
GEN_AI_CHECKPOINTED: Final = "gen_ai.agent.checkpointed"

GEN_AI_EVENTS: Final = frozenset({GEN_AI_PAUSED, GEN_AI_RESUMED, GEN_AI_CHECKPOINTED})

# Attributes of an event beside its snapshot; users can't set other names that begin with PREFIX
EVENT_ATTRIBUTES: Final = frozenset(
    {
        NOTE_TEXT,
        NOTE_STATUS,
        OUTCOME,
        ITEM,
        COMPONENT,
        WAIT_REASON,
        WAIT_DURATION,
        WAIT_OVERDUE_BY,
        STALL_DURATION,
        STAGE_ELAPSED,
        STAGE_STATUS,
        HEALTH_REASON,
        STACK,
        STUCK_AT,
        STUCK_BRANCHES,
        PROCESS_LOOP_LAG,
        CHECKPOINT_KEYS,
    }
)

# Events that the budget may hold back; all others change the state, and are always sent
RATIONED: Final = frozenset({UPDATED, HEARTBEAT, NOTE, CHECKPOINT})

# The value of OF
OF_STAGE: Final = "stage"

# The values of DROP_REASON
DROP_OUTSIDE: Final = "outside_operation"
DROP_BUDGET: Final = "event_budget"
DROP_FOLDED: Final = "stage_events_folded"
DROP_QUEUE: Final = "change_queue"
DROP_OUTBOX: Final = "outbox"
DROP_REJECTED: Final = "rejected"
DROP_RUN_SERIES: Final = "run_series_cap"
DROP_SPAN_EVENTS: Final = "span_events"
DROP_TEXT: Final = "text_cut"
DROP_ATTRIBUTE: Final = "attribute"
DROP_VALUE: Final = "bad_value"
DROP_LISTENER: Final = "listener"
DROP_LISTENER_ERROR: Final = "listener_error"
DROP_STAGE_NAME: Final = "stage_name_cap"
DROP_LIVE_SPANS: Final = "live_spans_cap"
DROP_ERROR: Final = "internal_error"


class Metric(NamedTuple):
    """A metric's name, unit and meaning."""

    name: str
    unit: str
    description: str


ACTIVE: Final = Metric("progress.operation.active", "{operation}", "Operations that run now, by name.")
STARTED: Final = Metric("progress.operation.started", "{operation}", "Operations started, by name.")
ENDED: Final = Metric("progress.operation.ended", "{operation}", "Operations ended, by name and status.")
OPERATION_DURATION: Final = Metric("progress.operation.duration", "s", "From the start of an operation to its end.")
STAGE_DURATION: Final = Metric("progress.stage.duration", "s", "From the start of a stage to its end.")
STALL_RATIO: Final = Metric(
    "progress.operation.stall_ratio", "1", "The worst idle / stall_after of a name's operations."
)
UNITS_COMPLETED: Final = Metric("progress.units.completed", "{unit}", "Units of work completed.")
TOKENS: Final = Metric("progress.tokens", "{token}", "Tokens used, by direction.")
COST: Final = Metric("progress.cost", "{currency}", "Money spent, by currency.")
LIMIT_SIZE: Final = Metric(
    "progress.limit.size", "{task}", "Tasks that a limit of concurrency lets through at once, by its name."
)
PROCESS_CPU_TIME: Final = Metric("process.cpu.time", "s", "CPU time of the process and of its children that ended.")
PROCESS_CPU_UTILIZATION: Final = Metric(PROCESS_CPU, "1", "CPU utilisation of the process lately, in cores.")
PROCESS_MEMORY_USAGE: Final = Metric(PROCESS_MEMORY, "By", "Resident memory of the process.")
PROCESS_THREADS: Final = Metric("process.thread.count", "{thread}", "Threads of the process.")
PROCESS_DISK_IO: Final = Metric("process.disk.io", "By", "Bytes read from disks and written to them.")
DROPS: Final = Metric("progress.sdk.dropped", "{item}", "What a limit of the SDK dropped, by reason.")

RUN_ACTIVE: Final = Metric("progress.run.active", "{operation}", "1 while the run is going on, at the end 0.")
RUN_PARENT: Final = Metric(
    "progress.run.parent", "{operation}", "1 while the run is going on; its labels name its parent."
)
RUN_ENDED: Final = Metric("progress.run.ended", "s", "When the run ended (Unix); its status is a label.")
RUN_START_TIME: Final = Metric("progress.run.start_time", "s", "When the run started (Unix).")
RUN_IDLE: Final = Metric("progress.run.idle", "s", "Since the last progress, by the monotonic clock.")
RUN_LAST_HEARTBEAT: Final = Metric("progress.run.last_heartbeat", "s", "When the work last gave a heartbeat (Unix).")
RUN_STALL_AFTER: Final = Metric("progress.run.stall_after", "s", "The idle time at which it counts as stuck.")
RUN_SLOW_AFTER: Final = Metric("progress.run.slow_after", "s", "The run time at which it counts as slow.")
RUN_ETA: Final = Metric("progress.run.eta", "s", "Estimated time to the end, of the run or of its current stage.")
RUN_WAIT_REMAINING: Final = Metric(
    "progress.run.wait_remaining", "s", "Until the declared wait is overdue; negative after that."
)
RUN_OVERDUE_AFTER: Final = Metric(
    "progress.run.overdue_after", "s", "The limit of the declared wait that is overdue; afterwards 0."
)
RUN_RATIO: Final = Metric("progress.run.ratio", "1", "Progress from 0 to 1, as it is shown.")
RUN_HEALTH: Final = Metric(
    "progress.run.health", "{operation}", "1 for the verdict that stands, 0 for the one before it; it is a label."
)
RUN_PENDING: Final = Metric("progress.run.pending", "s", "Since it was made, while it has not started; then 0.")
RUN_START_WITHIN: Final = Metric("progress.run.start_within", "s", "The pending time within which it should start.")
RUN_COMPLETED: Final = Metric("progress.run.completed", "{unit}", "Units completed, in all or in the current stage.")
RUN_TOTAL: Final = Metric("progress.run.total", "{unit}", "Units of the run, or of its current stage.")
RUN_LOOP_REPEATS: Final = Metric("progress.run.loop.repeats", "{repeat}", "How often a loop repeated; afterwards 0.")
RUN_LOOP_TOKENS: Final = Metric("progress.run.loop.tokens", "{token}", "Tokens that a loop used; afterwards 0.")
RUN_LOOP_COST: Final = Metric("progress.run.loop.cost", "{currency}", "Money that a loop spent; afterwards 0.")
RUN_LOST: Final = Metric("progress.run.lost", "s", "When its process was found to be gone (Unix).")

METRICS: Final = (
    ACTIVE,
    STARTED,
    ENDED,
    OPERATION_DURATION,
    STAGE_DURATION,
    STALL_RATIO,
    UNITS_COMPLETED,
    TOKENS,
    COST,
    LIMIT_SIZE,
    PROCESS_CPU_TIME,
    PROCESS_CPU_UTILIZATION,
    PROCESS_MEMORY_USAGE,
    PROCESS_THREADS,
    PROCESS_DISK_IO,
    DROPS,
    RUN_ACTIVE,
    RUN_PARENT,
    RUN_ENDED,
    RUN_START_TIME,
    RUN_IDLE,
    RUN_LAST_HEARTBEAT,
    RUN_STALL_AFTER,
    RUN_SLOW_AFTER,
    RUN_ETA,
    RUN_WAIT_REMAINING,
    RUN_OVERDUE_AFTER,
    RUN_RATIO,
    RUN_HEALTH,
    RUN_COMPLETED,
    RUN_TOTAL,
    RUN_LOOP_REPEATS,
    RUN_LOOP_TOKENS,
    RUN_LOOP_COST,
    RUN_PENDING,
    RUN_START_WITHIN,
    RUN_LOST,
)

CONTROL_HEADER: Final = "Otel-Progress-Control"
"""The header of responses to OTLP logs that names the control channel; in gRPC, metadata in lower case."""

DISCARDS_HEADER: Final = "Otel-Progress-Discards"
"""The header of responses to OTLP metrics of a receiver that keeps none: `metrics`; in gRPC, metadata in lower case."""

OTHER_STAGE: Final = "_other"
"""The label of stage names after the first 30 of an operation's name, and of operation names after the first 1000."""
