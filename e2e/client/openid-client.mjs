// The npm package openid-client logs in, refreshes and logs out. It is told what it
// would otherwise find out for itself: the server is not an OpenID provider.

import * as oauth from "openid-client";

const [, , server] = process.argv;
const metadata = {issuer: server, token_endpoint: `${server}/token`, revocation_endpoint: `${server}/revoke`};
const config = new oauth.Configuration(metadata, "any-client", undefined, oauth.None());
oauth.allowInsecureRequests(config); // http, on this machine

const whoAmI = async ({access_token}) => {
  const answer = await oauth.fetchProtectedResource(config, access_token, new URL(`${server}/users/me/`), "GET");
  return (await answer.json()).username;
};

const first = await oauth.genericGrantRequest(config, "password", {username: "johndoe", password: "secret"});
console.log("log in:", first.token_type, first.expiresIn() > 0, await whoAmI(first));
const second = await oauth.refreshTokenGrant(config, first.refresh_token);
console.log("refresh:", second.refresh_token !== first.refresh_token, await whoAmI(second));
await oauth.tokenRevocation(config, second.refresh_token);
const refused = await oauth.refreshTokenGrant(config, second.refresh_token).catch(({error}) => error);
console.log("refresh, logged out:", refused);
const wrong = await oauth.genericGrantRequest(config, "password", {username: "johndoe", password: "guess"}).catch((e) => e.cause);
console.log("wrong password:", wrong[0].scheme); // of WWW-Authenticate, which the package reads before the body
