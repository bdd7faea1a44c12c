// <progress-operation src="/progress/operations/ID" cancel>: one operation in a page of your own, in the words of the
// monitor's page. Texts are inserted as text only, and styles as a constructed style sheet, so that a strict content
// security policy allows it.
import { frames } from "./sse.js";
import { ANSWERS, amount, bounds, faceOf, filled, groupOf, isFinal, left, paceOf, percent, sourceOf, spent, stated, troubleOf, unforeseenOf } from "./words.js";

const STREAMS = 4; // a browser has six connections for a host; elements beyond these ask again and again
const ASK = 2000;
const ASK_HIDDEN = 15_000;
const HIDDEN = 3000;
const QUIET = 25_000; // the server beats each 10 s
const SHORTEST = 250;
const LONGEST = 5000;
const STAGES = 3; // shown at once
const STALE = 3000; // a shorter break is not worth a word

const STYLE = new CSSStyleSheet();
STYLE.replaceSync(`
:host { display: block; font-variant-numeric: tabular-nums; line-height: 1.45; color: var(--progress-text, light-dark(#1a1d23, #e7e9ee)); }
:host([hidden]) { display: none; }
.card { display: grid; gap: 6px; padding: 14px 16px; border: 1px solid var(--progress-line, light-dark(#d9dde5, #2f3540)); border-radius: var(--progress-radius, 10px); background: var(--progress-panel, light-dark(#ffffff, #14171c)); }
.head, .foot { display: flex; align-items: baseline; gap: 10px; flex-wrap: wrap; }
.name { font-weight: 650; overflow-wrap: anywhere; flex: 1 1 auto; min-width: 0; }
.state { font-weight: 600; color: var(--tone); white-space: nowrap; }
.state::before { content: ""; display: inline-block; width: .55em; height: .55em; margin-inline-end: .45em; border-radius: 50%; background: var(--tone); }
.bar { height: 8px; border-radius: 4px; overflow: hidden; background: var(--progress-track, light-dark(#e3e6ec, #2a303a)); }
.fill { height: 100%; border-radius: 4px; background: var(--tone); transition: width .25s linear; }
.open .fill { opacity: .6; min-width: calc(100% + 28.284px); background: repeating-linear-gradient(135deg, var(--tone) 0 10px, color-mix(in srgb, var(--tone) 45%, transparent) 10px 20px); animation: drift 3.5s linear infinite; }
.still .fill { animation: none; }
@keyframes drift { from { transform: translateX(-28.284px); } }
.facts { display: flex; flex-wrap: wrap; gap: 2px 14px; }
.stages { display: grid; gap: 6px; }
.stage { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 14px; }
.stage .bar { height: 4px; flex: 1 0 100%; }
.stage, .note { color: var(--progress-dim, light-dark(#5a6272, #99a2b3)); }
.stage, .trouble { overflow-wrap: anywhere; }
.trouble { color: var(--tone); }
.quiet { opacity: .65; }
.foot:empty, .stages:empty, .trouble:empty, .facts:empty { display: none; }
.note:empty { position: absolute; }
button { font: inherit; color: inherit; border: 1px solid currentColor; border-radius: 6px; background: none; padding: 3px 12px; min-height: 28px; cursor: pointer; }
button:disabled { opacity: .5; cursor: not-allowed; }
button:focus-visible { outline: 2px solid var(--progress-accent, light-dark(#3654d6, #8aa4ff)); outline-offset: 1px; }
.danger { color: var(--progress-bad, light-dark(#c0231c, #ff8078)); }
.tone-bad { --tone: var(--progress-bad, light-dark(#c0231c, #ff8078)); }
.tone-warn { --tone: var(--progress-warn, light-dark(#9a5700, #f0b45a)); }
.tone-good { --tone: var(--progress-good, light-dark(#1d7a3e, #63d28a)); }
.tone-wait { --tone: var(--progress-wait, light-dark(#6a3fc4, #b79bff)); }
.tone-run { --tone: var(--progress-accent, light-dark(#3654d6, #8aa4ff)); }
.tone-dim { --tone: var(--progress-dim, light-dark(#5a6272, #99a2b3)); }
.sr { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (prefers-reduced-motion: reduce) { .fill { animation: none !important; transition: none; } }
`);

/** A request that failed: `status` is 0 without an answer. */
class Failure extends Error {
  constructor(status, message = "") {
    super(message);
    this.status = status;
  }
}

const streaming = new Set();
const make = (name, part, role) => {
  const made = document.createElement(name);
  made.className = part;
  made.setAttribute("part", part);
  if (role) made.setAttribute("role", role);
  return made;
};
/** Change a text only if it differs, so that a selection and a screen reader stay undisturbed. */
const say = (where, text) => {
  const plain = straight(text);
  if (where.textContent !== plain) where.textContent = plain;
};
/** A text without signs that change its direction: a name can't reverse what follows. */
const straight = (text) => String(text).replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, " ");

/** The address in `src`; null for what is none: `javascript:`, `data:` and `blob:` name no server. */
function addressOf(src) {
  try {
    const url = new URL(src, document.baseURI);
    return url.protocol === "https:" || url.protocol === "http:" ? url : null;
  } catch {
    return null;
  }
}

/** The running stages without a running stage inside, the newest ones. */
function runningStages(row) {
  const running = (row.stages ?? []).filter((stage) => stage.status === "running" || stage.status === "waiting");
  return running.filter((stage) => !running.some((inner) => inner.path.startsWith(`${stage.path}/`))).slice(-STAGES);
}

export class ProgressOperation extends HTMLElement {
  static observedAttributes = ["src", "cancel"];
  #row = null;
  #abort = null;
  #reading = null;
  #wake = null;
  #clock = null;
  #hiding = null;
  #position = null;
  #skew = 0;
  #lostAt = null;
  #problem = null;
  #asked = "";
  #said = "";
  #parts;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [STYLE];
    const parts = { card: make("section", "card"), head: make("div", "head"), name: make("bdi", "name"), state: make("span", "state"), bar: make("div", "bar", "progressbar"), fill: make("div", "fill"), facts: make("div", "facts"), stages: make("div", "stages"), trouble: make("div", "trouble"), foot: make("div", "foot"), note: make("div", "note", "status"), live: make("div", "sr", "status") };
    parts.head.append(parts.name, parts.state);
    parts.bar.append(parts.fill);
    parts.card.append(parts.head, parts.bar, parts.facts, parts.stages, parts.trouble, parts.foot, parts.note, parts.live);
    root.append(parts.card);
    this.#parts = parts;
    this.seen = this.seen.bind(this);
  }

  /** The newest state of the operation as the API gives it; null until it is known. */
  get row() {
    return this.#row;
  }

  connectedCallback() {
    document.addEventListener("visibilitychange", this.seen);
    this.#begin();
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.seen);
    this.#end();
  }

  attributeChangedCallback(name, before, now) {
    if (!this.isConnected) return;
    if (name === "src") this.#begin(); // also to the same value: it follows the next run of an id
    else if (before !== now) this.#render();
  }

  #begin() {
    this.#end();
    [this.#row, this.#position, this.#lostAt, this.#problem, this.#asked, this.#said] = [null, null, null, null, "", ""];
    const abort = (this.#abort = new AbortController());
    this.#clock = setInterval(() => this.#render(), 1000);
    this.#render();
    if (this.#address()) void this.#keepUp(abort.signal);
  }

  #end() {
    this.#abort?.abort();
    this.#reading?.abort();
    this.#wake?.();
    clearInterval(this.#clock);
    clearTimeout(this.#hiding);
  }

  /** A hidden tab holds no connection; it asks now and then, so that the end is noticed. */
  seen() {
    clearTimeout(this.#hiding);
    if (document.hidden) this.#hiding = setTimeout(() => this.#reading?.abort(), HIDDEN);
    else this.#wake?.();
  }

  #address() {
    const src = this.getAttribute("src");
    return src ? addressOf(src) : null;
  }

  #url(rest = "") {
    const url = this.#address();
    return `${url.origin}${url.pathname.replace(/\/+$/, "")}${rest}`;
  }

  async #keepUp(abort) {
    let tries = 0;
    while (!abort.aborted) {
      let pause = document.hidden ? ASK_HIDDEN : ASK;
      try {
        if (!document.hidden && streaming.size < STREAMS) {
          await this.#follow(abort);
          pause = isFinal(this.#row ?? {}) || document.hidden ? 0 : SHORTEST;
        } else await this.#ask(abort);
        tries = 0;
      } catch (problem) {
        if (abort.aborted) return;
        if (!(problem instanceof Failure) && problem.name !== "TypeError" && problem.name !== "AbortError") console.error(problem);
        this.#problem = problem instanceof Failure ? problem : new Failure(0);
        this.#lostAt ??= Date.now();
        tries += 1;
        pause = Math.min(LONGEST, SHORTEST * 2 ** tries) * (0.5 + Math.random() / 2);
      }
      this.#render();
      if (isFinal(this.#row ?? {}) && !this.#problem) return this.#over();
      if (this.#problem?.status === 401 || this.#problem?.status === 403) return;
      await new Promise((go) => {
        this.#wake = go;
        setTimeout(go, pause);
      });
    }
  }

  #over() {
    clearInterval(this.#clock);
    this.dispatchEvent(new CustomEvent("ended", { detail: this.#row, bubbles: true }));
  }

  async #request(path, abort, options = {}) {
    const answer = await fetch(this.#url(path), { signal: abort, credentials: "include", cache: "no-store", ...options });
    if (answer.ok || options.accept?.includes(answer.status)) return answer;
    const found = await answer.json().catch(() => ({}));
    throw new Failure(answer.status, found.error ?? found.detail ?? "");
  }

  async #ask(abort) {
    const answer = await this.#request("", abort, { headers: { Accept: "application/json" } });
    this.#hear("operation", await answer.json(), null);
  }

  async #follow(abort) {
    const reading = (this.#reading = new AbortController());
    const stop = () => reading.abort();
    abort.addEventListener("abort", stop);
    let watch = setTimeout(stop, QUIET);
    streaming.add(this);
    try {
      const answer = await this.#request("/stream", reading.signal, { headers: { Accept: "text/event-stream", ...(this.#position ? { "Last-Event-ID": this.#position } : {}) } });
      if (answer.status === 204) return await this.#ask(abort);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      const take = frames((event, data, id) => this.#hear(event, data, id));
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        clearTimeout(watch);
        watch = setTimeout(stop, QUIET);
        take(value);
      }
    } catch (problem) {
      if (!(document.hidden && problem.name === "AbortError")) throw problem;
    } finally {
      clearTimeout(watch);
      abort.removeEventListener("abort", stop);
      streaming.delete(this);
      reading.abort();
    }
  }

  #hear(event, data, id) {
    this.#problem = this.#lostAt = null;
    if (id) this.#position = id;
    if (event === "hello") this.#skew = data.server_time - Date.now() / 1000;
    else if (event === "operation") {
      this.#row = data;
      this.dispatchEvent(new CustomEvent("update", { detail: data }));
    } else if (event === "reset") this.#position = null;
    else if (event === "gone") throw new Failure(404);
    else return;
    this.#render();
  }

  // The time of the server; it stands still while nothing is heard of it.
  #now() {
    return (this.#lostAt ?? Date.now()) / 1000 + this.#skew;
  }

  #render() {
    const parts = this.#parts;
    const row = this.#row;
    const gone = this.#problem?.status === 404;
    const face = !row ? { label: this.#noteOf(row) ? "" : "loading…", tone: "dim" } : gone ? { label: "unknown", tone: "dim" } : faceOf(row);
    parts.card.className = `card tone-${face.tone}${this.#lostAt != null ? " quiet" : ""}`;
    parts.card.setAttribute("aria-label", straight(row?.name ?? "operation"));
    say(parts.name, row?.name ?? "");
    say(parts.state, face.label);
    this.#renderBar(row, face, gone);
    this.#renderFacts(row, gone);
    const over = !row || isFinal(row);
    this.#renderStages(over || gone ? [] : runningStages(row));
    say(parts.trouble, !row || gone ? "" : [troubleOf(row, this.#now()), row.hint && `hint: ${row.hint}`].filter(Boolean).join("; "));
    this.#renderCancel(over || gone);
    const note = this.#noteOf(row);
    say(parts.note, note);
    const state = row && `${row.name}: ${face.label}`;
    if (state && state !== this.#said) {
      say(parts.live, [state, groupOf(row) === "progressing" ? "" : parts.trouble.textContent].filter(Boolean).join(", "));
      this.#said = state;
    }
  }

  #renderBar(row, face, gone) {
    const { bar, fill, facts } = this.#parts;
    const value = row ? filled(row) : 0;
    const open = value == null && !isFinal(row) && row.status !== "pending" && !gone;
    bar.className = `bar${open ? " open" : ""}${face.tone === "bad" || this.#lostAt != null ? " still" : ""}`;
    bar.setAttribute("aria-label", `progress of ${straight(row?.name ?? "the operation")}`);
    for (const [name, to] of [["aria-valuemin", "0"], ["aria-valuemax", "100"], ["aria-valuenow", value]]) {
      if (value == null || !row) bar.removeAttribute(name);
      else bar.setAttribute(name, to);
    }
    bar.setAttribute("aria-valuetext", [face.label, facts.textContent && facts.dataset.said].filter(Boolean).join(", "));
    fill.style.width = `${open ? 100 : value ?? 0}%`;
  }

  // The stages that run, each with its own counts: an operation need not count anything itself.
  #renderStages(stages) {
    const { stages: box, bar } = this.#parts;
    while (box.childElementCount > stages.length) box.lastElementChild.remove();
    while (box.childElementCount < stages.length) {
      const [line, name, counts, track, fill] = [make("div", "stage"), make("bdi", "stage-name"), make("span", "stage-counts"), make("div", "bar stage-bar", "progressbar"), make("div", "fill")];
      track.append(fill);
      line.append(name, counts, track);
      box.append(line);
    }
    stages.forEach((stage, at) => {
      const [name, counts, track] = box.children[at].children;
      const value = percent(stage);
      say(name, [stage.name, stage.message ?? stage.progress?.current_step].filter(Boolean).join(" · "));
      say(counts, [amount(stage.progress), value == null ? "" : `${value}%`].filter(Boolean).join(" · "));
      track.hidden = value == null;
      track.className = `bar stage-bar${bar.classList.contains("still") ? " still" : ""}`;
      track.setAttribute("aria-label", `progress of ${straight(stage.name)}`);
      track.setAttribute("aria-valuenow", value ?? 0);
      track.setAttribute("aria-valuetext", counts.textContent);
      track.firstElementChild.style.width = `${value ?? 0}%`;
    });
  }

  #renderFacts(row, gone) {
    const { facts } = this.#parts;
    const now = this.#now();
    const rest = row && !gone ? left(row, now) : "";
    const said = row ? stated(row) : null;
    const shown = !row
      ? []
      : [
          said == null ? "" : `${said}%`,
          amount(row.progress),
          gone ? "" : paceOf(row),
          rest ? `${rest} (${sourceOf(row.progress.eta)})` : gone ? "" : unforeseenOf(row),
          spent(row, now) && `${spent(row, now)} elapsed`,
        ].filter(Boolean);
    while (facts.childElementCount > shown.length) facts.lastElementChild.remove();
    while (facts.childElementCount < shown.length) facts.append(document.createElement("span"));
    shown.forEach((text, at) => say(facts.children[at], text));
    facts.title = rest ? bounds(row, now) : "";
    facts.dataset.said = shown.join(", ");
  }

  #noteOf(row) {
    const { status, message } = this.#problem ?? {};
    if (!this.getAttribute("src")) return "The attribute src is missing: the address of an operation.";
    const address = this.#address();
    if (!address) return "The attribute src is not the address of an operation: it must be a path, or begin with https: or http:.";
    if (!this.#problem) return row && isFinal(row) ? "" : this.#asked;
    if (status === 401 || status === 403) return message || "You may not see this operation.";
    if (Date.now() - this.#lostAt < STALE) return "";
    if (status === 404) return row ? "This operation is not known here any more. The server may have been restarted." : "This operation is not known here yet, or it is not yours.";
    // A browser does not say whether another origin refused or did not answer.
    if (!row && status === 0 && address.origin !== location.origin) return `No answer from ${address.origin}. It can't be reached, or its server does not allow pages of ${location.origin}.`;
    return `Reconnecting… ${row ? "This is the last known state." : message}`.trim();
  }

  // -- cancel

  #renderCancel(over) {
    const { foot } = this.#parts;
    if (!this.hasAttribute("cancel") || over) {
      foot.replaceChildren();
      return;
    }
    if (!foot.childElementCount) this.#offerCancel();
    const button = foot.querySelector(".cancel");
    if (!button) return;
    button.disabled = this.#row.control === false;
    say(button, this.#row.cancel === "requested" ? "Cancel again" : "Cancel");
  }

  #offerCancel() {
    const button = make("button", "cancel");
    button.type = "button";
    button.addEventListener("click", () => this.#confirm());
    this.#parts.foot.replaceChildren(button);
    return button;
  }

  #confirm() {
    const [question, yes, no] = [make("bdi", "question"), make("button", "danger"), make("button", "keep")];
    say(question, `Cancel ${this.#row.name}?`);
    say(yes, "Cancel operation");
    say(no, "Keep it running");
    yes.type = no.type = "button";
    yes.addEventListener("click", () => void this.#cancel(yes));
    no.addEventListener("click", () => this.#offerCancel().focus());
    this.#parts.foot.replaceChildren(question, yes, no);
    this.#render();
    no.focus();
  }

  async #cancel(button) {
    button.disabled = true;
    this.#asked = "Asking it to stop…";
    this.#render();
    try {
      const answer = await this.#request("?wait=5", undefined, { method: "DELETE", accept: [504] });
      this.#asked = ANSWERS[(await answer.json()).state]?.[2] ?? "";
    } catch (problem) {
      this.#asked = `Not cancelled. ${problem.message || "The server does not answer."}`;
    }
    if (!isFinal(this.#row ?? {})) this.#offerCancel();
    else this.#asked = "";
    this.#render();
  }
}

if (!customElements.get("progress-operation")) customElements.define("progress-operation", ProgressOperation);
