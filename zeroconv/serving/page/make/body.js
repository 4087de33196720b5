/** The canvas and the form → a body of /generate; and back. */
import { dataUrl, opened, painted } from "../canvas/pictures.js";
import { fromJson, toJson } from "../canvas/openpose.js";
import { conditionOf, controlNamed } from "./models.js";
import { maskSettings, readSettings, size, writeSettings } from "./settings.js";

/** The body that asks for what is on the canvas. */
export function bodyOf(board) {
  const image = board.picture.used && !board.picture.empty;
  const body = readSettings(image);
  if (image) body.image = board.picture.url();
  if (image && board.mask.used && !board.mask.empty) {
    Object.assign(body, maskSettings(), { mask: board.mask.url() });
  }
  body.controls = board.controls
    .filter((layer) => sent(layer))
    .map((layer) => controlBody(layer, board));
  return body;
}

/** Layers that take part: in use, with a control, and not empty. */
export const sent = (layer) => layer.used && layer.control && !layer.empty;

function controlBody(layer, board) {
  const { scale, start, end, mode, curve, resize, passes, kind } = layer.settings;
  const body = { control: layer.control.name, scale, start, end, resize, passes };
  if (mode) body.mode = mode;
  if (curve) body.curve = curve;
  if (kind) body.kind = kind;
  const region = layer.regionUrl();
  if (region) body.region = region;
  if (layer.isPose && layer.people.length)
    body.pose_json = toJson(layer.people, board.width, board.height);
  else body.hint = layer.url();
  return body;
}

/** The same string for the same request. */
export const signature = (body) => JSON.stringify({ ...body, previews: undefined });

/** Puts a body into the form and onto the canvas. Pictures in it are addresses or data URLs.
 * Returns notes on what could not be used. */
export async function useBody(body, board) {
  const notes = writeSettings(body);
  const { width, height } = size();
  board.reset();
  await board.resize(width, height);
  if (body.image) await board.picture.load(await dataUrl(body.image));
  if (body.mask) await board.mask.load(await dataUrl(body.mask));
  for (const unit of body.controls ?? []) {
    const control = controlNamed(unit.control);
    if (!control) {
      notes.push(`This server has no control "${unit.control}".`);
      continue;
    }
    const layer = board.addControl(control, conditionOf(control));
    for (const name of Object.keys(layer.settings)) {
      if (unit[name] !== undefined && unit[name] !== null) layer.settings[name] = unit[name];
    }
    if (layer.settings.curve === "constant") layer.settings.curve = "";
    await fill(layer, unit, board, notes);
  }
  if (!board.controls.length) board.select(board.picture);
  board.history.clear();
  board.changed(board.selected);
  return notes;
}

async function fill(layer, unit, board, notes) {
  if (unit.pose_json && layer.isPose) {
    const { people, notes: more } = fromJson(unit.pose_json, board.width, board.height);
    layer.people = people;
    layer.redrawPeople();
    notes.push(...more);
  } else if (unit.hint) {
    await layer.load(await dataUrl(unit.hint));
  }
  if (unit.region) {
    layer.region = painted(await opened(await dataUrl(unit.region)), board.width, board.height);
    layer.version++;
  }
}
