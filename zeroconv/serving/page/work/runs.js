/** The runs of the server, and one of them with its curves and sample sheets. */
import { get, post, remove } from "../api.js";
import { button, bytes, duration, el, field, guarded } from "../dom.js";
import { loadOffer } from "../make/models.js";
import { asked } from "./asked.js";
import { chart } from "./charts.js";

const EVERY = 1000; // milliseconds between two looks at a run that is at work
const OPEN = ["queued", "running"];

export class Runs {
  constructor(box) {
    this.list = el("div", { class: "runs", role: "group", "aria-label": "Runs" });
    this.detail = el("div", { class: "fields", id: "run" });
    this.chosen = null; // name
    this.runs = [];
    this.timer = 0;
    this.cache = el("p", { class: "hint row between", id: "train-cache" });
    box.replaceChildren(el("h2", { text: "Runs" }), this.list, this.detail, this.cache);
  }

  async load(choose = this.chosen) {
    const answer = await guarded(() => get("/train/runs"));
    if (!answer) return;
    this.runs = answer.runs;
    this.#showCache(answer.cache_bytes);
    this.chosen = choose ?? this.runs[0]?.name ?? null;
    this.#rows();
    await this.look();
  }

  /** What trainings have computed beforehand, and a button that removes it. */
  #showCache(count) {
    const text = `Hints and latents that were computed beforehand: ${bytes(count)}.`;
    const clear = asked("They are computed again when they are needed", "Delete them", async () => {
      await guarded(() => remove("/train/cache"));
      await this.load();
    });
    this.cache.replaceChildren(...(count ? [el("span", { text }), clear] : []));
  }

  /** A training's job changed. */
  heard(job) {
    if (OPEN.includes(job.state)) return;
    if (!this.list.closest("[role=tabpanel]").hidden) this.load();
  }

  #rows() {
    if (!this.runs.length) {
      this.list.replaceChildren(
        el("p", {
          class: "hint",
          text: "No run yet. A first one takes a few minutes on the playroom.",
        }),
      );
      this.detail.replaceChildren();
      return;
    }
    this.list.replaceChildren(
      ...this.runs.map((run) =>
        el(
          "button",
          {
            type: "button",
            class: "run quiet",
            "aria-pressed": String(run.name === this.chosen),
            "data-run": run.name,
            on: {
              click: () => {
                this.chosen = run.name;
                this.#rows();
                this.look();
              },
            },
          },
          el("span", { text: run.name }),
          el("span", { class: "tag", text: tag(run) }),
        ),
      ),
    );
  }

  /** Asks for the chosen run, and again while it is at work. */
  async look() {
    clearTimeout(this.timer);
    const name = this.chosen;
    if (!name) return;
    const run = await guarded(() => get(`/train/runs/${name}`));
    if (!run || name !== this.chosen) return;
    const row = this.list.querySelector(`[data-run="${name}"] .tag`);
    if (row) row.textContent = tag(run);
    this.#show(run);
    if (OPEN.includes(run.state)) this.timer = setTimeout(() => this.look(), EVERY);
  }

  /** Buttons and slider stay in the page while the run goes on, so that they keep the focus. */
  #show(run) {
    const open = OPEN.includes(run.state);
    if (this.shown !== `${run.name} ${open} ${run.state}`) {
      this.shown = `${run.name} ${open} ${run.state}`;
      this.sheets = -1;
      this.parts = {
        state: el("span", { class: "hint", role: "status", id: "run-state" }),
        steps: el("progress", { "aria-label": "Steps of the run" }),
        charts: el("div", { class: "charts" }),
        gain: el("p", { class: "hint" }),
        samples: el("div", { class: "fields" }),
      };
      const { state: words, steps, charts, gain, samples } = this.parts;
      this.detail.replaceChildren(
        el(
          "div",
          { class: "head" },
          el("h2", { text: run.name }),
          words,
          el("div", { class: "row right" }, ...this.#buttons(run, open)),
        ),
        steps,
        charts,
        gain,
        samples,
      );
    }
    this.#update(run);
  }

  #update(run) {
    const { parts } = this;
    const events =
      run.detected_step === null || run.detected_step === undefined
        ? []
        : [[run.detected_step, `hints followed: step ${run.detected_step}`]];
    const options = { steps: run.steps, events };
    parts.state.textContent = state(run);
    parts.steps.max = run.steps;
    parts.steps.value = run.step;
    parts.charts.replaceChildren(
      chart("Loss", run.loss ?? [], { ...options, smooth: 0.9 }),
      chart("Hint gain", run.hint_gain ?? [], { ...options, zero: true }),
    );
    parts.gain.textContent = gainText(run);
    const count = run.samples?.length ?? 0;
    if (count !== this.sheets) {
      this.sheets = count;
      parts.samples.replaceChildren(...sheets(run));
    }
  }

  #buttons(run, open) {
    if (open)
      return [
        button("Stop", () => this.#act(run, "stop"), {
          icon: "stop",
          title: "Saves the run; it can go on later",
        }),
      ];
    const steps = el("input", {
      type: "number",
      min: run.step + 1,
      value: run.state === "done" ? run.steps * 2 : run.steps,
      "aria-label": "Steps in all",
    });
    return [
      el("label", { class: "inline" }, "up to step ", steps),
      button(
        run.state === "done" ? "Train longer" : "Resume",
        () => this.#act(run, "resume", { steps: Number(steps.value) }),
        { icon: "play" },
      ),
      asked(`Delete the run ${run.name} with all its files`, "Delete", () => this.#remove(run)),
    ];
  }

  async #remove(run) {
    if (!(await guarded(() => remove(`/train/runs/${run.name}`)))) return;
    this.shown = null;
    this.detail.replaceChildren();
    await guarded(loadOffer); // its control is gone too
    await this.load(this.runs.find((other) => other.name !== run.name)?.name ?? null);
  }

  async #act(run, what, body = {}) {
    const done = await guarded(() => post(`/train/runs/${run.name}/${what}`, body));
    if (done) await this.load(run.name);
  }
}

const tag = (run) =>
  `${run.condition}, ${run.state}, ${run.step} of ${run.steps}, ${bytes(run.bytes)}`;

function state(run) {
  const left = duration(run.time_left_s);
  const ready = run.control ? `, usable as ${run.control}` : "";
  const rest = left && OPEN.includes(run.state) ? `, ${left} left` : "";
  return `${run.state}, step ${run.step} of ${run.steps}${rest}${ready}`;
}

function gainText(run) {
  const what =
    "The hint gain is the held-out loss with another picture's hint minus that with the right " +
    "one: above 0 the hint is followed.";
  if (run.detected_step !== null && run.detected_step !== undefined)
    return `${what} A jump was detected at step ${run.detected_step}.`;
  return `${what} No jump has been detected yet.`;
}

/** Sample sheets, the newest first, with a slider over the steps. */
function sheets(run) {
  const urls = run.samples ?? [];
  if (!urls.length) return [];
  const step = (url) => Number(/(\d+)\.png/.exec(url)?.[1] ?? 0);
  const last = urls.length - 1;
  const image = el("img", { class: "sheet" });
  const shown = el("output");
  const slider = el("input", {
    type: "range",
    id: "sheet-number",
    min: 0,
    max: last,
    value: last,
    on: { input: () => put() },
  });
  const put = () => {
    const url = urls[slider.value];
    image.src = url;
    image.alt = `Samples at step ${step(url)}: hint, target, with the caption, without a prompt`;
    shown.textContent = `step ${step(url)}`;
  };
  put();
  return [
    el("h3", { text: "Samples: hint, target, with the caption, without a prompt" }),
    el("div", { class: "row" }, last ? field("Step", slider) : null, shown),
    image,
  ];
}
