package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// explain returns where a history breaks the contract: the first impossible response, the
// requests and responses during its request, and the possible states before.
func explain(first state, operations []porcupine.Operation) string {
	history := slices.SortedFunc(slices.Values(operations), func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	before := follow([]moment{{state: first.clone().settled()}}, history)
	if before == nil || len(before) > len(history) {
		return unexplained
	}
	wrong := history[len(before)-1]
	since := slices.IndexFunc(history, func(p porcupine.Operation) bool { return p.Return >= wrong.Call })
	moments := before[since]
	part := slices.DeleteFunc(history[since:], func(p porcupine.Operation) bool { return p.Call > wrong.Return })
	for _, p := range part {
		// An order is easier to find without a read. If there is still none, the read
		// is not the reason.
		less := slices.DeleteFunc(slices.Clone(part), func(q porcupine.Operation) bool {
			return q == p && q != wrong && q.Input.(operation).action.reads()
		})
		if len(follow(moments, less)) == 1+slices.Index(less, wrong) {
			part = less
		}
	}
	return describe(moments, part, wrong)
}

const (
	unexplained = "There is no short explanation."

	// Many requests at once may cause very many moments.
	maxMoments = 100_000
)

// A moment is a possible state of a history, with the requests that have taken effect
// before their response.
type moment struct {
	state *state
	done  []int
}

func (m moment) key() string { return fmt.Sprint(m.state.key, m.done) }

// follow goes through a history in the order of the responses. It returns the possible
// moments before each of them, and at last those at the end. It stops before an impossible
// response, and returns nil if there are too many moments.
//
// This is the just-in-time linearizability of Lowe, "Testing for linearizability" (2017):
// before a response, its request must have taken effect, and perhaps others under way.
func follow(moments []moment, history []porcupine.Operation) [][]moment {
	before := [][]moment{moments}
	for i, p := range history {
		all := slices.Clone(moments)
		known := map[string]bool{}
		moments = nil
		for len(all) > 0 {
			m := all[len(all)-1]
			all = all[:len(all)-1]
			if known[m.key()] {
				continue
			}
			if known[m.key()] = true; len(known) > maxMoments {
				return nil
			}
			if n := slices.Index(m.done, p.Input.(operation).number); n >= 0 {
				m.done = slices.Delete(slices.Clone(m.done), n, n+1)
				moments = append(moments, m)
				continue
			}
			for _, q := range history[i:] {
				if o := q.Input.(operation); q.Call <= p.Return && !slices.Contains(m.done, o.number) {
					for _, s := range m.state.step(o, q.Output.(answer)) {
						done := append(slices.Clone(m.done), o.number)
						slices.Sort(done)
						all = append(all, moment{s.(*state), done})
					}
				}
			}
		}
		if len(moments) == 0 {
			break
		}
		before = append(before, moments)
	}
	return before
}

// describe returns a part of a history as lines, in the order of the requests.
func describe(before []moment, part []porcupine.Operation, wrong porcupine.Operation) string {
	var b strings.Builder
	states := map[string]bool{}
	for _, m := range before {
		states[m.state.String()] = true
	}
	for i, s := range slices.Sorted(maps.Keys(states)) {
		if i == 4 {
			fmt.Fprintf(&b, "or %d other states\n", len(states)-i)
			break
		}
		fmt.Fprintln(&b, "before:", s)
	}
	slices.SortFunc(part, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for _, p := range part {
		mark := ""
		if p == wrong {
			mark = "   <- impossible"
		}
		fmt.Fprintf(&b, "%.4f to %.4f s, client %d: %v = %v%s\n", time.Duration(p.Call).Seconds(), time.Duration(p.Return).Seconds(), p.ClientId, p.Input, p.Output, mark)
	}
	return b.String()
}
