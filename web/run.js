// Running a rule: its one request is sent to this server, and the response is compared
// with the one that the test wants.

import {send} from "/docs/api.js";
import {payloadOf} from "/docs/jwt.js";

// expand writes out what rules.json abbreviates: ⟨x × 1025⟩.
const expand = (text) => text.replace(/⟨(.) × (\d+)⟩/gu, (_, c, count) => c.repeat(Number(count)));

// parse reads METHOD PATH [as NAME] [from ADDRESS] [with "Header: value"] [BODY].
function parse(call) {
  const [, method, path, tail] = call.match(/^(\S+) (\S+) ?([^]*)$/);
  const request = {method, path, as: [], from: "", headers: [], body: tail};
  for (;;) {
    const [all, as, from, header] = request.body.match(/^(?:as (\S+)|from (\S+)|with "((?:[^"\\]|\\.)*)")(?: |$)/) ?? [];
    if (all === undefined) return request;
    if (as) request.as.push(as);
    if (from) request.from = from;
    if (header) request.headers.push(JSON.parse(`"${header}"`).split(/: (.*)/s));
    request.body = request.body.slice(all.length);
  }
}

// The demo accounts can stand in for these.
const people = {john: ["johndoe", "user"], ended: ["johndoe", "user"], admin: ["admin", "admin"]};
const namesIn = (request, command) => [...request.as, ...[...command.matchAll(/\$([a-z]+)/g)].map((match) => match[1])].map((name) => name.replace(/\..*/, ""));
const notForPages = /^(cookie|origin|user-agent|host|access-control-|sec-)/i;

// whyNot says why a rule cannot be run here, or "". Nothing is run that would change an
// account, nor what would if this server broke the rule.
export function whyNot({do: command, want}, {demo}) {
  if (command.includes(" ; ")) return "several steps";
  if (!/^[A-Z]/.test(command)) return "not for a browser";
  if (!demo) return "needs the demo accounts";
  if (want.includes("//127.0.0.1:8000")) return "depends on -public-url";
  const request = parse(command);
  const {method, as, from, headers} = request;
  const status = Number(want.slice(0, 3));
  if (namesIn(request, command).some((name) => !(name in people)) || /jane|dora/.test(command + want) || /^200\n(Link|\[\{)/.test(want)) return "needs other accounts";
  const fields = headers.map(([name]) => name).concat(as.map(() => "Authorization"));
  if (from || method === "GET" && request.body || /%2e/i.test(request.path) || command.includes("\uFFFD") || fields.some((name) => notForPages.test(name)) || new Set(fields).size < fields.length) return "not for a browser";
  if (status >= 300 && status < 400) return "redirects";
  if (/^(PATCH|PUT|DELETE)$/.test(method) && (status < 300 || status === 404 || status === 409)) return "would change an account";
  return "";
}

// signIn returns the tokens that a rule speaks of, by the names it uses.
async function signIn(name) {
  const [username, role] = people[name];
  const {json} = await send("POST", "/token", {form: {username, password: "secret"}});
  const claims = payloadOf(json?.access_token ?? "");
  if (claims?.role !== role) return {};
  const {access_token: access, refresh_token: refresh} = json;
  if (name === "ended") await send("POST", "/revoke", {form: {token: refresh}});
  return {[name]: access, [`${name}.refresh`]: refresh, [`${name}.sid`]: claims.sid};
}

// run sends the request of a rule. Afterwards no account and no session is left of it.
export async function run({do: command, want}) {
  const request = parse(command);
  const names = namesIn(request, command);
  const values = {};
  for (const name of new Set(names)) Object.assign(values, await signIn(name));
  if (names.some((name) => !values[name])) return {kept: false, trouble: "The demo accounts cannot log in. Were they changed, or were there too many failed logins?"};
  const put = (text) => expand(text).replace(/\$([a-z.]*[a-z])/g, (all, name) => values[name] ?? all);
  const body = put(request.body);
  const target = request.path.split("?")[0];
  const headers = Object.fromEntries(request.headers.map(([name, value]) => [name, put(value)]));
  if (request.as[0]) headers.Authorization = `Bearer ${values[request.as[0]]}`;
  if (body && !headers["Content-Type"]) {
    headers["Content-Type"] = ["/token", "/revoke", "/introspect"].includes(target) ? "application/x-www-form-urlencoded" :
      request.method === "PATCH" ? "application/merge-patch+json" : "application/json";
  }
  const exchange = await send(request.method, put(request.path), {headers, body: body || undefined});
  await cleanUp(exchange, request, values);
  const got = show(exchange, values);
  return {kept: blur(got) === blur(expand(want)), got};
}

// cleanUp deletes an account that the rule has made, ends its sessions, and lets a good
// login take away the failed one before it.
async function cleanUp({status, json, path, responseHeaders}, request, values) {
  if (status === 201) {
    const admin = values.admin ?? (await signIn("admin")).admin;
    await send("DELETE", responseHeaders.location, {token: admin});
    await send("POST", "/revoke", {form: {token: admin}});
  }
  if (json?.refresh_token) await send("POST", "/revoke", {form: {token: json.refresh_token}});
  if (json?.code === "incorrect_login" || json?.code === "incorrect_password") Object.assign(values, {again: (await signIn("john"))["john.refresh"]});
  for (const token of Object.entries(values).filter(([name]) => /refresh|again/.test(name)).map(([, token]) => token)) await send("POST", "/revoke", {form: {token}});
}

// show writes a response down as the tests do: status, some headers, body.
function show({status, method, text, responseHeaders}, values) {
  const headers = ["WWW-Authenticate", "Location", "Link", "Retry-After", "Allow", "Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name"]
    .filter((name) => responseHeaders[name.toLowerCase()]).map((name) => `${name}: ${responseHeaders[name.toLowerCase()]}`);
  const body = method === "HEAD" ? "" : text.trimEnd();
  const shown = [status, ...headers, ...body ? [body.startsWith("[{") ? body.replaceAll("},{", "},\n{") : body] : []].join("\n");
  const named = (shown, isID) => Object.entries(values).filter(([name]) => name.endsWith(".sid") === isID).reduce((text, [name, value]) => text.replaceAll(value, `$${name}`), shown);
  return named(named(shown, false).replace(/eyJ[\w-]+\.[\w-]+\.[\w-]{43}/g, "<access token>").replace(/[A-Z2-7]{26}\.\d+\.\d+\.[\w-]{43}/g, "<refresh token>"), true);
}

// blur takes out what is another in each world: times, and the ID of a new account.
const blur = (text) => text.replace(/\d{4}-\d\d-\d\dT[\d:]+Z/g, "<time>").replace(/"(iat|exp|expires_in)":\d+/g, '"$1":<number>')
  .replace(/^201\nLocation: \/users\/\d+\n\{"id":\d+/, '201\nLocation: /users/<id>\n{"id":<id>');
