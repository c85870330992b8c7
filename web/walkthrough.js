// The walkthrough: ten steps, each a function that sends requests and says what
// should come back.

import {adopt, curl, forget, note, secondsLeft, send, session, signedIn} from "/docs/api.js";
import {$, duration, el, exchangeView, say} from "/docs/dom.js";
import {show} from "/docs/inspector.js";
import {encode, payloadOf} from "/docs/jwt.js";

let settings;
let registered = null; // the account of step 1
const older = []; // refresh tokens of the current session that have been replaced, the oldest first

// account is whom the steps log in as.
function account() {
  if (settings.demo) return {username: "johndoe", password: "secret"};
  if (registered) return registered;
  throw new Stop("There are no demo accounts here. Run step 1 first.");
}

// Stop ends a step with a sentence for the user.
class Stop extends Error {}

async function logIn(step, {username, password} = account()) {
  const answer = await step.send(200, `${username} logs in.`, "POST", "/token", {form: {username, password}});
  older.length = 0;
  adopt(answer);
}

async function refresh(step, words) {
  const old = session.refresh;
  const answer = await step.send(200, words, "POST", "/token", {form: {grant_type: "refresh_token", refresh_token: old}});
  if (older.sid !== session.claims.sid) older.length = 0;
  older.sid = session.claims.sid;
  older.push(old);
  adopt(answer);
  return answer;
}

// token returns a live access token: the current one, the next, or a new one.
async function token(step) {
  if (!signedIn() || session.over) await logIn(step);
  else if (secondsLeft() < 2) await refresh(step, "The access token has expired, so it is refreshed first.");
  return session.access;
}

// userToken is token for an account that is no admin.
async function userToken(step) {
  if (signedIn() && session.claims.role === "admin") await logIn(step);
  return token(step);
}

const steps = {
  async register(step) {
    const username = `newuser-${Math.random().toString(36).slice(2, 6)}`;
    const password = "newpassword";
    const closed = settings.registration === "closed";
    const admin = closed && signedIn() && session.claims.role === "admin" ? session.access : undefined;
    if (closed && !admin) {
      await step.send(401, "Registration is closed on this server: only an admin may do this.", "POST", "/users/", {json: {username, password}});
      return;
    }
    await step.send(201, "The answer holds neither the password nor its hash.", "POST", "/users/", {json: {username, password}, token: admin});
    registered = {username, password};
  },

  async login(step) {
    await logIn(step);
  },

  async me(step) {
    await step.send(200, "", "GET", "/users/me/", {token: await token(step)});
  },

  async forbidden(step) {
    await step.send(403, "The token is good, and its account may not do this.", "GET", "/users/", {token: await userToken(step)});
  },

  async allowed(step) {
    let admin = session.access;
    if (settings.demo) {
      const answer = await step.send(200, "admin logs in.", "POST", "/token", {form: {username: "admin", password: "secret"}});
      note(answer.json);
      admin = answer.json.access_token;
    } else if (!signedIn() || session.claims.role !== "admin") {
      throw new Stop("There is no demo admin here. Sign in as an admin above, and run this step again.");
    }
    await step.send(200, "", "GET", "/users/", {token: admin});
  },

  async forge(step) {
    const [header, payload, signature] = (await userToken(step)).split(".");
    const claims = {...payloadOf(`.${payload}`), role: "admin"};
    const forged = [header, encode(JSON.stringify(claims)), signature].join(".");
    show(forged);
    await step.send(401, "The signature belongs to another payload. The server has not even read this one.", "GET", "/users/", {token: forged});
  },

  async expire(step) {
    const {username, password} = account();
    const {json} = await step.send(200, "A login of its own, so that the others can go on.", "POST", "/token", {form: {username, password}});
    note(json);
    await step.wait(json.expires_in);
    await step.send(401, "The same token as a moment ago, one second too late.", "GET", "/users/me/", {token: json.access_token});
  },

  async refresh(step) {
    await token(step);
    const old = session.refresh;
    const first = await refresh(step, "A new access token, and the successor of the refresh token.");
    const second = await step.send(200, "The old one again, within ten seconds: the very same successor.", "POST", "/token", {form: {grant_type: "refresh_token", refresh_token: old}});
    note(second.json);
    if (first.json.refresh_token !== second.json.refresh_token) throw new Stop("The successors differ.");
  },

  async replay(step) {
    await token(step);
    if (older.sid !== session.claims.sid) older.length = 0;
    while (older.length < 2) await refresh(step, "Refreshed once more: the first token is now older than the one just replaced.");
    await step.send(400, "The old token again. Somebody has kept a copy: the whole session ends.", "POST", "/token", {form: {grant_type: "refresh_token", refresh_token: older[0]}});
    await step.send(401, "So the thief's token is dead, and the owner's with it. The owner logs in again; the thief cannot.", "GET", "/users/me/", {token: session.access});
  },

  async logout(step) {
    const access = await token(step);
    await step.send(200, "Before: it works.", "GET", "/users/me/", {token: access});
    await step.send(200, "Either token will do to log out.", "POST", "/revoke", {form: {token: session.refresh}});
    await step.send(401, "After: the same token, the same second, refused.", "GET", "/users/me/", {token: access});
    forget();
  },
};

// A card shows one step: its button, its exchanges, how it went.
class Card {
  constructor(element, number) {
    this.element = element;
    this.title = element.querySelector("h3").textContent;
    this.name = `Step ${number}, ${this.title}`;
    this.step = steps[element.dataset.step];
    this.button = element.querySelector("button");
    this.label("Run");
    this.button.addEventListener("click", () => this.run(true));
    this.button.disabled = false;
    this.out = el("div", {class: "out"});
    element.append(this.out);
  }

  // label names the button, and for a screen reader also the step.
  label(words) {
    this.button.textContent = words;
    this.button.setAttribute("aria-label", `${words}: ${this.name}`);
  }

  set state(state) { this.element.dataset.state = state; } // "running", "done" or "failed"
  get state() { return this.element.dataset.state ?? ""; }

  async run(open) {
    if (this.state === "running") return;
    this.state = "running";
    this.button.disabled = true;
    this.label("Running");
    this.out.replaceChildren();
    try {
      await this.step(this);
      this.state = "done";
      if (open && this.last) this.last.open = true;
      say(`${this.name}: ${this.words}, as it should be.`);
    } catch (error) {
      this.state = "failed";
      if (!(error instanceof Stop)) console.error(error);
      this.out.append(el("p", {class: "note bad"}, error instanceof Stop ? error.message : "This step failed. The console says why."));
      if (this.last) this.last.open = true;
      say(`${this.name}: stopped. ${error.message}`);
    }
    this.label("Run again");
    this.button.disabled = false;
    showProgress();
  }

  // send makes a request whose answer should have the expected status.
  async send(expected, words, method, path, options) {
    const exchange = await send(method, path, options);
    this.last = exchangeView(exchange, {expected, note: words, command: curl(exchange)});
    this.words = `${exchange.status} from ${method} ${path}`;
    this.out.append(this.last);
    if (exchange.gone) throw new Stop("The server did not answer.");
    if (exchange.status !== expected) throw new Stop(exchange.json?.detail ?? "The walkthrough stops here.");
    return exchange;
  }

  // wait lets some seconds pass, and shows how many are left.
  async wait(seconds) {
    const left = el("b", {role: "timer"});
    const line = el("p", {class: "note"}, "This token expires in ", left, ". ",
      seconds > 120 ? "To wait less, start the server with -access-ttl 20s." : "");
    this.out.append(line);
    this.waiting?.();
    // Its exp is in whole seconds, so it comes up to one earlier than this.
    for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
      left.textContent = duration((end - Date.now()) / 1000);
      await new Promise((resolve) => setTimeout(resolve, Math.min(1000, end - Date.now())));
    }
    line.remove();
  }

  // started resolves when the step has ended, or waits for longer than a few
  // seconds, so that the next one need not.
  async runOrWait() {
    await Promise.race([this.run(false), new Promise((resolve) => { this.waiting = () => setTimeout(resolve, 5000); })]);
  }
}

let cards;

function showProgress() {
  const done = cards.filter((card) => card.state === "done").length;
  $("progress").textContent = `${done} of ${cards.length} done`;
}

async function runAll() {
  $("run-all").disabled = true;
  for (const card of cards) {
    await card.runOrWait();
    if (card.state === "failed" && !card.element.matches("[data-step=allowed]")) break; // without a demo admin, the rest can go on
  }
  $("run-all").disabled = false;
}

export function start(serverSettings) {
  settings = serverSettings;
  if (cards) return;
  cards = [...document.querySelectorAll(".card")].map((element, i) => new Card(element, i + 1));
  $("run-all").addEventListener("click", runAll);
  showProgress();
}
