// Keeps a run's page fresh until the run has ended. Everything is written through textContent and attributes.

import { call, TIMEOUT_MS } from "./requests.js";

const EVERY_MS = 1500;
let waiting;
const byId = (id) => document.getElementById(id);
const page = document.querySelector("main");
const { run } = page.dataset;

function cell(kind, text, name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  return made;
}

// On a phone a row is a card, whose cells say what they are.
function named(label, made) {
  made.dataset.name = label;
  return made;
}

const count = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, " ");

const pace = (rate) => (rate >= 100 ? count(Math.round(rate)) : String(Number(rate.toPrecision(2))));

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function badge(state) {
  // As the macro of the same name in macros.html.
  return cell("span", state === "poisoned" ? "given up" : state, `state state-${state}`);
}

function listStages(id, stages) {
  byId(id).hidden = stages.length === 0;
  byId(id).querySelector("span").textContent = stages.map((stage) => stage.name).join(", ");
}

function showStages(stages) {
  const empty = stages.filter((stage) => stage.num_units === 0);
  listStages("idle", empty.filter((stage) => stage.is_over));
  listStages("to-come", empty.filter((stage) => !stage.is_over));
  const rows = stages.filter((stage) => stage.num_units > 0).map((stage) => {
    const row = document.createElement("tr");
    const name = cell("th", stage.name, "wrap");
    name.scope = "row";
    name.append(cell("small", stage.about, "about"));
    row.append(name);
    const bar = document.createElement("progress");
    bar.setAttribute("aria-label", stage.name);
    // Inside one long unit the records move before the units do.
    const whole = stage.num_units === 0 ? 1 : stage.num_units;
    const within = stage.num_total > 0 ? stage.num_done / stage.num_total : 0;
    bar.max = 1;
    bar.value = Math.min(1, Math.max(stage.num_units_done / whole, stage.num_units === 1 ? within : 0));
    const barCell = cell("td", "", "grow");
    barCell.append(bar);
    const total = `${stage.is_estimate ? "about " : ""}${count(stage.num_total)}`;
    row.append(
      barCell,
      cell("td", `${stage.num_units_done} / ${stage.num_units}`, "number"),
      cell("td", stage.num_total > 0 ? count(stage.num_done) : "–", "number"),
      cell("td", stage.num_total > 0 ? total : "–", "number"),
    );
    return row;
  });
  byId("stages").tBodies[0].replaceChildren(...rows);
}

function showUnits(units) {
  const rows = units.map((unit) => {
    const row = document.createElement("tr");
    const state = document.createElement("td");
    state.append(badge(unit.state));
    const stage = cell("th", unit.stage_name);
    stage.scope = "row";
    const done = unit.num_total > 0 ? `${count(unit.num_done)} / ${count(unit.num_total)}` : "–";
    row.append(
      stage,
      named("Unit", cell("td", unit.position, "number")),
      state,
      named("Attempts", cell("td", unit.attempts, "number")),
      named("Done", cell("td", done, "number")),
      named("Worker", cell("td", unit.owner ?? "–", "wrap")),
      named("Reason", cell("td", unit.reason ?? "–", "wrap")),
    );
    return row;
  });
  byId("units").tBodies[0].replaceChildren(...rows);
  byId("units").hidden = rows.length === 0;
  byId("no-units").hidden = rows.length > 0;
}

function showPace(progress) {
  const parts = [`after ${duration(progress.seconds)}`];
  if (progress.state === "running" && progress.rate !== null) parts.push(`${pace(progress.rate)} a second`);
  if (progress.run_seconds_left !== null) parts.push(`about ${duration(progress.run_seconds_left)} left`);
  else if (progress.seconds_left !== null) parts.push(`about ${duration(progress.seconds_left)} left in this stage`);
  if (progress.waiting_for) parts.push(`no worker serves ${progress.waiting_for}: start one with worker_needs`);
  byId("pace").textContent = parts.join(" · ");
}

function showActions(progress) {
  const running = progress.state === "running";
  const shown = {
    pause: running && !progress.paused,
    resume: progress.paused || progress.state === "failed" || progress.state === "cancelled",
    cancel: running,
  };
  for (const button of document.querySelectorAll("[data-do]")) button.hidden = !shown[button.dataset.do];
  for (const label of document.querySelectorAll("#actions label")) label.hidden = !running;
}

function showLog(lines) {
  const rows = lines.map((line) => {
    const row = document.createElement("tr");
    row.append(
      cell("td", `${line.at.slice(0, 16).replace("T", " ")} UTC`),
      cell("td", `${line.stage_name}/${line.position}`),
      cell("td", line.attempt, "number"),
      cell("td", line.level),
      cell("td", line.message, "wrap lines"),
    );
    return row;
  });
  byId("log").tBodies[0].replaceChildren(...rows);
  byId("log").hidden = rows.length === 0;
  byId("no-log").hidden = rows.length > 0;
}

let drawn = "";

// The server draws the curves; as a document of a request they are nodes at once, and no text is parsed into the page.
function showTraining(progress) {
  const shown = byId("training");
  const now = JSON.stringify([progress.state, progress.stages]);
  if (!shown || now === drawn) return;
  const request = new XMLHttpRequest();
  request.open("GET", `/runs/${run}/losses`);
  request.responseType = "document";
  request.timeout = TIMEOUT_MS;
  request.addEventListener("load", () => {
    if (request.status !== 200 || new URL(request.responseURL).pathname !== `/runs/${run}/losses`) return;
    drawn = now;
    shown.replaceChildren(...[...request.response.body.childNodes].map((node) => document.importNode(node, true)));
  });
  request.send();
}

async function refresh() {
  const outcome = await call("GET", `/runs/${run}`);
  if (outcome.ok) {
    const progress = outcome.body;
    page.dataset.state = progress.state;
    byId("state").replaceChildren(badge(progress.paused ? "paused" : progress.state));
    showActions(progress);
    byId("reason").textContent = progress.reason ?? "";
    byId("reason").hidden = !progress.reason;
    showStages(progress.stages);
    showPace(progress);
    showTraining(progress);
    const units = await call("GET", `/runs/${run}/units`);
    if (units.ok) showUnits(units.body.items);
    const log = await call("GET", `/runs/${run}/log`);
    if (log.ok) showLog(log.body.items);
    if (progress.state !== "running") return;
  } else {
    byId("pace").textContent = outcome.why === "logged out" ? "logged out; log in again in another tab" : "the service does not answer; trying again";
    if (outcome.refused) return;
  }
  waiting = setTimeout(refresh, EVERY_MS);
}

async function ask(method, path, body) {
  const outcome = await call(method, `/runs/${run}${path}`, body);
  const answer = byId("answer");
  answer.hidden = outcome.ok;
  if (!outcome.ok) answer.textContent = outcome.message ?? `not done (${outcome.why}); try again`;
  clearTimeout(waiting);
  refresh();
}

for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", () => ask("POST", `/${button.dataset.do}`));
}
byId("priority").addEventListener("change", (event) => {
  if (event.target.reportValidity()) ask("PATCH", "", { priority: event.target.valueAsNumber });
});
byId("max-units").addEventListener("change", (event) => {
  if (event.target.reportValidity()) ask("PATCH", "", { max_units: event.target.valueAsNumber });
});

refresh();
