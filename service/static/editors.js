// What an answer is made with, one editor for each task type. An editor draws into the place that it is given, says what
// was decided through `submit`, and takes keys; texts reach the document through textContent only.

import { SpanEditor } from "./spans.js";

export function element(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "text") made.textContent = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Say which language a text is in where the script tells: lines of Korean end between words, and it is read out as Korean.
export function putText(place, text) {
  place.textContent = text;
  place.lang = /\p{Script=Hangul}/u.test(text) ? "ko" : "";
}

// A Hangul or other input method changes the key, not where it lies: fall back on its place.
export function keyOf(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : "";
  const place = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code);
  return { key, place: place ? place[1].toLowerCase() : "" };
}

export function pressed(event, buttons) {
  const { key, place } = keyOf(event);
  const named = (wanted) => buttons.find((button) => wanted && button.dataset.hotkey === wanted);
  // On another script's layout the letter itself is no command, so its place may be one.
  return named(key) ?? (/^[a-z0-9]$/.test(key) ? undefined : named(place));
}

export function answerButton({ name, hotkey, description, value }, attributes, act) {
  const words = element("span", { class: "name" });
  if (hotkey) words.append(element("kbd", { text: hotkey }), " ");
  words.append(element("span", { dir: "auto", text: name }));
  const button = element("button", {
    type: "button", "data-value": String(value), "data-hotkey": hotkey, "aria-keyshortcuts": hotkey, disabled: true,
    on: { click: () => act(button) }, ...attributes,
  }, words);
  if (description) button.append(element("small", { dir: "auto", text: description }));
  return button;
}

class Editor {
  constructor(schema, place, { submit, say }) {
    Object.assign(this, { schema, place, submit, say, buttons: [], enabled: false });
    place.replaceChildren();
  }

  enable(on) {
    this.enabled = on;
    for (const field of this.place.querySelectorAll("button, input, textarea")) field.disabled = !on;
  }

  // Whether the key was one of this editor's.
  key(event) {
    const button = pressed(event, this.buttons);
    if (button) {
      if (this.enabled) button.click();
      return true;
    }
    if (event.key === "ArrowDown" || event.key === "ArrowRight") return this.moveFocus(1);
    if (event.key === "ArrowUp" || event.key === "ArrowLeft") return this.moveFocus(-1);
    if (event.key === "Enter" && !this.place.contains(document.activeElement)) return this.enter();
    return false;
  }

  moveFocus(step) {
    const { buttons } = this;
    if (buttons.length === 0) return false;
    const at = buttons.indexOf(document.activeElement);
    const next = at === -1 ? (step > 0 ? 0 : buttons.length - 1) : (at + step + buttons.length) % buttons.length;
    buttons[next].focus();
    return true;
  }

  enter() { return false; }

  show() {}

  suggest() {}

  words(value) { return String(value); }
}

// One of several: a label, a point of a short scale, or a side. The key answers at once.
class ChoiceEditor extends Editor {
  constructor(schema, place, tools, choices) {
    super(schema, place, tools);
    this.choices = choices;
    this.buttons = choices.map((choice) => answerButton(choice, {}, (button) => this.choose(button, choice.value)));
    this.group = element("div", { class: choices.length > 5 && choices.every(({ name }) => name.length < 5) ? "labels points" : "labels", role: "group", "aria-labelledby": "question" }, ...this.buttons);
    place.append(this.group);
  }

  choose(button, value) {
    if (!this.enabled) return;
    button.classList.add("chosen");
    this.submit(value);
  }

  show() {
    this.suggested = null;
    for (const button of this.buttons) button.classList.remove("chosen", "suggested");
  }

  suggest(value) {
    this.suggested = this.buttons[this.choices.findIndex((choice) => choice.value === value)] ?? null;
    this.suggested?.classList.add("suggested");
  }

  enter() {
    if (!this.suggested || !this.enabled) return false;
    this.suggested.click();
    return true;
  }

  words(value) { return this.choices.find((choice) => choice.value === value)?.name ?? String(value); }
}

class MultiLabelEditor extends Editor {
  constructor(schema, place, tools) {
    super(schema, place, tools);
    this.least = schema.min_labels ?? 1;
    this.most = schema.max_labels ?? schema.labels.length;
    this.buttons = schema.labels.map((label) => answerButton({ ...label, value: label.name }, { "aria-pressed": "false" }, (button) => this.toggle(button)));
    this.done = element("button", { type: "button", class: "primary", disabled: true, "aria-keyshortcuts": "Enter", on: { click: () => this.enter() } });
    this.done.append(element("kbd", { text: "Enter" }), " Done");
    place.append(element("div", { class: "labels", role: "group", "aria-labelledby": "question" }, ...this.buttons), this.done);
  }

  chosen() { return this.buttons.filter((button) => button.getAttribute("aria-pressed") === "true").map((button) => button.dataset.value); }

  set(button, on) {
    button.setAttribute("aria-pressed", String(on));
    button.classList.toggle("chosen", on);
  }

  toggle(button) {
    const on = button.getAttribute("aria-pressed") !== "true";
    if (on && this.most === 1) for (const other of this.buttons) this.set(other, false);
    if (on && this.chosen().length >= this.most) {
      this.say(`At most ${this.most} labels: take one away first.`, "warn");
      return;
    }
    this.set(button, on);
  }

  key(event) {
    // Space presses a button, Enter ends the answer, wherever the focus is among the labels.
    if (event.key === "Enter" && (this.buttons.includes(document.activeElement) || !document.activeElement?.matches("button"))) return this.enter();
    return super.key(event);
  }

  enter() {
    if (!this.enabled) return true;
    const value = this.chosen().sort();
    if (value.length < this.least) this.say(`At least ${this.least} ${this.least === 1 ? "label" : "labels"}.`, "warn");
    else this.submit(value);
    return true;
  }

  show() { for (const button of this.buttons) this.set(button, false); }

  suggest(value) { for (const button of this.buttons) this.set(button, value.includes(button.dataset.value)); }

  words(value) { return value.join(", ") || "none"; }
}

// A scale too long for a button a point.
class NumberEditor extends Editor {
  constructor(schema, place, tools) {
    super(schema, place, tools);
    const { min, max, step } = schema;
    this.field = element("input", { type: "number", min, max, step, inputmode: "decimal", "aria-labelledby": "question", disabled: true });
    this.done = element("button", { type: "button", class: "primary", disabled: true, on: { click: () => this.finish() } });
    this.done.append(element("kbd", { text: "Enter" }), " Done");
    const ends = [schema.low && `${min}: ${schema.low}`, schema.high && `${max}: ${schema.high}`].filter(Boolean).join(" · ");
    place.append(element("div", { class: "scale" }, this.field, element("small", { class: "muted", text: ends }), this.done));
  }

  finish() {
    if (!this.enabled) return;
    if (this.field.value === "" || !this.field.validity.valid) this.say(`A number from ${this.schema.min} to ${this.schema.max} in steps of ${this.schema.step}.`, "warn");
    else this.submit(this.field.valueAsNumber);
  }

  key(event) {
    if (event.key === "Enter" && document.activeElement !== this.done) {
      this.finish();
      return true;
    }
    return false;
  }

  ready() { this.field.focus(); }

  show() { this.field.value = ""; }

  suggest(value) { this.field.value = value; }
}

class TextEditor extends Editor {
  constructor(schema, place, tools) {
    super(schema, place, tools);
    this.field = element("textarea", { rows: 4, maxlength: schema.max_chars * 2, dir: "auto", "aria-labelledby": "question", disabled: true });
    this.done = element("button", { type: "button", class: "primary", disabled: true, on: { click: () => this.finish() } });
    this.done.append(element("kbd", { text: "Ctrl" }), " ", element("kbd", { text: "Enter" }), " Done");
    place.append(this.field, element("p", { class: "hint muted", text: "Esc leaves the text field, so that S, Z, G and ? work." }), this.done);
  }

  finish() {
    if (!this.enabled) return;
    const value = this.field.value.normalize("NFC").trim();
    const size = [...value].length;
    const { min_chars: least, max_chars: most } = this.schema;
    if (size < least || size > most) this.say(`${size} characters: this queue takes ${least} to ${most}.`, "warn");
    else this.submit(value);
  }

  // Outside the field, where plain Enter may end the answer.
  key(event) {
    if (event.key !== "Enter" || document.activeElement === this.done) return false;
    this.field.focus();
    return true;
  }

  ready() { this.field.focus(); }

  show() { this.field.value = ""; }

  suggest(value) { this.field.value = value; }

  words(value) { return [...value].slice(0, 60).join(""); }
}

class PairEditor extends ChoiceEditor {
  constructor(schema, place, tools) {
    const choices = [{ name: "The first", hotkey: "1", value: "first" }, { name: "The second", hotkey: "2", value: "second" }];
    if (schema.ties) choices.push({ name: "Neither is better", hotkey: "3", value: "tie" });
    super(schema, place, tools, choices);
    // Not left and right: on a narrow screen one stands above the other.
    this.sides = ["first", "second"].map((side) => element("p", { dir: "auto", class: "side", tabindex: "0", "aria-label": `The ${side} text` }));
    place.prepend(element("div", { class: "pair" }, ...this.sides.map((side) => element("section", { class: "card" }, side))));
  }

  show(task) {
    super.show(task);
    // Which side is which must not always be the same: people favour one. It stays the same for one lease.
    this.swapped = parseInt(task.lease_id.at(-1), 16) % 2 === 1;
    const { a, b } = task.pair;
    const [first, second] = this.swapped ? [b, a] : [a, b];
    putText(this.sides[0], first);
    putText(this.sides[1], second);
  }

  choose(button, side) {
    if (!this.enabled) return;
    button.classList.add("chosen");
    this.submit(side === "tie" ? side : (side === "first") !== this.swapped ? "a" : "b");
  }

  suggest(value) { super.suggest(value === "tie" ? value : (value === "a") !== this.swapped ? "first" : "second"); }

  words(value) { return value === "tie" ? "neither is better" : (value === "a") !== this.swapped ? "the first" : "the second"; }
}

function points({ min, max, step }) {
  const count = Math.round((max - min) / step) + 1;
  return Array.from({ length: count }, (_, place) => Number((min + place * step).toFixed(9)));
}

function scale(schema) {
  const found = points(schema);
  const plain = found.every((point) => Number.isInteger(point) && point >= 0 && point <= 10);
  return found.map((point, place) => ({
    name: String(point),
    value: point,
    hotkey: plain ? String(point % 10) : String((place + 1) % 10),
    description: place === 0 ? schema.low : place === found.length - 1 ? schema.high : "",
  })).filter((choice, place, all) => {
    // 0 and 10 would share a key: the end of the scale keeps none.
    if (all.findIndex((other) => other.hotkey === choice.hotkey) !== place) delete choice.hotkey;
    return true;
  });
}

export function makeEditor(schema, place, text, tools) {
  if (schema.task === "multi_label") return new MultiLabelEditor(schema, place, tools);
  if (schema.task === "spans") return new SpanEditor(schema, place, text, tools);
  if (schema.task === "free_text") return new TextEditor(schema, place, tools);
  if (schema.task === "pairwise") return new PairEditor(schema, place, tools);
  if (schema.task === "rating") {
    return points(schema).length <= 11 ? new ChoiceEditor(schema, place, tools, scale(schema)) : new NumberEditor(schema, place, tools);
  }
  return new ChoiceEditor(schema, place, tools, schema.labels.map((label) => ({ ...label, value: label.name })));
}
