/** What is shown of the board: zoom, layers over each other, joints, and the pen's ring. */
import { blank, pen } from "./pictures.js";
import { jointColour, LIMBS } from "./pose.js";

const TINTS = { mask: "#ff3d7f", region: "#2f9bff" };

export class View {
  constructor(canvas, board, tools) {
    this.canvas = canvas;
    this.board = board;
    this.tools = tools;
    this.scale = 1; // pixels of the screen a pixel of the board
    this.left = 0;
    this.top = 0;
    this.cursor = null; // where the pen is, in pixels of the board
    this.fitting = true;
    this.waiting = false;
    new ResizeObserver(() => this.measure()).observe(canvas.parentElement);
    for (const event of ["change", "structure", "select", "draw", "size"]) {
      board.addEventListener(event, () => this.draw());
    }
    board.addEventListener("size", () => this.fit());
    tools.addEventListener("change", () => this.draw());
    tools.addEventListener("joint", () => this.draw());
    this.measure();
  }

  measure() {
    const box = this.canvas.parentElement.getBoundingClientRect();
    this.dense = window.devicePixelRatio || 1;
    this.width = box.width;
    this.height = box.height;
    this.canvas.width = Math.max(1, Math.round(box.width * this.dense));
    this.canvas.height = Math.max(1, Math.round(box.height * this.dense));
    if (this.fitting) this.fit();
    else this.draw();
  }

  fit() {
    const { width, height } = this.board;
    this.scale = Math.max(0.05, Math.min((this.width - 16) / width, (this.height - 16) / height));
    this.left = (this.width - width * this.scale) / 2;
    this.top = (this.height - height * this.scale) / 2;
    this.fitting = true;
    this.draw();
  }

  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.min(64, Math.max(0.05, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitting = false;
    this.draw();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitting = false;
    this.draw();
  }

  /** A position of the window → pixels of the board. */
  point(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: (clientX - box.left - this.left) / this.scale,
      y: (clientY - box.top - this.top) / this.scale,
    };
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#paint();
    });
  }

  #paint() {
    const { board, dense } = this;
    const context = this.canvas.getContext("2d");
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    context.translate(this.left, this.top);
    this.#ground(context);
    context.imageSmoothingEnabled = this.scale < 1;
    for (const layer of [board.picture, ...board.controls]) {
      if (layer.visible && !this.#blank(layer)) this.#layer(context, layer);
    }
    if (board.mask.visible) this.#tint(context, board.mask.canvas, TINTS.mask);
    const { selected } = board;
    if (selected.region && board.target === "region")
      this.#tint(context, selected.region, TINTS.region);
    if (selected.isPose && board.target === "layer") this.#joints(context, selected);
    this.#ring(context);
  }

  #ground(context) {
    const [w, h] = [this.board.width * this.scale, this.board.height * this.scale];
    context.fillStyle = "#8b8f98";
    context.fillRect(-1, -1, w + 2, h + 2);
    const cell = 10;
    context.save();
    context.beginPath();
    context.rect(0, 0, w, h);
    context.clip();
    for (let y = 0; y * cell < h; y++) {
      for (let x = 0; x * cell < w; x++) {
        context.fillStyle = (x + y) % 2 ? "#3a3d44" : "#44474f";
        context.fillRect(x * cell, y * cell, cell, cell);
      }
    }
    context.restore();
  }

  /** An unused hint is not worth hiding the layers below it, unless it is the selected one. */
  #blank(layer) {
    return layer.kind === "control" && layer !== this.board.selected && layer.empty;
  }

  #layer(context, layer) {
    const { board } = this;
    context.save();
    context.globalAlpha = layer.opacity * (layer.used ? 1 : 0.4);
    const below = [board.picture, ...board.controls].some(
      (other) =>
        other !== layer &&
        other.visible &&
        board.layers.indexOf(other) < board.layers.indexOf(layer) &&
        !other.empty,
    );
    // lines on black: what lies below shows through the black
    if (layer.kind === "control" && !layer.opaque && below)
      context.globalCompositeOperation = "screen";
    else if (layer.kind === "control" && below) context.globalAlpha *= 0.7;
    context.drawImage(layer.canvas, 0, 0, board.width * this.scale, board.height * this.scale);
    context.restore();
  }

  #tint(context, canvas, colour) {
    const tinted = blank(canvas.width, canvas.height, colour);
    const paint = pen(tinted);
    paint.globalCompositeOperation = "destination-in";
    paint.drawImage(canvas, 0, 0);
    context.save();
    context.globalAlpha = 0.5;
    context.drawImage(tinted, 0, 0, this.board.width * this.scale, this.board.height * this.scale);
    context.restore();
  }

  #joints(context, layer) {
    const at = ([x, y]) => [x * this.scale, y * this.scale];
    layer.people.forEach((person, index) => {
      const chosen = this.tools.joint?.person === index;
      context.lineWidth = 1.5;
      context.strokeStyle = chosen ? "#ffffff" : "rgb(255 255 255 / 55%)";
      for (const [a, b] of LIMBS) {
        if (!person.known(a) || !person.known(b)) continue;
        context.beginPath();
        context.moveTo(...at(person.points[a]));
        context.lineTo(...at(person.points[b]));
        context.stroke();
      }
      person.points.forEach((point, joint) => {
        if (!person.known(joint)) return;
        const marked = chosen && this.tools.joint.joint === joint;
        context.beginPath();
        context.arc(...at(point), marked ? 9 : 6, 0, 2 * Math.PI);
        context.fillStyle = jointColour(joint);
        context.fill();
        context.lineWidth = marked ? 3 : 1.5;
        context.strokeStyle = marked ? "#fff" : "#000";
        context.stroke();
      });
    });
  }

  #ring(context) {
    if (!this.cursor || ["pan", "pose", "fill"].includes(this.tools.name)) return;
    const radius = Math.max(0.5, this.tools.size / 2) * this.scale;
    for (const [colour, width] of [
      ["#000", 3],
      ["#fff", 1.2],
    ]) {
      context.beginPath();
      context.arc(this.cursor.x * this.scale, this.cursor.y * this.scale, radius, 0, 2 * Math.PI);
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  }
}
