/** Undo and redo. An entry has `undo` and `redo`; pixels are kept as the changed rectangle. */

const ENTRIES = 100;
const BYTES = 256 * 1024 * 1024;

export class History extends EventTarget {
  #past = [];
  #future = [];

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  add(entry) {
    this.#past.push(entry);
    this.#future = [];
    while (this.#past.length > ENTRIES || this.#bytes() > BYTES) this.#past.shift();
    this.#changed();
  }

  undo() {
    const entry = this.#past.pop();
    if (!entry) return;
    entry.undo();
    this.#future.push(entry);
    this.#changed();
  }

  redo() {
    const entry = this.#future.pop();
    if (!entry) return;
    entry.redo();
    this.#past.push(entry);
    this.#changed();
  }

  clear() {
    this.#past = [];
    this.#future = [];
    this.#changed();
  }

  #bytes() {
    return this.#past.reduce((sum, entry) => sum + (entry.bytes ?? 0), 0);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The rectangle in which two ImageData of equal size differ, or null. */
export function difference(before, after) {
  const { width, height } = before;
  const a = new Uint32Array(before.data.buffer);
  const b = new Uint32Array(after.data.buffer);
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (a[y * width + x] === b[y * width + x]) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  return right < 0 ? null : { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}

/** The part of an ImageData inside a rectangle. */
export function cut(data, area) {
  const part = new ImageData(area.width, area.height);
  for (let y = 0; y < area.height; y++) {
    const from = 4 * ((area.y + y) * data.width + area.x);
    part.data.set(data.data.subarray(from, from + 4 * area.width), 4 * y * area.width);
  }
  return part;
}
