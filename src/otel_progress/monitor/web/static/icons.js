// The icons: 16 by 16, drawn with lines in the colour of the text, always beside a word.
import { html } from "./html.js";

const PATHS = {
  stuck: "M8 1.8 15 14H1zM8 6.2v3.6M8 11.8v.2",
  loop: "M3 7a5 5 0 0 1 8.6-2.6L13.5 6M13.5 2.5V6H10M13 9a5 5 0 0 1-8.6 2.6L2.5 10M2.5 13.5V10H6",
  dead: "M6 2v3M10 2v3M4.5 5h7v2.5a3.5 3.5 0 0 1-7 0zM8 11v3M2 2l12 12",
  frozen: "M8 1.5v13M2.4 4.8l11.2 6.4M13.6 4.8 2.4 11.2M6 2.6l2 1.6 2-1.6M6 13.4l2-1.6 2 1.6",
  overdue: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4M8 4.6v4M8 11v.2",
  slow: "M2.2 12.2a6.4 6.4 0 1 1 11.6 0M8 9.5 4.8 6.8M8 10.6a1.1 1.1 0 1 0 0-2.2 1.1 1.1 0 0 0 0 2.2",
  unknown: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4M6 6.3a2 2 0 1 1 2.9 1.8c-.6.3-.9.7-.9 1.3M8 11.4v.2",
  wait: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4M6.4 5.6v4.8M9.6 5.6v4.8",
  pending: "M8 1.8a6.2 6.2 0 0 1 3 .8M13.4 5a6.2 6.2 0 0 1 .8 3M13.4 11a6.2 6.2 0 0 1-2.2 2.3M8 14.2a6.2 6.2 0 0 1-3-.8M2.6 11a6.2 6.2 0 0 1-.8-3M2.6 5a6.2 6.2 0 0 1 2.2-2.3",
  run: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4M6.6 5.4 10.6 8l-4 2.6z",
  ended: "M2.5 3.5h11v3h-11zM3.5 6.5v6h9v-6M6.5 9h3",
  done: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4M5.2 8.2l2 2 3.8-4",
  failed: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4M5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
  cancelled: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4M4 12 12 4",
  interrupted: "M9 1.8 3.5 9H8l-1 5.2L12.5 7H8z",
  note: "M3 2.5h10v8H8l-3 3v-3H3z",
  update: "M2.5 11 6 7.2l2.6 2.3 4.9-5.5M10 4h3.5v3.5",
  beat: "M1.5 8.5h3l1.6-4 3 7.5L11 8.5h3.5",
  start: "M5 3v10l8-5z",
  stage: "M2.5 4h11M2.5 8h7M2.5 12h9",
  recovered: "M2.5 8.5 6 12l7.5-8",
  save: "M8 2v8M4.5 6.8 8 10.2l3.5-3.4M2.5 11v2.5h11V11",
  search: "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9M10.4 10.4 14 14",
  filter: "M2 3.5h12M4.5 8h7M6.8 12.5h2.4",
  chevron: "M6 4l4 4-4 4",
  back: "M10 3 5 8l5 5",
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  check: "M3 8.5 6.5 12 13 4.5",
  link: "M9 3h4v4M13 3 7.5 8.5M11 9.5V13H3V5h3.5",
  mute: "M4 11V7.5a4 4 0 0 1 8 0V11l1.2 1.5H2.8zM6.5 14h3M2 2l12 12",
  bell: "M4 11V7.5a4 4 0 0 1 8 0V11l1.2 1.5H2.8zM6.5 14h3",
  stop: "M4.5 4.5h7v7h-7z",
  sun: "M8 10.8a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6M8 1.2v1.4M8 13.4v1.4M1.2 8h1.4M13.4 8h1.4M3.2 3.2l1 1M11.8 11.8l1 1M3.2 12.8l1-1M11.8 4.2l1-1",
  moon: "M13.4 9.8A5.8 5.8 0 1 1 6.2 2.6a4.6 4.6 0 0 0 7.2 7.2z",
  auto: "M2.5 3h11v7.5h-11zM6 13.2h4",
  help: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4M6 6.3a2 2 0 1 1 2.9 1.8c-.6.3-.9.7-.9 1.3M8 11.4v.2",
  logout: "M9.5 3H3v10h6.5M7 8h7M11.5 5.5 14 8l-2.5 2.5",
  child: "M3 2.5v7h8M8.5 7l2.5 2.5L8.5 12",
  down: "M8 3v9.5M4 8.5l4 4 4-4",
  agent: "M4 6h8v6.5H4zM8 6V3.2M6.4 9v.4M9.6 9v.4M2.2 8.5v2M13.8 8.5v2",
  spans: "M2 4h7M4 8h8M7 12h7",
};

/** One icon, hidden from screen readers: the word beside it says the same. */
export function Icon({ name, size = 16, tone }) {
  return html`<svg class=${tone ? `icon tone-${tone}` : "icon"} width=${size} height=${size} viewBox="0 0 16 16" aria-hidden="true"><path d=${PATHS[name] ?? PATHS.note} /></svg>`;
}
