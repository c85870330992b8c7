// The ten steps of the walkthrough. Each is a function that sends requests and says
// which status is expected, and why.

import {adopt, forget, isAdmin, note, secondsLeft, session, settings, signedIn, wire} from "/docs/api.js";
import {encode, payloadOf} from "/docs/jwt.js";
import {sessionOf} from "/docs/picture.js";
import {show} from "/docs/token.js";

// Stop ends a step with a sentence for the user; Need, with what the step lacks.
export class Stop extends Error {}
export class Need extends Stop {}

const registered = []; // the accounts that step 1 has made, to be deleted at the end
let lastAdmin = null; // an admin who was signed in before a step logged in as somebody else

wire.addEventListener("session", () => { if (isAdmin()) lastAdmin = {...session}; });

const random = (length) => Array.from(crypto.getRandomValues(new Uint8Array(length)), (n) => (n % 36).toString(36)).join("");

// account is whom the steps log in as.
function account() {
  if (settings.demo) return {username: "johndoe", password: "secret"};
  if (registered.length > 0) return registered.at(-1);
  throw new Need("There are no demo accounts here. Run step 1 first: it registers one.");
}

async function logIn(step, {username, password} = account()) {
  const {json} = await step.send(200, `${username} logs in.`, "POST", "/token", {form: {username, password}});
  adopt(json);
}

async function refresh(step, words) {
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

// userToken is token for an account that is no admin.
async function userToken(step) {
  if (isAdmin()) await logIn(step);
  return token(step);
}

// adminToken returns an admin's access token, without signing the admin in here.
async function adminToken(step, need) {
  if (isAdmin()) return token(step);
  if (lastAdmin && secondsLeft(lastAdmin.claims) > 2) return lastAdmin.access;
  if (!settings.demo) throw new Need(need);
  const {json} = await step.send(200, "admin logs in.", "POST", "/token", {form: {username: "admin", password: "secret"}});
  note(json);
  return json.access_token;
}

export const steps = {
  async register(step) {
    const admin = settings.registration === "closed" &&
      await adminToken(step, "Registration is closed on this server: only an admin may do this. Sign in as an admin above, and run this step again.");
    const it = {username: `newuser-${random(4)}`, password: random(20)};
    await step.send(201, "The response has neither the password nor its hash. Step 10 deletes the account.", "POST", "/users/", {json: it, token: admin || undefined});
    registered.push(it);
  },

  async login(step) {
    await logIn(step);
  },

  async me(step) {
    await step.send(200, "The server knows the account by the token alone.", "GET", "/users/me/", {token: await token(step)});
  },

  async forbidden(step) {
    await step.send(403, "The token is valid, but its account may not do this.", "GET", "/users/", {token: await userToken(step)});
  },

  async allowed(step) {
    const admin = await adminToken(step, "There is no demo admin here. Sign in as an admin above, and run this step again.");
    await step.send(200, "Every account, without a password or a hash.", "GET", "/users/", {token: admin});
  },

  async forge(step) {
    const [header, payload, signature] = (await userToken(step)).split(".");
    const claims = {...payloadOf(`.${payload}`), role: "admin"};
    const forged = [header, encode(JSON.stringify(claims)), signature].join(".");
    show(forged);
    await step.send(401, "The signature belongs to another payload. The server refuses the token before it reads this one.", "GET", "/users/", {token: forged});
  },

  async expire(step) {
    const {username, password} = account();
    const {json} = await step.send(200, "A separate login, for a token of a few seconds.", "POST", "/token",
      {form: {username, password, expires_in: Math.min(5, settings.access_ttl)}});
    note(json);
    await step.wait(json.expires_in);
    await step.send(401, "The token has expired. It is refused from the second in exp on.", "GET", "/users/me/", {token: json.access_token});
  },

  async refresh(step) {
    await token(step);
    const old = session.refresh;
    const first = await refresh(step, "A new access token, and the successor of the refresh token.");
    const second = await step.send(200, "The old token again, within ten seconds: the same successor.", "POST", "/token", {form: {grant_type: "refresh_token", refresh_token: old}});
    note(second.json);
    step.draw(session.access);
    if (first.json.refresh_token !== second.json.refresh_token) throw new Stop("The successors differ.");
  },

  async replay(step) {
    const access = await token(step);
    const {refresh: line} = sessionOf(access);
    if (line.length === 1) await refresh(step, "Refreshed: the first token is the one just replaced. For ten seconds it is still accepted.");
    if (line.length === 2) await refresh(step, "Refreshed once more: the first token is now older than the one just replaced.");
    await step.send(400, "An old token again. Somebody has kept a copy, so the session ends.", "POST", "/token", {form: {grant_type: "refresh_token", refresh_token: line.at(-3)}});
    await step.send(401, "All tokens of the session are refused, the thief's and the owner's. The owner can log in again; the thief cannot.", "GET", "/users/me/", {token: session.access});
    step.draw(session.access);
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

// cleanUp deletes the accounts that step 1 has made.
export async function cleanUp(step) {
  while (registered.length > 0) {
    const {username, password} = registered.at(-1);
    const {json} = await step.send(200, `${username}, the account of step 1, logs in to delete itself.`, "POST", "/token", {form: {username, password}});
    await step.send(204, "This needs the password once more. Nothing is left of the walkthrough.", "DELETE", "/users/me/", {json: {password}, token: json.access_token});
    registered.pop();
  }
}
