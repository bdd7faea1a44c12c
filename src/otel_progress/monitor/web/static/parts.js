// Small components that others share.
import { html, useEffect, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { faceOf, filled, hashOf, number, safeLink } from "./words.js";

/** A progress bar; without a percentage it shows a calm pattern instead of a number. */
export function Bar({ value, tone = "run", live = true, label }) {
  const known = value != null;
  return html`<div class=${`bar tone-${tone}${known ? "" : live ? " bar-open" : " bar-none"}`} role="progressbar" aria-label=${label ?? "progress"}
    aria-valuemin=${known ? 0 : undefined} aria-valuemax=${known ? 100 : undefined} aria-valuenow=${known ? value : undefined}>
    <div class="bar-fill" style=${{ width: `${known ? bar(value) : live ? 100 : 0}%` }}></div></div>`;
}

/** The width of a bar in percent: only 100% looks full. */
const bar = (value) => (value < 100 ? Math.min(value, 97) : 100);

/** The bar of a row, in the colour of its state. */
export function RowBar({ row }) {
  const face = faceOf(row);
  const value = filled(row);
  return html`<${Bar} value=${value} tone=${face.tone} live=${!row.ended && row.status !== "pending"} label=${`progress of ${row.name}`} />`;
}

/** Icon and word of a state. */
export function State({ face, children }) {
  return html`<span class=${`state tone-${face.tone}`}><${Icon} name=${face.icon} />${children ?? face.label}</span>`;
}

/** A button that copies a text and confirms it. */
export function Copy({ text, label = "copy", words }) {
  const [done, setDone] = useState(false);
  const timer = useRef();
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      copyOldWay(text);
    }
    setDone(true);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setDone(false), 1500);
  };
  return html`<button type="button" class=${words ? "quiet" : "quiet icon-only"} onClick=${copy} aria-label=${words ? undefined : label} title=${label}>
    <${Icon} name=${done ? "check" : "copy"} size=${14} />${words && html`<span>${done ? "Copied" : words}</span>`}
    <span class="sr" aria-live="polite">${done ? "copied" : ""}</span></button>`;
}

// Over plain HTTP, browsers allow the clipboard for localhost only.
function copyOldWay(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "sr";
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** A link to an operation of the monitor. */
export const Go = ({ id, children, ...rest }) => html`<a href=${hashOf(id)} ...${rest}>${children}</a>`;

/** The trouble of a row; the child that causes it is a link. */
export function Why({ text, child }) {
  if (child == null || !text) return html`<bdi>${text}</bdi>`;
  const found = /\bchild (.+?) in another process/s.exec(text);
  const [from, name] = found ? [found.index, `child ${found[1]}`] : [text.length, `child ${child}`];
  const link = html`<${Go} id=${child} tabindex=${-1} onClick=${(event) => event.stopPropagation()}>${name}<//>`;
  return html`<bdi>${text.slice(0, from)}${found ? "" : " "}${link}${found ? text.slice(from + name.length) : ""}</bdi>`;
}

const LONG = 280;
/** A long text, cut until it is expanded. */
export function Long({ text, most = LONG }) {
  const [open, setOpen] = useState(false);
  const all = asText(text);
  if (all.length <= most) return html`<bdi>${all}</bdi>`;
  return html`<bdi>${open ? all : `${all.slice(0, most).trimEnd()}…`}</bdi> <button type="button" class="more-text" aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "less" : "more"}</button>`;
}

/** Any value as text; a nested one as JSON. */
export function asText(value) {
  if (value == null) return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A formatted value: links, grouped digits, nested values laid out. */
export function Value({ value }) {
  const link = safeLink(value);
  if (link) return html`<a href=${link} target="_blank" rel="noopener noreferrer"><bdi>${value}</bdi></a>`;
  if (typeof value === "number") return html`<bdi>${number(value)}</bdi>`;
  const nested = nestedIn(value);
  if (nested == null) return html`<${Long} text=${asText(value)} />`;
  const short = JSON.stringify(nested);
  return short.length <= 40 ? html`<code><bdi>${short}</bdi></code>` : html`<pre class="json" tabindex="0">${JSON.stringify(nested, null, 2)}</pre>`;
}

// Attributes hold no nested values: those arrive as JSON text.
function nestedIn(value) {
  if (value != null && typeof value === "object") return value;
  if (typeof value !== "string" || !/^\s*[[{]/.test(value) || value.length > 20_000) return null;
  try {
    return JSON.parse(value);
  } catch {
    return null;
  }
}

const COLOURS = 8;
const colours = new Map();
/** The colour of an agent, fixed while the page is open; colours are shared only if none is left. */
export function colourOf(agent) {
  if (!colours.has(agent)) {
    let at = 0;
    for (const sign of agent) at = (at * 31 + sign.codePointAt(0)) % COLOURS;
    const taken = new Set(colours.values());
    for (let step = 0; step < COLOURS && taken.has(at); step += 1) at = (at + 1) % COLOURS;
    if (colours.size < 500) colours.set(agent, at);
    return at;
  }
  return colours.get(agent);
}

/** The avatar of an agent: its first letter in its colour, always beside its name. */
export const Avatar = ({ agent, size = "" }) => html`<span class=${`avatar who-${colourOf(agent)} ${size}`} aria-hidden="true">${[...agent][0]?.toUpperCase() ?? "?"}</span>`;

/** An agent's avatar and name. */
export const Agent = ({ agent }) => html`<span class=${`agent who-${colourOf(agent)}`}><${Avatar} agent=${agent} size="small" /><bdi>${agent}</bdi></span>`;
