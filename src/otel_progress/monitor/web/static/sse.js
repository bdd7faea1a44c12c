// A parser of server-sent events, for streams that are read with fetch.

/** A parser of server-sent events: takes chunks of text and calls `hear(event, data, id)`. */
export function frames(hear) {
  let rest = "";
  return (text) => {
    rest += text;
    let from = 0;
    for (;;) {
      const end = rest.indexOf("\n\n", from);
      if (end < 0) break;
      frame(rest.slice(from, end), hear);
      from = end + 2;
    }
    rest = rest.slice(from);
  };
}

function frame(text, hear) {
  let [event, data, id] = ["message", "", null];
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 1) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "event") event = value;
    else if (field === "data") data += data ? `\n${value}` : value;
    else if (field === "id") id = value;
  }
  if (data) hear(event, JSON.parse(data), id);
}
