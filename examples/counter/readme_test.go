package main

import (
	"os"
	"strings"
	"testing"
)

// TestREADME keeps the example that newcomers read the same as the one that runs.
func TestREADME(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"proto/counter/v1/counter.proto", "counter.go", "main.go"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(readme), strings.TrimSpace(string(source))) {
			t.Errorf("README.md does not quote examples/counter/%s as it is", name)
		}
	}
}
