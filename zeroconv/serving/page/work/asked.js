/** A button that asks back before it does what cannot be undone. */
import { button, el } from "../dom.js";

export function asked(title, label, work) {
  const first = button(label, () => ask(), { icon: "clear", kind: "quiet", title });
  const box = el("span", { class: "row" }, first);
  const ask = () => {
    const yes = button("Delete for good", work, { icon: "clear" });
    const no = button("Keep", () => box.replaceChildren(first), { kind: "quiet" });
    box.replaceChildren(yes, no);
    no.focus();
  };
  return box;
}
