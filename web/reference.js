// The reference: every operation of openapi.json, to be read and tried.

import {adopt, curl, send, session, signedIn} from "/docs/api.js";
import {$, el, exchangeView, say} from "/docs/dom.js";

let description; // openapi.json

// deref follows a reference within the document.
function deref(thing) {
  if (!thing?.$ref) return thing;
  return thing.$ref.slice(2).split("/").reduce((at, name) => at[name.replaceAll("~1", "/").replaceAll("~0", "~")], description);
}

export async function start() {
  const list = $("operations");
  list.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch("/openapi.json", {cache: "no-cache"});
    if (!answer.ok) throw new Error(`${answer.status}`);
    description = await answer.json();
    list.replaceChildren(...description.tags.map(group));
  } catch {
    list.replaceChildren(el("p", {class: "empty"}, "openapi.json could not be read. ", el("button", {type: "button", click: start}, "Try again")));
  }
  list.setAttribute("aria-busy", "false");
}

function group(tag) {
  const operations = Object.entries(description.paths).flatMap(([path, item]) =>
    ["get", "post", "put", "patch", "delete"]
      .filter((method) => item[method]?.tags.includes(tag.name))
      .map((method) => operationView(method.toUpperCase(), path, item, item[method])));
  return el("div", {class: "group"}, el("h3", {}, tag.name), el("p", {class: "because"}, tag.description), ...operations);
}

// who may use an operation: {} among the requirements makes a token optional.
function who({security}) {
  if (security.length === 0) return "anyone";
  return security.some((one) => Object.keys(one).length === 0) ? "anyone, or a token" : "token";
}

function operationView(method, path, item, operation) {
  const view = el("details", {class: "op", id: `op-${operation.operationId}`},
    el("summary", {}, el("span", {class: `method ${method.toLowerCase()}`}, method), el("code", {}, path),
      el("span", {class: "what"}, operation.summary), el("span", {class: "who"}, who(operation))));
  // Filled when it is first opened: most never are.
  view.addEventListener("toggle", () => {
    if (view.open && view.children.length === 1) view.append(form(method, path, item, operation));
  });
  return view;
}

// words shows `code` in a description.
const words = (text) => text.split("`").map((piece, i) => i % 2 ? el("code", {}, piece) : piece);

function form(method, path, item, operation) {
  const parameters = [...item.parameters ?? [], ...operation.parameters ?? []].map(deref);
  const inputs = parameters.map((parameter) => parameterInput(parameter, operation));
  const body = bodyEditor(operation);
  const withToken = el("input", {type: "checkbox", checked: operation.security.length > 0});
  const out = el("div", {class: "out", role: "group", "aria-label": "Answer"});
  const button = el("button", {type: "submit", class: "primary"}, "Send");

  const onSubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    const options = {token: withToken.checked && signedIn() ? session.access : undefined, ...body?.value()};
    const exchange = await send(method, fill(path, parameters, inputs), options);
    button.disabled = false;
    const isTokens = exchange.status === 200 && exchange.json?.refresh_token !== undefined;
    if (isTokens) adopt(exchange);
    const view = exchangeView(exchange, {note: isTokens ? "This page uses these tokens from now on." : "", command: curl(exchange)});
    view.open = true;
    out.replaceChildren(view);
    say(exchange.gone ? "The server did not answer." : `Answer: ${exchange.status}, after ${Math.round(exchange.ms)} milliseconds.`);
  };
  return el("form", {class: "try", submit: onSubmit},
    el("p", {}, ...words(operation.description)),
    ...inputs.map(({row}) => row),
    body?.row,
    el("p", {class: "buttons"}, button, el("label", {class: "check"}, withToken, " with my access token, if I am signed in")),
    out,
    el("details", {class: "answers"}, el("summary", {}, "All answers"), answers(operation)));
}

function parameterInput(parameter, {operationId}) {
  const id = `${operationId}-${parameter.name}`;
  const {type, minimum, maximum, default: standard} = parameter.schema;
  const value = parameter.name === "sid" && session.claims ? session.claims.sid : parameter.in === "path" ? parameter.example : "";
  const input = el("input", {id, name: parameter.name, value, required: parameter.required, placeholder: standard, inputmode: type === "integer" ? "numeric" : null, autocomplete: "off", spellcheck: "false"});
  const limits = [type, minimum !== undefined && `from ${minimum}`, maximum !== undefined && `to ${maximum}`, standard !== undefined && `default ${standard}`].filter(Boolean).join(", ");
  return {input, row: el("div", {class: "field"}, el("label", {for: id}, el("code", {}, parameter.name), ` in the ${parameter.in}`), input,
    el("p", {class: "because"}, ...words(parameter.description), ` (${limits})`))};
}

// fill puts the parameters into the path. An empty one is left out.
function fill(path, parameters, inputs) {
  const query = new URLSearchParams();
  parameters.forEach((parameter, i) => {
    const {value} = inputs[i].input;
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value !== "") query.set(parameter.name, value);
  });
  return query.size > 0 ? `${path}?${query}` : path;
}

// bodyEditor is a text field with an example in it, and a choice of others.
function bodyEditor({requestBody, operationId}) {
  if (!requestBody) return null;
  const [types, id] = [Object.keys(requestBody.content), `${operationId}-body`];
  const media = requestBody.content[types[0]];
  const schema = deref(media.schema);
  const examples = media.examples ? Object.values(media.examples) : [{summary: "Example", value: schema.examples[0]}];
  const isForm = types[0] === "application/x-www-form-urlencoded";
  const write = ({value}) => {
    const mine = Object.entries(value).map(([name, v]) => [name, /token$/.test(name) && session.refresh || v]);
    return isForm ? mine.map(([name, v]) => `${name}=${encodeURIComponent(v)}`).join("&") : JSON.stringify(value, null, 2);
  };
  const text = el("textarea", {id, spellcheck: "false", rows: isForm ? 2 : write(examples[0]).split("\n").length});
  text.value = write(examples[0]);
  const choice = (label, options, onChange) => options.length < 2 ? null :
    el("label", {class: "choice"}, `${label} `, el("select", {change: (event) => onChange(event.target.selectedIndex)}, ...options.map((option) => el("option", {}, option))));
  let type = types[0];
  const required = new Set(schema.required);
  return {
    value: () => ({body: text.value, type}),
    row: el("div", {class: "field"},
      el("div", {class: "head"}, el("label", {for: id}, "Body"), el("span", {class: "buttons"},
        choice("Example", examples.map(({summary}) => summary), (i) => { text.value = write(examples[i]); }),
        choice("Type", types, (i) => { type = types[i]; }) ?? el("code", {}, type))),
      text,
      el("dl", {class: "schema"}, ...Object.entries(schema.properties).flatMap(([name, property]) => [
        el("dt", {}, el("code", {}, name), required.has(name) ? " required" : ""), el("dd", {}, ...words(deref(property).description ?? [deref(property).type].flat().join(" or ")))]))),
  };
}

function answers({responses}) {
  return el("dl", {class: "schema"}, ...Object.entries(responses).flatMap(([status, response]) => {
    const {description: text, headers, content} = deref(response);
    const extra = [Object.keys(content ?? {})[0], ...Object.keys(headers ?? {})].filter(Boolean).join(", ");
    return [el("dt", {}, el("span", {class: `status s${status[0]}`}, status)), el("dd", {}, ...words(text), " ", extra ? el("small", {}, extra) : null)];
  }));
}
