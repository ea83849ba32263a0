package clusters

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Origin is where figures come from.
type Origin struct {
	Command, Machine, Disk string
	Versions               []string
	Started                time.Time
	Took                   time.Duration
	Notes                  []string
}

// Markdown writes all tables.
func (b *Bench) Markdown(w io.Writer, origin Origin) {
	fmt.Fprintf(w, "# Benchmark: a cluster on one machine\n\nMade by `%s` on %s in %s. Do not edit: run it again.\n\n", origin.Command,
		origin.Started.Format("2 January 2006"), origin.Took.Round(time.Second))
	fmt.Fprintf(w, "- machine: %s\n- disk: %s\n- versions: %s\n", origin.Machine, origin.Disk, strings.Join(origin.Versions, ", "))
	fmt.Fprint(w, "\nNodes, callers and the load generator share the machine's cores and its disk, so three nodes can't be faster than one here: what\ncounts is what a call costs and how long callers wait. Network round trips are those of the loopback device. \"other cores\" is what\nprocesses beside the nodes took, callers included.\n")
	for _, page := range b.Pages {
		fmt.Fprintf(w, "\n## %s\n\n| %s |\n", page.Title, strings.Join(page.Header, " | "))
		fmt.Fprint(w, "| --- |"+strings.Repeat(" --: |", len(page.Header)-1)+"\n")
		for _, row := range page.Rows {
			fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		}
		for _, note := range page.Notes {
			fmt.Fprintf(w, "\n%s\n", note)
		}
	}
	for _, text := range append(origin.Notes, b.Wrong...) {
		fmt.Fprintf(w, "\n**%s**\n", strings.ReplaceAll(text, "\n", "; "))
	}
}

func ms(d time.Duration) string { return number(d.Seconds() * 1e3) }

// number prints v with about three digits, and thousands apart.
func number(v float64) string {
	if v < 1000 {
		return fmt.Sprintf("%.*f", map[bool]int{true: 2, false: map[bool]int{true: 1, false: 0}[v < 100]}[v < 10], v)
	}
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
