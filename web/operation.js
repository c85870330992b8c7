// One operation of the reference: what it takes, to be tried; the same as code; what
// it returns; and the rules that hold for it.

import {send} from "/docs/api.js";
import {action, el, question, say, statusChip, words} from "/docs/dom.js";
import {exchangeView} from "/docs/exchange.js";
import {rulesOf} from "/docs/rules.js";
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

  // request is what Send would send now.
  const request = () => {
    const token = withToken.checked ? signedIn() ? session.access : "ACCESS_TOKEN" : "";
    return {method, path: fillIn(path, parameters, inputs), body: body?.text.value,
      headers: {...token && {Authorization: `Bearer ${token}`}, ...body && {"Content-Type": body.type()}}};
  };
  const snippet = snippetView(request);
  const submit = async () => {
    const {path, body, headers: {Authorization: _, ...headers}} = request();
    if (destroys(method, path, body)) {
      const own = withToken.checked && signedIn() && /^\/users\/me\b/.test(path) ? ` The account is ${session.claims.username}, which is signed in here.` : "";
      const sure = await question(out, `${operation.summary}: ${method} ${path} cannot be undone.${own}`, operation.summary, true);
      button.focus();
      if (!sure) return;
    }
    const exchange = await send(method, path, {body, headers, token: withToken.checked && signedIn() ? session.access : undefined});
    const isTokens = exchange.status === 200 && exchange.json?.refresh_token !== undefined;
    if (isTokens) adopt(exchange.json);
    out.replaceChildren(exchangeView(exchange, {note: isTokens ? "This page uses these tokens from now on." : "", open: true}));
    say(exchange.gone ? "The server did not respond." : `Response: ${exchange.status}, after ${Math.round(exchange.ms)} milliseconds.`);
  };
  const form = el("form", {class: "try", input: snippet.update, change: snippet.update, focusin: snippet.update},
    el("p", {}, ...words(operation.description)),
    ...inputs.map(({row}) => row),
    body?.row,
    el("p", {class: "buttons"}, button, el("label", {class: "check"}, withToken, " with my access token, if I am signed in"), el("a", {href: `#op-${operationId}`}, "Link to this operation")),
    out,
    fold("As code", snippet.view, true),
    fold(`Responses: ${Object.keys(operation.responses).join(", ")}`, el("div", {}, ...Object.entries(operation.responses).map(responseView))),
    rulesOf(operationId));
  action(button, submit, form);
  return form;
}

// destroys says whether a request takes something away for good.
const destroys = (method, path, body) => method === "DELETE" || /^\/users\/\d+\/password$/.test(path) || /"disabled":\s*true/.test(body ?? "");

const fold = (title, content, open = false) => el("details", {class: "fold", open}, el("summary", {}, title), content);

function parameterInput(parameter, operationId) {
  const id = `${operationId}-${parameter.name}`;
  const {type, default: absent} = parameter.schema;
  const value = parameter.name === "sid" && session.claims ? session.claims.sid : parameter.in === "path" ? parameter.example : "";
  const input = el("input", {id, name: parameter.name, value, required: parameter.required, placeholder: absent, inputmode: type === "integer" ? "numeric" : null, autocomplete: "off", spellcheck: "false"});
  return {input, row: el("div", {class: "field"}, el("label", {for: id}, el("code", {}, parameter.name), ` in the ${parameter.in}`), input,
    el("p", {class: "because"}, el("span", {class: "type"}, [typeOf(parameter.schema), ...limitsOf(parameter.schema)].join(", ")), " ", ...words(parameter.description)))};
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

// bodyEditor is a text field with an example in it, and a choice of others.
function bodyEditor({requestBody, operationId}) {
  const [types, id] = [Object.keys(requestBody.content), `${operationId}-body`];
  const media = requestBody.content[types[0]];
  const examples = examplesOf(media);
  const isForm = types[0] === "application/x-www-form-urlencoded";
  const write = ({value}) => {
    const mine = Object.entries(value).map(([name, v]) => [name, /token$/.test(name) && session.refresh || v]);
    return isForm ? mine.map(([name, v]) => `${name}=${encodeURIComponent(v)}`).join("&") : JSON.stringify(value, null, 2);
  };
  const text = el("textarea", {id, spellcheck: "false", rows: isForm ? 2 : write(examples[0]).split("\n").length});
  text.value = write(examples[0]);
  const choice = (label, options, change) => options.length < 2 ? null :
    el("label", {class: "choice"}, `${label} `, el("select", {change: (event) => change(event.target.selectedIndex)}, ...options.map((option) => el("option", {}, option))));
  let type = types[0];
  return {
    text, type: () => type,
    row: el("div", {class: "field"},
      el("div", {class: "head"}, el("label", {for: id}, "Body"), el("span", {class: "buttons"},
        choice("Example", examples.map(({summary}) => summary), (i) => { text.value = write(examples[i]); }),
        choice("Type", types, (i) => { type = types[i]; }) ?? el("code", {}, type))),
      text, shape(media.schema)),
  };
}

// responseView shows what a status means: headers, the shape of the body, examples.
function responseView([status, response]) {
  const {description, headers, content} = deref(response);
  const [[type, media] = []] = Object.entries(content ?? {});
  const examples = media ? examplesOf(media) : [];
  return el("details", {class: "fold response"},
    el("summary", {}, statusChip(Number(status)), el("span", {}, ...words(description))),
    type && el("p", {class: "because"}, el("code", {}, Object.keys(content).join(", "))),
    headers && el("dl", {class: "schema"}, ...Object.entries(headers).flatMap(([name, header]) => [el("dt", {}, el("code", {}, name)), el("dd", {}, ...words(deref(header).description))])),
    media && shape(media.schema),
    ...examples.map(({summary, value}) => el("div", {}, el("p", {class: "label"}, summary),
      el("pre", {tabindex: "0", role: "group", "aria-label": summary}, typeof value === "string" ? value : JSON.stringify(value, null, 2)))));
}
