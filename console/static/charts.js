// Draws rates, times and shares as SVG; each drawing says in words what it shows last.

import { h, s } from "./dom.js";
import { count } from "./words.js";

const W = 560, H = 170, LEFT = 46, RIGHT = 8, TOP = 10, BOTTOM = 22;
const SPAN_MS_MIN = 60 * 1000, SPAN_MS_MAX = 5 * 60 * 1000;

// As far back as there is something to show.
function spanOf(looks) {
  return Math.min(SPAN_MS_MAX, Math.max(SPAN_MS_MIN, Date.now() - (looks[0]?.at_ms ?? 0)));
}

function scale(highest) {
  if (highest <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  for (const step of [1, 2, 2.5, 5, 10]) if (step * power >= highest) return step * power;
  return highest;
}

function frame(top, span, told, words) {
  const now = Date.now();
  const x = (ms) => LEFT + (W - LEFT - RIGHT) * Math.max(0, 1 - (now - ms) / span);
  const y = (value) => H - BOTTOM - (H - TOP - BOTTOM) * Math.min(1, value / top);
  const svg = s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": told });
  for (const part of [0, 0.5, 1]) {
    const at = y(top * part);
    svg.append(s("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: at, y2: at }),
      s("text", { class: "axis", x: LEFT - 6, y: at + 3, "text-anchor": "end" }, words(top * part)));
  }
  for (const part of [0.75, 0.5, 0.25]) {
    const seconds = span * part / 1000;
    svg.append(s("text", { class: "axis", x: x(now - span * part), y: H - 6, "text-anchor": "middle" },
      seconds < 120 ? `−${Math.round(seconds)} s` : `−${(seconds / 60).toFixed(1)} min`));
  }
  svg.append(s("text", { class: "axis", x: W - RIGHT, y: H - 6, "text-anchor": "end" }, "now"));
  return { svg, x, y };
}

function legend(series, looks, words) {
  return h("p", { class: "legend" }, series.map((one) => {
    const last = looks.length ? one.value(looks.at(-1)) : null;
    return h("span", { class: one.kind }, h("i"), `${one.name} `, h("b", {}, last === null ? "–" : words(last)));
  }));
}

// What came in several looks of a second each is told as their mean of three: less nervous.
function smooth(looks, value) {
  return looks.map((look, i) => {
    const near = looks.slice(Math.max(0, i - 2), i + 1).map(value).filter((one) => one !== null && one !== undefined);
    return [look.at_ms, near.length ? near.reduce((sum, one) => sum + one, 0) / near.length : null];
  });
}

function since(looks) {
  const from = Date.now() - SPAN_MS_MAX;
  return looks.filter((look) => look.at_ms >= from);
}

export function areaChart(all, series, words) {
  const looks = since(all);
  const lines = series.map((one) => smooth(looks, one.value));
  const sums = looks.map((_, i) => lines.reduce((sum, line) => sum + (line[i][1] ?? 0), 0));
  const told = series.map((one) => `${one.name} ${looks.length ? words(one.value(looks.at(-1))) : "none"}`);
  const { svg, x, y } = frame(scale(Math.max(1, ...sums)), spanOf(looks), `A second: ${told.join(", ")}`, words);
  const base = looks.map(() => 0);
  series.forEach((one, k) => {
    if (looks.length < 2) return;
    const lower = looks.map((look, i) => `${x(look.at_ms).toFixed(1)},${y(base[i]).toFixed(1)}`).reverse();
    const upper = lines[k].map(([at, value], i) => {
      base[i] += value ?? 0;
      return `${x(at).toFixed(1)},${y(base[i]).toFixed(1)}`;
    });
    svg.append(s("polygon", { class: `area ${one.kind}`, points: [...upper, ...lower].join(" ") }),
      s("polyline", { class: `line ${one.kind}`, points: upper.join(" ") }));
  });
  return h("figure", {}, svg, legend(series, looks, words));
}

export function lineChart(all, series, words) {
  const looks = since(all);
  const lines = series.map((one) => smooth(looks, one.value));
  const highest = Math.max(1, ...lines.flat().map(([, value]) => value ?? 0));
  const last = series.map((one) => {
    const found = looks.findLast((look) => one.value(look) !== null && one.value(look) !== undefined);
    return `${one.name} ${found ? words(one.value(found)) : "none"}`;
  });
  const { svg, x, y } = frame(scale(highest), spanOf(looks), `Time taken: ${last.join(", ")}`, words);
  series.forEach((one, k) => {
    const points = lines[k].filter(([, value]) => value !== null)
      .map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
    svg.append(s("polyline", { class: `line ${one.kind}`, points: points.join(" ") }));
  });
  return h("figure", {}, svg, legend(series, looks, (value) => (value === undefined ? "–" : words(value))));
}

export function outcomeBar(parts) {
  const all = parts.reduce((sum, [, , value]) => sum + value, 0);
  const told = parts.map(([, name, value]) => `${count(value)} ${name}`).join(", ");
  const bar = h("div", { class: "outcomes", role: "img", "aria-label": told },
    parts.filter(([, , value]) => value).map(([kind, name, value]) => {
      const part = h("span", { class: kind, title: `${count(value)} ${name}` });
      part.style.flexGrow = value / Math.max(all, 1);
      return part;
    }));
  return h("div", {}, bar, h("p", { class: "legend" }, parts.map(([kind, name, value]) =>
    h("span", { class: kind }, h("i"), `${name} `, h("b", {}, count(value)),
      all ? ` ${(100 * value / all).toFixed(1)} %` : ""))));
}
