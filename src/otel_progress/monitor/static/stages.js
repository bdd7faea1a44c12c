// The tree of stages and children, each with its bar, beside the time line that shows when it ran.
import { html, useState } from "./html.js";
import { Icon } from "./icons.js";
import { Bar, Go } from "./parts.js";
import { rowOf, ticking } from "./state.js";
import { GROUP, STATUS, amount, duration, elapsedOf, faceOf, groupOf, isFinal, pace, percent, since, troubleOf } from "./words.js";

const CHILDREN = 50;

/** Stages with their depth; a name may hold a slash, so that the depth comes from the paths that exist. */
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

/** The span of time that is shown. */
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

function Lane({ span, from, to, tone, open, marks }) {
  return html`<div class="lane" aria-hidden="true">${from != null && html`<div class=${`lane-bar tone-${tone}${open ? " open" : ""}`} style=${place(span, from, to)}></div>`}
    ${marks.map((mark, index) => html`<div key=${index} class=${`mark mark-${mark.kind}`} style=${place(span, mark.from, mark.to ?? span.now ?? span.to)} title=${`${mark.kind}: ${mark.reason ?? ""} (${duration((mark.to ?? span.to) - mark.from)})`}></div>`)}</div>`;
}

export function Stages({ shown }) {
  const [most, setMost] = useState(CHILDREN);
  const now = ticking();
  const children = (shown.children_rows ?? []).map((row) => newest(row));
  const stages = depths(shown.stages ?? []);
  const span = spanOf(shown, children, now);
  const marks = grouped(shown.timeline ?? []);
  if (shown.started_at == null && !stages.length) return null;
  const known = new Set(stages.map(({ stage }) => stage.path));
  const loose = (shown.timeline ?? []).filter((mark) => !known.has(mark.stage ?? ""));
  return html`<section class="stages" aria-labelledby="stages-title"><h2 id="stages-title">Stages and time line</h2>
    <div class="tree" role="table" aria-label="Stages and children"><div class="tree-head" role="row"><span role="columnheader">Stage</span><span role="columnheader">Progress</span><span role="columnheader" class="tree-time">Time</span>
      <span role="columnheader" class="axis"><span class="sr">When</span><span class="axis-start" aria-hidden="true">0</span>${ticksOf(span).map((at) => html`<span key=${at} class="tick" aria-hidden="true" style=${{ left: `${(at / (span.to - span.from)) * 100}%` }}>+${duration(at)}</span>`)}</span></div>
      ${(shown.folded ?? []).map(([status, count, seconds]) => html`<div class="tree-row folded" role="row" key=${`folded ${status}`}><span role="cell" class="tree-name"><${Icon} name="stage" size=${14} tone="dim" /><span class="dim">${count} earlier, ${STATUS[status]?.label ?? status}</span></span><span role="cell"></span><span role="cell" class="tree-time">${duration(seconds)}</span><span role="cell" class="lane-cell"></span></div>`)}
      ${(loose.length > 0 || !stages.length) && html`<div class="tree-row whole" role="row"><span role="cell" class="tree-name"><${Icon} name=${faceOf(shown).icon} size=${14} tone=${faceOf(shown).tone} /><span class="tree-label"><span class="tree-title"><bdi>${shown.name}</bdi><span class="sr">, the whole operation</span></span></span></span><span role="cell" class="tree-bar"></span><span role="cell" class="tree-time">${duration(elapsedOf(shown, now))}</span>
        <span role="cell" class="lane-cell"><${Lane} span=${span} from=${shown.started_at} to=${(shown.started_at ?? 0) + (elapsedOf(shown, now) ?? 0)} tone=${faceOf(shown).tone} open=${!isFinal(shown)} marks=${loose} /></span></div>`}
      ${stages.map(({ stage, depth }) => html`<${Stage} key=${stage.path} stage=${stage} depth=${depth} shown=${shown} span=${span} now=${now} marks=${marks.get(stage.path) ?? []} />`)}
      ${children.length > 0 && html`<div class="tree-part" role="row"><span role="cell">${children.length === 1 ? "1 child operation" : `${children.length} child operations`}</span></div>`}
      ${children.slice(0, most).map((row) => html`<${Child} key=${row.id} row=${row} span=${span} now=${now} />`)}
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

// Of the row in the detail and the one of the stream the newer counts.
function newest(row) {
  const live = rowOf(row.id)?.value;
  return live && (live.revision ?? 0) > (row.revision ?? 0) ? live : row;
}

function stageFace(stage, shown) {
  if (stage.status === "running" && shown.status !== "pending" && !isFinal(shown)) {
    const group = groupOf(shown);
    // The trouble is that of the innermost running stage: the others only wait for it.
    if (shown.stage === stage.path && GROUP[group].tone !== "run" && group !== "waiting") return GROUP[group];
  }
  return STATUS[stage.status] ?? STATUS.running;
}

function Stage({ stage, depth, shown, span, now, marks }) {
  const live = stage.status === "running" || stage.status === "waiting";
  const grown = live ? since(shown, now) : 0;
  const elapsed = stage.elapsed == null ? null : stage.elapsed + grown;
  const face = stageFace(stage, shown);
  const value = stage.status === "completed" && stage.progress?.total == null ? 100 : percent(stage);
  const pending = stage.status === "pending";
  const words = [stage.reason, stage.wait && `waits for ${stage.wait.reason}`, stage.message, stage.progress?.current_step].filter(Boolean);
  const hints = [stage.description, stage.weight != null && `weight ${stage.weight}`, stage.depends_on?.length && `after ${stage.depends_on.join(", ")}`].filter(Boolean).join(" · ");
  return html`<div class=${`tree-row${pending ? " pending" : ""}`} role="row" data-depth=${depth}>
    <span role="cell" class="tree-name" style=${{ paddingInlineStart: `${depth * 16}px` }} title=${hints}><${Icon} name=${face.icon} size=${14} tone=${face.tone} /><span class="tree-label"><span class="tree-title"><bdi>${stage.name}</bdi><span class="sr">, ${depth > 0 ? `in ${stage.path.slice(0, stage.path.length - stage.name.length - 1)}, ` : ""}${face.label}</span>${stage.critical === false && html`<span class="tag">optional</span>`}</span>
      ${[...new Set(words)].length > 0 && html`<span class="tree-words"><bdi>${[...new Set(words)].join(" · ")}</bdi></span>`}</span></span>
    <span role="cell" class="tree-bar">${!pending && html`<${Bar} value=${value} tone=${face.tone} live=${live} label=${`progress of ${stage.name}`} /><span class="tree-amount"><span>${amount(stage.progress)}</span><span>${live ? pace(stage.progress) : ""}</span></span>`}</span>
    <span role="cell" class="tree-time">${pending ? html`<span class="dim">${stage.expected ? `about ${duration(stage.expected)}` : "planned"}</span>` : duration(elapsed)}</span>
    <span role="cell" class="lane-cell"><${Lane} span=${span} from=${stage.started_at} to=${(stage.started_at ?? 0) + (elapsed ?? 0)} tone=${face.tone} open=${live} marks=${marks} /></span></div>`;
}

function Child({ row, span, now }) {
  const face = faceOf(row);
  const value = row.status === "completed" ? 100 : percent(row);
  const why = troubleOf(row, now);
  const words = [row.agent, why || row.stage, !why && row.progress?.current_step].filter(Boolean).join(" · ");
  return html`<div class="tree-row child" role="row"><span role="cell" class="tree-name"><${Icon} name=${face.icon} size=${14} tone=${face.tone} /><span class="tree-label"><span class="tree-title"><${Go} id=${row.id}><bdi>${row.name}</bdi><//><span class="id"><bdi>${row.id}</bdi></span><span class="sr">, ${face.label}</span></span>${words && html`<span class="tree-words"><bdi>${words}</bdi></span>`}</span></span>
    <span role="cell" class="tree-bar"><${Bar} value=${value} tone=${face.tone} live=${!isFinal(row)} label=${`progress of ${row.name}`} /><span class="tree-amount"><span>${amount(row.progress)}</span><span>${isFinal(row) ? face.label : pace(row.progress)}</span></span></span>
    <span role="cell" class="tree-time">${duration(elapsedOf(row, now))}</span>
    <span role="cell" class="lane-cell"><${Lane} span=${span} from=${row.started_at} to=${(row.started_at ?? 0) + (elapsedOf(row, now) ?? 0)} tone=${face.tone} open=${!isFinal(row)} marks=${[]} /></span></div>`;
}

function Marks({ marks, now }) {
  if (!marks.length) return null;
  const kinds = new Set(marks.map((mark) => mark.kind));
  return html`<div class="legend">${kinds.has("wait") && html`<span><i class="mark mark-wait"></i>wait</span>`}${kinds.has("stall") && html`<span><i class="mark mark-stall"></i>stall</span>`}
    <ul class="sr">${marks.map((mark, index) => html`<li key=${index}>${mark.kind} in ${mark.stage ?? "the operation"}: ${mark.reason ?? ""}, ${duration((mark.to ?? now) - mark.from)}</li>`)}</ul></div>`;
}
