// Sessions: the one that is signed in here, and what this page has seen of each. What
// ends one is decided here only, so that all parts of the page say the same.

import {isFromBefore, issued, note, send, tell, wire} from "/docs/api.js";
import {payloadOf} from "/docs/jwt.js";

const sessions = new Map(); // by sid

export const sessionOf = (access) => sessions.get(payloadOf(access)?.sid);

// The session that is signed in lives here, in a variable: not in localStorage or a
// cookie, where other scripts of this site, or other pages, could get at it. A reload
// ends it. The role is the store's, as far as the page has seen it.
export const session = {access: "", refresh: "", claims: null, role: ""};

export const whyEnded = () => sessionOf(session.access)?.ended ?? "";
export const signedIn = () => session.access !== "" && whyEnded() === "";
export const isAdmin = () => signedIn() && session.role === "admin";
export const secondsLeft = (claims = session.claims) => claims.exp - Date.now() / 1000;

// adopt makes the tokens of a response the current ones. It returns what is new.
export function adopt(json) {
  const same = json.access_token === session.access;
  note(json);
  const claims = payloadOf(json.access_token);
  resume({access: json.access_token, refresh: json.refresh_token, claims, role: claims.role});
  return same ? "The same token again: in the same second, the same claims are signed, which gives the same bytes." : "A new pair of tokens.";
}

// resume makes an earlier session the current one again.
export function resume(earlier) {
  Object.assign(session, earlier);
  tell("session");
}

export const forget = () => resume({access: "", refresh: "", claims: null, role: ""});

// findRefresh returns the session of a refresh token, and its place among them.
function findRefresh(token) {
  for (const it of sessions.values()) {
    const at = it.refresh.indexOf(token);
    if (at >= 0) return {it, at};
  }
  return {};
}

// endings are the requests that end sessions: which ones, and why. The caller is sub,
// with the session sid; named is what the path names; made is a new session.
const endings = [
  [/^DELETE \/users\/me\/$/, (it, {sub}) => it.sub === sub, "the account was deleted"],
  [/^PUT \/users\/me\/password$/, (it, {sub, made}) => it.sub === sub && it.sid !== made, "the password was changed"],
  [/^DELETE \/users\/me\/sessions$/, (it, {sub, sid}) => it.sub === sub && it.sid !== sid, "another session logged it out"],
  [/^DELETE \/users\/me\/sessions\/(.+)$/, (it, {named}) => it.sid === named, "logged out"],
  [/^DELETE \/users\/(\d+)$/, (it, {named}) => it.sub === named, "the account was deleted"],
  [/^DELETE \/users\/(\d+)\/sessions$/, (it, {named}) => it.sub === named, "an admin logged the account out everywhere"],
  [/^PUT \/users\/(\d+)\/password$/, (it, {named}) => it.sub === named, "an admin set a new password"],
  [/^PATCH \/users\/(\d+)$/, (it, {named, json}) => it.sub === named && json.disabled, "the account was disabled"],
];

// What the exchanges tell.
wire.addEventListener("exchange", ({detail: exchange}) => {
  const {method, path, status, token, json} = exchange;
  const before = whyEnded();
  const form = new URLSearchParams(exchange.body?.startsWith("{") ? "" : exchange.body);
  const made = status === 200 && json?.refresh_token && payloadOf(json.access_token)?.sid;
  if (made) {
    const {sub, username} = payloadOf(json.access_token);
    if (!sessions.has(made)) sessions.set(made, {sid: made, sub, username, refresh: [], again: [], replayed: -1, ended: ""});
    const it = sessions.get(made);
    const sent = it.refresh.indexOf(form.get("refresh_token"));
    if (!it.refresh.includes(json.refresh_token)) [it.rotated] = [Date.now(), it.refresh.push(json.refresh_token)];
    else if (it.refresh[sent] !== json.refresh_token && !it.again.includes(sent)) it.again.push(sent);
  }
  if (json?.code === "invalid_refresh_token") {
    const {it, at} = findRefresh(form.get("refresh_token"));
    exchange.cause = !it ? "" : it.ended ? "ended" : at < it.refresh.length - 1 ? "replayed" : "ended";
    if (exchange.cause === "replayed") [it.replayed, it.ended] = [at, "somebody else holds a copy of the token"];
    else if (it) it.ended ||= "this page did not see why";
  }
  const {sub, sid} = payloadOf(token ?? "") ?? {};
  for (const [request, meant, why] of status < 300 ? endings : []) {
    const [all, named] = `${method} ${path}`.match(request) ?? [];
    if (all) for (const it of sessions.values()) if (meant(it, {sub, sid, named, made, json})) it.ended ||= why;
  }
  if (path === "/revoke" && status === 200) {
    const it = findRefresh(form.get("token")).it ?? sessionOf(form.get("token") ?? "");
    if (it) it.ended ||= "logged out";
  }
  if (issued.has(token) && secondsLeft(payloadOf(token)) > 1) {
    if (status === 401) sessionOf(token).ended ||= isFromBefore(token) ? "the server was restarted" : "this page did not see why";
    if (json?.code === "inactive_user") sessionOf(token).ended ||= "the account was disabled";
  }
  const own = session.claims && json?.role && String(json.id) === session.claims.sub;
  if (own && json.role !== session.role) resume({role: json.role});
  else if (whyEnded() !== before) tell("session");
});
