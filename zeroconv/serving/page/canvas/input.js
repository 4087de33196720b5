/** Pointers (mouse, pen, touch) and keys on the canvas. One finger draws, two move the view. */

const HANDLE = 14; // pixels of the screen around a joint
const TURN = 1.0015; // zoom a unit of the wheel

export class Input {
  constructor(canvas, view, tools) {
    this.canvas = canvas;
    this.view = view;
    this.tools = tools;
    this.pointers = new Map(); // id → last position, for two fingers
    this.drawing = null; // id of the pointer that draws
    this.penSeen = false; // after a pen, fingers only move the view
    this.space = false;
    this.keyPen = null; // the pen of the arrow keys, {x, y, down}
    const on = (name, listener) =>
      canvas.addEventListener(name, listener.bind(this), { passive: false });
    on("pointerdown", this.#down);
    on("pointermove", this.#move);
    on("pointerup", this.#up);
    on("pointercancel", this.#cancelled);
    on("pointerleave", () => this.#cursor(null));
    on("wheel", this.#wheel);
    on("keydown", this.#key);
    on("contextmenu", (event) => event.preventDefault());
  }

  #point(event) {
    return {
      ...this.view.point(event.clientX, event.clientY),
      pressure: event.pointerType === "pen" ? 0.25 + 1.25 * event.pressure : 1,
      reach: HANDLE / this.view.scale,
      even: event.shiftKey,
    };
  }

  #cursor(point) {
    this.view.cursor = point;
    this.view.draw();
  }

  #down(event) {
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (event.pointerType === "pen") this.penSeen = true;
    const finger = event.pointerType === "touch";
    if (this.pointers.size > 1) {
      this.tools.abort();
      this.drawing = null;
      return;
    }
    const panning = this.tools.name === "pan" || event.button === 1 || (finger && this.penSeen);
    if (panning || event.button === 2) return;
    event.preventDefault();
    this.drawing = event.pointerId;
    this.tools.begin(this.#point(event));
    this.view.draw();
  }

  #move(event) {
    this.#cursor(this.view.point(event.clientX, event.clientY));
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    if (this.drawing === event.pointerId) {
      const steps = event.getCoalescedEvents?.() ?? [];
      for (const step of steps.length ? steps : [event]) this.tools.move(this.#point(step));
      return;
    }
    if (this.pointers.size === 2) this.#pinch(event);
    else this.view.pan(event.clientX - last.x, event.clientY - last.y);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }

  #pinch(event) {
    const last = this.pointers.get(event.pointerId);
    const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const box = this.canvas.getBoundingClientRect();
    const before = Math.hypot(last.x - other.x, last.y - other.y) || 1;
    const after = Math.hypot(event.clientX - other.x, event.clientY - other.y);
    const centre = [
      (event.clientX + other.x) / 2 - box.left,
      (event.clientY + other.y) / 2 - box.top,
    ];
    this.view.pan((event.clientX - last.x) / 2, (event.clientY - last.y) / 2);
    this.view.zoom(after / before, ...centre);
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    if (this.drawing !== event.pointerId) return;
    this.drawing = null;
    this.tools.end();
    this.view.draw();
  }

  #cancelled(event) {
    this.pointers.delete(event.pointerId);
    if (this.drawing === event.pointerId) {
      this.drawing = null;
      this.tools.abort();
    }
  }

  #wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    this.view.zoom(TURN ** -event.deltaY, event.clientX - box.left, event.clientY - box.top);
  }

  // -------------------------------------------------------------- keys

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = event.shiftKey ? 8 : 1;
    if (event.key in arrows) {
      event.preventDefault();
      this.#arrow(...arrows[event.key].map((d) => d * step));
    } else if (event.key === " ") {
      event.preventDefault();
      this.#penDown();
    } else if (this.tools.name === "pose" && [",", "."].includes(event.key)) {
      event.preventDefault();
      this.#nextJoint(event.key === "." ? 1 : -1);
    }
  }

  #arrow(dx, dy) {
    if (this.tools.name === "pan") return this.view.pan(-16 * dx, -16 * dy);
    if (this.tools.name === "pose" && this.tools.nudge(dx, dy)) return undefined;
    const { width, height } = this.tools.board;
    this.keyPen ??= { x: width / 2, y: height / 2, down: false };
    this.keyPen.x = Math.min(width - 0.5, Math.max(0.5, this.keyPen.x + dx));
    this.keyPen.y = Math.min(height - 0.5, Math.max(0.5, this.keyPen.y + dy));
    if (this.keyPen.down) this.tools.move({ ...this.keyPen, pressure: 1 });
    this.#cursor(this.keyPen);
    return undefined;
  }

  #penDown() {
    if (!this.keyPen || ["pose", "pan"].includes(this.tools.name)) return;
    this.keyPen.down = !this.keyPen.down;
    if (this.keyPen.down) this.tools.begin({ ...this.keyPen, pressure: 1 });
    else this.tools.end();
  }

  #nextJoint(by) {
    const people = this.tools.board.selected.people;
    if (!people.length) return;
    const now = this.tools.joint ?? { person: 0, joint: by > 0 ? -1 : 0 };
    let number = now.person * 18 + (now.joint ?? (by > 0 ? -1 : 0)) + by;
    number = (number + 18 * people.length) % (18 * people.length);
    this.tools.set({ joint: { person: Math.floor(number / 18), joint: number % 18 } });
  }
}
