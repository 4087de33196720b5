/** How a control acts: scale, window, mode, curve, region, resizing, and its order. */
import { dataUrl, opened, painted } from "../canvas/pictures.js";
import { button, choice, el, field, guarded } from "../dom.js";

const MODES = [
  ["", "by the guidance"],
  ["balanced", "balanced"],
  ["prompt", "the prompt is more important"],
  ["control", "the control is more important"],
];
const CURVES = ["constant", "linear_down", "linear_up", "cosine_down", "cosine_up"];
const RESIZE = [
  ["stretch", "stretch"],
  ["crop", "crop"],
  ["fill", "fill (shown whole)"],
];
const PASSES = [
  ["both", "both passes"],
  ["low", "the first pass"],
  ["high", "the second pass"],
];

/** A button that opens a file. */
export function fileButton(label, take, accept = "image/*") {
  const input = el("input", {
    type: "file",
    accept,
    class: "unseen",
    on: {
      change: () => {
        if (input.files[0]) take(input.files[0]);
        input.value = "";
      },
    },
  });
  return el("label", { class: "button" }, label, input);
}

function set(layer, board, name, read) {
  return (event) => {
    layer.settings[name] = read(event.target);
    layer.version++;
    board.changed(layer);
  };
}

const asNumber = (input) => Number(input.value);

export function strength(layer, board) {
  const shown = el("output", { text: layer.settings.scale });
  const scale = el("input", {
    type: "range",
    min: 0,
    max: 2,
    step: 0.05,
    value: layer.settings.scale,
    on: {
      input: (event) => {
        shown.textContent = event.target.value;
        set(layer, board, "scale", asNumber)(event);
      },
    },
  });
  const share = (name) =>
    el("input", {
      type: "number",
      min: 0,
      max: 1,
      step: 0.05,
      value: layer.settings[name],
      on: { change: set(layer, board, name, asNumber) },
    });
  return el(
    "div",
    { class: "triple" },
    el(
      "div",
      { class: "field" },
      el("label", { class: "stack" }, el("span", {}, "Scale ", shown), scale),
    ),
    field("From", share("start")),
    field("Until", share("end")),
  );
}

export function details(layer, board) {
  const select = (name, options) =>
    choice(options, layer.settings[name], {
      change: set(layer, board, name, (input) => input.value),
    });
  const resize = choice(RESIZE, layer.settings.resize, {
    change: async (event) => {
      set(layer, board, "resize", (input) => input.value)(event);
      await layer.refit(board.width, board.height);
      board.changed(layer);
    },
  });
  const region = board.target === "region";
  return el(
    "details",
    { class: "part", open: region || undefined },
    el("summary", { text: "Mode, region, curve" }),
    el(
      "div",
      { class: "fields" },
      el(
        "div",
        { class: "pair" },
        field("Mode", select("mode", MODES)),
        field(
          "Scale over time",
          select(
            "curve",
            CURVES.map((name) => [name === "constant" ? "" : name, name.replace("_", " ")]),
          ),
        ),
      ),
      el(
        "div",
        { class: "pair" },
        field("A hint of another shape", resize),
        field("With a second pass", select("passes", PASSES)),
      ),
      el(
        "div",
        { class: "row wrap" },
        el(
          "button",
          {
            type: "button",
            "aria-pressed": String(region),
            on: { click: () => board.select(layer, region ? "layer" : "region") },
          },
          region ? "Paint the hint again" : "Paint where it acts",
        ),
        fileButton("Upload a region", (file) => guarded(() => loadRegion(layer, board, file))),
        layer.region &&
          button(
            "Act everywhere",
            () => {
              board.edit(layer, () => {
                layer.region = null;
                layer.version++;
              });
              board.select(layer);
            },
            { kind: "quiet" },
          ),
      ),
    ),
  );
}

async function loadRegion(layer, board, file) {
  const image = await opened(await dataUrl(file));
  await board.edit(layer, () => {
    layer.region = painted(image, board.width, board.height);
    layer.version++;
  });
  board.select(layer, "region");
}

export function order(layer, board) {
  return el(
    "div",
    { class: "row right" },
    button("", () => board.move(layer, 1), {
      icon: "up",
      kind: "quiet",
      "aria-label": "Move the layer up",
      title: "Up",
    }),
    button("", () => board.move(layer, -1), {
      icon: "down",
      kind: "quiet",
      "aria-label": "Move the layer down",
      title: "Down",
    }),
    button("Remove the layer", () => board.remove(layer), { kind: "quiet", icon: "clear" }),
  );
}
