// Talking to the server, and who is signed in.

import {payloadOf} from "/docs/jwt.js";

// wire tells the rest of the page what happens: "exchange" after each request,
// "session" when the tokens have changed, "gone" and "back" for the server. Who
// knows the cause of a refusal notes it in the exchange.
export const wire = new EventTarget();
const tell = (type, detail) => wire.dispatchEvent(new CustomEvent(type, {detail}));

// settings are what the server says of itself. Its start differs in each process.
export const settings = {demo: false, issuer: "stdauth", access_ttl: 1800, registration: "open", start: "", callers: {}};

export async function loadSettings() {
  try {
    const answer = await fetch("/docs/settings.json");
    if (answer.ok) Object.assign(settings, await answer.json());
    return answer.ok;
  } catch {
    tell("gone");
    return false;
  }
}

// load reads a file of the page's when it is first needed. What failed may be asked
// for again.
const loaded = new Map();

export function load(path, kind = "json") {
  if (!loaded.has(path)) {
    const file = fetch(path).then((answer) => {
      if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
      return answer[kind]();
    });
    file.catch(() => loaded.delete(path));
    loaded.set(path, file);
  }
  return loaded.get(path);
}

// send makes one request and returns all there is to show of it. It does not
// throw: when there is no answer, gone is true.
export async function send(method, path, {token, form, json, body, headers = {}} = {}) {
  headers = {...headers};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (form) [body, headers["Content-Type"]] = [new URLSearchParams(form).toString(), "application/x-www-form-urlencoded"];
  if (json) [body, headers["Content-Type"]] = [JSON.stringify(json), "application/json"];

  const exchange = {method, path, headers, body, token, status: 0, answerHeaders: {}, text: "", gone: false};
  const start = performance.now();
  try {
    const answer = await fetch(location.origin + path, {method, headers, body, cache: "no-store", credentials: "omit"});
    exchange.status = answer.status;
    exchange.answerHeaders = Object.fromEntries(answer.headers);
    exchange.text = await answer.text();
  } catch {
    exchange.gone = true; // fetch fails only where there is no answer
  }
  exchange.ms = performance.now() - start;
  try { exchange.json = JSON.parse(exchange.text); } catch { /* not JSON */ }
  tell(exchange.gone ? "gone" : "back");
  if (exchange.status === 401 && issued.has(token) || exchange.json?.code === "invalid_refresh_token") await loadSettings(); // is it the same server?
  tell("exchange", exchange);
  return exchange;
}

// The session lives here, in a variable: not in localStorage or a cookie, where
// other scripts of this site, or other pages, could get at it. A reload ends it.
export const session = {access: "", refresh: "", claims: null, over: false};

export const signedIn = () => session.access !== "" && !session.over;
export const isAdmin = () => signedIn() && session.claims.role === "admin";
export const secondsLeft = (claims = session.claims) => claims.exp - Date.now() / 1000;

// issued are the tokens that the server has given this page, each with the start of
// the server that gave it.
export const issued = new Map();
export const note = (json) => issued.set(json.access_token, settings.start);
export const isFromBefore = (token) => issued.has(token) && issued.get(token) !== settings.start;

// adopt makes the tokens of an answer the current ones.
export function adopt(json) {
  note(json);
  Object.assign(session, {access: json.access_token, refresh: json.refresh_token, claims: payloadOf(json.access_token), over: false});
  tell("session");
}

// resume makes an earlier session the current one again.
export function resume(earlier) {
  Object.assign(session, earlier);
  tell("session");
}

export const forget = () => resume({access: "", refresh: "", claims: null, over: false});

export async function signIn(username, password) {
  const login = await send("POST", "/token", {form: {username, password}});
  if (login.status === 200) adopt(login.json);
  return login;
}

export async function refresh() {
  const answer = await send("POST", "/token", {form: {grant_type: "refresh_token", refresh_token: session.refresh}});
  if (answer.status === 200) adopt(answer.json);
  if (answer.status === 400) end();
  return answer;
}

// signOut tells the server, so that the tokens end there too.
export async function signOut() {
  const answer = await send("POST", "/revoke", {form: {token: session.refresh}});
  if (answer.status === 200) forget();
  return answer;
}

function end() {
  session.over = true;
  tell("session");
}

// A session can end elsewhere: in another tab, by a new password. The server's
// next 401 for a token that has not expired says so.
wire.addEventListener("exchange", ({detail: {token, status}}) => {
  if (status === 401 && token && token === session.access && secondsLeft() > 1) end();
});
