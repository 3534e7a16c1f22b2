// Makes elements; text is only ever set as text, so that nothing a saga holds becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function s(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child));
  return element;
}

// As `replace`, for what is drawn again and again: who has the keyboard on a link keeps it there,
// and what somebody is just selecting, to copy it, stays until he is done.
export function redraw(element, ...children) {
  const selected = getSelection();
  if (!selected.isCollapsed && element.contains(selected.anchorNode)) return element;
  const held = element.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  replace(element, ...children);
  if (held) {
    [...element.querySelectorAll("a, button, [tabindex]")].find((one) => nameOf(one) === held)
      ?.focus({ preventScroll: true });
  }
  return element;
}

function nameOf(one) {
  return one.getAttribute("href") ?? one.getAttribute("aria-label") ?? one.textContent;
}

export function chip(kind, text) {
  return h("span", { class: `chip ${kind}` }, text ?? kind.replaceAll("_", " "));
}

export function sagaLink(sagaId) {
  return h("a", { class: "mono", href: `#/saga/${encodeURIComponent(sagaId)}` }, sagaId);
}

// A table with a caption for who does not see it; a row is a list of cells.
export function table(caption, heads, rows, empty) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) =>
        cell instanceof HTMLTableCellElement ? cell : h("td", {}, cell)))))));
}

export function number(value) {
  return h("td", { class: "number" }, value);
}

export function meter(share, label) {
  const bar = h("span", { class: "meter", role: "img", "aria-label": label, title: label }, h("i"));
  bar.firstChild.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  if (share > 0.8) bar.classList.add("high");
  return bar;
}

export function notice(text, kind = "good") {
  const box = document.getElementById("notices");
  const line = h("div", { class: `notice ${kind}` }, text);
  box.append(line);
  setTimeout(() => line.remove(), kind === "bad" ? 12000 : 6000);
}
