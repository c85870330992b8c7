// The article, with the types that openapi-typescript makes from openapi.json.

import createClient from "openapi-fetch";
import type {components, paths} from "./stdauth.js";

type Token = components["schemas"]["Token"];
type Grant = components["schemas"]["PasswordGrant"] | components["schemas"]["RefreshGrant"];

const api = createClient<paths>({baseUrl: process.argv[2] ?? ""});

const form = {"Content-Type": "application/x-www-form-urlencoded"};
const token = (body: Grant) => api.POST("/token", {body, headers: form});
const logIn = async (username: string, password: string): Promise<Token> => {
  const {data, error} = await token({username, password});
  if (error) throw new Error(error.detail);
  return data;
};
const as = ({access_token}: Token) => ({headers: {Authorization: `Bearer ${access_token}`}});

const created = await api.POST("/users/", {body: {username: "newuser", password: "newpassword"}});
console.log("register:", created.data?.username, created.data?.id, created.data?.role);
const taken = await api.POST("/users/", {body: {username: "NewUser", password: "newpassword"}});
console.log("register again:", taken.error?.code);
const invalid = await api.POST("/users/", {body: {username: "other", password: "short", email: "nobody"}});
console.log("register badly:", invalid.error?.code, invalid.error?.errors?.map(({field}) => field).join(" "));

const mine = await logIn("newuser", "newpassword");
console.log("log in:", mine.token_type, mine.expires_in);
console.log("log in badly:", (await token({username: "newuser", password: "guess"})).error?.code);
const admin = await logIn("admin", "secret");

const me = await api.GET("/users/me/", as(mine));
console.log("who am I:", me.data?.username, me.data?.full_name === null, new Date(me.data?.created_at ?? 0).getFullYear() > 2000);
const patched = await api.PATCH("/users/me/", {...as(mine), body: {full_name: "New User"}});
console.log("change:", patched.data?.full_name);

console.log("list as newuser:", (await api.GET("/users/", as(mine))).error?.code);
const list = await api.GET("/users/", as(admin));
console.log("list as admin:", list.data?.map(({username}) => username).join(" "));

const next = await token({grant_type: "refresh_token", refresh_token: mine.refresh_token});
if (next.error) throw new Error(next.error.detail);
console.log("refresh:", next.data.expires_in, next.data.refresh_token !== mine.refresh_token);
await logIn("newuser", "newpassword");
const sessions = await api.GET("/users/me/sessions", as(next.data));
console.log("sessions:", `[${sessions.data?.map(({current}) => current).join(" ")}]`);

const deleted = await api.DELETE("/users/me/", {...as(next.data), body: {password: "newpassword"}});
console.log("delete:", deleted.response.status);
console.log("who am I, after it:", (await api.GET("/users/me/", as(next.data))).error?.code);
