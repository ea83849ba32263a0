package codegen

import (
	"reflect"
	"testing"

	"github.com/perdure/perdure/actor"
)

// TestContextMethodsAreReserved fails when actor.Context gets a method that a table, a promise or
// a signal could still be called like.
func TestContextMethodsAreReserved(t *testing.T) {
	context := reflect.TypeFor[actor.Context]()
	for i := range context.NumMethod() {
		if method := context.Method(i); method.IsExported() && !contextMethods[method.Name] {
			t.Errorf("contextMethods lacks %s", method.Name)
		}
	}
}

func TestWrap(t *testing.T) {
	long := "words of a line that has exactly ninety-six columns, counted with care and one by one, no moreee"
	if len(long) != maxCommentColumns {
		t.Fatalf("the line has %d columns", len(long))
	}
	if got := wrap(long); len(got) != 1 || got[0] != long {
		t.Errorf("a line of %d columns became %q", maxCommentColumns, got)
	}
	if got := wrap(long + "e"); len(got) != 2 || got[1] != "moreeee" {
		t.Errorf("a line of %d columns became %q", maxCommentColumns+1, got)
	}
	if got := wrap("\t" + long + long); len(got) != 1 {
		t.Errorf("indented code was wrapped: %q", got)
	}
}

func TestShortName(t *testing.T) {
	for name, want := range map[string]string{
		"AccountService": "Account", "Service": "Service", "Counter": "Counter", "FooServices": "FooServices",
	} {
		if got := shortName(name); got != want {
			t.Errorf("shortName(%q) = %q, want %q", name, got, want)
		}
	}
}
