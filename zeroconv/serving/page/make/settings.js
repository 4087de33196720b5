/** The form of settings: its fields, its values as a body of /generate, and back. */
import { $, button, choice, el, field } from "../dom.js";
import { baseNamed, offer, pairs } from "./models.js";

const STORED = "zeroconv.settings";
const CONTENT = [["original", "the picture"], ["fill", "its colours, blurred"], ["noise", "noise"]];
const GUIDANCE = [["", "the base's own"], ["both", "both halves"], ["cond", "the prompt's half"], ["resolution", "stronger at coarse levels"], ["guess", "guess (empty prompts)"]];

/** name → control of the form. Values are read and written by `read` and `write`. */
const inputs = {};

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

export function buildSettings(changed, sizeChanged) {
  const box = $("#settings-fields");
  const limits = offer.info.limits ?? {};
  const side = { min: 8, max: limits.side ?? 4096, step: 8 };
  box.replaceChildren(
    el("div", { class: "fields" },
      select("base", "Base", pairs(offer.bases)),
      el("div", { class: "pair" }, number("width", "Width", side), number("height", "Height", side)),
      el("div", { class: "pair" },
        number("steps", "Steps", { min: 1, max: limits.steps ?? 150, value: 20 }),
        number("cfg", "CFG", { min: 1, max: 30, step: "any", placeholder: "base's" })),
      seedField(),
      el("div", { class: "pair" },
        select("sampler", "Sampler", pairs(offer.samplers)),
        select("schedule", "Schedule", [["", "the base's own"], ...pairs(offer.schedules)])),
      number("count", "Pictures at once", { min: 1, max: limits.count ?? 16, value: 1 }),
    ),
    part("LoRAs", loraFields(changed)),
    part("From the picture layer", imageFields()),
    part("Second pass", el("div", { class: "fields" },
      check("hires_on", "Enlarge and refine"),
      el("div", { class: "pair" },
        number("hires_factor", "Factor", { min: 1, max: 4, step: 0.25, value: 2 }),
        number("hires_strength", "Strength", { min: 0.05, max: 1, step: 0.05, value: 0.7 })),
      el("div", { class: "pair" },
        number("hires_steps", "Steps", { min: 1, max: 150, placeholder: "as above" }),
        select("hires_upscaler", "Enlarge by", [["latent", "latent"], ["lanczos", "Lanczos"]])),
    )),
    part("Guidance", el("div", { class: "fields" },
      select("guidance", "Controls act on", GUIDANCE),
      el("div", { class: "pair" },
        number("guidance_rescale", "Rescale", { min: 0, max: 1, step: 0.05, value: 0 }),
        number("eta", "Eta", { min: 0, max: 1, step: 0.05, placeholder: "sampler's" })),
      el("div", { class: "pair" },
        number("clip_skip", "CLIP skip", { min: 0, max: 12, placeholder: "none" }),
        select("noise", "Noise of", [["cpu", "zeroconv"], ["gpu", "a graphics card"], ["batch", "ComfyUI"]])),
    )),
  );
  inputs.sampler.value = "unipc";
  box.addEventListener("change", (event) => {
    if (event.target === inputs.base) baseChanged();
    if ([inputs.base, inputs.width, inputs.height].includes(event.target)) sizeChanged(size());
    store();
    changed();
  });
  box.addEventListener("input", () => changed());
  $("#settings").addEventListener("submit", (event) => event.preventDefault());
  baseChanged();
  restore();
}

const part = (title, content) =>
  el("details", { class: "part" }, el("summary", { text: title }), content);

function seedField() {
  const input = el("input", { type: "number", id: "s-seed", min: -1, step: 1, value: -1 });
  inputs.seed = input;
  const random = button("Random", () => put(input, -1), { kind: "quiet", title: "−1: a new seed each time" });
  return el("div", { class: "field" },
    el("label", { for: "s-seed", text: "Seed" }), el("div", { class: "row" }, input, random));
}

function put(input, value) {
  input.value = value;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

function imageFields() {
  return el("div", { class: "fields" },
    el("p", { class: "hint", text: "Used while the picture layer holds something and is in use." }),
    number("strength", "Strength", { min: 0.05, max: 1, step: 0.05, placeholder: "base's" },
      "How much of the picture is made anew."),
    check("only_masked", "Work on the masked area alone"),
    el("div", { class: "pair" },
      number("padding", "Padding", { min: 0, max: 512, value: 32 }),
      number("mask_blur", "Mask blur", { min: 0, max: 64, step: "any", placeholder: "auto" })),
    select("masked_content", "Masked area starts from", CONTENT),
    el("fieldset", {}, el("legend", { text: "New ground beside the picture (pixels)" }),
      el("div", { class: "pair" },
        ...["left", "right", "top", "bottom"].map((edge) => number(`expand_${edge}`, edge, { min: 0, max: 1024, step: 8, value: 0 })))),
  );
}

// ---------------------------------------------------------------- LoRAs

let loras = [];

function loraFields(changed) {
  const list = el("div", { class: "fields", id: "lora-list" });
  if (!offer.loras.length) {
    return el("p", { class: "hint", text: "The server was started without --lora-dir. A base such as playroom-pencil holds one." });
  }
  const add = choice([["", "Add a LoRA…"], ...pairs(offer.loras)], "", {
    change: (event) => {
      if (event.target.value) loras.push({ name: event.target.value, scale: 1 });
      event.target.value = "";
      showLoras(changed);
    },
  });
  add.setAttribute("aria-label", "Add a LoRA");
  return el("div", { class: "fields" }, list, add);
}

function showLoras(changed = () => {}) {
  const list = $("#lora-list");
  if (!list) return;
  list.replaceChildren(...loras.map((lora) => el("div", { class: "row" },
    field(lora.name, el("input", {
      type: "number", min: -4, max: 4, step: 0.05, value: lora.scale,
      on: { change: (event) => { lora.scale = Number(event.target.value); changed(); } },
    })),
    button("Remove", () => { loras = loras.filter((other) => other !== lora); showLoras(changed); changed(); }, { kind: "quiet" }),
  )));
}

// ---------------------------------------------------------------- values

export const size = () => ({ width: Number(inputs.width.value) || 128, height: Number(inputs.height.value) || 128 });

function baseChanged() {
  const side = baseNamed(inputs.base.value)?.resolution ?? 512;
  inputs.width.value = side;
  inputs.height.value = side;
}

const optional = (input) => (input.value === "" ? undefined : Number(input.value));

/** The form's part of a /generate body; `image`: whether the picture layer is sent. */
export function readSettings(image) {
  const body = {
    base: inputs.base.value, prompt: $("#prompt").value.trim(), negative: $("#negative").value.trim(),
    steps: Number(inputs.steps.value), cfg: optional(inputs.cfg), seed: Number(inputs.seed.value || -1),
    count: Number(inputs.count.value), ...size(), sampler: inputs.sampler.value,
    schedule: inputs.schedule.value || undefined, guidance: inputs.guidance.value || undefined,
    clip_skip: optional(inputs.clip_skip), eta: optional(inputs.eta), noise: inputs.noise.value,
    guidance_rescale: Number(inputs.guidance_rescale.value), previews: true,
  };
  if (loras.length) body.loras = loras.map((lora) => ({ ...lora }));
  if (inputs.hires_on.checked) {
    body.hires = {
      factor: Number(inputs.hires_factor.value), strength: Number(inputs.hires_strength.value),
      steps: optional(inputs.hires_steps), upscaler: inputs.hires_upscaler.value,
    };
  }
  if (image) {
    body.strength = optional(inputs.strength);
    const sides = ["left", "right", "top", "bottom"].map((edge) => [edge, Number(inputs[`expand_${edge}`].value)]);
    const grown = sides.filter(([, pixels]) => pixels > 0);
    if (grown.length) body.expand = Object.fromEntries(grown);
  }
  return body;
}

/** What is said of the mask, where one is sent. */
export const maskSettings = () => ({
  only_masked: inputs.only_masked.checked, padding: Number(inputs.padding.value),
  mask_blur: optional(inputs.mask_blur), masked_content: inputs.masked_content.value,
});

/** Writes a /generate body into the form; returns notes on what has no field. */
export function writeSettings(body) {
  const notes = [];
  $("#prompt").value = body.prompt ?? "";
  $("#negative").value = body.negative ?? "";
  $("#negative-part").open = Boolean(body.negative);
  for (const name of ["base", "sampler", "schedule", "guidance"]) choose(name, body[name], notes);
  if (body.base === undefined || body.base === null) baseChanged();
  for (const name of ["width", "height"]) if (body[name]) inputs[name].value = body[name];
  for (const name of ["steps", "seed", "count"]) if (body[name] !== undefined && body[name] !== null) inputs[name].value = body[name];
  for (const name of ["cfg", "clip_skip", "eta", "strength", "mask_blur"]) inputs[name].value = body[name] ?? "";
  inputs.padding.value = body.padding ?? 32;
  inputs.guidance_rescale.value = body.guidance_rescale ?? 0;
  choose("noise", body.noise ?? "cpu", notes);
  inputs.only_masked.checked = Boolean(body.only_masked);
  choose("masked_content", body.masked_content ?? "original", notes);
  for (const edge of ["left", "right", "top", "bottom"]) inputs[`expand_${edge}`].value = body.expand?.[edge] ?? 0;
  const hires = body.hires;
  inputs.hires_on.checked = Boolean(hires);
  if (hires) {
    inputs.hires_factor.value = hires.factor ?? 2;
    inputs.hires_strength.value = hires.strength ?? 0.7;
    inputs.hires_steps.value = hires.steps ?? "";
    choose("hires_upscaler", hires.upscaler ?? "latent", notes);
  }
  loras = (body.loras ?? []).map((lora) => ({ ...lora }));
  showLoras();
  store();
  return notes;
}

/** Selects a value; one that is not listed becomes a note. */
function choose(name, value, notes) {
  const input = inputs[name];
  const wanted = value ?? (name === "base" ? offer.info.base : name === "sampler" ? "unipc" : "");
  if ([...input.options].some((option) => option.value === wanted)) input.value = wanted;
  else if (wanted) notes.push(`This server has no ${name} "${wanted}"; ${input.value || "the default"} stays.`);
}

export const setSeed = (seed) => put(inputs.seed, seed);
export const seed = () => Number(inputs.seed.value || -1);

function store() {
  const values = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.type === "checkbox" ? input.checked : input.value]));
  values.prompt = $("#prompt").value;
  values.negative = $("#negative").value;
  try {
    localStorage.setItem(STORED, JSON.stringify(values));
  } catch { /* a browser without storage forgets the form */ }
}

export const storeSettings = store;

function restore() {
  let values = {};
  try {
    values = JSON.parse(localStorage.getItem(STORED) ?? "{}");
  } catch { /* as above */ }
  for (const [name, value] of Object.entries(values)) {
    const input = inputs[name] ?? (name === "prompt" || name === "negative" ? $(`#${name}`) : null);
    if (!input) continue;
    if (input.type === "checkbox") input.checked = value;
    else if (input.tagName !== "SELECT" || [...input.options].some((option) => option.value === value)) input.value = value;
  }
}
