/** The toolbar: tools, pen, colours or classes, undo and redo. */
import { $, button, el, icon } from "../dom.js";
import { grey, TOOLS } from "../canvas/tools.js";

export function buildToolbar(board, tools) {
  const bar = $("#toolbar");
  const group = el("div", { class: "group", role: "radiogroup", "aria-label": "Tool" });
  const paint = el("div", { class: "group paint" });
  const undo = button("", () => board.history.undo(), {
    icon: "undo",
    kind: "quiet",
    title: "Undo (Ctrl+Z)",
    "aria-label": "Undo",
  });
  const redo = button("", () => board.history.redo(), {
    icon: "redo",
    kind: "quiet",
    title: "Redo (Ctrl+Shift+Z)",
    "aria-label": "Redo",
  });
  const clear = button("", () => clearSurface(board), {
    icon: "clear",
    kind: "quiet",
    title: "Clear the layer",
    "aria-label": "Clear the layer",
  });
  bar.replaceChildren(group, el("div", { class: "group right" }, undo, redo, clear), paint);

  const size = sizeField(tools);
  const filled = checkField(
    "Fill shapes",
    () => tools.filled,
    (on) => tools.set({ filled: on }),
  );
  const along = checkField(
    "Limbs follow",
    () => tools.along,
    (on) => tools.set({ along: on }),
  );

  function build() {
    const available = tools.available;
    if (!available.includes(tools.name)) tools.name = available[0];
    group.replaceChildren(...available.map((name) => toolButton(name, tools)));
    const posing = available[0] === "pose";
    paint.replaceChildren(
      ...(posing ? [along.node] : [size.node, filled.node, ...colours(board, tools)]),
    );
    update();
  }
  // a control that is used stays in the page, so that it keeps the focus
  function update() {
    for (const node of group.children) {
      const on = node.dataset.tool === tools.name;
      node.setAttribute("aria-checked", String(on));
      node.tabIndex = on ? 0 : -1;
    }
    for (const part of [size, filled, along]) part.show();
    const palette = board.selected.palette;
    const label = palette?.[tools.colours.label % palette.length]?.name;
    for (const node of paint.querySelectorAll("[data-class]")) {
      node.setAttribute("aria-checked", String(node.dataset.class === label));
    }
    undo.disabled = !board.history.canUndo;
    redo.disabled = !board.history.canRedo;
  }
  let kept = null;
  board.addEventListener("select", () => {
    const now = `${board.selected.id} ${board.target}`;
    if (now !== kept) {
      kept = now;
      tools.filled = board.target === "region" || board.selected.filled;
      tools.joint = null;
    }
    build();
  });
  board.addEventListener("structure", build);
  board.history.addEventListener("change", update);
  tools.addEventListener("change", update);
  build();
}

function clearSurface(board) {
  const layer = board.selected;
  board.edit(layer, () => {
    if (board.target === "region") {
      layer.region = null;
      layer.version++;
    } else {
      layer.clear();
    }
  });
}

function toolButton(name, tools) {
  const [label, key, shape] = TOOLS[name];
  return el(
    "button",
    {
      type: "button",
      class: "tool",
      role: "radio",
      "data-tool": name,
      "aria-label": label,
      title: `${label} (${key.toUpperCase()})`,
      on: { click: () => tools.set({ name }), keydown: (event) => arrows(event, tools) },
    },
    icon(shape),
  );
}

function arrows(event, tools) {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const names = tools.available;
  tools.set({ name: names[(names.indexOf(tools.name) + by + names.length) % names.length] });
  $(`[data-tool="${tools.name}"]`).focus();
}

function sizeField(tools) {
  const input = el("input", {
    type: "range",
    id: "pen-size",
    min: 1,
    max: 60,
    on: { input: () => tools.set({ size: Number(input.value) }) },
  });
  const shown = el("output", { for: "pen-size" });
  const node = el(
    "label",
    { class: "inline pen", title: "Size of the pen: [ and ]" },
    "Pen",
    input,
    shown,
  );
  return {
    node,
    show: () => {
      input.value = tools.size;
      shown.textContent = `${tools.size} px`;
    },
  };
}

function checkField(label, read, write) {
  const input = el("input", { type: "checkbox", on: { change: () => write(input.checked) } });
  return {
    node: el("label", { class: "check" }, input, el("span", { text: label })),
    show: () => {
      input.checked = read();
    },
  };
}

function colours(board, tools) {
  const layer = board.selected;
  if (board.target === "region" || layer.kind === "mask") return [];
  if (layer.palette) return [classes(layer, tools)];
  if (layer.conditionName === "depth") return [level(tools)];
  if (!layer.coloured) return [];
  const key = layer.conditionName === "normal" ? "normal" : "picture";
  const input = el("input", {
    type: "color",
    value: tools.colours[key],
    on: {
      input: () => {
        tools.colours[key] = input.value;
      },
    },
  });
  return [el("label", { class: "inline" }, "Colour", input)];
}

function level(tools) {
  const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
  const input = el("input", {
    type: "range",
    min: 0,
    max: 255,
    value: tools.colours.level,
    on: {
      input: () => {
        tools.colours.level = Number(input.value);
        swatch.style.background = grey(input.value);
      },
    },
  });
  swatch.style.background = grey(tools.colours.level);
  return el(
    "label",
    { class: "inline", title: "Black is far, white is near" },
    "Far",
    input,
    "near",
    swatch,
  );
}

/** The classes as named swatches; a long list becomes a search field. */
function classes(layer, tools) {
  const pick = (index) => tools.set({ colours: { ...tools.colours, label: index } });
  const now = tools.colours.label % layer.palette.length;
  if (layer.palette.length > 24) return longList(layer, now, pick);
  return el(
    "div",
    { class: "classes", role: "radiogroup", "aria-label": "Class" },
    ...layer.palette.map((entry, index) => {
      const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.background = entry.css;
      return el(
        "button",
        {
          type: "button",
          class: "class",
          role: "radio",
          "data-class": entry.name,
          on: { click: () => pick(index) },
        },
        swatch,
        entry.name,
      );
    }),
  );
}

function longList(layer, now, pick) {
  const select = el(
    "select",
    { "aria-label": "Class", on: { change: () => pick(Number(select.value)) } },
    ...layer.palette.map((entry, index) => el("option", { value: index, text: entry.name })),
  );
  select.value = now;
  const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = layer.palette[now].css;
  return el("label", { class: "inline" }, "Class", select, swatch);
}
