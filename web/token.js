// The token panel: any JWT, taken apart, with each check of the server's.

import {isFromBefore, issued, send, settings, wire} from "/docs/api.js";
import {$, action, clock, copyButton, duration, el, put, say, words} from "/docs/dom.js";
import {codeLink} from "/docs/exchange.js";
import {checks, encode, inspect, objectOf, ourHeader, payloadOf, spell, textOf} from "/docs/jwt.js";
import {picture} from "/docs/picture.js";
import {session, sessionOf} from "/docs/sessions.js";
import {canSign, general, sign, verify, whyNot} from "/docs/verify.js";

let token = ""; // what the panel shows
let asked = ""; // what the server was last asked about, here
let listed; // the checks that are shown
let byThisServer = ""; // the token from elsewhere that is judged by this server's rules
let keyFits = null; // whether the typed key makes its signature; null without a key
const verdicts = new Map(); // token -> whether the server took it, when last asked
const made = new Map(); // tokens made here: token -> "edited", "signed" or "example"
const raw = $("raw");
const names = ["header", "payload", "signature"];
const exampleKey = "a-string-secret-at-least-256-bits-long"; // jwt.io's

// whose says where a token is from. Only what this server has issued, or what was
// made here, is ever sent to it: a token from elsewhere may be somebody's secret.
function whose(token) {
  if (token === "") return "none";
  if (issued.has(token)) return isFromBefore(token) ? "before" : "mine";
  if (made.has(token)) return made.get(token);
  const [, payload, signature] = token.split(".");
  const related = [...issued.keys(), ...made.keys()].some((other) => {
    const [, p, s] = other.split(".");
    return p === payload || s !== "" && s === signature;
  });
  return related ? "edited" : "foreign";
}

const sources = {
  none: "None yet",
  mine: "Your access token",
  before: "From before the restart",
  edited: "Edited by you",
  signed: "Signed by you",
  example: "Only an example",
  foreign: "From elsewhere: never sent",
};

// edit puts an edited token into the panel, unless it is somebody else's.
function edit(parts) {
  const text = parts.join(".");
  if (whose(token) !== "foreign" && whose(text) === "foreign") made.set(text, "edited");
  return text;
}

// clean takes a token out of what was pasted: a header, a quoted text, broken lines.
const clean = (text) => text.replace(/^\s*(authorization:)?\s*bearer\s+/i, "").replace(/[\s"'`]/g, "");

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

// update shows everything else that depends on the token.
async function update() {
  const from = whose(token);
  const refused = verdicts.get(token) === false || from === "mine" && sessionOf(token)?.ended;
  const parts = token.split(".");
  if (asked !== token) $("ask-message").replaceChildren();
  put($("token-source"), sources[from] + (refused ? ": refused" : ""), `source ${refused ? "refused" : from}`);
  $("mine").disabled = !session.access || token === session.access;
  for (const button of document.querySelectorAll("[data-edit]")) button.disabled = parts.length !== 3 || !payloadOf(token) || !objectOf(parts[0]);
  $("judge").hidden = from !== "foreign";
  $("judge").textContent = byThisServer === token ? "Judge it by the general rules" : "Judge it as this server would";
  $("ask").hidden = from === "foreign";
  $("alg-says").textContent = parts.length === 3 && objectOf(parts[0]) ? whyNot(objectOf(parts[0]).alg) : "";
  $("ask").disabled = from === "none" || from === "foreign" || !/^[\x21-\x7e]*$/.test(token);
  $("sign").disabled = !canSign || parts.length !== 3 || $("key").value === "";
  $("mini-token").replaceChildren(...parts.slice(0, 3).flatMap((part, i) => [i > 0 ? "." : "",
    el("span", {class: `t-${names[i]}`}, part.length > 8 ? `${part.slice(0, 4)}…${part.slice(-2)}` : part)]));
  $("mini-source").textContent = $("token-source").textContent;
  const life = sessionOf(token) ?? sessionOf(session.access);
  $("session").replaceChildren(life ? picture(life) : el("p", {class: "because"}, "Sign in to see a picture of your session here: its refresh tokens, and what ends it."));
  colour();
  showClaims();
  await checkKey();
  tick();
}

// colour gives the parts their colours without touching the text under the
// caret (CSS Custom Highlight API). In forced colours they would look selected.
function colour() {
  if (!globalThis.CSS?.highlights || matchMedia("(forced-colors: active)").matches) return;
  raw.normalize();
  const [header, payload = "", ...rest] = (raw.firstChild?.data ?? "").split(".");
  let from = 0;
  for (const [name, {length}] of Object.entries({header, payload, signature: rest.join(".")})) {
    const range = new Range();
    range.setStart(raw.firstChild ?? raw, length && from);
    range.setEnd(raw.firstChild ?? raw, length && from + length);
    CSS.highlights.set(name, new Highlight(range));
    from += length + 1;
  }
}

const meanings = {
  iss: "Issuer: the server that made the token.",
  aud: "Audience: who the token is for. Others must refuse it.",
  sub: "Subject: the ID of the account.",
  sid: "Session ID. When the session ends, the token is refused.",
  username: "The account's name, for other programs.",
  role: "The role at the time of issue. This server reads it from the store instead.",
  iat: "Issued at, in seconds since 1970.",
  exp: "Expires: refused from this second on.",
  nbf: "Not before: refused until this second. Not used here.",
  jti: "The token's own ID. Not used here.",
};

let last = {token: "", claims: {}}; // whose claims are shown

// showClaims lights up for a moment what has changed.
function showClaims() {
  if (token === last.token) return;
  const claims = payloadOf(token) ?? {};
  const changed = (name) => name in last.claims && JSON.stringify(last.claims[name]) !== JSON.stringify(claims[name]) && "changed";
  $("claims").replaceChildren(...Object.keys(claims).flatMap((name) => [el("dt", {class: changed(name)}, el("code", {}, name)),
    el("dd", {class: changed(name)}, meanings[name] ?? "Not a claim of this server.", el("span", {class: "when", "data-claim": name}))]));
  last = {token, claims};
}

// checkKey says whether the typed key makes the signature.
async function checkKey() {
  const [shown, key] = [token, $("key").value];
  const {fits, says} = key && shown.split(".").length === 3 ? await verify(shown, key) : {fits: null, says: ""};
  if (shown !== token || key !== $("key").value) return; // edited meanwhile
  keyFits = fits;
  put($("key-says"), says || (!canSign ? "Browsers verify and sign only over HTTPS or on localhost." :
    whose(token) === "example" ? `The key of the example is ${exampleKey}` : "It stays in this browser."), fits === null ? "because" : fits ? "good" : "bad");
}

async function resign() {
  try {
    const signed = await sign(token, $("key").value);
    if (!issued.has(signed) && whose(token) !== "foreign") made.set(signed, "signed");
    show(signed);
  } catch {
    put($("key-says"), "This key cannot sign. HS algorithms take a secret, the others a private key, as PEM (PRIVATE KEY) or JWK.", "bad");
  }
}

// tick shows what changes with time alone. It is called every second.
export function tick() {
  const now = Date.now() / 1000;
  const claims = payloadOf(token) ?? {};
  for (const cell of document.querySelectorAll("#claims .when")) {
    const at = claims[cell.dataset.claim];
    const isTime = ["iat", "exp", "nbf"].includes(cell.dataset.claim) && typeof at === "number";
    cell.textContent = isTime ? ` ${at <= now ? `${duration(now - at)} ago` : `In ${duration(at - now)}`}, ${clock(at)}.` : "";
  }
  showChecks(results(token));
}

// results are those of the checks, with what the server has said.
function results(token) {
  let failed = false;
  const list = whose(token) === "foreign" && byThisServer !== token ? general : checks;
  return inspect(token, {issuer: settings.issuer, now: Date.now() / 1000, list}).map((unsettled) => {
    let result = token === "" ? {...unsettled, result: "idle"} : settle(unsettled, token);
    if (result.check.id === "session" && failed) result = {...result, result: "idle", detail: ""};
    result = {...result, after: failed};
    failed ||= result.result === "fail";
    return result;
  });
}

// verdictOf is what the checks come to, in a sentence.
function verdictOf(results) {
  const [from, said] = [whose(token), verdicts.get(token)];
  const at = results.findIndex(({result}) => result === "fail");
  const place = `check ${at + 1}: ${results[at]?.check.noun}`;
  const good = (text) => ["good", `✓ ${text}`];
  const bad = (text) => ["bad", `✗ ${text}`];
  if (from === "none") return ["", "Sign in to get a token, or paste one."];
  if (from === "foreign" && byThisServer !== token) {
    if (at >= 0) return bad(`Not valid, at ${place}.`);
    return keyFits ? good("Valid: the key makes its signature.") : ["", "Well formed. Only its key can tell whether it is genuine: type it below."];
  }
  if (at >= 0) return bad(`${said === false || from === "mine" ? "Refused" : from === "foreign" ? "This server would refuse it" : "Will be refused"} at ${place}.`);
  if (said === false) return bad("Refused. The response does not say why, and this page cannot tell.");
  if (results.every(({result}) => result === "pass")) return good("Accepted: all checks pass.");
  return ["", from === "foreign" ? "Only this server could check whether it signed that." :
    `${from === "example" ? "An example. " : ""}Only the server can check its signature.`];
}

// settle adds what the server has said to what the browser can see.
function settle(result, token) {
  const [from, verdict] = [whose(token), verdicts.get(token)];
  if (result.result !== "ask") return result;
  if (result.check.id === "key") return keyFits === null ? result : {...result, result: keyFits ? "pass" : "fail", detail: keyFits ? "with the key below" : "not with the key below"};
  const settled = (outcome, detail) => ({...result, result: outcome, detail});
  if (from === "before") return settled("ask", result.check.id === "mac" ?
    "unless SECRET_KEY is set, it is signed with a key this server does not have any more" : "a store in memory has forgotten it");
  if (result.check.id === "mac") {
    if (from === "mine") return settled("pass", "the server issued it to this page");
    if (verdict === true) return settled("pass", "the server accepted it");
    if (from === "edited" && verdict === false) return settled("fail", "the server refused it");
    if (keyFits !== null) return settled("ask", keyFits ? "valid with your key; only the server knows whether that is its key" : "invalid with your key");
  }
  if (result.check.id === "session" && sessionOf(token)?.ended && from === "mine") return settled("fail", `it has ended: ${sessionOf(token).ended}`);
  if (result.check.id === "session" && verdict === true) return settled("pass", "when the server was last asked");
  return result;
}

const marks = {pass: ["✓", "passes"], fail: ["✗", "fails"], ask: ["?", "not known yet"], idle: ["·", "nothing to check"]};

function showChecks(results) {
  if (listed !== results[0].check) list(results.map(({check}) => check));
  for (const {check: {id}, result, detail, after} of results) {
    const row = $(`check-${id}`);
    const [mark, outcome] = marks[result];
    row.className = `${result} ${after ? "after" : ""}`;
    put(row.querySelector(".mark"), mark);
    put(row.querySelector(".unseen"), ` ${outcome}${after ? ", but an earlier check failed" : ""}. `);
    put(row.querySelector(".detail"), detail ? ` – ${detail}` : "");
  }
  $("mini-marks").replaceChildren(...results.map(({result, after}) => el("span", {class: `${result} ${after ? "after" : ""}`}, el("span", {class: "mark"}, marks[result][0]))));
  const [kind, sentence] = verdictOf(results);
  put($("verdict"), sentence, kind);
  put($("mini-words"), ` ${sentence}`);
}

// list makes the rows of the checks: this server's, or the general ones.
function list(checks) {
  [listed] = checks;
  const isServers = listed.id === "size";
  $("checks-title").textContent = isServers ? "The server's checks, in order" : "What any reader of a JWT should check";
  $("checks").replaceChildren(...checks.map((check) => el("li", {id: `check-${check.id}`}, el("details", {},
    el("summary", {}, el("span", {class: "mark", "aria-hidden": "true"}), el("span", {}, el("b", {}, check.title), el("span", {class: "unseen"}), el("span", {class: "detail"}))),
    el("p", {class: "because"}, check.why, " ", words(check.rfc)),
    isServers && action(el("button", {type: "button", class: "code-link"}, "The line that checks", el("span", {class: "unseen"}, ` ${check.title}`)), async () => (await import("/docs/code.js")).openCheck(check))))));
}

async function ask() {
  asked = token;
  const exchange = await send("GET", "/users/me/", {token});
  const {status, json, gone} = exchange;
  if (asked !== token) return; // edited meanwhile
  const said = gone ? "The server did not respond." :
    status === 401 ? `401 Could not validate credentials. The server says no more than that, as more would help a forger. ${workedOut(exchange)} ` :
    `${status}: the server accepts it. ${json?.detail ?? `It is ${json?.username}, with the role ${json?.role} in the store.`} `;
  $("ask-message").replaceChildren(said, gone ? "" : codeLink(exchange));
  say(said);
}

// workedOut is the check for which a token was refused, as far as this page can tell.
export function workedOut({cause}) {
  const at = checks.findIndex(({id}) => id === cause);
  return at < 0 ? "" : `This page has worked out why: check ${at + 1}, ${checks[at].noun}.`;
}

// edits change the token without the key.
const edits = {
  role: ([header, payload, signature]) => [header, encode(JSON.stringify({...objectOf(payload), role: "admin"})), signature],
  later: ([header, payload, signature]) => [header, encode(JSON.stringify({...objectOf(payload), exp: (objectOf(payload).exp ?? 0) + 365 * 86400})), signature],
  none: ([header, payload]) => [encode(JSON.stringify({...objectOf(header), alg: "none"})), payload, ""],
};

// example is what the server's tokens look like, under a key that everybody knows.
async function example() {
  const now = Math.floor(Date.now() / 1000);
  const claims = {iss: settings.issuer, aud: settings.issuer, sub: "1", sid: "S5KQHJVWPXD3NOILUB6ECTMVBW", username: "johndoe", role: "user", iat: now, exp: now + settings.access_ttl};
  const text = `${ourHeader}.${encode(spell(claims))}`;
  const whole = canSign ? await sign(`${text}.`, exampleKey) : `${text}.${encode("a signature")}`;
  made.set(whole, "example");
  return whole;
}

// start makes the panel work, and shows the example.
export async function start() {
  $("raw-copy").append(copyButton(() => token, "the token"));

  raw.addEventListener("input", () => {
    token = clean(raw.textContent);
    if (token === "") raw.replaceChildren();
    else if (token !== raw.textContent.trim()) raw.textContent = token;
    showParts();
    update();
  });
  for (const [i, id] of names.entries()) {
    $(`${id}-copy`).append(copyButton(() => token.split(".")[i] ?? "", `the ${id}`));
    $(id)?.addEventListener("input", () => { // the signature has no field
      const parts = token.split(".");
      parts[i] = encode($(id).value);
      token = raw.textContent = edit(parts);
      update();
    });
  }
  for (const button of document.querySelectorAll("[data-edit]")) {
    button.addEventListener("click", () => show(edit(edits[button.dataset.edit](token.split(".")))));
  }
  $("key").addEventListener("input", update);
  $("mine").addEventListener("click", () => show(session.access));
  action($("ask"), ask);
  action($("sign"), resign);
  $("judge").addEventListener("click", () => { byThisServer = byThisServer === token ? "" : token; update(); });

  wire.addEventListener("session", () => {
    if (session.access && whose(token) !== "foreign") show(session.access);
    else update();
  });
  wire.addEventListener("exchange", ({detail: exchange}) => {
    if (exchange.json?.access_token) verdicts.set(exchange.json.access_token, true);
    if (!exchange.token || exchange.gone) return update();
    verdicts.set(exchange.token, exchange.status !== 401);
    if (exchange.json?.code === "invalid_token") exchange.cause = causeOf(exchange.token);
    update();
  });
  show(await example());
}

// causeOf is the check for which the server has refused a token, as far as it can be
// told.
const causeOf = (token) => results(token).find(({result}) => result === "fail")?.check.id;
