// The page: signing in, the clock, and the server coming and going. The parts are
// walkthrough.js, token.js, reference.js and rules.js; api.js talks to the server.

import {isFromBefore, loadSettings, send, settings, wire} from "/docs/api.js";
import {$, action, duration, el, put, say} from "/docs/dom.js";
import {exchangeView} from "/docs/exchange.js";
import * as reference from "/docs/reference.js";
import {adopt, forget, secondsLeft, session, signedIn, whyEnded} from "/docs/sessions.js";
import * as token from "/docs/token.js";
import * as walkthrough from "/docs/walkthrough.js";

async function load() {
  await loadSettings();
  $("demo").classList.toggle("away", !settings.demo);
  $("no-demo").classList.toggle("away", settings.demo);
  $("no-demo").replaceChildren(...settings.registration === "closed" ? ["Registration is closed: an admin creates the accounts."] :
    ["No account yet? ", el("a", {href: "#op-createUser"}, "Register one"), "."]);
  for (const part of document.querySelectorAll("[data-mail]")) {
    part.hidden = !settings.mail || part.matches(".card") && !settings.demo; // whose mails the page can read
    part.classList.remove("away");
  }
  reference.start();
}

// submit signs in, and asks the server who that is.
async function submit(username, password, demo = false) {
  tell("Signing in …");
  const login = await send("POST", "/token", {form: {username, password: password.normalize("NFC")}}); // one password, however it is typed
  if (login.status === 200) adopt(login.json);
  const wait = login.responseHeaders["retry-after"];
  const unseen = {...login, body: login.body.replace(/password=.*/, "password=••••••••")};
  $("sign-in-out").replaceChildren(exchangeView(unseen, {note: login.status === 200 ? "The password became two tokens." : wait ? `Try again in ${wait} s.` : ""}));
  if (login.status !== 200) {
    tell(login.gone ? "The server did not respond." : demo && login.status === 401 ?
      `The demo account ${username} was deleted, or has another password now. A restart of the server brings it back.` : login.json?.detail ?? `${login.status}`, true);
    $("password").focus();
    return;
  }
  $("password").value = "";
  await send("GET", "/users/me/", {token: session.access});
  tell("");
  $("signed-in-title").focus({preventScroll: true});
}

function tell(text, bad = false) {
  put($("sign-in-message"), text, bad ? "message bad" : "message");
}

action($("sign-in-button"), () => submit($("username").value, $("password").value), $("sign-in-form"));
for (const button of document.querySelectorAll("[data-demo]")) action(button, () => submit(button.dataset.demo, "secret", true));

action($("refresh"), async () => {
  const {status, gone, json} = await send("POST", "/token", {form: {grant_type: "refresh_token", refresh_token: session.refresh}});
  tell(status === 200 ? adopt(json) : gone ? "The server did not respond." : whyEnded() ? ended() : json?.detail ?? `${status}`, status !== 200);
});

action($("sign-out"), async () => {
  const {status, gone} = await send("POST", "/revoke", {form: {token: session.refresh}}); // so that both tokens end there, too
  if (status === 200) forget();
  $("sign-in-out").replaceChildren();
  tell(status === 200 ? "Signed out. Both tokens are refused from now on." : gone ? "The server did not respond, so the tokens are still valid." : `${status}`, status !== 200);
  if (status === 200) $("username").focus({preventScroll: true});
});

const ended = () => isFromBefore(session.access) ?
  "The server was restarted and does not know that session any more. Sign in again." : `That session has ended: ${whyEnded()}. Sign in again.`;

function showSession() {
  const inside = signedIn();
  document.body.classList.toggle("inside", inside);
  $("run-all").classList.toggle("primary", inside); // one primary button at a time
  $("chip").classList.toggle("on", inside);
  $("chip-name").textContent = inside ? session.claims.username : "Sign in";
  if (inside) {
    $("who").textContent = session.claims.username;
    $("role").textContent = session.role;
  }
  tell(whyEnded() ? ended() : "", true);
  showTime();
}

function showTime() {
  const left = signedIn() ? secondsLeft() : 0;
  $("chip-time").textContent = !signedIn() ? "" : left > 0 ? duration(left) : "expired";
  $("life").textContent = !signedIn() ? "" : left > 0 ? `The access token expires in ${duration(left)}.` : "The access token has expired. Refresh it to go on.";
}

wire.addEventListener("session", showSession);
setInterval(() => { showTime(); token.tick(); }, 1000);

// While the server is gone the page says so, and tries again.
let search = 0;

wire.addEventListener("gone", () => {
  if (search) return;
  $("gone").hidden = false;
  search = setInterval(() => send("GET", "/healthz"), 3000);
});
wire.addEventListener("back", () => {
  if (!search) return;
  clearInterval(search);
  search = 0;
  $("gone").hidden = true;
  say("The server is back.");
  load();
});

// The small token at the foot of a narrow screen makes way for the large one.
new IntersectionObserver(([entry]) => $("mini").classList.toggle("away", entry.isIntersecting)).observe($("token"));

// Search opens with "/", unless somebody is typing.
const openSearch = async () => (await import("/docs/search.js")).open();
action($("search-open"), openSearch);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable], dialog")) return;
  event.preventDefault();
  openSearch();
});

// The rules and the forms about an account are loaded with the first that is wanted.
const filter = async () => (await import("/docs/rules.js")).filter();
$("rules-filter").addEventListener("input", filter);
action($("rules-open"), () => filter().then(() => $("rules-list").querySelector("summary")?.focus())); // the button is gone
const follow = async () => { if (/^#(forgot|reset|verify|request-verify|change-password)\b/.test(location.hash)) (await import("/docs/account.js")).follow(); };
addEventListener("hashchange", follow);

showSession();
for (const button of document.querySelectorAll("[data-wait]")) button.disabled = false; // until now nothing would have happened
await load();
await token.start();
walkthrough.start();
await follow();
