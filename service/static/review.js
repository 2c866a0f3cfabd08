// Settling disagreements: one text at a time, what annotators said side by side, decided with the same keys as an answer.

import { element, makeEditor, putText } from "./editors.js";
import { newKey } from "./outbox.js";
import { call } from "./requests.js";

const byId = (id) => document.getElementById(id);
const page = document.querySelector("main.label");
const { queue } = page.dataset;
const schema = JSON.parse(page.dataset.schema);
const editor = makeEditor(schema, byId("answer"), byId("text"), { submit: decide, say });

let cases = [];
let more = ""; // "or more" while the service has further cases than those fetched.
let after = "";
let key = newKey();

function say(message, mood = "") {
  byId("status").className = mood ? `status ${mood}` : "status";
  byId("status").textContent = message;
}

function setState(state) {
  page.dataset.state = state;
  editor.enable(state === "ready");
  byId("later").disabled = state !== "ready";
  byId("undo").disabled = state !== "ready" && state !== "empty";
}

function show() {
  const [found] = cases;
  byId("count").textContent = cases.length === 0 ? "" : `${cases.length}${more} to settle`;
  byId("nothing").hidden = found !== undefined;
  byId("case").hidden = found === undefined;
  if (!found) {
    setState("empty");
    return;
  }
  const pair = schema.task === "pairwise" ? JSON.parse(found.text) : null;
  putText(byId("text"), pair ? pair.prompt ?? "" : found.text);
  // Sides stay as they are stored here: annotators' answers name them so.
  editor.show({ ...found, lease_id: "0", pair });
  byId("opinions").replaceChildren(...found.opinions.map((one) => element("section", { class: "card" },
    element("h3", { dir: "auto", text: one.annotator }),
    element("p", { dir: "auto", class: "said", text: spoken(one.value, found.text) }),
    element("small", { class: "muted", text: [one.late && "late", one.seconds_spent !== null && `${one.seconds_spent} s`].filter(Boolean).join(" · ") }))));
  setState("ready");
}

function spoken(value, text) {
  if (schema.task !== "spans") return editor.words(value);
  const points = [...text];
  return value.map(({ start, end, label }) => `${label}: ${points.slice(start, end).join("")}`).join("\n") || "nothing marked";
}

async function load() {
  setState("loading");
  const outcome = await call("GET", `/queues/${queue}/disagreements?limit=20&after=${after}`);
  if (!outcome.ok) {
    say(outcome.message ?? "The service does not answer. Trying again.", "warn");
    if (outcome.retry) setTimeout(load, 2000);
    return;
  }
  cases = outcome.body.items;
  more = outcome.body.next ? " or more" : "";
  show();
}

async function decide(value) {
  if (page.dataset.state !== "ready") return;
  setState("sending");
  const note = byId("note").value.trim();
  const outcome = await call("PUT", `/tasks/${cases[0].task_id}/decision`, { key, value, note });
  if (!outcome.ok) {
    // The same key again: a decision whose reply was lost is made once.
    say(outcome.message ?? "Not settled: the service does not answer. Try again.", "warn");
    setState("ready");
    return;
  }
  key = newKey();
  byId("note").value = "";
  say("Settled.", "good");
  next();
}

async function undo() {
  const before = page.dataset.state;
  if (before !== "ready" && before !== "empty") return;
  setState("sending");
  const outcome = await call("POST", `/queues/${queue}/decisions/undo`);
  const back = outcome.ok ? outcome.body.case : null;
  if (back === null) {
    setState(before);
    if (outcome.ok) say("There is no decision of yours to take back.", "warn");
    else say(`Not taken back: ${outcome.message ?? "the service does not answer. Try again."}`, "warn");
    return;
  }
  key = newKey();
  // Where the page was among the others is not forgotten by it.
  cases = [{ ...back, again: true }, ...cases.filter((one) => one.task_id !== back.task_id)];
  say("Taken back. Settle this text again.");
  show();
}

function next() {
  const done = cases.shift();
  if (!done.again) after = done.task_id;
  if (cases.length === 0) load();
  else show();
}

byId("show-guidelines").addEventListener("click", () => byId("guidelines-dialog").showModal());
byId("undo").addEventListener("click", undo);
byId("later").addEventListener("click", () => {
  say("Left for later.");
  next();
});

document.addEventListener("keydown", (event) => {
  const writing = event.target instanceof HTMLElement && event.target.matches("textarea, input");
  if (writing) {
    if (event.key === "Escape") event.target.blur();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#answer")) editor.finish();
    return;
  }
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && document.activeElement?.matches("button") && !document.activeElement.closest("#answer")) return;
  if (editor.key(event)) event.preventDefault();
  else if (event.key === "n" || event.code === "KeyN") byId("later").click();
  else if (event.key === "z" || event.code === "KeyZ") byId("undo").click();
  else if (event.key === "g" || event.code === "KeyG") byId("show-guidelines").click();
});

load();
