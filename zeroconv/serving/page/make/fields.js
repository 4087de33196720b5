/** The fields of the settings, and the LoRAs. Their values are read and written by settings.js. */
import { $, button, choice, el, field } from "../dom.js";
import { fastChoices, offer, pairs } from "./models.js";

const CONTENT = [
  ["original", "the picture"],
  ["fill", "its colours, blurred"],
  ["noise", "noise"],
];
const GUIDANCE = [
  ["", "the base's own"],
  ["both", "both halves"],
  ["cond", "the prompt's half"],
  ["resolution", "stronger at coarse levels"],
  ["guess", "guess (empty prompts)"],
];

/** name → control of the form. */
export const inputs = {};

function number(name, label, properties, note) {
  const input = el("input", { type: "number", id: `s-${name}`, name, ...properties });
  inputs[name] = input;
  return field(label, input, note);
}

function select(name, label, options) {
  const input = choice(options);
  input.id = `s-${name}`;
  input.name = name;
  inputs[name] = input;
  return field(label, input);
}

function check(name, label) {
  const input = el("input", { type: "checkbox", id: `s-${name}`, name });
  inputs[name] = input;
  return el("label", { class: "check" }, input, el("span", { text: label }));
}

export function buildFields(changed) {
  const box = $("#settings-fields");
  const limits = offer.info.limits ?? {};
  const side = { min: 8, max: limits.side ?? 4096, step: 8 };
  box.replaceChildren(
    el(
      "div",
      { class: "fields" },
      select("base", "Base", pairs(offer.bases)),
      el(
        "div",
        { class: "pair" },
        number("width", "Width", side),
        number("height", "Height", side),
      ),
      el(
        "div",
        { class: "pair" },
        number("steps", "Steps", { min: 1, max: limits.steps ?? 150, value: 20 }),
        number("cfg", "CFG", { min: 1, max: 30, step: "any", placeholder: "base's" }),
      ),
      seedField(),
      el(
        "div",
        { class: "pair" },
        select("sampler", "Sampler", pairs(offer.samplers)),
        select("schedule", "Schedule", [["", "base's own"], ...pairs(offer.schedules)]),
      ),
      select("fast", "Faster, at a small loss", fastChoices()),
      number("count", "Pictures at once", { min: 1, max: limits.count ?? 16, value: 1 }),
    ),
    part("LoRAs", loraFields(changed)),
    part("From the picture layer", imageFields()),
    part(
      "Second pass",
      el(
        "div",
        { class: "fields" },
        check("hires_on", "Enlarge and refine"),
        el(
          "div",
          { class: "pair" },
          number("hires_factor", "Factor", { min: 1, max: 4, step: 0.25, value: 2 }),
          number("hires_strength", "Strength", { min: 0.05, max: 1, step: 0.05, value: 0.7 }),
        ),
        el(
          "div",
          { class: "pair" },
          number("hires_steps", "Steps", { min: 1, max: 150, placeholder: "as above" }),
          select("hires_upscaler", "Enlarge by", [
            ["latent", "latent"],
            ["lanczos", "Lanczos"],
          ]),
        ),
      ),
    ),
    part(
      "Guidance",
      el(
        "div",
        { class: "fields" },
        select("guidance", "Controls act on", GUIDANCE),
        el(
          "div",
          { class: "pair" },
          number("guidance_rescale", "Rescale", { min: 0, max: 1, step: 0.05, value: 0 }),
          number("eta", "Eta", { min: 0, max: 1, step: 0.05, placeholder: "sampler's" }),
        ),
        el(
          "div",
          { class: "pair" },
          number("clip_skip", "CLIP skip", { min: 0, max: 12, placeholder: "none" }),
          select("noise", "Noise of", [
            ["cpu", "zeroconv"],
            ["gpu", "a graphics card"],
            ["batch", "ComfyUI"],
          ]),
        ),
      ),
    ),
  );
  inputs.sampler.value = "unipc";
  return box;
}

const part = (title, content) =>
  el("details", { class: "part" }, el("summary", { text: title }), content);

function seedField() {
  const input = el("input", { type: "number", id: "s-seed", min: -1, step: 1, value: -1 });
  inputs.seed = input;
  const random = button("Random", () => put(input, -1), {
    kind: "quiet",
    title: "−1: a new seed each time",
  });
  return el(
    "div",
    { class: "field" },
    el("label", { for: "s-seed", text: "Seed" }),
    el("div", { class: "row" }, input, random),
  );
}

export function put(input, value) {
  input.value = value;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

function imageFields() {
  return el(
    "div",
    { class: "fields" },
    el("p", { class: "hint", text: "Used while the picture layer holds something and is in use." }),
    number(
      "strength",
      "Strength",
      { min: 0.05, max: 1, step: 0.05, placeholder: "base's" },
      "How much of the picture is made anew.",
    ),
    check("only_masked", "Work on the masked area alone"),
    el(
      "div",
      { class: "pair" },
      number("padding", "Padding", { min: 0, max: 512, value: 32 }),
      number("mask_blur", "Mask blur", { min: 0, max: 64, step: "any", placeholder: "auto" }),
    ),
    select("masked_content", "Masked area starts from", CONTENT),
    el(
      "fieldset",
      {},
      el("legend", { text: "New ground beside the picture (pixels)" }),
      el(
        "div",
        { class: "pair" },
        ...["left", "right", "top", "bottom"].map((edge) =>
          number(`expand_${edge}`, edge, { min: 0, max: 1024, step: 8, value: 0 }),
        ),
      ),
    ),
  );
}

// ---------------------------------------------------------------- LoRAs

export const chosen = { loras: [] }; // {name, scale}

function loraFields(changed) {
  const list = el("div", { class: "fields", id: "lora-list" });
  if (!offer.loras.length) {
    return el("p", {
      class: "hint",
      text: "The server was started without --lora-dir. A base such as playroom-pencil holds one.",
    });
  }
  const add = choice([["", "Add a LoRA…"], ...pairs(offer.loras)], "", {
    change: (event) => {
      if (event.target.value) chosen.loras.push({ name: event.target.value, scale: 1 });
      event.target.value = "";
      showLoras(changed);
    },
  });
  add.setAttribute("aria-label", "Add a LoRA");
  return el("div", { class: "fields" }, list, add);
}

export function showLoras(changed = () => {}) {
  const list = $("#lora-list");
  if (!list) return;
  list.replaceChildren(
    ...chosen.loras.map((lora) =>
      el(
        "div",
        { class: "row" },
        field(
          lora.name,
          el("input", {
            type: "number",
            min: -4,
            max: 4,
            step: 0.05,
            value: lora.scale,
            on: {
              change: (event) => {
                lora.scale = Number(event.target.value);
                changed();
              },
            },
          }),
        ),
        button(
          "Remove",
          () => {
            chosen.loras = chosen.loras.filter((other) => other !== lora);
            showLoras(changed);
            changed();
          },
          { kind: "quiet" },
        ),
      ),
    ),
  );
}
