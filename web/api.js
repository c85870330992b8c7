// Talking to the server, and who is signed in.

import {payloadOf} from "/docs/jwt.js";

// wire tells the rest of the page what happens: "exchange" after each request,
// "session" when the tokens have changed, "gone" and "back" for the server.
export const wire = new EventTarget();
const tell = (type, detail) => wire.dispatchEvent(new CustomEvent(type, {detail}));

// send makes one request and returns all there is to show of it. It does not
// throw: when there is no answer, gone is true.
export async function send(method, path, {token, form, json, body, type} = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (form) [body, type] = [new URLSearchParams(form).toString(), "application/x-www-form-urlencoded"];
  if (json) [body, type] = [JSON.stringify(json), "application/json"];
  if (type) headers["Content-Type"] = type;

  const exchange = {method, path, headers, body, token, status: 0, answerHeaders: {}, text: "", gone: false};
  const start = performance.now();
  try {
    const answer = await fetch(path, {method, headers, body, cache: "no-store", credentials: "omit"});
    exchange.status = answer.status;
    exchange.answerHeaders = Object.fromEntries(answer.headers);
    exchange.text = await answer.text();
  } catch {
    exchange.gone = true; // fetch fails only where there is no answer
  }
  exchange.ms = performance.now() - start;
  try { exchange.json = JSON.parse(exchange.text); } catch { /* not JSON */ }
  tell(exchange.gone ? "gone" : "back");
  tell("exchange", exchange);
  return exchange;
}

// curl is the same request as a command for a shell.
export function curl({method, path, headers, body}) {
  const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const words = ["curl -i"];
  const implied = body === undefined ? "GET" : "POST";
  if (method !== implied) words.push(`-X ${method}`);
  for (const [name, value] of Object.entries(headers)) {
    if (value !== "application/x-www-form-urlencoded") words.push(`-H ${quote(`${name}: ${value}`)}`); // which is curl's own
  }
  if (body !== undefined) words.push(`--data-raw ${quote(body)}`);
  return [...words, quote(location.origin + path)].join(" ");
}

// The session lives here, in a variable: not in localStorage or a cookie, where
// other scripts of this site, or other pages, could get at it. A reload ends it.
export const session = {access: "", refresh: "", claims: null, over: false};

export const signedIn = () => session.access !== "";
export const secondsLeft = (claims = session.claims) => claims.exp - Date.now() / 1000;

// issued are the tokens that this server has given this page.
export const issued = new Set();

// adopt makes the tokens of an answer the current ones.
export function adopt({json}) {
  note(json);
  Object.assign(session, {access: json.access_token, refresh: json.refresh_token, claims: payloadOf(json.access_token), over: false});
  tell("session");
}

export const note = (json) => issued.add(json.access_token);

export function forget() {
  Object.assign(session, {access: "", refresh: "", claims: null, over: false});
  tell("session");
}

export async function signIn(username, password) {
  const login = await send("POST", "/token", {form: {username, password}});
  if (login.status === 200) adopt(login);
  return login;
}

export async function refresh() {
  const answer = await send("POST", "/token", {form: {grant_type: "refresh_token", refresh_token: session.refresh}});
  if (answer.status === 200) adopt(answer);
  return answer;
}

// signOut tells the server, so that the tokens end there too.
export async function signOut() {
  const answer = await send("POST", "/revoke", {form: {token: session.refresh}});
  if (answer.status === 200) forget();
  return answer;
}

// A session can end elsewhere: in another tab, by a new password. The server's
// next 401 for a token that has not expired says so.
wire.addEventListener("exchange", ({detail: {token, status}}) => {
  if (status === 401 && token && token === session.access && secondsLeft() > 1) {
    session.over = true;
    tell("session");
  }
});
