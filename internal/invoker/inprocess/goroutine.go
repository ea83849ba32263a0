package inprocess

import "runtime"

// goroutineID reads the id of this goroutine off its stack trace: Go offers no other way. It
// serves to name a mistake, never to look something up.
func goroutineID() uint64 {
	var text [40]byte
	length := runtime.Stack(text[:], false)
	var id uint64
	for _, digit := range text[len("goroutine "):length] {
		if digit < '0' || digit > '9' {
			break
		}
		id = id*10 + uint64(digit-'0')
	}
	return id
}
