/** What the server offers: bases, controls, conditions, samplers; and its limits. */
import { get } from "../api.js";

export const offer = {
  info: {},
  bases: [],
  controls: [],
  loras: [],
  samplers: [],
  schedules: [],
  fast: [],
  conditions: [],
};

// the colours of the playroom's classes, for a server that names none
const PLAYROOM = [
  ["wall", "#787878"],
  ["floor", "#503232"],
  ["ball", "#ff3d06"],
  ["cube", "#3de6fa"],
  ["cylinder", "#08ff33"],
  ["cone", "#ff06e0"],
  ["person", "#96053d"],
];

export async function loadOffer() {
  const [info, models] = await Promise.all([get("/info"), get("/models")]);
  offer.info = info;
  Object.assign(offer, models);
  offer.conditions = models.conditions ?? models.annotators ?? [];
  for (const condition of offer.conditions) {
    condition.palette = palette(condition);
  }
}

function palette(condition) {
  const given = condition.palette;
  if (!given && condition.name !== "segmentation") return null;
  if (!given) return PLAYROOM.map(([name, css]) => ({ name, css }));
  const entries = Array.isArray(given) ? given : Object.entries(given);
  return entries.map((entry) => {
    const [name, colour] = Array.isArray(entry)
      ? entry
      : [entry.name ?? entry.label, entry.colour ?? entry.color ?? entry.rgb];
    return { name, css: hex(colour) };
  });
}

function hex(colour) {
  if (typeof colour === "string") return colour;
  return `#${colour.map((level) => level.toString(16).padStart(2, "0")).join("")}`;
}

export const conditionOf = (control) =>
  offer.conditions.find((condition) => condition.name === control?.condition) ?? null;
export const controlNamed = (name) => offer.controls.find((control) => control.name === name);
export const conditionNamed = (name) =>
  offer.conditions.find((condition) => condition.name === name);
/** Choices of what earlier steps computed and is used again. */
export const fastChoices = () => [
  ["", `as the server was started (${offer.info.fast ?? "off"})`],
  ["off", "off: every step computes all"],
  ...offer.fast.map(({ name, settings }) => [name, `${name}: ${settings}`]),
];
export const baseNamed = (name) => offer.bases.find((base) => base.name === name) ?? offer.bases[0];
/** Entries of a list that are strings or {name, label} → pairs for a select. */
export const pairs = (list) =>
  list.map((entry) =>
    typeof entry === "string" ? [entry, entry] : [entry.name, entry.label ?? entry.name],
  );
