// Package header decides which headers of a call its handler sees. Those are kept with the
// invocation, so that each attempt sees the same ones, on whatever node it runs: they are on disk,
// in the log, the store and whatever was copied of them. So none is kept that nobody has asked
// for, never one whose name says that it is a secret, and only so many.
package header

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// The bounds of what is kept with one invocation.
const (
	MaxCount     = 32
	MaxNameBytes = 64
	// MaxBytes of all names and values together.
	MaxBytes = 4 << 10
)

// secretWords make a name a secret's, wherever they are between dashes.
var secretWords = []string{
	"authorization", "authentication", "authenticate", "bearer", "cookie", "cookie2", "cookies", "credential", "credentials", "csrf", "dpop",
	"jwt", "passphrase", "passwd", "password", "pwd", "secret", "secrets", "session", "sessionid", "signature", "token", "tokens",
	"xsrf", "apikey", "accesskey", "accesstoken", "authtoken", "clientsecret", "idtoken", "refreshtoken", "secretkey", "sessiontoken",
}

// keyWords make a name that ends in "key" a secret's: an API key is one, a partition key is not.
var keyWords = []string{"access", "account", "admin", "api", "app", "auth", "client", "encryption", "functions", "license", "master", "private", "secret", "service", "shared", "signing", "subscription"}

// Secret reports whether a name, in lower case, says that the value is a secret.
func Secret(name string) bool {
	if name == "auth" || name == "x-auth" {
		return true
	}
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' || r == '.' })
	isKey := len(words) > 0 && words[len(words)-1] == "key"
	for _, word := range words {
		if slices.Contains(secretWords, word) || isKey && slices.Contains(keyWords, word) {
			return true
		}
	}
	return false
}

// protocol are headers that say how a call travels, and nothing to its handler.
var protocol = []string{
	"accept", "accept-encoding", "alt-svc", "connection", "date", "expect", "host", "http2-settings", "idempotency-key", "keep-alive",
	"proxy-connection", "te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade",
}

var protocolPrefixes = []string{"connect-", "content-", "grpc-", "perdure-"}

func isProtocol(name string) bool {
	return slices.Contains(protocol, name) || strings.HasSuffix(name, "-bin") ||
		slices.ContainsFunc(protocolPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// CheckName is why a header of that name, in lower case, is never kept, nil if it may be.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("a header has no name")
	case len(name) > MaxNameBytes:
		return fmt.Errorf("the name of header %.20s… has %d bytes; at most %d are allowed", name, len(name), MaxNameBytes)
	case strings.ContainsFunc(name, notInName):
		return fmt.Errorf("header %q: a name has letters, digits and the characters - _ .", name)
	case Secret(name):
		return fmt.Errorf("header %s is a secret by its name: the headers that handlers see are kept on disk, and secrets are not; say what the handler needs to know of the caller by a header of another name", name)
	case isProtocol(name):
		return fmt.Errorf("header %s is the protocol's own: handlers don't see it; give yours another name", name)
	}
	return nil
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

// Rule says which headers of requests are kept without the caller asking for it. A nil Rule keeps
// none.
type Rule struct {
	names    []string
	prefixes []string
}

// NewRule makes a rule of names, in any case: "X-Request-Id" is that header, "X-Acme-*" all that
// begin so. All that is wrong with them is in the error.
func NewRule(names []string) (*Rule, error) {
	rule := &Rule{}
	var problems []error
	for _, given := range names {
		name := strings.ToLower(given)
		prefix, all := strings.CutSuffix(name, "*")
		switch {
		case !all:
			if err := CheckName(name); err != nil {
				problems = append(problems, err)
				continue
			}
			rule.names = append(rule.names, name)
		case !strings.HasSuffix(prefix, "-") || prefix == "-" || prefix == "x-":
			problems = append(problems, fmt.Errorf("headers %q are too many: before the * there must be a prefix of your own that ends in -, such as X-Acme-*", given))
		default:
			// What is wrong with the prefix is wrong with every name.
			if err := CheckName(prefix + "x"); err != nil {
				problems = append(problems, fmt.Errorf("headers %q: %w", given, err))
				continue
			}
			rule.prefixes = append(rule.prefixes, prefix)
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if len(rule.names)+len(rule.prefixes) == 0 {
		return nil, nil
	}
	return rule, nil
}

// Headers is what a request came with.
type Headers interface {
	Values(name string) []string
	All() iter.Seq2[string, []string]
}

// OfRequest are the headers of a request that are kept: those of rule, and those that the request
// itself names, in lists separated by commas. Of the first, what is secret or the protocol's own is
// left out without a word; of the second it is an error.
func OfRequest(from Headers, rule *Rule, named []string) ([]*recordv1.Header, error) {
	if rule == nil && len(named) == 0 {
		return nil, nil
	}
	kept := map[string]string{}
	keep := func(name string) {
		if values := from.Values(name); len(values) > 0 {
			kept[name] = strings.Join(values, ", ")
		}
	}
	for _, list := range named {
		for name := range strings.SplitSeq(list, ",") {
			name = strings.ToLower(strings.TrimSpace(name))
			if err := CheckName(name); err != nil {
				return nil, err
			}
			keep(name)
		}
	}
	if rule != nil {
		for _, name := range rule.names {
			keep(name)
		}
		if len(rule.prefixes) > 0 {
			for name := range from.All() {
				if name = strings.ToLower(name); rule.covers(name) && CheckName(name) == nil {
					keep(name)
				}
			}
		}
	}
	return record(kept)
}

func (r *Rule) covers(name string) bool {
	return slices.ContainsFunc(r.prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// OfCall are the headers that a caller in Go gives, by their names in lower case.
func OfCall(given map[string]string) ([]*recordv1.Header, error) {
	if len(given) == 0 {
		return nil, nil
	}
	for name := range given {
		if err := CheckName(name); err != nil {
			return nil, err
		}
	}
	return record(given)
}

// record checks values and bounds.
func record(kept map[string]string) ([]*recordv1.Header, error) {
	if len(kept) == 0 {
		return nil, nil
	}
	if len(kept) > MaxCount {
		return nil, fmt.Errorf("%d headers would be kept for the handler; at most %d are allowed", len(kept), MaxCount)
	}
	total, longest := 0, ""
	headers := make([]*recordv1.Header, 0, len(kept))
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		value := kept[name]
		if err := checkValue(name, value); err != nil {
			return nil, err
		}
		total += len(name) + len(value)
		if len(value) > len(kept[longest]) {
			longest = name
		}
		headers = append(headers, &recordv1.Header{Name: name, Value: value})
	}
	if total > MaxBytes {
		return nil, fmt.Errorf("the headers that would be kept for the handler have %d bytes; at most %d are allowed (%s alone has %d)", total, MaxBytes, longest, len(kept[longest]))
	}
	return headers, nil
}

// checkValue refuses what not every way of a call could carry.
func checkValue(name, value string) error {
	switch {
	case !utf8.ValidString(value):
		return fmt.Errorf("the value of header %s is not valid utf-8", name)
	case strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Errorf("the value of header %s has a control character", name)
	case strings.TrimSpace(value) != value:
		return fmt.Errorf("the value of header %s has blanks around it, which HTTP would drop", name)
	}
	return nil
}

// All yields names and values.
func All(headers []*recordv1.Header) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, h := range headers {
			if !yield(h.GetName(), h.GetValue()) {
				return
			}
		}
	}
}
