// Reading the server's own Go source: a file, a function in it, the colours of a line.

import {load} from "/docs/api.js";
import {el, marked} from "/docs/dom.js";

export const source = async (file) => (await load(`/docs/source/${file}`, "text")).split("\n");

// find returns the lines of a function or variable, with the comment above it, and
// the number of the first.
export function find(lines, name) {
  const [first, method] = name.split(".");
  const head = new RegExp(method ? `^func \\(\\w+ \\*?${first}\\) ${method}\\(` : `^(func ${first}\\(|var ${first} = )`);
  const at = lines.findIndex((line) => head.test(line));
  let [from, to] = [at, at];
  while (lines[from - 1]?.startsWith("//")) from--;
  if (/[{(]$/.test(lines[at])) while (!/^[})]/.test(lines[to])) to++;
  return {from: from + 1, at: at + 1, lines: lines.slice(from, to + 1)};
}

const keywords = "break|case|chan|const|continue|default|defer|else|fallthrough|for|func|go|goto|if|import|interface|map|package|range|return|select|struct|switch|type|var";
const pieces = new RegExp(`(//.*)|("(?:[^"\\\\]|\\\\.)*"|\`[^\`]*\`|'(?:[^'\\\\]|\\\\.)*')|\\b(${keywords})\\b`, "g");

// colour returns a line of Go with its comments, strings and keywords.
export const colour = (line) => marked(line, pieces, ([text, comment, string]) => [el("span", {class: `go-${comment ? "comment" : string ? "string" : "keyword"}`}, text)]);
