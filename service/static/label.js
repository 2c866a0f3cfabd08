// The annotator's page: one text at a time, by keyboard, and no answer is ever lost.
// Texts reach the document through textContent only.

import { keyOf, makeEditor, pressed, putText } from "./editors.js";
import { Outbox, newKey } from "./outbox.js";
import { call } from "./requests.js";

const GUARD_MS = 150; // A key pressed twice must not answer a text that nobody has seen yet.
const IDLE_MS = 10 * 60 * 1000; // A page left alone stops holding its text.
const MAX_POLL_SECONDS = 5;
const MAX_BACKOFF_MS = 15000;
const AHEAD = 2; // Texts fetched before they are needed: the next one is there at once, and while the network is away.
const MAX_BESIDE = 3; // The service leases one more than this to an annotator.
const PROGRESS_MS = 2000;

const byId = (id) => document.getElementById(id);
const page = document.querySelector("main.label");
const { queue, user } = page.dataset;
const leaseSeconds = Number(page.dataset.leaseSeconds);
const schema = JSON.parse(page.dataset.schema);
const outbox = new Outbox(`winnow.answer.${user}.${queue}.`);
const editor = makeEditor(schema, byId("answer"), byId("text"), { submit: answer, say: sayOfText });

let task = null;
let ahead = [];
const answered = new Set(); // Leases that this page has answered: the service may not know yet.
let filling = false;
let newestVersion = schema.version;
let progressAt = -Infinity;
let progressTimer = null;
let ofText = false;
let shownAt = 0;
let lastSeen = performance.now();
let failures = 0;
let sending = null;
let timer = null;
let note = "";

// ---- what the page shows -------------------------------------------------------------------------------------------

function setState(state) {
  page.dataset.state = state;
  const ready = state === "ready";
  editor.enable(ready);
  byId("skip").disabled = !ready;
  if (ready) editor.ready?.();
}

function say(message, mood = "") {
  ofText = false;
  const status = byId("status");
  status.className = mood ? `status ${mood}` : "status";
  if (status.textContent !== message) status.textContent = message;
}

// What is said of the text on the screen stays until that changes: news of answers before it come in at any moment.
function sayOfText(message, mood = "") {
  say(message, mood);
  ofText = true;
}

function sayNews(message, mood = "") {
  if (!ofText) say(message, mood);
}

function sayRetrying(why) {
  const waiting = outbox.waiting().length;
  const kept = waiting === 0 ? "" : waiting === 1 ? " Your answer is kept in this browser." : ` Your ${waiting} answers are kept in this browser.`;
  const unsafe = outbox.durable ? "" : " Do not close this page: the browser's storage is full or switched off.";
  if (why === "logged out") {
    say(`Logged out (${waiting}).${kept} Log in again in another tab; this page goes on by itself.${unsafe}`, "warn");
  } else if (why === "busy") {
    say(`The service is busy (${waiting}).${kept} Trying again.${unsafe}`, "warn");
  } else {
    const out = page.dataset.state === "sending" && ahead.length === 0 ? " No more texts are here until the network is back." : "";
    say(`Offline (${waiting}).${kept}${out} Trying again.${unsafe}`, "warn");
  }
}

// Load the page anew once its question has changed; what was not sent yet stays in this browser.
function reloadIfChanged() {
  const known = `${queue} ${newestVersion}`;
  if (newestVersion <= schema.version || sessionStorage.getItem("winnow.reloaded") === known) return false;
  sessionStorage.setItem("winnow.reloaded", known);
  setState("loading");
  location.reload();
  return true;
}

function show(served) {
  if (reloadIfChanged()) return;
  ofText = false;
  task = served;
  page.dataset.lease = served.lease_id;
  const text = served.pair ? served.pair.prompt ?? "" : served.text;
  putText(byId("text"), text);
  byId("text").scrollTop = 0;
  byId("text").closest("section").hidden = served.pair !== null && text === "";
  byId("why").textContent = served.why ? `Why this text: ${served.why}` : "";
  byId("nothing").hidden = true;
  document.activeElement?.closest("#answer") && document.activeElement.blur();
  editor.show(served);
  showSuggestion(served.suggestion);
  showComparison(served.why);
  shownAt = performance.now();
  setState("shown");
  setTimeout(() => {
    if (task === served && page.dataset.state === "shown") setState("ready");
  }, GUARD_MS);
}

function showSuggestion(suggestion) {
  byId("suggestion").hidden = !suggestion;
  if (!suggestion) return;
  editor.suggest(suggestion.value);
  const sure = suggestion.score === null ? "" : ` (${suggestion.score.toFixed(2)})`;
  byId("suggestion").textContent = `Suggested by ${suggestion.source}${sure}: ${editor.words(suggestion.value)}. Enter takes it as it is.`;
}

// The two labels that the model hesitates between, as the guidelines tell them apart.
function showComparison(why) {
  const named = schema.labels.filter(({ name, description }) => description && why.includes(`${name} 0.`));
  byId("compare").hidden = named.length !== 2;
  byId("compare").replaceChildren();
  if (named.length !== 2) return;
  for (const { name, description } of named) {
    const [term, meaning] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    meaning.textContent = description;
    byId("compare").append(term, meaning);
  }
}

function showNothing(message) {
  task = null;
  delete page.dataset.lease;
  byId("suggestion").hidden = true;
  byId("compare").hidden = true;
  byId("text").textContent = "";
  byId("why").textContent = "";
  byId("nothing").textContent = message;
  byId("nothing").hidden = false;
  setState("empty");
}

function showRefused() {
  const list = byId("refused").querySelector("ul");
  list.replaceChildren();
  for (const answer of outbox.refused()) {
    const item = document.createElement("li");
    const words = document.createElement("p");
    words.textContent = `“${answer.words ?? answer.value}” for “${answer.excerpt}”: ${answer.refused}`;
    const again = document.createElement("button");
    again.textContent = "Send again";
    again.addEventListener("click", () => {
      outbox.put({ ...answer, refused: undefined });
      showRefused();
      settle();
    });
    const dismiss = document.createElement("button");
    dismiss.textContent = "Dismiss";
    dismiss.addEventListener("click", () => {
      outbox.drop(answer.key);
      showRefused();
    });
    item.append(words, again, " ", dismiss);
    list.append(item);
  }
  byId("refused").hidden = list.children.length === 0;
}

function showProgress() {
  clearTimeout(progressTimer);
  progressTimer = setTimeout(askProgress, Math.max(0, progressAt + PROGRESS_MS - performance.now()));
}

async function askProgress() {
  progressAt = performance.now();
  const outcome = await call("GET", `/queues/${queue}/progress`);
  if (!outcome.ok) return;
  const { num_done: done, num_tasks: tasks, num_mine: mine } = outcome.body;
  byId("progress").textContent = `${mine} by you · ${done} of ${tasks} finished`;
}

// ---- sending -------------------------------------------------------------------------------------------------------

function refusalInWords(outcome) {
  if (outcome.status === 404) return "this text is no longer reserved for you, or the queue is gone";
  if (outcome.status === 409) return `you answered this text differently before (${outcome.message})`;
  if (outcome.status === 410) return `the queue has ended (${outcome.message})`;
  return outcome.message;
}

// Send every waiting answer, oldest first. Returns null when all are settled, else why not.
function flush() {
  sending ??= flushOnce().finally(() => {
    sending = null;
  });
  return sending;
}

async function flushOnce() {
  const tried = new Set();
  // Looked up anew each time: an answer given while another is on its way has nobody else who sends it.
  for (;;) {
    const answer = outbox.waiting().find((one) => !tried.has(one.key));
    if (!answer) return null;
    tried.add(answer.key);
    sayNews("Sending…");
    const { key, value, seconds_spent, schema_version } = answer;
    const outcome = await call("PUT", `/leases/${answer.lease_id}/annotation`, { key, value, seconds_spent, schema_version });
    if (outcome.retry) return outcome.why;
    if (outcome.ok) {
      outbox.drop(key);
      note = outcome.body.late ? "Saved, as an extra answer: others had answered this text meanwhile." : "Saved.";
      const judged = outcome.body.judged;
      if (judged && !judged.is_right && judged.note) {
        note = `Saved. For “${answer.excerpt}” the known answer is “${editor.words(judged.expected)}”: ${judged.note}`;
      }
    } else {
      outbox.put({ ...answer, refused: refusalInWords(outcome) });
      showRefused();
      note = "";
    }
  }
}

function retryLater(why, again) {
  sayRetrying(why);
  failures += 1;
  clearTimeout(timer);
  timer = setTimeout(again, Math.min(500 * 2 ** failures, MAX_BACKOFF_MS));
}

// Send what waits, then go on: the one loop that every event ends in.
async function settle() {
  clearTimeout(timer);
  const why = await flush();
  if (why !== null) {
    retryLater(why, settle);
    return;
  }
  if (page.dataset.state === "ready" || page.dataset.state === "shown") {
    failures = 0;
    sayNews(note, "good");
    showProgress();
    fill();
    return;
  }
  await fetchNext();
}

async function fetchNext() {
  const outcome = await call("POST", `/queues/${queue}/next`);
  if (outcome.retry) {
    retryLater(outcome.why, settle);
    return;
  }
  failures = 0;
  if (outcome.refused) {
    showNothing(outcome.status === 410 ? "This queue is closed. Thank you." : outcome.message);
    say(note, "good");
    return;
  }
  if (outcome.body.task) {
    answered.delete(outcome.body.task.lease_id);
    ahead = ahead.filter((one) => one.lease_id !== outcome.body.task.lease_id);
    show(held(outcome.body.task));
    say(note, "good");
    fill();
  } else {
    waitFor(outcome.body);
  }
  showProgress();
}

function held(served) {
  newestVersion = Math.max(newestVersion, served.schema_version);
  return { ...served, heldUntil: performance.now() + leaseSeconds * 1000 };
}

// Fetch texts ahead, one after the other; whatever goes wrong here is found out when one is needed.
async function fill() {
  if (filling) return;
  filling = true;
  while (task !== null && ahead.length < AHEAD) {
    const hand = new Set([task, ...ahead].map((one) => one.lease_id));
    for (const answer of outbox.waiting()) hand.add(answer.lease_id);
    if (hand.size > MAX_BESIDE) break;
    const outcome = await call("POST", `/queues/${queue}/next`, { beside: [...hand] });
    const served = outcome.ok ? outcome.body.task : null;
    if (!served) break;
    if (served.lease_id === task?.lease_id || answered.has(served.lease_id) || ahead.some((one) => one.lease_id === served.lease_id)) break;
    ahead.push(held(served));
    page.dataset.ahead = ahead.length;
  }
  filling = false;
}

// Go on at once with a text that is there already; false when there is none.
function showAhead() {
  ahead = ahead.filter((one) => one.heldUntil > performance.now());
  if (reloadIfChanged()) return true;
  const next = ahead.shift();
  page.dataset.ahead = ahead.length;
  if (!next) return false;
  show(next);
  return true;
}

function waitFor({ reason, retry_after_seconds: seconds, problem }) {
  const words = {
    done: "All done: every text of this queue is answered, or passed by you. Thank you.",
    all_leased: "Other annotators hold the texts that are left. This page asks again by itself.",
    waiting_for_model: "The next texts are being chosen. This page asks again by itself.",
  };
  showNothing(problem ? `There are no texts for now: ${problem}. This page asks again by itself.` : words[reason]);
  say(note, "good");
  const wait = seconds === null ? MAX_POLL_SECONDS * 4 : Math.min(Math.max(seconds, 0.5), MAX_POLL_SECONDS);
  clearTimeout(timer);
  timer = setTimeout(settle, wait * 1000);
}

// ---- what the annotator does ---------------------------------------------------------------------------------------

function answer(value) {
  if (page.dataset.state !== "ready") return;
  setState("sending");
  say("Sending…");
  answered.add(task.lease_id);
  outbox.put({
    key: newKey(),
    lease_id: task.lease_id,
    value,
    words: editor.words(value),
    schema_version: schema.version,
    seconds_spent: Math.min(Math.round((performance.now() - shownAt) / 100) / 10, 86400),
    excerpt: [...task.text].slice(0, 60).join(""),
    at: Date.now(),
  });
  showAhead();
  settle();
}

async function skip(reason) {
  if (page.dataset.state !== "ready") return;
  setState("sending");
  say("Sending…");
  const outcome = await call("POST", `/leases/${task.lease_id}/skip`, { reason });
  if (outcome.retry) {
    setState("ready");
    say("Not skipped: the service does not answer. Answer the text, or try again.", "warn");
    return;
  }
  note = outcome.ok ? "Skipped." : `Not skipped: ${outcome.message}`;
  if (outcome.ok) {
    answered.add(task.lease_id);
    showAhead();
  }
  settle();
}

async function undo() {
  const before = page.dataset.state;
  if (before === "sending" || before === "loading") return;
  if (outbox.waiting().length > 0) await flush();
  if (outbox.waiting().length > 0) {
    say("Your last answer is still being sent; take it back once it is saved.", "warn");
    return;
  }
  setState("sending");
  const outcome = await call("POST", `/queues/${queue}/undo`);
  if (outcome.retry || outcome.refused || outcome.body.task_id === null) {
    setState(before === "shown" ? "ready" : before);
    if (outcome.retry) say("Not taken back: the service does not answer. Try again.", "warn");
    else say(outcome.refused ? `Not taken back: ${outcome.message}` : "There is nothing to take back.", "warn");
    return;
  }
  note = "Taken back. Answer this text again.";
  // What was on the screen comes after it.
  if (task) ahead.unshift(task);
  task = null;
  settle();
}

function command(event) {
  const { key, place } = keyOf(event);
  const letter = /^[a-z0-9?]$/.test(key) ? key : place;
  if (letter === "s") {
    if (page.dataset.state === "ready") byId("skip-dialog").showModal();
  } else if (letter === "z") undo();
  else if (letter === "g") byId("guidelines-dialog").showModal();
  else if (key === "?") byId("help-dialog").showModal();
  else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
  const writing = event.target instanceof HTMLElement && event.target.matches("textarea, input");
  if (writing && !event.isComposing) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey || event.target.matches("input"))) {
      event.preventDefault();
      editor.finish();
    } else if (event.key === "Escape") event.target.blur();
  }
  if (writing) return;
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const open = document.querySelector("dialog[open]");
  if (open) {
    const reason = pressed(event, [...open.querySelectorAll("button[data-hotkey]")]);
    if (reason) {
      event.preventDefault();
      reason.click();
    }
    return;
  }
  // A button that has the focus is pressed by Enter itself.
  if (event.key === "Enter" && document.activeElement?.matches("button") && !document.activeElement.closest("#answer")) return;
  if (editor.key(event) || command(event)) event.preventDefault();
});

for (const button of byId("skip-dialog").querySelectorAll("button[data-reason]")) {
  button.addEventListener("click", () => {
    byId("skip-dialog").close();
    skip(button.dataset.reason);
  });
}
byId("skip").addEventListener("click", () => byId("skip-dialog").showModal());
byId("undo").addEventListener("click", undo);
byId("show-guidelines").addEventListener("click", () => byId("guidelines-dialog").showModal());
byId("show-help").addEventListener("click", () => byId("help-dialog").showModal());

// ---- staying alive -------------------------------------------------------------------------------------------------

for (const sign of ["keydown", "pointermove", "pointerdown", "wheel", "touchstart"]) {
  document.addEventListener(sign, () => { lastSeen = performance.now(); }, { passive: true });
}

setInterval(async () => {
  const present = document.visibilityState === "visible" && performance.now() - lastSeen < IDLE_MS;
  if (!present || page.dataset.state !== "ready") return;
  for (const one of [task, ...ahead]) {
    const outcome = await call("POST", `/leases/${one.lease_id}/heartbeat`);
    if (outcome.ok) one.heldUntil = performance.now() + leaseSeconds * 1000;
    if (!outcome.refused) continue;
    ahead = ahead.filter((other) => other !== one);
    if (task === one && page.dataset.state === "ready") say("Another annotator has this text by now. Your answer is still welcome.", "warn");
  }
}, Math.max(1, leaseSeconds / 3) * 1000);

window.addEventListener("online", () => {
  failures = 0;
  settle();
});
window.addEventListener("offline", () => sayRetrying("offline"));

showRefused();
settle();
