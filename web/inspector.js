// The token panel: any JWT, taken apart, with each check of the server's.

import {issued, send, session, wire} from "/docs/api.js";
import {$, clock, duration, el} from "/docs/dom.js";
import {checks, encode, inspect, objectOf, payloadOf, textOf} from "/docs/jwt.js";

let settings = {issuer: "stdauth"};
let token = ""; // what the panel shows
const verdicts = new Map(); // token -> whether the server took it, when last asked
const edited = new Set(); // tokens made of ours, here
const raw = $("raw");

// whose says where a token is from. Only what this server has issued, or what
// was made of that by editing, is ever sent to it: a token from elsewhere is
// somebody's key to something.
function whose(token) {
  if (token === "") return "none";
  if (issued.has(token)) return "mine";
  const [, payload, signature] = token.split(".");
  const related = [...issued, ...edited].some((other) => {
    const [, p, s] = other.split(".");
    return other === token || p === payload || s !== "" && s === signature;
  });
  return related ? "edited" : "foreign";
}

// edit changes parts of the token that is shown.
function edit(parts) {
  const text = parts.join(".");
  if (whose(token) !== "foreign") edited.add(text);
  token = text;
}

const sources = {
  none: "None yet",
  mine: "Your access token",
  edited: "Your token, edited",
  foreign: "From elsewhere: it is not sent anywhere",
};

// show puts a token into the panel.
export function show(text) {
  token = text;
  raw.textContent = token;
  showParts();
  update();
}

// showParts fills the decoded side. Where the text is good JSON it is laid out.
function showParts() {
  const parts = token.split(".");
  for (const [i, id] of ["header", "payload"].entries()) {
    const text = textOf(parts[i] ?? "");
    const object = objectOf(parts[i] ?? "");
    const same = object && JSON.stringify(object) === text; // else laying it out would lose something
    $(id).value = same ? layOut(object) : text ?? "";
    $(id).placeholder = token && text === null ? "This part is not base64url." : "";
    $(id).readOnly = parts.length !== 3;
  }
}

// layOut gives each member a line of its own, unless they all fit on one.
function layOut(object) {
  const lines = JSON.stringify(object, null, 2);
  return lines.length > 48 ? lines : lines.replace(/\n */g, " ");
}

// update brings everything else in line with the token.
function update() {
  const from = whose(token);
  const refused = verdicts.get(token) === false;
  $("token-source").textContent = sources[from] + (refused ? ": refused" : "");
  $("token-source").className = `source ${refused ? "refused" : from}`;
  $("mine").disabled = !session.access || token === session.access;
  const parts = token.split(".");
  for (const button of document.querySelectorAll("[data-edit]")) button.disabled = parts.length !== 3 || !payloadOf(token) || !objectOf(parts[0]);
  $("ask").disabled = !(from === "mine" || from === "edited") || !/^[\x21-\x7e]*$/.test(token);
  colour();
  tick();
}

// colour gives the parts their colours without touching the text under the
// caret (CSS Custom Highlight API).
function colour() {
  if (!globalThis.CSS?.highlights) return;
  raw.normalize();
  const node = raw.firstChild;
  const text = node?.nodeType === Node.TEXT_NODE ? node.data : "";
  let from = 0;
  for (const [i, name] of ["header", "payload", "signature"].entries()) {
    const dot = i < 2 ? text.indexOf(".", from) : -1;
    const to = dot < 0 ? text.length : dot;
    const range = new Range();
    if (from < to) {
      range.setStart(node, from);
      range.setEnd(node, to);
    }
    CSS.highlights.set(name, new Highlight(range));
    from = dot < 0 ? text.length : dot + 1;
  }
}

// tick shows what changes with time alone. It is called every second.
export function tick() {
  const now = Date.now() / 1000;
  const claims = payloadOf(token);
  showTimes(claims, now);
  showChecks(inspect(token, {issuer: settings.issuer, now}));
}

function showTimes(claims, now) {
  const date = (name, past, future) => {
    const at = claims?.[name];
    const cell = $(`time-${name}`);
    const text = typeof at !== "number" ? "–" : at <= now ? past(duration(now - at)) : future(duration(at - now));
    cell.textContent = typeof at === "number" ? `${text}, at ${clock(at)}` : text;
  };
  date("iat", (d) => `${d} ago`, (d) => `in ${d}`);
  date("exp", (d) => `expired ${d} ago`, (d) => `in ${d}`);
  const {iat, exp} = claims ?? {};
  $("life-left").value = exp > iat ? Math.min(1, Math.max(0, (exp - now) / (exp - iat))) : 0;
}

// settle adds what the server has said to what the browser can see.
function settle(result, from) {
  const {id} = result.check;
  const verdict = verdicts.get(token);
  if (result.result !== "ask") return result;
  if (id === "mac" && from === "mine") return {...result, result: "pass", detail: "the server has signed it, and given it to this page"};
  if (id === "mac" && from === "edited" && verdict === false) return {...result, result: "fail", detail: "the server has refused it"};
  if (id === "session" && from === "mine" && verdict === true) return {...result, result: "pass", detail: "when last asked"};
  if (id === "session" && from === "mine" && verdict === false) return {...result, result: "fail", detail: "the server has refused a token that passes all else"};
  return result;
}

const marks = {pass: ["✓", "passes"], fail: ["✗", "fails"], ask: ["?", "only the server can tell"], idle: ["·", "nothing to check"]};

function showChecks(results) {
  const from = whose(token);
  const count = {pass: 0, fail: 0, ask: 0, idle: 0};
  let failed = false;
  for (const [i, unsettled] of results.entries()) {
    let result = token === "" ? {...unsettled, result: "idle"} : settle(unsettled, from);
    if (result.check.id === "session" && failed) result = {...result, result: "idle", detail: ""};
    const row = $(`check-${result.check.id}`);
    const [mark, words] = marks[result.result];
    row.className = `${result.result} ${failed ? "after" : ""}`;
    row.querySelector(".mark").textContent = mark;
    row.querySelector(".unseen").textContent = ` ${words}${failed ? ", but the server has stopped before" : ""}. `;
    row.querySelector(".detail").textContent = result.detail ? ` – ${result.detail}` : "";
    $("strip-marks").children[i].className = row.className;
    $("strip-marks").children[i].firstChild.textContent = mark;
    count[result.result]++;
    failed ||= result.result === "fail";
  }
  $("strip-words").textContent = `The checks: ${count.pass} pass, ${count.fail} fail`;
}

async function ask() {
  const {status, json, gone} = await send("GET", "/users/me/", {token});
  $("ask-message").textContent = gone ? "The server did not answer." :
    status === 401 ? "401 Could not validate credentials. Which check it was, it does not say: that would only help a forger." :
    `${status}: the server takes it. ${json?.detail ?? ""}`;
}

// edits change the token as somebody might who has no key.
const edits = {
  role: ([header, payload, signature]) => [header, encode(JSON.stringify({...objectOf(payload), role: "admin"})), signature],
  later: ([header, payload, signature]) => [header, encode(JSON.stringify({...objectOf(payload), exp: (objectOf(payload).exp ?? 0) + 365 * 86400})), signature],
  none: ([header, payload]) => [encode(JSON.stringify({...objectOf(header), alg: "none"})), payload, ""],
};

export function start(serverSettings) {
  settings = serverSettings;
  if ($("check-size")) return update();
  $("checks").append(...checks.map(({id, title, rfc, why}) => el("li", {id: `check-${id}`},
    el("span", {class: "mark", "aria-hidden": "true"}),
    el("div", {}, el("p", {class: "title"}, el("b", {}, title), el("span", {class: "unseen"}), el("span", {class: "detail"})),
      el("p", {class: "because"}, why, " ", el("span", {class: "rfc"}, rfc))))));
  $("strip-marks").append(...checks.map(() => el("span", {}, el("span", {class: "mark"}))));
  $("times").append(
    el("dt", {}, "Issued"), el("dd", {id: "time-iat"}, "–"),
    el("dt", {}, "Expires"), el("dd", {id: "time-exp"}, "–"));
  $("times").after(el("progress", {id: "life-left", max: "1", value: "0", "aria-label": "Life left"}));

  raw.addEventListener("input", () => {
    if (raw.textContent.trim() === "") raw.replaceChildren();
    token = raw.textContent.trim();
    showParts();
    update();
  });
  for (const [i, id] of ["header", "payload"].entries()) {
    $(id).addEventListener("input", () => {
      const parts = token.split(".");
      parts[i] = encode($(id).value);
      edit(parts);
      raw.textContent = token;
      update();
    });
  }
  for (const button of document.querySelectorAll("[data-edit]")) {
    button.addEventListener("click", () => {
      edit(edits[button.dataset.edit](token.split(".")));
      show(token);
    });
  }
  $("mine").addEventListener("click", () => show(session.access));
  $("ask").addEventListener("click", ask);

  wire.addEventListener("session", () => {
    if (session.access && whose(token) !== "foreign") show(session.access);
    else update();
  });
  wire.addEventListener("exchange", ({detail: exchange}) => {
    if (!exchange.token || exchange.gone) return;
    verdicts.set(exchange.token, exchange.status !== 401);
    update();
  });
  show("");
}
