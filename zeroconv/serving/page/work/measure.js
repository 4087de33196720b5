/** The tab Measure: one or two controls on a data set, with floor and ceiling, and pictures. */
import { cancel, finished, get, start } from "../api.js";
import { $, button, choice, duration, el, field, guarded } from "../dom.js";
import { offer, pairs } from "../make/models.js";

const PROMPTS = [
  ["own", "the pictures' captions"],
  ["empty", "no prompt"],
  ["insufficient", "a vague prompt"],
  ["conflicting", "another picture's caption"],
];
const GROUPS = ["best", "median", "worst"];

export function buildMeasure() {
  let built = "";
  return () => {
    const now = offer.controls.map((control) => control.name).join(" ");
    if (now !== built) form();
    built = now;
  };
}

function form() {
  const controls = pairs(offer.controls);
  const sets = offer.datasets ?? [];
  const first = choice(controls);
  const second = choice([["", "none"], ...controls]);
  const data = choice(
    pairs(sets),
    sets.some((set) => set.name === "playroom:test") ? "playroom:test" : undefined,
  );
  const base = choice(pairs(offer.bases), offer.info.base);
  const count = el("input", {
    type: "number",
    min: 2,
    max: offer.info.limits?.evaluated ?? 1000,
    value: 8,
  });
  const steps = el("input", {
    type: "number",
    min: 1,
    max: offer.info.limits?.steps ?? 150,
    value: 12,
  });
  const prompts = choice(PROMPTS);
  const run = el("button", { class: "main", id: "measure-start" }, "Measure");
  const results = el("div", { class: "sides", id: "measured" });
  $("#measure-results").replaceChildren(
    el("h2", { text: "How well the hints are followed" }),
    el("p", {
      class: "hint",
      text:
        "Each hint is read back from the picture that was made with it. The floor: pictures made " +
        "with another hint. The ceiling: real pictures through the VAE. Small: the 95% interval.",
    }),
    results,
  );
  $("#measure-form").replaceChildren(
    el("h2", { text: "Measure a control" }),
    el(
      "form",
      {
        class: "fields",
        on: {
          submit: (event) => {
            event.preventDefault();
            const asked = {
              data: data.value,
              count: Number(count.value),
              steps: Number(steps.value),
              prompts: prompts.value,
              base: base.value,
            };
            const names = [first.value, second.value].filter(Boolean);
            results.replaceChildren();
            for (const name of names) measure(results, { control: name, ...asked });
          },
        },
      },
      field("Control", first),
      field("Beside it", second),
      field("Data set", data),
      el("div", { class: "pair" }, field("Pictures", count), field("Steps", steps)),
      field("Prompts", prompts),
      field("Base", base),
      run,
    ),
  );
  older(results);
}

/** The newest measurements of the server, while none was started here. */
async function older(results) {
  const answer = await guarded(() => get("/jobs"));
  const job = answer?.jobs.find(
    (one) => one.kind === "evaluate" && one.state === "done" && one.result?.table,
  );
  if (job && !results.children.length)
    results.append(el("section", { class: "fields" }, ...report(job.result)));
}

async function measure(results, body) {
  const state = el("span", { class: "hint", role: "status", text: "waiting" });
  const bar = el("progress", {
    max: 1,
    value: 0,
    "aria-label": `Progress of measuring ${body.control}`,
  });
  let job = null;
  const stop = button("Cancel", () => job && !finished(job) && guarded(() => cancel(job)), {
    kind: "quiet",
  });
  const box = el(
    "section",
    { class: "fields", "data-measured": body.control },
    el("div", { class: "head" }, el("h3", { text: body.control }), state, stop),
    bar,
  );
  results.append(box);
  const last = await guarded(() =>
    start("/evaluate", body, (now) => {
      job = now;
      bar.value = now.progress ?? 0;
      const left = duration(now.eta_s);
      state.textContent = `${now.state}${left ? `, ${left} left` : ""}`;
    }),
  );
  bar.remove();
  stop.remove();
  if (last?.state === "done") box.replaceChildren(...report(last.result));
  else state.textContent = last?.error ?? last?.state ?? "not started";
}

const COLUMNS = [
  ["floor", "floor"],
  ["control", "control"],
  ["none", "no control"],
  ["ceiling", "ceiling"],
];

function report(result) {
  const heads = COLUMNS.map(([, name]) => el("th", { scope: "col", class: "number", text: name }));
  return [
    el("h3", { text: `${result.control}: ${pairsOf(result.n)} pairs of hint and picture` }),
    el(
      "div",
      { class: "scroll" },
      el(
        "table",
        { class: "figures" },
        el("caption", { class: "unseen", text: `Figures of ${result.control}` }),
        el("thead", {}, el("tr", {}, ...heads)),
        ...result.table.map(rows),
      ),
    ),
    ...GROUPS.flatMap((name) => pictures(name, result.pictures?.[name] ?? [])),
  ];
}

/** How many pairs were measured: a number, or one a column. */
const pairsOf = (n) => (typeof n === "object" ? (n.own ?? Math.max(...Object.values(n))) : n);

/** A metric: what it is, then its figures. */
function rows(metric) {
  const about = [metric.meaning, `${metric.better} is better`].filter(Boolean).join("; ");
  const cells = COLUMNS.map(([key]) => el("td", { class: "number" }, ...figure(metric[key])));
  return el(
    "tbody",
    {},
    el(
      "tr",
      {},
      el(
        "th",
        { scope: "rowgroup", colspan: COLUMNS.length },
        `${metric.metric} `,
        el("small", { text: about }),
        standing(metric),
      ),
    ),
    el("tr", {}, ...cells),
  );
}

function figure(value) {
  if (value === null || value === undefined) return ["–"];
  if (typeof value === "number") return [value.toFixed(3)];
  const parts = [value.mean === null ? "–" : value.mean.toFixed(3)];
  if (value.low !== null && value.low !== undefined) {
    parts.push(
      el("br"),
      el("small", { text: `${value.low.toFixed(3)} to ${value.high.toFixed(3)}` }),
    );
  }
  return parts;
}

/** Where the control stands between floor and ceiling. */
function standing({ floor, control, ceiling }) {
  const [low, at, high] = [floor, control, ceiling].map((value) => value?.mean ?? value);
  if (![low, at, high].every(Number.isFinite) || low === high) return null;
  const share = Math.min(1, Math.max(0, (at - low) / (high - low)));
  const fill = el("span");
  fill.style.left = "0";
  fill.style.width = `${100 * share}%`;
  return el(
    "div",
    {
      class: "bar",
      role: "img",
      "aria-label": `${Math.round(100 * share)}% of the way from floor to ceiling`,
    },
    fill,
  );
}

function pictures(name, entries) {
  if (!entries.length) return [];
  const title = name[0].toUpperCase() + name.slice(1);
  return [
    el("h3", { text: title }),
    el(
      "div",
      { class: "picks" },
      ...entries.map((entry) =>
        el(
          "figure",
          {},
          el(
            "div",
            { class: "four" },
            ...["hint", "read", "made", "real"].map((kind) =>
              el("img", {
                src: entry[kind],
                title: kind,
                loading: "lazy",
                alt: {
                  hint: "hint",
                  read: "read back from the picture",
                  made: `picture made: ${entry.caption}`,
                  real: "real picture",
                }[kind],
              }),
            ),
          ),
          el("figcaption", { text: `${entry.metric} ${entry.value.toFixed(3)}: ${entry.caption}` }),
        ),
      ),
    ),
  ];
}
