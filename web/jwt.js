// Taking a JWT apart, and the server's checks one by one. Nothing here sends
// anything: what is pasted stays in the browser.

// decode reads base64url as strictly as the server does: no padding, no line
// breaks, and no stray bits in the last character (RFC 4648, section 3.5).
function decode(part) {
  if (!/^[\w-]*$/.test(part) || part.length % 4 === 1) throw new Error("not base64url");
  const bytes = Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  if (encodeBytes(bytes) !== part) throw new Error("stray bits at the end");
  return bytes;
}

const encodeBytes = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
export const encode = (text) => encodeBytes(new TextEncoder().encode(text));

// textOf is what a part says, or null if it cannot be read.
export function textOf(part) {
  try { return new TextDecoder("utf-8", {fatal: true, ignoreBOM: true}).decode(decode(part)); } catch { return null; }
}

// objectOf reads a part as a JSON object, or returns null.
export function objectOf(part) {
  try {
    const value = JSON.parse(textOf(part));
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

export const payloadOf = (token) => objectOf(token.split(".")[1] ?? "");

// names are those of the outermost object, as often as they are written.
// JSON.parse would let the last of two win.
function names(json) {
  const found = [];
  let depth = 0;
  for (const [lexeme] of json.matchAll(/"(?:[^"\\]|\\.)*"\s*:?|[{}[\]]/g)) {
    if (lexeme === "{" || lexeme === "[") depth++;
    else if (lexeme === "}" || lexeme === "]") depth--;
    else if (depth === 1 && lexeme.endsWith(":")) found.push(JSON.parse(lexeme.slice(0, -1)));
  }
  return found;
}

// ambiguous returns a name that two readers could understand differently: one
// that is there twice, or a known one in the wrong case. Else undefined.
function ambiguous(part, known) {
  const list = names(textOf(part));
  return list.find((name, i) => list.indexOf(name) < i || known.some((k) => k !== name && k.toLowerCase() === name.toLowerCase()));
}

const claimNames = ["iss", "aud", "sub", "sid", "username", "role", "iat", "exp", "nbf"];
const isText = (value) => typeof value === "string" && value !== "";
const isDate = (value) => typeof value === "number" && value >= 0 && value <= 2 ** 40;
const required = {
  iss: isText, aud: (aud) => isText(aud) || Array.isArray(aud) && aud.every((one) => typeof one === "string"),
  sub: (sub) => isText(sub) && /^[1-9]\d*$/.test(sub), sid: isText, username: isText, role: (role) => typeof role === "string", iat: isDate, exp: isDate,
};
const leeway = 30; // seconds

// The checks, in the server's order. Each test returns what is wrong, in words,
// or "". The two that need the server's key or its store have none.
export const checks = [
  {id: "size", title: "At most 4096 bytes", rfc: "the server's own limit", why: "Nobody needs more, and nobody shall make the server work on more.",
    test: ({token}) => new TextEncoder().encode(token).length > 4096 && "it is longer"},
  {id: "parts", title: "Three parts", rfc: "RFC 7515, 7.1", why: "Header, payload and signature, with two dots between them.",
    test: ({parts}) => parts.length !== 3 && `there ${parts.length === 1 ? "is 1" : `are ${parts.length}`}`},
  {id: "mac", title: "The signature is right", rfc: "RFC 7515, 5.2", why: "Computed anew with HS256 and compared in constant time, before anything in the token is read. Only the server can tell: it has the key.", needs: "key"},
  {id: "header", title: "The header says HS256 and JWT", rfc: "RFC 8725, 3.1", why: "The server has chosen the algorithm; a token may not choose another. An unknown “crit” is refused.",
    test({parts: [part]}) {
      const header = objectOf(part);
      if (!header) return "it is not a JSON object";
      const twice = ambiguous(part, ["alg", "typ", "crit"]);
      if (twice !== undefined) return `“${twice}” is ambiguous`;
      if (header.alg !== "HS256") return `alg is ${JSON.stringify(header.alg) ?? "missing"}`;
      if ("crit" in header) return "crit is there";
      const typ = header.typ;
      return "typ" in header && !(typeof typ === "string" && ["jwt", "application/jwt"].includes(typ.toLowerCase())) && `typ is ${JSON.stringify(header.typ)}`;
    }},
  {id: "base64", title: "Strict base64url", rfc: "RFC 7515, 2", why: "No padding, no line breaks, no stray bits: each token has one spelling only.",
    test: ({parts}) => parts.some((part) => { try { decode(part); } catch { return true; } }) && "a part is not"},
  {id: "json", title: "The payload is one JSON object, each claim once", rfc: "RFC 7519, 4", why: "Of two claims of one name, two readers could believe a different one. “Sub” is not “sub”.",
    test({parts: [, part]}) {
      if (!objectOf(part)) return "it is not a JSON object";
      const twice = ambiguous(part, claimNames);
      return twice !== undefined && `“${twice}” is ambiguous`;
    }},
  {id: "claims", title: "Every claim is there, and of its type", rfc: "RFC 7519, 4.1", why: "iss, aud, sub, sid, username, role, iat and exp. A token without exp would live for ever.",
    test({claims}) {
      const bad = Object.keys(required).filter((name) => !required[name](claims[name]));
      if ("nbf" in claims && !isDate(claims.nbf)) bad.push("nbf");
      return bad.length > 0 && `not so: ${bad.join(", ")}`;
    }},
  {id: "audience", title: "From this server, for this server", rfc: "RFC 7519, 4.1.1 and 4.1.3", why: "A token that somebody else issued, or that was meant for somebody else, is none of ours.",
    test({claims: {iss, aud}, issuer}) {
      if (iss !== issuer) return `iss is ${JSON.stringify(iss) ?? "missing"}`;
      return !(Array.isArray(aud) ? aud : [aud]).includes(issuer) && `aud is ${JSON.stringify(aud) ?? "missing"}`;
    }},
  {id: "exp", title: "Not expired", rfc: "RFC 7519, 4.1.4", why: "Refused from the very second in exp, by the server's clock. Here it is your browser's.",
    test: ({claims: {exp}, now}) => !(now < exp) && "it is over"},
  {id: "iat", title: "Not from the future", rfc: "RFC 7519, 4.1.5 and 4.1.6", why: "iat and nbf may lie 30 seconds ahead, for the clock of another copy of the server.",
    test: ({claims: {iat, nbf}, now}) => !(iat <= now + leeway) ? "iat is" : nbf !== undefined && !(nbf <= now + leeway) && "nbf is"},
  {id: "session", title: "The session is still there", rfc: "RFC 7009, 2", why: "Logging out, a new password or a deleted account ends it, and the token with it. Only the server can tell: it has the store.", needs: "store"},
];

// inspect runs the checks that a browser can, and returns for each "pass",
// "fail", "ask" (only the server can tell) or "idle" (an earlier one failed, and
// there is nothing to look at), with a detail.
export function inspect(token, {issuer, now}) {
  const parts = token.split(".");
  const claims = parts.length === 3 ? objectOf(parts[1]) : null;
  const readable = {size: true, parts: true, header: parts.length === 3, base64: parts.length === 3, json: parts.length === 3};
  return checks.map((check) => {
    if (check.needs) return {check, result: parts.length === 3 ? "ask" : "idle", detail: ""};
    if (!readable[check.id] && !claims) return {check, result: "idle", detail: ""};
    const detail = check.test({token, parts, claims, issuer, now}) || "";
    return {check, result: detail ? "fail" : "pass", detail};
  });
}
