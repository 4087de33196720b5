/** OpenPose's JSON: people out and in. */
import { Sentence } from "../errors.js";
import { EXTRAS, Person } from "./pose.js";

// BODY_25 → the 18 points; feet and mid-hip are left out
const FROM_25 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18];

const flat = (points) => points.flatMap(([x, y, c]) => [round(x), round(y), c]);
const round = (value) => Math.round(value * 1000) / 1000;

export function toJson(people, width, height) {
  return {
    people: people.map((person) => ({
      pose_keypoints_2d: flat(person.points),
      ...Object.fromEntries(
        Object.keys(EXTRAS)
          .filter((part) => person.extras[part])
          .map((part) => [part, flat(person.extras[part])]),
      ),
    })),
    canvas_width: width,
    canvas_height: height,
  };
}

/** → {people, notes}. `json`: an object or a list of such, of any canvas size. Raises a Sentence
 * if it is no pose. */
export function fromJson(json, width, height) {
  const notes = [];
  let frame = json;
  if (Array.isArray(json)) {
    frame = json[0];
    if (json.length > 1) notes.push(`The file has ${json.length} pictures; the first one is used.`);
  }
  if (!Array.isArray(frame?.people))
    throw new Sentence('This JSON has no list "people", so it is no OpenPose file.');
  const numbers = frame.people
    .flatMap((person) => triples(person.pose_keypoints_2d))
    .flatMap(([x, y]) => [x, y]);
  const shares = numbers.length > 0 && numbers.every((value) => value >= 0 && value <= 1);
  const across = shares ? width : width / (frame.canvas_width || width);
  const down = shares ? height : height / (frame.canvas_height || height);
  if (!shares && !frame.canvas_width)
    notes.push("The JSON has no canvas_width; its points are read as pixels of this canvas.");
  if (frame.animals?.length) notes.push("Animals are left out.");
  const people = [];
  for (const record of frame.people) {
    const body = triples(record.pose_keypoints_2d);
    if (body.length === 25) notes.push("Feet and mid-hip of BODY_25 are left out.");
    else if (body.length !== 18) {
      throw new Sentence(`A person has ${body.length} points; 18 or 25 can be read.`);
    }
    const points = body.length === 25 ? FROM_25.map((at) => body[at]) : body;
    const extras = {};
    for (const part of Object.keys(EXTRAS))
      if (record[part]?.length) extras[part] = triples(record[part]);
    const person = new Person(points, extras);
    person.scale(across, down);
    people.push(person);
  }
  return { people, notes: [...new Set(notes)] };
}

function triples(list) {
  const out = [];
  for (let at = 0; at + 2 < (list?.length ?? 0); at += 3)
    out.push([+list[at], +list[at + 1], +list[at + 2]]);
  return out;
}
