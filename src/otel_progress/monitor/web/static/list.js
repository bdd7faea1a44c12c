// The list of operations: a tree grid that renders only the visible lines.
import { html, signal, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { filterChanged, link, loadMore, loaded } from "./live.js";
import { Agent, RowBar, State, Why } from "./parts.js";
import { select, selected } from "./selection.js";
import { counts, filter, isFiltered, knownNames, layout, mayHoldMore, plan, rowOf, setFilter, ticking, toggleFold, unloaded } from "./state.js";
import { show } from "./watching.js";
import { GROUPS, STATUS, about, faceOf, groupOf, hashOf, isFinal, left, mutedWords, number, shortId, spent, stated, troubleOf } from "./words.js";

const ROW = 60;
const HEAD = 34;
const MARGIN = 5; // lines beyond the edges, so that scrolling shows no gap

/** The id under the keyboard cursor; `head:KEY` for the head of a group. */
export const cursor = signal(null);

const view = signal({ top: 0, height: 800 });
let box = null;

/** The offset of each part, in pixels. */
function measure() {
  let top = 0;
  return plan.value.parts.map((part) => {
    const begins = top;
    top += HEAD + (part.open ? part.rows.length * ROW : 0);
    return { ...part, begins, ends: top };
  });
}

function lines(parts, { top, height }) {
  const [from, to] = [top - MARGIN * ROW, top + height + MARGIN * ROW];
  const found = [];
  for (const part of parts) {
    if (part.ends < from || part.begins > to) continue;
    found.push({ key: `head:${part.group.key}`, part, at: part.begins, line: part.first });
    if (!part.open) continue;
    const start = part.begins + HEAD;
    const first = Math.max(0, Math.floor((from - start) / ROW));
    const last = Math.min(part.rows.length, Math.ceil((to - start) / ROW));
    for (let index = first; index < last; index += 1)
      found.push({ key: part.rows[index].id, entry: part.rows[index], at: start + index * ROW, line: part.first + 1 + index });
  }
  return found;
}

export function List() {
  const ref = useRef(null);
  const parts = measure();
  const total = parts.at(-1)?.ends ?? 0;
  const shown = lines(parts, view.value);
  useEffect(() => {
    box = ref.current;
    const see = () => (view.value = { top: box.scrollTop, height: box.clientHeight });
    const watch = new ResizeObserver(see);
    watch.observe(box);
    box.addEventListener("scroll", see, { passive: true });
    see();
    return () => {
      watch.disconnect();
      box.removeEventListener("scroll", see);
    };
  }, []);
  useAnchor(ref, parts);
  useEffect(() => show(shown.filter((line) => line.entry && !isFinal(line.entry.row.peek())).map((line) => line.key)));
  const near = mayHoldMore.value && parts.length > 0 && parts.at(-1).group.key === "ended" && parts.at(-1).open && view.value.top + view.value.height > total - 10 * ROW;
  useEffect(() => {
    if (near) void loadMore();
  }, [near, total, unloaded.value, link.value.phase]);
  const active = shown.some((line) => line.key === cursor.value) ? domId(cursor.value) : undefined;
  return html`<div class="list" ref=${ref} tabindex="0" role="treegrid" aria-label="Operations" aria-rowcount=${plan.value.lines + (unloaded.value > 0 ? unloaded.value : 0)} aria-colcount="1"
    aria-activedescendant=${active} onFocus=${(event) => event.currentTarget.matches(":focus-visible") && cursor.peek() == null && moveCursor(0)}>
    <div class="list-inner" role="presentation" style=${{ height: `${total + (near ? 40 : 0)}px` }}>
      ${shown.map((line) => (line.entry ? html`<${Row} key=${line.key} entry=${line.entry} at=${line.at} line=${line.line} />` : html`<${Head} key=${line.key} part=${line.part} at=${line.at} line=${line.line} />`))}
      ${near && html`<div class="more" style=${{ top: `${total}px` }} role="presentation">${isFiltered(filter.value) ? "Asking the monitor for more…" : `${number(unloaded.value)} more…`}</div>`}
    </div></div>`;
}

// Rows that appear or vanish above must not move the visible ones.
function useAnchor(ref, parts) {
  const anchor = useRef(null);
  useLayoutEffect(() => {
    const list = ref.current;
    const before = anchor.current;
    if (before && list.scrollTop > 0 && before.layout !== layout.peek()) {
      const at = offsetOf(parts, before.id, before.group);
      if (at != null && at !== before.at) list.scrollTop += at - before.at;
    }
    const first = lines(parts, { top: list.scrollTop + MARGIN * ROW, height: 0 }).find((line) => line.entry && line.at >= list.scrollTop);
    anchor.current = first ? { id: first.key, group: first.entry.group, at: first.at, layout: layout.peek() } : null;
  });
}

function offsetOf(parts, id, group) {
  const part = parts.find((one) => one.group.key === group);
  if (!part?.open) return null;
  const index = part.rows.findIndex((entry) => entry.id === id);
  return index < 0 ? null : part.begins + HEAD + index * ROW;
}

const domId = (key) => `line-${encodeURIComponent(key)}`;
const put = (at) => ({ transform: `translateY(${at}px)` });

function Head({ part, at, line }) {
  const { group, rows, open } = part;
  const key = `head:${group.key}`;
  const filtered = isFiltered(filter.value);
  const count = filtered ? rows.length : counts.value[group.key];
  return html`<div class=${`group-head${cursor.value === key ? " cursor" : ""}`} id=${domId(key)} style=${put(at)} role="row" aria-level="1" aria-rowindex=${line + 1} aria-expanded=${open}
    onClick=${() => toggleFold(group.key)}>
    <span role="gridcell" class="group-name"><span class=${open ? "turn open" : "turn"}><${Icon} name="chevron" size=${12} /></span><${State} face=${group} /><span class="count">${number(count)}</span></span></div>`;
}

function Row({ entry, at, line }) {
  const row = entry.row.value;
  const now = ticking();
  const face = faceOf(row);
  const group = groupOf(row);
  const why = troubleOf(row, now);
  const value = row.status === "completed" ? null : stated(row);
  const step = [row.stage, row.progress?.current_step].filter(Boolean).join(" · ");
  const current = selected.value === row.id;
  const calm = group === "progressing" || group === "pending" || (group === "waiting" && row.progress?.eta?.source === "children");
  return html`<div class=${`row${current ? " current" : ""}${cursor.value === row.id ? " cursor" : ""}`} id=${domId(row.id)} style=${put(at)} role="row" aria-level="2" aria-rowindex=${line + 1} aria-selected=${current}
    onClick=${(event) => open(event, row.id)}>
    <div role="gridcell" class="row-cell">
      <span class="row-icon" title=${face.label}><${Icon} name=${face.icon} tone=${face.tone} /><span class="sr">${face.label}</span></span>
      <span class="row-line"><span class="row-name">${row.parent_id && html`<span class="dim" title="part of another operation"><${Icon} name="child" size=${12} /></span>`}<a href=${hashOf(row.id)} tabindex="-1"><bdi>${row.name}</bdi></a>
        <span class="id" title=${row.id}><bdi>${shortId(row.id)}</bdi></span>${row.source === "spans" && html`<span class="tag" title="known from its spans alone">spans</span>`}${row.attempt > 1 && html`<span class="tag">attempt ${row.attempt}</span>`}${row.cancel && !row.ended && html`<span class="tag">cancelling</span>`}${row.muted && html`<span class="tag" title=${mutedWords(row.muted)}>muted</span>`}${row.warning && html`<span class="tag tone-warn warned" title=${row.warning}>warning<span class="sr">: ${row.warning}</span></span>`}</span>
      <span class="row-bar">${row.ended ? html`<span class="dim">${face.label}</span>` : html`<${RowBar} row=${row} /><span class="percent">${value == null ? "" : `${value}%`}</span>`}</span></span>
      <span class="row-line"><span class="row-what">${row.agent && html`<${Agent} agent=${row.agent} />`}${why && html`<span class=${`tone-${face.tone} why`}><${Why} text=${why} child=${row.verdict?.child} /></span>`}${step && !(why && row.ended) && html`<span class="dim"><bdi>${step}</bdi></span>`}</span>
      <span class="row-time">${calm && left(row, now) && html`<span>${left(row, now)}</span>`}${row.ended && row.timestamp != null ? html`<span class="dim" title=${`took ${spent(row, now)}`}>${about(Math.max(1, now - row.timestamp))} ago</span>` : html`<span class="dim" title="elapsed">${spent(row, now)}</span>`}</span></span>
    </div></div>`;
}

function open(event, id) {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  cursor.value = id;
  select(id);
}

// The lines that the keyboard visits, without building them: heads, and rows of open groups.
function keyAt(index) {
  const part = plan.peek().parts.findLast((one) => one.first <= index);
  if (!part) return null;
  return index === part.first ? `head:${part.group.key}` : part.rows[index - part.first - 1]?.id ?? null;
}

function indexOf(key) {
  for (const part of plan.peek().parts) {
    if (key === `head:${part.group.key}`) return part.first;
    const index = part.open ? part.rows.findIndex((entry) => entry.id === key) : -1;
    if (index >= 0) return part.first + 1 + index;
  }
  return -1;
}

/** Move the cursor by a number of lines; with `end`, to the first (-1) or the last (1). */
export function moveCursor(by, end = 0) {
  const { lines: count } = plan.peek();
  if (!count) return;
  const from = indexOf(cursor.peek() ?? selected.peek());
  let to = end ? (end < 0 ? 0 : count - 1) : from < 0 ? 1 : from + by;
  to = Math.min(count - 1, Math.max(0, to));
  cursor.value = keyAt(to);
  reveal(cursor.value);
}

function reveal(key) {
  const found = measure().find((part) => key === `head:${part.group.key}` || (part.open && part.rows.some((entry) => entry.id === key)));
  if (!found || !box) return;
  const head = key.startsWith("head:") && key === `head:${found.group.key}`;
  const at = head ? found.begins : offsetOf([found], key, found.group.key);
  const bottom = at + (head ? HEAD : ROW);
  if (at - HEAD < box.scrollTop) box.scrollTop = Math.max(0, at - HEAD);
  else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
}

/** Open the operation under the cursor, or fold the group. */
export function openCursor() {
  const key = cursor.peek();
  if (!key) return;
  if (rowOf(key)) select(key);
  else if (key.startsWith("head:")) toggleFold(key.slice(5));
}

/** Fold (true) or unfold the group under the cursor. */
export function foldCursor(fold) {
  const key = cursor.peek();
  if (!key) return;
  const part = plan.peek().parts.find((one) => key === `head:${one.group.key}` || (fold && one.rows.some((entry) => entry.id === key)));
  if (!part || part.open !== fold) return;
  toggleFold(part.group.key);
  cursor.value = `head:${part.group.key}`;
  reveal(cursor.value);
}

/** The search field and the filter chips. */
export function Filters() {
  const [shown, setShown] = useState(false);
  const { text, verdict, status, name } = filter.value;
  const set = (changes) => {
    setFilter(changes);
    filterChanged();
  };
  const flip = (field, key) => {
    const next = new Set(filter.peek()[field]);
    if (!next.delete(key)) next.add(key);
    set({ [field]: next });
  };
  const chosen = verdict.size + status.size + (name ? 1 : 0);
  return html`<div class="filters" role="search">
    <div class="search"><${Icon} name="search" /><input id="search" type="search" placeholder="Search operations" aria-label="Search operations" autocomplete="off" spellcheck="false" value=${text}
      onInput=${(event) => set({ text: event.currentTarget.value.trim().toLowerCase() })} /><kbd aria-hidden="true">/</kbd>
      <button type="button" class="quiet" aria-expanded=${shown} aria-controls="chips" onClick=${() => setShown(!shown)}><${Icon} name="filter" /><span>Filter</span>${chosen > 0 && html`<span class="badge">${chosen}</span>`}</button></div>
    ${shown && html`<div class="chips" id="chips">
      <div role="group" aria-label="State"><span class="chips-label">Now</span>${GROUPS.filter((group) => (counts.value[group.key] > 0 && group.key !== "ended") || verdict.has(group.key)).map((group) => html`<button type="button" class=${`chip tone-${group.tone}`} key=${group.key} aria-pressed=${verdict.has(group.key)} onClick=${() => flip("verdict", group.key)}><${Icon} name=${group.icon} size=${13} /><span>${group.label}</span><b>${number(counts.value[group.key])}</b></button>`)}</div>
      <div role="group" aria-label="How it ended"><span class="chips-label">Ended</span>${["completed", "failed", "cancelled", "lost", "interrupted"].map((key) => html`<button type="button" class=${`chip tone-${STATUS[key].tone}`} key=${key} aria-pressed=${status.has(key)} onClick=${() => flip("status", key)}><${Icon} name=${STATUS[key].icon} size=${13} /><span>${STATUS[key].label}</span></button>`)}</div>
      <label class="chips-label" for="name">Name</label><select id="name" value=${name} onChange=${(event) => set({ name: event.currentTarget.value })}>
        <option value="">all names</option>${[...new Set([...knownNames(), ...(name ? [name] : [])])].map((one) => html`<option key=${one} value=${one} selected=${one === name}>${one}</option>`)}</select>
    </div>`}
    ${isFiltered(filter.value) && html`<div class="filtered"><span>${number(plan.value.parts.reduce((sum, part) => sum + part.rows.length, 0))} shown</span><button type="button" class="quiet" onClick=${() => set({ text: "", verdict: new Set(), status: new Set(), name: "" })}><${Icon} name="close" size=${13} /><span>Clear filter</span></button></div>`}
  </div>`;
}

/** The message if nothing matches. */
export const Nothing = () => (loaded.value && plan.value.parts.length === 0 && isFiltered(filter.value) ? html`<p class="nothing">Nothing matches this filter.</p>` : null);
