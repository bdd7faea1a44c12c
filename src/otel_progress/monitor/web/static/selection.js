// The selected operation: its detail and its feed, fetched again when the stream names it.
import { denied, pathOf, request } from "./api.js";
import { batch, effect, signal } from "./html.js";
import { link, onChange } from "./live.js";
import { now } from "./state.js";
import { isFinal } from "./words.js";

const AT_MOST_EACH = 250; // ms
const LINES = 400;
const PAGE = 100;
const NEWEST = Number.MAX_SAFE_INTEGER;

/** The id in the page's address, or null. */
export const selected = signal(fromAddress());
/** Its detail, or null until loaded. */
export const detail = signal(null);
/** Why there is no detail: `{status, message}`, or null. */
export const trouble = signal(null);
/** The lines of its feed, oldest first; bounded. `end`: the newest line is among them; `start`: the oldest is. */
export const feed = signal({ lines: [], start: false, end: true, ready: false });
/** Whether plain updates are in the feed too. */
export const withUpdates = signal(false);

const QUIET_EVENTS =
  "progress.operation.started,progress.operation.ended,progress.stage.started,progress.stage.ended,progress.note," +
  "progress.wait.started,progress.wait.ended,progress.stalled,progress.recovered,progress.wait.overdue,progress.slow";

function fromAddress() {
  const found = /^#\/operations\/(.+)$/.exec(location.hash);
  if (!found) return null;
  try {
    return decodeURIComponent(found[1]);
  } catch {
    return null;
  }
}
addEventListener("hashchange", () => (selected.value = fromAddress()));

/** Select an operation, or none with null. */
export function select(id) {
  const hash = id == null ? "#/" : `#/operations/${encodeURIComponent(id)}`;
  if (location.hash !== hash) location.hash = hash;
  selected.value = id;
}

let abort = new AbortController();
let busy = false;
let again = false;
let last = -Infinity;
effect(() => {
  const id = selected.value;
  void withUpdates.value;
  abort.abort();
  abort = new AbortController();
  batch(() => {
    if (detail.peek()?.id !== id) detail.value = null;
    trouble.value = null;
    feed.value = { lines: [], start: false, end: true, ready: false };
  });
  if (id != null) refresh();
});
effect(() => {
  if (!denied.value && selected.peek() != null) refresh();
});

onChange.add((ids) => {
  // Its children need no request: their rows arrive in the stream, and a new child changes its parent's row.
  if (selected.peek() != null && (ids === null || ids.has(selected.peek()))) refresh();
});

// A stuck operation does not change, but its process keeps sending heartbeats: refresh when it was last heard.
setInterval(() => {
  const shown = detail.peek();
  if (shown && !isFinal(shown) && !document.hidden && link.peek().phase === "open") refresh();
}, 5000);

// One request at a time, at most four per second; the last change is never dropped.
function refresh() {
  again = true;
  if (!busy) void work();
}

async function work() {
  busy = true;
  while (again) {
    const pause = last + AT_MOST_EACH - performance.now();
    if (pause > 0) await new Promise((go) => setTimeout(go, pause));
    again = false;
    last = performance.now();
    const id = selected.peek();
    const mine = abort;
    if (id == null) continue;
    try {
      const [found] = await Promise.all([request(pathOf(id), { signal: mine.signal }), newer(id, mine)]);
      if (mine === abort) batch(() => ((detail.value = { ...found.body, seen_at: now() }), (trouble.value = null)));
    } catch (problem) {
      if (mine === abort && problem.name !== "AbortError" && problem.status !== 401) {
        // Without a response the old detail stays; the connection status says that it is old.
        if (problem.status !== 0 || !detail.peek()) trouble.value = { status: problem.status, message: problem.message };
        if (problem.status === 404) detail.value = null;
      }
    }
  }
  busy = false;
}

// A declaration, as an operation in the page's address is asked for while this file is still being read.
function linesOf(id, query) {
  return pathOf(id, `/events?limit=${PAGE}&${query}${withUpdates.peek() ? "" : `&event=${QUIET_EVENTS}`}`);
}

async function newer(id, mine) {
  const known = feed.peek();
  if (!known.end && known.ready) return;
  const first = !known.ready || !known.lines.length;
  const { body } = await request(linesOf(id, first ? `before=${NEWEST}` : `after=${known.lines.at(-1).id}`), { signal: mine.signal });
  if (mine !== abort) return;
  const lines = first ? body.events : join(feed.peek().lines, body.events);
  const over = Math.max(0, lines.length - LINES);
  feed.value = { lines: lines.slice(over), start: first ? body.events.length < PAGE : feed.peek().start && !over, end: true, ready: true };
  if (!first && body.events.length === PAGE) again = true;
}

// No event twice, whichever request delivered it.
function join(lines, more) {
  const known = new Set(lines.map((line) => line.id));
  return [...lines, ...more.filter((line) => !known.has(line.id))];
}

let going = false;
/** Load older lines; beyond the bound, the newest are dropped. */
export async function older() {
  const { lines, start } = feed.peek();
  if (start || going || !lines.length) return;
  going = true;
  const mine = abort;
  try {
    const { body } = await request(linesOf(selected.peek(), `before=${lines[0].id}`), { signal: mine.signal });
    if (mine !== abort) return;
    const all = join(body.events, feed.peek().lines);
    feed.value = { lines: all.slice(0, LINES), start: body.events.length < PAGE, end: feed.peek().end && all.length <= LINES, ready: true };
  } catch {
    // The next scroll retries.
  } finally {
    going = false;
  }
}

/** Return to the newest lines. */
export function newest() {
  if (feed.peek().end) return;
  feed.value = { lines: [], start: false, end: true, ready: false };
  refresh();
}
