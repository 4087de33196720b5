/** Two pictures over each other with a line to move. */
import { $ } from "../dom.js";

export function buildCompare() {
  const share = $("#compare-share");
  const show = () => {
    $("#compare-a").style.clipPath = `inset(0 ${100 - share.value}% 0 0)`;
    $("#compare-line").style.left = `${share.value}%`;
    share.setAttribute("aria-valuetext", `${share.value}% of the first picture`);
  };
  share.addEventListener("input", show);
  const box = $("#compare .compare");
  const drag = (event) => {
    if (!event.buttons) return;
    const area = box.getBoundingClientRect();
    share.value = Math.round((100 * (event.clientX - area.left)) / area.width);
    show();
  };
  box.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    drag(event);
  });
  box.addEventListener("pointermove", drag);
  show();
}

/** a, b: {picture, prompt?, seed?}. */
export function compare(a, b) {
  for (const [name, picture] of [
    ["a", a],
    ["b", b],
  ]) {
    const seed = picture.seed === undefined ? "" : `(seed ${picture.seed})`;
    const words = `${picture.prompt ?? ""} ${seed}`.trim();
    $(`#compare-${name}`).src = picture.picture;
    $(`#compare-${name}`).alt = words || `Picture ${name.toUpperCase()}`;
    $(`#compare-${name}-name`).textContent = words || `Picture ${name.toUpperCase()}`;
  }
  $("#compare").showModal();
}
