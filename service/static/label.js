// The annotator's page: one text at a time, by keyboard, and no answer is ever lost.
// Texts reach the document through textContent only.

import { Outbox, newKey } from "./outbox.js";
import { call } from "./requests.js";

const GUARD_MS = 150; // A key pressed twice must not answer a text that nobody has seen yet.
const IDLE_MS = 10 * 60 * 1000; // A page left alone stops holding its text.
const MAX_POLL_SECONDS = 5;
const MAX_BACKOFF_MS = 15000;

const byId = (id) => document.getElementById(id);
const page = document.querySelector("main.label");
const { queue, user } = page.dataset;
const leaseSeconds = Number(page.dataset.leaseSeconds);
const labelButtons = [...byId("labels").querySelectorAll("button")];
const outbox = new Outbox(`winnow.answer.${user}.${queue}.`);

let task = null;
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
  for (const button of labelButtons) button.disabled = !ready;
  byId("skip").disabled = !ready;
}

function say(message, mood = "") {
  const status = byId("status");
  status.className = mood ? `status ${mood}` : "status";
  if (status.textContent !== message) status.textContent = message;
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
    say(`Offline (${waiting}).${kept} Trying again.${unsafe}`, "warn");
  }
}

function show(served) {
  task = served;
  byId("text").textContent = served.text;
  byId("text").scrollTop = 0;
  byId("why").textContent = served.why ? `Why this text: ${served.why}` : "";
  byId("nothing").hidden = true;
  for (const button of labelButtons) button.classList.remove("chosen");
  shownAt = performance.now();
  setState("shown");
  setTimeout(() => {
    if (task === served && page.dataset.state === "shown") setState("ready");
  }, GUARD_MS);
}

function showNothing(message) {
  task = null;
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
    words.textContent = `“${answer.value}” for “${answer.excerpt}”: ${answer.refused}`;
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

async function showProgress() {
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
  for (const answer of outbox.waiting()) {
    say("Sending…");
    const { key, value, seconds_spent } = answer;
    const outcome = await call("PUT", `/leases/${answer.lease_id}/annotation`, { key, value, seconds_spent });
    if (outcome.retry) return outcome.why;
    if (outcome.ok) {
      outbox.drop(key);
      note = outcome.body.late ? "Saved, as an extra answer: others had answered this text meanwhile." : "Saved.";
    } else {
      outbox.put({ ...answer, refused: refusalInWords(outcome) });
      showRefused();
      note = "";
    }
  }
  return null;
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
    say(note, "good");
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
    show(outcome.body.task);
    say(note, "good");
  } else {
    waitFor(outcome.body);
  }
  showProgress();
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

function answer(button) {
  if (page.dataset.state !== "ready") return;
  button.classList.add("chosen");
  setState("sending");
  outbox.put({
    key: newKey(),
    lease_id: task.lease_id,
    value: button.dataset.value,
    seconds_spent: Math.min(Math.round((performance.now() - shownAt) / 100) / 10, 86400),
    excerpt: [...task.text].slice(0, 60).join(""),
    at: Date.now(),
  });
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
  settle();
}

async function undo() {
  const before = page.dataset.state;
  if (before === "sending" || before === "loading") return;
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
  settle();
}

// A Hangul or other input method changes the key, not where it lies: fall back on its place.
function keyOf(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : "";
  const place = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code);
  return { key, place: place ? place[1].toLowerCase() : "" };
}

function pressed(event, buttons) {
  const { key, place } = keyOf(event);
  const named = (wanted) => buttons.find((button) => wanted && button.dataset.hotkey === wanted);
  // On another script's layout the letter itself is no command, so its place may be one.
  return named(key) ?? (/^[a-z0-9]$/.test(key) ? undefined : named(place));
}

function moveFocus(step) {
  const at = labelButtons.indexOf(document.activeElement);
  const next = at === -1 ? (step > 0 ? 0 : labelButtons.length - 1) : (at + step + labelButtons.length) % labelButtons.length;
  labelButtons[next].focus();
}

function command(event) {
  const { key, place } = keyOf(event);
  const letter = /^[a-z0-9?]$/.test(key) ? key : place;
  if (letter === "s") {
    if (page.dataset.state === "ready") byId("skip-dialog").showModal();
  } else if (letter === "z") undo();
  else if (letter === "g") byId("guidelines-dialog").showModal();
  else if (key === "?") byId("help-dialog").showModal();
  else if (event.key === "ArrowDown" || event.key === "ArrowRight") moveFocus(1);
  else if (event.key === "ArrowUp" || event.key === "ArrowLeft") moveFocus(-1);
  else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
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
  const button = pressed(event, labelButtons);
  if (button) answer(button);
  if (button || command(event)) event.preventDefault();
});

for (const button of labelButtons) button.addEventListener("click", () => answer(button));
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
  const held = task;
  const outcome = await call("POST", `/leases/${held.lease_id}/heartbeat`);
  if (outcome.refused && task === held && page.dataset.state === "ready") {
    say("Another annotator has this text by now. Your answer is still welcome.", "warn");
  }
}, Math.max(1, leaseSeconds / 3) * 1000);

window.addEventListener("online", () => {
  failures = 0;
  settle();
});
window.addEventListener("offline", () => sayRetrying("offline"));

showRefused();
settle();
