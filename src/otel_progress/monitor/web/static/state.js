// All operations that the page knows: merged by revision, grouped and sorted incrementally.
import { batch, computed, signal } from "./html.js";
import { GROUP, GROUPS, groupOf, isFinal } from "./words.js";

/** The most rows that are kept; the oldest ended ones are dropped, and loaded again on scrolling. */
const MOST = 20_000;

const entries = new Map();
const groups = Object.fromEntries(GROUPS.map(({ key }) => [key, []]));
const tally = Object.fromEntries(GROUPS.map(({ key }) => [key, 0]));
const extra = new Set(); // found by the monitor's own search, which looks into more than a row shows
let generation = 0;
let gone = null; // ids that were removed while the list is loaded: a page that is older may still name them

/** Incremented when rows are added, removed or moved. */
export const layout = signal(0);
/** The number of operations that the page has not loaded. */
export const unloaded = signal(0);
/** Whether the monitor may have more matches of the filter. */
export const mayHoldMore = signal(false);
/** The filter: `status` and `verdict` are sets of keys; `name` is one name. */
export const filter = signal({ text: "", verdict: new Set(), status: new Set(), name: "" });
/** Groups that are folded. */
export const folded = signal(new Set());
/** The announcement for screen readers. */
export const announcement = signal("");
/** Incremented every second, for clocks. */
export const tick = signal(0);

let skew = 0;
/** The time by the monitor's clock, which may differ from the browser's. */
export const now = () => Date.now() / 1000 + skew;
export function setServerTime(seconds) {
  if (!Number.isFinite(seconds)) return;
  skew = seconds - Date.now() / 1000;
  tick.value += 1;
}
/** The same, for clocks: a component that reads it renders every second. */
export const ticking = () => (tick.value, now());

/** The number of operations per group, without filter. */
export const counts = computed(() => (layout.value, { ...tally, ended: tally.ended + unloaded.value }));
const sum = (take) => GROUPS.reduce((all, group) => all + (take(group) ? counts.value[group.key] : 0), 0);
/** The number of operations in trouble. */
export const inTrouble = computed(() => sum((group) => group.trouble));
/** The number of running operations, troubled or not. */
export const running = computed(() => sum(({ key }) => key !== "ended" && key !== "pending"));
/** The signal of a row, or undefined. */
export const rowOf = (id) => entries.get(id)?.row;
/** The number of loaded rows. */
export const countKnown = () => entries.size;
/** Whether the page knows no operation at all. */
export const isEmpty = () => entries.size === 0 && unloaded.value === 0;
/** Names of operations for the filter, a hundred at most. */
export function knownNames() {
  const found = new Set();
  for (const entry of entries.values()) {
    found.add(entry.row.peek().name);
    if (found.size >= 100) break;
  }
  return [...found].sort();
}

export const isFiltered = ({ text, verdict, status, name }) => Boolean(text || verdict.size || status.size || name);

function matches(row, group) {
  const { text, verdict, status, name } = filter.peek();
  if (name && row.name !== name) return false;
  if ((verdict.size || status.size) && !verdict.has(group) && !status.has(row.status)) return false;
  if (!text || extra.has(row.id)) return true;
  const words = [row.name, row.id, row.agent, row.stage, row.service, row.progress?.current_step, row.reason];
  return words.some((word) => word && String(word).toLowerCase().includes(text));
}

// Within a group, newest first; ended operations by their end.
const rank = (row, group) => (group === "ended" ? row.timestamp : row.started_at) ?? row.timestamp ?? 0;
const compare = (a, b) => b.rank - a.rank || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

function find(list, entry) {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compare(list[middle], entry) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

function take(entry) {
  if (!entry.shown) return;
  const list = groups[entry.group];
  const at = find(list, entry);
  if (list[at] === entry) list.splice(at, 1);
  entry.shown = false;
}

function put(entry) {
  const list = groups[entry.group];
  list.splice(find(list, entry), 0, entry);
  entry.shown = true;
}

// Returns whether the order changed.
function merge(row, fresh) {
  let entry = entries.get(row.id);
  if (!entry) {
    const group = groupOf(row);
    entry = { id: row.id, row: signal(row), group, rank: rank(row, group), shown: false, generation };
    entries.set(row.id, entry);
    tally[group] += 1;
    if (matches(row, group)) put(entry);
    if (!fresh && GROUP[group].trouble) announce(row, group);
    return true;
  }
  // After a reset, revisions may start over: the first row of an id is taken, whatever its revision.
  if (entry.generation === generation && !(row.revision > (entry.row.peek().revision ?? -1))) return false;
  entry.generation = generation;
  const group = groupOf(row);
  const at = rank(row, group);
  const shown = matches(row, group);
  const moved = group !== entry.group || at !== entry.rank || shown !== entry.shown;
  if (moved) {
    take(entry);
    if (group !== entry.group) {
      tally[entry.group] -= 1;
      tally[group] += 1;
      if (!fresh) announce(row, group);
    }
    entry.group = group;
    entry.rank = at;
    if (shown) put(entry);
  }
  entry.row.value = row;
  return moved;
}

function drop(id) {
  const entry = entries.get(id);
  if (!entry) return false;
  take(entry);
  tally[entry.group] -= 1;
  entries.delete(id);
  return true;
}

const SPOKEN = { stuck: "is stuck", frozen: "is frozen: its process is stopped", looping: "goes round in a loop", dead: "is dead: its process is unheard of", overdue: "waits longer than it may", slow: "is slow" };
function announce(row, group) {
  const words = SPOKEN[group] ?? (row.status === "failed" ? "failed" : row.status === "lost" ? "is lost" : "");
  if (words) announcement.value = `${row.name} ${words}`;
}

/** Merge changed rows; rows that are not newer are ignored. */
export function apply(rows, removed = [], { fresh = false } = {}) {
  batch(() => {
    let changed = false;
    for (const row of rows) {
      if (fresh && gone?.has(row.id)) continue;
      gone?.delete(row.id);
      const before = entries.size;
      changed = merge(row, fresh) || changed;
      // If it ended before the page was opened, it was counted as not loaded.
      if (!fresh && entries.size > before && isFinal(row) && unloaded.peek() && row.started_at < opened) unloaded.value -= 1;
    }
    for (const id of removed) {
      gone?.add(id);
      const known = drop(id);
      if (!known && unloaded.peek()) unloaded.value -= 1;
      changed = known || changed;
    }
    if (entries.size > MOST) changed = shed() || changed;
    if (changed) layout.value += 1;
  });
}
let opened = Infinity;

function shed() {
  const over = [...entries.values()].filter((entry) => entry.group === "ended").sort(compare).slice(MOST - 2000);
  for (const entry of over) drop(entry.id);
  unloaded.value += over.length;
  // The dropped rows are behind the cursor: a search, or loading the list again, finds them.
  return over.length > 0;
}

/** Start loading the list again; rows that the monitor no longer names are removed at the end. */
export function beginLoad() {
  generation += 1;
  gone = new Set();
  opened = now();
}

/** All running operations are loaded; `total` is the number that the monitor has. */
export function endLoad(total) {
  gone = null;
  batch(() => {
    for (const entry of [...entries.values()]) if (entry.generation !== generation) drop(entry.id);
    unloaded.value = Math.max(0, total - entries.size);
    mayHoldMore.value = unloaded.peek() > 0;
    layout.value += 1;
  });
}

/** Change the filter. */
export function setFilter(changes) {
  batch(() => {
    const next = { ...filter.peek(), ...changes };
    if (next.text !== filter.peek().text) extra.clear();
    filter.value = next;
    mayHoldMore.value = unloaded.peek() > 0;
    refilter();
  });
}

/** Add rows that the monitor's search found. */
export function foundBySearch(ids) {
  for (const id of ids) extra.add(id);
  refilter();
}

function refilter() {
  for (const { key } of GROUPS) groups[key] = [];
  for (const entry of entries.values()) {
    entry.shown = matches(entry.row.peek(), entry.group);
    if (entry.shown) groups[entry.group].push(entry);
  }
  for (const { key } of GROUPS) groups[key].sort(compare);
  layout.value += 1;
}

/** Fold or unfold a group. */
export function toggleFold(key) {
  const next = new Set(folded.peek());
  if (!next.delete(key)) next.add(key);
  folded.value = next;
}

/** The layout of the list, without copying rows: groups with their first line, and the number of lines. */
export const plan = computed(() => {
  void layout.value;
  let line = 0;
  const parts = [];
  for (const group of GROUPS) {
    const rows = groups[group.key];
    const more = group.key === "ended" && mayHoldMore.value;
    if (!rows.length && !more) continue;
    const open = !folded.value.has(group.key);
    parts.push({ group, rows, first: line, open });
    line += 1 + (open ? rows.length : 0);
  }
  return { parts, lines: line };
});
