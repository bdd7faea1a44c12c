// Charts of the open operation: what was completed when, and how fast. Inline SVG; everything but `Charts` is pure.
import { html, useState } from "./html.js";
import { ticking } from "./state.js";
import { amount, clockTime, duration, elapsedOf, idleOf, isFinal, pace } from "./words.js";

const WIDTH = 640; // of the drawing; the page stretches it, lines keep their width
const HEIGHT = 120;
const LIVE = 240; // points that the page adds itself while it is open
const STILL = 5; // seconds without progress from which on the line goes on flat
const SHORT = 3; // seconds and points below which there is nothing to see

/** Points `[seconds, units]` in order of time, without those that are no numbers. */
export function pointsOf(given) {
  const sound = (Array.isArray(given) ? given : []).filter((one) => Array.isArray(one) && Number.isFinite(one[0]) && Number.isFinite(one[1]) && one[0] >= 0);
  const sorted = [...sound].sort((a, b) => a[0] - b[0]);
  return sorted.filter((one, index) => index === 0 || one[0] > sorted[index - 1][0]);
}

/** The rate in each interval, `[from, to, units a second]`; intervals are joined until each has its share of the time. */
export function ratesOf(points, most = 48) {
  const all = points.length ? points.at(-1)[0] - points[0][0] : 0;
  const least = all / most;
  const found = [];
  let start = points[0];
  for (const point of points.slice(1)) {
    if (point[0] - start[0] < least * 0.999 && point !== points.at(-1)) continue;
    found.push([start[0], point[0], Math.max(0, (point[1] - start[1]) / (point[0] - start[0]))]);
    start = point;
  }
  // A last interval that has only just begun says little: it goes into the one before.
  if (found.length > 1 && found.at(-1)[1] - found.at(-1)[0] < least / 2) {
    const [from, to, value] = found.pop();
    const before = found.pop();
    const units = before[2] * (before[1] - before[0]) + value * (to - from);
    found.push([before[0], to, units / (to - before[0])]);
  }
  return found;
}

/** Units a second from the start to the last point; what an earlier attempt completed is no pace. */
export const meanOf = (points, restored) => (points.at(-1)?.[0] > 0 ? Math.max(0, points.at(-1)[1] - (restored ?? 0)) / points.at(-1)[0] : 0);

const NICE = [1, 2, 2.5, 5, 10];
/** The top of an axis: the next round number. */
export function topOf(value) {
  if (!(value > 0) || !Number.isFinite(value)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return (NICE.find((one) => one * power >= value * (1 - 1e-9)) ?? 10) * power;
}

// The monitor keeps few points of a long run: the page keeps those that it saw itself.
const seen = new Map();
/** The points of the monitor, with the newest ones of earlier answers; `key` is the operation and its attempt. */
export function joined(key, points) {
  if (!seen.has(key)) {
    if (seen.size >= 8) seen.delete(seen.keys().next().value);
    seen.set(key, []);
  }
  let kept = seen.get(key);
  const last = points.at(-1);
  if (last && (!kept.length || last[0] - kept.at(-1)[0] >= 0.5)) kept.push(last);
  if (kept.length > LIVE) seen.set(key, (kept = kept.filter((_, index) => index % 2 === 0)));
  return pointsOf([...points, ...kept]);
}

/** The points from the start on: what an earlier attempt completed was there already. */
export function fromStart(points, restored) {
  return points.length && points[0][0] > 0 ? [[0, Math.min(restored ?? 0, points[0][1])], ...points] : points;
}

const round = (value) => Math.round(value * 100) / 100;
const place = (value, most, length) => round(most > 0 ? (Math.min(value, most) / most) * length : 0);

function Chart({ title, words, path, area, span, top, marks, said }) {
  const [at, setAt] = useState(null);
  const look = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    setAt(box.width ? Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) : null);
  };
  const found = at == null ? null : said(at * span);
  return html`<figure class="chart"><figcaption><span class="chart-title">${title}</span><span class="dim">${found ?? words}</span></figcaption>
    <div class="chart-plot"><span class="chart-top" aria-hidden="true">${top}</span>
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`${title}: ${words}`} onPointerMove=${look} onPointerLeave=${() => setAt(null)}>
        ${marks.map((mark, index) => html`<rect key=${index} class=${`chart-${mark.kind}`} x=${place(mark.from, span, WIDTH)} y="0" width=${Math.max(1, place(mark.to - mark.from, span, WIDTH))} height=${HEIGHT} />`)}
        <line class="chart-grid" x1="0" x2=${WIDTH} y1="0.5" y2="0.5" /><line class="chart-grid" x1="0" x2=${WIDTH} y1=${HEIGHT / 2} y2=${HEIGHT / 2} /><line class="chart-grid" x1="0" x2=${WIDTH} y1=${HEIGHT - 0.5} y2=${HEIGHT - 0.5} />
        <path class="chart-area" d=${area} /><path class="chart-line" d=${path} />
        ${at != null && html`<line class="chart-look" x1=${at * WIDTH} x2=${at * WIDTH} y1="0" y2=${HEIGHT} />`}
      </svg></div>
    <div class="chart-axis" aria-hidden="true"><span>0</span><span>${duration(span)}</span></div></figure>`;
}

/** The charts of an operation: units over time, and units a second; nothing if it counted nothing. */
export function Charts({ shown }) {
  const now = ticking();
  const progress = shown.progress ?? {};
  const open = !isFinal(shown);
  const points = fromStart(joined(`${shown.id} ${shown.attempt ?? 1} ${shown.started_at ?? ""}`, pointsOf(shown.statistics?.curve)), progress.restored);
  // What stands still says nothing for long, and is known to stand still.
  if (open && points.length && idleOf(shown, now) >= STILL && elapsedOf(shown, now) > points.at(-1)[0]) points.push([elapsedOf(shown, now), points.at(-1)[1]]);
  if (points.length < SHORT || points.at(-1)[0] < SHORT) return null;
  const span = Math.max(points.at(-1)[0], (open ? elapsedOf(shown, now) : shown.elapsed) ?? 0);
  const unit = progress.unit;
  const from = shown.started_at ?? 0;
  const marks = (Array.isArray(shown.timeline) ? shown.timeline : []).map((mark) => ({ kind: mark.kind === "wait" ? "wait" : "stall", from: Math.max(0, mark.from - from), to: Math.min(span, (mark.to ?? from + span) - from) })).filter((mark) => mark.to > mark.from);
  return html`<section class="charts" aria-labelledby="charts-title"><h2 id="charts-title">Progress over time</h2><div class="chart-pair">
    <${Count} points=${points} span=${span} unit=${unit} total=${progress.rolled_up ? null : progress.total} restored=${progress.restored} marks=${marks} from=${shown.started_at} now=${now} />
    <${Rate} points=${points} span=${span} unit=${unit} restored=${progress.restored} marks=${marks} from=${shown.started_at} now=${now} /></div></section>`;
}

const moment = (from, seconds, now) => (from == null ? `after ${duration(seconds)}` : clockTime(from + seconds, now));
const many = (completed, unit) => amount({ completed, unit });
const speed = (rate, unit) => pace({ rate, unit }) || "0/s";

function Count({ points, span, unit, total, restored, marks, from, now }) {
  const most = Math.max(...points.map((one) => one[1]), 0);
  const goal = Number.isFinite(total) && total > 0 && most <= total * 1.0001;
  const top = goal ? total : topOf(most);
  const spots = points.map(([seconds, units]) => `${place(seconds, span, WIDTH)} ${round(HEIGHT - place(Math.max(0, units), top, HEIGHT))}`);
  const path = `M${spots.join("L")}`;
  const area = `M${spots[0].split(" ")[0]} ${HEIGHT}L${spots.join("L")}L${spots.at(-1).split(" ")[0]} ${HEIGHT}Z`;
  const said = (seconds) => {
    const before = points.filter((one) => one[0] <= seconds).at(-1);
    return before ? `${many(before[1], unit)} at ${moment(from, before[0], now)}` : null;
  };
  return html`<${Chart} title="Completed" words=${[many(points.at(-1)[1], unit), restored > 0 && `${many(restored, unit)} of an earlier attempt`].filter(Boolean).join(", ")} path=${path} area=${area} span=${span} top=${many(top, unit)} marks=${marks} said=${said} />`;
}

function Rate({ points, span, unit, restored, marks, from, now }) {
  const rates = ratesOf(points);
  const top = topOf(Math.max(...rates.map((one) => one[2]), 0));
  const steps = rates.map(([start, end, value]) => [place(start, span, WIDTH), place(end, span, WIDTH), round(HEIGHT - place(value, top, HEIGHT))]);
  const path = `M${steps.map(([start, end, y]) => `${start} ${y}L${end} ${y}`).join("L")}`;
  const area = `M${steps[0][0]} ${HEIGHT}L${path.slice(1)}L${steps.at(-1)[1]} ${HEIGHT}Z`;
  const mean = meanOf(points, restored);
  const said = (seconds) => {
    const one = rates.find(([start, end]) => seconds >= start && seconds <= end);
    return one ? `${speed(one[2], unit)} from ${moment(from, one[0], now)} to ${moment(from, one[1], now)}` : null;
  };
  return html`<${Chart} title="Rate" words=${`${speed(mean, unit)} on average`} path=${path} area=${area} span=${span} top=${speed(top, unit)} marks=${marks} said=${said} />`;
}
