/** Curves as SVG: axes, a line, and events at steps. */
import { el, svg } from "../dom.js";

const WIDTH = 520;
const HEIGHT = 220;
const PAD = { left: 52, right: 12, top: 14, bottom: 28 };

/** points: [[step, value], …]. options: {smooth: share of the running mean,
 * events: [[step, name]], steps: the last step of the axis, zero: whether 0 is in the picture}. */
export function chart(title, points, { smooth = 0, events = [], steps = 0, zero = false } = {}) {
  const clean = points.filter(([, value]) => Number.isFinite(value));
  const node = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": summary(title, clean),
  });
  const caption = el("figcaption", {}, el("h3", { text: title }));
  const figure = el("figure", { class: "chart", "data-chart": title }, caption, node);
  if (!clean.length) {
    node.append(
      svg("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle", text: "no values yet" }),
    );
    return figure;
  }
  const scale = scales(clean, steps, zero);
  axes(node, scale);
  const line = (values) =>
    values
      .map(([step, value]) => `${scale.x(step).toFixed(1)},${scale.y(value).toFixed(1)}`)
      .join(" ");
  if (smooth && clean.length > 4) {
    node.append(svg("polyline", { class: "faint", points: line(clean) }));
    node.append(svg("polyline", { class: "curve", points: line(running(clean, smooth)) }));
  } else {
    node.append(svg("polyline", { class: "curve", points: line(clean) }));
    if (clean.length < 30) {
      for (const [step, value] of clean)
        node.append(svg("circle", { cx: scale.x(step), cy: scale.y(value), r: 2.5, class: "dot" }));
    }
  }
  for (const [step, name] of events) {
    const x = scale.x(step);
    const right = x > WIDTH * 0.7;
    node.append(
      svg("line", { class: "event", x1: x, x2: x, y1: PAD.top, y2: HEIGHT - PAD.bottom }),
    );
    node.append(
      svg("text", {
        class: "event-name",
        x: right ? x - 5 : x + 5,
        y: PAD.top + 10,
        "text-anchor": right ? "end" : "start",
        text: name,
      }),
    );
  }
  return figure;
}

function summary(title, points) {
  if (!points.length) return `${title}: no values yet`;
  const [step, value] = points.at(-1);
  const start = `${short(points[0][1])} at step ${points[0][0]}`;
  return `${title}: ${points.length} values, ${start}, ${short(value)} at step ${step}`;
}

function scales(points, steps, zero) {
  const xs = points.map(([step]) => step);
  const ys = points.map(([, value]) => value);
  const [first, last] = [Math.min(...xs, steps ? 0 : Infinity), Math.max(...xs, steps)];
  let [low, high] = [Math.min(...ys, zero ? 0 : Infinity), Math.max(...ys, zero ? 0 : -Infinity)];
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  low -= margin;
  high += margin;
  const across = (WIDTH - PAD.left - PAD.right) / (last - first || 1);
  const down = (HEIGHT - PAD.top - PAD.bottom) / (high - low);
  return {
    x: (step) => PAD.left + (step - first) * across,
    y: (value) => HEIGHT - PAD.bottom - (value - low) * down,
    xs: ticks(first, last, 5),
    ys: ticks(low, high, 4),
  };
}

/** Round numbers between two limits. */
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const out = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step)
    out.push(value);
  return out;
}

const short = (value) =>
  Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));

function axes(node, { x, y, xs, ys }) {
  for (const value of ys) {
    node.append(
      svg("line", {
        class: "rule",
        x1: PAD.left,
        x2: WIDTH - PAD.right,
        y1: y(value),
        y2: y(value),
      }),
    );
    node.append(
      svg("text", { x: PAD.left - 6, y: y(value) + 4, "text-anchor": "end", text: short(value) }),
    );
  }
  for (const step of xs) {
    node.append(
      svg("text", { x: x(step), y: HEIGHT - 9, "text-anchor": anchor(x(step)), text: short(step) }),
    );
  }
}

/** The last number of the axis ends with the chart. */
const anchor = (x) => (x > WIDTH - 24 ? "end" : "middle");

/** The exponential running mean. */
function running(points, share) {
  let mean = points[0][1];
  return points.map(([step, value]) => {
    mean = share * mean + (1 - share) * value;
    return [step, mean];
  });
}
