package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// table prints columns as wide as what is in them. text/tabwriter would count the bytes that
// make a header bold.
func (c *cli) table(indent string, header []string, rows [][]string) {
	c.tableWith(indent, header, rows, func(int) []string { return nil })
}

// tableWith prints the lines that below returns for a row under it.
func (c *cli) tableWith(indent string, header []string, rows [][]string, below func(row int) []string) {
	widths := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(printable(cell)))
		}
	}
	line := func(row []string) string {
		var out strings.Builder
		out.WriteString(indent)
		for i, cell := range row {
			cell = printable(cell)
			out.WriteString(cell)
			if i < len(row)-1 {
				out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		return strings.TrimRight(out.String(), " ")
	}
	c.printf("%s\n", c.strong(line(header)))
	for i, row := range rows {
		c.printf("%s\n", line(row))
		for _, text := range below(i) {
			c.printf("%s%*s%s\n", indent, widths[0]+2, "", printable(text))
		}
	}
}

// fields prints names beside values, leaving out empty ones.
func (c *cli) fields(indent string, pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, len(pairs[i]))
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			c.printf("%s%-*s  %s\n", indent, width, pairs[i], printable(pairs[i+1]))
		}
	}
}

func (c *cli) strong(text string) string {
	if !c.bold {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

func (c *cli) printf(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

// note is for people, beside what is printed.
func (c *cli) note(format string, args ...any) { fmt.Fprintf(c.err, format+"\n", args...) }

// printable keeps what users stored from steering the terminal or breaking lines.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(text, "�"))
}

func clip(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}

// printJSON prints text indented, whatever blanks it came with.
func (c *cli) printJSON(text []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(text), "", "  "); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	c.printf("%s\n", out.Bytes())
	return nil
}

func (c *cli) printValue(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return c.printJSON(text)
}

func (c *cli) printMessage(message proto.Message) error {
	text, err := protojson.Marshal(message)
	if err != nil {
		return err
	}
	return c.printJSON(text)
}

// instant is in the local time zone, "-" if unset.
func instant(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return at.AsTime().Local().Format("2006-01-02 15:04:05")
}

// between is "-" unless both are set.
func between(from, to *timestamppb.Timestamp) string {
	if from == nil || to == nil {
		return "-"
	}
	return short(to.AsTime().Sub(from.AsTime()))
}

// short is a duration in three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return trimUnits(d.Round(time.Second))
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// trimUnits makes "24h0m0s" "24h".
func trimUnits(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func lasting(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return trimUnits(d.AsDuration())
}

func bytesText(count uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(count), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", count)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// count is "1 row", "2 rows".
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
