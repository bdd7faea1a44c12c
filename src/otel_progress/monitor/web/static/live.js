// The list: loaded once, then updated by one stream. It uses fetch instead of EventSource, because only fetch shows a
// status of 401, sends Last-Event-ID, and reads the heartbeat comments that tell a dead connection from a quiet one.
import { ApiError, denied, request } from "./api.js";
import { signal } from "./html.js";
import { apply, beginLoad, countKnown, endLoad, filter, foundBySearch, isFiltered, mayHoldMore, setServerTime, inTrouble, unloaded } from "./state.js";
import { frames } from "./sse.js";
import { isFinal } from "./words.js";

const FIRST_PAGE = 200;
const PAGE = 5000;
const MORE = 300;
const SHORTEST = 0.25;
const LONGEST = 5;
const QUIET = 25_000; // the monitor beats each 10 s

/** The connection: `phase` is connecting, open, retrying, paused or off; `at`: the next attempt (ms); `since`: when it broke. */
export const link = signal({ phase: "connecting" });
/** The number of stuck operations, counted while the tab is hidden; else null. */
export const troubleWhileHidden = signal(null);
/** A problem of the monitor itself, or null. */
export const trouble = signal(null);
/** After a start of the monitor, its progress in loading what ran before ({loaded, of}, or {}); else null. */
export const filling = signal(null);
/** Whether the first rows have arrived. */
export const loaded = signal(false);
/** Listeners that receive the ids of each change; null means that anything may have changed. */
export const onChange = new Set();

let position = null;
let cursor = null;
let stale = true;
let tries = 0;
let running = null;
let waiting = null;
let loading = 0;
let lostAt = null;

/** Connect, or reconnect at once. */
export function connect() {
  disconnect();
  const abort = new AbortController();
  running = abort;
  void keepUp(abort);
}

/** Close the stream; the rows stay. */
export function disconnect(phase = "off") {
  running?.abort();
  running = null;
  clearTimeout(waiting?.timer);
  waiting?.go();
  waiting = null;
  link.value = { phase };
}

async function keepUp(abort) {
  while (!abort.signal.aborted) {
    try {
      link.value = { ...link.peek(), phase: "connecting" };
      if (stale) await loadList(abort.signal);
      await follow(abort.signal);
      throw new ApiError(0, "the stream ended");
    } catch (problem) {
      if (abort.signal.aborted) return;
      if (problem.status === 401) {
        denied.value = true;
        return disconnect();
      }
      if (!(problem instanceof ApiError) && problem.name !== "TypeError" && problem.name !== "AbortError") console.error(problem);
    }
    const seconds = Math.min(LONGEST, SHORTEST * 2 ** tries) * (0.5 + Math.random() / 2);
    tries += 1;
    lostAt ??= Date.now();
    link.value = { phase: "retrying", at: Date.now() + seconds * 1000, since: lostAt };
    await new Promise((go) => (waiting = { go, timer: setTimeout(go, seconds * 1000) }));
  }
}

/** Retry now. */
export function retryNow() {
  clearTimeout(waiting?.timer);
  waiting?.go();
}

async function loadList(abort) {
  const mine = (loading += 1);
  const { body } = await request(`operations?limit=${FIRST_PAGE}`, { signal: abort });
  beginLoad();
  filling.value = body.loading ?? null;
  apply(body.operations, [], { fresh: true });
  position ??= body.position;
  stale = false;
  cursor = body.next;
  loaded.value = true;
  void loadRest(body, mine, abort).catch(() => {
    if (abort.aborted || mine !== loading) return;
    stale = true;
    // Not at once: a request that always fails must not be repeated in a loop.
    setTimeout(() => abort.aborted || connect(), LONGEST * 1000);
  });
}

// All running operations are loaded; ended ones are loaded when the user scrolls to them.
async function loadRest(first, mine, abort) {
  let page = first;
  while (page.next && !isFinal(page.operations.at(-1) ?? { ended: true })) {
    page = (await request(`operations?limit=${PAGE}&cursor=${encodeURIComponent(page.next)}`, { signal: abort })).body;
    if (mine !== loading) return;
    apply(page.operations, [], { fresh: true });
    cursor = page.next;
  }
  if (mine !== loading) return;
  endLoad(page.total ?? first.total);
  for (const hear of onChange) hear(null);
}

async function follow(abort) {
  const quiet = new AbortController();
  const stop = () => quiet.abort();
  abort.addEventListener("abort", stop);
  let watch = setTimeout(stop, QUIET);
  try {
    const answer = await fetch(position ? `stream?after=${encodeURIComponent(position)}` : "stream", {
      signal: quiet.signal,
      credentials: "same-origin",
      cache: "no-store",
      headers: { Accept: "text/event-stream", ...(position ? { "Last-Event-ID": position } : {}) },
    });
    if (!answer.ok) throw new ApiError(answer.status, "no stream");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const take = frames(heard);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watch);
      watch = setTimeout(stop, QUIET);
      take(value);
    }
  } finally {
    clearTimeout(watch);
    abort.removeEventListener("abort", stop);
    quiet.abort();
  }
}

function heard(event, data, id) {
  if (event === "hello") {
    setServerTime(data.server_time);
    position ??= data.position ?? id;
    tries = 0;
    lostAt = null;
    trouble.value = data.trouble ?? null;
    link.value = { phase: "open", version: data.version };
    for (const hear of onChange) hear(null);
  } else if (event === "changes") {
    position = id ?? position;
    queue(data.rows ?? [], data.removed ?? []);
  } else if (event === "trouble") {
    trouble.value = data.text ?? null;
  } else if (event === "reset") {
    position = id ?? position;
    stale = true;
    void loadList(running.signal).catch(() => connect());
  }
}

// Events within one frame are painted together; of several rows of one id, the last wins.
let rows = new Map();
let removed = new Set();
let planned = false;
function queue(changed, gone) {
  for (const row of changed) {
    removed.delete(row.id);
    rows.set(row.id, row);
  }
  for (const id of gone) {
    rows.delete(id);
    removed.add(id);
  }
  if (planned) return;
  planned = true;
  if (document.hidden) setTimeout(flush);
  else requestAnimationFrame(flush);
}

function flush() {
  const [changed, gone] = [rows, removed];
  [rows, removed, planned] = [new Map(), new Set(), false];
  apply(changed.values(), gone);
  const ids = new Set([...changed.keys(), ...gone]);
  for (const hear of onChange) hear(ids);
}

// Load the next page of ended operations that match the filter.
let asked = { key: "", cursor: null, done: false };
let asking = false;
const queryOf = ({ text, verdict, status, name }) => {
  const query = new URLSearchParams();
  if (text) query.set("search", text);
  if (name) query.set("name", name);
  // The monitor requires both filters to match, the page either: if both are set, it requests more than it shows.
  if (status.size && !verdict.size) query.set("status", [...status].join(","));
  return query.toString();
};

/** Load more ended operations, if there are any. */
export async function loadMore() {
  if (asking || !unloaded.peek() || link.peek().phase !== "open") return;
  const wanted = filter.peek();
  const filtered = isFiltered(wanted);
  const key = filtered ? queryOf(wanted) : "";
  if (filtered && asked.key !== key) asked = { key, cursor: null, done: false };
  // All running operations are loaded already: the monitor has no more of these groups.
  const complete = filtered ? asked.done || (wanted.verdict.size > 0 && !wanted.status.size) : cursor == null;
  mayHoldMore.value = !complete;
  if (!mayHoldMore.peek()) return;
  asking = true;
  const mine = loading;
  try {
    const after = filtered ? asked.cursor : cursor;
    const { body } = await request(`operations?limit=${MORE}${after ? `&cursor=${encodeURIComponent(after)}` : ""}${key ? `&${key}` : ""}`);
    if (mine !== loading) return;
    const before = countKnown();
    apply(body.operations, [], { fresh: true });
    unloaded.value = Math.max(0, unloaded.peek() - (countKnown() - before));
    if (!filtered) {
      cursor = body.next;
      if (!cursor) unloaded.value = 0;
      mayHoldMore.value = cursor != null;
    } else if (asked.key === key) {
      asked = { key, cursor: body.next, done: !body.next };
      mayHoldMore.value = !asked.done;
      if (wanted.text) foundBySearch(body.operations.map((row) => row.id));
    }
  } catch {
    // The next scroll retries.
  } finally {
    asking = false;
  }
}

/** The filter changed: the monitor may have more matches. */
let pause = null;
export function filterChanged() {
  clearTimeout(pause);
  pause = setTimeout(() => isFiltered(filter.peek()) && void loadMore(), 250);
}

// A hidden tab holds no connection (a browser has six for all tabs), but its title still counts troubled operations.
let hide = null;
let poll = null;
document.addEventListener("visibilitychange", seen);
if (document.hidden) seen();
function seen() {
  clearTimeout(hide);
  clearInterval(poll);
  if (document.hidden) {
    hide = setTimeout(() => {
      if (denied.peek()) return;
      disconnect("paused");
      troubleWhileHidden.value = inTrouble.peek();
      poll = setInterval(countTrouble, 15_000);
    }, 3000);
  } else if (link.peek().phase === "paused") {
    troubleWhileHidden.value = null;
    tries = 0;
    connect();
  }
}

async function countTrouble() {
  try {
    troubleWhileHidden.value = (await request("operations?limit=1&verdict=trouble")).body.total;
  } catch {
    // The next count follows later.
  }
}
