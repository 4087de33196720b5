/** Pictures of the browser: canvases, files and data URLs. */

import { Sentence } from "../errors.js";

export function blank(width, height, colour = null) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (colour) {
    context.fillStyle = colour;
    context.fillRect(0, 0, width, height);
  }
  return canvas;
}

export const pen = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

export function copied(canvas) {
  const copy = blank(canvas.width, canvas.height);
  pen(copy).drawImage(canvas, 0, 0);
  return copy;
}

/** The bytes of a picture of this server, or of a file, as a data URL. */
export async function dataUrl(source) {
  let blob = source;
  if (typeof source === "string") {
    if (source.startsWith("data:")) return source;
    const answer = await fetch(source, { credentials: "same-origin" });
    if (!answer.ok)
      throw new Sentence(`The picture cannot be read: the server answered ${answer.status}.`);
    blob = await answer.blob();
  }
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Sentence("The file cannot be read.")));
    reader.readAsDataURL(blob);
  });
}

/** An image element that is decoded. `source`: URL or data URL. */
export async function opened(source) {
  const image = new Image();
  image.src = source;
  try {
    await image.decode();
  } catch {
    throw new Sentence("This file is not a picture that the browser can read.");
  }
  return image;
}

/** Draws `image` into a canvas of the size, as the mode says: stretch, crop or fill. */
export function fitted(image, width, height, mode, smooth = true, ground = null) {
  const canvas = blank(width, height, ground);
  const context = pen(canvas);
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  const [w, h] = [image.naturalWidth ?? image.width, image.naturalHeight ?? image.height];
  let [across, down] = [width / w, height / h];
  if (mode === "crop") across = down = Math.max(across, down);
  if (mode === "fill") across = down = Math.min(across, down);
  context.drawImage(image, (width - w * across) / 2, (height - h * down) / 2, w * across, h * down);
  return canvas;
}

/** True where no pixel differs from the first one. */
export function uniform(canvas) {
  const data = pen(canvas).getImageData(0, 0, canvas.width, canvas.height).data;
  const pixels = new Uint32Array(data.buffer);
  return pixels.every((pixel) => pixel === pixels[0]);
}

/** White where something is painted, black elsewhere. */
export function maskOf(canvas) {
  const out = blank(canvas.width, canvas.height, "#000");
  const context = pen(out);
  const source = pen(canvas).getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < source.data.length; at += 4) {
    const on = source.data[at + 3] > 127 ? 255 : 0;
    source.data[at] = source.data[at + 1] = source.data[at + 2] = on;
    source.data[at + 3] = 255;
  }
  context.putImageData(source, 0, 0);
  return out;
}

/** A mask picture as painted white on transparent ground. */
export function painted(image, width, height) {
  const canvas = fitted(image, width, height, "stretch", false);
  const context = pen(canvas);
  const pixels = context.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const on = pixels.data[at] > 127 && pixels.data[at + 3] > 127 ? 255 : 0;
    pixels.data.fill(255, at, at + 3);
    pixels.data[at + 3] = on;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** The first picture among files, or of the clipboard's items; null if there is none. */
export function firstPicture(items) {
  for (const item of items ?? []) {
    const file = item instanceof File ? item : item.kind === "file" ? item.getAsFile() : null;
    if (file?.type.startsWith("image/")) return file;
  }
  return null;
}
