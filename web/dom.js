// Small helpers to build the page. Text is always set as text, never as HTML,
// so nothing that a server or a user wrote can become markup.

export const $ = (id) => document.getElementById(id);

// el makes an element: el("p", {class: "note"}, "text", el("b", {}, "bold")).
// An attribute that is false or null is left out, a function is an event handler.
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// say speaks to screen readers. An unchanged text would not be spoken again.
export function say(text) {
  $("live").textContent = "";
  setTimeout(() => { $("live").textContent = text; }, 50);
}

// tokenText shows text in which tokens have their three colours.
export function tokenText(text) {
  const whole = new DocumentFragment();
  let end = 0;
  for (const match of text.matchAll(/(eyJ[\w-]+)\.([\w-]*)\.([\w-]*)/g)) {
    whole.append(text.slice(end, match.index),
      el("span", {class: "t-header"}, match[1]), ".",
      el("span", {class: "t-payload"}, match[2]), ".",
      el("span", {class: "t-signature"}, match[3]));
    end = match.index + match[0].length;
  }
  whole.append(text.slice(end));
  return whole;
}

// duration says a number of seconds in a few words.
export function duration(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days >= 1000) return `${Math.floor(days / 365)} years`;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${two(minutes)} min`;
  return minutes > 0 ? `${minutes}:${two(seconds % 60)} min` : `${seconds} s`;
}

export function clock(seconds) {
  const at = new Date(seconds * 1000);
  if (isNaN(at)) return "no date";
  const today = at.toDateString() === new Date().toDateString();
  return today ? at.toLocaleTimeString() : at.toLocaleString();
}

function copyButton(text) {
  const words = el("span", {}, "Copy");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      words.textContent = "Copied";
      say("Copied");
    } catch {
      words.textContent = "Select it and copy by hand"; // not allowed without HTTPS
    }
    setTimeout(() => { words.textContent = "Copy"; }, 2000);
  };
  return el("button", {type: "button", class: "copy", click: copy}, words, el("span", {class: "unseen"}, " the command"));
}

// exchangeView shows one request and its answer side by side, and the same as a
// curl command. What was expected is a status; without it, any will do.
export function exchangeView(exchange, {expected = exchange.status, note = "", command}) {
  const {method, path, status, headers, body, ms, gone} = exchange;
  const good = !gone && expected === status;
  const words = gone ? "no answer" : `${status} ${reasons[status] ?? ""}`;
  const lines = (map) => Object.entries(map).map(([name, value]) => `${name}: ${value}`).join("\n");
  const block = (label, head, fields, text) => el("div", {},
    el("p", {class: "label"}, label),
    el("pre", {tabindex: "0", role: "group", "aria-label": label}, el("b", {}, head), "\n", tokenText(lines(fields) + (text ? `\n\n${text}` : ""))));
  return el("details", {class: "exchange"},
    el("summary", {}, el("code", {}, el("b", {}, method), ` ${path}`), el("span", {class: good ? `status s${String(status)[0]}` : "status bad"}, words), el("span", {class: "time"}, `${Math.round(ms)} ms`)),
    note ? el("p", {class: "note"}, note) : null,
    good || gone ? null : el("p", {class: "note bad"}, `Not what was expected: ${expected}.`),
    el("div", {class: "two"},
      block("Request", `${method} ${path}`, headers, body),
      block("Answer", words, exchange.answerHeaders, gone ? "The server did not answer." : pretty(exchange))),
    el("div", {},
      el("div", {class: "copy-head"}, el("p", {class: "label"}, "As a command"), copyButton(command)),
      el("pre", {tabindex: "0", role: "group", "aria-label": "As a command"}, tokenText(command))));
}

function pretty({text, answerHeaders}) {
  if (!/json/.test(answerHeaders["content-type"] ?? "")) return text;
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

// HTTP/2 and later send no words with a status.
const reasons = {
  200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
  405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 413: "Content Too Large", 415: "Unsupported Media Type",
  422: "Unprocessable Content", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable",
};
