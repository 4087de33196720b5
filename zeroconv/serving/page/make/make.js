/** The tab Make: puts canvas, form, results and history together. */
import { Board } from "../canvas/board.js";
import { Input } from "../canvas/input.js";
import { firstPicture } from "../canvas/pictures.js";
import { TOOLS, Tools } from "../canvas/tools.js";
import { View } from "../canvas/view.js";
import { $, guarded, later, toast } from "../dom.js";
import { bodyOf, sent } from "./body.js";
import { putExample, showExamples } from "./examples.js";
import { Gallery } from "./gallery.js";
import { keep, restored } from "./kept.js";
import { buildLayers, nameOf } from "./layers.js";
import { Live } from "./live.js";
import { conditionOf, controlNamed } from "./models.js";
import { load, pasteEvent } from "./properties.js";
import { buildQueue, Results } from "./results.js";
import { buildSettings, size, storeSettings, writeSettings } from "./settings.js";
import { buildToolbar } from "./toolbar.js";
import { actions, readSettingsOf, shownActions } from "./uses.js";

export function buildMake() {
  const first = { board: null };
  buildSettings(
    () => first.changed?.(),
    (now) => guarded(() => first.board?.resize(now.width, now.height)),
  );
  const { width, height } = size();
  const board = new Board(width, height);
  const tools = new Tools(board);
  const results = new Results();
  const view = new View($("#canvas"), board, tools);
  new Input($("#canvas"), view, tools);
  const live = new Live(board, results);
  Object.assign(first, { board, changed: () => live.changed() });
  buildToolbar(board, tools);
  buildLayers(board, tools, () => results.shown?.picture);
  buildQueue();

  const studio = { board, tools, view, results, live, generate: () => generate(studio) };
  studio.gallery = new Gallery(actions(studio));
  results.actions = shownActions(studio);
  results.addEventListener(
    "made",
    later(150, () => studio.gallery.load()),
  );
  $("#generate").addEventListener("click", studio.generate);
  $("#prompt").addEventListener("input", () => {
    storeSettings();
    live.changed();
  });
  $("#negative").addEventListener("input", () => {
    storeSettings();
    live.changed();
  });
  $("#zoom-in").addEventListener("click", () => view.zoom(1.25));
  $("#zoom-out").addEventListener("click", () => view.zoom(0.8));
  $("#zoom-fit").addEventListener("click", () => view.fit());
  $("#settings-file").addEventListener("change", (event) => {
    if (event.target.files[0]) readSettingsOf(studio, event.target.files[0]);
    event.target.value = "";
  });
  drops(studio);
  document.addEventListener("paste", (event) => {
    if (!$("#make").hidden && !typing(event.target)) pasteEvent(event, board);
  });
  buildExamples(studio);
  studio.gallery.load();
  guarded(async () => {
    await restored(board);
    keep(board);
  });
  return studio;
}

async function generate({ board, results, live }) {
  live.turn(false);
  const unused = board.controls.filter((layer) => layer.used && !sent(layer));
  for (const layer of unused) toast(`The layer ${nameOf(layer)} is empty and is not used.`);
  if (board.mask.used && !board.mask.empty && (board.picture.empty || !board.picture.used)) {
    toast("The mask is not used: the picture layer is empty or switched off.");
  }
  // on a phone it is far below
  $("#result-picture").scrollIntoView({ block: "nearest", behavior: "smooth" });
  await guarded(() => results.make(bodyOf(board)));
}

// ---------------------------------------------------------------- dropping pictures

function drops(studio) {
  const stage = $("#stage");
  const note = $("#drop-note");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    const over = stage.contains(event.target);
    note.hidden = !over;
    note.textContent = `Drop the picture into the layer ${nameOf(studio.board.selected)}`;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) note.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    note.hidden = true;
    const file = firstPicture(event.dataTransfer?.files);
    if (!file || $("#make").hidden) return;
    if ($(".board").contains(event.target)) load(studio.board.selected, studio.board, file);
    else readSettingsOf(studio, file);
  });
}

// ---------------------------------------------------------------- examples and keys

function buildExamples(studio) {
  const show = () => {
    showExamples($("#examples"), async (example) => {
      $("#welcome").close();
      writeSettings({
        base: "playroom",
        prompt: example.prompt,
        seed: example.seed,
        steps: 20,
        count: 1,
      });
      studio.board.reset();
      const { width, height } = size();
      await studio.board.resize(width, height);
      putExample(example, studio.board);
      studio.generate();
    });
    $("#welcome").showModal();
  };
  $("#examples-open").addEventListener("click", show);
  if (!controlNamed("scribble") || !conditionOf(controlNamed("scribble")))
    $("#examples-open").hidden = true;
  studio.welcome = show;
}

export const typing = (node) =>
  node.matches?.("input:not([type=checkbox]):not([type=range]), textarea, select");

/** Shortcuts of the tab; returns whether the key was one. */
export function makeKey(studio, event) {
  const { board, tools, view } = studio;
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "enter") studio.generate();
    else if (typing(event.target)) return false;
    else if (key === "z") event.shiftKey ? board.history.redo() : board.history.undo();
    else if (key === "y") board.history.redo();
    else return false;
    return true;
  }
  if (key === "escape" && studio.results.running) studio.results.cancel();
  else if (typing(event.target) || event.altKey) return false;
  else if (key === "[" || key === "]")
    tools.set({ size: Math.min(60, Math.max(1, tools.size + (key === "]" ? 1 : -1))) });
  else if (key === "+" || key === "=") view.zoom(1.25);
  else if (key === "-") view.zoom(0.8);
  else if (key === "0") view.fit();
  else {
    const name = Object.keys(TOOLS).find(
      (tool) => TOOLS[tool][1] === key && tools.available.includes(tool),
    );
    if (!name) return false;
    tools.set({ name });
  }
  return true;
}
