package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Problem is one thing that is wrong with a .proto file, told so that its author can mend it.
type Problem struct {
	// File is the path by which other files import it. Line and Column count from 1; they are 0
	// if the descriptor came without source positions.
	File         string
	Line, Column int
	Symbol       protoreflect.FullName
	Message      string
}

// String is "bank/v1/bank.proto:12:3: bank.v1.AccountService.Deposit: message".
func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	return fmt.Sprintf("%s: %s: %s", where, p.Symbol, p.Message)
}

// Problems is all that is wrong with one run's input. As an error it has a line for each.
type Problems []Problem

// Error is empty only if there are no problems.
func (ps Problems) Error() string {
	lines := make([]string, 0, len(ps)+1)
	switch len(ps) {
	case 0:
		return ""
	case 1:
		lines = append(lines, "1 problem:")
	default:
		lines = append(lines, fmt.Sprintf("%d problems:", len(ps)))
	}
	for _, p := range ps {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Sort orders the problems as a reader of the files comes upon them.
func (ps Problems) Sort() { slices.SortStableFunc(ps, Problem.Compare) }

// Compare orders by position.
func (p Problem) Compare(other Problem) int {
	return cmp.Or(cmp.Compare(p.File, other.File), cmp.Compare(p.Line, other.Line), cmp.Compare(p.Column, other.Column))
}

// Problemf is a problem with desc. within is the path from desc's own protobuf message, such as
// MethodDescriptorProto, to the part that is wrong: the position is that of its longest prefix
// that the compiler recorded one for.
func Problemf(desc protoreflect.Descriptor, within []int32, format string, args ...any) Problem {
	p := Problem{Symbol: desc.FullName(), Message: fmt.Sprintf(format, args...)}
	file := desc.ParentFile()
	if file == nil {
		return p
	}
	p.File = file.Path()
	locations := file.SourceLocations()
	here := locations.ByDescriptor(desc)
	if here.Path == nil {
		return p
	}
	for end := len(within); end > 0; end-- {
		inner := locations.ByPath(append(slices.Clone(here.Path), within[:end]...))
		if inner.Path != nil {
			here = inner
			break
		}
	}
	p.Line, p.Column = here.StartLine+1, here.StartColumn+1
	return p
}
