// Talking to the server.

// wire tells the rest of the page what happens: "exchange" after each request,
// "session" when the tokens have changed, "gone" and "back" for the server. A
// listener that knows the cause of a refusal adds it to the exchange.
export const wire = new EventTarget();
export const tell = (type, detail) => wire.dispatchEvent(new CustomEvent(type, {detail}));

// settings are what the server says about itself. Its start differs in each process.
export const settings = {demo: false, issuer: "stdauth", access_ttl: 1800, registration: "open", mail: false, start: "", callers: {}};

export async function loadSettings() {
  try {
    const response = await fetch("/docs/settings.json");
    if (response.ok) Object.assign(settings, await response.json());
    return response.ok;
  } catch {
    tell("gone");
    return false;
  }
}

// load reads a file of the page's when it is first needed. What failed may be asked
// for again.
const loaded = new Map();

export function load(path, kind = "json") {
  if (!loaded.has(path)) {
    const file = fetch(path).then((response) => {
      if (!response.ok) throw new Error(`${path}: ${response.status}`);
      return response[kind]();
    });
    file.catch(() => loaded.delete(path));
    loaded.set(path, file);
  }
  return loaded.get(path);
}

// send makes one request and returns all there is to show of it. It does not
// throw: when there is no response, gone is true.
export async function send(method, path, {token, form, json, body, headers = {}} = {}) {
  headers = {...headers};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (form) [body, headers["Content-Type"]] = [new URLSearchParams(form).toString(), "application/x-www-form-urlencoded"];
  if (json) [body, headers["Content-Type"]] = [JSON.stringify(json), "application/json"];

  const exchange = {method, path, headers, body, token, status: 0, responseHeaders: {}, text: "", gone: false};
  const start = performance.now();
  try {
    const response = await fetch(location.origin + path, {method, headers, body, cache: "no-store", credentials: "omit"});
    exchange.status = response.status;
    exchange.responseHeaders = Object.fromEntries(response.headers);
    exchange.text = await response.text();
  } catch {
    exchange.gone = true; // fetch fails only where there is no response
  }
  exchange.ms = performance.now() - start;
  try { exchange.json = JSON.parse(exchange.text); } catch { /* not JSON */ }
  tell(exchange.gone ? "gone" : "back");
  if (exchange.status === 401 && issued.has(token) || exchange.json?.code === "invalid_refresh_token") await loadSettings(); // is it the same server?
  tell("exchange", exchange);
  return exchange;
}

// issued are the tokens that the server has given this page, each with the start of
// the server that gave it.
export const issued = new Map();
export const note = (json) => issued.set(json.access_token, settings.start);
export const isFromBefore = (token) => issued.has(token) && issued.get(token) !== settings.start;
