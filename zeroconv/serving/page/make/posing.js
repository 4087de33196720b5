/** The buttons of the pose editor: people, joints, OpenPose's JSON in and out. */
import { button, choice, download, el, field, guarded, toast } from "../dom.js";
import { Sentence } from "../errors.js";
import { fromJson, toJson } from "../canvas/openpose.js";
import { JOINTS } from "../canvas/pose.js";

export function posePanel(layer, board, tools) {
  const chosen = () =>
    Math.min(tools.joint?.person ?? layer.people.length - 1, layer.people.length - 1);
  const some = (work) => () =>
    layer.people.length ? work(chosen()) : toast("There is nobody yet: add a person.");
  const file = el("input", {
    type: "file",
    accept: ".json,application/json",
    class: "unseen",
    "data-pose-json": "",
    on: {
      change: () => {
        if (file.files[0]) read(file.files[0], layer, board);
        file.value = "";
      },
    },
  });
  return el(
    "fieldset",
    { class: "pose" },
    el("legend", { text: `People (${layer.people.length})` }),
    el(
      "div",
      { class: "row wrap" },
      button("Add", () => tools.addPerson(), { icon: "plus", title: "Add a person" }),
      button(
        "Mirror",
        some((at) =>
          tools.people((people) => {
            people[at].mirror();
          }),
        ),
        { icon: "mirror" },
      ),
      button(
        "Copy",
        some((at) => tools.people((people) => [...people, people[at].copy(board.width / 8)])),
      ),
      button(
        "Remove",
        some((at) => tools.people((people) => people.filter((_, i) => i !== at))),
        { icon: "clear" },
      ),
      el("label", { class: "button" }, "Open JSON", file),
      button(
        "Save JSON",
        some(() => save(layer, board)),
        { title: "OpenPose's JSON" },
      ),
    ),
    layer.people.length ? jointFields(layer, board, tools) : null,
  );
}

function save(layer, board) {
  const text = JSON.stringify(toJson(layer.people, board.width, board.height), null, 1);
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  download(url, "pose.json");
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function read(file, layer, board) {
  return guarded(async () => {
    let json;
    try {
      json = JSON.parse(await file.text());
    } catch {
      throw new Sentence(`${file.name} is not JSON.`);
    }
    const { people, notes } = fromJson(json, board.width, board.height);
    await board.edit(layer, () => {
      layer.people = people;
      layer.redrawPeople();
    });
    for (const note of notes) toast(note);
  });
}

/** The selected joint by name, its position, and whether it is known. */
function jointFields(layer, board, tools) {
  const person = Math.min(tools.joint?.person ?? 0, layer.people.length - 1);
  const joint = tools.joint?.joint ?? null;
  const names = layer.people.flatMap((_, index) => [
    [`${index}:`, `person ${index + 1}`],
    ...JOINTS.map((name, number) => [`${index}:${number}`, `person ${index + 1}, ${name}`]),
  ]);
  const select = choice(names, `${person}:${joint ?? ""}`, {
    change: () => {
      const [at, number] = select.value.split(":");
      tools.set({ joint: { person: Number(at), joint: number === "" ? null : Number(number) } });
      tools.dispatchEvent(new Event("joint"));
    },
  });
  const parts = [field("Selected", select)];
  if (joint !== null) {
    const known = layer.people[person].known(joint);
    parts.push(
      button(
        known ? "Hide the joint" : "Show the joint",
        () =>
          tools.people((people) => {
            people[person].points[joint][2] = known ? 0 : 1;
          }),
        { kind: "quiet" },
      ),
    );
  }
  return el("div", { class: "row wrap end" }, ...parts);
}
