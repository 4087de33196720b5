/** What can be done with a picture: use it, its settings, keep it, compare it. */
import { get, patch, post } from "../api.js";
import { dataUrl } from "../canvas/pictures.js";
import { guarded, toast } from "../dom.js";
import { annotate } from "./annotate.js";
import { useBody } from "./body.js";
import { compare } from "./compare.js";
import { nameOf } from "./layers.js";
import { load } from "./properties.js";

export function actions(studio) {
  return {
    reuse: (item) => reuse(studio, item.settings),
    asHint: (item) => asHint(studio, item),
    asPicture: (item) => asPicture(studio, item),
    show: (item) => studio.results.show(item),
    compare: (item) => {
      if (!studio.results.shown) toast("There is no result yet to compare with.");
      else compare(studio.results.shown, item);
    },
  };
}

export function shownActions(studio) {
  return [
    [
      "Keep",
      "star",
      (shown) => keepShown(studio, shown),
      "Put this live picture into the history",
      (shown) => shown.kept === false,
    ],
    ["As picture", "picture", (shown) => asPicture(studio, shown), "Go on from this picture"],
    [
      "As hint",
      "wand",
      (shown) => asHint(studio, shown),
      "Draw the selected control's hint from this picture",
    ],
    [
      "Settings",
      "reuse",
      (shown) => guarded(async () => reuse(studio, (await get(`/history/${shown.id}`)).settings)),
      "Use these settings again",
    ],
    [
      "Compare",
      "compare",
      (shown) => compareLast(studio, shown),
      "Compare with the picture before",
    ],
  ];
}

/** Live pictures pass; this one stays. */
function keepShown(studio, shown) {
  return guarded(async () => {
    await patch(`/history/${shown.id}`, { keep: true });
    shown.kept = true;
    studio.results.show(shown);
    await studio.gallery.load();
  });
}

function compareLast(studio, shown) {
  const other = studio.gallery.items.find((item) => item.id !== shown.id);
  if (other) compare(shown, other);
  else toast("There is no other picture yet.");
}

function reuse(studio, body) {
  if (!body) return toast("The history does not hold this picture.");
  return guarded(async () => {
    studio.live.turn(false);
    for (const note of await useBody(body, studio.board)) toast(note);
    studio.board.select(studio.board.controls[0] ?? studio.board.picture);
  });
}

async function asPicture({ board }, item) {
  board.select(board.picture);
  board.picture.used = true;
  await load(board.picture, board, item.picture);
}

async function asHint({ board }, item) {
  const layer = board.selected.kind === "control" ? board.selected : board.controls[0];
  if (!layer) return toast("Add a control layer first; its hint is then drawn from the picture.");
  board.select(layer);
  const drawn = layer.condition && layer.condition.needs !== "drawing";
  if (!drawn) {
    toast(`No annotator draws ${nameOf(layer)} here; the picture is taken as the finished hint.`);
    return load(layer, board, item.picture);
  }
  return guarded(async () => annotate(layer, board, await dataUrl(item.picture)));
}

export function readSettingsOf(studio, file) {
  return guarded(async () => {
    const answer = await post("/settings", { picture: await dataUrl(file) });
    await reuse(studio, answer.settings ?? answer);
    for (const note of answer.notes ?? []) toast(note);
    toast(`The settings of ${file.name} are in the form.`);
  });
}
