// What openapi.json says of values: their types, limits and meanings, and examples.

import {load as loadFile} from "/docs/api.js";
import {el, words} from "/docs/dom.js";

let description;

export async function load() {
  description = await loadFile("/openapi.json");
  return description;
}

export function describe() {
  return Object.entries(description.paths).flatMap(([path, item]) => ["get", "post", "put", "patch", "delete"].filter((method) => item[method])
    .map((method) => ({method: method.toUpperCase(), path, item, operation: item[method]})));
}

// deref follows a reference within the document.
export function deref(thing) {
  if (!thing?.$ref) return thing;
  return deref(thing.$ref.slice(2).split("/").reduce((at, name) => at[name.replaceAll("~1", "/").replaceAll("~0", "~")], description));
}

// typeOf says what a value is, in a few words: "string, null", "array of Session".
export function typeOf(schema) {
  const {type, items, oneOf, format} = deref(schema);
  if (oneOf) return oneOf.map(nameOf).join(" or ");
  if (type === "array") return `array of ${nameOf(items)}`;
  return [type].flat().join(" or ") + (format && format !== "password" ? ` (${format})` : "");
}

const nameOf = (schema) => schema.$ref?.split("/").at(-1) ?? typeOf(schema);

export function limitsOf(schema) {
  const {enum: values, minimum, maximum, minLength, maxLength, maxItems, pattern, default: absent} = deref(schema);
  const range = (from, to, unit) => from === undefined && to === undefined ? [] :
    [from === undefined ? `at most ${to}${unit}` : to === undefined ? `at least ${from}${unit}` : `${from} to ${to}${unit}`];
  return [...values ? [values.map((value) => JSON.stringify(value)).join(" or ")] : [], ...range(minimum, maximum, ""), ...range(minLength, maxLength, " characters"),
    ...range(undefined, maxItems, " entries"), ...pattern ? [pattern] : [], ...absent !== undefined ? [`default ${absent}`] : []];
}

// shape shows a schema: each property with its type, limits and meaning.
export function shape(schema) {
  const {oneOf, items, properties, description: text} = deref(schema);
  if (oneOf) return el("div", {class: "shapes"}, ...oneOf.map((one) => el("div", {}, el("h4", {}, nameOf(one)), shape(one))));
  if (items) return el("div", {}, el("p", {class: "because"}, `An array of ${nameOf(items)}.`), shape(items));
  if (!properties) return el("p", {class: "because"}, typeOf(schema));
  const required = new Set(deref(schema).required);
  return el("div", {}, text ? el("p", {class: "because"}, words(text)) : null,
    el("dl", {class: "schema"}, ...Object.entries(properties).flatMap(([name, property]) => [
      el("dt", {}, el("code", {}, name), required.has(name) ? el("b", {}, " required") : null),
      el("dd", {}, el("span", {class: "type"}, [typeOf(property), ...limitsOf(property)].join(", ")), " ", words(deref(property).description ?? ""))])));
}

// examplesOf lists the examples of a media type, or of its schema.
export function examplesOf(media) {
  if (media.examples) return Object.values(media.examples);
  const {examples, items} = deref(media.schema);
  const [value] = examples ?? [];
  if (value !== undefined) return [{summary: "Example", value}];
  return items ? [{summary: "Example", value: [deref(items).examples?.[0]]}] : [];
}
