//go:build !amd64 && !arm64

package inprocess

import "runtime"

// currentGoroutine tells this goroutine from all others: its number, read off a stack trace.
func currentGoroutine() uintptr {
	var text [40]byte
	length := runtime.Stack(text[:], false)
	var id uintptr
	for _, digit := range text[len("goroutine "):length] {
		if digit < '0' || digit > '9' {
			break
		}
		id = id*10 + uintptr(digit-'0')
	}
	return id
}
