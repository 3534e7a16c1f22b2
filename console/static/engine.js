// Who does it: shards and participants. And who ordered what.

import { get } from "./api.js";
import { chip, h, meter, number, redraw, replace, sagaLink, table } from "./dom.js";
import { bytes, count, duration, instant } from "./words.js";

const REFRESH_MS = 1500, ORDERS = 200;

export async function engine(main, { signal }) {
  const shards = h("div"), participants = h("div");
  replace(main, h("h1", {}, "Engine"),
    h("section", { class: "card" }, h("h2", {}, "Shards"), shards),
    h("section", { class: "card" }, h("h2", {}, "Participants, as each shard sees them"), participants));
  const refresh = async () => {
    const told = await get("/engine");
    if (signal.aborted) return;
    redraw(shards, table("Shards",
      ["Shard", "Owner", "Epoch", "In memory", "Before the disk", "Behind", "Commits", "Records a commit",
        "Commit, 99 of 100", "Recovered", "Journal"],
      told.shards.map((row) => [row.shard, number(`process ${row.pid}`), number(row.epoch), number(count(row.in_memory)),
        number(count(row.queued)), number(duration(row.overdue_ms)), number(count(row.commits)),
        number((row.entries / Math.max(row.commits, 1)).toFixed(1)), number(duration(row.commit_p99_ms)),
        number(count(row.recovered)),
        h("td", {}, meter(row.map_used / row.map_cap, "Of the journal's cap"),
          ` ${bytes(row.map_used)} of ${bytes(row.map_cap)}`)]),
      "The engine does not answer. What is on disk can be looked at all the same."));
    redraw(participants, table("Participants",
      ["Name", "Shard", "Circuit", "In flight", "Waiting", "Sent", "No answer", "Median", "95 of 100"],
      told.participants.map((row) => [row.name, row.shard, chip(row.circuit),
        h("td", {}, meter(row.in_flight / row.in_flight_max, `${row.in_flight} of ${row.in_flight_max}`),
          ` ${count(row.in_flight)}`),
        number(count(row.queued)), number(count(row.sent)), number(count(row.timeouts)),
        number(duration(row.p50_ms)), number(duration(row.p95_ms))]),
      told.running ? "No participant was called yet." : "The engine does not answer."));
  };
  await refresh();
  const timer = setInterval(() => refresh().catch(() => {}), REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

export async function audit(main, { signal }) {
  const list = h("div");
  replace(main, h("h1", {}, "Audit"),
    h("section", { class: "card" }, h("p", { class: "dim" },
      "What operators have ordered, by this page, the command line or a program. Each saga's own history keeps "
      + "what had an effect on it."), list));
  const { rows } = await get(`/orders-given?limit=${ORDERS}`);
  if (signal.aborted) return;
  replace(list, table("Orders given", ["When (UTC)", "Who", "Order", "Saga", "Why"],
    rows.map((row) => [instant(row.at_ms), row.by, chip("order", row.order), sagaLink(row.saga_id), row.note]),
    "No order was given yet."));
}
