// The inbox: what waits for a person, why, what stands meanwhile, and the ways on.

import { get } from "./api.js";
import { chip, h, redraw, replace, sagaLink } from "./dom.js";
import { orderButtons } from "./orders.js";
import { age, count, instant, reason } from "./words.js";

const ROWS = 100;

export async function parked(main, { pulse, signal }) {
  const inbox = h("div", { class: "inbox" }), told = h("p", { class: "far", role: "status" });
  replace(main, h("h1", {}, "Parked"), told, inbox);
  let shown = "";
  const refresh = async () => {
    const { rows } = await get(`/parked?limit=${ROWS}`);
    const now = JSON.stringify(rows.map((row) => [row.saga_id, row.phase, row.changed_at_ms]));
    if (signal.aborted || now === shown) return;
    shown = now;
    const all = Math.max(rows.length, pulse.looks.at(-1)?.parked ?? 0);
    told.textContent = all === 0 ? "" : all === 1 ? "1 saga waits for you."
      : `${count(all)} sagas wait for you.${all > rows.length ? ` Here are the newest ${rows.length}.` : ""}`;
    redraw(inbox, rows.length ? rows.map((row) => letter(row, refresh))
      : h("div", { class: "card good-news" }, h("p", {}, "Nothing waits for you.")));
  };
  await refresh();
  let known = pulse.looks.at(-1)?.parked;
  pulse.heard.add((look) => {
    if (look.parked !== known) refresh().catch(() => {});
    known = look.parked;
  });
}

function letter(row, refresh) {
  return h("article", { class: "card letter", "aria-label": row.saga_id },
    h("header", {}, h("h2", {}, sagaLink(row.saga_id)), chip(row.phase),
      h("span", { class: "dim", title: instant(row.changed_at_ms) }, `for ${age(row.changed_at_ms).replace(" ago", "")}`)),
    h("p", {}, h("strong", {}, reason(row.code, row.step)), row.message ? `: ${row.message}` : ""),
    row.flaw && h("p", { class: "bad" }, row.flaw),
    h("dl", {}, h("dt", {}, "Stands meanwhile, or may stand"),
      h("dd", {}, row.remaining?.length ? row.remaining.map((step) => h("span", { class: "tag" }, step)) : "nothing")),
    h("div", { class: "buttons" }, orderButtons(row, row.ways_on, refresh),
      !row.ways_on.length && h("span", { class: "dim" }, "No order would be taken: see the guide on recovery.")));
}
