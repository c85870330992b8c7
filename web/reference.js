// The reference: the list of operations in openapi.json, a filter over it, and links
// to one operation. operation.js shows one.

import {settings} from "/docs/api.js";
import {$, el, words} from "/docs/dom.js";
import {operationForm} from "/docs/operation.js";
import {describe, load} from "/docs/schema.js";

let built = false;

export async function start() {
  if (built) return;
  const list = $("operations");
  list.setAttribute("aria-busy", "true");
  try {
    const {tags, servers} = await load();
    list.replaceChildren(...tags.map(group), el("p", {class: "empty", id: "no-operation", hidden: true}, "No operation matches."));
    $("side").replaceChildren(...tags.map(({name}) => el("div", {}, el("h2", {}, name), ...describe().filter(({operation}) => operation.tags.includes(name)).map(({method, operation}) =>
      el("a", {href: `#op-${operation.operationId}`}, el("span", {class: `method ${method.toLowerCase()}`}, method), ` ${operation.summary}`)))));
    $("server").replaceChildren(". The server is ", el("code", {}, new URL(servers[0].url, location).origin), ". Requests carry your access token if you are signed in");
    built = true;
    filter();
    openTarget();
  } catch {
    list.replaceChildren(el("p", {class: "empty"}, "openapi.json could not be read. ", el("button", {type: "button", click: start}, "Try again")));
  }
  list.setAttribute("aria-busy", "false");
}

function group(tag) {
  return el("div", {class: "group"}, el("h3", {}, tag.name), el("p", {class: "because"}, ...words(tag.description)),
    ...describe().filter(({operation}) => operation.tags.includes(tag.name)).map(operationView));
}

const callers = {anyone: "anyone", "active user": "user", admin: "admin"};

function operationView(it) {
  const {method, path, operation} = it;
  const who = callers[settings.callers[`${method} ${path}`]] ?? "";
  const view = el("details", {class: "op", id: `op-${operation.operationId}`, "data-words": `${method} ${path} ${operation.operationId} ${operation.summary} ${who}`.toLowerCase()},
    el("summary", {}, el("span", {class: `method ${method.toLowerCase()}`}, method), el("code", {}, path),
      el("span", {class: "what"}, operation.summary), el("span", {class: `who ${who}`}, who)));
  // Filled when it is first opened: most never are.
  view.addEventListener("toggle", () => {
    if (view.open && view.children.length === 1) view.append(operationForm(it, who));
  });
  return view;
}

// filter leaves the operations that have all the words.
function filter() {
  const wanted = $("filter").value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const view of document.querySelectorAll(".op")) {
    view.hidden = !wanted.every((word) => view.dataset.words.includes(word));
    if (!view.hidden) count++;
  }
  for (const group of document.querySelectorAll(".group")) group.hidden = !group.querySelector(".op:not([hidden])");
  $("no-operation").hidden = count > 0;
}

// openTarget opens the operation that the address names, as in /docs#op-listUsers.
function openTarget() {
  const view = location.hash.startsWith("#op-") && $(location.hash.slice(1));
  if (!view) return;
  $("filter").value = "";
  filter();
  view.open = true;
  view.scrollIntoView();
  view.firstChild.focus({preventScroll: true});
}

$("filter").addEventListener("input", () => { if (built) filter(); });
addEventListener("hashchange", openTarget);
