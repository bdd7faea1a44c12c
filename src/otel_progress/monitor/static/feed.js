// The activity feed: what happened, newest last; it follows its end unless one scrolled up.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { Long } from "./parts.js";
import { feed, newest, older, selected, withUpdates } from "./selection.js";
import { now } from "./state.js";
import { STATUS, clockTime, duration } from "./words.js";

const KINDS = {
  "progress.operation.started": { icon: "start", tone: "run", word: "started" },
  "progress.operation.ended": { icon: "done", tone: "good", word: "ended" },
  "progress.stage.started": { icon: "stage", tone: "run", word: "stage started" },
  "progress.stage.ended": { icon: "check", tone: "good", word: "stage ended" },
  "progress.updated": { icon: "update", tone: "dim", word: "update" },
  "progress.heartbeat": { icon: "beat", tone: "dim", word: "heartbeat" },
  "progress.note": { icon: "note", tone: "dim", word: "note" },
  "progress.wait.started": { icon: "wait", tone: "wait", word: "waits for" },
  "progress.wait.ended": { icon: "run", tone: "run", word: "goes on after" },
  "progress.stalled": { icon: "stuck", tone: "bad", word: "stalled" },
  "progress.recovered": { icon: "recovered", tone: "good", word: "recovered" },
};
const NOTES = { warning: "warn", warn: "warn", error: "bad", failed: "bad", ok: "good", success: "good", completed: "good" };

function kindOf(line) {
  const kind = KINDS[line.event] ?? { icon: "note", tone: "dim", word: line.event.replace(/^progress\./, "") };
  if (line.event === "progress.note") {
    const tone = NOTES[line.status];
    return tone ? { ...kind, tone, icon: tone === "bad" ? "failed" : tone === "warn" ? "overdue" : "done", word: line.status } : kind;
  }
  const status = line.event.endsWith(".ended") && STATUS[line.status];
  return status ? { icon: status.icon, tone: status.tone, word: status.label } : kind;
}

// The monitor's own words begin with the name of the operation, which stands above the feed already.
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
      return said["progress.wait.reason"] ?? text;
    case "progress.wait.ended":
      return [said["progress.wait.reason"], said["progress.wait.duration"] != null && duration(said["progress.wait.duration"])].filter(Boolean).join(", ");
    case "progress.stalled":
      return said["progress.health.reason"] ?? text;
    case "progress.recovered":
      return said["progress.stall.duration"] == null ? text : `after ${duration(said["progress.stall.duration"])}`;
    default:
      return text;
  }
}

export function Feed({ name }) {
  const { lines, start, end, ready } = feed.value;
  const box = useRef(null);
  const kept = useRef({ follow: true, height: 0, first: null, last: null });
  const [missed, setMissed] = useState(0);
  const [agent, setAgent] = useState("");
  const agents = [...new Set(lines.map((line) => line.agent).filter(Boolean))].sort();
  const shown = agent ? lines.filter((line) => line.agent === agent) : lines;
  useEffect(() => {
    kept.current = { follow: true, height: 0, first: null, last: null };
    setAgent("");
    setMissed(0);
  }, [selected.value]);
  useLayoutEffect(() => {
    const [list, was] = [box.current, kept.current];
    const [first, last] = [shown[0]?.id, shown.at(-1)?.id];
    if (was.follow) list.scrollTop = list.scrollHeight;
    else if (was.first != null && first < was.first) list.scrollTop += list.scrollHeight - was.height;
    if (was.last != null && last > was.last && !was.follow) setMissed(missed + shown.filter((line) => line.id > was.last).length);
    Object.assign(was, { height: list.scrollHeight, first, last });
  }, [lines, agent]);
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
      ${agents.length > 1 && html`<label class="sr" for="agent">Agent</label><select id="agent" value=${agent} onChange=${(event) => setAgent(event.currentTarget.value)}><option value="">all agents</option>${agents.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>`}
      <label class="check"><input type="checkbox" checked=${withUpdates.value} onChange=${() => (withUpdates.value = !withUpdates.value)} />updates</label></div>
    <div class="feed-box" ref=${box} onScroll=${see} tabindex="0" role="log" aria-label="Activity" aria-live="off">
      ${ready && !start && html`<button type="button" class="quiet feed-older" onClick=${older}>Older</button>`}
      ${ready && !shown.length && html`<p class="nothing">Nothing was said yet.</p>`}
      ${shown.map((line) => html`<${Line} key=${line.id} line=${line} name=${name} />`)}
    </div>
    ${(missed > 0 || !end) && html`<button type="button" class="feed-new" onClick=${follow}><${Icon} name="down" size=${13} />${missed > 0 ? `${missed} new` : "Newest"}</button>`}
  </section>`;
}

function Line({ line, name }) {
  const kind = kindOf(line);
  const words = wordsOf(line, name);
  return html`<div class="line"><${Icon} name=${kind.icon} size=${14} tone=${kind.tone} /><div class="line-text">${line.event !== "progress.note" || kind.tone !== "dim" ? html`<span class=${`line-kind tone-${kind.tone}`}>${kind.word}</span> ` : html`<span class="sr">note: </span>`}<${Long} text=${words} />
    <div class="line-foot">${line.agent && html`<span class="agent"><bdi>${line.agent}</bdi></span>`}${line.stage && line.event !== "progress.stage.started" && line.event !== "progress.stage.ended" && html`<span><bdi>${line.stage}</bdi></span>`}<time>${clockTime(line.timestamp, now())}</time></div></div></div>`;
}
