// The ten steps of the walkthrough. Each is a function that sends requests and says
// which status is expected, and why.

import {note, settings, wire} from "/docs/api.js";
import {encode, payloadOf} from "/docs/jwt.js";
import {adopt, forget, isAdmin, secondsLeft, session, sessionOf, signedIn} from "/docs/sessions.js";
import {show} from "/docs/token.js";

// Stop ends a step with a sentence for the user; Need, with what the step lacks.
export class Stop extends Error {}
export class Need extends Stop {}

const registered = []; // the accounts that the steps have made, to be deleted at the end
const missing = new Set(); // demo accounts that could not log in, each with the start of the server
let lastAdmin = null; // an admin who was signed in before a step logged in as somebody else

wire.addEventListener("session", () => { if (isAdmin()) lastAdmin = {...session}; });

const random = (length) => Array.from(crypto.getRandomValues(new Uint8Array(length)), (n) => (n % 36).toString(36)).join("");

async function register(step, words) {
  const admin = settings.registration === "closed" &&
    await adminToken(step, "Registration is closed on this server: only an admin may do this. Sign in as an admin above, and run this step again.");
  const username = `newuser-${random(4)}`;
  const it = {username, password: random(20)};
  const email = settings.mail && settings.demo ? `${username}@example.com` : undefined;
  await step.send(201, words, "POST", "/users/", {json: {...it, email}, token: admin || undefined});
  registered.push(it);
  return it;
}

// demo logs in a demo account, unless somebody has deleted it or changed its password.
async function demo(step, username, fields = {}) {
  const key = `${username} ${settings.start}`;
  if (!settings.demo || missing.has(key)) return undefined;
  const {status, json} = await step.send([200, 401], `${username} logs in.`, "POST", "/token", {form: {username, password: "secret", ...fields}});
  if (status === 200) return json;
  missing.add(key);
  step.tell(`The demo account ${username} cannot log in: it was deleted, or its password is no longer “secret”. A restart of the server brings it back.`);
  return undefined;
}

// grant returns new tokens of whoever was registered last. A step that is run alone
// takes johndoe, or registers an account.
async function grant(step, fields = {}) {
  const json = registered.length === 0 && await demo(step, "johndoe", fields);
  if (json) return json;
  const it = registered.at(-1) ?? await register(step, "The step registers an account to go on with. The last step deletes it.");
  return (await step.send(200, `${it.username} logs in.`, "POST", "/token", {form: {...it, ...fields}})).json;
}

const logIn = async (step) => adopt(await grant(step));

// mailed waits for a mail with a link of a kind to an account, and returns its token.
async function mailed(step, {username}, kind) {
  const {mails, mailView} = await import("/docs/account.js");
  for (let left = 20; left > 0; left--) {
    const mail = (await mails()).findLast(({to, text}) => to === `${username}@example.com` && text.includes(`#${kind}=`));
    const [, token] = mail?.text.match(/#\w+=(\S+)/) ?? [];
    if (token && token !== used) {
      step.show(mailView(mail));
      return token;
    }
    await step.pause(250);
  }
  throw new Stop("No mail came. An account gets one a minute at most: try again in a minute.");
}

let used = ""; // the token of the last reset

async function refresh(step, words) {
  const {refresh: line, rotated} = sessionOf(session.access);
  if (line.length > 1) await step.pause(rotated + 1100 - Date.now()); // within a second, a token is its own successor
  const response = await step.send(200, words, "POST", "/token", {form: {grant_type: "refresh_token", refresh_token: session.refresh}});
  adopt(response.json);
  return response;
}

// token returns a live access token: the current one, the next, or a new one.
async function token(step) {
  if (!signedIn()) await logIn(step);
  else if (secondsLeft() < 2) await refresh(step, "The access token has expired, so it is refreshed first.");
  return session.access;
}

async function userToken(step) {
  if (isAdmin()) await logIn(step);
  return token(step);
}

// adminToken returns an admin's access token, without signing the admin in here.
async function adminToken(step, need) {
  if (isAdmin()) return token(step);
  if (lastAdmin && !sessionOf(lastAdmin.access)?.ended && secondsLeft(lastAdmin.claims) > 2) return lastAdmin.access;
  const json = await demo(step, "admin");
  if (!json) throw new Need(need);
  note(json);
  return json.access_token;
}

export const steps = {
  async register(step) {
    await register(step, "The response has neither the password nor its hash. The last step deletes the account.");
  },

  login: logIn,

  async me(step) {
    await step.send(200, "The server knows the account by the token alone.", "GET", "/users/me/", {token: await token(step)});
  },

  async forbidden(step) {
    await step.send(403, "The token is valid, but its account may not do this.", "GET", "/users/", {token: await userToken(step)});
  },

  async allowed(step) {
    const admin = await adminToken(step, "Sign in as an admin above, and run this step again.");
    await step.send(200, ({json, responseHeaders}) => `${responseHeaders.link ? `The first ${json.length} accounts` : "Every account"}, without a password or a hash.`, "GET", "/users/", {token: admin});
  },

  async forge(step) {
    const [header, payload, signature] = (await userToken(step)).split(".");
    const claims = {...payloadOf(`.${payload}`), role: "admin"};
    const forged = [header, encode(JSON.stringify(claims)), signature].join(".");
    show(forged);
    step.compare(payloadOf(`.${payload}`), claims);
    await step.send(401, "The signature belongs to another payload. The server refuses the token before it reads this one.", "GET", "/users/", {token: forged});
  },

  async expire(step) {
    const json = await grant(step, {expires_in: Math.min(5, settings.access_ttl)});
    note(json);
    await step.wait(json.expires_in);
    await step.send(401, "The token has expired. It is refused from the second in exp on.", "GET", "/users/me/", {token: json.access_token});
  },

  async refresh(step) {
    await token(step);
    const old = session.refresh;
    const first = await refresh(step, "A new access token, and the successor of the refresh token.");
    const second = await step.send(200, "The old token again, within a minute: the same successor.", "POST", "/token", {form: {grant_type: "refresh_token", refresh_token: old}});
    note(second.json);
    step.draw(session.access);
    if (first.json.refresh_token !== second.json.refresh_token) throw new Stop("The successors differ.");
  },

  async replay(step) {
    const access = await token(step);
    const {refresh: line} = sessionOf(access);
    if (line.length === 1) await refresh(step, "Refreshed: the first token is the one just replaced. For a minute it is still accepted.");
    if (line.length === 2) await refresh(step, "Refreshed once more: the first token is now older than the one just replaced.");
    await step.send(400, "An old token again. Somebody has kept a copy, so the session ends.", "POST", "/token", {form: {grant_type: "refresh_token", refresh_token: line.at(-3)}});
    await step.send(401, "All tokens of the session are refused, the thief's and the owner's. The owner can log in again; the thief cannot.", "GET", "/users/me/", {token: session.access});
    step.draw(session.access);
  },

  async reset(step) {
    const it = registered.at(-1) ?? await register(step, "The step registers an account with an address. The last step deletes it.");
    const thief = (await step.send(200, `Somebody else has the password, and logs in as ${it.username} too.`, "POST", "/token", {form: it})).json;
    note(thief);
    await step.send(204, "The link of the first mail proves the address. Only a verified one gets a reset.", "POST", "/verify", {json: {token: await mailed(step, it, "verify")}});
    await step.send(202, "The response is the same for every name.", "POST", "/forgot-password", {json: {username: it.username}});
    [used, it.password] = [await mailed(step, it, "reset"), random(20)];
    await step.send(204, "The link sets a new password, once.", "POST", "/reset-password", {json: {token: used, new_password: it.password}});
    await step.send(401, "Every session from before has ended, the thief's too.", "GET", "/users/me/", {token: thief.access_token});
  },

  async again(step) {
    if (!used) throw new Need("Run the step before first: it opens the link for the first time.");
    await step.send(400, "The link worked once. Its token was bound to the password that is no more.", "POST", "/reset-password", {json: {token: used, new_password: random(20)}});
  },

  async logout(step) {
    const access = await token(step);
    await step.send(200, "Before: the token is accepted.", "GET", "/users/me/", {token: access});
    await step.send(200, "Either token ends the session.", "POST", "/revoke", {form: {token: session.refresh}});
    await step.send(401, "After: the same token is refused.", "GET", "/users/me/", {token: access});
    step.draw(access);
    forget();
    await cleanUp(step);
  },
};

export async function cleanUp(step) {
  for (; registered.length > 0; registered.pop()) {
    const {username, password} = registered.at(-1);
    const {status, json} = await step.send([200, 401], `${username} logs in to delete itself.`, "POST", "/token", {form: {username, password}});
    if (status === 200) await step.send(204, "This needs the password once more. Nothing is left of the walkthrough.", "DELETE", "/users/me/", {json: {password}, token: json.access_token});
  }
}
