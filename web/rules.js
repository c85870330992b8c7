// The rules of the server, which are its tests: all of them with a filter, and those
// of one operation. It is loaded when they are first asked for. run.js tries one.

import {load, settings} from "/docs/api.js";
import {$, action, el, later, say} from "/docs/dom.js";
import {run, whyNot} from "/docs/run.js";

// titleOf makes words of a test's name: "Attack JSON smuggling".
const titleOf = (test) => test.replace(/^Test/, "").replace(/([a-z])([A-Z])|([A-Z])([A-Z][a-z])/g, "$1$3 $2$4");

const counted = (count) => (count === 1 ? "1 rule" : `${count} rules`);

// list returns the rules that are wanted, by test, and how many there are.
async function list(wanted) {
  const groups = (await load("/docs/rules.json")).map(({test, rules}) => ({test, rules: rules.filter((rule) => wanted(rule, test))})).filter(({rules}) => rules.length > 0);
  const count = groups.reduce((sum, {rules}) => sum + rules.length, 0);
  return {count, views: groups.map((group) => groupView(group, groups.length === 1 || count <= page))};
}

export async function rulesOf(operationId) {
  const {count, views} = await list((rule) => rule.operation === operationId);
  return el("div", {}, el("p", {class: "because"}, counted(count)), ...views);
}

const page = 20; // how many rules are shown at a time

// groupView is the rules of one test. Those that can be run here come first.
function groupView({test, rules}, open) {
  const runs = rules.filter((rule) => !whyNot(rule, settings));
  const all = [...runs, ...rules.filter((rule) => !runs.includes(rule))];
  const items = el("ul", {role: "list"});
  const more = el("button", {type: "button", class: "small", click: () => show()});
  function show() {
    items.append(...all.slice(items.children.length, items.children.length + page).map(ruleView));
    const left = all.length - items.children.length;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(left, page)} more`;
  }
  const title = el("summary", {}, `${titleOf(test)} `, el("span", {class: "because"}, `${counted(all.length)}, ${runs.length} can be run here`));
  return later(el("details", {class: "fold rule-group", open}, title), async () => {
    show();
    return el("div", {}, items, more);
  });
}

function ruleView(rule) {
  const {status, said} = summary(rule.want);
  const because = whyNot(rule, settings);
  const verdict = el("p", {class: "verdict"});
  const button = because ? el("span", {class: "because", title: because}, because) :
    action(el("button", {type: "button", class: "small", "aria-label": `Run: ${rule.rule}`}, "Run"), () => judge(verdict, () => run(rule)));
  return el("li", {class: "rule"},
    el("p", {class: "sentence"}, rule.rule), button,
    el("div", {class: "request"}, ...rule.do.split(" ; ").map((line) => el("code", {}, line))),
    el("details", {class: "promise"}, el("summary", {}, el("span", {class: `status s${status[0]}`}, status), ` ${said}`),
      el("pre", {tabindex: "0", role: "group", "aria-label": "The complete response"}, rule.want)),
    verdict);
}

// summary says in a line what a response is.
function summary(want) {
  const [status, ...rest] = want.split("\n");
  try {
    const {detail, code} = JSON.parse(rest.at(-1));
    if (detail) return {status, said: `${detail} (${code})`};
  } catch { /* a list, or no body */ }
  return {status, said: rest.join(" ")};
}

// judge runs a rule, and says whether the response is the one promised.
async function judge(verdict, run) {
  verdict.className = "verdict";
  verdict.textContent = "Asking …";
  const {kept, got, trouble} = await run();
  verdict.className = `verdict ${kept ? "good" : "bad"}`;
  verdict.replaceChildren(kept ? "✓ The response is as promised." : trouble ?? el("span", {}, "✗ The response differs: ", el("code", {}, got)));
  say(verdict.textContent);
}

// filter shows the rules that have all the words, in their sentence, request or response.
export async function filter() {
  const {value} = $("rules-filter");
  const words = value.toLowerCase().split(/\s+/);
  const found = await list((rule, test) => {
    const text = `${titleOf(test)} ${rule.rule} ${rule.do} ${rule.want} ${rule.operation ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  }).catch(() => ({count: 0, views: [el("p", {class: "empty"}, "The rules could not be read. Is the server running?")]}));
  if (value !== $("rules-filter").value) return;
  $("rules-list").replaceChildren(...found.views);
  $("rules-count").textContent = found.count === 0 ? "No rule matches." : counted(found.count);
}

// filterRules shows the rules with some words, from elsewhere on the page.
export function filterRules(words) {
  $("rules-filter").value = words;
  filter();
  $("rules").scrollIntoView();
  $("rules-filter").focus({preventScroll: true});
}
