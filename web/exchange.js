// One request and its response: what was sent, what came and why, the same as code,
// and the way to the server's functions that answered.

import {send} from "/docs/api.js";
import {action, block, el, statusChip, tokenText} from "/docs/dom.js";
import {snippetView} from "/docs/snippets.js";

const lines = (map) => Object.entries(map).map(([name, value]) => `${name}: ${value}`).join("\n");

// exchangeView shows an exchange. What was expected is a status; without it, any
// will do. The reason and the way to the code stand outside of the fold.
export function exchangeView(exchange, {expected = exchange.status, note = "", open = false, code = true} = {}) {
  const {method, path, status, headers, body, ms, gone} = exchange;
  const good = !gone && expected === status;
  const message = (label, head, fields, text) => block(label, el("b", {}, head), "\n", tokenText(lines(fields) + (text ? `\n\n${text}` : "")));
  const chip = statusChip(gone ? 0 : status, !good);
  const content = el("div", {class: "content", hidden: !open},
    el("div", {class: "two"},
      message("Request", `${method} ${path}`, headers, body),
      message("Response", chip.textContent, exchange.responseHeaders, gone ? "The server did not respond." : pretty(exchange))),
    code && snippetView(() => exchange).view);
  const fold = () => { content.hidden = head.getAttribute("aria-expanded") === "true"; head.setAttribute("aria-expanded", String(!content.hidden)); };
  const head = el("button", {type: "button", class: "exchange-head", "aria-expanded": String(open), click: fold},
    el("code", {}, el("b", {}, method), ` ${path}`), chip, el("span", {class: "time"}, `${Math.round(ms)} ms`));
  return el("div", {class: "exchange"}, head,
    el("p", {class: "reason"}, ...reason(exchange, note), good || gone ? null : el("span", {class: "bad"}, ` Not what was expected: ${expected}.`)),
    gone ? null : codeLink(exchange),
    content, nextPage(exchange));
}

// nextPage fetches the page behind a list, which its Link header names (RFC 8288).
function nextPage({method, token, headers: {Authorization: _, ...headers}, responseHeaders: {link}}) {
  const [, path] = link?.match(/<([^>]+)>; rel="next"/) ?? [];
  const button = path && action(el("button", {type: "button", class: "small next"}, "Next page"), async () => {
    const view = exchangeView(await send(method, path, {token, headers}), {open: true, code: false});
    button.closest(".exchange").after(view);
    button.remove();
    view.querySelector("button").focus();
  });
  return button;
}

export const unfold = (view) => view?.querySelector(".exchange-head[aria-expanded=false]")?.click();

// reason says why the response is what it is: in the server's words, then in ours.
function reason({json, status, gone}, note) {
  if (gone) return ["The server did not respond."];
  const said = status < 400 ? "" : json?.errors?.map(({field, message}) => `${field} ${message}`.trim()).join("; ") ?? json?.detail ?? "";
  return [said ? el("b", {}, `${said}. `) : null, note];
}

const readCode = () => import("/docs/code.js"); // when the first response comes

// codeLink leads to the code that answered.
export function codeLink(exchange) {
  const count = el("span", {});
  readCode().then(({trace}) => trace(exchange)).then(({hops, decisions}) => { count.textContent = `: ${decisions.length} decisions in ${hops.length} functions`; }, () => {});
  return action(el("button", {type: "button", class: "code-link"}, "The code that answered", count), async () => (await readCode()).openExchange(exchange));
}

function pretty({text, responseHeaders}) {
  if (!/json/.test(responseHeaders["content-type"] ?? "")) return text;
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
