/** People of 18 points in OpenPose's order: what moves with what, and how they are drawn. */
import { disc, stroke } from "./raster.js";

export const JOINTS = [
  "nose",
  "neck",
  "right shoulder",
  "right elbow",
  "right wrist",
  "left shoulder",
  "left elbow",
  "left wrist",
  "right hip",
  "right knee",
  "right ankle",
  "left hip",
  "left knee",
  "left ankle",
  "right eye",
  "left eye",
  "right ear",
  "left ear",
];
export const LIMBS = [
  [1, 2],
  [1, 5],
  [2, 3],
  [3, 4],
  [5, 6],
  [6, 7],
  [1, 8],
  [8, 9],
  [9, 10],
  [1, 11],
  [11, 12],
  [12, 13],
  [1, 0],
  [0, 14],
  [14, 16],
  [0, 15],
  [15, 17],
];
const COLOURS = [
  [255, 0, 0],
  [255, 85, 0],
  [255, 170, 0],
  [255, 255, 0],
  [170, 255, 0],
  [85, 255, 0],
  [0, 255, 0],
  [0, 255, 85],
  [0, 255, 170],
  [0, 255, 255],
  [0, 170, 255],
  [0, 85, 255],
  [0, 0, 255],
  [85, 0, 255],
  [170, 0, 255],
  [255, 0, 255],
  [255, 0, 170],
  [255, 0, 85],
];
const MIRRORED = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16];
// what moves along with a joint
const BELOW = {
  0: [14, 15, 16, 17],
  2: [3, 4],
  3: [4],
  5: [6, 7],
  6: [7],
  8: [9, 10],
  9: [10],
  11: [12, 13],
  12: [13],
  14: [16],
  15: [17],
};
// shares of the person's height, from the neck: a person standing
const STANDING = [
  [0.02, -0.12],
  [0, 0],
  [-0.16, 0.02],
  [-0.21, 0.2],
  [-0.24, 0.39],
  [0.16, 0.02],
  [0.21, 0.2],
  [0.24, 0.39],
  [-0.09, 0.36],
  [-0.12, 0.63],
  [-0.13, 0.88],
  [0.09, 0.36],
  [0.11, 0.63],
  [0.12, 0.88],
  [-0.03, -0.15],
  [0.06, -0.15],
  [-0.1, -0.11],
  [0.11, -0.11],
];
/** Hands and face, and the joint that each hangs on. */
export const EXTRAS = {
  hand_left_keypoints_2d: 7,
  hand_right_keypoints_2d: 4,
  face_keypoints_2d: 0,
};

export const css = ([r, g, b], share = 1) =>
  `rgb(${Math.floor(r * share)}, ${Math.floor(g * share)}, ${Math.floor(b * share)})`;
export const jointColour = (joint) => css(COLOURS[joint]);

export class Person {
  /** points: 18 of [x, y, confidence], in pixels. extras: hands and face, [x, y, c] each. */
  constructor(points, extras = {}) {
    this.points = points;
    this.extras = extras;
  }

  static standing(x, y, height) {
    return new Person(STANDING.map(([dx, dy]) => [x + dx * height, y + dy * height, 1]));
  }

  /** Restores the class after structuredClone. */
  static of({ points, extras }) {
    return new Person(points, extras ?? {});
  }

  known(joint) {
    return this.points[joint][2] > 0;
  }

  scale(across, down) {
    for (const point of this.#all()) {
      point[0] *= across;
      point[1] *= down;
    }
  }

  move(dx, dy) {
    for (const point of this.#all()) {
      point[0] += dx;
      point[1] += dy;
    }
  }

  /** Moves a joint, and what hangs on it where `along` is true; hands follow wrists. */
  moveJoint(joint, dx, dy, along) {
    const moved = [joint, ...(along ? (BELOW[joint] ?? []) : [])];
    for (const number of moved) {
      this.points[number][0] += dx;
      this.points[number][1] += dy;
    }
    for (const [part, at] of Object.entries(EXTRAS)) {
      if (!moved.includes(at)) continue;
      for (const point of this.extras[part] ?? []) {
        point[0] += dx;
        point[1] += dy;
      }
    }
  }

  /** Turns the person round its own middle: left and right are exchanged. */
  mirror() {
    const xs = this.points.filter((point) => point[2] > 0).map((point) => point[0]);
    const sum = Math.min(...xs) + Math.max(...xs);
    for (const point of this.#all()) point[0] = sum - point[0];
    this.points = MIRRORED.map((joint) => this.points[joint]);
    const { hand_left_keypoints_2d: left, hand_right_keypoints_2d: right } = this.extras;
    this.extras.hand_left_keypoints_2d = right;
    this.extras.hand_right_keypoints_2d = left;
    delete this.extras.face_keypoints_2d; // its 70 points have an order of their own
  }

  copy(dx = 0) {
    const person = Person.of(structuredClone({ points: this.points, extras: this.extras }));
    person.move(dx, 0);
    return person;
  }

  #all() {
    return [...this.points, ...Object.values(this.extras).flatMap((part) => part ?? [])];
  }
}

export function drawPeople(context, people) {
  const { width, height } = context.canvas;
  const unit = Math.max(width, height) / 512;
  const broad = Math.max(2, Math.round(8 * unit)) / 2;
  const dot = Math.max(1, Math.round(4 * unit));
  for (const person of people) {
    LIMBS.forEach(([a, b], number) => {
      if (!(person.points[a][2] > 0 && person.points[b][2] > 0)) return;
      context.fillStyle = css(COLOURS[number], 0.6);
      stroke(context, end(person.points[a], broad), end(person.points[b], broad));
    });
  }
  for (const person of people) {
    person.points.forEach(([x, y, known], joint) => {
      if (!(known > 0)) return;
      context.fillStyle = css(COLOURS[joint]);
      disc(context, x, y, dot);
    });
    for (const [part, points] of Object.entries(person.extras)) {
      context.fillStyle = part.startsWith("face") ? "#fff" : "#00f";
      for (const [x, y, known] of points ?? []) if (known > 0) disc(context, x, y, dot * 0.75);
    }
  }
}

const end = ([x, y], radius) => ({ x, y, radius });

/** The joint nearest to a point within `reach` pixels, as {person, joint}, or null. */
export function jointAt(people, x, y, reach) {
  let best = null;
  people.forEach((person, index) => {
    person.points.forEach(([px, py, known], joint) => {
      const distance = Math.hypot(px - x, py - y);
      if (known > 0 && distance <= reach && distance < (best?.distance ?? Infinity)) {
        best = { person: index, joint, distance };
      }
    });
  });
  return best;
}

/** The person with a limb within `reach` pixels of a point, or null. */
export function personAt(people, x, y, reach) {
  for (let index = people.length - 1; index >= 0; index--) {
    const { points } = people[index];
    for (const [a, b] of LIMBS) {
      if (!(points[a][2] > 0 && points[b][2] > 0)) continue;
      if (distanceTo(points[a], points[b], x, y) <= reach) return { person: index, joint: null };
    }
  }
  return null;
}

function distanceTo([x1, y1], [x2, y2], x, y) {
  const square = (x2 - x1) ** 2 + (y2 - y1) ** 2 || 1;
  const t = Math.min(1, Math.max(0, ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / square));
  return Math.hypot(x1 + t * (x2 - x1) - x, y1 + t * (y2 - y1) - y);
}
