/** Three worked examples for the playroom: a scribble, a pose, and a painted room. */
import { blank, pen } from "../canvas/pictures.js";
import { drawPeople, Person } from "../canvas/pose.js";
import { ellipse, polygon, polyline, rectangle } from "../canvas/raster.js";
import { el } from "../dom.js";
import { conditionOf, controlNamed, offer } from "./models.js";

// lines and points in pixels of a canvas of 128
const WAVING = [
  [98.6, 19.7],
  [95.7, 29.7],
  [83.4, 31.1],
  [68.5, 28.6],
  [63.6, 13.6],
  [107.9, 31.1],
  [111.7, 45.7],
  [113.4, 60],
  [89, 57.6],
  [85.5, 78.4],
  [84.2, 96.8],
  [101.3, 57.5],
  [102.6, 78.2],
  [102.4, 96.6],
  [94.7, 16.8],
  [102, 16.8],
  [88.3, 20.9],
  [104.2, 21],
];
const WALKING = [
  [54.5, 32.2],
  [47.9, 39.6],
  [42, 40.6],
  [46.3, 52.7],
  [53, 64.2],
  [53.2, 41],
  [49.6, 51.1],
  [49, 61.8],
  [45.2, 63.8],
  [38.3, 79.5],
  [29.4, 89.7],
  [51.2, 62.4],
  [58.6, 78.4],
  [63.5, 94.2],
  [52.1, 29.5],
  [55, 30],
  [44.7, 31.9],
  [51.9, 32.9],
];

const person = (points, dx) => new Person(points.map(([x, y]) => [x + dx, y, 1]));

function scribble(context, unit) {
  context.fillStyle = "#fff";
  const at = (x, y) => ({ x: x * unit, y: y * unit });
  const line = (...points) =>
    polyline(
      context,
      points.map(([x, y]) => [x * unit, y * unit]),
      1.5 * unit,
    );
  ellipse(context, at(56, 38), at(104, 86), 1.5 * unit, false);
  line([0, 70], [56, 70]);
  line([104, 70], [128, 70]);
  line([18, 60], [40, 60], [40, 86], [18, 86], [18, 60]);
}

function room(context, unit, palette) {
  const colour = (name) => palette.find((entry) => entry.name === name)?.css ?? palette[0].css;
  const at = (x, y) => ({ x: x * unit, y: y * unit });
  const area = (name, work) => {
    context.fillStyle = colour(name);
    work();
  };
  area("wall", () => rectangle(context, at(0, 0), at(128, 128), 0, true));
  area("floor", () => rectangle(context, at(0, 72), at(128, 128), 0, true));
  area("cone", () =>
    polygon(
      context,
      [
        [30, 44],
        [14, 92],
        [22, 96],
        [38, 96],
        [46, 92],
      ].map(([x, y]) => [x * unit, y * unit]),
    ),
  );
  area("cylinder", () => rectangle(context, at(58, 52), at(80, 96), 0, true));
  area("ball", () => ellipse(context, at(86, 64), at(120, 98), 0, true));
}

export const EXAMPLES = [
  {
    name: "Follow a scribble",
    control: "scribble",
    seed: 4,
    prompt:
      "a small yellow cube and a large purple ball on a wooden floor, a pale blue wall behind",
    about: "Broad strokes become a ball and a cube. Draw more and generate again.",
  },
  {
    name: "Pose people",
    control: "pose",
    seed: 4,
    prompt:
      "a large person in red walking and a large person in yellow waving " +
      "on a blue carpet in front of a pale blue wall",
    about: "Two skeletons become two people. Drag a hand and generate again.",
    people: () => [person(WALKING, -14), person(WAVING, 0)],
  },
  {
    name: "Paint a room by classes",
    control: "segmentation",
    seed: 1,
    prompt:
      "a large green cone, a large red cylinder and a large purple ball " +
      "on a blue carpet in front of a beige wall",
    about: "Each colour names what stands there. Pick a class and paint.",
  },
];

function draw(example, context, unit) {
  if (example.control === "scribble") scribble(context, unit);
  else if (example.control === "pose") drawPeople(context, scaled(example.people(), unit));
  else room(context, unit, conditionOf(controlNamed("segmentation")).palette);
}

function scaled(people, unit) {
  people.forEach((one) => one.scale(unit, unit));
  return people;
}

/** The examples whose controls this server has. */
export const available = () =>
  EXAMPLES.filter((example) => {
    const control = controlNamed(example.control);
    return control && conditionOf(control) && offer.bases.some((base) => base.name === "playroom");
  });

/** Cards in `list`; a click calls `choose` with the example. */
export function showExamples(list, choose) {
  list.replaceChildren(
    ...available().map((example) => {
      const picture = blank(128, 128, "#000");
      draw(example, pen(picture), 1);
      picture.setAttribute("aria-hidden", "true");
      return el(
        "li",
        {},
        el(
          "button",
          { type: "button", "data-example": example.control, on: { click: () => choose(example) } },
          picture,
          el("span", {}, el("b", { text: example.name }), el("span", { text: example.about })),
        ),
      );
    }),
  );
}

/** Puts an example onto the board, which is 128 pixels a side. */
export function putExample(example, board) {
  const control = controlNamed(example.control);
  const layer = board.addControl(control, conditionOf(control));
  if (example.people) {
    layer.people = scaled(example.people(), board.width / 128);
    layer.redrawPeople();
  } else {
    draw(example, pen(layer.canvas), board.width / 128);
    layer.edited();
  }
  board.history.clear();
  board.changed(layer);
  board.select(layer);
  return layer;
}
