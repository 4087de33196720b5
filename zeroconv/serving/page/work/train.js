/** The tab Train: a form made of the recipe's schema, pictures to upload, and the runs. */
import { get, newest, onJobs, post } from "../api.js";
import { $, el, guarded, later, toast } from "../dom.js";
import { loadOffer, offer } from "../make/models.js";
import { Runs } from "./runs.js";
import { leafField, leaves, put } from "./schema.js";
import { Uploads } from "./uploads.js";

// shown at once; the rest stands under "More settings"
const FIRST = [
  "name",
  "base",
  "condition",
  "training.steps",
  "training.batch_size",
  "training.learning_rate",
  "training.optimizer",
];
const DATA = ["data", "examples", "validation"];

export function buildTrain(studio) {
  const runs = new Runs($("#train-runs"));
  let form = null;
  onJobs((job) => {
    if (job.kind !== "train") return;
    runs.heard(job);
    if (job.state === "done")
      guarded(async () => {
        await loadOffer();
        studio.board.dispatchEvent(new Event("structure"));
      });
  });
  return () => {
    if (!offer.info.training_allowed) {
      $("#train-form").replaceChildren(
        el("h2", { text: "Training is switched off" }),
        el("p", { class: "hint", text: "The server was started without training." }),
      );
      $("#train-runs").hidden = true;
      return;
    }
    form ??= guarded(async () => new TrainForm($("#train-form"), await get("/train/schema"), runs));
    runs.load();
  };
}

class TrainForm {
  constructor(box, { schema, data, bases, conditions }, runs) {
    this.runs = runs;
    this.changed = later(500, () => this.plan());
    const lists = {
      base: bases,
      condition: conditions,
      data,
      validation: data,
      "control.init": offer.controls.map((control) => control.name),
    };
    this.fields = leaves(schema).map((leaf) =>
      leafField(withList(leaf, lists), () => this.changed()),
    );
    this.byPath = Object.fromEntries(this.fields.map((one) => [one.path.join("."), one]));
    if (this.byPath.data && data.includes("playroom:train"))
      this.byPath.data.input.value = "playroom:train";
    this.uploads = new Uploads(
      () => this.byPath.condition.input.value,
      (id) => this.uploaded(id),
      (id) => this.removed(id),
    );
    this.reckon = newest("/train/plan");
    this.byPath.condition.input.addEventListener("change", () => this.uploads.hints());
    this.memory = el("p", { class: "hint", role: "status", id: "train-memory" });
    const node = (path) => this.byPath[path]?.node;
    const others = this.fields.filter(
      ({ path }) => !FIRST.includes(path.join(".")) && !DATA.includes(path.join(".")),
    );
    box.replaceChildren(
      el("h2", { text: "Train a control" }),
      el(
        "fieldset",
        { class: "fields" },
        el("legend", { text: "Pictures" }),
        node("data"),
        el("div", { class: "pair" }, node("examples"), node("validation")),
        this.uploads.node,
      ),
      el(
        "form",
        {
          class: "fields",
          on: {
            submit: (event) => {
              event.preventDefault();
              this.start();
            },
          },
        },
        node("name"),
        el("div", { class: "pair" }, node("base"), node("condition")),
        el("div", { class: "pair" }, node("training.steps"), node("training.batch_size")),
        el("div", { class: "pair" }, node("training.learning_rate"), node("training.optimizer")),
        ...groups(others),
        this.memory,
        el("button", { class: "main", id: "train-start" }, "Start training"),
      ),
    );
    this.plan();
  }

  /** The body of /train: what differs from the defaults, and the data. */
  body() {
    const body = {};
    for (const one of this.fields) {
      const value = one.read();
      if (value !== undefined && value !== "") put(body, one.path, value);
    }
    body.data = this.byPath.data.input.value;
    return body;
  }

  uploaded(id) {
    const { input } = this.byPath.data;
    input.append(el("option", { value: id, text: id }));
    input.value = id;
    this.changed();
  }

  removed(id) {
    const { input } = this.byPath.data;
    [...input.options].find((option) => option.value === id)?.remove();
    this.changed();
  }

  async plan() {
    this.memory.textContent = "Memory is being reckoned…";
    try {
      const answer = await this.reckon(this.body());
      if (!answer) return; // for a newer form
      const { memory_mb: most, parts = {}, notes = [] } = answer;
      const largest = Object.entries(parts)
        .map(([name, value]) => `${name} ${Math.round(value)}`)
        .join(", ");
      const size = most >= 2048 ? `${(most / 1024).toFixed(1)} GB` : `${most} MB`;
      const detail = largest ? ` (MB: ${largest})` : "";
      this.memory.textContent = `Takes about ${size} of memory${detail}. ${notes.join(". ")}`;
    } catch (error) {
      this.memory.textContent = error.message;
    }
  }

  async start() {
    const job = await guarded(() => post("/train", this.body()));
    if (!job) return;
    for (const note of job.notes ?? []) toast(note);
    await this.runs.load(job.result?.run);
  }
}

// labels and lines that differ from the schema's; none: what an empty field stands for
const WORDS = {
  name: { label: "Name of the run", description: "Left empty, one is made up.", none: "" },
  data: { label: "Data set", description: null },
  examples: { label: "Pictures of it", description: null },
  validation: { label: "Measured on", description: null, none: "pictures held out" },
};

/** The field's own words, and a text that names something listed becomes a choice. */
function withList(leaf, lists) {
  const path = leaf.path.join(".");
  const schema = { ...leaf.schema, ...WORDS[path] };
  if (lists[path])
    Object.assign(schema, { enum: lists[path], nullable: schema.nullable && path !== "base" });
  return { ...leaf, schema };
}

const TITLES = { "": "More about the data", control: "The network", training: "The training" };

function groups(fields) {
  const parts = new Map();
  for (const one of fields) {
    const key = one.path.length > 1 ? one.path[0] : "";
    parts.set(key, [...(parts.get(key) ?? []), one.node]);
  }
  return [...parts].map(([key, nodes]) =>
    el(
      "details",
      { class: "part" },
      el("summary", { text: TITLES[key] ?? key }),
      el("div", { class: "fields two" }, ...nodes),
    ),
  );
}
