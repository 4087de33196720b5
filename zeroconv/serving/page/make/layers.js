/** The list of layers, from top to bottom, and the settings of the selected one. */
import { $, choice, el, icon } from "../dom.js";
import { conditionOf, controlNamed, offer, pairs } from "./models.js";
import { properties } from "./properties.js";

const NAMES = { picture: "Picture", mask: "Mask" };

export function nameOf(layer) {
  if (layer.kind !== "control") return NAMES[layer.kind];
  return layer.control?.label ?? layer.control?.name ?? "Control";
}

/** tools: for pose buttons and regions. result(): the address of the picture that is shown. */
export function buildLayers(board, tools, result) {
  const list = el("ul", { class: "layer-list", "aria-label": "Layers" });
  const detail = el("div", { class: "layer-detail" });
  const add = choice([], "", {
    change: () => {
      const control = controlNamed(add.value);
      add.value = "";
      if (control) board.addControl(control, conditionOf(control));
    },
  });
  add.id = "add-control";
  add.setAttribute("aria-label", "Add a control layer");
  $("#layers").replaceChildren(el("div", { class: "layer-side" }, add, list), detail);

  const rows = () => {
    list.replaceChildren(...[...board.layers].reverse().map((layer) => row(layer, board)));
    // a training can add controls
    if (add.options.length === offer.controls.length + 1) return;
    const all = [["", "Add a control layer…"], ...pairs(offer.controls)];
    add.replaceChildren(...all.map(([value, text]) => el("option", { value, text })));
  };
  const shown = () => {
    detail.replaceChildren(...properties(board.selected, board, tools, result));
    $("#board-what").textContent =
      board.target === "region"
        ? `painting the region of ${nameOf(board.selected)}`
        : `drawing on ${nameOf(board.selected)}`;
  };
  board.addEventListener("structure", () => {
    rows();
    shown();
  });
  board.addEventListener("select", () => {
    rows();
    shown();
  });
  board.addEventListener("size", rows);
  board.addEventListener("change", (event) => thumb(list, event.detail));
  tools.addEventListener("joint", () => board.selected.isPose && shown());
  rows();
  shown();
}

function row(layer, board) {
  const chosen = layer === board.selected;
  const name = nameOf(layer);
  const picture = el("canvas", { width: 40, height: 40, class: "thumb", "aria-hidden": "true" });
  const select = el(
    "button",
    {
      type: "button",
      class: "layer-name",
      "aria-pressed": String(chosen),
      "data-layer": layer.condition?.name ?? layer.kind,
      on: {
        click: () => {
          board.select(layer);
          $(`[data-id="${layer.id}"] .layer-name`)?.focus();
        },
      },
    },
    picture,
    el("span", {}, el("span", { text: name }), el("small", { text: state(layer) })),
  );
  const used = el("input", {
    type: "checkbox",
    checked: layer.used,
    "aria-label": `Use ${name}`,
    title: "Use it for the picture",
    on: {
      change: () => {
        layer.used = used.checked;
        layer.version++;
        board.changed(layer);
      },
    },
  });
  const eye = el(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-pressed": String(layer.visible),
      "aria-label": `Show ${name} on the canvas`,
      title: "Show on the canvas",
      on: {
        click: () => {
          layer.visible = !layer.visible;
          eye.setAttribute("aria-pressed", String(layer.visible));
          eye.replaceChildren(icon(layer.visible ? "eye" : "hidden"));
          board.dispatchEvent(new Event("draw"));
        },
      },
    },
    icon(layer.visible ? "eye" : "hidden"),
  );
  const node = el(
    "li",
    { class: `layer ${chosen ? "chosen" : ""}`, "data-id": layer.id },
    used,
    select,
    eye,
  );
  paint(picture, layer);
  return node;
}

function state(layer) {
  if (layer.empty) return "empty";
  if (layer.kind !== "control")
    return layer.kind === "picture" ? "the start of the picture" : "what is made anew";
  const { scale, start, end } = layer.settings;
  const window =
    start > 0 || end < 1 ? `, ${Math.round(start * 100)}–${Math.round(end * 100)}%` : "";
  return `scale ${scale}${window}${layer.regionUrl() ? ", in a region" : ""}`;
}

function paint(canvas, layer) {
  const context = canvas.getContext("2d");
  context.fillStyle = "#44474f";
  context.fillRect(0, 0, 40, 40);
  const { width, height } = layer.canvas;
  const share = 40 / Math.max(width, height);
  context.drawImage(
    layer.canvas,
    20 - (width * share) / 2,
    20 - (height * share) / 2,
    width * share,
    height * share,
  );
}

/** A change of the content alone: the row stays, so that it keeps the focus. */
function thumb(list, layer) {
  const node = $(`[data-id="${layer?.id}"]`, list);
  if (!node) return;
  paint($("canvas", node), layer);
  $("small", node).textContent = state(layer);
}
