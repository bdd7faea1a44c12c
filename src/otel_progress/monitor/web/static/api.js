// Requests to the monitor. Paths are relative, so the page works below a prefix too.
import { signal } from "./html.js";

/** What the one at the page may do; null before it is known. `denied`: a token is needed. */
export const session = signal(null);
export const denied = signal(false);

/** An answer that is not a success: `status` (0 without an answer) and what the monitor says. */
export class ApiError extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** A request whose answer is JSON; raises ApiError. A 401 brings up the form for the token. */
export async function request(path, { method = "GET", body, signal: abort, accept } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal: abort,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body ? JSON.stringify(body) : undefined,
    });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError(0, "the monitor does not answer");
  }
  const found = await answer.json().catch(() => ({}));
  if (answer.ok || accept?.includes(answer.status)) return { status: answer.status, body: found };
  if (answer.status === 401 && path !== "session") denied.value = true;
  throw new ApiError(answer.status, found.error ?? `the monitor answered ${answer.status}`, found);
}

/** The path of an operation in the API. */
export const pathOf = (id, rest = "") => `operations/${encodeURIComponent(id)}${rest}`;

/** Ask who is at the page; false where a token is needed first. */
export async function whoAmI() {
  try {
    session.value = (await request("session")).body;
    denied.value = false;
    return true;
  } catch (problem) {
    if (problem.status === 401) denied.value = true;
    return problem.status !== 401;
  }
}

/** Show a token; raises ApiError where it is not taken. */
export async function logIn(token) {
  await request("session", { method: "POST", body: { token } });
  await whoAmI();
}

/** End the session of this browser; nothing of what it saw stays. */
export async function logOut() {
  await request("session", { method: "DELETE" });
  location.reload();
}

export const mayControl = () => session.value == null || (session.value.rights ?? []).includes("control");
