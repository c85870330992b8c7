// Small helpers to build the page. Text is always set as text, never as HTML,
// so nothing that a server or a user wrote can become markup.

export const $ = (id) => document.getElementById(id);

// el makes an element: el("p", {class: "note"}, "text", el("b", {}, "bold")).
// An attribute that is false or null is left out, a function is an event handler.
export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function fill(element, attributes = {}, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

// block is a text of several lines, with its name above it.
export const block = (label, ...text) => el("div", {}, el("p", {class: "label"}, label), el("pre", {tabindex: "0", role: "group", "aria-label": label}, ...text));

// action gives a button, or the form that it submits, work that takes time. The button
// keeps the focus meanwhile: it is not disabled, it only does nothing.
export function action(button, work, form) {
  (form ?? button).addEventListener(form ? "submit" : "click", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    try { await work(); } finally { button.removeAttribute("aria-disabled"); }
  });
  return button;
}

// question asks in a place of the page whether to go on. Where something is destroyed,
// the focus is on the button that does no harm.
export function question(place, text, yes, danger = false) {
  return new Promise((resolve) => {
    const button = (words, answer, kind) => el("button", {type: "button", class: kind, click: () => { box.remove(); resolve(answer); }}, words);
    const choices = [button(yes, true, danger ? "primary danger" : "primary"), button("Cancel", false)];
    const box = el("div", {class: "note ask", role: "group", "aria-label": "Before it begins"}, el("p", {}, text), el("p", {class: "buttons"}, ...choices));
    place.replaceChildren(box);
    choices[danger ? 1 : 0].focus();
  });
}

// later fills a fold when it is first opened: most never are. What cannot be read then
// is asked for again the next time.
export function later(fold, make) {
  fold.addEventListener("toggle", async () => {
    if (!fold.open) return fold.querySelector(":scope > .empty")?.remove();
    if (fold.children.length > 1) return undefined;
    const wait = el("p", {class: "empty", role: "status"}, "Reading …");
    fold.append(wait);
    return make().then((content) => wait.replaceWith(content), () => { wait.textContent = "This could not be read. Close it, and open it again."; });
  });
  return fold;
}

// say speaks to screen readers. An unchanged text would not be spoken again.
export function say(text) {
  $("live").textContent = "";
  setTimeout(() => { $("live").textContent = text; }, 50);
}

// put shows a text, perhaps of another kind. A screen reader speaks a status again that is
// written again, so the same text is not.
export function put(element, text, kind = element.className) {
  element.className = kind;
  if (element.textContent !== text) element.textContent = text;
}

// words shows `code` in a description, and links "RFC 7519, section 4.1.4" to that section,
// in a tab of its own: this one would lose its tokens.
export const words = (text) => marked(text, /`([^`]*)`|RFC (\d+)(?:, (?:sections? )?([\d.]*\d)(?: and [\d.]*\d)?)?/g, ([all, code, number, section]) => number ?
  [el("a", {href: `https://www.rfc-editor.org/rfc/rfc${number}${section ? `#section-${section}` : ""}`, target: "_blank", rel: "noreferrer"}, all)] : [el("code", {}, code)]);

// marked shows text in which whatever a pattern finds becomes elements.
export function marked(text, pattern, show) {
  const whole = new DocumentFragment();
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    whole.append(text.slice(end, match.index), ...show(match));
    end = match.index + match[0].length;
  }
  whole.append(text.slice(end));
  return whole;
}

// tokenText shows text in which tokens have their three colours.
export const tokenText = (text) => marked(text, /(eyJ[\w-]+)\.([\w-]*)\.([\w-]*)/g, ([, header, payload, signature]) =>
  [el("span", {class: "t-header"}, header), ".", el("span", {class: "t-payload"}, payload), ".", el("span", {class: "t-signature"}, signature)]);

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

// copyButton copies what text returns when it is pressed.
export function copyButton(text, what) {
  const label = el("span", {}, "Copy");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      label.textContent = "Copied";
      say("Copied");
    } catch {
      label.textContent = "Select and copy by hand"; // not allowed without HTTPS
    }
    setTimeout(() => { label.textContent = "Copy"; }, 2000);
  };
  return el("button", {type: "button", class: "small", click: copy}, label, el("span", {class: "unseen"}, ` ${what}`));
}

// statusChip shows a status with its name. HTTP/2 and later send none.
export const statusChip = (status, bad = false) =>
  el("span", {class: bad ? "status bad" : `status s${String(status)[0]}`}, status ? `${status} ${reasons[status] ?? ""}`.trim() : "no response");

const reasons = {
  200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 304: "Not Modified", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized",
  403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 413: "Content Too Large",
  415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable",
};
