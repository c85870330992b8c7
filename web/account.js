// The forms about an account that are not the login: a forgotten password, a new one, an
// address to confirm. The links of mails open them; so does /.well-known/change-password.
// It is loaded with the first of them.

import {send, settings} from "/docs/api.js";
import {$, action, el} from "/docs/dom.js";
import {exchangeView} from "/docs/exchange.js";
import {adopt, session, signedIn} from "/docs/sessions.js";

const fresh = ["new_password", "New password", "new-password"]; // name, label, autocomplete

// forms are by the name that stands behind # in the address.
const forms = {
  forgot: {title: "Forgot the password?", fields: [["username", "Username", "username"]], button: "Send a link", request: ["POST", "/forgot-password"],
    good: "If there is such an account with a verified address, it gets a mail. The response is the same for every name."},
  reset: {title: "Set a new password", fields: [fresh], button: "Set the password", request: ["POST", "/reset-password"],
    good: "The password is set, and every session from before has ended. Sign in with it above."},
  verify: {title: "Confirm the address", fields: [], button: "Confirm", request: ["POST", "/verify"], good: "The address is verified: from now on, a forgotten password can be reset."},
  "request-verify": {title: "Verify my address", fields: [], button: "Send a link", request: ["POST", "/request-verify-token"], good: "A link is on its way to the address of the account.", signedIn: true},
  "change-password": {title: "Change my password", fields: [["current_password", "Current password", "current-password"], fresh], button: "Change it",
    request: ["PUT", "/users/me/password"], good: "The password is changed. Every older session has ended; this page has a new one.", signedIn: true},
};

// open shows a form. token is that of a link.
function open(name, token) {
  const form = forms[name];
  const inputs = form.fields.map(([name, , autocomplete]) => el("input", {id: `account-${name}`, name, autocomplete, type: /password/.test(name) ? "password" : "text", autocapitalize: "none", spellcheck: "false", required: true}));
  const out = el("div", {class: "out"});
  const button = el("button", {type: "submit", class: "primary"}, form.button);
  const submit = async () => {
    if (form.signedIn && !signedIn()) return out.replaceChildren(el("p", {class: "note bad"}, "Sign in first, above."));
    const values = Object.fromEntries(inputs.map(({name, value}) => [name, value.normalize("NFC")]));
    const before = await mails();
    const exchange = await send(...form.request, {json: token ? {token, ...values} : inputs.length > 0 ? values : undefined, token: form.signedIn ? session.access : undefined});
    if (exchange.json?.refresh_token) adopt(exchange.json);
    const unseen = {...exchange, body: exchange.body?.replace(/"(\w*password|token)":"[^"]*"/g, '"$1":"••••••••"')};
    out.replaceChildren(exchangeView(unseen, {note: exchange.status < 300 ? form.good : ""}));
    if (exchange.status < 300 && name === "reset" && signedIn()) await send("GET", "/users/me/", {token: session.access}); // it may be over
    if (exchange.status === 202 && before) await arrived(before, out);
  };
  const view = el("form", {class: "try"}, el("h2", {id: "account-title", tabindex: "-1"}, form.title),
    ...inputs.map((input, i) => el("div", {class: "field"}, el("label", {for: input.id}, form.fields[i][1]), input)), el("p", {class: "buttons"}, button, el("button", {type: "button", click: close}, "Close")), out);
  action(button, submit, view);
  $("account-form").replaceChildren(view);
  $("account").hidden = false;
  showMail();
  (inputs[0] ?? $("account-title")).focus();
}

const close = () => { $("account").hidden = true; };

// mails are the last ones, or null. Only a server with demo accounts keeps any.
export async function mails() {
  const response = settings.demo && settings.mail && await fetch("/docs/mail.json").catch(() => false);
  return response.ok ? response.json() : null;
}

const showMail = async () => $("mails").replaceChildren(...(await mails() ?? []).toReversed().map(mailView));

// arrived waits for a mail, which is sent after the response, or says why none comes.
async function arrived(before, out) {
  for (let tries = 12; tries > 0; tries--) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    if (JSON.stringify(await mails()) !== JSON.stringify(before)) return showMail();
  }
  return out.append(el("p", {class: "note", role: "status"}, "No mail has come. Mail about a password goes only to an address that is verified, which those of the demo accounts are not at first: sign in, and ",
    el("a", {href: "#request-verify"}, "verify the address"), ". An account gets one mail of a kind a minute."));
}

export function mailView({to, subject, text, sent_at: at}) {
  const [, link] = text.match(/\S+(#(?:reset|verify)=\S+)/) ?? [];
  return el("details", {class: "fold"}, el("summary", {}, `${subject}, to ${to}, ${new Date(at).toLocaleTimeString()}`),
    el("pre", {tabindex: "0", role: "group", "aria-label": subject}, text), link && el("p", {}, el("a", {href: link}, "Open the link")));
}

// follow opens the form that the address names. A token behind it does not stay in the
// address bar, nor in the history.
export function follow() {
  const [, name, token] = location.hash.match(/^#([\w-]+)(?:=(.+))?$/) ?? [];
  if (!(name in forms) || Boolean(token) !== /^(reset|verify)$/.test(name)) return;
  if (token) history.replaceState(null, "", location.pathname);
  open(name, token);
}
