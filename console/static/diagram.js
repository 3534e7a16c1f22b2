// Draws boxes and arrows at the places that the server gives, and marks where a saga stands.

import { s } from "./dom.js";

const BOX_W = 124, BOX_H = 36, STEP_X = 122, STEP_Y = 66, MARGIN = 74;

// `marks` maps names of boxes to classes: `now`, `passed`, or the status of a step.
export function diagram(graph, marks, told) {
  const places = new Map(graph.nodes.map((node) => [node.name,
    { x: MARGIN + node.place[0] * graph.stepX, y: 30 + node.place[1] * STEP_Y }]));
  const width = Math.max(...[...places.values()].map((at) => at.x)) + MARGIN;
  const height = Math.max(...[...places.values()].map((at) => at.y)) + 34;
  const id = `arrow-${Math.random().toString(36).slice(2)}`;
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told, class: "diagram" },
    s("defs", {}, s("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7,
      orient: "auto-start-reverse" }, s("path", { d: "M0 0 8 4 0 8z", class: "head" }))));
  for (const edge of graph.edges) {
    if (edge.source === edge.target) continue;
    const [from, to] = [places.get(edge.source), places.get(edge.target)];
    const both = graph.edges.some((one) => one.source === edge.target && one.target === edge.source);
    const [start, end] = ends(from, to, both ? 7 : 0);
    const passed = marks[edge.source] && marks[edge.target] ? "passed" : "";
    svg.append(s("line", { class: `edge ${edge.is_back ? "back" : ""} ${passed}`, x1: start.x, y1: start.y,
      x2: end.x, y2: end.y, "marker-end": `url(#${id})` },
    s("title", {}, `${edge.source} → ${edge.target}: ${edge.label}`)));
  }
  for (const node of graph.nodes) {
    const at = places.get(node.name);
    const lines = node.text.split("\n");
    svg.append(s("g", { class: `box ${node.is_end ? "end" : ""} ${marks[node.name] ?? ""}` },
      s("rect", { x: at.x - BOX_W / 2, y: at.y - BOX_H / 2, width: BOX_W, height: BOX_H, rx: 8 }),
      lines.slice(0, 2).map((line, i) => s("text", { x: at.x, "text-anchor": "middle", class: i ? "small" : "",
        y: at.y + 4 + (i - (Math.min(lines.length, 2) - 1) / 2) * 13 }, line.replaceAll("_", " ")))));
  }
  return svg;
}

// Where the line between two boxes leaves the one and reaches the other, moved aside a little.
function ends(from, to, aside) {
  const dx = to.x - from.x, dy = to.y - from.y, length = Math.hypot(dx, dy) || 1;
  const side = { x: -dy / length * aside, y: dx / length * aside };
  const reach = (w, hgt) => Math.min(w / Math.abs(dx / length || 1e-9), hgt / Math.abs(dy / length || 1e-9));
  const gap = reach(BOX_W / 2 + 2, BOX_H / 2 + 2);
  return [
    { x: from.x + dx / length * gap + side.x, y: from.y + dy / length * gap + side.y },
    { x: to.x - dx / length * gap + side.x, y: to.y - dy / length * gap + side.y },
  ];
}

export function phases(graph, visited, now) {
  const marks = Object.fromEntries(visited.map((name) => [name, "passed"]));
  marks[now] = "now";
  return diagram({ ...graph, stepX: STEP_X }, marks, `States of a saga; this one is ${now.replaceAll("_", " ")}`);
}

export function steps(graph, statuses) {
  const marks = {};
  for (const [name, status] of Object.entries(statuses)) {
    marks[name] = `step ${status}`;
    if (status.startsWith("undo") || status === "undone") marks[`undo ${name}`] = `step ${status}`;
  }
  const told = Object.entries(statuses).map(([name, status]) => `${name} ${status}`).join(", ");
  return diagram({ ...graph, stepX: STEP_X + 22 }, marks, `Steps: ${told.replaceAll("_", " ")}`);
}
