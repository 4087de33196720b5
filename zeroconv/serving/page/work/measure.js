/** The tab Measure: one or two controls on a data set, with floor and ceiling, and pictures. */
import { cancel, finished, get, start } from "../api.js";
import { $, button, choice, duration, el, field, guarded } from "../dom.js";
import { controlNamed, fastChoices, offer, pairs } from "../make/models.js";
import { report } from "./report.js";

const PROMPTS = [
  ["own", "the pictures' captions"],
  ["empty", "no prompt"],
  ["insufficient", "a vague prompt"],
  ["conflicting", "another picture's caption"],
];

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
  const first = side("Control", "What its hints show", controls);
  const second = side("Beside it", "What the other's hints show", [["", "none"], ...controls]);
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
  const fast = choice(fastChoices());
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
              fast: fast.value || undefined,
            };
            results.replaceChildren();
            for (const one of [first.read(), second.read()])
              if (one) measure(results, { ...one, ...asked });
          },
        },
      },
      ...first.nodes,
      ...second.nodes,
      field("Data set", data),
      el("div", { class: "pair" }, field("Pictures", count), field("Steps", steps)),
      field("Prompts", prompts),
      field("Base", base),
      field("Faster, at a small loss", fast),
      run,
    ),
  );
  older(results);
}

/** A control, and of a Union its kind, of one that does not say it what its hints show. */
function side(label, about, controls) {
  const name = choice(controls);
  const kind = choice([]);
  const shown = field(about, kind);
  const kinds = () => {
    const control = controlNamed(name.value);
    if (!control) return [];
    if (control.union_kinds) return pairs(control.union_kinds);
    return control.condition ? [] : pairs(offer.conditions);
  };
  const show = () => {
    const list = kinds();
    kind.replaceChildren(...list.map(([value, text]) => el("option", { value, text })));
    shown.hidden = !list.length;
  };
  name.addEventListener("change", show);
  show();
  const read = () => {
    if (!name.value) return null;
    if (!kinds().length) return { control: name.value };
    if (controlNamed(name.value).union_kinds) return { control: `${name.value}:${kind.value}` };
    return { control: name.value, condition: kind.value };
  };
  return { nodes: [field(label, name), shown], read };
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
