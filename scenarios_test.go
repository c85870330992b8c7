package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestScenarios runs the scenarios in testdata/scenarios, whose README.md explains the
// format. With -update it writes the responses of the server into the files. Review the
// difference before you commit it.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/scenarios/*.txt: %d files (%v), want some", len(files), err)
	}
	for _, file := range files {
		t.Run("the scenario "+strings.TrimSuffix(filepath.Base(file), ".txt")+" shows the responses of the server", func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			inWorld(t, func(w *world) {
				got := playScenario(w, string(want))
				if *update {
					if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
						t.Fatal(err)
					}
					return
				}
				if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
					t.Errorf("%s differs from the responses of the server (-shown +got):\n%s", file, diff)
				}
			})
		})
	}
}

// playScenario runs the indented lines, and returns the text with the responses of the
// server. Lines that begin with "<" are the expected responses, and are replaced.
func playScenario(w *world, text string) string {
	w.Helper()
	var out []string
	var unshown *answered
	show := func() {
		if unshown != nil {
			for line := range strings.SplitSeq(w.show(unshown), "\n") {
				out = append(out, "    < "+line)
			}
		}
		unshown = nil
	}
	commands := 0
	for line := range strings.SplitSeq(text, "\n") {
		command, indented := strings.CutPrefix(line, "    ")
		if indented && strings.HasPrefix(command, "<") {
			continue
		}
		keyword, _, _ := strings.Cut(command, " ")
		if !indented || keyword != "keep" {
			show()
		}
		out = append(out, line)
		if !indented {
			continue
		}
		commands++
		before := w.last
		w.obey(command)
		if w.last != before {
			unshown = w.last
		}
	}
	show()
	if commands == 0 {
		w.Errorf("the scenario has no command; commands are indented by four spaces")
	}
	return strings.Join(out, "\n")
}

// TestScenarioKeywords: a scenario with a misspelt keyword must not pass as prose.
func TestScenarioKeywords(t *testing.T) {
	readme, err := os.ReadFile("testdata/scenarios/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, keyword := range []string{"GET", "keep", "wait", "repeat", "begin", "end", "login", "restart", "store", "as", "from", "with"} {
		if !strings.Contains(string(readme), "`"+keyword) {
			t.Errorf("testdata/scenarios/README.md does not explain %q", keyword)
		}
	}
	for _, text := range []string{"    got /users/me/", "    GET", "    wait long", "    store works well", "    keep x", "    end", "    GET /users/me/ as somebody", "    begin GET /healthz", "prose alone"} {
		if !fails(t, func(w *world) { playScenario(w, text) }) {
			t.Errorf("the scenario %q passes, want it to fail", text)
		}
	}
}
