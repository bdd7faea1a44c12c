// A program in another language: one operation with a stage, written from docs/semantic-conventions.md alone.
// node emitter.mjs URL ID run|hang: counts to the end, or hangs at half and lives on.
import { hostname } from "node:os";

const [url, id, mode] = process.argv.slice(2);
const value = (given) =>
  typeof given === "string" ? { stringValue: given } : Number.isInteger(given) ? { intValue: String(given) } : { doubleValue: given };
const attributes = (given) => Object.entries(given).map(([key, one]) => ({ key, value: value(one) }));
const resource = {
  attributes: attributes({
    "service.name": "node-emitter", "service.instance.id": `node-${process.pid}`, "host.name": hostname(),
    "process.pid": process.pid, "process.executable.name": "node",
  }),
};
const started = Date.now() / 1000;
let sequence = 0;

async function send(eventName, about) {
  const record = { timeUnixNano: String(BigInt(Date.now()) * 1000000n), eventName, attributes: attributes(about) };
  const resourceLogs = [{ resource, scopeLogs: [{ scope: { name: "node-emitter" }, logRecords: [record] }] }];
  const answer = await fetch(`${url}/v1/logs`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ resourceLogs }),
  });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
}

const event = (name, status, done, stage) => send(name, {
  "progress.operation.id": id, "progress.operation.name": "import", "progress.status": status,
  "progress.sequence": ++sequence, "progress.start_time": started, "progress.stall_after": 2,
  "progress.completed": done, "progress.total": 4, "progress.stages": JSON.stringify([{ path: "load", status: stage }]),
});
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const beat = () => send("progress.process.heartbeat", { "progress.heartbeat.interval": 1.0 });

await beat();
const beats = setInterval(() => beat().catch(() => {}), 1000);
await event("progress.operation.started", "running", 0, "running");
for (let done = 1; done <= (mode === "hang" ? 2 : 4); done++) {
  await pause(50);
  await event("progress.updated", "running", done, "running");
}
if (mode !== "hang") {
  clearInterval(beats);
  await event("progress.operation.ended", "completed", 4, "completed");
}
