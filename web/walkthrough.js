// The walkthrough: its cards, one after the other or all at once. steps.js has what
// they do.

import {send, settings} from "/docs/api.js";
import {$, action, block, duration, el, question, say} from "/docs/dom.js";
import {exchangeView, unfold} from "/docs/exchange.js";
import {picture} from "/docs/picture.js";
import {isAdmin, resume, session, sessionOf, signedIn} from "/docs/sessions.js";
import {cleanUp, Need, steps, Stop} from "/docs/steps.js";

let agreed = false; // to write to a server that may be a real one

// obstacle says why no step can begin here, and what to do about it, or "".
const obstacle = () => settings.demo || settings.registration === "open" || isAdmin() || agreed ? "" :
  "Registration is closed on this server, and it has no demo accounts. Sign in as an admin above: then the steps register an account of their own, and delete it at the end.";

// A card shows one step: its button, its exchanges, how it went.
class Card {
  constructor(element, number) {
    this.element = element;
    this.heading = element.querySelector("h3");
    this.name = `Step ${number}, ${this.heading.textContent}`;
    this.step = steps[element.dataset.step];
    this.title = el("button", {type: "button", class: "title", click: () => this.fold(!element.classList.contains("folded"))}, `${number}. ${this.heading.textContent}`); // once it has passed
    this.line = el("p", {class: "outcome"});
    element.append(this.line);
    this.button = action(el("button", {type: "button"}), () => this.run(true));
    this.label("Run");
    this.out = el("div", {class: "out"});
    element.append(this.button, this.out);
  }

  // label names the button, and for a screen reader also the step.
  label(words) {
    this.button.textContent = words;
    this.button.setAttribute("aria-label", `${words}: ${this.name}`);
  }

  set state(state) { this.element.dataset.state = state; } // "running", "done", "needs" or "failed"
  get state() { return this.element.dataset.state ?? ""; }

  async run(open) {
    if (this.state === "running") return;
    this.out.replaceChildren();
    this.last = null;
    this.fold(false);
    const top = this.element.getBoundingClientRect().top;
    if (open) for (const card of cards) if (card !== this) card.fold(card.state === "done");
    scrollBy({top: this.element.getBoundingClientRect().top - top, behavior: "instant"}); // it stays where it was pressed
    if (obstacle()) return this.stop(new Need(obstacle()));
    if (!settings.demo && !agreed && !await this.agree()) return;
    this.state = "running";
    this.label("Running");
    try {
      await this.step(this);
      this.state = "done";
      if (!this.title.isConnected) this.heading.replaceChildren(this.title);
      if (open) unfold(this.last);
      else this.fold(true);
      say(`${this.name}: ${this.words}, as expected.`);
    } catch (error) {
      this.stop(error);
    }
    this.label("Run again");
    showProgress();
  }

  // fold leaves a line of a step that has passed: how it ended.
  fold(folded) {
    this.element.classList.toggle("folded", folded);
    this.title.setAttribute("aria-expanded", String(!folded));
  }

  stop(error) {
    this.state = error instanceof Need ? "needs" : "failed";
    if (!(error instanceof Stop)) console.error(error);
    this.out.append(el("p", {class: error instanceof Need ? "note" : "note bad"}, error instanceof Stop ? error.message : "This step failed. The console says why."));
    unfold(this.last);
    say(`${this.name}: stopped. ${error.message}`);
  }

  // agree asks before the walkthrough writes to a server that may be a real one.
  async agree() {
    agreed = await question(this.out, `This server has no demo accounts, so it may be a real one. The walkthrough registers an account on ${location.host}, logs in with it, and deletes it at the end.`, "Continue");
    this.button.focus();
    return agreed;
  }

  // send makes a request whose response should have the expected status.
  async send(expected, words, method, path, options) {
    const exchange = await send(method, path, options);
    const good = [expected].flat().includes(exchange.status);
    this.last = exchangeView(exchange, {expected: good ? exchange.status : expected, note: typeof words === "function" ? words(exchange) : words});
    this.words = `${exchange.status} from ${method} ${path}`;
    this.element.dataset.outcome = exchange.status < 400 ? "success" : "refusal";
    this.line.textContent = `${this.words}${exchange.json?.detail ? `: ${exchange.json.detail}` : ""}`;
    this.exchange = exchange.status >= 400 || !this.exchange ? exchange : this.exchange; // the one to learn from
    this.out.append(this.last);
    if (exchange.gone) throw new Stop("The server did not respond.");
    if (!good) throw new Stop(exchange.json?.detail ?? "The walkthrough stops here.");
    return exchange;
  }

  // compare shows the claims of a token before and after somebody changed them.
  compare(before, after) {
    const list = (label, claims, other) => block(label, ...Object.entries(claims).map(([name, value]) => el(other[name] === value ? "span" : "mark", {}, `${name}: ${JSON.stringify(value)}\n`)));
    this.out.append(el("div", {class: "two"}, list("The payload before", before, after), list("The payload after", after, before)));
  }

  show(view) { this.out.append(view); }

  tell(text) { this.out.append(el("p", {class: "note"}, text)); }

  // draw shows the session of an access token as it is now. Nothing is unfolded then:
  // the picture would be out of sight.
  draw(access) {
    if (sessionOf(access)) this.out.append(picture(sessionOf(access)));
    this.last = null;
  }

  pause(ms) { return new Promise((resolve) => setTimeout(resolve, ms)); }

  // wait lets some seconds pass, and shows how many are left.
  async wait(seconds) {
    const left = el("b", {role: "timer"});
    const line = el("p", {class: "note"}, "This token expires in ", left, ". ");
    this.out.append(line);
    // Its exp is in whole seconds, so it comes up to one earlier than this.
    for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
      left.textContent = duration((end - Date.now()) / 1000);
      await this.pause(Math.min(1000, end - Date.now()));
    }
    line.remove();
  }
}

let cards;

function showProgress() {
  const count = (state) => cards.filter((card) => card.state === state).length;
  const needs = count("needs");
  const next = cards.find(({state}) => state !== "done");
  for (const {element} of cards) element.toggleAttribute("data-next", element === next?.element);
  $("learned").hidden = Boolean(next);
  $("progress").textContent = `${count("done")} of ${cards.length} done${needs ? `, ${needs} need${needs === 1 ? "s" : ""} something` : ""}`;
}

// lessons are what the walkthrough teaches: each with the step whose code shows it, and
// the words that find its rules.
const lessons = [
  ["me", "Whoever sends a token is let in as its account, so a token is kept like a password.", "not_authenticated"],
  ["allowed", "What an account may do is read from the store for each request, never believed from the token.", "admin 403"],
  ["forge", "Anybody can read a token and change it. Only the key makes a signature that is accepted.", "an invalid token is refused"],
  ["replay", "A refresh token works once. When it comes again later, somebody has a copy, and the session ends.", "replay"],
  ["logout", "A token ends with its session, at once, however long it would have been valid.", "revoke"],
];

function teach() {
  const link = (words, work) => action(el("button", {type: "button", class: "code-link"}, words), work);
  $("lessons").append(...lessons.map(([step, sentence, words]) => el("li", {}, `${sentence} `,
    link("Its rules", async () => (await import("/docs/rules.js")).filterRules(words)), " ",
    link("Its code", async () => (await import("/docs/code.js")).openExchange(cards.find(({element}) => element.dataset.step === step).exchange)))));
}

// runAll runs the steps until one fails. Afterwards, whoever was signed in before is
// signed in again.
async function runAll() {
  $("run-message").textContent = obstacle();
  if (obstacle()) return;
  const before = signedIn() ? {...session} : null;
  for (const card of cards) {
    await card.run(false);
    if (!["done", "needs"].includes(card.state)) break;
  }
  await cleanUp(cards.at(-1)).catch(() => {});
  if (before && before.claims.sid !== session.claims?.sid) resume(before);
}

export function start() {
  cards = [...document.querySelectorAll(settings.mail && settings.demo ? ".card" : ".card:not([data-mail])")].map((element, i) => new Card(element, i + 1));
  $("run-all").hidden = false;
  action($("run-all"), runAll);
  teach();
  showProgress();
}
