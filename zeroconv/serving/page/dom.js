/** Small helpers for elements, icons and notes. */
import { Sentence } from "./errors.js";
import { ICONS } from "./icons.js";

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

const SVG = "http://www.w3.org/2000/svg";

/** An element. `properties` are attributes; `on` maps events to listeners; false and null are
 * left out. Children are nodes or strings; strings are never parsed as HTML. */
export function el(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

export function svg(name, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, name), properties, children);
}

function filled(node, { on = {}, text, ...attributes }, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key === "value") node.value = value;
    else if (key === "checked") node.checked = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const [event, listener] of Object.entries(on)) node.addEventListener(event, listener);
  if (text !== undefined) node.textContent = text;
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function icon(name) {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" },
    ...ICONS[name].map((d) => svg("path", { d })),
  );
}

/** Puts the icon named by `data-icon` into every element that has one. */
export function showIcons(root = document) {
  for (const node of $$("[data-icon]", root)) {
    if (!$("svg", node)) node.prepend(icon(node.dataset.icon));
  }
}

/** A note in the corner; errors stay until they are closed. */
export function toast(text, kind = "note") {
  const close = el(
    "button",
    { class: "quiet", "aria-label": "Close the note", type: "button" },
    icon("close"),
  );
  const node = el(
    "div",
    { class: `toast ${kind}`, role: kind === "error" ? "alert" : null },
    el("p", { text }),
    close,
  );
  close.addEventListener("click", () => node.remove());
  $("#toasts").append(node);
  while ($("#toasts").children.length > 4) $("#toasts").firstElementChild.remove();
  if (kind !== "error") setTimeout(() => node.remove(), 7000);
}

/** Runs `work`; an error becomes a note. Returns its value, or null after an error. */
export async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    toast(error.message || String(error), "error");
    if (!(error instanceof Sentence)) console.error(error);
    return null;
  }
}

export function later(milliseconds, work) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), milliseconds);
  };
}

/** Seconds as words: 8 s, 2 min 5 s, 1 h 3 min. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** A count of bytes as words: 300 B, 12 kB, 3.4 MB. */
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count ?? 0;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function download(url, name) {
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

/** A labelled control: label above, the control, an optional line below. */
export function field(label, control, note) {
  const id = control.id || `f-${Math.random().toString(36).slice(2, 9)}`;
  control.id = id;
  if (note) control.setAttribute("aria-describedby", `${id}-note`);
  return el(
    "div",
    { class: "field" },
    el("label", { for: id, text: label }),
    control,
    note ? el("p", { class: "hint", id: `${id}-note`, text: note }) : null,
  );
}

export function choice(options, value, on = {}) {
  const select = el("select", { on });
  for (const [key, label] of options) select.append(el("option", { value: key, text: label }));
  if (value !== undefined && value !== null) select.value = value;
  return select;
}

export function button(label, listener, { icon: shape, title, kind = "", ...rest } = {}) {
  return el(
    "button",
    { type: "button", class: kind, title, on: { click: listener }, ...rest },
    shape ? icon(shape) : null,
    label,
  );
}
