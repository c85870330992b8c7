// The article, with the client that @hey-api/openapi-ts makes from openapi.json.

import {createToken, createUser, deleteMe, listMySessions, listUsers, readMe, updateMe, type PasswordGrant, type RefreshGrant, type Token} from "./client/index.js";
import {client} from "./client/client.gen.js";

client.setConfig({baseUrl: process.argv[2] ?? ""});

const token = (body: PasswordGrant | RefreshGrant) => createToken({body});
const logIn = async (username: string, password: string): Promise<Token> => {
  const {data, error} = await token({username, password});
  if (error) throw new Error(error.detail);
  return data;
};
const as = ({access_token}: Token) => ({auth: access_token});

const created = await createUser({body: {username: "newuser", password: "newpassword"}});
console.log("register:", created.data?.username, created.data?.id, created.data?.role);
const taken = await createUser({body: {username: "NewUser", password: "newpassword"}});
console.log("register again:", taken.error?.code);
const invalid = await createUser({body: {username: "other", password: "short", email: "nobody"}});
console.log("register badly:", invalid.error?.code, invalid.error?.errors?.map(({field}) => field).join(" "));

const mine = await logIn("newuser", "newpassword");
console.log("log in:", mine.token_type, mine.expires_in);
console.log("log in badly:", (await token({username: "newuser", password: "guess"})).error?.code);
const admin = await logIn("admin", "secret");

const me = await readMe(as(mine));
console.log("who am I:", me.data?.username, me.data?.full_name === null, new Date(me.data?.created_at ?? 0).getFullYear() > 2000);
const patched = await updateMe({...as(mine), body: {full_name: "New User"}});
console.log("change:", patched.data?.full_name);

console.log("list as newuser:", (await listUsers(as(mine))).error?.code);
const list = await listUsers(as(admin));
console.log("list as admin:", list.data?.map(({username}) => username).join(" "));

const next = await token({grant_type: "refresh_token", refresh_token: mine.refresh_token});
if (next.error) throw new Error(next.error.detail);
console.log("refresh:", next.data.expires_in, next.data.refresh_token !== mine.refresh_token);
await logIn("newuser", "newpassword");
const sessions = await listMySessions(as(next.data));
console.log("sessions:", `[${sessions.data?.map(({current}) => current).join(" ")}]`);

const deleted = await deleteMe({...as(next.data), body: {password: "newpassword"}});
console.log("delete:", deleted.response.status);
console.log("who am I, after it:", (await readMe(as(next.data))).error?.code);
