// A request as code to copy: for a shell, a browser or Node, Go and Python.

import {copyButton, el, tokenText} from "/docs/dom.js";

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const literal = (text) => JSON.stringify(text); // the same in JavaScript and in Python
const entries = ({headers}) => Object.entries(headers);
const isToken = (name, value) => name === "Authorization" && /^Bearer \S+$/.test(value);
const url = ({path}) => location.origin + path;

// Each language writes a request. If hidden, the token is a variable.
const languages = {
  curl(request, hidden) {
    const {method, body} = request;
    const words = ["curl -i"];
    if (method !== (body === undefined ? "GET" : "POST")) words.push(method === "HEAD" ? "-I" : `-X ${method}`);
    for (const [name, value] of entries(request)) {
      if (isToken(name, value) && hidden) words.push('-H "Authorization: Bearer $TOKEN"');
      else if (value !== "application/x-www-form-urlencoded") words.push(`-H ${shell(`${name}: ${value}`)}`); // which is curl's own
    }
    if (body !== undefined) words.push(`--data-raw ${shell(body)}`);
    return [...words, shell(url(request))].join(" ");
  },
  fetch(request, hidden) {
    const {method, body} = request;
    const headers = entries(request).map(([name, value]) =>
      `    ${literal(name)}: ${isToken(name, value) && hidden ? "`Bearer ${token}`" : literal(value)},`);
    return [
      `const response = await fetch(${literal(url(request))}, {`,
      `  method: ${literal(method)},`,
      ...headers.length ? ["  headers: {", ...headers, "  },"] : [],
      ...body === undefined ? [] : [`  body: ${literal(body)},`],
      "});",
      "console.log(response.status, await response.text());"].join("\n");
  },
  Go(request, hidden) {
    const {method, body} = request;
    const text = (value) => (value.includes("`") || !value.includes('"') ? literal(value) : `\`${value}\``);
    const token = hidden && entries(request).some(([name, value]) => isToken(name, value));
    return ["package main", "", "import (", '\t"fmt"', '\t"io"', '\t"log"', '\t"net/http"', ...token ? ['\t"os"'] : [], ...body === undefined ? [] : ['\t"strings"'], ")", "",
      "func main() {",
      `\treq, err := http.NewRequest(${literal(method)}, ${literal(url(request))}, ${body === undefined ? "nil" : `strings.NewReader(${text(body)})`})`,
      "\tif err != nil {", "\t\tlog.Fatal(err)", "\t}",
      ...entries(request).map(([name, value]) => `\treq.Header.Set(${literal(name)}, ${isToken(name, value) && hidden ? '"Bearer "+os.Getenv("TOKEN")' : literal(value)})`),
      "\tresp, err := http.DefaultClient.Do(req)", "\tif err != nil {", "\t\tlog.Fatal(err)", "\t}",
      "\tbody, err := io.ReadAll(resp.Body)", "\tfmt.Println(resp.Status, string(body), err)", "}"].join("\n");
  },
  HTTPie(request, hidden) {
    const {method, body} = request;
    const headers = entries(request).map(([name, value]) => isToken(name, value) && hidden ? '"Authorization: Bearer $TOKEN"' : shell(`${name}:${value}`));
    return [...body === undefined ? [] : ["printf %s", shell(body), "|"], "http", method, shell(url(request)), ...headers].join(" ");
  },
  Python(request, hidden) {
    const {method, body} = request;
    const headers = entries(request).map(([name, value]) =>
      `    ${literal(name)}: ${isToken(name, value) && hidden ? 'f"Bearer {token}"' : literal(value)},`);
    return [
      "import urllib.error, urllib.request", "",
      `request = urllib.request.Request(${literal(url(request))}, method=${literal(method)}, headers={`,
      ...headers,
      body === undefined ? "})" : `}, data=${literal(body)}.encode())`,
      "try:", "    response = urllib.request.urlopen(request)",
      "except urllib.error.HTTPError as error:", "    response = error",
      "print(response.status, response.read().decode())"].join("\n");
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
  const written = () => languages[language](request(), hidden);
  function update() {
    code.replaceChildren(tokenText(written()));
    for (const choice of choices) choice.setAttribute("aria-pressed", String(choice.textContent === language));
    reveal.textContent = hidden ? "Show the token" : "Hide the token";
    reveal.hidden = !entries(request()).some(([name, value]) => isToken(name, value));
  }
  update();
  const view = el("div", {class: "snippet"},
    el("div", {class: "head"},
      el("p", {class: "buttons", role: "group", "aria-label": "Language"}, ...choices),
      el("p", {class: "buttons"}, reveal, copyButton(written, "the code"))),
    code);
  return {view, update};
}
