// The dialogs: cancel, help and token; and the page of an empty monitor.
import { logIn, logOut, pathOf, request, session } from "./api.js";
import { html, signal, useEffect, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { connect } from "./live.js";
import { Copy } from "./parts.js";
import { announcement, rowOf } from "./state.js";
import { ANSWERS, isFinal, mutedWords } from "./words.js";

const WAIT = 5;
/** The operation that may be cancelled or muted, or null; whether help is open. */
const cancelling = signal(null);
const muting = signal(null);
const helping = signal(false);

export const askCancel = (row) => (cancelling.value = row);
export const askMute = (row) => (muting.value = row);
export const askHelp = () => (helping.value = true);
/** Whether a dialog is open; it then receives the keys. */
export const isOpen = () => cancelling.peek() != null || muting.peek() != null || helping.peek();

function Dialog({ title, onClose, children }) {
  const ref = useRef(null);
  useEffect(() => {
    const back = document.activeElement;
    ref.current.showModal();
    return () => back?.focus?.();
  }, []);
  return html`<dialog ref=${ref} onClose=${onClose} onClick=${(event) => event.target === ref.current && ref.current.close()} aria-labelledby="dialog-title"><div class="dialog-body">
    <div class="dialog-head"><h2 id="dialog-title">${title}</h2><button type="button" class="quiet icon-only" aria-label="Close" onClick=${() => ref.current.close()}><${Icon} name="close" /></button></div>${children}</div></dialog>`;
}

function Cancel() {
  const row = cancelling.value;
  const [state, setState] = useState("ask");
  const [problem, setProblem] = useState("");
  const [reason, setReason] = useState("");
  const go = async (event) => {
    event.preventDefault();
    setState("asking");
    try {
      const query = `?wait=${WAIT}${reason.trim() ? `&reason=${encodeURIComponent(reason.trim())}` : ""}`;
      const { body } = await request(pathOf(row.id, query), { method: "DELETE", accept: [504] });
      setState(ANSWERS[body.state] ? body.state : "received");
      announcement.value = `cancel of ${row.name}: ${body.state}`;
    } catch (failure) {
      setProblem(failure.message);
      setState("failed");
    }
  };
  const close = () => (cancelling.value = null);
  // It may end just after its process answered, or without an answer: then the end is shown.
  const shown = ANSWERS[state] && isFinal(rowOf(row.id)?.value ?? row) ? "obeyed" : state;
  const answer = shown === "failed" ? ["bad", "failed", problem] : ANSWERS[shown];
  return html`<${Dialog} title=${html`Cancel <bdi>${row.name}</bdi>?`} onClose=${close}>
    <p class="dim id"><bdi>${row.id}</bdi></p>
    ${!answer && html`<form onSubmit=${go}><p>Its process is asked to stop. Open stages end as cancelled; completed work stays.</p>
      <label for="reason">Reason (optional)</label><input id="reason" autofocus maxlength="200" autocomplete="off" value=${reason} onInput=${(event) => setReason(event.currentTarget.value)} disabled=${state === "asking"} />
      <div class="dialog-foot"><button type="button" onClick=${close}>Keep it running</button><button type="submit" class="danger solid" disabled=${state === "asking"}>${state === "asking" ? "Asking its process…" : "Cancel operation"}</button></div></form>`}
    ${answer && html`<div role="status"><p class=${`answer tone-${answer[0]}`}><${Icon} name=${answer[1]} /><span><b>${shown === "failed" ? "Not cancelled" : shown[0].toUpperCase() + shown.slice(1)}.</b> ${answer[2]}</span></p></div><div class="dialog-foot"><button type="button" onClick=${close}>Close</button></div>`}
  <//>`;
}

const LASTING = [["until it ends", ""], ["for 30 minutes", 1800], ["for 2 hours", 7200], ["for a day", 86400]];
const NAME = "otel-progress-name";

function Mute() {
  const row = muting.value;
  const muted = (rowOf(row.id)?.value ?? row).muted;
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  const [by, setBy] = useState(() => remembered(NAME));
  const [reason, setReason] = useState("");
  const [seconds, setSeconds] = useState("");
  const close = () => (muting.value = null);
  const go = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      remember(NAME, by.trim());
      const body = { by: by.trim() || null, reason: reason.trim() || null, until: seconds ? Date.now() / 1000 + Number(seconds) : null };
      await request(pathOf(row.id, "/mute"), muted ? { method: "DELETE" } : { method: "POST", body });
      announcement.value = `${row.name} is ${muted ? "no longer muted" : "muted"}`;
      close();
    } catch (failure) {
      setProblem(failure.message);
      setBusy(false);
    }
  };
  const text = (set) => (event) => set(event.currentTarget.value);
  return html`<${Dialog} title=${html`${muted ? "Unmute" : "Mute"} <bdi>${row.name}</bdi>?`} onClose=${close}>
    <p class="dim id"><bdi>${row.id}</bdi></p>
    <form onSubmit=${go}>${muted
      ? html`<p><bdi>${mutedWords(muted)}</bdi></p><p>If it is in trouble, webhooks report it at once.</p>`
      : html`<p>Webhooks are silent about it and everything below it. It stays in all lists.</p>
        <label for="mute-for">How long</label><select id="mute-for" value=${seconds} onChange=${text(setSeconds)}>${LASTING.map(([words, value]) => html`<option key=${words} value=${value}>${words}</option>`)}</select>
        <label for="mute-by">Your name</label><input id="mute-by" maxlength="100" autocomplete="name" value=${by} onInput=${text(setBy)} />
        <label for="mute-reason">Reason (optional)</label><input id="mute-reason" maxlength="200" autocomplete="off" value=${reason} onInput=${text(setReason)} />`}
      <p class="tone-bad" role="alert">${problem}</p>
      <div class="dialog-foot"><button type="button" onClick=${close}>Close</button><button type="submit" class="solid" autofocus disabled=${busy || Boolean(muted?.through)}>${muted ? "Unmute" : "Mute"}</button></div></form>
    ${muted?.through && html`<p class="dim">It is muted through <bdi>${muted.through}</bdi>: unmute that one.</p>`}<//>`;
}

const remembered = (key) => {
  try {
    return localStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
};
const remember = (key, value) => {
  try {
    localStorage.setItem(key, value);
  } catch {
    // the browser keeps nothing
  }
};

const KEYS = [
  ["j k or arrows", "move through the list"],
  ["Enter", "open the operation, or fold its group"],
  ["arrow left, right", "fold and unfold a group"],
  ["Home, End", "first and last"],
  ["Esc", "close, and back to the list"],
  ["/", "search"],
  ["c", "cancel the operation"],
  ["m", "mute or unmute it: webhooks are silent about it"],
  ["t", "theme: system, light, dark"],
  ["?", "this help"],
];
const MARKS = [
  ["Stuck", "alive, but without progress for longer than it may"],
  ["Looping", "does the same again and again"],
  ["Frozen", "its process is proven to be stopped: Ctrl+Z, a debugger, a paused container"],
  ["Dead", "its process is unheard of: killed, or cut off"],
  ["Overdue", "waits longer than the wait may last"],
  ["Slow", "runs longer than it should"],
  ["Unknown", "the monitor itself has not seen enough to say"],
];
const Help = () => html`<${Dialog} title="Keys and words" onClose=${() => (helping.value = false)}>
  <dl class="help">${KEYS.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>
  <h3>What the groups mean</h3><dl class="help">${MARKS.map(([word, what]) => html`<div key=${word}><dt>${word}</dt><dd>${what}</dd></div>`)}</dl><//>`;

export const Dialogs = () => html`${cancelling.value && html`<${Cancel} key=${cancelling.value.id} />`}${muting.value && html`<${Mute} key=${muting.value.id} />`}${helping.value && html`<${Help} />`}`;

/** The form that a 401 opens. */
export function Login() {
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  const go = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await logIn(field.current.value.trim());
      connect();
    } catch (failure) {
      setProblem(failure.message);
      setBusy(false);
      field.current.select();
    }
  };
  return html`<main class="login"><form onSubmit=${go}><h1>otel-progress</h1><p>This monitor requires a token. It is in the file that <code>--token-file</code> names.</p>
    <label for="token">Token</label><input id="token" type="password" required autocomplete="current-password" ref=${field} aria-invalid=${problem ? "true" : undefined} aria-describedby="token-problem" />
    <p id="token-problem" class="tone-bad" role="alert">${problem}</p><button type="submit" class="solid" disabled=${busy}>Open</button></form></main>`;
}

/** The button that ends the session, if there is one. */
export const LogOut = () =>
  session.value?.needs_token ? html`<button type="button" class="quiet" onClick=${() => void logOut()}><${Icon} name="logout" /><span class="wide">Log out</span></button>` : null;

/** What to do if nothing was ever received. */
export function Empty() {
  const origin = location.origin;
  const program = `import otel_progress as progress\n\nprogress.configure()\nwith progress.operation("import", total=100) as job:\n    for row in range(100):\n        job.advance()`;
  const parts = [
    ["Any program that speaks OTLP", `export OTEL_EXPORTER_OTLP_ENDPOINT=${origin}`],
    ["A command, as it is", "otel-progress run -- python job.py"],
    ["In Python", program],
  ];
  return html`<main class="empty" aria-label="How to begin"><h1>Nothing has been sent yet</h1><p>Operations appear here as soon as a program sends them, without a reload.</p>
    ${parts.map(([title, text]) => html`<section key=${title}><div class="empty-head"><h2>${title}</h2><${Copy} text=${text} words="Copy" /></div><pre tabindex="0">${text}</pre></section>`)}</main>`;
}
