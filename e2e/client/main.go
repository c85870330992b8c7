//go:build generated

// The article, with the client that oapi-codegen makes from openapi.json. It stands
// beside this file while the test runs, and is not kept.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/oapi-codegen/runtime"
)

const formType = "application/x-www-form-urlencoded"

func main() {
	ctx := context.Background()
	api, err := NewClientWithResponses(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}

	// must ends the program if a request got no answer.
	must := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	// oapi-codegen does not write a oneOf as a form, so the form is made of the type
	// that is meant.
	grant := func(v any) *CreateTokenResponse {
		form, err := runtime.MarshalForm(v, nil)
		must(err)
		answer, err := api.CreateTokenWithBodyWithResponse(ctx, formType, strings.NewReader(form.Encode()))
		must(err)
		return answer
	}
	as := func(token *Token) RequestEditorFn {
		return func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+token.AccessToken)
			return nil
		}
	}

	created, err := api.CreateUserWithResponse(ctx, NewUser{Username: "newuser", Password: "newpassword"})
	must(err)
	fmt.Println("register:", created.JSON201.Username, created.JSON201.Id, created.JSON201.Role)
	taken, err := api.CreateUserWithResponse(ctx, NewUser{Username: "NewUser", Password: "newpassword"})
	must(err)
	fmt.Println("register again:", taken.ApplicationproblemJSON400.Code)
	email := "nobody"
	invalid, err := api.CreateUserWithResponse(ctx, NewUser{Username: "other", Password: "short", Email: &email})
	must(err)
	var fields []string
	for _, e := range *invalid.ApplicationproblemJSON422.Errors {
		fields = append(fields, e.Field)
	}
	fmt.Println("register badly:", invalid.ApplicationproblemJSON422.Code, strings.Join(fields, " "))

	token := grant(PasswordGrant{Username: "newuser", Password: "newpassword"}).JSON200
	fmt.Println("log in:", token.TokenType, token.ExpiresIn)
	fmt.Println("log in badly:", grant(PasswordGrant{Username: "newuser", Password: "guess"}).JSON401.Code)
	admin := grant(PasswordGrant{Username: "admin", Password: "secret"}).JSON200

	me, err := api.ReadMeWithResponse(ctx, as(token))
	must(err)
	fmt.Println("who am I:", me.JSON200.Username, me.JSON200.FullName == nil, me.JSON200.CreatedAt.Year() > 2000)
	name := "New User"
	patched, err := api.UpdateMeWithResponse(ctx, ProfilePatch{FullName: &name}, as(token))
	must(err)
	fmt.Println("change:", *patched.JSON200.FullName)

	refused, err := api.ListUsersWithResponse(ctx, nil, as(token))
	must(err)
	fmt.Println("list as newuser:", refused.ApplicationproblemJSON403.Code)
	list, err := api.ListUsersWithResponse(ctx, nil, as(admin))
	must(err)
	var names []string
	for _, u := range *list.JSON200 {
		names = append(names, u.Username)
	}
	fmt.Println("list as admin:", strings.Join(names, " "))

	next := grant(RefreshGrant{GrantType: RefreshToken, RefreshToken: token.RefreshToken}).JSON200
	fmt.Println("refresh:", next.ExpiresIn, next.RefreshToken != token.RefreshToken)
	grant(PasswordGrant{Username: "newuser", Password: "newpassword"})
	sessions, err := api.ListMySessionsWithResponse(ctx, as(next))
	must(err)
	var current []bool
	for _, s := range *sessions.JSON200 {
		current = append(current, s.Current)
	}
	fmt.Println("sessions:", current)

	deleted, err := api.DeleteMeWithResponse(ctx, PasswordConfirmation{Password: "newpassword"}, as(next))
	must(err)
	fmt.Println("delete:", deleted.StatusCode())
	gone, err := api.ReadMeWithResponse(ctx, as(next))
	must(err)
	fmt.Println("who am I, after it:", gone.ApplicationproblemJSON401.Code)
}
