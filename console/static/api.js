// Talks to the server: JSON with entity tags, orders, and streams that come back by themselves.

import { h } from "./dom.js";

const TOKEN = "raysaga-token";
const known = new Map();
const KNOWN_MAX = 200;

export class Problem extends Error {
  constructor(told) {
    super(told.detail || told.title || "the server does not answer");
    this.code = told.code;
    this.status = told.status;
  }
}

function headers(more) {
  const token = sessionStorage.getItem(TOKEN);
  return { ...(token ? { Authorization: `Bearer ${token}` } : {}), ...more };
}

async function send(path, options) {
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: headers(options.headers), redirect: "error" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem({ detail: "the server does not answer", code: "UNREACHABLE" });
    }
    if (answer.status === 401) {
      await askForToken();
      continue;
    }
    if (answer.ok || answer.status === 304) return answer;
    throw new Problem(await answer.json().catch(() => ({ title: answer.statusText, status: answer.status })));
  }
}

export async function get(path) {
  const before = known.get(path);
  const answer = await send(path, { headers: before ? { "If-None-Match": before.tag } : {} });
  if (answer.status === 304) return before.body;
  const body = await answer.json();
  const tag = answer.headers.get("etag");
  if (tag) {
    known.delete(path);
    known.set(path, { tag, body });
    if (known.size > KNOWN_MAX) known.delete(known.keys().next().value);
  }
  return body;
}

export async function post(path, body) {
  const answer = await send(path, {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  });
  return answer.json();
}

// Calls `told(kind, data)` for each event until `signal` aborts or the kind is `end`. An
// EventSource cannot carry a token; a token in an address would end up in logs.
export async function follow(path, signal, told, lost = () => {}) {
  let last = "";
  while (!signal.aborted) {
    try {
      const answer = await send(path, { signal, headers: last ? { "Last-Event-ID": last } : {} });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const fields = Object.fromEntries(block.split("\n").map((line) => {
            const at = line.indexOf(": ");
            return [line.slice(0, at), line.slice(at + 2)];
          }));
          if (fields.id) last = fields.id;
          if (fields.data === undefined) continue;
          told(fields.event, JSON.parse(fields.data));
          if (fields.event === "end") return;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status === 404) return;
    }
    if (signal.aborted) return;
    lost();
    await new Promise((resume) => setTimeout(resume, 2000));
  }
}

let asking = null;

function askForToken() {
  asking ??= new Promise((resume) => {
    const field = h("input", { id: "token", type: "password", required: true, autocomplete: "off" });
    const dialog = h("dialog", { "aria-labelledby": "token-title" },
      h("form", { method: "dialog" },
        h("h2", { id: "token-title" }, "This server asks who you are"),
        h("p", {}, "Give a token with the right to read; to change something, one with the right to operate. ",
          "It is kept until this tab is closed."),
        h("label", { for: "token" }, "Token"), field,
        h("div", { class: "buttons" }, h("button", { class: "main" }, "Go on"))));
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN, field.value.trim());
      dialog.remove();
      asking = null;
      resume();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}
