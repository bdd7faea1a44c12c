// Turns events into the lines of the feed: the start and the end of an activity are one line, and so are repeats. Pure.
const ENDS = {
  "progress.stage.ended": "progress.stage.started",
  "progress.wait.ended": "progress.wait.started",
};
const STUCK = "progress.stalled";
const BEGINS = new Set([...Object.values(ENDS), STUCK]);
// A note with one of these statuses starts an activity; a later note of the same text ends it.
const GOES_ON = new Set(["running", "started", "in progress", "in_progress"]);
const isNote = (line) => line.event === "progress.note";
const begins = (line) => BEGINS.has(line.event) || (isNote(line) && GOES_ON.has(line.status));
const textOf = (line) => (isNote(line) ? line.attributes?.["progress.note.text"] ?? line.text : "");
const keyOf = (event, line) => `${event}\n${line.stage ?? ""}\n${textOf(line)}`;
const startOf = (line) => ENDS[line.event] ?? (isNote(line) && line.status ? line.event : null);

// How long this run of a stage took, as its end says: others of its name may have begun and ended meanwhile.
const tookOf = (line) => {
  const seconds = line.event === "progress.stage.ended" ? line.attributes?.["progress.stage.elapsed"] : null;
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : null;
};

/**
 * Items, oldest first: `{key, line, running, seconds, count}`. `line` is the newest event of the item; `running`: it has
 * not ended; `seconds`: its duration, or the sum of several; `count`: the number of events. `stages` holds the paths of
 * the running stages.
 */
export function activities(lines, stages) {
  const items = [];
  const open = new Map();
  for (const line of lines) {
    if (line.event === "progress.operation.ended" || line.event === "progress.operation.started") stop(open);
    if (line.event === "progress.recovered") {
      items.push({ key: line.id, line, running: false, seconds: recovered(open, line), count: 1 });
      continue;
    }
    const start = startOf(line);
    const begun = start && take(open, keyOf(start, line));
    if (begun && !begins(line)) {
      begun.over = true;
      items.push({ key: begun.key, line, running: false, seconds: tookOf(line) ?? Math.max(0, line.timestamp - begun.line.timestamp), count: 1 });
      continue;
    }
    if (begun) begun.over = true;
    const item = { key: line.id, line, running: begins(line), seconds: tookOf(line), count: 1 };
    items.push(item);
    if (item.running) open.set(keyOf(line.event, line), [...(open.get(keyOf(line.event, line)) ?? []), item]);
  }
  for (const item of items) if (item.line.event === "progress.stage.started" && !stages.has(item.line.stage)) item.running = false;
  return together(items.filter((item) => !item.over));
}

// Nothing is stuck any more, wherever it was; that it was stays a line. Returns for how long at least.
function recovered(open, line) {
  let since = null;
  for (const [key, items] of open)
    if (key.startsWith(`${STUCK}\n`)) {
      for (const item of items) [item.running, since] = [false, Math.min(since ?? item.line.timestamp, item.line.timestamp)];
      open.delete(key);
    }
  return since == null ? null : Math.max(0, line.timestamp - since);
}

// After its end, nothing of that attempt runs.
function stop(open) {
  for (const items of open.values()) for (const item of items) item.running = false;
  open.clear();
}

function take(open, key) {
  const items = open.get(key);
  const first = items?.shift();
  if (items && !items.length) open.delete(key);
  return first;
}

function together(items) {
  const found = [];
  for (const item of items) {
    const last = found.at(-1);
    if (last && same(last, item)) found[found.length - 1] = { ...last, line: item.line, seconds: sum(last.seconds, item.seconds), count: last.count + 1 };
    else found.push(item);
  }
  return found;
}

// Unknown if one of them is.
const sum = (one, other) => (one == null || other == null ? null : one + other);

const same = (one, other) =>
  one.line.event === "progress.stage.ended" && other.line.event === one.line.event && one.line.stage === other.line.stage && one.line.agent === other.line.agent && isWell(one.line) && isWell(other.line);
const isWell = (line) => (statusOf(line) ?? "completed") === "completed";

/** How a stage ended, read from the text of its event: `stage fetch cancelled after 3 s`. */
export function statusOf({ event, status, stage, text }) {
  if (status != null || event !== "progress.stage.ended" || !stage || !text) return status;
  const words = `stage ${stage} `;
  const at = text.indexOf(words);
  return at < 0 ? undefined : /^\w*/.exec(text.slice(at + words.length))[0];
}

/** The kinds of lines that can be filtered. */
export const CHOICES = [
  ["", "everything"],
  ["note", "notes"],
  ["stage", "stages"],
  ["wait", "waits"],
  ["problem", "problems"],
];

/** Whether an item matches a kind, an agent and a text; `tone` is its colour. */
export function fits(item, tone, { kind, agent, text }) {
  const { line } = item;
  if (agent && line.agent !== agent) return false;
  if (kind === "problem" ? tone !== "bad" && tone !== "warn" : kind && !line.event.startsWith(`progress.${kind}`)) return false;
  if (!text) return true;
  return [line.text, line.stage, line.agent, JSON.stringify(line.attributes ?? "")].some((word) => word && word.toLowerCase().includes(text));
}
