// The code that answered: the server's functions that a request has passed, in
// order, with their source. ways.json says which they are, and which line decides.

import {load, settings} from "/docs/api.js";
import {$, el, statusChip, words} from "/docs/dom.js";
import {colour, find, source} from "/docs/go.js";
import {workedOut} from "/docs/token.js";

const readBook = () => load("/docs/ways.json");

// expand puts the parts into the hops of a way: a name, and how deep it is called.
const expand = (book, lines, depth = 0) => lines.flatMap((line) => {
  const name = line.trimStart();
  const at = depth + (line.length - name.length) / 2;
  return name.startsWith("@") ? expand(book, book.parts[name.slice(1)], at) : [{name, depth: at}];
});

// wayOf finds the way of a request. Of two routes, the one with fewer names in
// braces is meant, as in net/http.
function wayOf(book, {method, path, body}) {
  const asked = `${method === "HEAD" ? "GET" : method} ${path.split("?")[0]}`;
  const matches = ({route}) => new RegExp(`^${route.replace(/\{\w+\}/g, "[^/]+")}$`).test(asked);
  const braces = ({route}) => route.split("{").length;
  const facts = `${body ?? ""} registration=${settings.registration}`;
  return book.ways.filter((way) => matches(way) && facts.includes(way.when ?? ""))
    .sort((a, b) => braces(a) - braces(b) || Boolean(b.when) - Boolean(a.when))[0] ?? book.ways.find(({route}) => route === "");
}

// refusals are the lines that gave a response from 400 up, as far as it tells.
function refusals(book, hops, {status, json, cause}) {
  if (status < 400) return [];
  const texts = json?.errors?.map(({message}) => message) ?? [json?.detail ?? ""];
  return texts.flatMap((text) => book.refusals.find((line) => line.code === json?.code && (!line.cause || line.cause === cause) &&
    text.includes(line.says ?? "") && hops.some(({name}) => name === line.in)) ?? []);
}

// reached is the position of the last hop that came before a refusal.
function reached(hops, {in: name, after}) {
  const at = hops.findIndex((hop) => hop.name === name);
  let last = hops.findIndex((hop, i) => i > at && hop.name === after);
  if (last < 0) return at;
  for (const {depth} = hops[last]; hops[last + 1]?.depth > depth;) last++;
  return last;
}

// trace returns the hops of an exchange that were reached, and those that were not.
export async function trace(exchange) {
  const book = await readBook();
  const all = expand(book, wayOf(book, exchange).hops);
  const lines = refusals(book, all, exchange);
  const last = lines.length ? Math.max(...lines.map((line) => reached(all, line))) : all.length - 1;
  const failed = exchange.status < 400 ? [] : expand(book, book.parts.fail, 2);
  const hops = [...all.slice(0, last + 1), ...failed];
  const admit = all.findIndex(({name}) => name === "server.admit");
  const handler = all.find(({depth}, i) => i > admit && depth === all[admit]?.depth);
  const decides = (hop) => book.decisions.includes(hop.name) || hop === handler || lines.some((line) => line.in === hop.name);
  return {book, lines, hops, decisions: hops.filter(decides), missed: all.slice(last + 1)};
}

// openExchange shows the way of a request. It begins with the line that refused, or
// else with the first hop.
export async function openExchange(exchange) {
  await open(async () => {
    const way = await trace(exchange);
    const {method, path, status, json} = exchange;
    const row = status < 400 ? [] : [`"${json?.code}"`];
    return {...way, row, title: "The code that answered", at: way.lines[0]?.in,
      of: [el("code", {}, el("b", {}, method), ` ${path}`), statusChip(status)],
      note: status >= 400 && way.lines.length === 0 ? "The response does not tell which of these lines refused the request." : workedOut(exchange)};
  });
}

// openCheck shows the line of one check of a token.
export async function openCheck({id, title}) {
  await open(async () => {
    const book = await readBook();
    const line = book.refusals.find(({code, cause}) => code === "invalid_token" && cause === id);
    return {book, lines: [], marked: line, hops: expand(book, book.parts.caller), missed: [], row: [], title: "The line that checks", of: [title], at: line.in, note: ""};
  });
}

let view; // what the panel shows
let place = 0; // which of its hops
let [opener, scroll] = []; // what had the focus before, and where the page was
let whole = false; // whether all hops are shown, or the decisions alone

async function open(read) {
  const dialog = panel();
  try {
    view = await read();
    for (const hop of view.hops) await locate(hop);
  } catch {
    view = {book: {files: {}}, hops: [], lines: [], missed: [], row: [], title: "The code cannot be read", of: [], note: "The server does not respond. Close this and try again."};
  }
  whole = !(view.decisions?.length > 1);
  $("code-title").textContent = view.title;
  $("code-of").replaceChildren(...view.of.flatMap((part) => [part, " "]));
  $("code-note").textContent = view.note;
  showHops();
  if (!dialog.open) {
    [opener, scroll] = [document.activeElement, scrollY];
    dialog.showModal();
    history.pushState("code", ""); // so that Back closes it, and leads nowhere else
  }
  go(Math.max(0, shown().findIndex(({name}) => name === view.at)));
}

const shown = () => (whole ? view.hops : view.decisions);

function showHops() {
  const indent = (element, {depth}) => { element.style.setProperty("--depth", whole ? depth : 0); return element; };
  const items = shown().map((hop, i) => {
    const refused = view.lines.some((line) => line.in === hop.name);
    const item = el("button", {type: "button", class: refused ? "hop refused" : "hop", click: () => go(i)},
      el("span", {class: "hop-name"}, hop.name, refused ? el("b", {}, " ✗ refused") : null), el("span", {class: "time"}, `${hop.file}:${hop.code.at}`));
    return el("li", {}, indent(item, hop));
  });
  const missed = whole ? view.missed : [];
  if (missed.length > 0) items.push(el("li", {class: "missed first"}, "Not reached:"));
  $("code-hops").replaceChildren(...items, ...missed.map((hop) => indent(el("li", {class: "missed"}, hop.name), hop)));
  $("code-all").hidden = !(view.decisions?.length > 1);
  $("code-all").textContent = whole ? `The ${view.decisions?.length} decisions alone` : `All ${view.hops.length} functions`;
}

// toggle shows all functions, or the decisions alone, and stays at the one that is shown.
function toggle() {
  const {name} = shown()[place];
  whole = !whole;
  showHops();
  go(Math.max(0, shown().findIndex((hop) => hop.name === name)));
}

async function locate(hop) {
  const [file, sentences] = Object.entries(view.book.files).find(([, sentences]) => hop.name in sentences);
  Object.assign(hop, {file, says: sentences[hop.name], code: find(await source(file), hop.name)});
}

function go(to) {
  const hops = shown();
  if (hops.length === 0) return;
  place = Math.min(Math.max(to, 0), hops.length - 1);
  const hop = hops[place];
  $("code-hops").querySelectorAll(".hop").forEach((item, i) => {
    item.setAttribute("aria-current", i === place ? "step" : "false");
    if (i === place) item.scrollIntoView({block: "nearest"});
  });
  $("code-place").replaceChildren(`${place + 1} of ${hops.length}`, el("span", {class: "unseen"}, `: ${hop.name}. ${hop.says}`));
  $("code-previous").setAttribute("aria-disabled", String(place === 0));
  $("code-next").setAttribute("aria-disabled", String(place === hops.length - 1));
  const marked = view.marked?.in === hop.name ? view.marked.line : null;
  const refusing = view.lines.filter((line) => line.in === hop.name).map(({line}) => line);
  const decides = (text) => marked !== null && text.includes(marked) || hop.name === "problems" && view.row.some((code) => text.includes(code));
  const pre = el("pre", {id: "code-source", tabindex: "0", role: "group", "aria-label": `Source of ${hop.name}`},
    ...hop.code.lines.map((text, i) => {
      const kind = refusing.some((line) => text.includes(line)) ? "refusing" : decides(text.trim()) ? "deciding" : "";
      return el("span", {class: `line ${kind}`, "data-line": hop.code.from + i}, kind ? el("span", {class: "unseen"}, `${kind}: `) : null, colour(text));
    }));
  $("code-hop").replaceChildren(el("h3", {}, hop.name),
    el("p", {class: "time"}, el("a", {href: `/docs/source/${hop.file}`, target: "_blank"}, hop.file), `, line ${hop.code.at}`),
    el("p", {}, words(hop.says)), pre);
  (pre.querySelector(".refusing") ?? pre.querySelector(".deciding"))?.scrollIntoView({block: "center"});
}

// panel returns the dialog, which is made when it is first needed.
function panel() {
  if ($("code")) return $("code");
  const button = (id, words, click, ...label) => el("button", {type: "button", id, "aria-label": words, autofocus: id === "code-next", click}, ...label);
  const wide = (words) => el("span", {class: "wide"}, words);
  const dialog = el("dialog", {id: "code", "aria-labelledby": "code-title", keydown: keys, click(event) { if (event.target === dialog) dialog.close(); }},
    el("div", {class: "code-frame"},
      el("div", {class: "head"},
        el("div", {}, el("h2", {id: "code-title"}), el("p", {id: "code-of"})),
        el("p", {class: "buttons"},
          el("button", {type: "button", id: "code-all", class: "small", click: toggle}), button("code-previous", "Previous", () => go(place - 1), "←", wide(" Previous")), el("span", {id: "code-place", class: "time", role: "status"}), button("code-next", "Next", () => go(place + 1), wide("Next "), "→"),
          button("code-close", "Close", () => dialog.close(), wide("Close "), "✕"))),
      el("p", {id: "code-note", class: "because"}),
      el("div", {class: "code-body"},
        el("ol", {id: "code-hops", role: "list", "aria-label": "The functions, in the order in which they were called"}),
        el("div", {id: "code-hop"}))));
  dialog.addEventListener("close", () => { if (history.state === "code") history.back(); });
  addEventListener("popstate", () => {
    dialog.close();
    const [it, top] = [opener, scroll]; // from which a fragment in the address would lead away
    opener = undefined;
    if (it) setTimeout(() => { scrollTo({top, behavior: "instant"}); it.focus({preventScroll: true}); });
  });
  document.body.append(dialog);
  return dialog;
}

const steps = {ArrowRight: 1, n: 1, ArrowLeft: -1, p: -1, Home: -Infinity, End: Infinity};

function keys(event) {
  const step = steps[event.key];
  if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  go(place + step);
}
