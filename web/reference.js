// The reference: the list of operations in openapi.json, and links to one of them.
// operation.js, which is loaded with the first that is opened, shows one.

import {settings} from "/docs/api.js";
import {$, el, later, words} from "/docs/dom.js";
import {describe, load} from "/docs/schema.js";

let built = false;

export async function start() {
  if (built) return;
  const list = $("operations");
  list.setAttribute("aria-busy", "true");
  try {
    const {tags, servers} = await load();
    list.replaceChildren(...tags.map(group));
    $("side").replaceChildren(...tags.map(({name}) => el("div", {}, el("b", {}, name), el("ul", {role: "list", "aria-label": name}, ...describe().filter(({operation}) => operation.tags.includes(name)).map(({method, operation}) =>
      el("li", {}, el("a", {href: `#op-${operation.operationId}`}, el("span", {class: `method ${method.toLowerCase()}`}, method), ` ${operation.summary}`)))))));
    $("server").replaceChildren(". The server is ", el("code", {}, new URL(servers[0].url, location).origin), ". Requests carry your access token if you are signed in");
    built = true;
    openTarget();
  } catch {
    list.replaceChildren(el("p", {class: "empty"}, "openapi.json could not be read. ", el("button", {type: "button", click: start}, "Try again")));
  }
  list.setAttribute("aria-busy", "false");
}

function group(tag) {
  return el("div", {class: "group"}, el("h3", {}, tag.name), el("p", {class: "because"}, words(tag.description)),
    ...describe().filter(({operation}) => operation.tags.includes(tag.name)).map(operationView));
}

function operationView(it) {
  const {method, path, operation} = it;
  const who = (settings.callers[`${method} ${path}`] ?? "").replace("active ", "");
  const view = el("details", {class: "op", id: `op-${operation.operationId}`},
    el("summary", {}, el("span", {class: `method ${method.toLowerCase()}`}, method), el("code", {}, path),
      el("span", {class: "what"}, operation.summary), el("span", {class: `who ${who}`}, who)));
  return later(view, async () => (await import("/docs/operation.js")).operationForm(it, who));
}

// openTarget opens the operation that the address names, as in /docs#op-listUsers.
function openTarget() {
  const view = location.hash.startsWith("#op-") && $(location.hash.slice(1));
  if (!view) return;
  view.open = true;
  view.scrollIntoView();
  view.firstChild.focus({preventScroll: true});
}

addEventListener("hashchange", openTarget);
