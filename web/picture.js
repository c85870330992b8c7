// A session as a picture: its refresh tokens on a line, each the successor of the one
// before, and what ended it.

import {el, svg} from "/docs/dom.js";

function inWords({username, refresh, again, replayed, ended}) {
  return [`The session of ${username}: refresh token${refresh.length === 1 ? " 1." : `s 1 to ${refresh.length}, each replaced by the next.`}`,
    ...again.map((at) => `A retry of ${at + 1}, just after it was replaced, got ${at + 2} again.`),
    replayed >= 0 ? `Then ${replayed + 1} was sent again, when ${replayed + 2} had been replaced too: a replay.` : "",
    ended ? `The session has ended: ${ended}.` : "The session is active."].filter(Boolean).join(" ");
}

const [shown, gap, left, middle, radius] = [5, 68, 18, 52, 13]; // how many tokens on the line, and where they stand

// picture draws a session. Of a long one, it draws the newest tokens and a replayed one.
export function picture(session) {
  const {refresh, again, replayed, ended} = session;
  let places = refresh.map((_, at) => at);
  if (places.length > shown) places = [...new Set([Math.max(replayed, 0), ...places.slice(1 - shown)])];
  const x = (at) => left + places.indexOf(at) * gap;
  const end = x(places.at(-1)) + gap - 20;
  // An arrow leads from one token to the place of another, above or below the line.
  const arrow = (kind, from, to, side, words) => svg("g", {class: kind},
    svg("path", {d: `M ${from} ${middle + side * radius} C ${from} ${middle + side * 40} ${to} ${middle + side * 40} ${to} ${middle + side * (radius + 5)}`}),
    svg("path", {class: "head", d: `M ${to - 4} ${middle + side * (radius + 7)} h 8 l -4 ${-side * 7} z`}),
    svg("text", {x: (from + to) / 2, y: middle + side * 38 + (side > 0 ? 9 : 0)}, words));
  const top = again.length > 0 ? 0 : middle - radius - 4;
  const kind = (at) => at === replayed ? "token replayed" : at === refresh.length - 1 && !ended ? "token current" : "token";
  return el("figure", {class: ended ? "session over" : "session"},
    svg("svg", {viewBox: `0 ${top} 366 ${(replayed >= 0 ? 105 : 70) - top}`, "aria-hidden": "true"},
      svg("line", {x1: left, y1: middle, x2: end, y2: middle}),
      ...places.map((at) => svg("g", {class: kind(at)}, svg("circle", {cx: x(at), cy: middle, r: radius}), svg("text", {x: x(at), y: middle + 4.5}, at + 1))),
      ...again.filter((at) => places.includes(at) && places.includes(at + 1)).map((at) => arrow("same", x(at), x(at + 1), -1, "retry")),
      replayed >= 0 && arrow("replay", x(replayed), end, 1, `${replayed + 1} again: replay`),
      ended ? svg("text", {class: "cross", x: end, y: middle + 6}, "✗") : svg("path", {class: "open", d: `M ${end} ${middle - 5} l 8 5 l -8 5 z`})),
    el("figcaption", {}, inWords(session)));
}
