# The Python package requests-oauthlib logs in, refreshes a token by itself that has
# expired, and logs out.

import os
import sys
import time

from oauthlib.oauth2 import InvalidGrantError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session

server = sys.argv[1]
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # http, on this machine
tokens = []

session = OAuth2Session(
    client=LegacyApplicationClient(client_id="any-client"),
    auto_refresh_url=f"{server}/token",
    token_updater=tokens.append,
)


def who_am_i():
    return session.get(f"{server}/users/me/").json()["username"]


first = session.fetch_token(f"{server}/token", username="johndoe", password="secret")
print("log in:", first["token_type"], first["expires_in"] > 0, who_am_i())
time.sleep(first["expires_in"] + 1)
name = who_am_i()  # refreshes first
print("refresh:", tokens[0]["refresh_token"] != first["refresh_token"], name)
session.post(f"{server}/revoke", data={"token": tokens[0]["refresh_token"]})
try:
    session.refresh_token(f"{server}/token", refresh_token=tokens[0]["refresh_token"])
except InvalidGrantError as refused:
    print("refresh, logged out:", refused.error)
try:
    session.fetch_token(f"{server}/token", username="johndoe", password="guess")
except InvalidGrantError as refused:
    print("wrong password:", refused.error)
