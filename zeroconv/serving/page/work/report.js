/** What a measurement gives: its table with floor and ceiling, and its pictures. */
import { el } from "../dom.js";

const GROUPS = ["best", "median", "worst"];
const COLUMNS = [
  ["floor", "floor"],
  ["control", "control"],
  ["none", "no control"],
  ["ceiling", "ceiling"],
];

export function report(result) {
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
