/** The page's start: theme, tabs, token, keys; then the three tabs. */
import { listen, login, onToken } from "./api.js";
import { $, $$, el, guarded, showIcons } from "./dom.js";
import { buildCompare } from "./make/compare.js";
import { buildMake, makeKey, typing } from "./make/make.js";
import { loadOffer, offer } from "./make/models.js";
import { TOOLS } from "./canvas/tools.js";
import { buildMeasure } from "./work/measure.js";
import { buildTrain } from "./work/train.js";

const KEYS = [
  ["Ctrl+Enter", "Generate"],
  ["Escape", "Cancel the picture"],
  ["Ctrl+Z, Ctrl+Shift+Z", "Undo, redo"],
  ...Object.values(TOOLS).map(([label, key]) => [key.toUpperCase(), label]),
  ["[ and ]", "Pen smaller, larger"],
  ["+, −, 0", "Zoom in, out, fit"],
  ["Ctrl+wheel, two fingers", "Zoom and move the view"],
  ["Shift", "Straight lines, squares and circles; a joint alone"],
  ["Arrows, Space", "On the canvas: move the pen, put it down and lift it"],
  [", and .", "In a pose: the joint before, the next joint"],
  ["1, 2, 3", "Make, Train, Measure"],
  ["?", "This list"],
];
const THEMES = { auto: "as the system", light: "light", dark: "dark" };

function buildTheme() {
  const names = Object.keys(THEMES);
  let theme = "auto";
  try {
    theme = localStorage.getItem("zeroconv.theme") ?? "auto";
  } catch {
    /* no storage */
  }
  const put = (next) => {
    theme = names.includes(next) ? next : "auto";
    document.documentElement.dataset.theme = theme;
    $("#theme").setAttribute("aria-label", `Theme: ${THEMES[theme]}`);
    $("#theme").title = `Theme: ${THEMES[theme]}`;
    try {
      localStorage.setItem("zeroconv.theme", theme);
    } catch {
      /* as above */
    }
  };
  $("#theme").addEventListener("click", () =>
    put(names[(names.indexOf(theme) + 1) % names.length]),
  );
  put(theme);
}

const tabs = {}; // name → called when the tab is shown

export function showTab(name, focus = false) {
  for (const tab of $$("[role=tab]")) {
    const on = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(`#${tab.getAttribute("aria-controls")}`).hidden = !on;
    if (on && focus) tab.focus();
  }
  history.replaceState(null, "", `#${name}`);
  tabs[name]?.();
}

function buildTabs() {
  const names = $$("[role=tab]").map((tab) => tab.getAttribute("aria-controls"));
  for (const tab of $$("[role=tab]")) {
    const name = tab.getAttribute("aria-controls");
    tab.addEventListener("click", () => showTab(name));
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) showTab(names[(names.indexOf(name) + by + names.length) % names.length], true);
    });
  }
  // the address was changed by hand, or a link was followed
  addEventListener("hashchange", () => {
    const wanted = location.hash.slice(1);
    if (names.includes(wanted)) showTab(wanted);
  });
  return names;
}

/** The token's form; resolves when the server accepted it. */
function askToken() {
  const dialog = $("#login");
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    $("#login-form").onsubmit = async (event) => {
      event.preventDefault();
      try {
        await login($("#token").value);
        $("#token").value = "";
        dialog.close();
        resolve();
      } catch (error) {
        $("#login-error").textContent = error.message;
      }
    };
  });
}

function buildKeys(studio, names) {
  $("#help-table").replaceChildren(
    el(
      "tbody",
      {},
      ...KEYS.map(([key, what]) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, el("kbd", { text: key })),
          el("td", { text: what }),
        ),
      ),
    ),
  );
  $("#help-open").addEventListener("click", () => $("#help").showModal());
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || $("dialog[open]")) return;
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !typing(event.target);
    if (plain && event.key === "?") $("#help").showModal();
    else if (plain && "123".includes(event.key)) showTab(names[Number(event.key) - 1]);
    else if (!$("#make").hidden && makeKey(studio, event)) event.preventDefault();
  });
}

/** The dialog of the examples, at the first visit of a browser. */
function welcome(studio) {
  let known = "1";
  try {
    known = localStorage.getItem("zeroconv.visited");
    localStorage.setItem("zeroconv.visited", "1");
  } catch {
    /* no storage */
  }
  if (!known && !$("#examples-open").hidden) studio.welcome();
}

async function start() {
  showIcons();
  buildTheme();
  const names = buildTabs();
  onToken(askToken);
  $("#login").addEventListener("cancel", (event) => event.preventDefault());
  if ((await guarded(loadOffer)) === null && !offer.bases.length) return;
  listen();
  buildCompare();
  const studio = buildMake();
  buildKeys(studio, names);
  tabs.train = buildTrain(studio);
  tabs.measure = buildMeasure(studio);
  const wanted = location.hash.slice(1);
  if (names.includes(wanted)) showTab(wanted);
  window.zeroconv = studio; // for the console and for tests
  document.documentElement.dataset.ready = "true";
  if (!wanted || wanted === "make") welcome(studio);
}

start();
