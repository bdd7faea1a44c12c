// Requests to the monitor. Paths are relative, so that the page works below a prefix.
import { signal } from "./html.js";

/** The rights of the user; null until known. `denied`: a token is required. */
export const session = signal(null);
export const denied = signal(false);

/** A failed request: `status` (0 without a response) and the monitor's message. */
export class ApiError extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** Send a request for JSON; raises ApiError. A 401 opens the token form. */
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

/** Save what a path answers as a file; raises ApiError, as a link could not say why there is none. */
export async function save(path, name) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin" });
  } catch {
    throw new ApiError(0, "the monitor does not answer");
  }
  if (answer.status === 401) denied.value = true;
  if (!answer.ok) throw new ApiError(answer.status, (await answer.json().catch(() => ({}))).error ?? `the monitor answered ${answer.status}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Fetch the rights of the user; false if a token is required. */
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

/** Sign in with a token; raises ApiError if it is refused. */
export async function logIn(token) {
  await request("session", { method: "POST", body: { token } });
  await whoAmI();
}

/** End the session of this browser and forget what it showed. */
export async function logOut() {
  await request("session", { method: "DELETE" });
  location.reload();
}

export const mayControl = () => session.value == null || (session.value.rights ?? []).includes("control");
