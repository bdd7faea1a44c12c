// Reports progress by OpenTelemetry's own OTLP exporter, without an SDK of otel-progress. docs/protocol.md is what it follows.
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { performance } from "node:perf_hooks";
import { SeverityNumber, type AnyValueMap, type Logger } from "@opentelemetry/api-logs";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchLogRecordProcessor, LoggerProvider } from "@opentelemetry/sdk-logs";

const HEARTBEAT = 5; // seconds
const now = () => Date.now() / 1000;

type Status = "running" | "waiting" | "completed" | "failed" | "cancelled";
type Stage = {
  path: string; status: Status; started_at: number; completed: number; total: number; unit?: string; elapsed?: number; reason?: string;
};
type Options = { unit?: string; stallAfter?: number };

/** What one process reports: heartbeats, its operations, and the requests to cancel them. */
export class Reporter {
  readonly operations = new Map<string, Operation>();
  readonly logger: Logger;
  private readonly provider: LoggerProvider;
  private readonly instance = randomUUID();
  private readonly timers: NodeJS.Timeout[];
  private readonly closed = new AbortController();

  constructor(service: string, private readonly endpoint = process.env.OTEL_EXPORTER_OTLP_ENDPOINT ?? "http://localhost:4318") {
    const resource = resourceFromAttributes({
      "service.name": service, "service.instance.id": this.instance, "host.name": hostname(), "process.pid": process.pid,
      "process.creation.time": new Date(performance.timeOrigin).toISOString(),
    });
    const exporter = new OTLPLogExporter({ url: new URL("/v1/logs", endpoint).href, timeoutMillis: 5000 });
    this.provider = new LoggerProvider({ resource, processors: [new BatchLogRecordProcessor({ exporter, scheduledDelayMillis: 250 })] });
    this.logger = this.provider.getLogger("typescript-emitter"); // any scope but `otel_progress`, which judges itself
    this.beat();
    this.timers = [setInterval(this.beat, HEARTBEAT * 1000), setInterval(() => this.operations.forEach((one) => one.update()), 1000)];
    this.obey().catch(() => {}); // without a control channel nobody can cancel, and all else goes on
  }

  /** Send what is left. */
  async close(): Promise<void> {
    this.timers.forEach(clearInterval);
    this.closed.abort();
    await this.provider.shutdown();
  }

  emit(eventName: string, attributes: AnyValueMap = {}, severityNumber = SeverityNumber.INFO): void {
    this.logger.emit({ eventName, timestamp: Date.now(), severityNumber, attributes });
  }

  private beat = () => this.emit("progress.process.heartbeat", { "progress.heartbeat.interval": HEARTBEAT });

  /** Poll the control channel that the receiver offers, and obey its commands. */
  private async obey(): Promise<void> {
    const headers = { "content-type": "application/json", ...given(process.env.OTEL_EXPORTER_OTLP_HEADERS ?? "") };
    const post = (url: URL, body: object) =>
      fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal: this.closed.signal, redirect: "error" });
    const logs = new URL("/v1/logs", this.endpoint);
    let offer: string | null = null;
    for (let pause = 250; offer === null && pause < 10_000; pause *= 2) { // `otel-progress run` offers it a moment later
      offer = (await post(logs, {})).headers.get("otel-progress-control"); // exporters hide the headers of answers
      if (offer === null) await new Promise((resolve) => setTimeout(resolve, pause));
    }
    if (offer === null) return;
    const channel = new URL(offer, logs);
    // A receiver must not make us send requests elsewhere, unless the user names the address, as `otel-progress run` does.
    if (channel.origin !== logs.origin && channel.origin !== process.env.OTEL_PROGRESS_CONTROL) return;
    let answers: object[] = [];
    while (!this.closed.signal.aborted) {
      try {
        const answer = await post(channel, { instance: this.instance, pid: process.pid, wait: 20, answers });
        if ([401, 403, 404, 405, 410].includes(answer.status)) return;
        if (!answer.ok) throw new Error(String(answer.status));
        const { commands } = (await answer.json()) as { commands: Record<string, string>[] };
        answers = commands.filter((command) => "id" in command).map((command) => ({ command: command.id, ...this.answer(command) }));
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 2000));
      }
    }
  }

  private answer(command: Record<string, string>): object {
    if (command.kind !== "cancel") return { state: "refused", detail: "this version knows no such command" };
    const operation = this.operations.get(command.operation_id);
    if (operation === undefined) return { state: "unknown", detail: "no such operation runs in this process" };
    operation.abort.abort(new Error(command.reason || "requested")); // a second time it changes nothing
    return { state: "received", detail: "" };
  }

  /** Run `work` as an operation; how it ends is its status. */
  async run<T>(name: string, id: string, options: Options, work: (operation: Operation) => Promise<T>): Promise<T> {
    const operation = new Operation(this, name, id, options);
    try {
      const result = await work(operation);
      operation.end("completed");
      return result;
    } catch (error) {
      operation.end(operation.abort.signal.aborted ? "cancelled" : "failed", String(error));
      throw error;
    }
  }
}

/** One operation. Each event carries its whole state. */
export class Operation {
  readonly abort = new AbortController();
  private readonly started = now();
  private readonly stages: Stage[] = [];
  private sequence = 0;
  private status: Status = "running";
  private wait?: { reason: string; since: number; limit: number };
  private changed = false;

  constructor(private readonly reporter: Reporter, readonly name: string, readonly id: string, private readonly options: Options) {
    reporter.operations.set(id, this);
    this.send("progress.operation.started");
  }

  /** Run `work` as a stage of `total` units. */
  async stage<T>(path: string, total: number, work: () => Promise<T>): Promise<T> {
    const stage: Stage = { path, status: "running", started_at: now(), completed: 0, total, unit: this.options.unit };
    this.stages.push(stage);
    this.send("progress.stage.started");
    try {
      const result = await work();
      stage.status = "completed";
      return result;
    } catch (error) {
      Object.assign(stage, { status: this.abort.signal.aborted ? "cancelled" : "failed", reason: String(error) });
      throw error;
    } finally {
      stage.elapsed = now() - stage.started_at;
      this.send("progress.stage.ended");
    }
  }

  /** Count units of the stage that runs; raises once the operation was asked to stop. */
  advance(units = 1): void {
    const stage = this.stages[this.running()];
    if (stage !== undefined) stage.completed += units;
    this.changed = true;
    this.abort.signal.throwIfAborted();
  }

  /** Wait for something that is no work, at most `limit` seconds before it counts as overdue. */
  async waiting<T>(reason: string, limit: number, work: Promise<T>): Promise<T> {
    [this.wait, this.status] = [{ reason, since: now(), limit }, "waiting"];
    this.send("progress.wait.started");
    try {
      return await work;
    } finally {
      this.status = "running";
      this.send("progress.wait.ended"); // it still names the wait, which is over as the status says so
      this.wait = undefined;
    }
  }

  /** Report a change, once a second at most: the reporter calls it. */
  update(): void {
    if (this.changed) this.send("progress.updated");
  }

  end(status: Status, reason?: string): void {
    this.status = status;
    this.reporter.operations.delete(this.id);
    this.send("progress.operation.ended", reason === undefined ? {} : { "progress.status.reason": reason });
  }

  private running = (): number => this.stages.map((stage) => stage.status).lastIndexOf("running");

  private send(event: string, more: AnyValueMap = {}): void {
    const waited = this.wait === undefined ? 0 : now() - this.wait.since;
    const wait = this.wait && {
      "progress.wait.reason": this.wait.reason, "progress.wait.duration": waited, "progress.wait.remaining": this.wait.limit - waited,
    };
    this.changed = false;
    this.reporter.emit(event, {
      "progress.operation.id": this.id, "progress.operation.name": this.name, "progress.sequence": ++this.sequence,
      "progress.status": this.status, "progress.start_time": this.started, "progress.elapsed": now() - this.started,
      "progress.stall_after": this.options.stallAfter, "progress.stage.current": this.stages[this.running()]?.path,
      "progress.stages": JSON.stringify(this.stages), ...wait, ...more,
    }, this.status === "failed" ? SeverityNumber.ERROR : SeverityNumber.INFO);
  }
}

const given = (text: string) => Object.fromEntries(text.split(",").filter(Boolean).map((pair) => pair.split("=").map(decodeURIComponent)));
