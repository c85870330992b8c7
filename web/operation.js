// One operation of the reference: what it takes, to be tried; the same as code; what
// it returns; and the rules that hold for it.

import {send} from "/docs/api.js";
import {action, block, el, later, question, say, statusChip, words} from "/docs/dom.js";
import {exchangeView} from "/docs/exchange.js";
import {deref, examplesOf, limitsOf, shape, typeOf} from "/docs/schema.js";
import {adopt, session, signedIn} from "/docs/sessions.js";
import {snippetView} from "/docs/snippets.js";

export function operationForm({method, path, item, operation}, who) {
  const {operationId} = operation;
  const parameters = [...item.parameters ?? [], ...operation.parameters ?? []].map(deref);
  const inputs = parameters.map((parameter) => parameterInput(parameter, operationId));
  const body = operation.requestBody && bodyEditor(operation);
  const withToken = el("input", {type: "checkbox", checked: who !== "anyone"});
  const out = el("div", {class: "out", role: "group", "aria-label": "Response"});
  const button = el("button", {type: "submit", class: "primary"}, "Send");

  const request = () => {
    const token = withToken.checked ? signedIn() ? session.access : "ACCESS_TOKEN" : "";
    return {method, path: fillIn(path, parameters, inputs), body: body?.text.value,
      headers: {...token && {Authorization: `Bearer ${token}`}, ...body && {"Content-Type": body.type()}}};
  };
  const snippet = snippetView(request);
  const submit = async () => {
    const {path, body: sent, headers: {Authorization: _, ...headers}} = request();
    if (destroys(method, path, sent)) {
      const own = withToken.checked && signedIn() && /^\/users\/me\b/.test(path) ? ` The account is ${session.claims.username}, which is signed in here.` : "";
      const sure = await question(out, `${operation.summary}: ${method} ${path} cannot be undone.${own}`, operation.summary, true);
      button.focus();
      if (!sure) return;
    }
    const exchange = await send(method, path, {body: sent, headers, token: withToken.checked && signedIn() ? session.access : undefined});
    const isTokens = exchange.status === 200 && exchange.json?.refresh_token !== undefined;
    const said = isTokens ? `${adopt(exchange.json)} This page uses these tokens from now on.` : "";
    for (const {name, blame} of [...inputs, ...body?.fields() ?? []]) blame(exchange.json?.errors?.find(({field}) => field === name)?.message);
    const view = exchangeView(exchange, {note: said, open: true, code: false});
    out.replaceChildren(view);
    say(`Response: ${exchange.status || "none"}. ${view.querySelector(".reason").textContent}`);
  };
  const form = el("form", {class: "try", input: snippet.update, change: snippet.update, focusin: snippet.update},
    el("p", {}, words(operation.description)),
    ...inputs.map(({row}) => row),
    body?.row,
    el("p", {class: "buttons"}, button, el("label", {class: "check"}, withToken, " with my access token, if I am signed in"), el("a", {href: `#op-${operationId}`}, "Link to this operation")),
    out,
    fold("As code", snippet.view, true),
    fold(`Responses: ${Object.keys(operation.responses).join(", ")}`, el("div", {}, ...Object.entries(operation.responses).map(responseView))),
    later(el("details", {class: "fold rules"}, el("summary", {}, "Its rules, which are the server's own tests")), async () => (await import("/docs/rules.js")).rulesOf(operationId)));
  action(button, submit, form);
  return form;
}

// destroys says whether a request takes something away for good.
const destroys = (method, path, body) => method === "DELETE" || /^\/users\/\d+\/password$/.test(path) || /"disabled":\s*true/.test(body ?? "");

const fold = (title, content, open = false) => el("details", {class: "fold", open}, el("summary", {}, title), content);

// field is the row of one value: its name, an input that fits its schema, what it means,
// and room for what the server finds wrong with it. read returns the value, or undefined.
function field(id, name, schema, {required, value, where = "", isForm = false}) {
  const {type, enum: values, format, default: absent, description = ""} = deref(schema);
  const [isNumber, isBoolean] = [type === "integer", type === "boolean"];
  const choices = values?.length > 1 ? values : isBoolean ? [true, false] : null;
  const input = choices ? el("select", {id, name}, ...["", ...choices].map((choice) => el("option", {value: String(choice), selected: choice === value}, choice === "" ? "left out" : String(choice)))) :
    el("input", {id, name, value: value ?? "", placeholder: absent ?? (required ? null : "left out"), inputmode: isNumber ? "numeric" : null, autocomplete: "off", autocapitalize: "none", spellcheck: "false"});
  const none = [type].flat().includes("null") && el("input", {type: "checkbox", "aria-label": `null: ${name}`, checked: value === null});
  const error = el("p", {class: "bad", id: `${id}-error`});
  input.setAttribute("aria-describedby", `${id}-hint ${error.id}`);
  if (required) input.setAttribute("aria-required", "true");
  const read = () => {
    if (none?.checked) return null;
    if (input.value === "") return undefined;
    if (isBoolean) return input.value === "true";
    if (isNumber && !isForm && /^\d+$/.test(input.value)) return Number(input.value);
    return format === "password" ? input.value.normalize("NFC") : input.value; // one password, however it is typed
  };
  const blame = (message) => {
    error.textContent = message ? `✗ ${name} ${message}` : "";
    input.setAttribute("aria-invalid", String(Boolean(message)));
  };
  return {name, input, read, blame, row: el("div", {class: "field"},
    el("label", {for: id}, el("code", {}, name), where, required ? el("b", {}, " required") : null),
    el("span", {class: "buttons"}, input, none && el("label", {class: "check"}, none, " null")), error,
    el("p", {class: "because", id: `${id}-hint`}, el("span", {class: "type"}, [typeOf(schema), ...limitsOf(schema)].join(", ")), " ", words(description)))};
}

function parameterInput({name, in: place, required, schema, example, description}, operationId) {
  const value = name === "sid" && session.claims ? session.claims.sid : place === "path" ? example : "";
  return field(`${operationId}-${name}`, name, {...schema, description}, {required, value, where: ` in the ${place}`});
}

// fillIn puts the parameters into the path. An empty one is left out.
function fillIn(path, parameters, inputs) {
  const query = new URLSearchParams();
  parameters.forEach((parameter, i) => {
    const {value} = inputs[i].input;
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value !== "") query.set(parameter.name, value);
  });
  return query.size > 0 ? `${path}?${query}` : path;
}

// bodyEditor has a field for each member of the body. The raw text, one click away, is
// what is sent.
function bodyEditor({requestBody, operationId}) {
  const [types, id] = [Object.keys(requestBody.content), `${operationId}-body`];
  const media = requestBody.content[types[0]];
  const examples = examplesOf(media);
  const isForm = types[0] === "application/x-www-form-urlencoded";
  const write = (value) => (isForm ? Object.entries(value).map(([name, v]) => `${name}=${encodeURIComponent(v)}`).join("&") : JSON.stringify(value, null, 2));
  const text = el("textarea", {id, spellcheck: "false", hidden: true, rows: isForm ? 3 : 7, "aria-label": "Body as text"});
  const rows = el("div", {class: "rows", input: () => collect(), change: () => collect()});
  const shapes = el("div", {hidden: true}, shape(media.schema));
  let fields = [];
  const collect = () => { text.value = write(Object.fromEntries(fields.map(({name, read}) => [name, read()]).filter(([, value]) => value !== undefined))); };
  const build = () => {
    const value = isForm ? Object.fromEntries(new URLSearchParams(text.value)) : JSON.parse(text.value);
    const variants = (deref(media.schema).oneOf ?? [media.schema]).map(deref);
    const {properties, required = []} = variants.find(({properties}) => Object.keys(value).every((name) => name in properties)) ?? variants[0];
    fields = Object.entries(properties).map(([name, schema]) => field(`${id}-${name}`, name, schema, {required: required.includes(name), value: value[name], isForm}));
    rows.replaceChildren(...fields.map(({row}) => row));
  };
  const fill = ({value}) => {
    text.value = write(Object.fromEntries(Object.entries(value).map(([name, v]) => [name, /token$/.test(name) && session.refresh || v])));
    build();
  };
  fill(examples[0]);
  const choice = (label, options, change) => options.length < 2 ? null :
    el("label", {class: "choice"}, `${label} `, el("select", {change: (event) => change(event.target.selectedIndex)}, ...options.map((option) => el("option", {}, option))));
  const raw = el("button", {type: "button", class: "small raw-text", "aria-pressed": "false", click() {
    try { if (!text.hidden) build(); } catch { return say("The text is not JSON, so it has no fields."); }
    text.hidden = shapes.hidden = !text.hidden;
    rows.hidden = !text.hidden;
    raw.setAttribute("aria-pressed", String(rows.hidden));
  }}, "As text");
  let type = types[0];
  return {
    text, type: () => type, fields: () => fields,
    row: el("div", {},
      el("div", {class: "head"}, el("h4", {}, "Body"), el("span", {class: "buttons"},
        choice("Example", examples.map(({summary}) => summary), (i) => fill(examples[i])),
        choice("Type", types, (i) => { type = types[i]; }) ?? el("code", {}, type), raw)),
      rows, text, shapes),
  };
}

// responseView shows what a status means: headers, the shape of the body, examples.
function responseView([status, response]) {
  const {description, headers, content} = deref(response);
  const [[type, media] = []] = Object.entries(content ?? {});
  const examples = media ? examplesOf(media) : [];
  return el("details", {class: "fold response"},
    el("summary", {}, statusChip(Number(status)), el("span", {}, words(description))),
    type && el("p", {class: "because"}, el("code", {}, Object.keys(content).join(", "))),
    headers && el("dl", {class: "schema"}, ...Object.entries(headers).flatMap(([name, header]) => [el("dt", {}, el("code", {}, name)), el("dd", {}, words(deref(header).description))])),
    media && shape(media.schema),
    ...examples.map(({summary, value}) => block(summary, typeof value === "string" ? value : JSON.stringify(value, null, 2))));
}
