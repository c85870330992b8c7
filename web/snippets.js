// A request as code to copy: for a shell, a browser or Node, Go and Python.

import {copyButton, el, tokenText} from "/docs/dom.js";

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const literal = (text) => JSON.stringify(text); // the same in JavaScript and in Python
const goText = (text) => (text.includes("`") || !text.includes('"') ? literal(text) : `\`${text}\``);
const isToken = ([name, value]) => name === "Authorization" && /^Bearer \S+$/.test(value);
const pair = (name, value) => `    ${literal(name)}: ${literal(value)},`;

// Each language writes a header, the one with the token in a variable, and a request of
// which the headers are written.
const languages = {
  curl: {
    header: (name, value) => `-H ${shell(`${name}: ${value}`)}`,
    secret: '-H "Authorization: Bearer $TOKEN"',
    write: ({method, url, headers, body}) => ["curl -i", ...method === "HEAD" ? ["-I"] : method !== (body === undefined ? "GET" : "POST") ? [`-X ${method}`] : [],
      ...headers.filter((it) => !it.includes("x-www-form-urlencoded")), // which is curl's own
      ...body === undefined ? [] : [`--data-raw ${shell(body)}`], shell(url)].join(" "),
  },
  fetch: {
    header: pair,
    secret: '    "Authorization": `Bearer ${token}`,',
    write: ({method, url, headers, body}) => [`const response = await fetch(${literal(url)}, {`, `  method: ${literal(method)},`,
      ...headers.length ? ["  headers: {", ...headers, "  },"] : [], ...body === undefined ? [] : [`  body: ${literal(body)},`],
      "});", "console.log(response.status, await response.text());"].join("\n"),
  },
  Go: {
    header: (name, value) => `\treq.Header.Set(${literal(name)}, ${literal(value)})`,
    secret: '\treq.Header.Set("Authorization", "Bearer "+os.Getenv("TOKEN"))',
    write: ({method, url, headers, body}) => ["package main", "", "import (", '\t"fmt"', '\t"io"', '\t"log"', '\t"net/http"',
      ...headers.some((it) => it.includes("os.Getenv")) ? ['\t"os"'] : [], ...body === undefined ? [] : ['\t"strings"'], ")", "", "func main() {",
      `\treq, err := http.NewRequest(${literal(method)}, ${literal(url)}, ${body === undefined ? "nil" : `strings.NewReader(${goText(body)})`})`,
      "\tif err != nil {", "\t\tlog.Fatal(err)", "\t}", ...headers,
      "\tresp, err := http.DefaultClient.Do(req)", "\tif err != nil {", "\t\tlog.Fatal(err)", "\t}",
      "\tbody, err := io.ReadAll(resp.Body)", "\tfmt.Println(resp.Status, string(body), err)", "}"].join("\n"),
  },
  HTTPie: {
    header: (name, value) => shell(`${name}:${value}`),
    secret: '"Authorization: Bearer $TOKEN"',
    write: ({method, url, headers, body}) => [...body === undefined ? [] : ["printf %s", shell(body), "|"], "http", method, shell(url), ...headers].join(" "),
  },
  Python: {
    header: pair,
    secret: '    "Authorization": f"Bearer {token}",',
    write: ({method, url, headers, body}) => ["import urllib.error, urllib.request", "", `request = urllib.request.Request(${literal(url)}, method=${literal(method)}, headers={`,
      ...headers, body === undefined ? "})" : `}, data=${literal(body)}.encode())`, "try:", "    response = urllib.request.urlopen(request)",
      "except urllib.error.HTTPError as error:", "    response = error", "print(response.status, response.read().decode())"].join("\n"),
  },
};

let language = "curl"; // the last that was chosen

// snippetView shows what request returns, in the language that is chosen. Its update
// is called when the request has changed.
export function snippetView(request) {
  let hidden = true;
  const code = el("pre", {tabindex: "0", role: "group", "aria-label": "As code"});
  const choices = Object.keys(languages).map((name) => el("button", {type: "button", class: "small", click() { language = name; update(); }}, name));
  const reveal = el("button", {type: "button", class: "small reveal", click() { hidden = !hidden; update(); }});
  const written = () => {
    const [{method, path, headers, body}, {header, secret, write}] = [request(), languages[language]];
    return write({method, url: location.origin + path, body, headers: Object.entries(headers).map((it) => hidden && isToken(it) ? secret : header(...it))});
  };
  function update() {
    code.replaceChildren(tokenText(written()));
    for (const choice of choices) choice.setAttribute("aria-pressed", String(choice.textContent === language));
    reveal.textContent = hidden ? "Show the token" : "Hide the token";
    reveal.hidden = !Object.entries(request().headers).some(isToken);
  }
  update();
  const view = el("div", {class: "snippet"},
    el("div", {class: "head"},
      el("p", {class: "buttons", role: "group", "aria-label": "Language"}, ...choices),
      el("p", {class: "buttons"}, reveal, copyButton(written, "the code"))),
    code);
  return {view, update};
}
