/** The tools: what a press, a move and a release of the pen do to the board. */
import { pen } from "./pictures.js";
import { Person, jointAt, personAt } from "./pose.js";
import { disc, ellipse, flood, ramp, rectangle, stroke } from "./raster.js";

/** name → [label, key, shape of the icon] */
export const TOOLS = {
  brush: ["Brush", "b", "brush"],
  eraser: ["Eraser", "e", "eraser"],
  line: ["Line", "l", "line"],
  rectangle: ["Rectangle", "r", "rectangle"],
  ellipse: ["Ellipse", "o", "ellipse"],
  fill: ["Fill an area", "f", "fill"],
  ramp: ["Ramp from far to near", "d", "ramp"],
  pose: ["Move joints", "j", "pose"],
  pan: ["Move the view", "h", "pan"],
};

export class Tools extends EventTarget {
  constructor(board) {
    super();
    this.board = board;
    this.name = "brush";
    this.size = 3; // pixels of the canvas
    this.filled = false;
    this.along = true; // what hangs on a joint moves with it
    this.joint = null; // {person, joint}: the selected joint
    this.colours = { picture: "#d94f4f", level: 200, label: 2, normal: "#8080ff" };
    this.action = null;
  }

  set(values) {
    Object.assign(this, values);
    this.dispatchEvent(new Event("change"));
  }

  /** Tools that make sense for what is selected. */
  get available() {
    const { selected, target } = this.board;
    if (target === "layer" && selected.isPose) return ["pose", "pan"];
    const names = ["brush", "eraser", "line", "rectangle", "ellipse", "fill"];
    if (target === "layer" && selected.conditionName === "depth") names.push("ramp");
    return [...names, "pan"];
  }

  /** The paint of the selected layer, as a CSS colour. */
  get colour() {
    const { selected, target } = this.board;
    if (target === "region" || selected.kind === "mask") return "#ffffff";
    if (selected.palette) return selected.palette[this.colours.label % selected.palette.length].css;
    if (selected.conditionName === "depth") return grey(this.colours.level);
    if (selected.conditionName === "normal") return this.colours.normal;
    return selected.coloured ? this.colours.picture : "#ffffff";
  }

  begin(point) {
    if (this.name === "pan") return;
    if (this.name === "pose") this.#beginPose(point);
    else this.#beginPaint(point);
  }

  move(point) {
    this.action?.move(point);
  }

  end() {
    this.action?.end();
    this.action = null;
  }

  /** Takes back what the stroke under way has drawn, as when a second finger comes down. */
  abort() {
    this.action?.abort?.();
    this.action = null;
  }

  // -------------------------------------------------------------- painting

  #beginPaint(start) {
    const { board } = this;
    const context = pen(board.surface);
    const recorded = board.stroke();
    const erasing = this.name === "eraser";
    const ground = board.target === "region" ? null : board.selected.ground;
    const style = {
      colour: erasing ? (ground ?? "#000") : this.colour,
      out: erasing && ground === null,
    };
    const paint = (work) => {
      context.save();
      context.globalCompositeOperation = style.out ? "destination-out" : "source-over";
      context.fillStyle = style.colour;
      work(context);
      context.restore();
      board.dispatchEvent(new Event("draw"));
    };
    const freehand = ["brush", "eraser"].includes(this.name);
    const mover = freehand
      ? this.#freehand(start, paint)
      : this.#shape(start, paint, context, recorded);
    this.action = {
      move: mover,
      end: () => recorded.end(),
      abort: () => {
        context.putImageData(recorded.before, 0, 0);
        board.dispatchEvent(new Event("draw"));
      },
    };
  }

  #radius(pressure) {
    return Math.max(0.5, (this.size / 2) * (pressure ?? 1));
  }

  #freehand(start, paint) {
    let last = { x: start.x, y: start.y, radius: this.#radius(start.pressure) };
    paint((context) => disc(context, last.x, last.y, last.radius));
    return (point) => {
      const next = { x: point.x, y: point.y, radius: this.#radius(point.pressure) };
      paint((context) => stroke(context, last, next));
      last = next;
    };
  }

  #shape(start, paint, context, recorded) {
    const radius = this.#radius();
    const name = this.name;
    if (name === "fill") {
      paint((to) => flood(to, start.x, start.y));
      return () => {};
    }
    const level = this.board.selected.conditionName === "depth" ? this.colours.level : 255;
    const drawn = (to, end) => {
      if (name === "line") stroke(to, { ...start, radius }, { ...end, radius });
      else if (name === "rectangle") rectangle(to, start, end, radius, this.filled);
      else if (name === "ellipse") ellipse(to, start, end, radius, this.filled);
      else ramp(to, start, end, level);
    };
    return (point) => {
      context.putImageData(recorded.before, 0, 0);
      paint((to) => drawn(to, point.even ? even(start, point, name) : point));
    };
  }

  // -------------------------------------------------------------- people

  #beginPose(start) {
    const layer = this.board.selected;
    if (!layer.isPose) return;
    const reach = start.reach ?? 4;
    const hit =
      jointAt(layer.people, start.x, start.y, reach) ??
      personAt(layer.people, start.x, start.y, reach);
    this.joint = hit ? { person: hit.person, joint: hit.joint } : null;
    this.dispatchEvent(new Event("joint"));
    if (!hit) return;
    const before = layer.state();
    let last = start;
    let moved = false;
    const shift = (point) => {
      const person = layer.people[hit.person];
      if (hit.joint === null) person.move(point.x - last.x, point.y - last.y);
      else
        person.moveJoint(
          hit.joint,
          point.x - last.x,
          point.y - last.y,
          this.along !== Boolean(point.even),
        );
      last = point;
      moved = true;
      layer.redrawPeople();
      this.board.dispatchEvent(new Event("draw"));
    };
    this.action = {
      move: shift,
      end: () => moved && this.#record(layer, before),
      abort: () => {
        layer.restore(before);
        this.board.dispatchEvent(new Event("draw"));
      },
    };
  }

  #record(layer, before) {
    const after = layer.state();
    const put = (state) => {
      layer.restore(state);
      this.board.changed(layer);
    };
    this.board.history.add({ undo: () => put(before), redo: () => put(after), bytes: 4096 });
    this.board.changed(layer);
  }

  /** Moves the selected joint by pixels, as the arrow keys do. */
  nudge(dx, dy) {
    const layer = this.board.selected;
    const person = layer.people[this.joint?.person];
    if (!person) return false;
    this.board.edit(layer, () => {
      if (this.joint.joint === null) person.move(dx, dy);
      else layer.people[this.joint.person].moveJoint(this.joint.joint, dx, dy, this.along);
      layer.redrawPeople();
    });
    return true;
  }

  /** Changes the people of the selected layer by `work(people)`, as one step of undo. */
  people(work) {
    const layer = this.board.selected;
    return this.board.edit(layer, () => {
      layer.people = work(layer.people.map((person) => person.copy())) ?? layer.people;
      layer.redrawPeople();
    });
  }

  addPerson() {
    const { width, height, selected } = this.board;
    const share = (selected.people.length + 1) / (selected.people.length + 2);
    const person = Person.standing(width * share, height * 0.3, height * 0.55);
    this.people((people) => [...people, person]);
    this.set({ joint: { person: selected.people.length - 1, joint: null } });
  }
}

export const grey = (level) => `rgb(${level}, ${level}, ${level})`;

/** The end of a line at a multiple of 45°, or of a square or circle. */
function even(start, point, name) {
  const [dx, dy] = [point.x - start.x, point.y - start.y];
  if (name === "line" || name === "ramp") {
    const angle = (Math.round(Math.atan2(dy, dx) / (Math.PI / 4)) * Math.PI) / 4;
    const length = Math.hypot(dx, dy);
    return {
      ...point,
      x: start.x + length * Math.cos(angle),
      y: start.y + length * Math.sin(angle),
    };
  }
  const side = Math.max(Math.abs(dx), Math.abs(dy));
  return {
    ...point,
    x: start.x + side * Math.sign(dx || 1),
    y: start.y + side * Math.sign(dy || 1),
  };
}
