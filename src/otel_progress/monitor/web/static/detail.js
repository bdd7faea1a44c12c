// The selected operation: what it is, its progress, why it is stuck, and its events.
import { mayControl, pathOf, save } from "./api.js";
import { html, useEffect, useRef, useState } from "./html.js";
import { askCancel, askMute } from "./dialogs.js";
import { Feed } from "./feed.js";
import { Icon } from "./icons.js";
import { Charts } from "./charts.js";
import { Agent, Bar, Copy, Go, Long, State, Value, Why, asText } from "./parts.js";
import { detail, select, selected, trouble } from "./selection.js";
import { Stages } from "./stages.js";
import { ticking } from "./state.js";
import { GROUP, STATUS, amount, apart, attemptWords, bounds, branchesOf, clockTime, duration, faceOf, filled, groupOf, idleOf, isFinal, lasting, left, money, mutedWords, number, paceOf, safeLink, size, sourceOf, spelled, spent, stated, troubleOf, unforeseenOf } from "./words.js";

export function Detail() {
  if (selected.value == null) return html`<main class="detail none" aria-label="Operation"><p>Choose an operation to see its stages, its timeline and its events.</p><p class="dim"><kbd>j</kbd> <kbd>k</kbd> move · <kbd>Enter</kbd> opens · <kbd>?</kbd> all keys</p></main>`;
  if (trouble.value && !detail.value) return html`<${Gone} />`;
  const shown = detail.value;
  if (!shown) return html`<main class="detail none" aria-label="Operation" aria-busy="true"><${Back} /><p class="dim">Loading…</p></main>`;
  return html`<main class=${`detail${!isFinal(shown) && faceOf(shown).tone === "bad" ? " still" : ""}`} aria-label="Operation" key=${shown.id}>
    <div class="detail-main"><${Title} shown=${shown} /><${Trouble} shown=${shown} /><${Mistakes} shown=${shown} /><${Again} shown=${shown} /><${Attempts} shown=${shown} /><${Branches} shown=${shown} /><${Stages} shown=${shown} /><${Charts} shown=${shown} /><${Facts} shown=${shown} /></div>
    <${Feed} shown=${shown} /></main>`;
}

const Back = () => html`<button type="button" class="quiet back" onClick=${() => select(null)}><${Icon} name="back" /><span>Operations</span></button>`;

function Gone() {
  const { status, message } = trouble.value;
  return html`<main class="detail none" aria-label="Operation"><${Back} />
    <h1>${status === 404 ? "This operation is not known" : "The monitor could not show this operation"}</h1>
    <p>${status === 404 ? html`The monitor knows nothing of <code><bdi>${selected.value}</bdi></code>. It may have been deleted long after its end, or its program has sent nothing yet.` : message}</p>
    <button type="button" onClick=${() => select(null)}>Back to the operations</button></main>`;
}

function Title({ shown }) {
  const now = ticking();
  const face = faceOf(shown);
  const heading = useRef(null);
  const [problem, setProblem] = useState("");
  useEffect(() => setProblem(""), [shown.id]);
  useEffect(() => {
    // On a narrow screen the detail replaces the list: screen readers and keys continue here.
    if (matchMedia("(max-width: 820px)").matches) heading.current.focus({ preventScroll: true });
  }, [shown.id]);
  const value = filled(shown);
  const said = stated(shown);
  const over = isFinal(shown) && shown.status !== "completed";
  const rest = left(shown, now);
  const facts = [
    shown.agent && ["agent", html`<${Agent} agent=${shown.agent} />`],
    shown.service && ["service", html`<bdi>${shown.service}</bdi>`],
    (shown.host || shown.pid) && ["process", html`<bdi>${[shown.host, shown.pid].filter(Boolean).join(":")}</bdi>`],
    ["attempt", shown.attempt ?? 1],
    shown.started_at && ["started", clockTime(shown.started_at, now)],
  ].filter(Boolean);
  return html`<header class="title"><${Back} />
    ${shown.ancestors?.length > 0 && html`<nav class="crumbs" aria-label="Part of">${shown.ancestors.map((one) => html`<${Go} key=${one.id} id=${one.id}><bdi>${one.name}</bdi><//><span aria-hidden="true">/</span>`)}</nav>`}
    <div class="title-line"><h1 tabindex="-1" ref=${heading}><bdi>${shown.name}</bdi></h1><${State} face=${face} />${shown.verdict?.overdue && groupOf(shown) !== "overdue" && html`<span class="tag tone-warn">overdue</span>`}<span class="grow"></span><${MuteButton} shown=${shown} /><${CancelButton} shown=${shown} /></div>
    <div class="title-id"><span class="id"><bdi>${shown.id}</bdi></span><${Copy} text=${shown.id} label="Copy the id" /><${Trace} trace=${shown.trace} /><${ReportButton} shown=${shown} tell=${setProblem} /></div>
    ${problem && html`<p class="report-why tone-bad" role="alert">${problem}</p>`}
    ${shown.muted && !isFinal(shown) && html`<p class="dim muted"><${Icon} name="mute" size=${13} /> <bdi>${mutedWords(shown.muted)}</bdi></p>`}
    ${shown.warning && html`<p class="tone-warn warned"><${Icon} name="stuck" size=${13} /> <bdi>${shown.warning}</bdi></p>`}
    ${shown.description && html`<p class="description"><${Long} text=${shown.description} /></p>`}
    <dl class="facts">${facts.map(([word, value]) => html`<div key=${word}><dt>${word}</dt><dd>${value}</dd></div>`)}</dl>
    <div class="big"><div class="big-numbers">${(said != null || over) && html`<span class="big-percent">${over ? face.label : `${said}%`}</span>`}<span class="big-words"><span>${[over && said != null && `at ${said}%`, amount(shown.progress), paceOf(shown)].filter(Boolean).join(" · ")}${shown.progress?.rolled_up ? html` <span class="tag" title="made from what its child operations say">with children</span>` : ""}</span>
        ${shown.progress?.current_step && !isFinal(shown) && html`<span class="dim step"><bdi>${shown.progress.current_step}</bdi></span>`}</span>
      <span class="big-time"><span><b>${spent(shown, now)}</b> <span class="dim">elapsed</span></span>${rest ? html`<span class="eta" title=${bounds(shown, now)}><b>${rest}</b> <span class="dim">${sourceOf(shown.progress.eta)}</span></span>` : unforeseenOf(shown) && html`<span class="dim">${unforeseenOf(shown)}</span>`}</span></div>
      <${Bar} value=${value} tone=${face.tone} live=${!isFinal(shown) && shown.status !== "pending"} label=${`progress of ${shown.name}`} /></div>
  </header>`;
}

function ReportButton({ shown, tell }) {
  const ask = () => {
    tell("");
    save(pathOf(shown.id, "/report?format=html"), "report.html").catch((error) => tell(error.message));
  };
  return html`<button type="button" class="quiet" title="Save the report of this run as one HTML file" onClick=${ask}><${Icon} name="save" size=${14} /><span>Report</span></button>`;
}

function MuteButton({ shown }) {
  if (isFinal(shown)) return null;
  const { muted } = shown;
  if (!mayControl()) return muted ? html`<span class="tag" title=${mutedWords(muted)}>muted</span>` : null;
  return html`<button type="button" class="quiet" title=${muted ? mutedWords(muted) : "Keep webhooks silent about it (m)"} onClick=${() => askMute(shown)}><${Icon} name=${muted ? "bell" : "mute"} size=${14} /><span>${muted ? "Muted" : "Mute"}</span></button>`;
}

function CancelButton({ shown }) {
  if (isFinal(shown)) return null;
  const why = !mayControl() ? "This token may read, but not cancel." : shown.control === false ? "Its process can't be reached: it has no control channel to this monitor." : "";
  const asked = shown.cancel === "requested";
  return html`<span class="cancel">${asked && html`<span class="tag">asked to stop</span>`}<button type="button" class="danger" disabled=${Boolean(why)} aria-describedby=${why ? "cancel-why" : undefined} title=${why || "Cancel (c)"} onClick=${() => askCancel(shown)}><${Icon} name="stop" size=${14} /><span>Cancel</span></button>
    ${why && html`<span id="cancel-why" class="cancel-why dim">${why}</span>`}</span>`;
}

function Trace({ trace }) {
  if (!trace?.trace_id) return null;
  const link = safeLink(trace.url);
  return html`<span class="trace">${link ? html`<a href=${link} target="_blank" rel="noopener noreferrer"><${Icon} name="link" size=${13} />Trace</a>` : html`<span class="dim">trace</span> <span class="id">${String(trace.trace_id)}</span><${Copy} text=${String(trace.trace_id)} label="Copy the trace id" />`}${trace.sampled === false && html`<span class="tag">not sampled</span>`}</span>`;
}

const HEADLINES = {
  stuck: "Stuck",
  frozen: "Frozen: its process is stopped",
  looping: "Repeating itself in a loop",
  dead: "Dead: its process is no longer heard",
  overdue: "Waits longer than allowed",
  slow: "Slower than expected",
  unknown: "Its state is unknown",
  waiting: "Waiting",
};

// The limit that decided. A heartbeat is no limit itself: three of them are missing.
const limitOf = ({ limit, allowed, source }) => (limit === "heartbeat" ? `not heard of for ${BEATS} heartbeats of ${duration(allowed / BEATS)}` : `the limit is ${duration(allowed)} (${limit}${source ? `, ${source}` : ""})`);
const BEATS = 3;

function Trouble({ shown }) {
  const now = ticking();
  const group = groupOf(shown);
  const face = faceOf(shown);
  const verdict = shown.verdict ?? {};
  if (isFinal(shown)) return shown.reason || shown.hint ? html`<section class=${`trouble tone-${face.tone}`} aria-label="How it ended"><h2><${Icon} name=${face.icon} />${face.label}</h2>${shown.reason && html`<p class="evidence"><span><${Long} text=${shown.reason} most=${2000} /></span></p>`}${shown.hint && html`<p class="evidence"><span><b>hint:</b> <${Long} text=${shown.hint} most=${2000} /></span></p>`}</section>` : null;
  if (group === "progressing" && !shown.stack) return null;
  if (group === "pending") return null;
  const live = troubleOf(shown, now);
  const evidence = [
    GROUP[group].trouble && verdict.allowed != null && verdict.limit && limitOf(verdict),
    verdict.seen && `last seen: ${verdict.seen}`,
    shown.process?.heard_ago != null && group !== "dead" && `its process was heard ${lasting(shown.process.heard_ago + now - shown.seen_at)} ago`,
  ].filter(Boolean);
  return html`<section class=${`trouble tone-${face.tone}`} aria-label=${HEADLINES[group] ?? face.label}>
    <h2><${Icon} name=${face.icon} />${HEADLINES[group] ?? face.label}</h2>
    <p class="evidence"><${Why} text=${live || spelled(verdict.reason || "")} child=${verdict.child} />${evidence.map((one) => html`<span key=${one} class="dim"><bdi>${one}</bdi></span>`)}</p>
    ${shown.loop && html`<div class="loop"><span>${number(shown.loop.repeats ?? 0)} times the same ${shown.loop.kind ?? "steps"}:</span><ol>${(shown.loop.keys ?? []).map((key, index) => html`<li key=${index}><code><bdi>${asText(key)}</bdi></code></li>`)}</ol></div>`}
    ${(shown.stuck_at || shown.stack) && html`<div class="stack"><div class="stack-head">${shown.stuck_at && html`<code class="stuck-at"><bdi>${shown.stuck_at}</bdi></code>`}<span class="grow"></span>${shown.stack && html`<${Copy} text=${shown.stack} words="Copy the stack" />`}</div>
      ${shown.stack && html`<pre tabindex="0" aria-label="Where it is stuck">${shown.stack}</pre>`}</div>`}</section>`;
}

// What its sender gets wrong: the values that the monitor ignored.
function Mistakes({ shown }) {
  const found = shown.sender_mistakes ?? [];
  if (found.length === 0) return null;
  return html`<section class="again" aria-labelledby="mistakes-title"><h2 id="mistakes-title">Its program sends what the monitor cannot use</h2><ul>${found.map((words) => html`<li key=${words}><bdi>${words}</bdi></li>`)}</ul></section>`;
}

// The monitor starts nothing itself: it shows the command, for a shell on the machine of the process.
function Again({ shown }) {
  const now = ticking();
  const { command, checkpoint_at: saved } = shown;
  if (!command?.line || !isFinal(shown) || shown.status === "completed") return null;
  const facts = [
    shown.host && `on ${shown.host}`,
    saved != null && `last checkpoint ${lasting(Math.max(0, now - saved))} ago`,
    command.masked && "secrets are masked: fill them in",
    command.cut && "it was too long to be kept whole",
  ].filter(Boolean);
  return html`<section class="again" aria-labelledby="again-title"><h2 id="again-title">${saved != null ? "Resume it" : "Start it again"}</h2>
    <div class="again-line"><code tabindex="0"><bdi>${command.line}</bdi></code><${Copy} text=${command.line} label="Copy the command" words="Copy" /></div>
    ${facts.length > 0 && html`<p class="dim"><bdi>${facts.join(" · ")}</bdi></p>`}</section>`;
}

function Attempts({ shown }) {
  const now = ticking();
  const attempts = shown.attempts ?? [];
  if (attempts.length < 2) return null;
  return html`<section class="branches attempts" aria-labelledby="attempts-title"><h2 id="attempts-title">Attempts</h2><ol reversed>${[...attempts].reverse().map((one) => {
    const newest = one.attempt === attempts.at(-1).attempt;
    const face = newest ? faceOf(shown) : STATUS[one.status] ?? GROUP.unknown;
    const words = attemptWords(one, newest ? shown : null, now);
    return html`<li key=${one.attempt}><${Icon} name=${face.icon} size=${14} tone=${face.tone} /><span class="branch-name">attempt ${one.attempt}</span><span class=${`branch-state tone-${face.tone}`}>${face.label}</span><span class="branch-words"><bdi>${words}</bdi></span></li>`;
  })}</ol></section>`;
}

function Branches({ shown }) {
  const branches = branchesOf(shown, ticking());
  if (!branches.length) return null;
  const labels = apart(shown.children_rows ?? []);
  return html`<section class="branches" aria-labelledby="branches-title"><h2 id="branches-title">Side by side</h2><ul>${branches.map((branch) => {
    const face = GROUP[branch.group];
    const child = branches.filter(({ label }) => label === branch.label).length > 1 && labels.get(branch.child);
    const name = html`<bdi>${branch.label}</bdi>${child && html` <span class="child-label"><bdi>${child}</bdi></span>`}`;
    return html`<li key=${`${branch.label} ${branch.child ?? ""}`} class=${face.trouble ? `tone-${face.tone} bad-branch` : ""}><${Icon} name=${face.icon} size=${14} tone=${face.tone} /><span class="branch-name">${branch.child ? html`<${Go} id=${branch.child}>${name}<//>` : name}</span>
      <span class=${`branch-state tone-${face.tone}`}>${face.label}</span><span class="branch-words"><bdi>${branch.words}</bdi>${branch.stuck_at && html` <code><bdi>at ${branch.stuck_at}</bdi></code>`}</span></li>`;
  })}</ul></section>`;
}

function Facts({ shown }) {
  const now = ticking();
  const tokens = Object.entries(shown.tokens ?? {});
  const cost = Object.entries(shown.cost ?? {});
  const used = shown.resources ?? {};
  const found = shown.statistics ?? {};
  const failures = Array.isArray(found.failures) ? found.failures : [];
  const resources = [
    used.cpu_seconds != null && ["CPU time in this run", duration(used.cpu_seconds)],
    used.cpu != null && !isFinal(shown) && ["CPU now", `${Math.round(used.cpu * 100)}% of a core`],
    used.memory != null && !isFinal(shown) && ["memory now", size(used.memory)],
    used.peak_memory != null && ["peak memory in this run", size(used.peak_memory)],
    used.threads != null && !isFinal(shown) && ["threads", number(used.threads)],
    used.read_bytes != null && ["read since its start", size(used.read_bytes)],
    used.written_bytes != null && ["written since its start", size(used.written_bytes)],
    used.children > 0 && !isFinal(shown) && ["child processes", [number(used.children), used.children_memory != null && size(used.children_memory)].filter(Boolean).join(", ")],
  ].filter(Boolean);
  const items = found.items ?? {};
  const outcomes = { ...shown.outcomes, ...(items.success_rate != null && items.failed > 0 && { "success rate": successOf(items) }) };
  const components = Object.entries(found.components ?? {}).map(([name, tally]) => [name, tallyOf(tally)]);
  const limits = shown.limits ?? {};
  const limit = (key) => limits[key] != null && [key, `${duration(limits[key])}${limits[`${key}_source`] ? `, ${limits[`${key}_source`]}` : ""}`];
  const process = shown.process ?? {};
  const life = [
    shown.idle != null && !isFinal(shown) && ["idle", lasting(idleOf(shown, now))],
    limit("stall_after"), limit("slow_after"), limit("start_within"),
    process.heard_ago != null && !isFinal(shown) && ["heard", `${lasting(process.heard_ago + now - shown.seen_at)} ago`],
    process.heartbeat != null && ["heartbeat", `each ${duration(process.heartbeat)}`],
    process.instance && ["instance", process.instance],
  ].filter(Boolean);
  return html`<div class="cards">
    ${(tokens.length > 0 || cost.length > 0) && html`<section class="card" aria-label="Cost and tokens"><h2>Cost and tokens</h2><dl class="numbers">${cost.map(([currency, value]) => html`<div key=${currency}><dt><bdi>${currency}</bdi></dt><dd>${money(value, currency)}</dd></div>`)}${tokens.map(([kind, value]) => html`<div key=${kind}><dt><bdi>${kind}</bdi></dt><dd>${number(value)}</dd></div>`)}</dl>${(shown.children ?? 0) > 0 && html`<p class="dim">with its children</p>`}</section>`}
    <${Table} title="Outcomes" values=${outcomes} /><${Table} title="Components" values=${Object.fromEntries(components)} /><${Table} title="Counters" values=${shown.counters} />
    <${Table} title="Failures" kind="counted" values=${Object.fromEntries(failures.map((one) => [one?.message === OTHERS ? "others" : asText(one?.message), one?.count]))} /><${Table} title="Process" values=${Object.fromEntries(resources)} />
    <${Table} title="Result" values=${shown.result} /><${Table} title="Attributes" values=${shown.attributes} />
    <${Table} title="Signs of life and limits" values=${Object.fromEntries(life)} /><${Table} title="Usage" values=${shown.usage} /><${Table} title="Resource" values=${process.resource} folded=${true} />
  </div>`;
}

const OTHERS = "_other"; // rarer messages, counted together
// Never rounded up to 100%: something failed.
const successOf = ({ success_rate: part }) => `${number(Math.floor(part * 1000) / 10)}%`;
const tallyOf = (tally) => {
  const counts = [["ok", tally.ok], ["failed", tally.failed], ["skipped", tally.skipped], ["retried", tally.retried], ...Object.entries(tally.others ?? {})].filter(([, count]) => count);
  return [counts.map(([word, count]) => `${number(count)} ${word}`).join(", "), tally.failed > 0 && tally.success_rate != null && `${successOf(tally)} ok`].filter(Boolean).join(" · ");
};

function Table({ title, values, folded, kind = "" }) {
  const lines = Object.entries(values ?? {});
  if (!lines.length) return null;
  const body = html`<dl class=${`pairs ${kind}`}>${lines.map(([key, value]) => html`<div key=${key}><dt><${Long} text=${key} most=${120} /></dt><dd><${Value} value=${value} /></dd></div>`)}</dl>`;
  if (folded) return html`<details class="card"><summary><h2>${title}</h2></summary>${body}</details>`;
  return html`<section class="card" aria-label=${title}><h2>${title}</h2>${body}</section>`;
}
