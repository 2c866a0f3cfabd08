// Adds, changes, runs, switches and removes schedules. The page is drawn by the server, so each change loads it again.

import { call } from "./requests.js";

const answer = document.getElementById("answer");

async function ask(method, path, body) {
  const outcome = await call(method, path, body);
  if (outcome.ok) {
    location.reload();
    return;
  }
  answer.textContent = outcome.message ?? `not done (${outcome.why}); try again`;
  answer.hidden = false;
  answer.scrollIntoView({ block: "nearest" });
}

for (const row of document.querySelectorAll("[data-schedule]")) {
  const name = row.dataset.schedule;
  const path = `/schedules/${encodeURIComponent(name)}`;
  row.querySelector("[data-run]").addEventListener("click", () => ask("POST", `${path}/run`));
  const enable = row.querySelector("[data-enable]");
  enable.addEventListener("click", () => ask("PATCH", path, { enabled: enable.dataset.enable === "true" }));
  const remove = row.querySelector("[data-remove]");
  remove.addEventListener("click", () => {
    // A second click, so that a slip of the hand costs nothing.
    if (remove.dataset.remove === "sure") ask("DELETE", path);
    remove.dataset.remove = "sure";
    remove.textContent = "Remove with its history?";
  });
  const times = row.querySelector("[data-times]");
  row.querySelector("[data-change]")?.addEventListener("click", () => {
    times.hidden = !times.hidden;
    if (!times.hidden) times.elements.cron.focus();
  });
  times?.addEventListener("submit", (event) => {
    event.preventDefault();
    ask("PATCH", path, { cron: times.elements.cron.value, timezone: times.elements.timezone.value });
  });
}

for (const row of document.querySelectorAll("[data-request]")) {
  const cancel = row.querySelector("[data-cancel]");
  cancel?.addEventListener("click", () => ask("DELETE", `/requests/${row.dataset.request}`));
}

const form = document.getElementById("add");
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = new FormData(form);
  const [kind, recipe] = given.get("job").split(":");
  const when = given.get("when");
  const body = { name: given.get("name"), dataset: given.get("dataset"), kind, config: { recipe } };
  if (when === "cron") Object.assign(body, { cron: given.get("cron"), timezone: given.get("timezone"), missed: given.get("missed") });
  else body.on = when;
  ask("POST", "/schedules", body);
});
