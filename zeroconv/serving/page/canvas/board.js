/** The canvas's document: its size, its layers from bottom to top, and what is selected. */
import { cut, difference, History } from "./history.js";
import { Layer } from "./layer.js";
import { blank, pen } from "./pictures.js";

export class Board extends EventTarget {
  constructor(width, height) {
    super();
    this.width = width;
    this.height = height;
    this.history = new History();
    this.picture = new Layer("picture", width, height);
    this.mask = new Layer("mask", width, height);
    this.mask.opacity = 0.5;
    this.controls = [];
    this.selected = this.picture;
    this.target = "layer"; // or "region": what the tools paint on
  }

  get layers() {
    return [this.picture, ...this.controls, this.mask];
  }

  /** The canvas that the tools paint on. */
  get surface() {
    if (this.target !== "region") return this.selected.canvas;
    this.selected.region ??= blank(this.width, this.height);
    return this.selected.region;
  }

  addControl(control, condition) {
    const layer = new Layer("control", this.width, this.height, condition);
    layer.control = control;
    this.controls.push(layer);
    this.select(layer);
    this.#tell("structure");
    return layer;
  }

  /** Another control for a layer; another condition empties it. */
  setControl(layer, control, condition) {
    layer.control = control;
    layer.settings.kind = "";
    this.setCondition(layer, condition);
  }

  setCondition(layer, condition) {
    if (condition?.name !== layer.conditionName) {
      layer.condition = condition;
      layer.options = {};
      layer.clear();
    }
    this.#tell("structure");
    this.changed(layer);
  }

  remove(layer) {
    const at = this.controls.indexOf(layer);
    if (at < 0) return;
    this.controls.splice(at, 1);
    this.history.add({
      undo: () => this.#put(layer, at),
      redo: () => this.#take(layer),
    });
    if (this.selected === layer)
      this.select(this.controls[at] ?? this.controls[at - 1] ?? this.picture);
    this.#tell("structure");
    this.changed(layer);
  }

  #put(layer, at) {
    this.controls.splice(at, 0, layer);
    this.select(layer);
    this.#tell("structure");
  }

  #take(layer) {
    this.controls.splice(this.controls.indexOf(layer), 1);
    this.select(this.controls[0] ?? this.picture);
    this.#tell("structure");
  }

  move(layer, by) {
    const at = this.controls.indexOf(layer);
    const to = at + by;
    if (at < 0 || to < 0 || to >= this.controls.length) return;
    this.controls.splice(at, 1);
    this.controls.splice(to, 0, layer);
    this.#tell("structure");
    this.changed(layer);
  }

  select(layer, target = "layer") {
    this.selected = layer;
    this.target = layer.kind === "control" ? target : "layer";
    this.#tell("select");
  }

  /** Tells views and live mode that a layer's content or settings changed. */
  changed(layer) {
    this.dispatchEvent(new CustomEvent("change", { detail: layer }));
  }

  async resize(width, height) {
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    for (const layer of this.layers) await layer.refit(width, height);
    this.history.clear();
    this.#tell("size");
    this.changed(this.selected);
  }

  /** A new document; what was drawn is gone. */
  reset() {
    for (const layer of [this.picture, this.mask]) {
      layer.clear();
      layer.used = true;
    }
    this.controls = [];
    this.history.clear();
    this.select(this.picture);
    this.#tell("structure");
  }

  /** Runs `work`, which changes the layer, and makes it one step of undo. */
  async edit(layer, work) {
    const before = layer.state();
    await work(layer);
    const after = layer.state();
    const put = (state) => {
      layer.restore(state);
      this.changed(layer);
      this.#tell("select");
    };
    this.history.add({
      undo: () => put(before),
      redo: () => put(after),
      bytes: 8 * layer.canvas.width * layer.canvas.height,
    });
    this.changed(layer);
    this.#tell("select");
  }

  /** Begins a stroke on the surface; the returned function ends it and makes it undoable. */
  stroke() {
    const layer = this.selected;
    const target = this.target;
    const surface = this.surface;
    const context = pen(surface);
    const before = context.getImageData(0, 0, surface.width, surface.height);
    const file = layer.file;
    return {
      before,
      end: () => {
        const after = context.getImageData(0, 0, surface.width, surface.height);
        const area = difference(before, after);
        if (!area) return false;
        const [old, fresh] = [cut(before, area), cut(after, area)];
        const put = (part, kept) => {
          const canvas = target === "region" ? layer.region : layer.canvas;
          pen(canvas).putImageData(part, area.x, area.y);
          layer.edited();
          layer.file = kept;
          this.changed(layer);
        };
        if (target === "layer") layer.edited();
        else layer.version++;
        const now = layer.file;
        this.history.add({
          undo: () => put(old, file),
          redo: () => put(fresh, now),
          bytes: 8 * area.width * area.height,
        });
        this.changed(layer);
        return true;
      },
    };
  }

  #tell(kind) {
    this.dispatchEvent(new Event(kind));
  }
}
