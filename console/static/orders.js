// The orders an operator can give, each asked for with what it will do.

import { post } from "./api.js";
import { h, notice } from "./dom.js";

const ORDERS = {
  retry: {
    text: "Retry", title: "Send it on", needsNote: false,
    what: () => "It goes on the way it faces, with fresh attempts.",
  },
  skip: {
    text: "Skip…", title: "Go on without what holds it", needsNote: true,
    what: (row) => `It goes on without ${row.step || "the step that holds it"}. What that did, or may have done, `
      + "stays as it is: mend it by hand, and say so here.",
  },
  force: {
    text: "Force back…", title: "Turn it back", needsNote: true,
    what: () => "Everything that can be undone is undone, for good.",
  },
  cancel: {
    text: "Cancel…", title: "Have it undone", needsNote: false,
    what: () => "It turns back and is undone, unless it is beyond the point of no return.",
  },
};

export function orderButtons(row, names, after) {
  return names.filter((name) => ORDERS[name]).map((name) =>
    h("button", {
      type: "button", class: name === "retry" ? "main" : name === "force" ? "danger" : "",
      "aria-label": `${ORDERS[name].text.replace("…", "")} ${row.saga_id}`,
      onclick: () => ask(name, row, after),
    }, ORDERS[name].text));
}

function ask(name, row, after) {
  const order = ORDERS[name];
  const note = h("textarea", { id: "note", rows: 3, maxlength: 1000, required: order.needsNote });
  const dialog = h("dialog", { "aria-labelledby": "order-title" },
    h("form", { method: "dialog" },
      h("h2", { id: "order-title" }, order.title),
      h("p", {}, h("code", {}, row.saga_id)),
      h("p", {}, order.what(row)),
      h("label", { for: "note" }, order.needsNote ? "Why (kept for ever)" : "Why, if you like to say (kept for ever)"),
      note,
      h("div", { class: "buttons" },
        h("button", { value: "give", class: name === "force" ? "danger" : "main" }, order.title),
        h("button", { value: "", formnovalidate: true }, "Leave it"))));
  dialog.addEventListener("close", async () => {
    dialog.remove();
    if (dialog.returnValue !== "give") return;
    try {
      await post(`/sagas/${encodeURIComponent(row.saga_id)}/${name}`, { note: note.value.trim() });
      notice(`${row.saga_id}: ${name} is on disk`);
    } catch (error) {
      notice(`${row.saga_id}: ${error.message}`, "bad");
    }
    after();
  });
  document.body.append(dialog);
  dialog.showModal();
}
