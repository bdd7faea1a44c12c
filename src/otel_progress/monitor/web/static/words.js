// Numbers and states as text. Pure: the time is an argument.

const FINAL = new Set(["completed", "failed", "cancelled", "lost", "interrupted"]);

/** The groups of the list, troubled ones first, which the header counts. `tone` is a colour, never the only sign. */
export const GROUPS = [
  { key: "stuck", label: "Stuck", tone: "bad", icon: "stuck", trouble: true },
  { key: "looping", label: "Looping", tone: "bad", icon: "loop", trouble: true },
  { key: "frozen", label: "Frozen", tone: "bad", icon: "frozen", trouble: true },
  { key: "dead", label: "Dead", tone: "bad", icon: "dead", trouble: true },
  { key: "overdue", label: "Overdue", tone: "warn", icon: "overdue", trouble: true },
  { key: "slow", label: "Slow", tone: "warn", icon: "slow", trouble: true },
  { key: "unknown", label: "Unknown", tone: "dim", icon: "unknown" },
  { key: "waiting", label: "Waiting", tone: "wait", icon: "wait" },
  { key: "pending", label: "Not started", tone: "dim", icon: "pending" },
  { key: "progressing", label: "Progressing", tone: "run", icon: "run" },
  { key: "ended", label: "Ended", tone: "dim", icon: "ended" },
];
export const GROUP = Object.fromEntries(GROUPS.map((group) => [group.key, group]));

export const STATUS = {
  pending: { label: "not started", tone: "dim", icon: "pending" },
  running: { label: "running", tone: "run", icon: "run" },
  waiting: { label: "waiting", tone: "wait", icon: "wait" },
  completed: { label: "completed", tone: "good", icon: "done" },
  failed: { label: "failed", tone: "bad", icon: "failed" },
  cancelled: { label: "cancelled", tone: "dim", icon: "cancelled" },
  lost: { label: "lost", tone: "bad", icon: "dead" },
  interrupted: { label: "interrupted", tone: "warn", icon: "interrupted" },
  skipped: { label: "skipped", tone: "dim", icon: "cancelled" },
};

/** Whether a row has ended. */
export const isFinal = (row) => row.ended === true || FINAL.has(row.status);

/** The group of a row: the monitor's own word for it, if there is one. */
export function groupOf(row) {
  if (isFinal(row)) return "ended";
  if (GROUP[row.state]) return row.state;
  const group = groupFor(row.verdict?.health, row.verdict?.overdue, row.wait || row.status === "waiting");
  return row.status === "pending" && (group === "progressing" || group === "waiting") ? "pending" : group;
}

function groupFor(health, overdue, waits) {
  if (health === "silent" || health === "stuck") return "stuck";
  if (health === "looping" || health === "dead") return health;
  if (overdue) return "overdue";
  if (health === "slow" || health === "unknown") return health;
  return health === "waiting" || waits ? "waiting" : "progressing";
}

/** Icon, word and colour of a row: its final status, or the monitor's verdict. */
export function faceOf(row) {
  return isFinal(row) ? STATUS[row.status] ?? STATUS.completed : GROUP[groupOf(row)];
}

/** Seconds since the monitor made a running row; 0 if its clocks stand still. */
export const since = (row, now) => (isFinal(row) || GONE.has(groupOf(row)) || (row.as_of ?? row.timestamp) == null ? 0 : Math.max(0, now - (row.as_of ?? row.timestamp)));
const GONE = new Set(["dead", "frozen", "unknown"]);
/** Its elapsed seconds. */
export const elapsedOf = (row, now) => (row.elapsed == null ? null : row.elapsed + since(row, now));
/** Its seconds without progress. */
export const idleOf = (row, now) => (row.idle == null ? null : row.idle + since(row, now));

/** A duration as the terminal says it (tests/words.json): 420 ms, 2.4 s, 45 s, 3 min 12 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "";
  if (seconds > 0 && seconds < 0.9995) {
    const thousandths = seconds * 1000;
    return `${thousandths < 9.95 ? Number(thousandths.toPrecision(2)) : Math.round(thousandths)} ms`;
  }
  const tenths = Math.floor(Math.max(0, seconds) * 10 + 0.5);
  if (tenths < 600) return `${tenths / 10} s`;
  const whole = Math.floor(seconds + 0.5);
  const [unit, size, smaller, part] = LARGER.find(([, size]) => whole >= size);
  const rest = Math.floor((whole % size) / part);
  return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
}
const LARGER = [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]];
/** A duration that still grows, in a sentence: in whole seconds. */
export const lasting = (seconds) => (seconds == null ? "" : duration(Math.floor(seconds)));
/** The elapsed time of a row. */
export const spent = (row, now) => (isFinal(row) ? duration(row.elapsed) : lasting(elapsedOf(row, now)));

/** A rounded duration in one unit, which changes rarely. */
export function about(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/**
 * How much time is left, rounded as roughly as it is known (tests/words.json): about 4 min, 2 to 5 min, up to 5 min,
 * almost done. `before` is the text shown before; it stays until the estimate has clearly left it.
 */
export function forecast(eta, low, high, before = "") {
  [low, high] = [low ?? eta, high ?? eta];
  if (![eta, low, high].every(Number.isFinite)) return "";
  const said = roughly(eta, low, high, 1.5);
  return before && before !== said && SHAKEN.some(([k, wide]) => roughly(eta * k, low * k, high * k, wide) === before) ? before : said;
}
const SHAKEN = [1.35, 1.75].flatMap((wide) => [0.92, 1, 1.08].map((k) => [k, wide]));
const ALMOST_DONE = "almost done";

function roughly(eta, low, high, wide) {
  if (eta < 3 && high < 7.5) return ALMOST_DONE;
  const [[from, unit], [to, larger]] = [rounded(low), rounded(high)];
  if (high >= AGES) return `over ${from} ${unit}`;
  if (high <= wide * low || (from === to && unit === larger)) return `about ${rounded(eta).join(" ")}`;
  if (low < 2.5 || low < high / 10) return `up to ${to} ${larger}`;
  return unit === larger ? `${from} to ${to} ${larger}` : `${from} ${unit} to ${to} ${larger}`;
}

function rounded(seconds) {
  const step = STEPS.find(([most]) => seconds < most)?.[1] ?? 315360000;
  const value = Math.max(step, Math.floor(Math.min(seconds, AGES) / step + 0.5) * step);
  const [, size, unit] = SIZES.find(([least]) => value >= least);
  return [number(value / size), unit];
}
const STEPS = [[30, 5], [60, 10], [180, 30], [600, 60], [3600, 300], [10800, 1800], [129600, 3600], [345600, 43200], [1728000, 86400], [8640000, 864000], [63072000, 4320000], [630720000, 31536000]];
const AGES = 100 * 31536000; // a hundred years: beyond them, only that is said
const SIZES = [[63072000, 31536000, "y"], [129600, 86400, "d"], [3600, 3600, "h"], [60, 60, "min"], [0, 1, "s"]];

/** "about 14 s left", "then about 14 s" during a wait; empty without an estimate, or if its time is over. A row keeps its text at a border of two. */
export function left(row, now) {
  const rest = restOf(row, now);
  if (rest <= 0) return "";
  const { low, high } = boundsOf(row, now);
  if (shown.size > 2000) shown.clear();
  const text = forecast(rest, low, high, shown.get(row.id));
  shown.set(row.id, text);
  return remaining(text, row.status === "waiting", row.progress.eta.source);
}
const shown = new Map();

/** A text of `forecast` as a statement; `then about 4 min` during a declared wait, unless the wait is for children. */
export function remaining(text, waits = false, source = null) {
  if (!text) return "";
  if (waits && source !== "children") return `then ${text}`;
  return text === ALMOST_DONE ? text : `${text} left`;
}

function restOf(row, now) {
  const eta = row.progress?.eta;
  if (eta?.seconds == null || isFinal(row) || STOPPED.has(groupOf(row))) return 0;
  const gone = goneOf(row, now);
  if (stands(row.progress)) return eta.seconds - Math.min(gone, eta.low);
  return gone >= Math.max(eta.seconds, SAID) ? 0 : Math.max(0, eta.seconds - Math.min(gone, inHand(row.progress)));
}

const SAID = 6.5; // seconds within which the process says that a unit takes longer, or that the estimate ended

/** By how many seconds an estimate may run down before the next unit is counted; the same as in the terminal. */
function inHand({ completed, total, ratio, eta }) {
  const rest = (total ?? 0) - (completed ?? 0);
  if (rest > 0 && ["rate", "history"].includes(eta.source)) return Math.max(Math.min(1, 0.9 * eta.seconds), eta.seconds * Math.min(1, 0.9 / rest));
  return ratio != null && eta.source === "rate" ? eta.seconds / 2 : Infinity;
}

/** Whether an estimate stands once its lower bound has passed: that from durations alone. */
function stands({ completed, total, eta }) {
  const counts = (total ?? 0) > (completed ?? 0);
  return eta.low < eta.seconds && (["plan", "children"].includes(eta.source) || (eta.source === "history" && !counts));
}

/** The interval of an estimate now; where the estimate stands still, its lower end does, too. */
function boundsOf(row, now) {
  const { seconds, low, high } = row.progress?.eta ?? {};
  const late = seconds != null && stands(row.progress);
  const [gone, most] = [goneOf(row, now), seconds == null ? Infinity : late ? low : inHand(row.progress)];
  const rest = (value) => (value == null ? null : Math.max(0, value - Math.min(gone, most)));
  return { low: gone > most && low != null && !late ? (low * (seconds - most)) / seconds : rest(low), high: rest(high) };
}

/** By how many seconds an estimate has run down; it stands still during a declared wait, unless that is for its children. */
function goneOf(row, now) {
  return row.wait && row.progress.eta?.source !== "children" ? 0 : since(row, now);
}
// In these groups, earlier estimates mean nothing.
export const STOPPED = new Set(["stuck", "looping", "frozen", "dead", "unknown"]);

const SOURCES = { rate: "pace now", plan: "planned", children: "from its children" };
/** Where an estimate comes from: "from 12 earlier runs", "pace now", "planned". */
export function sourceOf(eta) {
  if (eta?.source === "history") return eta.runs ? `from ${number(eta.runs)} earlier ${plural("run", eta.runs)}` : "from earlier runs";
  return SOURCES[eta?.source] ?? eta?.source ?? "";
}

/** The exact bounds of an estimate, for a tooltip: "between 11 s and 19 s, in about 80% of all cases". */
export function bounds(row, now) {
  const { low, high } = boundsOf(row, now);
  return low == null || high == null ? "" : `between ${lasting(low)} and ${lasting(high)}, in about 80% of all cases`;
}

/** Why there is no estimate: "no estimate yet", "no estimate while stuck", "all counted", "beyond its total"; empty without a total. */
export function unforeseen(completed, total, state = "", had = false) {
  if (!total) return "";
  if ((completed ?? 0) >= total) return completed > total * (1 + 1e-9) ? "beyond its total" : "all counted";
  if (state) return `no estimate while ${state}`;
  return completed || had ? "no estimate" : "no estimate yet";
}

/** The same of a row: "no estimate yet", "no estimate while looping". */
export function unforeseenOf(row) {
  if (row.status !== "running") return "";
  const group = groupOf(row);
  return unforeseen(row.progress?.completed, row.progress?.total, UNMOVED.has(group) ? GROUP[group].label.toLowerCase() : "", shown.has(row.id));
}
const UNMOVED = new Set(["stuck", "looping", "frozen"]);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const some = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
/** A number with grouped digits, three of them if it is small: 1,200 or 0.31. */
export const number = (value) => (Number.isInteger(value) || Math.abs(value) >= 1000 ? whole : some).format(value);

const BYTES = new Set(["By", "B"]);
/** An amount in a unit: "452 of 1,000 files", "7.3 MB", "3 done". */
export function amount(progress) {
  if (progress?.completed == null) return "";
  const { completed, total, unit } = progress;
  if (BYTES.has(unit)) return total == null ? size(completed) : `${size(completed)} of ${size(total)}`;
  const numbers = total == null ? number(completed) : `${number(completed)} of ${number(total)}`;
  if (unit && unit !== "1") return `${numbers} ${plural(unit, total ?? completed)}`;
  return total == null ? `${numbers} done` : numbers;
}

/** Bytes, with one decimal from 1 kB. */
export function size(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (Math.abs(value) >= 1000 && step < units.length - 1) [value, step] = [value / 1000, step + 1];
  return `${(step ? tenth : whole).format(value)} ${units[step]}`;
}

/** A unit in its plural; units of measurement, `{call}` and what is plural already stay as they are. */
export function plural(unit, count) {
  if (count === 1 || MEASURES.has(unit) || !/^[a-z]{3,}$/.test(unit) || /[^s]s$/.test(unit)) return unit;
  if (Object.hasOwn(IRREGULAR, unit)) return IRREGULAR[unit];
  if (/[^aeiou]y$/.test(unit)) return `${unit.slice(0, -1)}ies`;
  return unit !== "epoch" && /(ss|x|ch|sh)$/.test(unit) ? `${unit}es` : `${unit}s`;
}
const MEASURES = new Set(["min", "mol", "rad", "deg", "cal", "bar", "sec"]);
const IRREGULAR = { child: "children", person: "people" };

/** "143/s", or "8.4/min" and "3.6/h" if it is slow; empty if there is none. */
export function rate(perSecond, unit) {
  if (!perSecond) return "";
  const [per, seconds] = [["s", 1], ["min", 60]].find(([, seconds]) => perSecond * seconds >= ONE) ?? ["h", 3600];
  const value = perSecond * seconds;
  return `${BYTES.has(unit) ? size(value) : (value >= 10 ? whole : tenth).format(value)}/${per}`;
}

const ONE = 59.5 / 60; // from here on, the smaller unit would say "60/min"

/** "38 files/s"; empty without a rate. */
export function pace(progress) {
  const said = rate(progress?.rate, progress?.unit);
  const unit = BYTES.has(progress?.unit) ? "" : plural(progress?.unit ?? "", 2);
  return unit && unit !== "1" ? said.replace("/", ` ${unit}/`) : said;
}

/** The rate of a row, unless it stands still. */
export const paceOf = (row) => (isFinal(row) || STOPPED.has(groupOf(row)) ? "" : pace(row.progress));
/** Whether a child began before this attempt of its parent. */
export const isEarlier = (child, parent) => (parent.attempt ?? 1) > 1 && child.started_at != null && child.started_at < parent.started_at - SKEW;
const SKEW = 1; // seconds that the clocks of two machines may be apart

/** What came of a cancel, by the state in its answer: tone, icon, sentence. */
export const ANSWERS = {
  obeyed: ["good", "done", "It has ended."],
  received: ["wait", "wait", "Its process received the request, but has not ended yet. It stops at its next check."],
  "timed out": ["warn", "overdue", "Its process did not answer. It may be stuck in code that does not check, or cut off."],
};

/** The whole percentage, never rounded up to 100. */
export function percent(row) {
  const progress = row.progress;
  const value = progress?.percentage ?? (progress?.ratio == null ? null : progress.ratio * 100);
  return value == null ? null : Math.min(100, Math.max(0, Math.floor(value + 1e-6)));
}

/** The percentage of a bar: all of what completed, unless its count stayed below its total. */
export const filled = (row) => percent(row) ?? (row.status === "completed" ? 100 : null);

/** The percentage to state in words: none if the counts beside it say less, as the total has grown. */
export const stated = (row) => (row.progress?.ratio_raw == null || row.status === "completed" ? filled(row) : null);

/** An amount of money: two decimals from 1 up, none in a currency without them; below 1 four significant digits. */
export function money(value, currency) {
  const apart = Math.abs(value);
  const least = WHOLE.has(currency) ? 0 : 2;
  let said;
  if (apart >= 1 || apart < 1e-12) {
    const scale = 10 ** least;
    const rounded = apart < 1e13 ? Math.floor(apart * scale + 0.5) / scale : apart;
    said = new Intl.NumberFormat("en", { minimumFractionDigits: least, maximumFractionDigits: least }).format(rounded);
  } else {
    const [whole, decimals] = apart.toFixed(3 - Math.floor(Math.log10(apart))).split(".");
    const kept = decimals.replace(/0+$/, "");
    said = kept || least ? `${whole}.${kept.padEnd(2, "0")}` : whole;
  }
  return `${value < 0 ? "-" : ""}${said} ${currency}`;
}
const WHOLE = new Set("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split(" ")); // ISO 4217: no decimals

/** The time of day, with the date if that is not today. */
export function clockTime(seconds, now) {
  const at = new Date(seconds * 1000);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return at.toDateString() === new Date(now * 1000).toDateString() ? time : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}
const two = (value) => String(value).padStart(2, "0");

/** An attempt in words: when it ran, for how long, how far it came, how it ended. The newest one is the row itself. */
export function attemptWords(one, row, now) {
  const open = row && !isFinal(row);
  const ended = one.ended_at ?? (row && !open ? row.timestamp : null);
  const times = one.started_at == null ? "" : open ? `since ${clockTime(one.started_at, now)}` : ended == null ? `from ${clockTime(one.started_at, now)}` : `${clockTime(one.started_at, now)} to ${clockTime(ended, now)}`;
  const ratio = row?.progress?.ratio ?? one.ratio;
  const percents = [one.from > 0 ? one.from : null, one.status === "completed" ? ratio ?? 1 : ratio].map((one) => (one == null ? "" : `${Math.floor(one * 100 + 1e-6)}%`));
  const far = percents[0] && percents[1] ? percents.join(" to ") : percents[1] && `at ${percents[1]}`;
  const how = one.signal ? `killed by ${one.signal}` : one.exit_code != null ? `exit code ${one.exit_code}` : one.status === "failed" ? one.reason : "";
  const unknown = !row && one.status == null ? "no end was reported" : "";
  return [how, unknown, times, !open && ended != null && one.started_at != null && duration(ended - one.started_at), far].filter(Boolean).join(" · ");
}

/** The end of a long id, which tells it apart. */
export const shortId = (id) => (id.length <= 14 ? id : `…${id.slice(-10)}`);

/** The trouble of a row, with its clock advanced. */
export function troubleOf(row, now) {
  const group = groupOf(row);
  const verdict = row.verdict ?? {};
  const said = (text) => (verdict.branch ? `${verdict.branch}: ${text}` : text);
  if (verdict.child != null && group !== "ended" && group !== "pending") return later(verdict.reason ?? "", since(row, now));
  if (group === "stuck") {
    const idle = idleOf(row, now);
    return idle == null ? spelled(verdict.reason ?? "no progress") : said(`no progress for ${lasting(idle)}`);
  }
  if (group === "overdue" || group === "waiting") return row.wait ? said(waitOf(row.wait, since(row, now))) : verdict.reason ?? "";
  if (group === "ended") return row.presumed ? `presumed, ${row.reason ?? "its process was not heard of"}` : row.reason ?? "";
  return group === "progressing" || group === "pending" ? "" : spelled(verdict.reason ?? "");
}

/** Evidence with its durations spelled out, behind the words that lead to one; names in it stay as they are. */
export const spelled = (text) => text.replace(/\b(for |is |until |ended |progress |, )(\d+(?:\.\d)?) s\b/g, (_, before, told) => before + duration(Number(told)));
// The same with its clock advanced.
const later = (text, gone) => spelled(text.replace(/\bfor (\d+) s\b/, (_, told) => `for ${lasting(Number(told) + gone)}`));

/** "waits for approval for 36 s, of at most 6 s", `later` seconds after its timestamp. */
export function waitOf(wait, later) {
  const waited = wait.elapsed == null ? "" : ` for ${lasting(wait.elapsed + later)}`;
  const limit = overdue(wait, later) ? `, of at most ${duration(wait.overdue_after)}` : "";
  return `waits for ${wait.reason || "something"}${waited}${limit}`;
}
const overdue = (wait, later) => wait.overdue_after != null && (wait.elapsed ?? 0) + later >= wait.overdue_after;

/** The parallel branches of a row, each with its group and its evidence. */
export function branchesOf(row, now) {
  if (isFinal(row) || !Array.isArray(row.branches) || row.branches.length < 2) return [];
  const later = since(row, now);
  return row.branches.map((branch) => {
    const group = groupFor(branch.health, branch.wait && overdue(branch.wait, later), branch.wait);
    return { ...branch, group, words: wordsOf(branch, group, later) };
  });
}

function wordsOf(branch, group, later) {
  if (branch.wait && (group === "waiting" || group === "overdue")) return waitOf(branch.wait, later);
  if (branch.child != null && branch.reason) return spelled(branch.reason);
  if (group === "looping") return spelled(branch.loop?.reason ?? "the same again and again");
  const idle = branch.idle == null ? null : branch.idle + later;
  if (group === "stuck") return idle == null ? "no progress" : `no progress for ${lasting(idle)}${allowed(branch)}`;
  const from = Math.min(30, Math.max(3, 0.25 * (branch.stall_after ?? 30))); // below it, a slow unit is nothing to tell
  return idle != null && idle >= from ? `idle for ${lasting(idle)}${allowed(branch)}` : "";
}
const allowed = ({ stall_after: limit }) => (limit == null ? "" : ` of ${duration(limit)}`);

/** Labels that tell siblings of one name apart: a differing attribute, their description, else a short id. */
export function apart(rows) {
  const found = new Map();
  const names = new Map();
  for (const row of rows) names.set(row.name, [...(names.get(row.name) ?? []), row]);
  for (const same of names.values()) {
    const key = same.length > 1 ? tellingKey(same) : null;
    const described = new Set(same.map((row) => row.description)).size === same.length;
    for (const row of same) {
      const value = key == null ? null : row.attributes[key];
      found.set(row.id, value != null ? `${key}=${typeof value === "object" ? JSON.stringify(value) : value}` : same.length > 1 && described && row.description ? row.description : shortId(row.id));
    }
  }
  return found;
}

function tellingKey(rows) {
  const most = Math.max(2, rows.length / 2);
  let best = null;
  for (const key of Object.keys(rows[0].attributes ?? {})) {
    const values = rows.map((row) => row.attributes?.[key]);
    const count = values.some((value) => value == null) ? 0 : new Set(values.map((value) => JSON.stringify(value))).size;
    if (count >= most && (best == null || count > best.count)) best = { key, count };
  }
  return best?.key ?? null;
}

/** Who muted an operation, until when and why. */
export function mutedWords({ by, until, reason, through }) {
  const at = until == null ? null : new Date(until * 1000);
  const time = at == null ? "it ends" : at.toDateString() === new Date().toDateString() ? `${two(at.getHours())}:${two(at.getMinutes())}` : at.toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  return `muted${by ? ` by ${by}` : ""} until ${time}${through ? `, through ${through}` : ""}${reason ? `: ${reason}` : ""}`;
}

/** A safe link, or null: telemetry may contain `javascript:`. */
export function safeLink(value) {
  if (typeof value !== "string" || !/^https?:\/\//i.test(value) || value.length > 4000) return null;
  try {
    const url = new URL(value);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/** The fragment of the page's address for an operation. */
export const hashOf = (id) => `#/operations/${encodeURIComponent(id)}`;
