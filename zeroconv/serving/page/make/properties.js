/** The settings of the selected layer: what is in it, and how a control acts. */
import { button, choice, download, el, field, guarded, toast } from "../dom.js";
import { dataUrl, firstPicture } from "../canvas/pictures.js";
import { details, fileButton, order, strength } from "./acting.js";
import { annotatePanel } from "./annotate.js";
import { conditionOf, controlNamed, offer, pairs } from "./models.js";
import { posePanel } from "./posing.js";

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

function contentButtons(layer, board, result, what) {
  return el(
    "div",
    { class: "row wrap" },
    fileButton(`Upload ${what}`, (file) => load(layer, board, file)),
    button("Paste", () => paste(layer, board), { title: "Ctrl+V" }),
    result &&
      button("Use the result", () =>
        result() ? load(layer, board, result()) : toast("There is no result yet."),
      ),
    button("Download", () => download(layer.url(), `${layer.conditionName || layer.kind}.png`), {
      kind: "quiet",
    }),
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
    el("p", {
      class: "hint",
      text:
        "Generation starts from this picture while it is in use. Paint on it, and set under " +
        "Settings how much is made anew.",
    }),
    contentButtons(layer, board, result, "a picture"),
  ];
}

function maskProperties(layer, board) {
  return [
    el("p", {
      class: "hint",
      text: "Paint where the picture layer is made anew. Without a mask all of it is.",
    }),
    el(
      "div",
      { class: "row wrap" },
      fileButton("Upload a mask", (file) => load(layer, board, file)),
      button("Invert", () => board.edit(layer, () => invert(layer))),
    ),
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
  const panels = [
    known
      ? field("Control", control)
      : el("div", { class: "pair" }, field("Control", control), conditionField(layer, board)),
  ];
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
    change: () =>
      board.setCondition(layer, offer.conditions.find((one) => one.name === select.value) ?? null),
  });
  return field("Condition", select);
}

function kindField(layer, board) {
  const kinds = choice(
    layer.control.union_kinds.map((kind) => [kind, kind]),
    layer.settings.kind,
    {
      change: () => {
        layer.settings.kind = kinds.value;
        board.changed(layer);
      },
    },
  );
  layer.settings.kind ||= kinds.value;
  return field("Kind of hint", kinds);
}
