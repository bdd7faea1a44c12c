// The page of the example: log in, start jobs, and show one <progress-operation> for each.
const [login, start, jobs] = ["login", "start", "jobs"].map((id) => document.getElementById(id));

async function ask(path, body) {
  const answer = await fetch(path, body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function show(id) {
  const shown = document.createElement("progress-operation");
  shown.setAttribute("src", `progress/operations/${encodeURIComponent(id)}`);
  shown.setAttribute("cancel", "");
  jobs.prepend(shown);
}

async function open() {
  const { user } = await ask("user");
  login.hidden = user != null;
  start.hidden = user == null;
  jobs.replaceChildren();
  if (user != null) for (const { id } of (await ask("progress/operations")).operations.reverse()) show(id);
}

login.addEventListener("submit", async (event) => {
  event.preventDefault();
  await ask("login", { user: login.elements.user.value });
  await open();
});

start.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { title, hangs } = start.elements;
  show((await ask("jobs", { title: title.value, hangs: hangs.checked })).id);
});

await open();
