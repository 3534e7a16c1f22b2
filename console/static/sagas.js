// The list: filters that are part of the address, newest first, and as far back as one goes on.
// Where few sagas meet the filters it looks on by itself, until there is a screenful or no more.

import { get } from "./api.js";
import { chip, h, notice, number, redraw, replace, sagaLink, table } from "./dom.js";
import { age, count, duration, instant, reason } from "./words.js";

const STATES = [["", "any"], ["open", "open"], ["parked", "parked"], ["running", "running"],
  ["forward_only", "forward only"], ["compensating", "compensating"], ["completed", "completed"],
  ["compensated", "undone"]];
const AGES = [["", "any"], ["60", "a minute"], ["600", "10 minutes"], ["3600", "an hour"], ["86400", "a day"]];
const FIELDS = ["state", "reason", "step", "text", "older_than_s", "definition"];
const PAGE = 50, REFRESH_MS = 2000;

export async function sagas(main, { signal, query }) {
  const form = h("form", { class: "filters", "aria-label": "Filters" },
    field("State", select("state", STATES, query)),
    field("Reason", input("reason", query, "such as PAYMENT_DECLINED")),
    field("Step", input("step", query, "such as process_payment")),
    field("Customer or item", input("text", query, "any value of the input")),
    field("Older than", select("older_than_s", AGES, query)),
    field("Definition", input("definition", query, "such as order")),
    h("div", { class: "buttons" }, h("button", { class: "main" }, "Filter"),
      h("a", { class: "button", href: "#/sagas" }, "Clear")));
  const list = h("div"), far = h("p", { class: "far", role: "status" });
  const more = h("button", { type: "button", hidden: true }, "Look further");
  replace(main, h("h1", {}, "Sagas"), form, h("section", { class: "card" }, list, far, more));

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value.trim()) given.set(name, value.trim());
    const hash = given.size ? `#/sagas?${given}` : "#/sagas";
    if (location.hash !== hash) location.hash = hash;
    else if (!looking) restart();
  });

  let rows = [], cursor = null, looked = 0, pages = 0, looking = false;
  const wanted = new URLSearchParams({ limit: PAGE });
  for (const name of FIELDS) if (query.get(name)) wanted.set(name, query.get(name));

  const draw = () => {
    redraw(list, table("Sagas", ["Saga", "State", "Reason", "Accepted", "Took"], rows.map((row) => [
      sagaLink(row.saga_id), chip(row.phase), reason(row.reason, row.step),
      h("time", { title: instant(row.accepted_at_ms) }, age(row.accepted_at_ms)),
      number(["completed", "compensated"].includes(row.phase)
        ? duration(row.changed_at_ms - row.accepted_at_ms) : "")]),
    cursor ? "None among those looked at so far." : "No saga meets these filters."));
    const text = `${count(rows.length)} shown, ${count(looked)} looked at${cursor ? "" : ": that is all"}.`;
    if (far.textContent !== text) far.textContent = text;
    more.hidden = !cursor;
    more.textContent = looking ? "Stop looking" : "Look further";
  };
  const page = async () => {
    const given = new URLSearchParams(wanted);
    if (cursor) given.set("cursor", cursor);
    const found = await get(`/sagas?${given}`);
    if (signal.aborted) return;
    rows = cursor ? [...rows, ...found.sagas] : found.sagas;
    looked = cursor ? looked + found.looked_count : found.looked_count;
    cursor = found.cursor;
    pages += 1;
  };
  const lookOn = async (enough) => {
    looking = true;
    try {
      while (looking && cursor && rows.length < enough) {
        draw();
        await page();
        if (signal.aborted) return;
      }
    } catch (error) {
      notice(error.message, "bad");
    } finally {
      looking = false;
    }
    draw();
  };
  const restart = async () => {
    rows = []; cursor = null; looked = 0; pages = 0;
    await page();
    if (!signal.aborted) lookOn(PAGE);
  };
  more.addEventListener("click", () => {
    if (looking) looking = false;
    else lookOn(rows.length + PAGE);
  });
  await restart();
  // Only the first page moves by itself: who reads further back is not interrupted.
  const timer = setInterval(() => {
    if (pages > 1 || looking || wanted.has("text")) return;
    cursor = null; pages = 0;
    page().then(draw).catch(() => {});
  }, REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

function field(name, control) {
  const id = `filter-${control.name}`;
  control.id = id;
  return h("div", {}, h("label", { for: id }, name), control);
}

function input(name, query, placeholder) {
  return h("input", { name, value: query.get(name) ?? "", placeholder, maxlength: 200, spellcheck: "false" });
}

function select(name, choices, query) {
  return h("select", { name }, choices.map(([value, text]) =>
    h("option", { value, selected: value === (query.get(name) ?? "") }, text)));
}
