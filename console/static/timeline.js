// A saga's attempts over time: forward above the line of a step, its undo mirrored below.

import { s } from "./dom.js";
import { duration } from "./words.js";

const W = 1080, LABEL = 178, RIGHT = 16, ROW = 46, TOP = 26;
const TURNS = { compensation_started: "turns back", go_given: "GO", saga_parked: "parked",
  saga_resumed: "sent on", recovered: "taken over", step_skipped: "skipped", saga_completed: "completed",
  saga_compensated: "undone" };

export function timeline(rows, now) {
  const attempts = rows.filter((row) => row.kind === "attempt");
  const names = [...new Set(attempts.map((row) => row.step))];
  const from = rows.length ? rows[0].at_ms : now;
  const to = Math.max(from + 1, now, ...rows.map((row) => row.at_ms + (row.took_ms ?? 0)));
  const x = (ms) => LABEL + (W - LABEL - RIGHT) * (ms - from) / (to - from);
  const height = TOP + Math.max(1, names.length) * ROW + 24;
  const told = `${attempts.length} attempts of ${names.length} steps in ${duration(to - from)}; the table below has each`;
  const svg = s("svg", { viewBox: `0 0 ${W} ${height}`, role: "img", "aria-label": told, class: "timeline" });
  names.forEach((name, i) => {
    const middle = TOP + i * ROW + ROW / 2;
    svg.append(s("line", { class: "grid", x1: LABEL, x2: W - RIGHT, y1: middle, y2: middle }),
      s("text", { class: "label", x: LABEL - 12, y: middle + 4, "text-anchor": "end" }, name.replaceAll("_", " ")));
  });
  for (let part = 0; part <= 4; part += 1) {
    const at = LABEL + (W - LABEL - RIGHT) * part / 4;
    svg.append(s("text", { class: "axis", x: at, y: height - 6, "text-anchor": part === 4 ? "end" : part ? "middle" : "start" },
      `+${duration((to - from) * part / 4)}`));
  }
  const before = new Map();
  for (const row of attempts) {
    const undo = row.direction === "compensation";
    const middle = TOP + names.indexOf(row.step) * ROW + ROW / 2;
    const y = undo ? middle + 2 : middle - 16;
    const end = row.took_ms === null ? to : row.at_ms + row.took_ms;
    const lane = `${row.step}/${undo}`;
    if (before.has(lane)) {
      svg.append(s("line", { class: "wait", x1: x(before.get(lane)), x2: x(row.at_ms), y1: y + 7, y2: y + 7 }));
    }
    before.set(lane, end);
    const kind = row.answer || "open";
    svg.append(s("rect", { class: `bar ${kind}`, x: x(row.at_ms), y, width: Math.max(3, x(end) - x(row.at_ms)), height: 14, rx: 3 },
      s("title", {}, `${row.operation}, attempt ${row.attempt}: ${kind}${row.code ? ` ${row.code}` : ""}`
        + `${row.took_ms === null ? "" : ` in ${duration(row.took_ms)}`}`)));
  }
  let last = -Infinity, level = 0;
  for (const row of rows.filter((one) => one.kind === "turn" && TURNS[one.event])) {
    const at = x(row.at_ms);
    // Labels that would meet stand in two lines.
    level = at - last < 76 ? 1 - level : 0;
    last = at;
    svg.append(s("line", { class: "turn", x1: at, x2: at, y1: TOP - 2, y2: height - 22 }),
      s("text", { class: "turn", x: Math.min(at, W - RIGHT), y: 10 + level * 11,
        "text-anchor": at > W - 80 ? "end" : at < LABEL + 40 ? "start" : "middle" }, TURNS[row.event]));
  }
  return svg;
}
