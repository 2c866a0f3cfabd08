// What a queue's answers are worth: measured after the page is there, since it may take long. Everything is written through
// textContent and attributes.

import { element } from "./editors.js";
import { call } from "./requests.js";

const MOST_MS = 300000;
const RELIABLE = 0.8;
const TENTATIVE = 0.667;
const SVG = "http://www.w3.org/2000/svg";
const MEASURES = {
  krippendorff_alpha_nominal: "Krippendorff's alpha",
  krippendorff_alpha_ordinal: "Krippendorff's alpha, steps in order",
  krippendorff_alpha_interval: "Krippendorff's alpha, steps equally far apart",
  krippendorff_alpha_label_sets: "Krippendorff's alpha, all labels of a text together",
  fleiss_kappa: "Fleiss' kappa",
  span_f1_exact: "Spans marked by another too, exactly (F1)",
  span_f1_overlap: "Spans marked by another too, in part (F1)",
  gamma: "Gamma, by the best alignment of spans",
  none: "No measure",
};

const byId = (id) => document.getElementById(id);
const section = byId("quality");
const { queue } = section.dataset;
const names = JSON.parse(section.dataset.names);
const nameOf = (id) => names[id] ?? id;
const percent = (share) => `${(100 * share).toFixed(0)}\u00a0%`;
const count = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, " ");

function inWords(measure) {
  const [kind, label] = measure.split(": ", 2);
  return label === undefined ? MEASURES[measure] ?? measure : `Krippendorff's alpha, ${label} or not`;
}

function drawn(name, given) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
  return made;
}

// A share from 0 to 1 with its interval.
function bar(value, low, high) {
  const at = (share) => `${(100 * Math.min(1, Math.max(0, share))).toFixed(2)}%`;
  const made = drawn("svg", { class: "share", width: "100%", height: 14, "aria-hidden": "true" });
  made.append(
    drawn("rect", { class: "track", width: "100%", height: 14, rx: 3 }),
    drawn("rect", { class: "measured", width: at(value), height: 14, rx: 3 }),
  );
  if (low !== null && high !== null) {
    made.append(drawn("line", { class: "interval", x1: at(low), x2: at(high), y1: 7, y2: 7 }));
    for (const end of [low, high]) made.append(drawn("line", { class: "interval", x1: at(end), x2: at(end), y1: 3, y2: 11 }));
  }
  return made;
}

function verdict(one) {
  if (!one.measure.startsWith("krippendorff") || one.value === null) return "";
  const surely = one.low ?? one.value;
  if (surely >= RELIABLE) return "reliable";
  if ((one.high ?? one.value) < TENTATIVE) return "too low to conclude anything: mend the guidelines";
  if (surely >= TENTATIVE) return "good for tentative conclusions";
  return "not known well enough: more texts with two answers would tell";
}

function showAgreement(found) {
  const rows = found.agreement.map((one) => {
    const row = element("tr", {}, element("th", { scope: "row", class: "wrap", text: inWords(one.measure) }));
    if (one.value === null) {
      row.append(element("td", { class: "wrap muted", colspan: 3, text: `none: ${one.reason}` }));
      return row;
    }
    const interval = one.low === null ? "" : ` (${one.low.toFixed(2)} to ${one.high.toFixed(2)})`;
    const value = element("td", { class: "wrap", "data-name": "agreement" }, element("strong", { text: one.value.toFixed(2) }), interval);
    value.append(bar(one.value, one.low, one.high));
    const words = one.low === null && one.reason ? `no interval: ${one.reason}` : verdict(one);
    row.append(
      value,
      element("td", { class: "number", "data-name": "texts with two answers", text: count(one.num_items) }),
      element("td", { class: "wrap", text: words }),
    );
    return row;
  });
  byId("agreement").tBodies[0].replaceChildren(...rows);
  byId("agreement").hidden = false;
  const told = [];
  if (found.mean_kappa !== null) told.push(`Cohen's kappa is ${found.mean_kappa.toFixed(2)} in the mean of all pairs of annotators.`);
  const [worst] = found.pairs.filter((pair) => pair.kappa !== null).sort((a, b) => a.kappa - b.kappa);
  if (worst && found.pairs.length > 1) {
    told.push(`${nameOf(worst.annotator_id)} and ${nameOf(worst.other_id)} agree least: ${worst.kappa.toFixed(2)} over ${count(worst.num_items)} texts.`);
  }
  // A majority's share of the votes is no probability.
  if (found.method !== null && found.method !== "majority" && found.mean_confidence !== null) {
    told.push(`The consensus, by ${found.method.replaceAll("_", " ")}, is right with a probability of ${(100 * found.mean_confidence).toFixed(1)}\u00a0% on average.`);
  }
  byId("pairs").textContent = told.join(" ");
}

function showAnnotator(row, one) {
  const cell = (kind) => row.querySelector(`[data-of="${kind}"]`);
  cell("agrees").textContent = one.agreement_with_others === null ? "–" : percent(one.agreement_with_others);
  cell("seconds").textContent = one.median_seconds === null ? "–" : one.median_seconds.toFixed(1);
  if (one.accuracy === null) {
    cell("right").textContent = one.num_shared === 0 ? "not known: nobody else answered the same texts" : "not known";
  } else {
    cell("right").replaceChildren(`${percent(one.accuracy)} (${percent(one.low)} to ${percent(one.high)})`, bar(one.accuracy, one.low, one.high));
  }
  const change = one.change === null ? "–" : `${one.change < 0 ? "−" : "+"}${Math.abs(100 * one.change).toFixed(0)} points`;
  cell("change").replaceChildren(change);
  if (one.drifts) cell("change").append(" ", element("strong", { class: "drifts", text: one.change < 0 ? "worse" : "better" }));
}

async function measure() {
  byId("measure").hidden = true;
  byId("measuring").textContent = "Measuring…";
  section.dataset.state = "measuring";
  const answer = await call("GET", `/queues/${queue}/agreement`, undefined, MOST_MS);
  if (!answer.ok) {
    const why = answer.refused ? answer.message : { offline: "the service did not answer", busy: "the service is busy" }[answer.why] ?? "you are logged out";
    byId("measuring").textContent = `Not measured: ${why}.`;
    byId("measure").hidden = false;
    section.dataset.state = "failed";
    return;
  }
  byId("measuring").textContent = "";
  showAgreement(answer.body);
  for (const one of answer.body.annotators) {
    const row = document.querySelector(`#annotators [data-annotator="${CSS.escape(one.annotator_id)}"]`);
    if (row) showAnnotator(row, one);
  }
  section.dataset.state = "measured";
}

byId("measure").addEventListener("click", measure);
measure();
