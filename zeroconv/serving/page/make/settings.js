/** The values of the settings: as a part of a /generate body, and back; kept in the browser. */
import { $, el } from "../dom.js";
import { buildFields, chosen, inputs, put, showLoras } from "./fields.js";
import { baseNamed, offer } from "./models.js";

const STORED = "zeroconv.settings";

/** Builds the form. `changed` hears every change, `sizeChanged` the canvas' new size. */
export function buildSettings(changed, sizeChanged) {
  const box = buildFields(changed);
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

export const size = () => ({
  width: Number(inputs.width.value) || 128,
  height: Number(inputs.height.value) || 128,
});

function baseChanged() {
  const side = baseNamed(inputs.base.value)?.resolution ?? 512;
  inputs.width.value = side;
  inputs.height.value = side;
}

const optional = (input) => (input.value === "" ? undefined : Number(input.value));

/** The form's part of a /generate body; `image`: whether the picture layer is sent. */
export function readSettings(image) {
  const body = {
    base: inputs.base.value,
    prompt: $("#prompt").value.trim(),
    negative: $("#negative").value.trim(),
    steps: Number(inputs.steps.value),
    cfg: optional(inputs.cfg),
    seed: Number(inputs.seed.value || -1),
    count: Number(inputs.count.value),
    ...size(),
    sampler: inputs.sampler.value,
    schedule: inputs.schedule.value || undefined,
    guidance: inputs.guidance.value || undefined,
    clip_skip: optional(inputs.clip_skip),
    eta: optional(inputs.eta),
    noise: inputs.noise.value,
    fast: inputs.fast.value || undefined,
    guidance_rescale: Number(inputs.guidance_rescale.value),
    previews: true,
  };
  if (chosen.loras.length) body.loras = chosen.loras.map((lora) => ({ ...lora }));
  if (inputs.hires_on.checked) {
    body.hires = {
      factor: Number(inputs.hires_factor.value),
      strength: Number(inputs.hires_strength.value),
      steps: optional(inputs.hires_steps),
      upscaler: inputs.hires_upscaler.value,
    };
  }
  if (image) {
    body.strength = optional(inputs.strength);
    const sides = ["left", "right", "top", "bottom"].map((edge) => [
      edge,
      Number(inputs[`expand_${edge}`].value),
    ]);
    const grown = sides.filter(([, pixels]) => pixels > 0);
    if (grown.length) body.expand = Object.fromEntries(grown);
  }
  return body;
}

/** What is said of the mask, where one is sent. */
export const maskSettings = () => ({
  only_masked: inputs.only_masked.checked,
  padding: Number(inputs.padding.value),
  mask_blur: optional(inputs.mask_blur),
  masked_content: inputs.masked_content.value,
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
  for (const name of ["steps", "seed", "count"])
    if (body[name] !== undefined && body[name] !== null) inputs[name].value = body[name];
  for (const name of ["cfg", "clip_skip", "eta", "strength", "mask_blur"])
    inputs[name].value = body[name] ?? "";
  inputs.padding.value = body.padding ?? 32;
  inputs.guidance_rescale.value = body.guidance_rescale ?? 0;
  choose("noise", body.noise ?? "cpu", notes);
  chooseFast(body.fast);
  inputs.only_masked.checked = Boolean(body.only_masked);
  choose("masked_content", body.masked_content ?? "original", notes);
  for (const edge of ["left", "right", "top", "bottom"])
    inputs[`expand_${edge}`].value = body.expand?.[edge] ?? 0;
  const hires = body.hires;
  inputs.hires_on.checked = Boolean(hires);
  if (hires) {
    inputs.hires_factor.value = hires.factor ?? 2;
    inputs.hires_strength.value = hires.strength ?? 0.7;
    inputs.hires_steps.value = hires.steps ?? "";
    choose("hires_upscaler", hires.upscaler ?? "latent", notes);
  }
  chosen.loras = (body.loras ?? []).map((lora) => ({ ...lora }));
  showLoras();
  store();
  return notes;
}

/** Selects a value; one that is not listed becomes a note. */
function choose(name, value, notes) {
  const input = inputs[name];
  const wanted = value ?? (name === "base" ? offer.info.base : name === "sampler" ? "unipc" : "");
  if ([...input.options].some((option) => option.value === wanted)) input.value = wanted;
  else if (wanted)
    notes.push(`This server has no ${name} "${wanted}"; ${input.value || "the default"} stays.`);
}

/** A preset by its name or its settings; other settings become a choice of their own. */
function chooseFast(value) {
  const preset = offer.fast.find(({ name, settings }) => value === name || value === settings);
  const wanted = preset?.name ?? value ?? "";
  if (![...inputs.fast.options].some((option) => option.value === wanted))
    inputs.fast.append(el("option", { value: wanted, text: wanted }));
  inputs.fast.value = wanted;
}

export const setSeed = (seed) => put(inputs.seed, seed);
export const seed = () => Number(inputs.seed.value || -1);

function store() {
  const values = Object.fromEntries(
    Object.entries(inputs).map(([name, input]) => [
      name,
      input.type === "checkbox" ? input.checked : input.value,
    ]),
  );
  values.prompt = $("#prompt").value;
  values.negative = $("#negative").value;
  try {
    localStorage.setItem(STORED, JSON.stringify(values));
  } catch {
    /* a browser without storage forgets the form */
  }
}

export const storeSettings = store;

function restore() {
  let values = {};
  try {
    values = JSON.parse(localStorage.getItem(STORED) ?? "{}");
  } catch {
    /* as above */
  }
  for (const [name, value] of Object.entries(values)) {
    const input = inputs[name] ?? (name === "prompt" || name === "negative" ? $(`#${name}`) : null);
    if (!input) continue;
    if (input.type === "checkbox") input.checked = value;
    else if (
      input.tagName !== "SELECT" ||
      [...input.options].some((option) => option.value === value)
    )
      input.value = value;
  }
}
