package pages

// stressed is set by `make suspend`, with the linker's -X: journals are then read a few entries at
// a time. It is empty in every other build.
var stressed string

// Begin is how many entries an attempt is started with; 0 is the engine's own default.
func Begin() int {
	if stressed != "" {
		return 2
	}
	return 0
}

// windows are how many entries a page looks at first and at most.
func windows() (first, most uint32) {
	if stressed != "" {
		return 1, 3
	}
	return firstWindow, maxWindow
}
