package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/perdure/perdure/storage"
)

// A store's directory holds LOCK, FORMAT, HIGHWATER and badger/, Badger's own directory.
// Ours are outside of it, so that everything can be checked before Badger starts to repair.
const (
	formatFile    = "FORMAT"
	lockFile      = "LOCK"
	formatVersion = 1
)

func formatText(version int) string { return fmt.Sprintf("perdure store %d\n", version) }

func badgerDir(dir string) string { return filepath.Join(dir, "badger") }

// openDirectory creates, locks and checks dir. The returned lock must be closed.
func openDirectory(dir string) (lock *os.File, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err = lockDirectory(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, err
	}
	if err := checkFormat(dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// checkFormat refuses a directory of another version and writes the files of a new one.
func checkFormat(dir string) error {
	path := filepath.Join(dir, formatFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createFormat(dir)
	}
	if err != nil {
		return err
	}
	var version int
	if _, err := fmt.Sscanf(string(data), "perdure store %d", &version); err != nil || string(data) != formatText(version) {
		return fmt.Errorf("%w: %s holds %.40q, want \"perdure store %d\": restore the directory from a backup", storage.ErrDamaged, path, data, formatVersion)
	}
	if version > formatVersion {
		return fmt.Errorf("%s is version %d, this program reads up to version %d: run a newer program", path, version, formatVersion)
	}
	if version < 1 {
		return fmt.Errorf("%w: %s is version %d", storage.ErrDamaged, path, version)
	}
	return nil
}

// createFormat writes HIGHWATER, then FORMAT: a directory with FORMAT is complete, one without
// has never held data.
func createFormat(dir string) error {
	entries, err := os.ReadDir(badgerDir(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: %s has no %s file but %s holds %d files: restore it from a backup or choose an empty directory",
			storage.ErrDamaged, dir, formatFile, badgerDir(dir), len(entries))
	}
	highWater, err := os.OpenFile(filepath.Join(dir, highWaterFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(writeHighWater(highWater, 0), highWater.Close()); err != nil {
		return err
	}
	path := filepath.Join(dir, formatFile)
	if err := writeSynced(path+".new", []byte(formatText(formatVersion))); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return errors.Join(syncDirectory(dir), syncDirectory(filepath.Dir(dir)))
}

func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

func syncDirectory(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
