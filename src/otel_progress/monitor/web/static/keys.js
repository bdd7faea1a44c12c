// The keyboard, and the theme.
import { mayControl } from "./api.js";
import { askCancel, askHelp, askMute, isOpen } from "./dialogs.js";
import { signal } from "./html.js";
import { cursor, foldCursor, moveCursor, openCursor } from "./list.js";
import { detail, select, selected } from "./selection.js";
import { filter, setFilter } from "./state.js";
import { isFinal } from "./words.js";

const THEMES = ["system", "light", "dark"];
/** system, light or dark. */
export const theme = signal(document.documentElement.dataset.theme ?? "system");

/** Switch to the next theme, and remember it. */
export function nextTheme() {
  theme.value = THEMES[(THEMES.indexOf(theme.peek()) + 1) % THEMES.length];
  if (theme.peek() === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.peek();
  try {
    localStorage.setItem("otel-progress.theme", theme.peek());
  } catch {
    // Storage may be forbidden: the theme lasts for this visit.
  }
}

const typing = (target) => target.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable]");

function goToSearch() {
  const field = document.getElementById("search");
  if (!field) return;
  if (selected.peek() != null && matchMedia("(max-width: 820px)").matches) select(null);
  requestAnimationFrame(() => (field.focus(), field.select()));
}

function back() {
  if (selected.peek() == null) return;
  cursor.value = selected.peek();
  select(null);
  document.querySelector(".list")?.focus({ preventScroll: true });
}

const list = (target) => target === document.body || target.closest?.(".list");
const ACTIONS = {
  j: () => moveCursor(1),
  k: () => moveCursor(-1),
  "/": goToSearch,
  t: nextTheme,
  "?": askHelp,
  Escape: back,
  m: () => {
    const shown = detail.peek();
    if (shown && !isFinal(shown) && mayControl()) askMute(shown);
  },
  c: () => {
    const shown = detail.peek();
    if (shown && !isFinal(shown) && shown.control !== false && mayControl()) askCancel(shown);
  },
};
// These keys act on the focused element, unless that is the list.
const IN_LIST = {
  ArrowDown: () => moveCursor(1),
  ArrowUp: () => moveCursor(-1),
  PageDown: () => moveCursor(10),
  PageUp: () => moveCursor(-10),
  Home: () => moveCursor(0, -1),
  End: () => moveCursor(0, 1),
  ArrowLeft: () => foldCursor(true),
  ArrowRight: () => foldCursor(false),
  Enter: openCursor,
  " ": openCursor,
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isOpen()) return;
  if (typing(event.target)) {
    if (event.key !== "Escape" || event.target.id !== "search") return;
    if (filter.peek().text) setFilter({ text: "" });
    event.target.blur();
    document.querySelector(".list")?.focus({ preventScroll: true });
    return event.preventDefault();
  }
  const act = (Object.hasOwn(IN_LIST, event.key) && list(event.target) && IN_LIST[event.key]) || (Object.hasOwn(ACTIONS, event.key) && ACTIONS[event.key]);
  if (!act) return;
  event.preventDefault();
  act();
});
