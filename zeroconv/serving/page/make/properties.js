/** The settings of the selected layer: what is in it, and how a control acts. */
import { button, choice, download, el, field, guarded, toast } from "../dom.js";
import { dataUrl, firstPicture } from "../canvas/pictures.js";
import { annotatePanel } from "./annotate.js";
import { conditionOf, controlNamed, offer, pairs } from "./models.js";
import { posePanel } from "./posing.js";

const MODES = [["", "by the guidance"], ["balanced", "balanced"], ["prompt", "the prompt is more important"], ["control", "the control is more important"]];
const CURVES = ["constant", "linear_down", "linear_up", "cosine_down", "cosine_up"];
const RESIZE = [["stretch", "stretch"], ["crop", "crop"], ["fill", "fill (shown whole)"]];
const PASSES = [["both", "both passes"], ["low", "the first pass"], ["high", "the second pass"]];

/** The nodes of the panel. */
export function properties(layer, board, tools, result) {
  if (layer.kind === "picture") return pictureProperties(layer, board, result);
  if (layer.kind === "mask") return maskProperties(layer, board);
  return controlProperties(layer, board, tools, result);
}

/** Puts a file or an address into a layer, as one step of undo. */
export function load(layer, board, source) {
  return guarded(async () => {
    const url = await dataUrl(source);
    await board.edit(layer, () => layer.load(url));
  });
}

function fileButton(label, take, accept = "image/*") {
  const input = el("input", {
    type: "file", accept, class: "unseen",
    on: { change: () => { if (input.files[0]) take(input.files[0]); input.value = ""; } },
  });
  return el("label", { class: "button" }, label, input);
}

function contentButtons(layer, board, result, what) {
  return el("div", { class: "row wrap" },
    fileButton(`Upload ${what}`, (file) => load(layer, board, file)),
    button("Paste", () => paste(layer, board), { title: "Ctrl+V" }),
    result && button("Use the result", () => (result() ? load(layer, board, result()) : toast("There is no result yet."))),
    button("Download", () => download(layer.url(), `${layer.conditionName || layer.kind}.png`), { kind: "quiet" }),
  );
}

async function paste(layer, board) {
  // browsers offer this over https and on this machine only
  if (!navigator.clipboard?.read) {
    toast("Press Ctrl+V to paste a picture into the selected layer.");
    return;
  }
  await guarded(async () => {
    const items = await navigator.clipboard.read();
    for (const item of items) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type) return load(layer, board, await item.getType(type));
    }
    return toast("The clipboard holds no picture.");
  });
}

/** Ctrl+V anywhere outside of a text field. */
export function pasteEvent(event, board) {
  const file = firstPicture(event.clipboardData?.items);
  if (!file) return;
  event.preventDefault();
  load(board.selected, board, file);
}

function pictureProperties(layer, board, result) {
  return [
    el("p", { class: "hint", text: "Generation starts from this picture while it is in use. Paint on it, and set how much is made anew under Settings." }),
    contentButtons(layer, board, result, "a picture"),
  ];
}

function maskProperties(layer, board) {
  return [
    el("p", { class: "hint", text: "Paint where the picture layer is made anew. Without a mask all of it is." }),
    el("div", { class: "row wrap" },
      fileButton("Upload a mask", (file) => load(layer, board, file)),
      button("Invert", () => board.edit(layer, () => invert(layer)))),
  ];
}

function invert(layer) {
  const context = layer.canvas.getContext("2d");
  context.globalCompositeOperation = "xor";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, layer.canvas.width, layer.canvas.height);
  context.globalCompositeOperation = "source-over";
  layer.edited();
}

function controlProperties(layer, board, tools, result) {
  const control = choice(pairs(offer.controls), layer.control?.name, {
    change: () => {
      const next = controlNamed(control.value);
      board.setControl(layer, next, conditionOf(next));
    },
  });
  const known = Boolean(layer.control?.condition);
  const panels = [known ? field("Control", control) : el("div", { class: "pair" }, field("Control", control), conditionField(layer, board))];
  if (layer.control?.union_kinds) panels.push(kindField(layer, board));
  if (layer.isPose) panels.push(posePanel(layer, board, tools));
  panels.push(annotatePanel(layer, board, result));
  panels.push(contentButtons(layer, board, null, "a finished hint"));
  panels.push(strength(layer, board), details(layer, board), order(layer, board));
  return panels;
}

/** A control that names no condition can be drawn for by any. */
function conditionField(layer, board) {
  const select = choice([["", "not known"], ...pairs(offer.conditions)], layer.conditionName, {
    change: () => board.setCondition(layer, offer.conditions.find((one) => one.name === select.value) ?? null),
  });
  return field("Condition", select);
}

function kindField(layer, board) {
  const kinds = choice(layer.control.union_kinds.map((kind) => [kind, kind]), layer.settings.kind, {
    change: () => { layer.settings.kind = kinds.value; board.changed(layer); },
  });
  layer.settings.kind ||= kinds.value;
  return field("Kind of hint", kinds);
}

function set(layer, board, name, read) {
  return (event) => {
    layer.settings[name] = read(event.target);
    layer.version++;
    board.changed(layer);
  };
}

const asNumber = (input) => Number(input.value);

function strength(layer, board) {
  const shown = el("output", { text: layer.settings.scale });
  const scale = el("input", {
    type: "range", min: 0, max: 2, step: 0.05, value: layer.settings.scale,
    on: { input: (event) => { shown.textContent = event.target.value; set(layer, board, "scale", asNumber)(event); } },
  });
  const share = (name) => el("input", {
    type: "number", min: 0, max: 1, step: 0.05, value: layer.settings[name], on: { change: set(layer, board, name, asNumber) },
  });
  return el("div", { class: "triple" },
    el("div", { class: "field" }, el("label", { class: "stack" }, el("span", {}, "Scale ", shown), scale)),
    field("From", share("start")), field("Until", share("end")));
}

function details(layer, board) {
  const select = (name, options) => choice(options, layer.settings[name], { change: set(layer, board, name, (input) => input.value) });
  const resize = choice(RESIZE, layer.settings.resize, {
    change: async (event) => {
      set(layer, board, "resize", (input) => input.value)(event);
      await layer.refit(board.width, board.height);
      board.changed(layer);
    },
  });
  const region = board.target === "region";
  return el("details", { class: "part", open: region || undefined },
    el("summary", { text: "Mode, region, curve" }),
    el("div", { class: "fields" },
      el("div", { class: "pair" }, field("Mode", select("mode", MODES)), field("Scale over time", select("curve", CURVES.map((name) => [name === "constant" ? "" : name, name.replace("_", " ")])))),
      el("div", { class: "pair" }, field("A hint of another shape", resize), field("With a second pass", select("passes", PASSES))),
      el("div", { class: "row wrap" },
        el("button", {
          type: "button", "aria-pressed": String(region),
          on: { click: () => board.select(layer, region ? "layer" : "region") },
        }, region ? "Paint the hint again" : "Paint where it acts"),
        fileButton("Upload a region", (file) => guarded(() => loadRegion(layer, board, file))),
        layer.region && button("Act everywhere", () => {
          board.edit(layer, () => { layer.region = null; layer.version++; });
          board.select(layer);
        }, { kind: "quiet" }))));
}

async function loadRegion(layer, board, file) {
  const { opened, painted } = await import("../canvas/pictures.js");
  const image = await opened(await dataUrl(file));
  await board.edit(layer, () => {
    layer.region = painted(image, board.width, board.height);
    layer.version++;
  });
  board.select(layer, "region");
}

function order(layer, board) {
  return el("div", { class: "row right" },
    button("", () => board.move(layer, 1), { icon: "up", kind: "quiet", "aria-label": "Move the layer up", title: "Up" }),
    button("", () => board.move(layer, -1), { icon: "down", kind: "quiet", "aria-label": "Move the layer down", title: "Down" }),
    button("Remove the layer", () => board.remove(layer), { kind: "quiet", icon: "clear" }));
}
