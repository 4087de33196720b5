/** Drawing without anti-aliasing: every pixel gets the colour or keeps its own. Class maps and line
 * hints need exact colours. Coordinates are pixels; (0, 0) is the corner of the first pixel. */

/** A filled disc; `radius` in pixels. Below one pixel it is a single pixel. */
export function disc(context, x, y, radius) {
  if (radius < 0.75) {
    context.fillRect(Math.floor(x), Math.floor(y), 1, 1);
    return;
  }
  const top = Math.ceil(y - radius - 0.5);
  const bottom = Math.floor(y + radius - 0.5);
  for (let row = top; row <= bottom; row++) {
    const reach = Math.sqrt(Math.max(0, radius * radius - (row + 0.5 - y) ** 2));
    const left = Math.ceil(x - reach - 0.5);
    const right = Math.floor(x + reach - 0.5);
    if (right >= left) context.fillRect(left, row, right - left + 1, 1);
  }
}

/** A line of discs; the radius changes evenly from `a.radius` to `b.radius`. */
export function stroke(context, a, b) {
  const length = Math.hypot(b.x - a.x, b.y - a.y);
  const step = Math.max(0.4, Math.min(a.radius, b.radius) / 3);
  const count = Math.max(1, Math.ceil(length / step));
  for (let i = 0; i <= count; i++) {
    const t = i / count;
    disc(
      context,
      a.x + (b.x - a.x) * t,
      a.y + (b.y - a.y) * t,
      a.radius + (b.radius - a.radius) * t,
    );
  }
}

export function polyline(context, points, radius, closed = false) {
  const path = closed ? [...points, points[0]] : points;
  if (path.length === 1) disc(context, path[0][0], path[0][1], radius);
  for (let i = 1; i < path.length; i++) {
    stroke(
      context,
      { x: path[i - 1][0], y: path[i - 1][1], radius },
      { x: path[i][0], y: path[i][1], radius },
    );
  }
}

export function rectangle(context, a, b, radius, filled) {
  const [left, right] = [Math.min(a.x, b.x), Math.max(a.x, b.x)];
  const [top, bottom] = [Math.min(a.y, b.y), Math.max(a.y, b.y)];
  if (filled) {
    const x = Math.round(left);
    const y = Math.round(top);
    context.fillRect(x, y, Math.max(1, Math.round(right) - x), Math.max(1, Math.round(bottom) - y));
    return;
  }
  polyline(
    context,
    [
      [left, top],
      [right, top],
      [right, bottom],
      [left, bottom],
    ],
    radius,
    true,
  );
}

export function ellipse(context, a, b, radius, filled) {
  const centre = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  const rx = Math.abs(b.x - a.x) / 2;
  const ry = Math.abs(b.y - a.y) / 2;
  if (filled) {
    for (let row = Math.ceil(centre.y - ry - 0.5); row <= centre.y + ry - 0.5; row++) {
      const share = (row + 0.5 - centre.y) / Math.max(ry, 0.5);
      const reach = rx * Math.sqrt(Math.max(0, 1 - share * share));
      const left = Math.ceil(centre.x - reach - 0.5);
      const right = Math.floor(centre.x + reach - 0.5);
      if (right >= left) context.fillRect(left, row, right - left + 1, 1);
    }
    return;
  }
  const count = Math.max(16, Math.ceil((rx + ry) * 2));
  const points = [];
  for (let i = 0; i < count; i++) {
    const angle = (2 * Math.PI * i) / count;
    points.push([centre.x + rx * Math.cos(angle), centre.y + ry * Math.sin(angle)]);
  }
  polyline(context, points, radius, true);
}

/** A filled polygon by the even-odd rule at the pixels' centres. */
export function polygon(context, points) {
  const ys = points.map((p) => p[1]);
  for (let row = Math.ceil(Math.min(...ys) - 0.5); row <= Math.max(...ys) - 0.5; row++) {
    const y = row + 0.5;
    const crossings = [];
    points.forEach(([x1, y1], i) => {
      const [x2, y2] = points[(i + 1) % points.length];
      if (y1 <= y !== y2 <= y) crossings.push(x1 + ((y - y1) / (y2 - y1)) * (x2 - x1));
    });
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const left = Math.ceil(crossings[i] - 0.5);
      const right = Math.floor(crossings[i + 1] - 0.5);
      if (right >= left) context.fillRect(left, row, right - left + 1, 1);
    }
  }
}

/** Fills the connected area of one colour that holds (x, y) with the context's fillStyle. */
export function flood(context, x, y) {
  const { width, height } = context.canvas;
  const column = Math.floor(x);
  const line = Math.floor(y);
  if (column < 0 || line < 0 || column >= width || line >= height) return;
  const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  const wanted = pixels[line * width + column];
  const seen = new Uint8Array(width * height);
  const stack = [line * width + column];
  while (stack.length) {
    const at = stack.pop();
    if (seen[at] || pixels[at] !== wanted) continue;
    const row = Math.floor(at / width);
    let left = at;
    while (left > row * width && pixels[left - 1] === wanted && !seen[left - 1]) left--;
    let right = left;
    for (; right < (row + 1) * width && pixels[right] === wanted && !seen[right]; right++) {
      seen[right] = 1;
      if (row > 0) stack.push(right - width);
      if (row < height - 1) stack.push(right + width);
    }
    context.fillRect(left - row * width, row, right - left, 1);
  }
}

/** Grey levels that rise evenly from black at `a` to `level` at `b`, over the area between the two
 * lines through `a` and `b` across their connection; beyond `b` all is `level`. */
export function ramp(context, a, b, level) {
  const { width, height } = context.canvas;
  const picture = context.getImageData(0, 0, width, height);
  const dx = b.x - a.x;
  const dy = b.y - a.y;
  const square = Math.max(1, dx * dx + dy * dy);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const share = ((x + 0.5 - a.x) * dx + (y + 0.5 - a.y) * dy) / square;
      if (share < 0) continue;
      const at = 4 * (y * width + x);
      picture.data.fill(Math.round(level * Math.min(1, share)), at, at + 3);
      picture.data[at + 3] = 255;
    }
  }
  context.putImageData(picture, 0, 0);
}
