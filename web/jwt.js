// Taking a JWT apart, and the server's checks one by one.
// Nothing here sends anything: what is pasted stays in the browser.

// decode reads base64url as strictly as the server does: no padding, no line
// breaks, and no stray bits in the last character (RFC 4648, section 3.5).
function decode(part) {
  if (!/^[\w-]*$/.test(part) || part.length % 4 === 1) throw new Error("not base64url");
  const bytes = Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  if (encodeBytes(bytes) !== part) throw new Error("stray bits at the end");
  return bytes;
}

export const encodeBytes = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
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

// ourHeader is {"alg":"HS256","typ":"JWT"}, the only header that the server writes.
export const ourHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

// spell writes claims as the server does: these, once each, in this order.
export function spell({iss, aud, sub, sid, username, role, iat, exp}) {
  const text = (value) => JSON.stringify(value)?.replace(/[<>&\u2028\u2029]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  return `{"iss":${text(iss)},"aud":${text(aud)},"sub":${text(sub)},"sid":${text(sid)},"username":${text(username)},"role":${text(role)},"iat":${iat},"exp":${exp}}`;
}

const isText = (value) => typeof value === "string";
const types = {
  iss: isText, aud: isText, sub: (sub) => isText(sub) && /^[1-9]\d*$/.test(sub), sid: isText, username: isText, role: isText,
  iat: Number.isInteger, exp: Number.isInteger,
};
const leeway = 30; // seconds
const name = (value) => JSON.stringify(value) ?? "missing";

// The checks, in the server's order. Each test returns what is wrong, in words, or
// "". The two that need the server's key or its store have none.
export const checks = [
  {id: "size", title: "At most 4096 bytes", noun: "its size", rfc: "this server's limit", why: "The server's own tokens have about 350 bytes. A longer one is refused before it is hashed.",
    test: ({token}) => new TextEncoder().encode(token).length > 4096 && "it is longer"},
  {id: "parts", title: "Three parts", noun: "three parts", rfc: "RFC 7515, 7.1", why: "Header, payload and signature, with two dots between them.",
    test: ({parts}) => parts.length !== 3 && `there ${parts.length === 1 ? "is 1" : `are ${parts.length}`}`},
  {id: "mac", title: "The signature is valid", noun: "the signature", rfc: "RFC 7515, 5.2", why: "Computed with HS256 and compared in constant time, before anything in the token is read. Only the server can check it: it has the key.", needs: "key"},
  {id: "header", title: "The header is the server's own", noun: "the header", rfc: "RFC 8725, 3.1", why: "Exactly {\"alg\":\"HS256\",\"typ\":\"JWT\"}. The server chooses the algorithm, never the token.",
    test: ({parts: [part]}) => part !== ourHeader && `it is ${textOf(part) ?? "not base64url"}`},
  {id: "base64", title: "Strict base64url", noun: "the encoding", rfc: "RFC 7515, 2", why: "No padding, no line breaks, no stray bits: each token has one encoding.",
    test: ({parts}) => parts.some((part) => { try { decode(part); } catch { return true; } }) && "a part is not base64url"},
  {id: "claims", title: "The claims are exactly the server's", noun: "the claims", rfc: "RFC 8725, 3.10 and 3.11", why: "iss, aud, sub, sid, username, role, iat and exp, each once, in this order and encoding. So no two programs can read different claims from one token.",
    test({parts: [, part], claims}) {
      if (!claims) return "it is not a JSON object";
      const bad = Object.keys(types).find((name) => !types[name](claims[name]));
      if (bad) return `${bad} is ${name(claims[bad])}`;
      const other = Object.keys(claims).find((name) => !(name in types));
      if (other !== undefined) return `“${other}” is not one of them`;
      return textOf(part) !== spell(claims) && "they are encoded differently";
    }},
  {id: "audience", title: "Issued by this server, for this server", noun: "issuer and audience", rfc: "RFC 7519, 4.1.1 and 4.1.3", why: "A token from another issuer, or for another audience, is refused.",
    test({claims: {iss, aud}, issuer}) {
      if (iss !== issuer) return `iss is ${name(iss)}`;
      return aud !== issuer && `aud is ${name(aud)}`;
    }},
  {id: "exp", title: "Not expired", noun: "the expiry", rfc: "RFC 7519, 4.1.4", why: "Refused at exp, not after it. The server goes by its clock, this page by your browser's.",
    test: ({claims: {exp}, now}) => !(now < exp) && "exp has passed"},
  {id: "iat", title: "Not from the future", noun: "the time of issue", rfc: "RFC 7519, 4.1.6", why: "iat may be 30 seconds ahead, because clocks of servers differ.",
    test: ({claims: {iat}, now}) => !(iat <= now + leeway) && "iat is too far ahead"},
  {id: "session", title: "The session is active", noun: "the session", rfc: "RFC 7009, 2", why: "A logout, a new password or deleting the account ends it, and the token with it. Only the server can check it: it has the store.", needs: "store"},
];

// inspect runs the checks that a browser can, and returns for each "pass",
// "fail", "ask" (only the server or a key can tell) or "idle" (an earlier one failed,
// and there is nothing to look at), with a detail.
export function inspect(token, {issuer, now, list = checks}) {
  const parts = token.split(".");
  const claims = parts.length === 3 ? objectOf(parts[1]) : null;
  const whole = parts.length === 3;
  const readable = {size: true, parts: true, jws: true, header: whole, base64: whole, claims: whole, alg: whole, object: whole};
  return list.map((check) => {
    if (check.needs) return {check, result: whole ? "ask" : "idle", detail: ""};
    if (!readable[check.id] && !claims) return {check, result: "idle", detail: ""};
    const detail = check.test({token, parts, claims, issuer, now}) || "";
    return {check, result: detail ? "fail" : "pass", detail};
  });
}
