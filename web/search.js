// Search over operations, rules, steps and checks at once.

import {load, settings} from "/docs/api.js";
import {$, el, put} from "/docs/dom.js";
import {checks} from "/docs/jwt.js";
import {filterRules} from "/docs/rules.js";
import {deref, describe} from "/docs/schema.js";

// everyday are words that people type, and what the page calls it.
const everyday = {
  login: "log in", signin: "log in", "sign-in": "log in", authorize: "log in", authenticate: "log in", logout: "log out", signout: "log out", signup: "register",
  brute: "too_many_failed_logins", force: "too_many_failed_logins", ratelimit: "429", rate: "429", limit: "429", none: "alg", jwt: "token", bearer: "token", csrf: "cross_origin",
  cors: "cross_origin", forgot: "password", whoami: "who am i", expired: "expire", hacked: "replay", stolen: "replay", ban: "disabled", block: "disabled",
};

// all lists what can be found: each with a title, its words, and how to get there.
async function all() {
  const hash = (to) => () => { location.hash = ""; location.hash = to; };
  const operations = describe().map(({method, path, operation}) => ({kind: "Operations", title: `${method} ${path}`, said: operation.summary, go: hash(`#op-${operation.operationId}`),
    words: JSON.stringify([operation.operationId, operation.description, settings.callers[`${method} ${path}`], Object.entries(operation.responses).map(([status, it]) => [status, deref(it)])])}));
  const steps = [...document.querySelectorAll(".card")].map((card) => ({kind: "Steps", title: card.querySelector("h3").textContent, said: card.querySelector("p").textContent, words: "", go: hash(`#${card.id}`)}));
  const tests = checks.map(({id, title, why}) => ({kind: "Checks of a token", title, said: why, words: "", go() { $(`check-${id}`)?.querySelector("details").setAttribute("open", ""); hash("#checks-title")(); }}));
  const rules = (await load("/docs/rules.json")).flatMap(({rules}) => rules).map(({rule, do: request, want}) => ({kind: "Rules", title: rule, said: request, words: want, go: () => filterRules(rule)}));
  return [...operations, ...steps, ...tests, ...rules];
}

function results(items, query) {
  const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (text, word) => text.includes(word) || word in everyday && text.includes(everyday[word]);
  const score = ({title, said, words}) => {
    const [head, text] = [`${title} ${said}`.toLowerCase(), words.toLowerCase()];
    return wanted.reduce((sum, word) => sum + (has(head, word) ? 2 : has(text, word) ? 1 : -100), 0);
  };
  const found = items.map((item) => ({item, points: score(item)})).filter(({points}) => wanted.length > 0 && points > 0).sort((a, b) => b.points - a.points);
  return Object.entries(Object.groupBy(found, ({item}) => item.kind));
}

function show(groups, query) {
  $("found").replaceChildren(...groups.map(([kind, found]) => el("section", {}, el("h3", {}, `${kind}: ${found.length}`), ...found.slice(0, 6).map(({item: {title, said, go}}) =>
    el("button", {type: "button", class: "found", click: () => { $("search").close(); go(); }}, el("span", {}, el("b", {}, title), " ", el("small", {class: "because"}, said)))))),
  query && groups.length === 0 ? el("p", {class: "empty"}, "Nothing has all of these words.") : "");
  put($("found-count"), groups.map(([kind, found]) => `${kind}: ${found.length}`).join(", ") || $("found").textContent);
}

export async function open() {
  if (!$("search")) {
    const input = el("input", {type: "search", "aria-label": "Search", placeholder: "login, 401, brute force, jwt …", autocomplete: "off", spellcheck: "false"});
    const move = (event) => {
      const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
      const stops = [input, ...document.querySelectorAll(".found")];
      if (step) { event.preventDefault(); stops.at((stops.indexOf(document.activeElement) + step) % stops.length).focus(); }
      if (event.key === "Escape") { event.preventDefault(); dialog.close(); } // else it would only empty the field
      if (event.key === "Enter" && document.activeElement === input) stops[1]?.click();
    };
    const dialog = el("dialog", {id: "search", "aria-label": "Search", keydown: move, click(event) { if (event.target === dialog) dialog.close(); }}, input, el("p", {id: "found-count", class: "unseen", role: "status"}), el("div", {id: "found"}));
    document.body.append(dialog);
    const items = all();
    input.addEventListener("input", async () => show(results(await items, input.value), input.value));
  }
  $("search").showModal();
  $("search").querySelector("input").select();
}
