// All operations that the page knows: merged by revision, grouped and sorted as they change, never all at once.
import { batch, computed, signal } from "./html.js";
import { GROUP, GROUPS, groupOf, isFinal } from "./words.js";

/** So many rows are kept; of more, those that ended longest ago go, and are asked for again when one scrolls there. */
const MOST = 20_000;

const entries = new Map();
const groups = Object.fromEntries(GROUPS.map(({ key }) => [key, []]));
const tally = Object.fromEntries(GROUPS.map(({ key }) => [key, 0]));
const extra = new Set(); // found by the monitor's own search, which looks into more than a row shows
let generation = 0;
let gone = null; // ids that were removed while the list is loaded: a page that is older may still name them

/** Rises when rows came, went, or changed their place. */
export const layout = signal(0);
/** Operations that the monitor holds and the page has not asked for. */
export const unloaded = signal(0);
/** Whether the monitor may hold more of what the filter lets through. */
export const mayHoldMore = signal(false);
/** What is to be seen. `status` and `verdict` are sets of keys; `name` is one name. */
export const filter = signal({ text: "", verdict: new Set(), status: new Set(), name: "" });
/** Groups that are folded. */
export const folded = signal(new Set());
/** What is said to readers of the screen. */
export const announcement = signal("");
/** Rises each second: what ticks reads it. */
export const tick = signal(0);

let skew = 0;
/** The monitor's clock, which may not be the browser's. */
export const now = () => Date.now() / 1000 + skew;
export function setServerTime(seconds) {
  if (!Number.isFinite(seconds)) return;
  skew = seconds - Date.now() / 1000;
  tick.value += 1;
}
/** The time for what ticks: reading it renders again each second. */
export const ticking = () => (tick.value, now());

/** How many there are in each group, without any filter. */
export const counts = computed(() => (layout.value, { ...tally, ended: tally.ended + unloaded.value }));
const sum = (take) => GROUPS.reduce((all, group) => all + (take(group) ? counts.value[group.key] : 0), 0);
/** How many the list marks as in trouble. */
export const inTrouble = computed(() => sum((group) => group.trouble));
/** How many run, well or not. */
export const running = computed(() => sum(({ key }) => key !== "ended" && key !== "pending"));
/** The signal of a row, or undefined. */
export const rowOf = (id) => entries.get(id)?.row;
/** How many rows are here. */
export const countKnown = () => entries.size;
/** Whether anything is known at all. */
export const isEmpty = () => entries.size === 0 && unloaded.value === 0;
/** Names of operations, for the filter; at most a hundred. */
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

// Within a group the newest is first; those that ended, by their end.
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
  // After a reset the numbers may count anew: the first row of an id holds, whatever its revision.
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

/** Take in what changed. Rows that are not newer than what is known change nothing. */
export function apply(rows, removed = [], { fresh = false } = {}) {
  batch(() => {
    let changed = false;
    for (const row of rows) {
      if (fresh && gone?.has(row.id)) continue;
      gone?.delete(row.id);
      const before = entries.size;
      changed = merge(row, fresh) || changed;
      // One that ended before the page was opened was counted as not asked for.
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
  // What went lies behind the cursor: it is found again by a search, or when the list is loaded anew.
  return over.length > 0;
}

/** Begin to load the list anew: what the monitor doesn't name again is gone at the end. */
export function beginLoad() {
  generation += 1;
  gone = new Set();
  opened = now();
}

/** All that run are here; `total` is what the monitor holds in all. */
export function endLoad(total) {
  gone = null;
  batch(() => {
    for (const entry of [...entries.values()]) if (entry.generation !== generation) drop(entry.id);
    unloaded.value = Math.max(0, total - entries.size);
    mayHoldMore.value = unloaded.peek() > 0;
    layout.value += 1;
  });
}

/** Show other rows. */
export function setFilter(changes) {
  batch(() => {
    const next = { ...filter.peek(), ...changes };
    if (next.text !== filter.peek().text) extra.clear();
    filter.value = next;
    mayHoldMore.value = unloaded.peek() > 0;
    refilter();
  });
}

/** Rows that the monitor's own search found. */
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

/** What the list shows, without copying any row: groups with their first line, and the number of lines. */
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
