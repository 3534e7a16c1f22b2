// One saga: where it stands, how it came there, and what can be ordered.

import { follow, get } from "./api.js";
import { phases, steps } from "./diagram.js";
import { chip, h, number, replace, table } from "./dom.js";
import { orderButtons } from "./orders.js";
import { timeline } from "./timeline.js";
import { duration, exact, facts, instant, reason } from "./words.js";

const OPEN = ["running", "forward_only", "compensating"];
const UNTOLD = ["kind", "event", "at_ms", "step", "code", "message", "definition_hash", "fingerprint", "scope",
  "definition_name", "key", "deadline_at_ms", "input"];
const PASSED = { go_given: "forward_only", compensation_started: "compensating" };

export async function saga(main, { signal, rest }) {
  const path = `/sagas/${encodeURIComponent(rest[0] ?? "")}`;
  const head = h("div"), line = h("div"), states = h("div"), recipe = h("div"), attempts = h("div"), raw = h("div");
  const [machine, definitions] = await Promise.all([get("/diagrams/phases"), get("/definitions")]);
  let refreshing = null, again = false;

  const draw = async () => {
    const status = await get(path);
    const known = !(status.pruned || status.flaw);
    const [told, history] = known
      ? await Promise.all([get(`${path}/timeline`), get(`${path}/history`)]) : [{ rows: [] }, { rows: [] }];
    if (signal.aborted) return;
    const isOpen = OPEN.includes(status.phase);
    replace(head, heading(status, history.rows, () => refresh()));
    replace(line, told.rows.length ? timeline(told.rows, isOpen ? Date.now() : 0)
      : h("p", { class: "empty" }, status.flaw || "Its records were pruned; only its end is remembered."));
    replace(states, phases(machine, visited(history.rows, status.phase), status.phase));
    const found = definitions.rows.find((row) => row.definition.name === status.definition);
    replace(recipe, found ? steps(found.diagram, Object.fromEntries(status.steps.map((one) => [one.name, one.status])))
      : stepTable(status));
    replace(attempts, attemptTable(told.rows));
    replace(raw, history.rows.map((row) => h("li", {}, h("time", {}, exact(row.at_ms)), " ",
      h("b", {}, row.event), " ", h("span", { class: "dim" }, facts(row, ["event", "at_ms"])))));
  };
  // One drawing at a time, and one more for whatever came meanwhile.
  const refresh = async () => {
    if (refreshing) { again = true; return refreshing; }
    refreshing = draw().finally(() => {
      refreshing = null;
      if (again) { again = false; refresh(); }
    });
    return refreshing;
  };

  await refresh();
  replace(main, head,
    h("section", { class: "card" }, h("h2", {}, "Timeline"), h("p", { class: "legend" },
      ["succeeded", "refused", "failed", "undone", "open"].map((kind) => h("span", { class: kind }, h("i"), kind)),
      h("span", { class: "dim" }, "forward above each line, its undo below")), line),
    h("div", { class: "two uneven" },
      h("section", { class: "card" }, h("h2", {}, "State"), states),
      h("section", { class: "card" }, h("h2", {}, "Steps"), recipe)),
    h("section", { class: "card" }, h("h2", {}, "Attempts and turning points"), attempts),
    h("section", { class: "card" }, h("details", {}, h("summary", {}, "History, event by event"), h("ol", { class: "raw" }, raw))));
  const onward = () => follow(`${path}/events`, signal, (kind) => {
    refresh().catch(() => {});
    // Parked is no end: whoever sends it on, it is followed again.
    if (kind === "end") setTimeout(() => { if (!signal.aborted && document.querySelector(".buttons [aria-label]")) onward(); }, 1500);
  });
  onward();
}

function heading(status, history, refresh) {
  const isOpen = OPEN.includes(status.phase);
  const names = isOpen && !status.pruned ? ["cancel"] : status.ways_on;
  const ended = status.phase === "completed" || status.phase === "compensated";
  const took = ended && status.accepted_at_ms ? duration(status.changed_at_ms - status.accepted_at_ms) : "";
  const key = history.find((row) => row.event === "accepted")?.key;
  const more = [
    ["Definition", status.definition], ["Key", key], ["Accepted", instant(status.accepted_at_ms)],
    [ended ? "Took" : "Last change", ended ? took : instant(status.changed_at_ms)],
    ["Deadline", isOpen ? instant(status.deadline_at_ms) : ""],
    ["Stands all the same", status.remaining?.join(", ")], ["Trace", status.trace_id],
  ].filter(([, value]) => value);
  return h("div", { class: "heading" },
    h("div", { class: "title" }, h("h1", { class: "mono" }, status.saga_id), chip(status.phase),
      h("div", { class: "buttons" }, orderButtons(status, names, refresh))),
    status.code && h("p", { class: "why" }, h("strong", {}, reason(status.code, status.step)),
      status.message ? `: ${status.message}` : ""),
    h("dl", { class: "facts" }, more.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}

function visited(history, now) {
  const found = ["running"];
  for (const row of history) {
    if (PASSED[row.event]) found.push(PASSED[row.event]);
    if (row.event === "saga_parked") {
      const facing = found.at(-1);
      found.push(facing === "compensating" ? "parked_backward" : facing === "forward_only" ? "parked_forward" : "parked_running", facing);
    }
  }
  return [...found, now];
}

function stepTable(status) {
  return table("Steps", ["Step", "Participant", "Status", "Attempts", "Of the undo"], status.steps.map((one) =>
    [one.name, one.participant, chip(one.status), number(one.attempts), number(one.undo_attempts)]), "Its steps are not known.");
}

function attemptTable(rows) {
  const from = rows[0]?.at_ms ?? 0;
  return table("Attempts and turning points", ["After", "Step", "What", "Attempt", "Answer", "Took", "Why"],
    rows.map((row) => row.kind === "attempt"
      ? [number(duration(row.at_ms - from)), row.step, `${row.operation}${row.direction === "compensation" ? " (undo)" : ""}`,
        number(row.attempt), chip(row.answer || "open"), number(duration(row.took_ms)),
        [row.code, row.message].filter(Boolean).join(": ")]
      : [number(duration(row.at_ms - from)), row.step ?? "", h("b", {}, row.event.replaceAll("_", " ")), "", "", "",
        [[row.code, row.message].filter(Boolean).join(": "), facts(row, UNTOLD)].filter(Boolean).join("  ")]),
    "Nothing is known of its attempts.");
}
