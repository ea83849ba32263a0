package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// RestateVersion is the version of @restatedev/restate-server that is measured.
const RestateVersion = "1.7.12"

// prepareTimeout bounds one download or build.
const prepareTimeout = 5 * time.Minute

// ModuleRoot is the directory of the Perdure module that the working directory belongs to.
func ModuleRoot(ctx context.Context) (string, error) {
	out, err := run(ctx, "", "go", "list", "-m", "-f", "{{.Path}} {{.Dir}}", "github.com/perdure/perdure")
	if err != nil {
		return "", fmt.Errorf("run this from the Perdure checkout: %w", err)
	}
	_, dir, _ := strings.Cut(strings.TrimSpace(out), " ")
	return dir, nil
}

// BuildPerdure builds the node that serves the benchmark's handlers, from the checkout at root into dir.
func BuildPerdure(ctx context.Context, root, dir string) (Perdure, error) {
	binary := filepath.Join(dir, "benchnode")
	_, err := run(ctx, root, "go", "build", "-o", binary, "./bench/cmd/benchnode")
	return Perdure{Binary: binary}, err
}

// BuildRestate fetches Restate's server with npm into cache, unless it is there, and builds the module bench/restate of
// the checkout at root into dir.
func BuildRestate(ctx context.Context, root, cache, dir string) (server, service string, err error) {
	if server, err = fetchRestate(ctx, cache); err != nil {
		return "", "", err
	}
	service = filepath.Join(dir, "restate-service")
	_, err = run(ctx, filepath.Join(root, "bench", "restate"), "go", "build", "-o", service, ".")
	return server, service, err
}

func fetchRestate(ctx context.Context, cache string) (string, error) {
	platform := map[string]string{"amd64": "linux-x64", "arm64": "linux-arm64"}[runtime.GOARCH]
	if platform == "" {
		return "", fmt.Errorf("restate-server has no build for %s", runtime.GOARCH)
	}
	home := filepath.Join(cache, "restate-server-"+RestateVersion)
	binary := filepath.Join("node_modules", "@restatedev", "restate-server-"+platform, "bin", "restate-server")
	if _, err := os.Stat(filepath.Join(home, binary)); err == nil {
		return checkRestate(ctx, filepath.Join(home, binary))
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return "", errors.New("npm is not installed")
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	// Installed aside and renamed, so that an interrupted download is never taken for a whole one.
	fresh, err := os.MkdirTemp(cache, "restate-server-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	// Install scripts are off: the package needs none, and one of its dependencies reports the installation to a third party.
	_, err = run(ctx, fresh, "npm", "install", "--prefix", fresh, "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error",
		"@restatedev/restate-server@"+RestateVersion)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(fresh, binary)); err != nil {
		return "", fmt.Errorf("npm installed no server for %s", platform)
	}
	if err := os.RemoveAll(home); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, home); err != nil {
		return "", err
	}
	return checkRestate(ctx, filepath.Join(home, binary))
}

func checkRestate(ctx context.Context, binary string) (string, error) {
	out, err := run(ctx, "", binary, "--version")
	if err == nil && !strings.Contains(out, RestateVersion) {
		err = fmt.Errorf("%s says it is %q, want %s", binary, strings.TrimSpace(out), RestateVersion)
	}
	return binary, err
}

// run runs a command to its end and returns what it printed; the error has the end of it.
func run(ctx context.Context, dir string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOWORK=off")
	// In a group of its own, so that a timeout also ends what npm or go started.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = time.Second
	out, err := command.CombinedOutput()
	if err != nil {
		text := strings.TrimSpace(string(out))
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv[:min(3, len(argv))], " "), err, text[max(0, len(text)-600):])
	}
	return string(out), nil
}
