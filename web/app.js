// The page: signing in, the clock, and the server coming and going. The parts
// are walkthrough.js, inspector.js and reference.js; api.js talks to the server.

import {refresh, secondsLeft, send, session, signedIn, signIn, signOut, wire} from "/docs/api.js";
import {$, duration, say} from "/docs/dom.js";
import * as inspector from "/docs/inspector.js";
import * as reference from "/docs/reference.js";
import * as walkthrough from "/docs/walkthrough.js";

const unknown = {demo: false, issuer: "stdauth", access_ttl: 1800, registration: "open"};
let loaded = false;

// load asks the server what the page must know of it.
async function load() {
  let settings = unknown;
  try {
    const answer = await fetch("/docs/settings.json");
    if (answer.ok) settings = await answer.json();
    loaded = true;
  } catch {
    serverGone();
  }
  $("demo").classList.toggle("away", !settings.demo);
  inspector.start(settings);
  walkthrough.start(settings);
  await reference.start();
}

// submit signs in, and asks at once who that is.
async function submit(username, password) {
  const message = $("sign-in-message");
  message.textContent = "Signing in …";
  const login = await signIn(username, password);
  if (login.status !== 200) {
    message.textContent = login.gone ? "The server did not answer." : `${login.json?.detail ?? login.status}${waitWords(login)}`;
    $("password").focus();
    return;
  }
  $("password").value = "";
  await send("GET", "/users/me/", {token: session.access});
  message.textContent = "";
  $("signed-in-title").focus({preventScroll: true});
}

const waitWords = ({answerHeaders}) => answerHeaders["retry-after"] ? `. Try again in ${answerHeaders["retry-after"]} s.` : "";

$("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  submit($("username").value, $("password").value);
});
for (const button of document.querySelectorAll("[data-demo]")) {
  button.addEventListener("click", () => submit(button.dataset.demo, "secret"));
}

$("refresh").addEventListener("click", async () => {
  const {status, gone, json} = await refresh();
  $("sign-in-message").textContent = status === 200 ? "Refreshed: a new pair of tokens." : gone ? "The server did not answer." : json?.detail ?? `${status}`;
  if (status === 400) { session.over = true; showSession(); }
});

$("sign-out").addEventListener("click", async () => {
  const {status, gone} = await signOut();
  $("sign-in-message").textContent = status === 200 ? "Signed out. Both tokens are dead." : gone ? "The server did not answer, so the tokens live on." : `${status}`;
  if (status === 200) $("username").focus({preventScroll: true});
});

// showSession says who is signed in.
function showSession() {
  const inside = signedIn() && !session.over;
  $("sign-in-form").classList.toggle("away", inside);
  $("signed-in").classList.toggle("away", !inside);
  $("chip").classList.toggle("on", inside);
  $("chip-name").textContent = inside ? session.claims.username : "Not signed in";
  if (inside) {
    $("who").textContent = session.claims.username;
    $("role").textContent = session.claims.role;
  } else if (session.over) {
    $("sign-in-message").textContent = "That session has ended. Sign in again.";
  }
  showTime();
}

function showTime() {
  const inside = signedIn() && !session.over;
  const left = inside ? secondsLeft() : 0;
  $("chip-time").textContent = inside ? left > 0 ? duration(left) : "expired" : "";
  $("life").textContent = !inside ? "" : left > 0 ? `The access token expires in ${duration(left)}.` : "The access token has expired. Refresh it to go on.";
}

wire.addEventListener("session", showSession);
setInterval(() => { showTime(); inspector.tick(); }, 1000);

// While the server is gone the page says so, and looks for it.
let search = 0;

function serverGone() {
  if (search) return;
  $("gone").hidden = false;
  search = setInterval(() => send("GET", "/healthz"), 3000);
}

wire.addEventListener("gone", serverGone);
wire.addEventListener("back", () => {
  if (!search) return;
  clearInterval(search);
  search = 0;
  $("gone").hidden = true;
  say("The server is back.");
  if (!loaded) load();
});
$("gone-retry").addEventListener("click", () => send("GET", "/healthz"));

showSession();
load();
