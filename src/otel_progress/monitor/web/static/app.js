// Puts the page together and starts it.
import { denied, whoAmI } from "./api.js";
import { Detail } from "./detail.js";
import { Dialogs, Empty, LogOut, Login, askHelp } from "./dialogs.js";
import { effect, html, render } from "./html.js";
import { Icon } from "./icons.js";
import { nextTheme, theme } from "./keys.js";
import { Filters, List, Nothing } from "./list.js";
import { connect, filling, link, loaded, retryNow, troubleWhileHidden, trouble } from "./live.js";
import { detail, selected } from "./selection.js";
import { announcement, counts, inTrouble, isEmpty, layout, running, tick, ticking } from "./state.js";
import "./urgent.js";
import { GROUPS, clockTime, number } from "./words.js";

const LIGHTS = { open: ["good", "Live"], connecting: ["dim", "Connecting"], paused: ["dim", "Paused"], off: ["dim", "Off"], retrying: ["bad", "Reconnecting"] };

function Light() {
  const { phase, at } = link.value;
  const [tone, word] = LIGHTS[phase];
  const rest = phase === "retrying" ? Math.max(0, Math.ceil((at - Date.now()) / 1000)) : 0;
  void ticking();
  return html`<span class=${`light tone-${tone} light-${phase}`}><i aria-hidden="true"></i><span>${word}${rest > 0 ? ` in ${rest} s` : ""}</span></span>`;
}

function Lost() {
  const { phase, since } = link.value;
  if (phase !== "retrying" || Date.now() - since < 1500) return null;
  return html`<div class="lost" role="status"><${Icon} name="dead" /><span>The connection to the monitor is lost. What is shown is from ${clockTime(since / 1000, Date.now() / 1000)}.</span><button type="button" class="quiet" onClick=${retryNow}>Try now</button></div>`;
}

function Trouble() {
  if (!trouble.value || link.value.phase !== "open") return null;
  return html`<div class="lost" role="status"><${Icon} name="dead" /><span>The monitor has a problem: ${trouble.value}</span></div>`;
}

function Filling() {
  const part = filling.value;
  if (!part) return null;
  const counted = part.of ? `${number(part.loaded)} of ${number(part.of)} operations that ran before were there` : "not all operations that ran before were there";
  return html`<div class="lost" role="status"><${Icon} name="waiting" /><span>The monitor has just started: when this list was loaded, ${counted}. The rest follows.</span></div>`;
}

function Top() {
  const unknown = counts.value.unknown;
  const which = GROUPS.filter((group) => group.trouble && counts.value[group.key]).map((group) => `${number(counts.value[group.key])} ${group.label.toLowerCase()}`).join(", ");
  const themeIcon = { system: "auto", light: "sun", dark: "moon" }[theme.value];
  return html`<header class="top"><a class="brand" href="#/" aria-label="otel-progress, all operations"><img src="static/icon.svg" alt="" width="20" height="20" /><span>otel-progress</span></a>
    <span class="summary">${inTrouble.value > 0 && html`<span class="tone-bad" title=${which}><${Icon} name="stuck" size=${14} /><b>${number(inTrouble.value)}</b> in trouble<span class="sr">: ${which}</span></span>`}${unknown > 0 && html`<span class="dim wide"><${Icon} name="unknown" size=${14} /><b>${number(unknown)}</b> unknown</span>`}<span class="wide"><b>${number(running.value)}</b> running</span></span>
    <span class="grow"></span><${Light} />
    <button type="button" class="quiet icon-only" onClick=${nextTheme} aria-label=${`Theme: ${theme.value}`} title=${`Theme: ${theme.value} (t)`}><${Icon} name=${themeIcon} /></button>
    <button type="button" class="quiet icon-only" onClick=${askHelp} aria-label="Help" title="Help (?)"><${Icon} name="help" /></button><${LogOut} /></header>`;
}

function App() {
  void layout.value;
  if (denied.value) return html`<${Login} />`;
  const empty = loaded.value && isEmpty();
  return html`<div class=${`app${selected.value == null ? "" : " with-detail"}`}><${Top} /><${Lost} /><${Trouble} /><${Filling} />
    ${empty && selected.value == null ? html`<${Empty} />` : html`<div class="panes"><aside class="pane" aria-label="Operations"><${Filters} /><${Nothing} /><${List} /></aside><${Detail} /></div>`}
    <${Dialogs} /></div>`;
}

const live = document.createElement("div");
live.className = "sr";
live.setAttribute("role", "status");
live.setAttribute("aria-live", "polite");
document.body.append(live);
effect(() => (live.textContent = announcement.value));

effect(() => {
  const count = troubleWhileHidden.value ?? inTrouble.value;
  const name = selected.value != null && detail.value ? `${detail.value.name} · ` : "";
  document.title = `${count > 0 ? `(${count} in trouble) ` : ""}${name}otel-progress`;
});

// The requests are sent while the first frame is drawn.
connect();
void whoAmI();
setInterval(() => (document.hidden ? null : (tick.value += 1)), 1000);
render(html`<${App} />`, document.getElementById("app"));
