/** Drawing a hint from a picture: the picture, the options, and the hint, before generating. */
import { newest } from "../api.js";
import { button, el, field, guarded, toast } from "../dom.js";
import { dataUrl } from "../canvas/pictures.js";
import { fromJson } from "../canvas/openpose.js";

/** The panel of a control layer; empty for conditions that no annotator draws. */
export function annotatePanel(layer, board, result) {
  const condition = layer.condition;
  if (!condition || condition.needs === "drawing")
    return el("p", { class: "hint", text: noAnnotator(condition) });
  const upload = el("input", {
    type: "file",
    accept: "image/*",
    class: "unseen",
    "data-annotate": "",
    on: {
      change: () => {
        if (upload.files[0]) from(upload.files[0]);
        upload.value = "";
      },
    },
  });
  const from = (source) =>
    guarded(async () => {
      const url = await dataUrl(source);
      await annotate(layer, board, url);
    });
  return el(
    "fieldset",
    { class: "annotate" },
    el("legend", { text: `Draw the ${condition.label ?? condition.name} hint from a picture` }),
    el(
      "div",
      { class: "row wrap" },
      el("label", { class: "button" }, "Choose a picture", upload),
      button("Picture layer", () =>
        board.picture.empty ? toast("The picture layer is empty.") : from(board.picture.url()),
      ),
      button("Result", () => (result() ? from(result()) : toast("There is no result yet."))),
    ),
    optionFields(layer, board),
    layer.source && preview(layer, board),
  );
}

function noAnnotator(condition) {
  if (!condition) return "This control names no condition: draw or upload its hint.";
  const name = condition.label ?? condition.name;
  return `Draw or upload the hint: no annotator for ${name} is installed on this server.`;
}

/** Asks the server for the hint of a picture, and shows it on the canvas. One step of undo. */
export async function annotate(layer, board, url) {
  layer.drawHint ??= newest("/annotate");
  const answer = await layer.drawHint({
    condition: layer.conditionName,
    picture: url,
    options: layer.options,
    width: board.width,
    height: board.height,
  });
  if (!answer) return;
  await board.edit(layer, async () => {
    layer.source = url;
    await layer.load(answer.hint);
    if (answer.pose && layer.isPose) {
      const { people, notes } = fromJson(answer.pose, board.width, board.height);
      layer.people = people;
      layer.file = null;
      for (const note of notes) toast(note);
    }
    layer.source = url;
  });
  for (const note of answer.notes ?? []) toast(note);
}

/** The picture beside the hint that was drawn from it. */
function preview(layer, board) {
  return el(
    "div",
    { class: "row before-after" },
    el(
      "figure",
      {},
      el("img", { src: layer.source, alt: "The picture that the hint was drawn from" }),
      el("figcaption", { text: "picture" }),
    ),
    el(
      "figure",
      {},
      el("img", { src: layer.url(), alt: "The hint that was drawn", id: "hint-preview" }),
      el("figcaption", { text: "hint" }),
    ),
    button("Draw it again", () => guarded(() => annotate(layer, board, layer.source)), {
      icon: "reuse",
      kind: "quiet",
    }),
  );
}

function optionFields(layer, board) {
  const options = Object.entries(layer.condition.options ?? {});
  if (!options.length) return null;
  return el(
    "details",
    { class: "plain" },
    el("summary", { text: "Options" }),
    el(
      "div",
      { class: "triple" },
      ...options.map(([name, about]) => optionField(layer, board, name, about)),
    ),
  );
}

/** `about`: the default, or {default, min, max, step, label}. */
function optionField(layer, board, name, about) {
  const facts = about !== null && typeof about === "object" ? about : { default: about };
  const redraw = () => layer.source && guarded(() => annotate(layer, board, layer.source));
  const input = el("input", {
    type: "number",
    step: facts.step ?? "any",
    min: facts.min ?? facts.minimum,
    max: facts.max ?? facts.maximum,
    placeholder: facts.default,
    value: layer.options[name] ?? facts.default ?? "",
    on: {
      change: () => {
        if (input.value === "") delete layer.options[name];
        else layer.options[name] = Number(input.value);
        redraw();
      },
    },
  });
  return field(facts.label ?? name, input);
}
