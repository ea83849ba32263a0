package main

import (
	"os"
	"strings"
	"testing"
)

// TestQuotes keeps what the docs quote of this example the same as what runs.
func TestQuotes(t *testing.T) {
	for _, quote := range []struct{ document, file, from, to string }{
		{"README.md", "transfers.go", "// Transfers implements", ""},
		{"docs/guides/transactions.md", "backoffice.go", "// PayRoll pays", "// Total adds"},
		{"docs/guides/transactions.md", "backoffice.go", "// Total adds", "// StandingOrder is"},
		{"docs/guides/transactions.md", "backoffice.go", "// StandingOrder is", ""},
	} {
		document, err := os.ReadFile("../../" + quote.document)
		if err != nil {
			t.Fatal(err)
		}
		source, err := os.ReadFile(quote.file)
		if err != nil {
			t.Fatal(err)
		}
		_, after, found := strings.Cut(string(source), quote.from)
		if !found {
			t.Fatalf("%s has no %q", quote.file, quote.from)
		}
		if quote.to != "" {
			if after, _, found = strings.Cut(after, quote.to); !found {
				t.Fatalf("%s has no %q", quote.file, quote.to)
			}
		}
		if !strings.Contains(string(document), strings.TrimSpace(quote.from+after)) {
			t.Errorf("%s does not quote examples/bank/%s as it is, from %q on", quote.document, quote.file, quote.from)
		}
	}
}
