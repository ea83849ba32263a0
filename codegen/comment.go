package codegen

import (
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/compiler/protogen"
)

// Longest line of a comment, indentation and "// " not counted. Lines that the author kept
// shorter stay as they are.
const maxCommentColumns = 96

// comment prints paragraphs of text as one Go comment.
func comment(g *protogen.GeneratedFile, indent string, paragraphs ...string) {
	first := true
	for _, paragraph := range paragraphs {
		paragraph = strings.TrimSpace(paragraph)
		if paragraph == "" {
			continue
		}
		if !first {
			g.P(indent, "//")
		}
		first = false
		for line := range strings.SplitSeq(paragraph, "\n") {
			for _, part := range wrap(strings.TrimRight(line, " \t\r")) {
				g.P(strings.TrimRight(indent+"// "+part, " "))
			}
		}
	}
}

// protoComment is the author's comment, without the one space that follows "//" in each line.
func protoComment(comments protogen.CommentSet) string {
	lines := strings.Split(strings.TrimRight(string(comments.Leading), "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, " ")
	}
	return strings.Join(lines, "\n")
}

// deprecation is the paragraph by which Go tools know a deprecated name. Empty if the author has
// written one.
func deprecation(deprecated bool, text, file string) string {
	if !deprecated || strings.Contains(text, "Deprecated:") {
		return ""
	}
	return "Deprecated: Marked as deprecated in " + file + "."
}

// wrap breaks a line that is too long between words. Indented lines are code: they are left
// alone.
func wrap(line string) []string {
	if utf8.RuneCountInString(line) <= maxCommentColumns || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
		return []string{line}
	}
	var lines []string
	current := ""
	for word := range strings.FieldsSeq(line) {
		switch {
		case current == "":
			current = word
		case utf8.RuneCountInString(current)+1+utf8.RuneCountInString(word) > maxCommentColumns:
			lines = append(lines, current)
			current = word
		default:
			current += " " + word
		}
	}
	return append(lines, current)
}
