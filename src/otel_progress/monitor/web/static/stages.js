// The tree of stages and children, each with its bar and its place on the timeline.
import { html, useState } from "./html.js";
import { Icon } from "./icons.js";
import { Agent, Bar, Go } from "./parts.js";
import { rowOf, ticking } from "./state.js";
import { GROUP, STATUS, STOPPED, amount, apart, branchesOf, duration, elapsedOf, faceOf, filled, groupOf, isEarlier, isFinal, lasting, number, pace, paceOf, since, spelled, spent, troubleOf, waitOf } from "./words.js";

const CHILDREN = 50;
const TOGETHER = 3; // runs of a stage that are one row
const BAD = 5; // of these, runs that did not complete and are shown all the same

/** Stages with their depth, derived from the existing paths because a name may contain a slash. */
export function depths(stages) {
  const known = new Map();
  return stages.map((stage) => {
    let above = stage.path;
    let depth = 0;
    while ((above = above.slice(0, Math.max(0, above.lastIndexOf("/"))))) {
      if (known.has(above)) {
        depth = known.get(above) + 1;
        break;
      }
    }
    known.set(stage.path, depth);
    return { stage, depth: Math.min(depth, 8) };
  });
}

/** Stages as rows: the ended runs of a repeated stage are one row, `{runs}`, with the failed ones below it. */
export function rowsOf(stages, repeated) {
  const ended = new Map();
  for (const one of stages) if (isOver(one.stage)) ended.set(one.stage.path, [...(ended.get(one.stage.path) ?? []), one]);
  const told = new Map((repeated ?? []).map((one) => [one.path, one]));
  const rows = [];
  const shown = new Set();
  const fold = (path, runs, depth) => {
    const bad = runs.filter(({ stage }) => stage.status !== "completed").slice(-BAD);
    rows.push({ path, depth, runs: runs.map(({ stage }) => stage), ...sumOf(runs, told.get(path)) }, ...bad.map((one) => ({ ...one, depth: Math.min(8, one.depth + 1) })));
    shown.add(path);
  };
  for (const { path } of told.values()) if (!ended.has(path)) fold(path, [], path.split("/").length - 1);
  for (const one of stages) {
    const { path } = one.stage;
    const runs = isOver(one.stage) ? ended.get(path) : [];
    if (shown.has(path) && runs.length) continue;
    if (Math.max(runs.length, runs.length && countOf(told.get(path))) >= TOGETHER) fold(path, runs, one.depth);
    else rows.push(one);
  }
  return rows;
}
const isOver = ({ status }) => STATUS[status] && !["pending", "running", "waiting", "skipped"].includes(status);
const countOf = (told) => Object.values(told?.counts ?? {}).reduce((sum, count) => sum + count, 0);

// Counts by status, and durations: from the monitor if it sends them, else from the loaded runs.
function sumOf(runs, told) {
  if (told) return { ...told, count: countOf(told) };
  const counts = {};
  for (const { stage } of runs) counts[stage.status] = (counts[stage.status] ?? 0) + 1;
  const seconds = runs.map(({ stage }) => stage.elapsed).filter((one) => one != null).sort((a, b) => a - b);
  const at = (part) => seconds[Math.min(seconds.length - 1, Math.floor(part * seconds.length))];
  return { counts, count: runs.length, seconds: seconds.length ? seconds.reduce((sum, one) => sum + one, 0) : null, median: at(0.5), p95: at(0.95), longest: seconds.at(-1) };
}

/** The time span of the timeline. */
function spanOf(shown, children, now) {
  const from = shown.started_at ?? shown.timestamp;
  const ends = [from + (elapsedOf(shown, now) ?? 0), ...children.map((row) => (row.started_at ?? from) + (elapsedOf(row, now) ?? 0))];
  const to = isFinal(shown) ? Math.max(...ends) : Math.max(now, ...ends);
  return { from, to: Math.max(to, from + 1), now: isFinal(shown) ? null : now };
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 604800, 2592000];
function ticksOf({ from, to }) {
  const step = STEPS.find((one) => (to - from) / one <= 3.1) ?? (to - from) / 4;
  const found = [];
  for (let at = step; at < (to - from) * 0.88; at += step) found.push(at);
  return found;
}

const place = (span, from, to) => {
  const all = span.to - span.from;
  const left = Math.min(100, Math.max(0, ((from - span.from) / all) * 100));
  return { left: `${left}%`, width: `${Math.max(0.4, Math.min(100 - left, ((to - from) / all) * 100))}%` };
};

// The duration of a wait or a stall, up to now if it goes on.
const lasted = (mark, now) => (mark.to == null ? lasting(now - mark.from) : duration(mark.to - mark.from));

function Lane({ span, from, to, tone, open, marks, runs = [] }) {
  return html`<div class="lane" aria-hidden="true">${runs.map((run, index) => html`<div key=${`run ${index}`} class=${`lane-bar tone-${STATUS[run.status].tone}`} style=${place(span, run.started_at, run.started_at + (run.elapsed ?? 0))}></div>`)}${from != null && html`<div class=${`lane-bar tone-${tone}${open ? " open" : ""}`} style=${place(span, from, to)}></div>`}
    ${marks.map((mark, index) => html`<div key=${index} class=${`mark mark-${mark.kind}`} style=${place(span, mark.from, mark.to ?? span.now ?? span.to)} title=${`${mark.kind}: ${spelled(mark.reason ?? "")} (${lasted(mark, span.to)})`}></div>`)}</div>`;
}

export function Stages({ shown }) {
  const [most, setMost] = useState(CHILDREN);
  const now = ticking();
  const children = (shown.children_rows ?? []).map((row) => newest(row));
  const stages = depths(shown.stages ?? []);
  const repeated = (Array.isArray(shown.repeated) ? shown.repeated : []).filter((one) => one?.path);
  const rows = rowsOf(stages, repeated);
  const branches = branchesOf(shown, now);
  const labels = apart(children);
  const span = spanOf(shown, children, now);
  const marks = grouped(shown.timeline ?? []);
  if (shown.started_at == null && !stages.length) return null;
  const known = new Set(stages.map(({ stage }) => stage.path));
  const loose = (shown.timeline ?? []).filter((mark) => !known.has(mark.stage ?? ""));
  return html`<section class="stages" aria-labelledby="stages-title"><h2 id="stages-title">Stages and timeline</h2>
    <div class="tree" role="table" aria-label="Stages and children"><div class="tree-head" role="row"><span role="columnheader">Stage</span><span role="columnheader">Progress</span><span role="columnheader" class="tree-time">Time</span>
      <span role="columnheader" class="axis"><span class="sr">When</span><span class="axis-start" aria-hidden="true">0</span>${ticksOf(span).map((at) => html`<span key=${at} class="tick" aria-hidden="true" style=${{ left: `${(at / (span.to - span.from)) * 100}%` }}>+${duration(at)}</span>`)}</span></div>
      ${earlier(shown.folded ?? [], repeated).map(([status, count, seconds]) => html`<div class="tree-row folded" role="row" key=${`folded ${status}`}><span role="cell" class="tree-name"><${Icon} name="stage" size=${14} tone="dim" /><span class="dim">${count} earlier, ${STATUS[status]?.label ?? status}</span></span><span role="cell"></span><span role="cell" class="tree-time">${duration(seconds)}</span><span role="cell" class="lane-cell"></span></div>`)}
      ${(loose.length > 0 || !stages.length) && html`<div class="tree-row whole" role="row"><span role="cell" class="tree-name"><${Icon} name=${faceOf(shown).icon} size=${14} tone=${faceOf(shown).tone} /><span class="tree-label"><span class="tree-title"><bdi>${shown.name}</bdi><span class="sr">, the whole operation</span></span>${shown.wait && !(shown.stages ?? []).some((stage) => stage.wait) && !isFinal(shown) && html`<span class="tree-words tone-wait"><bdi>${waitOf(shown.wait, since(shown, now))}</bdi></span>`}</span></span><span role="cell" class="tree-bar"></span><span role="cell" class="tree-time">${spent(shown, now)}</span>
        <span role="cell" class="lane-cell"><${Lane} span=${span} from=${shown.started_at} to=${(shown.started_at ?? 0) + (elapsedOf(shown, now) ?? 0)} tone=${faceOf(shown).tone} open=${!isFinal(shown)} marks=${loose} /></span></div>`}
      ${keyed(rows).map(([key, row]) => (row.runs ? html`<${Runs} key=${key} row=${row} span=${span} marks=${marks.get(row.path) ?? []} />` : html`<${Stage} key=${key} stage=${row.stage} depth=${row.depth} shown=${shown} span=${span} now=${now} marks=${marksOf(marks, row.stage)} branches=${isOver(row.stage) ? [] : branches.filter((branch) => branch.path === row.stage.path)} />`))}
      ${children.length > 0 && html`<div class="tree-part" role="row"><span role="cell">${children.length === 1 ? "1 child operation" : `${children.length} child operations`}</span></div>`}
      ${children.slice(0, most).map((row) => html`<${Child} key=${row.id} row=${row} earlier=${isEarlier(row, shown)} label=${labels.get(row.id)} span=${span} now=${now} />`)}
      ${span.now != null && html`<div class="now-line" aria-hidden="true"><span></span></div>`}
    </div>
    ${children.length > most && html`<button type="button" class="quiet" onClick=${() => setMost(most + 200)}>Show ${Math.min(200, children.length - most)} more of ${children.length}</button>`}
    <${Marks} marks=${shown.timeline ?? []} now=${now} />
  </section>`;
}

function grouped(marks) {
  const found = new Map();
  for (const mark of marks) found.set(mark.stage ?? "", [...(found.get(mark.stage ?? "") ?? []), mark]);
  return found;
}

// The newer of the row in the detail and the row from the stream.
function newest(row) {
  const live = rowOf(row.id)?.value;
  return live && (live.revision ?? 0) > (row.revision ?? 0) ? { ...row, ...live } : row;
}

// A path may have several runs.
function keyed(rows) {
  const seen = new Map();
  return rows.map((row) => {
    const key = row.runs ? `runs ${row.path}` : row.stage.path;
    seen.set(key, (seen.get(key) ?? 0) + 1);
    return [`${key} ${seen.get(key)}`, row];
  });
}

// Only those of this run: an earlier run of the stage may have waited, too.
function marksOf(marks, stage) {
  const from = stage.started_at ?? 0;
  const to = isOver(stage) ? from + (stage.elapsed ?? 0) + 1 : Infinity;
  return (marks.get(stage.path) ?? []).filter((mark) => mark.from <= to && (mark.to ?? Infinity) >= from);
}

// Folded stages, without those counted in a row of repeated runs.
function earlier(folded, repeated) {
  const named = repeated.reduce((sum, one) => sum + (one.folded ?? 0), 0);
  const lists = folded.filter(Array.isArray);
  if (!named) return lists;
  const rest = lists.reduce((sum, [, count]) => sum + count, 0) - named;
  return rest > 0 ? [["other stages", rest, null]] : [];
}

function stageFace(stage, shown, branches) {
  if (branches.length) return GROUP[branches[0].group];
  if (stage.status === "running" && stage.wait && groupOf(shown) !== "overdue") return STATUS.waiting;
  if (stage.status === "running" && !shown.branches?.length && shown.status !== "pending" && !isFinal(shown)) {
    const group = groupOf(shown);
    // The trouble belongs to the innermost running stage; the others wait for it.
    if (shown.stage === stage.path && GROUP[group].tone !== "run" && group !== "waiting") return GROUP[group];
  }
  return STATUS[stage.status] ?? STATUS.running;
}

function Stage({ stage, depth, shown, span, now, marks, branches }) {
  const live = stage.status === "running" || stage.status === "waiting";
  const grown = live ? since(shown, now) : 0;
  const elapsed = stage.elapsed == null ? null : stage.elapsed + grown;
  const face = stageFace(stage, shown, branches);
  const value = filled(stage);
  const pending = stage.status === "pending";
  const standing = STOPPED.has(branches[0]?.group ?? (shown.branches?.length ? "" : groupOf(shown)));
  const said = branches.filter((branch) => branch.words).map((branch) => (branches.length > 1 ? `${branch.label}: ${branch.words}` : branch.words));
  const waits = live && stage.wait && !said.length ? [waitOf(stage.wait, grown)] : [];
  const words = [stage.reason, ...said, ...waits, stage.message, stage.progress?.current_step, outcomesOf(stage), valuesOf(stage.attributes)].filter(Boolean);
  const hints = [stage.description, stage.weight != null && `weight ${stage.weight}`, stage.depends_on?.length && `after ${stage.depends_on.join(", ")}`].filter(Boolean).join(" · ");
  return html`<div class=${`tree-row${pending ? " pending" : ""}`} role="row" data-depth=${depth}>
    <span role="cell" class="tree-name" style=${{ paddingInlineStart: `${depth * 16}px` }} title=${hints}><${Icon} name=${face.icon} size=${14} tone=${face.tone} /><span class="tree-label"><span class="tree-title"><bdi>${stage.name}</bdi><span class="sr">, ${depth > 0 ? `in ${stage.path.slice(0, stage.path.length - stage.name.length - 1)}, ` : ""}${face.label}</span>${stage.critical === false && html`<span class="tag">optional</span>`}</span>
      ${words.length > 0 && html`<span class=${`tree-words${said.length || waits.length ? ` tone-${face.tone}` : ""}`} title=${[...new Set(words)].join(" · ")}><bdi>${[...new Set(words)].join(" · ")}</bdi></span>`}</span></span>
    <span role="cell" class="tree-bar">${!pending && html`<${Bar} value=${value} tone=${face.tone} live=${live} label=${`progress of ${stage.name}`} /><span class="tree-amount"><span>${amount(stage.progress)}</span><span>${live && !standing ? pace(stage.progress) : ""}</span></span>`}</span>
    <span role="cell" class="tree-time">${pending ? html`<span class="dim">${stage.expected ? `about ${duration(stage.expected)}` : "planned"}</span>` : live ? lasting(elapsed) : duration(elapsed)}</span>
    <span role="cell" class="lane-cell"><${Lane} span=${span} from=${stage.started_at} to=${(stage.started_at ?? 0) + (elapsed ?? 0)} tone=${face.tone} open=${live} marks=${marks} /></span></div>`;
}

// The outcomes and other counters of a stage, as a short text.
function outcomesOf({ outcomes, counters }) {
  const counted = Object.entries(counters ?? {}).map(([unit, completed]) => amount({ completed, unit }));
  return [...Object.entries(outcomes ?? {}).map(([key, count]) => `${number(count)} ${key}`), ...counted].join(", ");
}
const valuesOf = (attributes) => Object.entries(attributes ?? {}).map(([key, value]) => `${key}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");

function Runs({ row, span, marks }) {
  const [open, setOpen] = useState(false);
  const { counts, count, seconds, median, p95, longest, runs, depth } = row;
  const bad = Object.entries(counts).filter(([status]) => status !== "completed");
  const words = bad.map(([status, number_]) => `${number(number_)} ${STATUS[status]?.label ?? status}`).join(", ");
  const name = row.path.slice(row.path.lastIndexOf("/") + 1);
  const times = median == null ? "" : `median ${duration(median)} · 95% within ${duration(p95)} · longest ${duration(longest)}`;
  const face = STATUS[bad.length ? bad[0][0] : "completed"] ?? STATUS.completed;
  const label = html`<span class="turn ${open ? "open" : ""}"><${Icon} name="chevron" size=${11} /></span>`;
  return html`<div class="tree-row runs" role="row" data-depth=${depth}><span role="cell" class="tree-name" style=${{ paddingInlineStart: `${depth * 16}px` }}><${Icon} name=${face.icon} size=${14} tone=${face.tone} /><span class="tree-label"><span class="tree-title"><bdi>${name}</bdi><b>×${number(count)}</b>${runs.length > 0 && html`<button type="button" class="quiet icon-only" aria-expanded=${open} aria-label=${`The runs of ${name}`} onClick=${() => setOpen(!open)}>${label}</button>`}</span>
      ${words && html`<span class=${`tree-words tone-${face.tone}`}><bdi>${words}</bdi></span>`}</span></span>
    <span role="cell" class=${`tree-bar${bad.length ? " some-bad" : ""}`}><${Bar} value=${Math.floor((100 * (counts.completed ?? 0)) / count)} tone="good" live=${false} label=${`runs of ${name} that completed`} /><span class="tree-amount" title=${times}><span>${median == null ? "" : `${duration(median)} · p95 ${duration(p95)}`}</span></span></span>
    <span role="cell" class="tree-time" title="in all">${duration(seconds)}</span>
    <span role="cell" class="lane-cell"><${Lane} span=${span} marks=${marks} runs=${runs} /></span></div>
    ${open && runs.map((stage, index) => html`<div class="tree-row run" role="row" key=${index}><span role="cell" class="tree-name" style=${{ paddingInlineStart: `${depth * 16 + 16}px` }}><${Icon} name=${STATUS[stage.status].icon} size=${12} tone=${STATUS[stage.status].tone} /><span class="tree-label"><span class="tree-words"><bdi>${[stage.reason, stage.message, outcomesOf(stage), valuesOf(stage.attributes)].filter(Boolean).join(" · ") || STATUS[stage.status].label}</bdi></span></span></span><span role="cell" class="tree-amount">${amount(stage.progress)}</span><span role="cell" class="tree-time">${duration(stage.elapsed)}</span><span role="cell" class="lane-cell"></span></div>`)}`;
}

function Child({ row, label, earlier, span, now }) {
  const face = faceOf(row);
  const value = filled(row);
  const why = troubleOf(row, now);
  const words = [why || row.stage, !why && row.progress?.current_step].filter(Boolean).join(" · ");
  return html`<div class="tree-row child" role="row"><span role="cell" class="tree-name"><${Icon} name=${face.icon} size=${14} tone=${face.tone} /><span class="tree-label"><span class="tree-title"><${Go} id=${row.id}><bdi>${row.name}</bdi><//><span class="child-label" title=${row.id}><bdi>${label}</bdi></span>${earlier && html`<span class="tag">earlier attempt</span>`}<span class="sr">, ${face.label}</span></span>${(words || row.agent) && html`<span class="tree-words">${row.agent && html`<${Agent} agent=${row.agent} /> `}<bdi>${words}</bdi></span>`}</span></span>
    <span role="cell" class="tree-bar"><${Bar} value=${value} tone=${face.tone} live=${!isFinal(row)} label=${`progress of ${row.name}`} /><span class="tree-amount"><span>${amount(row.progress)}</span><span>${isFinal(row) ? face.label : paceOf(row)}</span></span></span>
    <span role="cell" class="tree-time">${spent(row, now)}</span>
    <span role="cell" class="lane-cell"><${Lane} span=${span} from=${row.started_at} to=${(row.started_at ?? 0) + (elapsedOf(row, now) ?? 0)} tone=${face.tone} open=${!isFinal(row)} marks=${[]} /></span></div>`;
}

function Marks({ marks, now }) {
  if (!marks.length) return null;
  const kinds = new Set(marks.map((mark) => mark.kind));
  return html`<div class="legend">${kinds.has("wait") && html`<span><i class="mark mark-wait"></i>wait</span>`}${kinds.has("stall") && html`<span><i class="mark mark-stall"></i>stall</span>`}
    <ul class="sr">${marks.map((mark, index) => html`<li key=${index}>${mark.kind} in ${mark.stage ?? "the operation"}: ${spelled(mark.reason ?? "")}, ${lasted(mark, now)}</li>`)}</ul></div>`;
}
