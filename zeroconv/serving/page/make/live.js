/** Live mode: a new picture after each change while nothing runs, and none when nothing changed. */
import { $, guarded, later } from "../dom.js";
import { bodyOf, signature } from "./body.js";
import { seed } from "./settings.js";

const REST = 120; // milliseconds after the last change

export class Live {
  constructor(board, results) {
    this.board = board;
    this.results = results;
    this.on = false;
    this.busy = false;
    this.last = null; // signature of the last request
    this.seed = null; // one seed while live, so that only what was drawn changes
    this.made = 0; // requests sent
    this.waiting = false; // whether a look at the canvas is due
    const look = later(REST, () => this.look());
    this.changed = () => {
      this.waiting = true;
      look();
    };
    $("#live").addEventListener("change", () => this.turn($("#live").checked));
    $("#live-steps").addEventListener("change", () => this.changed());
    board.addEventListener("change", () => this.changed());
  }

  turn(on) {
    this.on = on;
    $("#live").checked = on;
    $("#live-state").hidden = !on;
    if (on) {
      this.seed = seed() >= 0 ? seed() : Math.floor(Math.random() * 2 ** 31);
      this.last = null;
      this.note("Draw: each stroke makes a picture.");
      this.changed();
    }
  }

  note(text) {
    $("#live-state").textContent = text;
  }

  body() {
    const body = bodyOf(this.board);
    body.count = 1;
    body.seed = seed() >= 0 ? seed() : this.seed;
    body.steps = Math.min(body.steps, Number($("#live-steps").value) || body.steps);
    body.previews = false;
    body.keep = false; // else strokes would fill the history
    delete body.hires;
    return body;
  }

  /** Sends the canvas if it differs from the last request and nothing runs. */
  async look() {
    this.waiting = false;
    if (!this.on || this.busy || this.results.running) return;
    const body = this.body();
    const now = signature(body);
    if (now === this.last || (!body.controls.length && !body.image && !body.prompt)) return;
    this.last = now;
    this.busy = true;
    this.made += 1;
    const job = await guarded(() => this.results.make(body, true));
    this.busy = false;
    this.waiting = job !== null;
    if (job === null) {
      this.turn(false);
      return;
    }
    this.note(`Live, seed ${body.seed}. Waiting for the next stroke.`);
    this.changed(); // what was drawn meanwhile
  }
}
