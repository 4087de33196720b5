/** A job of /generate from its start to its pictures: progress, previews, cancel, actions. */
import { cancel, finished, onJobs, pictureUrl, post, previewUrl, thumbUrl, watch } from "../api.js";
import { $, button, download, duration, el, guarded, toast } from "../dom.js";

const STATES = {
  queued: "waiting",
  running: "running",
  done: "done",
  failed: "failed",
  cancelled: "cancelled",
  lost: "lost",
};
const KINDS = { generate: "Picture", annotate: "Hint", plan: "Memory plan", evaluate: "Measurement", train: "Training" };

export class Results extends EventTarget {
  constructor() {
    super();
    this.job = null; // the one that is shown
    this.shown = null; // {id, url, body} of the picture that is shown
    this.actions = []; // [label, icon, listener(shown), title, whether(shown)]
    $("#cancel").addEventListener("click", () => this.cancel());
  }

  get running() {
    return Boolean(this.job && !finished(this.job));
  }

  /** Sends a body and shows its job. Resolves with the last state of the job. */
  async make(body, quiet = false) {
    const job = await post("/generate", body);
    this.job = job;
    for (const note of job.notes ?? []) toast(note);
    return new Promise((resolve) => {
      watch(job, (state) => {
        if (this.job?.id === state.id) this.#show(state, quiet);
        if (!finished(state)) return;
        if (state.state === "done")
          this.dispatchEvent(new CustomEvent("made", { detail: { job: state, body } }));
        for (const note of state.notes ?? []) toast(note);
        resolve(state);
      });
    });
  }

  cancel(job = this.job) {
    if (job && !finished(job)) return guarded(() => cancel(job));
    return undefined;
  }

  #show(job, quiet) {
    this.job = job;
    const open = !finished(job);
    $("#cancel").hidden = !open;
    $("#result-progress").hidden = !open;
    const text = progressText(job);
    $("#progress").value = job.progress ?? 0;
    $("#progress-text").textContent = text;
    if (!(quiet && open))
      $("#result-state").textContent = open ? STATES[job.state] : this.#ending(job);
    if (open && job.preview > 0 && !quiet)
      this.#picture(previewUrl(job), "The picture while it is made", true);
    if (job.state === "failed") toast(job.error ?? "The picture failed.", "error");
    if (job.results?.length && !open) this.#strip(job);
    else if (!open && this.shown) this.show(this.shown);
  }

  #ending(job) {
    if (job.state !== "done") return STATES[job.state];
    const seconds = job.finished && job.started ? job.finished - job.started : null;
    const seed = job.results?.[0]?.seed;
    const named = seed === undefined || seed === null ? "" : `, seed ${seed}`;
    if (seconds === null) return `done${named}`;
    return `done in ${seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds)}${named}`;
  }

  #strip(job) {
    const pictures = job.results.map((result) => normal(result));
    const strip = $("#result-strip");
    strip.replaceChildren(
      ...(pictures.length < 2
        ? []
        : pictures.map((picture, number) =>
            el(
              "button",
              {
                type: "button",
                "aria-label": `Picture ${number + 1}, seed ${picture.seed}`,
                on: { click: () => this.show(picture) },
              },
              el("img", { src: picture.thumb, alt: "" }),
            ),
          )),
    );
    if (pictures.length) this.show(pictures[0]);
  }

  /** Shows a picture of the history or of a job: {id, picture, seed, prompt?}. */
  show(picture) {
    this.shown = picture;
    this.#picture(
      picture.picture,
      picture.prompt ? `Picture of: ${picture.prompt}` : "The finished picture",
      false,
    );
    $("#result-actions").hidden = false;
    $("#result-actions").replaceChildren(
      ...this.actions
        .filter(([, , , , fits]) => !fits || fits(picture))
        .map(([label, shape, listener, title]) =>
          button(label, () => listener(this.shown), { icon: shape, title }),
        ),
      button(
        "Download",
        () => download(picture.picture, `zeroconv-${picture.seed ?? picture.id}.png`),
        { icon: "download", title: "With the settings in the file" },
      ),
    );
    this.dispatchEvent(new Event("shown"));
  }

  #picture(url, alt, passing) {
    const image = $("#result-image");
    $("#result-empty").hidden = true;
    image.hidden = false;
    image.classList.toggle("preview", passing);
    if (!image.src.endsWith(url)) image.src = url;
    image.alt = alt;
  }
}

/** What a job lists of a picture, or its bare id. */
export function normal(result) {
  if (typeof result === "string")
    return { id: result, picture: pictureUrl(result), thumb: thumbUrl(result) };
  return {
    ...result,
    picture: result.picture ?? pictureUrl(result.id),
    thumb: result.thumb ?? thumbUrl(result.id),
  };
}

function progressText(job) {
  if (job.state === "queued") return "waiting for its turn";
  const step = job.steps ? `step ${job.step} of ${job.steps}` : "preparing";
  const left = duration(job.eta_s);
  return left ? `${step}, ${left} left` : step;
}

/** The queue in the head of the page: all open jobs, each with its own cancel. */
export function buildQueue() {
  const open = new Map();
  const rows = new Map();
  onJobs((job) => {
    if (finished(job)) open.delete(job.id);
    else open.set(job.id, job);
    show();
  });
  function show() {
    const running = [...open.values()].filter((job) => job.state === "running").length;
    const waiting = open.size - running;
    const words = [running && `${running} running`, waiting && `${waiting} waiting`];
    $("#queue-text").textContent = words.filter(Boolean).join(", ") || "Nothing in the queue";
    $("#queue").classList.toggle("busy", open.size > 0);
    for (const [id, row] of rows)
      if (!open.has(id)) {
        row.remove();
        rows.delete(id);
      }
    for (const job of open.values()) {
      if (!rows.has(job.id)) rows.set(job.id, queueRow(job));
      const row = rows.get(job.id);
      const kind = KINDS[job.kind] ?? job.kind;
      const percent = Math.round(100 * (job.progress ?? 0));
      row.firstChild.textContent = `${kind}: ${STATES[job.state]} ${percent}%`;
      if (!row.isConnected) $("#queue-list").append(row);
    }
  }
}

function queueRow(job) {
  return el(
    "li",
    { class: "row between" },
    el("span"),
    button("Cancel", () => guarded(() => cancel(job)), { kind: "quiet" }),
  );
}
