// Chooses the page by the address after #, and keeps what every page shows: engine, parked, theme.

import { follow, get, Problem } from "./api.js";
import { h, notice, replace } from "./dom.js";
import { overview } from "./overview.js";
import { audit, engine } from "./engine.js";
import { parked } from "./parked.js";
import { saga } from "./saga.js";
import { sagas } from "./sagas.js";

const PAGES = { "": overview, sagas, saga, parked, engine, audit };
const LOOKS_MAX = 300;

// What the pages are given: the looks of the last minutes, and who wants to hear of new ones.
export const pulse = { looks: [], heard: new Set() };

let leaving = new AbortController();

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  pulse.heard.clear();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const main = document.getElementById("main");
  for (const link of document.querySelectorAll("nav a")) {
    const own = link.getAttribute("href").replace(/^#\/?/, "");
    const here = own === name || (own === "sagas" && name === "saga");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const page = PAGES[name];
  if (!page) return replace(main, h("h1", {}, "There is no such page"));
  try {
    await page(main, {
      pulse, signal, rest: rest.map(decodeURIComponent), query: new URLSearchParams(query ?? ""),
    });
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    replace(main, h("h1", {}, "Not to be shown"), h("p", { class: "empty" }, error.message));
  }
  if (!signal.aborted) {
    const title = main.querySelector("h1");
    document.title = title ? `${title.textContent} · raysaga` : "raysaga";
  }
}

function told(kind, looks) {
  if (kind !== "look") return;
  pulse.looks.push(...looks.filter((look) => look.at_ms > (pulse.looks.at(-1)?.at_ms ?? 0)));
  pulse.looks.splice(0, pulse.looks.length - LOOKS_MAX);
  const look = pulse.looks.at(-1);
  const state = document.getElementById("engine-state");
  state.className = `engine-state ${look.engine_running ? "good" : "bad"}`;
  const text = look.engine_running ? "engine runs" : "engine does not answer";
  if (state.textContent !== text) state.textContent = text;
  const badge = document.getElementById("parked-count");
  badge.hidden = !look.parked;
  if (badge.textContent !== String(look.parked)) {
    badge.textContent = look.parked;
    badge.setAttribute("aria-label", `${look.parked} wait for you`);
  }
  for (const heard of pulse.heard) heard(look);
}

function lost() {
  const state = document.getElementById("engine-state");
  state.className = "engine-state bad";
  state.textContent = "server does not answer";
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("raysaga-theme", next);
}

const chosen = localStorage.getItem("raysaga-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
document.getElementById("theme").addEventListener("click", theme);
document.getElementById("search").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = new FormData(event.target).get("name").trim();
  if (!name) return;
  try {
    const found = await get(`/find/${encodeURIComponent(name)}`);
    location.hash = `#/saga/${encodeURIComponent(found.saga_id)}`;
    event.target.reset();
  } catch (error) {
    notice(error.message, "bad");
  }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    document.getElementById("search-text").focus();
  }
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
addEventListener("hashchange", async () => {
  await show();
  document.getElementById("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});
show();
follow("/events", new AbortController().signal, told, lost);
