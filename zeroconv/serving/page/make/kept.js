/** The canvas over a reload: its layers are kept in the browser's session storage. */
import { later, toast } from "../dom.js";
import { fromJson, toJson } from "../canvas/openpose.js";
import { opened, painted } from "../canvas/pictures.js";
import { conditionNamed, controlNamed } from "./models.js";

const STORED = "zeroconv.canvas";
let warned = false;

export function keep(board) {
  const save = later(800, () => {
    try {
      sessionStorage.setItem(STORED, JSON.stringify(written(board)));
    } catch {
      if (!warned) toast("The canvas is too large to be kept over a reload of the page.");
      warned = true;
    }
  });
  for (const event of ["change", "structure", "size"]) board.addEventListener(event, save);
}

function written(board) {
  return {
    size: [board.width, board.height],
    layers: board.layers
      .filter((layer) => layer.kind === "control" || !layer.empty)
      .map((layer) => ({
        kind: layer.kind,
        control: layer.control?.name,
        condition: layer.conditionName,
        used: layer.used,
        settings: layer.settings,
        options: layer.options,
        region: layer.regionUrl(),
        people: layer.people.length ? toJson(layer.people, board.width, board.height) : null,
        picture: layer.empty || layer.people.length ? null : layer.url(),
      })),
  };
}

/** Brings back what an earlier page of this tab had; false if there is nothing that fits. */
export async function restored(board) {
  let stored = null;
  try {
    stored = JSON.parse(sessionStorage.getItem(STORED) ?? "null");
  } catch {
    /* another version's, or no storage */
  }
  if (!stored?.layers?.length || stored.size[0] !== board.width || stored.size[1] !== board.height)
    return false;
  for (const one of stored.layers) {
    const layer = layerOf(one, board);
    if (!layer) continue;
    layer.used = one.used;
    Object.assign(layer.settings, one.settings);
    Object.assign(layer.options, one.options);
    if (one.people) {
      layer.people = fromJson(one.people, board.width, board.height).people;
      layer.redrawPeople();
    } else if (one.picture) {
      await layer.load(one.picture);
    }
    if (one.region) layer.region = painted(await opened(one.region), board.width, board.height);
  }
  board.select(board.controls.at(-1) ?? board.picture);
  board.changed(board.selected);
  return true;
}

function layerOf(one, board) {
  if (one.kind !== "control") return one.kind === "mask" ? board.mask : board.picture;
  const control = controlNamed(one.control);
  return control ? board.addControl(control, conditionNamed(one.condition) ?? null) : null;
}
