// Marking parts of a text without a mouse, or with one. Positions inside are UTF-16 indexes, as the browser has them; the
// answer counts Unicode code points, as the service does. A selection never cuts a character as readers see it.

import { answerButton, element, pressed } from "./editors.js";

const HUES = 8;

function boundaries(text, granularity) {
  if (!("Segmenter" in Intl)) {
    const found = [0];
    for (const point of text) found.push(found.at(-1) + point.length);
    return found.map((start, place) => ({ start, end: found[place + 1], word: true })).slice(0, -1);
  }
  return Array.from(new Intl.Segmenter(undefined, { granularity }).segment(text), ({ index, segment }) => ({
    start: index, end: index + segment.length, word: segment.trim() !== "",
  }));
}

export function pointsBefore(text, index) {
  let count = 0;
  for (let at = 0; at < index; count += 1) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return count;
}

export function indexOfPoint(text, point) {
  let at = 0;
  for (let count = 0; count < point && at < text.length; count += 1) at += text.codePointAt(at) > 0xffff ? 2 : 1;
  return at;
}

export class SpanEditor {
  constructor(schema, place, text, { submit, say }) {
    Object.assign(this, { schema, place, field: text, submit, say, enabled: false, spans: [], text: "", words_: [], marks: [] });
    this.names = schema.labels.map((label) => label.name);
    this.buttons = schema.labels.map((label, number) => answerButton({ ...label, value: label.name }, { class: `hue-${number % HUES}` }, () => this.mark(label.name)));
    this.done = element("button", { type: "button", class: "primary", disabled: true, "aria-keyshortcuts": "Enter", on: { click: () => this.finish() } });
    this.done.append(element("kbd", { text: "Enter" }), " Done");
    this.list = element("ul", { class: "spans", "aria-label": "Marked parts" });
    this.selected = element("p", { class: "hint muted", role: "status", "aria-live": "polite" });
    place.replaceChildren(
      this.selected,
      element("div", { class: "labels", role: "group", "aria-labelledby": "question" }, ...this.buttons),
      this.list, this.done,
      element("p", { class: "hint muted by-touch", text: "Hold a word with a finger, move the ends of what is selected, then touch a label." }),
      element("p", { class: "hint muted by-key" }, element("kbd", { text: "←" }), " ", element("kbd", { text: "→" }), " choose a word, with ", element("kbd", { text: "Shift" }), " more words, ",
        element("kbd", { text: "," }), " ", element("kbd", { text: "." }), " one character less or more, a label's key marks it, ", element("kbd", { text: "Delete" }), " takes marks away."),
    );
    // The whole page: who selects to the end of a line lets go beside the text.
    document.addEventListener("mouseup", () => this.takeMouse());
    document.addEventListener("touchend", (event) => {
      if (text.contains(event.target)) this.takeMouse();
    });
    // The handles of a phone's selection send no event: take it when a label is touched, before the touch ends it.
    place.addEventListener("pointerdown", () => this.takeMouse());
  }

  enable(on) {
    this.enabled = on;
    for (const button of this.place.querySelectorAll("button")) button.disabled = !on;
  }

  show(task) {
    this.text = task.text;
    this.units = boundaries(task.text, "word").filter((unit) => unit.word);
    this.characters = boundaries(task.text, "grapheme");
    this.spans = [];
    this.from = this.to = 0;
    this.askedTwice = false;
    this.draw();
  }

  suggest(value) {
    this.spans = value.map(({ start, end, label }) => ({ start: indexOfPoint(this.text, start), end: indexOfPoint(this.text, end), label }));
    this.draw();
  }

  value() {
    const points = this.spans.map(({ start, end, label }) => ({ start: pointsBefore(this.text, start), end: pointsBefore(this.text, end), label }));
    return points.sort((one, other) => one.start - other.start || one.end - other.end || (one.label < other.label ? -1 : 1));
  }

  words(value) { return value.map(({ label }) => label).join(", ") || "nothing marked"; }

  draw() {
    const edges = new Set([0, this.text.length, this.from, this.to]);
    for (const { start, end } of this.spans) edges.add(start).add(end);
    const sorted = [...edges].sort((one, other) => one - other);
    const pieces = [];
    for (let place = 0; place + 1 < sorted.length; place += 1) {
      const [start, end] = [sorted[place], sorted[place + 1]];
      const within = this.spans.filter((span) => span.start <= start && end <= span.end);
      const piece = element(within.length ? "mark" : "span", { text: this.text.slice(start, end) });
      if (within.length) {
        const top = within.at(-1);
        piece.className = `hue-${this.names.indexOf(top.label) % HUES}`;
        const begun = within.filter((span) => span.start === start).map((span) => span.label);
        // Drawn by the style sheet: what is read out of the text must be the text.
        if (begun.length) piece.dataset.label = begun.join(", ");
      }
      if (this.from <= start && end <= this.to && this.from < this.to) piece.classList.add("cursor");
      pieces.push(piece);
    }
    this.field.replaceChildren(...pieces);
    this.selected.textContent = this.from < this.to ? `Selected: “${this.text.slice(this.from, this.to)}”` : "Nothing selected.";
    this.list.replaceChildren(...this.spans.map((span) => element("li", {},
      element("strong", { class: `hue-${this.names.indexOf(span.label) % HUES}`, dir: "auto", text: span.label }), " ",
      element("span", { dir: "auto", text: `“${this.text.slice(span.start, span.end)}”` }), " ",
      element("button", { type: "button", class: "quiet", text: "Remove", "aria-label": `Remove ${span.label} ${this.text.slice(span.start, span.end)}`, on: { click: () => this.remove(span) } }))));
  }

  select(from, to) {
    this.from = Math.max(0, Math.min(from, to));
    this.to = Math.min(this.text.length, Math.max(from, to));
    this.askedTwice = false;
    this.draw();
    this.field.querySelector(".cursor")?.scrollIntoView({ block: "nearest" });
  }

  move(step, more) {
    if (this.units.length === 0) return;
    const none = this.from >= this.to;
    if (more && !none) {
      const at = step > 0 ? this.units.find((unit) => unit.end > this.to) : this.units.findLast((unit) => unit.end < this.to && unit.start >= this.from);
      if (at) this.select(this.from, at.end);
      return;
    }
    let at;
    if (none) at = step > 0 ? this.units[0] : this.units.at(-1);
    else if (step > 0) at = this.units.find((unit) => unit.start >= this.to) ?? this.units.at(-1);
    else at = this.units.findLast((unit) => unit.end <= this.from) ?? this.units[0];
    this.select(at.start, at.end);
  }

  // One character as readers see it, at the selection's end.
  trim(step) {
    const at = step > 0 ? this.characters.find((one) => one.end > this.to) : this.characters.findLast((one) => one.end < this.to && one.end > this.from);
    if (at) this.select(this.from, at.end);
  }

  mark(label) {
    if (!this.enabled) return;
    let [from, to] = [this.from, this.to];
    while (from < to && /\s/u.test(this.text[from])) from += 1;
    while (from < to && /\s/u.test(this.text[to - 1])) to -= 1;
    if (from >= to) {
      this.say("Select a part of the text first: with the arrow keys, the mouse or a finger.", "warn");
      return;
    }
    const same = this.spans.find((span) => span.start === from && span.end === to && (span.label === label || !this.schema.overlapping));
    const other = this.spans.find((span) => span !== same && span.start < to && from < span.end);
    if (same) same.label = label;
    else if (other && !this.schema.overlapping) {
      this.say(`This overlaps “${this.text.slice(other.start, other.end)}”: take that away first, with Delete.`, "warn");
      return;
    } else this.spans.push({ start: from, end: to, label });
    this.spans.sort((one, next) => one.start - next.start || one.end - next.end);
    this.draw();
  }

  remove(span) {
    if (!this.enabled) return;
    this.spans = this.spans.filter((one) => one !== span);
    this.draw();
  }

  finish() {
    if (!this.enabled) return;
    if (this.spans.length === 0 && !this.askedTwice) {
      this.askedTwice = true;
      this.say("Nothing is marked. Enter again says that there is nothing to mark.", "warn");
      return;
    }
    this.submit(this.value());
  }

  key(event) {
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") this.move(event.key === "ArrowRight" ? 1 : -1, event.shiftKey);
    else if (event.key === "." || event.key === ",") this.trim(event.key === "." ? 1 : -1);
    else if (event.key === "Delete" || event.key === "Backspace") {
      if (this.enabled) this.spans = this.spans.filter((span) => !(span.start < this.to && this.from < span.end));
      this.draw();
    } else if (event.key === "Enter" && (this.buttons.includes(document.activeElement) || !document.activeElement?.matches("button"))) {
      // Also after a label was pressed with the mouse, as for several labels: Space presses it again.
      this.finish();
    } else {
      const button = pressed(event, this.buttons);
      if (!button) return false;
      this.mark(button.dataset.value);
    }
    return true;
  }

  takeMouse() {
    const range = getSelection()?.rangeCount ? getSelection().getRangeAt(0).cloneRange() : null;
    if (!range || range.collapsed) return;
    const [begins, ends] = [this.field.contains(range.startContainer), this.field.contains(range.endContainer)];
    if (!begins && !ends) return;
    if (!begins) range.setStart(this.field, 0);
    if (!ends) range.setEnd(this.field, this.field.childNodes.length);
    if (range.toString() === "") return;
    const before = document.createRange();
    before.setStart(this.field, 0);
    before.setEnd(range.startContainer, range.startOffset);
    const start = before.toString().length;
    const end = start + range.toString().length;
    const first = this.characters.findLast((one) => one.start <= start) ?? this.characters[0];
    const last = this.characters.find((one) => one.end >= end) ?? this.characters.at(-1);
    getSelection().removeAllRanges();
    this.select(first.start, last.end);
  }
}
