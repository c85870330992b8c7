// Any JWT, from anywhere: its signature under a key, with WebCrypto, and what every
// reader of a JWT should check. Nothing here sends anything.

import {encodeBytes, objectOf, textOf} from "/docs/jwt.js";

// Without HTTPS, browsers have WebCrypto on this machine only.
export const canSign = Boolean(globalThis.crypto?.subtle);

const bytesOf = (text) => new TextEncoder().encode(text);
const fromBase64 = (text) => Uint8Array.from(atob(text.replace(/\s/g, "").replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));

// algorithmOf is an alg of RFC 7518, 8037 or 9864, or ML-DSA, in the words of WebCrypto: for
// importing a key, for using it, and the kty of its JWK.
function algorithmOf(alg) {
  const [, family, bits] = /^(HS|RS|PS|ES)(256|384|512)$/.exec(alg) ?? [];
  const hash = `SHA-${bits}`;
  if (family === "HS") return [{name: "HMAC", hash}, "HMAC"];
  if (family === "RS") return [{name: "RSASSA-PKCS1-v1_5", hash}, "RSASSA-PKCS1-v1_5", "RSA"];
  if (family === "PS") return [{name: "RSA-PSS", hash}, {name: "RSA-PSS", saltLength: bits / 8}, "RSA"];
  if (family === "ES") return [{name: "ECDSA", namedCurve: {256: "P-256", 384: "P-384", 512: "P-521"}[bits]}, {name: "ECDSA", hash}, "EC"];
  if (/^ML-DSA-(44|65|87)$/.test(alg)) return [{name: alg}, alg, "AKP"];
  return alg === "EdDSA" || alg === "Ed25519" ? [{name: "Ed25519"}, "Ed25519", "OKP"] : [];
}

// secretsOf are the bytes that the text of an HMAC key can mean, each with how it was read.
function secretsOf(text) {
  try {
    const {k} = JSON.parse(text);
    if (k) return [[fromBase64(k), " (a JWK)"]];
  } catch { /* not JSON */ }
  const secrets = [[bytesOf(text), ""]];
  try { secrets.push([fromBase64(text), " (read as base64)"]); } catch { /* not base64 */ }
  return secrets.filter(([{length}]) => length > 0);
}

// keyPair imports a key of PEM or JWK. What has the private part can verify, too.
async function keyPair(text, [algorithm, , kty], usage) {
  let jwk;
  const [, kind, body] = text.match(/-----BEGIN (PUBLIC|PRIVATE) KEY-----([^-]+)-----END/) ?? [];
  if (kind) {
    const key = await crypto.subtle.importKey(kind === "PUBLIC" ? "spki" : "pkcs8", fromBase64(body), algorithm, true, [kind === "PUBLIC" ? "verify" : "sign"]);
    jwk = await crypto.subtle.exportKey("jwk", key);
  } else {
    jwk = JSON.parse(text);
    jwk = jwk.keys?.find((key) => key.kty === kty) ?? jwk;
  }
  const {crv, x, y, n, e, pub, d, p, q, dp, dq, qi, priv} = jwk;
  const publicPart = {kty: jwk.kty, crv, x, y, n, e, pub, alg: kty === "AKP" ? algorithm.name : undefined};
  return crypto.subtle.importKey("jwk", usage === "sign" ? {...publicPart, d, p, q, dp, dq, qi, priv} : publicPart, algorithm, false, [usage]);
}

// verify says whether a key makes the signature of a token: fits is true, false, or null
// if it cannot be told.
export async function verify(token, key) {
  const [header, payload, signature] = token.split(".");
  const alg = objectOf(header)?.alg;
  const way = algorithmOf(alg);
  const [algorithm, use] = way;
  const refuse = (says) => ({fits: null, says});
  if (!canSign) return refuse("Browsers verify and sign only over HTTPS or on localhost.");
  if (!algorithm) return refuse(alg === "none" ? "“none” means that there is no signature to verify." : "No algorithm that this page knows.");
  try {
    const [text, mac] = [bytesOf(`${header}.${payload}`), fromBase64(signature)];
    const strict = encodeBytes(mac) === signature; // no padding or stray bits
    const keys = algorithm.name !== "HMAC" ? [[await keyPair(key, way, "verify"), ""]] :
      await Promise.all(secretsOf(key).map(async ([bytes, how]) => [await crypto.subtle.importKey("raw", bytes, algorithm, false, ["verify"]), how]));
    for (const [it, how] of keys) if (strict && await crypto.subtle.verify(use, it, mac, text)) return {fits: true, says: `✓ The signature matches this key${how}.`};
    return {fits: false, says: "✗ The signature does not match this key."};
  } catch (error) {
    if (error.name === "NotSupportedError") return refuse(`This browser cannot verify ${alg}.`);
    return refuse(algorithm.name === "HMAC" ? "This is not a key for HMAC." : `This is not a key for ${alg}: it takes a public key, as PEM (PUBLIC KEY) or JWK.`);
  }
}

// sign returns the token with the signature that a key makes.
export async function sign(token, key) {
  const [header, payload] = token.split(".");
  const way = algorithmOf(objectOf(header)?.alg);
  const [algorithm, use] = way;
  if (!algorithm) throw new Error("no algorithm");
  const it = algorithm.name === "HMAC" ? await crypto.subtle.importKey("raw", secretsOf(key)[0][0], algorithm, false, ["sign"]) : await keyPair(key, way, "sign");
  return `${header}.${payload}.${encodeBytes(new Uint8Array(await crypto.subtle.sign(use, it, bytesOf(`${header}.${payload}`))))}`;
}

// whyNot says why this server accepts HS256 and no other algorithm.
export function whyNot(alg) {
  if (alg === "HS256") return "The only algorithm that this server accepts: it makes and checks its tokens itself, so one secret is enough.";
  if (/^HS/.test(alg)) return `This server refuses ${alg}. It is no weaker than HS256, but a server that accepts one algorithm leaves nothing to choose for an attacker.`;
  if (/^[RP]S/.test(alg)) return `This server refuses ${alg}. Where it stands beside HS256, a forger can use the public key as an HMAC secret, if the server believes the header.`;
  if (/^ES|^Ed|^ML-DSA/.test(alg)) return `This server refuses ${alg}. Public keys are for tokens that others verify; here, others can ask the server (/introspect).`;
  return alg === "none" ? "This server refuses “none”: there is no signature, so anybody can write the token." : "This server accepts HS256 only.";
}

const at = (claim) => (typeof claim === "number" ? new Date(claim * 1000).toLocaleString() : JSON.stringify(claim));

// general are the checks that any reader of a JWT should make, in order.
export const general = [
  {id: "jws", title: "Three parts of base64url", noun: "its form", rfc: "RFC 7515, 3.1", why: "Header, payload and signature, with two dots between them, without padding.",
    test: ({parts}) => (parts.length !== 3 ? `there ${parts.length === 1 ? "is 1 part" : `are ${parts.length} parts`}` : parts.some((part) => textOf(part) === null && !/^[\w-]*$/.test(part)) && "a part is not base64url")},
  {id: "alg", title: "An algorithm that signs", noun: "the algorithm", rfc: "RFC 8725, 3.1", why: "The reader decides which algorithms it accepts. “none” is never one of them.",
    test({parts}) {
      const alg = objectOf(parts[0])?.alg;
      return typeof alg !== "string" ? objectOf(parts[0]) ? "the header has no alg" : "the header is not JSON" : !algorithmOf(alg)[0] && `it is ${alg}`;
    }},
  {id: "object", title: "The payload is a JSON object", noun: "the payload", rfc: "RFC 7519, 7.2", why: "Its members are the claims.",
    test: ({claims}) => !claims && "it is not"},
  {id: "key", title: "The signature is valid", noun: "the signature", rfc: "RFC 7515, 5.2", why: "Whoever has no key cannot tell. Type one below: it stays in this browser.", needs: "key"},
  {id: "expired", title: "Not expired", noun: "the expiry", rfc: "RFC 7519, 4.1.4", why: "Without exp, a token is good for ever.",
    test: ({claims: {exp}, now}) => exp !== undefined && !(now < exp) && `exp was ${at(exp)}`},
  {id: "early", title: "Already valid", noun: "nbf and iat", rfc: "RFC 7519, 4.1.5 and 4.1.6", why: "nbf and iat are not in the future. Half a minute is forgiven, because clocks differ.",
    test: ({claims: {nbf, iat}, now}) => ["nbf", "iat"].find((name, i) => [nbf, iat][i] !== undefined && !([nbf, iat][i] <= now + 30))},
];
