// Tells the monitor what is on the screen: while many operations run, it asks for each update of these only.
import { request } from "./api.js";
import { effect } from "./html.js";
import { link } from "./live.js";
import { selected } from "./selection.js";

const AGAIN = 10_000; // ms; the monitor forgets after 15 s
const SOON = 200; // so that scrolling is one request
const MOST = 200;

let rows = [];
let told = "";
let planned = null;

/** The rows that are visible now. */
export function show(ids) {
  if (ids.join("\n") === rows.join("\n")) return;
  rows = ids;
  plan();
}

effect(() => {
  void selected.value;
  if (link.value.phase === "open") plan();
});
setInterval(() => tell(true), AGAIN);

function plan() {
  planned ??= setTimeout(() => {
    planned = null;
    tell(false);
  }, SOON);
}

function tell(again) {
  if (document.hidden || link.peek().phase !== "open") return;
  const ids = [...new Set([selected.peek(), ...rows].filter((id) => id != null))].slice(0, MOST);
  const now = ids.join("\n");
  if (!ids.length || (now === told && !again)) return;
  told = now;
  request("watching", { method: "POST", body: { ids } }).catch(() => (told = ""));
}
