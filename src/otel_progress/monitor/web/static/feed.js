// The activity feed: events, newest last; it follows the end unless the user scrolled up.
import { CHOICES, activities, fits, statusOf } from "./activity.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { Agent, Avatar, Long, Value } from "./parts.js";
import { feed, newest, older, selected, withUpdates } from "./selection.js";
import { now } from "./state.js";
import { STATUS, clockTime, duration, number, spelled } from "./words.js";

const KINDS = {
  "progress.operation.started": { icon: "start", tone: "run", word: "started" },
  "progress.operation.ended": { icon: "done", tone: "good", word: "ended" },
  "progress.stage.started": { icon: "run", tone: "run", word: "runs" },
  "progress.stage.ended": { icon: "ended", tone: "dim", word: "ended" },
  "progress.updated": { icon: "update", tone: "dim", word: "update" },
  "progress.heartbeat": { icon: "beat", tone: "dim", word: "heartbeat" },
  "progress.note": { icon: "note", tone: "dim", word: "note" },
  "progress.wait.started": { icon: "wait", tone: "wait", word: "waits for" },
  "progress.wait.ended": { icon: "wait", tone: "dim", word: "waited for" },
  "progress.stalled": { icon: "stuck", tone: "bad", word: "stuck" },
  "progress.recovered": { icon: "recovered", tone: "good", word: "moves again" },
  "progress.wait.overdue": { icon: "overdue", tone: "warn", word: "overdue" },
  "progress.slow": { icon: "slow", tone: "warn", word: "slow" },
};
const UNENDED = { icon: "stage", tone: "dim", word: "began" };
const NOTES = { warning: "warn", warn: "warn", error: "bad", failed: "bad", ok: "good", success: "good", completed: "good" };

function kindOf({ line, running }) {
  if (line.event === "progress.stage.started" && !running) return UNENDED;
  const kind = KINDS[line.event] ?? { icon: "note", tone: "dim", word: line.event.replace(/^progress\./, "") };
  if (line.event === "progress.note") {
    if (running) return { ...kind, icon: "run", tone: "run", word: "runs" };
    const tone = NOTES[line.status];
    return tone ? { ...kind, tone, icon: tone === "bad" ? "failed" : tone === "warn" ? "overdue" : "done", word: line.status } : kind;
  }
  const status = line.event.endsWith(".ended") && STATUS[statusOf(line)];
  return status ? { icon: status.icon, tone: status.tone, word: status.label } : kind;
}

// The monitor's texts begin with the name of the operation, which is above the feed already.
const bare = (text, name) => (text.startsWith(`${name}: `) ? text.slice(name.length + 2) : text);

function wordsOf(line, name) {
  const said = line.attributes ?? {};
  const text = said["progress.note.text"] ?? bare(line.text ?? "", name);
  const stage = line.stage ?? "";
  switch (line.event) {
    case "progress.operation.started":
      return "";
    case "progress.operation.ended":
      return said["progress.status.reason"] ?? said["exception.message"] ?? "";
    case "progress.stage.started":
    case "progress.stage.ended":
      return [stage, line.status && line.status !== "completed" && said["progress.status.reason"]].filter(Boolean).join(": ");
    case "progress.wait.started":
    case "progress.wait.ended":
      return said["progress.wait.reason"] ?? text;
    case "progress.stalled":
    case "progress.wait.overdue":
    case "progress.slow":
      return spelled(said["progress.health.reason"] ?? text);
    case "progress.recovered":
      return "";
    case "progress.note":
      return bare(text, line.status); // the status is the word before it
    default:
      return text;
  }
}

const lateOf = ({ line }) => line.event === "progress.wait.ended" && line.attributes?.["progress.wait.overdue_by"];

// Its duration; the event of a wait or a stall may contain it.
function secondsOf({ line, seconds }) {
  const said = line.attributes ?? {};
  return said["progress.wait.duration"] != null && line.event.endsWith(".ended") ? said["progress.wait.duration"] : said["progress.stall.duration"] ?? seconds;
}

const NOTHING = { kind: "", agent: "", text: "" };

export function Feed({ shown: { name, stages = [] } }) {
  const { lines, start, end, ready } = feed.value;
  const box = useRef(null);
  const kept = useRef({ follow: true, height: 0, first: null, last: null });
  const [missed, setMissed] = useState(0);
  const [wanted, want] = useState(NOTHING);
  const agents = [...new Set(lines.map((line) => line.agent).filter(Boolean))].sort();
  // The running stages are known: a stage without an end here may have ended unreported.
  const runs = stages.filter(({ status }) => status === "running" || status === "waiting").map(({ path }) => path).join("\n");
  const items = useMemo(() => activities(lines, new Set(runs.split("\n"))), [lines, runs]);
  const filtered = Boolean(wanted.kind || wanted.agent || wanted.text);
  const shown = filtered ? items.filter((item) => fits(item, kindOf(item).tone, wanted)) : items;
  useEffect(() => {
    kept.current = { follow: true, height: 0, first: null, last: null };
    want(NOTHING);
    setMissed(0);
  }, [selected.value]);
  useLayoutEffect(() => {
    const [list, was] = [box.current, kept.current];
    const [first, last] = [lines[0]?.id, lines.at(-1)?.id];
    if (was.follow) list.scrollTop = list.scrollHeight;
    else if (was.first != null && first < was.first) list.scrollTop += list.scrollHeight - was.height;
    if (was.last != null && last > was.last && !was.follow) setMissed(missed + shown.filter(({ line }) => line.id > was.last).length);
    Object.assign(was, { height: list.scrollHeight, first, last });
  }, [lines, wanted]);
  const see = () => {
    const list = box.current;
    kept.current.follow = end && list.scrollHeight - list.scrollTop - list.clientHeight < 24;
    if (kept.current.follow && missed) setMissed(0);
    if (list.scrollTop < 80 && list.scrollHeight > list.clientHeight) void older();
  };
  const follow = () => {
    kept.current.follow = true;
    setMissed(0);
    if (end) box.current.scrollTop = box.current.scrollHeight;
    else newest();
  };
  return html`<section class="feed" aria-labelledby="feed-title"><div class="feed-head"><h2 id="feed-title">Activity</h2>
      <label class="check"><input type="checkbox" checked=${withUpdates.value} onChange=${() => (withUpdates.value = !withUpdates.value)} />updates</label></div>
    <div class="feed-filter" role="search" aria-label="Filter the activity"><label class="sr" for="feed-kind">Kind</label><select id="feed-kind" value=${wanted.kind} onChange=${(event) => want({ ...wanted, kind: event.currentTarget.value })}>${CHOICES.map(([key, word]) => html`<option key=${key} value=${key}>${word}</option>`)}</select>
      ${agents.length > 1 && html`<label class="sr" for="agent">Agent</label><select id="agent" value=${wanted.agent} onChange=${(event) => want({ ...wanted, agent: event.currentTarget.value })}><option value="">all agents</option>${agents.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>`}
      <input type="search" aria-label="Text in the activity" placeholder="Filter" autocomplete="off" value=${wanted.text} onInput=${(event) => want({ ...wanted, text: event.currentTarget.value.trim().toLowerCase() })} /></div>
    <div class="feed-box" ref=${box} onScroll=${see} tabindex="0" role="log" aria-label="Activity" aria-live="off">
      ${ready && !start && html`<button type="button" class="quiet feed-older" onClick=${older}>Older</button>`}
      ${ready && !shown.length && html`<p class="nothing">${filtered ? "No loaded event matches." : "No events yet."}</p>`}
      ${shown.map((item) => html`<${Line} key=${item.key} item=${item} name=${name} />`)}
    </div>
    ${(missed > 0 || !end) && html`<button type="button" class="feed-new" onClick=${follow}><${Icon} name="down" size=${13} />${missed > 0 ? `${missed} new` : "Newest"}</button>`}
  </section>`;
}

function Line({ item, name }) {
  const { line, running, count } = item;
  const kind = kindOf(item);
  const words = wordsOf(line, name);
  const plain = line.event === "progress.note" && kind.tone === "dim";
  const seconds = secondsOf(item);
  const stage = line.event.startsWith("progress.stage.");
  const word = plain ? html`<span class="sr">note: </span>` : html`<span class=${`line-kind tone-${kind.tone}`}>${kind.word}</span> `;
  return html`<div class=${`line${running ? " going" : ""}`}>${plain && line.agent ? html`<${Avatar} agent=${line.agent} />` : html`<${Icon} name=${kind.icon} size=${14} tone=${kind.tone} />`}
    <div class="line-text">${stage ? html`<b><${Long} text=${words} /></b> ${count > 1 && html`<b>×${number(count)}</b> `}${word}` : html`${word}<${Long} text=${words} />`}${seconds != null && html` <span class="dim">${line.event === "progress.recovered" ? "after " : ""}${duration(seconds)}${count > 1 ? " in all" : ""}${lateOf(item) ? `, overdue by ${duration(lateOf(item))}` : ""}</span>`}
    <${Said} attributes=${line.attributes} />
    <div class="line-foot">${line.agent && html`<${Agent} agent=${line.agent} />`}${line.stage && !stage && html`<span><bdi>${line.stage}</bdi></span>`}<time>${clockTime(line.timestamp, now())}</time></div></div></div>`;
}

// The attributes of a note; those of other events are in their texts already.
function Said({ attributes }) {
  const given = Object.entries(attributes ?? {}).filter(([key]) => !/^(progress|exception|gen_ai|process)\./.test(key));
  if (!given.length) return null;
  return html`<dl class="said">${given.map(([key, value]) => html`<div key=${key}><dt><bdi>${key}</bdi></dt><dd><${Value} value=${value} /></dd></div>`)}</dl>`;
}
