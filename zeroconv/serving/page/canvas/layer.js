/** A layer of the canvas: the picture, the mask, or a control with its hint. */
import { blank, copied, fitted, maskOf, painted, pen, opened, uniform } from "./pictures.js";
import { drawPeople } from "./pose.js";

/** How hints of a condition are painted: ground, and whether shapes are filled at first. */
const GROUNDS = {
  normal: "#8080ff",
  inpaint: null,
  tile: null,
  blur: null,
  palette: null,
  recolor: null,
  shuffle: null,
};
const FILLED = new Set([
  "segmentation",
  "depth",
  "person",
  "threshold",
  "normal",
  "inpaint",
  "tile",
  "blur",
  "palette",
  "recolor",
]);
const COLOURED = new Set(["normal", "inpaint", "tile", "blur", "palette", "shuffle", "invert"]);
const OPAQUE = new Set([
  "segmentation",
  "depth",
  "normal",
  "inpaint",
  "tile",
  "blur",
  "palette",
  "recolor",
  "shuffle",
  "invert",
]);

let counter = 0;

export class Layer {
  /** kind: picture, mask or control. `condition`: an entry of /models, for controls. */
  constructor(kind, width, height, condition = null) {
    this.id = ++counter;
    this.kind = kind;
    this.condition = condition;
    this.used = true; // takes part in the picture
    this.visible = true; // is shown on the canvas
    this.opacity = 1;
    this.version = 0;
    this.people = []; // of a pose
    this.file = null; // data URL of an unchanged upload
    this.exact = true; // whether the upload has the canvas' size
    this.source = null; // data URL of the picture that the hint was drawn from
    this.options = {}; // of drawing the hint from a picture
    this.control = null;
    this.settings = {
      scale: 1,
      start: 0,
      end: 1,
      mode: "",
      curve: "",
      resize: "stretch",
      passes: "both",
      kind: "",
    };
    this.region = null; // canvas: where the control acts
    this.canvas = blank(width, height, this.ground);
  }

  get conditionName() {
    return this.condition?.name ?? "";
  }

  get isPose() {
    return this.kind === "control" && this.conditionName === "pose";
  }

  get palette() {
    return this.condition?.palette ?? null;
  }

  /** The colour of nothing: black for hints, null (transparent) for picture and mask. */
  get ground() {
    if (this.kind !== "control") return null;
    if (this.palette?.length) return this.palette[0].css;
    return this.conditionName in GROUNDS ? GROUNDS[this.conditionName] : "#000000";
  }

  get filled() {
    return this.kind !== "control" || FILLED.has(this.conditionName);
  }

  get coloured() {
    return this.kind === "picture" || COLOURED.has(this.conditionName);
  }

  get opaque() {
    return OPAQUE.has(this.conditionName);
  }

  /** Whether nothing is in it. All pixels are looked at once a version, as views ask often. */
  get empty() {
    if (this.people.length || this.file) return false;
    const { version, canvas } = this;
    if (this.looked?.version !== version || this.looked.canvas !== canvas) {
      this.looked = { version, canvas, empty: uniform(canvas) };
    }
    return this.looked.empty;
  }

  /** Everything that an undo brings back. */
  state() {
    return {
      canvas: copied(this.canvas),
      people: this.people.map((person) => person.copy()),
      file: this.file,
      exact: this.exact,
      source: this.source,
      region: this.region ? copied(this.region) : null,
    };
  }

  restore({ canvas, people, file, exact, source, region }) {
    this.canvas = copied(canvas);
    this.people = people.map((person) => person.copy());
    this.file = file;
    this.exact = exact;
    this.source = source;
    this.region = region ? copied(region) : null;
    this.version++;
  }

  /** Called after each stroke: the upload is no longer what the layer shows. */
  edited() {
    this.file = null;
    this.version++;
  }

  clear() {
    this.canvas = blank(this.canvas.width, this.canvas.height, this.ground);
    this.people = [];
    this.source = null;
    this.edited();
  }

  /** Puts a picture (data URL) into the layer. Hints and pictures keep the file's own bytes. */
  async load(url) {
    const image = await opened(url);
    const { width, height } = this.canvas;
    if (this.kind === "mask") {
      this.canvas = painted(image, width, height);
      this.edited();
      return;
    }
    this.people = [];
    this.#show(image);
    this.file = url;
    this.version++;
  }

  /** Shows the unchanged upload again, after another resize mode or canvas size. */
  async refit(width, height) {
    const old = this.canvas;
    if (this.file) {
      this.canvas = blank(width, height, this.ground);
      this.#show(await opened(this.file));
    } else if (old.width !== width || old.height !== height) {
      this.canvas = fitted(old, width, height, "stretch", false, this.ground);
      this.people.forEach((person) => person.scale(width / old.width, height / old.height));
      if (this.people.length) this.redrawPeople();
    }
    if (this.region) this.region = fitted(this.region, width, height, "stretch", false);
    this.version++;
  }

  #show(image) {
    const { width, height } = this.canvas;
    const mode = this.kind === "picture" ? "crop" : this.settings.resize;
    this.exact = image.naturalWidth === width && image.naturalHeight === height;
    const smooth = !this.palette && !this.isPose;
    this.canvas = fitted(image, width, height, mode, smooth, this.ground);
  }

  redrawPeople() {
    this.canvas = blank(this.canvas.width, this.canvas.height, this.ground);
    drawPeople(pen(this.canvas), this.people);
    this.edited();
  }

  /** What is sent, as a data URL: an unchanged upload as it is, else a PNG of the canvas. A hint of
   * another shape is resized by the server, a picture is cut as the canvas shows it. */
  url() {
    if (this.kind === "mask") return maskOf(this.canvas).toDataURL("image/png");
    const asItIs = this.kind === "control" || this.exact;
    return (asItIs && this.file) || this.canvas.toDataURL("image/png");
  }

  regionUrl() {
    return this.region && !uniform(this.region) ? maskOf(this.region).toDataURL("image/png") : null;
  }
}
