/** Pictures with captions to train on: chosen, shown beside their hints, and uploaded as a set. */
import { get, newest, post, remove } from "../api.js";
import { dataUrl } from "../canvas/pictures.js";
import { bytes, button, el, field, guarded, toast } from "../dom.js";
import { conditionNamed, offer } from "../make/models.js";
import { asked } from "./asked.js";

const SHOWN = 8; // pictures whose hints are drawn beforehand

export class Uploads {
  /** condition(): the name of the condition; uploaded(id), removed(id): called with the set. */
  constructor(condition, uploaded, removed) {
    this.condition = condition;
    this.uploaded = uploaded;
    this.removed = removed;
    this.items = []; // {picture: data URL, caption, name}
    this.drawHint = newest("/annotate");
    this.kept = el("div", { class: "fields", id: "uploaded-sets" });
    this.list = el("div", { class: "uploads" });
    this.state = el("p", { class: "hint", role: "status" });
    this.name = el("input", {
      value: "pictures",
      pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]{0,59}",
      maxlength: 60,
    });
    const files = el("input", {
      type: "file",
      accept: "image/*,.txt",
      multiple: true,
      class: "unseen",
      "data-train-pictures": "",
      on: {
        change: () => {
          this.add([...files.files]);
          files.value = "";
        },
      },
    });
    this.send = button("Upload the set", () => this.upload());
    this.after = el(
      "div",
      { class: "fields", hidden: true },
      this.list,
      field("Name of the set", this.name),
      this.send,
    );
    this.node = el(
      "div",
      { class: "fields" },
      el("label", { class: "button" }, "Choose pictures", files),
      el("p", {
        class: "hint",
        text: "Captions are read from NAME.txt beside each picture, or written here.",
      }),
      this.state,
      this.after,
      el(
        "details",
        { class: "plain", on: { toggle: (event) => event.target.open && this.sets() } },
        el("summary", { text: "Uploaded sets" }),
        this.kept,
      ),
    );
  }

  /** The sets of the server, each with a button that removes it. */
  async sets() {
    const answer = await guarded(() => get("/datasets"));
    if (!answer) return;
    const row = (set) =>
      el(
        "div",
        { class: "row between", "data-set": set.id },
        el("span", { text: `${set.id}: ${set.pictures} pictures, ${bytes(set.bytes)}` }),
        asked(`Delete ${set.id}`, "Delete", async () => {
          if (!(await guarded(() => remove(`/datasets/${set.id}`)))) return;
          this.removed(set.id);
          await this.sets();
        }),
      );
    const none = el("p", { class: "hint", text: "No set has been uploaded." });
    this.kept.replaceChildren(...(answer.datasets.length ? answer.datasets.map(row) : [none]));
  }

  add(files) {
    return guarded(async () => {
      const texts = new Map();
      for (const file of files.filter((one) => one.name.endsWith(".txt")))
        texts.set(stem(file.name), (await file.text()).trim());
      const most = offer.info.limits?.uploaded ?? 200;
      const pictures = files.filter((one) => one.type.startsWith("image/"));
      if (this.items.length + pictures.length > most)
        toast(`A set holds ${most} pictures at most; the others are left out.`);
      for (const file of pictures.slice(0, most - this.items.length)) {
        this.items.push({
          picture: await dataUrl(file),
          caption: texts.get(stem(file.name)) ?? "",
          name: file.name,
        });
      }
      const without = this.items.filter((item) => !item.caption).length;
      const bare = without ? `, ${without} without a caption` : "";
      this.state.textContent = `${this.items.length} pictures${bare}`;
      this.after.hidden = !this.items.length;
      await this.hints();
    });
  }

  /** The first pictures beside their hints. */
  async hints() {
    const condition = conditionNamed(this.condition());
    const shown = this.items.slice(0, SHOWN);
    const images = shown.map(() => el("img", { alt: "" }));
    this.list.replaceChildren(...shown.map((item, index) => this.#card(item, images[index])));
    if (!shown.length) return;
    if (!condition || condition.needs === "drawing") {
      toast(`No annotator for ${this.condition()} is installed here, so hints cannot be shown.`);
      return;
    }
    await guarded(async () => {
      for (const [index, item] of shown.entries()) {
        const answer = await this.drawHint({ condition: condition.name, picture: item.picture });
        if (!answer) return; // others are drawn now
        images[index].src = answer.hint;
        images[index].alt = `The ${condition.name} hint of ${item.name}`;
      }
    });
  }

  #card(item, hint) {
    return el(
      "figure",
      {},
      el("div", { class: "two" }, el("img", { src: item.picture, alt: item.name }), hint),
      el("input", {
        value: item.caption,
        placeholder: "caption",
        "aria-label": `Caption of ${item.name}`,
        on: {
          change: (event) => {
            item.caption = event.target.value;
          },
        },
      }),
    );
  }

  async upload() {
    this.send.disabled = true;
    const items = this.items.map(({ picture, caption }) => ({ picture, caption }));
    const answer = await guarded(() => post("/datasets", { name: this.name.value, items }));
    this.send.disabled = false;
    if (!answer) return;
    toast(`${items.length} pictures are uploaded as ${answer.id}.`);
    this.items = [];
    this.list.replaceChildren();
    this.after.hidden = true;
    this.state.textContent = "";
    this.uploaded(answer.id);
  }
}

const stem = (name) => name.replace(/\.[^.]+$/, "");
