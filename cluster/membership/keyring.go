package membership

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/memberlist"

	"github.com/perdure/perdure/internal/telemetry"
)

// parseKeys reads a keyring file. Errors never show a key.
func parseKeys(path string, content []byte) ([][]byte, error) {
	var keys [][]byte
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("keyring %s, line %d: it is not base64: make a key with: head -c 32 /dev/urandom | base64", path, number)
		}
		if err := memberlist.ValidateKey(key); err != nil {
			return nil, fmt.Errorf("keyring %s, line %d: the key is %d bytes; it must be 16, 24 or 32", path, number, len(key))
		}
		if slices.ContainsFunc(keys, func(other []byte) bool { return bytes.Equal(other, key) }) {
			return nil, fmt.Errorf("keyring %s, line %d: the key is there twice", path, number)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("keyring %s has no key: make one with: head -c 32 /dev/urandom | base64", path)
	}
	return keys, nil
}

// keyring is the library's with the file it comes from. It is used by one goroutine.
type keyring struct {
	path    string
	content []byte
	ring    *memberlist.Keyring
	failed  string // the last error, which is logged once
}

func loadKeyring(path string) (*keyring, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("membership: keyring: %w", err)
	}
	keys, err := parseKeys(path, content)
	if err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("membership: keyring %s: %w", path, err)
	}
	return &keyring{path: path, content: content, ring: ring}, nil
}

// reload takes over what has changed in the file. A file that can't be used leaves the keys as
// they are.
func (m *Membership) reloadKeyring() {
	k := m.keyring
	content, err := os.ReadFile(k.path)
	if err == nil && bytes.Equal(content, k.content) {
		return
	}
	var keys [][]byte
	if err == nil {
		keys, err = parseKeys(k.path, content)
	}
	if err == nil {
		err = k.replace(keys)
	}
	if err != nil {
		if k.failed != err.Error() {
			k.failed = err.Error()
			m.config.Logger.Error("the keyring cannot be used; the old keys stay", telemetry.KeyPath, k.path, telemetry.KeyError, err)
		}
		return
	}
	k.content, k.failed = content, ""
	m.config.Logger.Info("keyring reloaded", telemetry.KeyPath, k.path)
}

// replace makes keys those of the ring. There is no moment without the new or without the old
// primary key.
func (k *keyring) replace(keys [][]byte) error {
	for _, key := range keys {
		if err := k.ring.AddKey(key); err != nil {
			return err
		}
	}
	if err := k.ring.UseKey(keys[0]); err != nil {
		return err
	}
	for _, old := range slices.Clone(k.ring.GetKeys()) {
		if !slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, old) }) {
			if err := k.ring.RemoveKey(old); err != nil {
				return err
			}
		}
	}
	return nil
}
