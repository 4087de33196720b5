/** A form made of a JSON schema: fields for numbers, texts, choices and switches, in groups. */
import { choice, el, field } from "../dom.js";

/** The schema that a $ref, or the one kind beside null, stands for. */
export function resolved(schema, root) {
  let node = schema;
  while (node?.$ref) node = { ...at(root, node.$ref), ...without(node, "$ref") };
  if (node?.allOf?.length === 1)
    return resolved({ ...node.allOf[0], ...without(node, "allOf") }, root);
  const kinds = (node?.anyOf ?? node?.oneOf)?.map((kind) => resolved(kind, root));
  if (!kinds) return node;
  const some = kinds.filter((kind) => kind.type !== "null");
  const nullable = some.length < kinds.length;
  const best = some.find((kind) => kind.enum || kind.const !== undefined) ?? some[0] ?? {};
  return { ...best, ...without(node, "anyOf", "oneOf"), nullable };
}

const at = (root, ref) =>
  ref
    .replace("#/", "")
    .split("/")
    .reduce((node, key) => node?.[key], root);

function without(node, ...keys) {
  return Object.fromEntries(Object.entries(node).filter(([key]) => !keys.includes(key)));
}

/** Every leaf of the schema as {path, name, schema}; objects become groups of their names. */
export function leaves(root, node = root, path = []) {
  const out = [];
  for (const [name, raw] of Object.entries(node.properties ?? {})) {
    const schema = resolved(raw, root);
    const here = [...path, name];
    if (schema.type === "object" && schema.properties) out.push(...leaves(root, schema, here));
    else if (simple(schema)) out.push({ path: here, name, schema });
  }
  return out;
}

const simple = (schema) =>
  schema.enum ||
  schema.const !== undefined ||
  ["number", "integer", "string", "boolean"].includes(schema.type);

/** The control of a leaf, with `read()`, which gives undefined where the default holds. */
export function leafField({ path, name, schema }, changed) {
  const words = name.replaceAll("_", " ");
  const label = schema.label ?? words[0].toUpperCase() + words.slice(1);
  const fallback = schema.default ?? null;
  const on = { change: changed };
  const dotted = path.join(".");
  if (schema.type === "boolean") {
    const input = el("input", {
      type: "checkbox",
      checked: Boolean(fallback),
      "data-path": dotted,
      on,
    });
    const node = el("label", { class: "check" }, input, el("span", { text: label }));
    return {
      node,
      path,
      input,
      read: () => (input.checked === Boolean(fallback) ? undefined : input.checked),
    };
  }
  if (schema.enum) {
    const options = schema.enum
      .filter((value) => value !== null)
      .map((value) => [String(value), String(value)]);
    if (schema.nullable) options.unshift(["", schema.none ?? "default"]);
    const input = choice(options, fallback === null ? options[0][0] : String(fallback), on);
    input.dataset.path = dotted;
    const read = () => (input.value === String(fallback ?? "") ? undefined : input.value);
    return { node: field(label, input, schema.description), path, input, read };
  }
  const number = schema.type === "number" || schema.type === "integer";
  const input = el("input", {
    type: number ? "number" : "text",
    "data-path": dotted,
    placeholder: fallback === null ? (schema.none ?? "default") : String(fallback),
    value: fallback === null ? "" : fallback,
    min: number ? (schema.minimum ?? null) : null,
    max: number ? (schema.maximum ?? null) : null,
    step: schema.type === "integer" ? 1 : number ? "any" : null,
    on,
  });
  const read = () => {
    if (input.value === "" || input.value === String(fallback)) return undefined;
    return number ? Number(input.value) : input.value;
  };
  return { node: field(label, input, schema.description), path, input, read };
}

/** Writes a value at a path of nested objects. */
export function put(target, path, value) {
  let node = target;
  for (const key of path.slice(0, -1)) node = node[key] ??= {};
  node[path.at(-1)] = value;
}
