package main

import (
	"fmt"
	"os"
)

var colour = func() bool {
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}()

func paint(code, text string) string {
	if !colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func good(text string) string { return paint("1;32", text) }
func bad(text string) string  { return paint("1;31", text) }

// say prints a line of its own.
func say(format string, args ...any) {
	fmt.Println(paint("1", fmt.Sprintf(format, args...)))
}

// step prints what is being done; done prints how it went, on the same line.
func step(format string, args ...any) { fmt.Printf("  %-34s", fmt.Sprintf(format, args...)) }

func done(format string, args ...any) {
	fmt.Printf(" %s %s\n", good("✓"), fmt.Sprintf(format, args...))
}

func ordinal(n int) string {
	switch {
	case n%10 == 1 && n != 11:
		return fmt.Sprintf("%dst", n)
	case n%10 == 2 && n != 12:
		return fmt.Sprintf("%dnd", n)
	case n%10 == 3 && n != 13:
		return fmt.Sprintf("%drd", n)
	}
	return fmt.Sprintf("%dth", n)
}
