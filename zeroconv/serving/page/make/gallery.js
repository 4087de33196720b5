/** The history: search, favourites, and what can be done with a picture. */
import { get, patch, remove } from "../api.js";
import { $, button, download, el, guarded, icon, later } from "../dom.js";

const PAGE = 24;

export class Gallery {
  /** actions: {reuse(item), asHint(item), asPicture(item), compare(item), show(item)} */
  constructor(actions) {
    this.actions = actions;
    this.items = [];
    this.favourites = false;
    $("#history-query").addEventListener(
      "input",
      later(250, () => this.load()),
    );
    $("#history-more").addEventListener("click", () => this.more());
    const star = button(
      "",
      () => {
        this.favourites = !this.favourites;
        star.setAttribute("aria-pressed", String(this.favourites));
        this.load();
      },
      {
        icon: "star",
        kind: "quiet",
        "aria-label": "Favourites only",
        title: "Favourites only",
        "aria-pressed": "false",
      },
    );
    $("#history-query").after(star);
  }

  async load() {
    this.items = [];
    await this.more();
  }

  async more() {
    const query = new URLSearchParams({ limit: PAGE });
    const text = $("#history-query").value.trim();
    if (text) query.set("query", text);
    if (this.favourites) query.set("favourite", "true");
    const last = this.items.at(-1);
    if (last) query.set("before", last.number ?? last.id);
    const answer = await guarded(() => get(`/history?${query}`));
    if (!answer) return;
    const known = new Set(this.items.map((item) => item.id));
    this.items.push(...answer.items.filter((item) => !known.has(item.id)));
    $("#history-more").hidden = answer.items.length < PAGE;
    this.#show();
  }

  #show() {
    const searched = $("#history-query").value.trim() || this.favourites;
    $("#history-empty").hidden = this.items.length > 0;
    $("#history-empty").textContent = searched ? "No picture fits." : "No pictures yet.";
    $("#history-list").replaceChildren(...this.items.map((item) => this.#card(item)));
  }

  #card(item) {
    const label = `${item.prompt || "no prompt"}, seed ${item.seed ?? item.settings?.seed}`;
    return el(
      "li",
      { "data-id": item.id },
      el(
        "button",
        { type: "button", title: label, on: { click: () => this.open(item) } },
        el("img", { src: item.thumb, alt: label, loading: "lazy" }),
      ),
      item.favourite
        ? el("span", { class: "starred", "aria-label": "Favourite" }, icon("star"))
        : null,
    );
  }

  /** The dialog of one picture. */
  open(item) {
    const dialog = $("#detail");
    const act = (work) => () => {
      dialog.close();
      work(item);
    };
    const { actions } = this;
    $("#detail-body").replaceChildren(
      el("img", {
        src: item.picture,
        alt: item.prompt ? `Picture of: ${item.prompt}` : "A picture without a prompt",
      }),
      el(
        "div",
        {},
        el("p", { class: "prompt-text", text: item.prompt || "no prompt" }),
        facts(item),
        el(
          "div",
          { class: "row wrap" },
          button("Use these settings", act(actions.reuse), { icon: "reuse", kind: "main" }),
          button("Use as picture", act(actions.asPicture), { icon: "picture" }),
          button("Use as hint", act(actions.asHint), { icon: "wand" }),
          button("Compare with the result", act(actions.compare), { icon: "compare" }),
          button("Show large", act(actions.show), { icon: "eye" }),
          button("Download", () => download(item.picture, `zeroconv-${item.seed ?? item.id}.png`), {
            icon: "download",
          }),
          button(item.favourite ? "No favourite" : "Favourite", () => this.#star(item), {
            icon: "star",
          }),
          button("Delete", () => this.#delete(item), { icon: "clear", kind: "quiet" }),
        ),
      ),
    );
    dialog.showModal();
  }

  async #star(item) {
    await guarded(async () => {
      Object.assign(item, await patch(`/history/${item.id}`, { favourite: !item.favourite }));
      this.#show();
      $("#detail").close();
    });
  }

  async #delete(item) {
    await guarded(async () => {
      await remove(`/history/${item.id}`);
      this.items = this.items.filter((other) => other !== item);
      this.#show();
      $("#detail").close();
    });
  }
}

/** The settings of a picture as a short table. */
function facts(item) {
  const s = item.settings ?? {};
  const controls = (s.controls ?? [])
    .map((unit) => `${unit.control} × ${unit.scale ?? 1}`)
    .join(", ");
  const rows = [
    ["Base", s.base],
    ["Size", s.width && `${s.width} × ${s.height}`],
    ["Seed", item.seed ?? s.seed],
    ["Steps", s.steps],
    ["Sampler", [s.sampler, s.schedule].filter(Boolean).join(", ")],
    ["CFG", s.cfg],
    ["Controls", controls],
    ["Negative", s.negative],
    ["From a picture", s.image && `strength ${s.strength ?? "of the base"}`],
    [
      "Made",
      item.created &&
        new Date(
          typeof item.created === "number" ? item.created * 1000 : item.created,
        ).toLocaleString(),
    ],
  ];
  return el(
    "dl",
    { class: "facts" },
    ...rows
      .filter(
        ([, value]) => value !== undefined && value !== null && value !== "" && value !== false,
      )
      .flatMap(([name, value]) => [el("dt", { text: name }), el("dd", { text: value })]),
  );
}
