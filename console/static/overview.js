// What goes on now: how much, how fast, how it ends; who takes part.

import { get } from "./api.js";
import { areaChart, lineChart, outcomeBar } from "./charts.js";
import { chip, h, number, redraw, replace, sagaLink, table } from "./dom.js";
import { age, count, duration, rate, reason } from "./words.js";

const NEWEST = 8;
const REFRESH_MS = 2000;

export async function overview(main, { pulse, signal }) {
  const tiles = h("div", { class: "tiles" });
  const flow = h("div", { class: "chart" }), times = h("div", { class: "chart" });
  const ends = h("div"), newest = h("div"), services = h("div");
  replace(main,
    h("h1", {}, "Overview"),
    tiles,
    h("div", { class: "two" },
      h("section", { class: "card" }, h("h2", {}, "Sagas a second"), flow),
      h("section", { class: "card" }, h("h2", {}, "How long they take"), times)),
    h("section", { class: "card" }, h("h2", {}, "How they ended"), ends),
    h("div", { class: "two" },
      h("section", { class: "card" }, h("h2", {}, "Newest"), newest),
      h("section", { class: "card" }, h("h2", {}, "Participants"), services)));

  const draw = (look) => {
    const counts = look.counts;
    const latest = pulse.looks.findLast((one) => one.p50_ms !== null && one.p50_ms !== undefined);
    replace(tiles,
      tile("Under way", count(look.open - look.parked), `${rate(look.begun_per_s)} begin a second`),
      tile("Completed", count(counts.completed), `${rate(look.completed_per_s)} a second`, "completed"),
      tile("Undone", count(counts.compensated), `${rate(look.compensated_per_s)} a second`, "compensated"),
      tile("Parked", count(look.parked), look.parked ? "wait for you" : "nothing waits for you",
        look.parked ? "parked" : "", "#/parked"),
      tile("Median time", latest ? duration(latest.p50_ms) : "–",
        latest ? `95 of 100 within ${duration(latest.p95_ms)}` : "none has ended lately"));
    replace(flow, areaChart(pulse.looks, [
      { name: "completed", value: (one) => one.completed_per_s, kind: "completed" },
      { name: "undone", value: (one) => one.compensated_per_s, kind: "compensated" },
    ], rate));
    replace(times, lineChart(pulse.looks, [
      { name: "median", value: (one) => one.p50_ms, kind: "p50" },
      { name: "95 of 100", value: (one) => one.p95_ms, kind: "p95" },
    ], duration));
    replace(ends, outcomeBar([
      ["completed", "completed", counts.completed],
      ["compensated", "undone", counts.compensated],
      ["parked", "parked", look.parked],
      ["running", "under way", look.open - look.parked],
    ]));
  };

  const refresh = async () => {
    const [list, told] = await Promise.all([get(`/sagas?limit=${NEWEST}`), get("/engine")]);
    if (signal.aborted) return;
    redraw(newest, table("Newest sagas", ["Saga", "State", "Reason", "Accepted"],
      list.sagas.map((row) => [sagaLink(row.saga_id), chip(row.phase), reason(row.reason, row.step),
        h("time", {}, age(row.accepted_at_ms))]), "No saga was submitted yet."));
    redraw(services, table("Participants", ["Name", "Circuit", "In flight", "Waiting", "Median"],
      told.participants.map((row) => [row.name, chip(row.circuit), number(count(row.in_flight)),
        number(count(row.queued)), number(duration(row.p50_ms))]),
      told.running ? "No participant was called yet." : "The engine does not answer."));
  };

  pulse.heard.add(draw);
  if (pulse.looks.length) draw(pulse.looks.at(-1));
  await refresh();
  const timer = setInterval(() => refresh().catch(() => {}), REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

function tile(name, value, more, kind = "", href = null) {
  const inside = [h("span", { class: "name" }, name), h("strong", {}, value), h("span", { class: "more" }, more)];
  return href ? h("a", { class: `tile ${kind}`, href }, inside) : h("div", { class: `tile ${kind}` }, inside);
}
