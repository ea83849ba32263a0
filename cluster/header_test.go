package cluster_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// heard are the headers of the handler that ctx is of.
func heard(ctx context.Context) string {
	var all []string
	for name, value := range actor.HeadersOf(ctx) {
		all = append(all, name+"="+value)
	}
	return strings.Join(all, " ")
}

// TestHeaders: a handler of each mode sees what its caller gave, in every attempt, and what it calls
// sees only what it gives on.
func TestHeaders(t *testing.T) {
	for name, opts := range flowWays() {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(s *stage) {
				t := s.t
				ask := s.on("ask", func(ctx actor.Context) (string, error) { return heard(ctx), nil })
				asked := func(m *actor.MethodDesc, key string, opts ...actor.CallOption) string {
					t.Helper()
					got, err := s.invoke(t.Context(), m, key, ask, opts...)
					if err != nil {
						t.Error(err)
					}
					return got
				}
				team, id := actor.Header("X-Team", "blue"), actor.Header("x-request-id", "7")
				for _, m := range []*actor.MethodDesc{s.things.Methods[transact], s.things.Methods[look], s.things.Methods[keep], s.batches.Methods[keep], s.batches.Methods[transact], s.flows.Methods[flowRun], s.flows.Methods[flowLook]} {
					key := "k"
					if m.KeyField == 0 {
						key = ""
					}
					if got := asked(m, key, team, id); got != "x-request-id=7 x-team=blue" {
						t.Errorf("%s hears %q", m.FullName(), got)
					}
					if m.Mode == actor.ModeRun {
						continue // It ran.
					}
					if got := asked(m, key); got != "" {
						t.Errorf("%s hears %q without any", m.FullName(), got)
					}
				}
				if got := asked(s.things.Methods[transact], "k", team, actor.Header("x-team", "red"), id, actor.Header("X-Request-Id", "")); got != "x-team=red" {
					t.Errorf("of two with one name, and an empty one: %q", got)
				}

				// Calls, sends and reads of handlers.
				pass := func(ctx actor.Context) (string, error) {
					with := actor.WithCallOptions(actor.WithCallOptions(ctx, actor.Header("x-team", actor.HeaderOf(ctx, "X-TEAM"))), actor.Header("x-hop", "1"))
					derived, cancel := context.WithCancel(with)
					defer cancel()
					var all []string
					for _, call := range []func() (string, error){
						func() (string, error) { return s.do(ctx, "b", ask) },
						func() (string, error) { return s.do(ctx, "b", ask, actor.Header("x-own", "2")) },
						func() (string, error) { return s.do(with, "b", ask) },
						func() (string, error) { return s.do(derived, "c", ask, actor.Header("x-hop", "2")) },
						func() (string, error) { return s.invoke(with, s.things.Methods[look], "d", ask) },
					} {
						got, err := call()
						if err != nil {
							return "", err
						}
						all = append(all, "["+got+"]")
					}
					return strings.Join(all, ""), nil
				}
				s.on("pass", pass)
				const want = "[][x-own=2][x-hop=1 x-team=blue][x-hop=2 x-team=blue][x-hop=1 x-team=blue]"
				for _, m := range []*actor.MethodDesc{s.things.Methods[transact], s.things.Methods[keep]} {
					if got, err := s.invoke(t.Context(), m, "a", "pass", team); err != nil || got != want {
						t.Errorf("%s: %q, %v, want %q", m.Name, got, err, want)
					}
				}
				sends := s.on("sends", func(ctx actor.Context) (string, error) {
					sent, err := s.send(actor.WithCallOptions(ctx, team), s.batches.Methods[keep], "", ask, actor.Delay(time.Hour), id)
					if err != nil {
						return "", err
					}
					return sent.ID(), nil
				})
				got, err := s.do(t.Context(), "a", sends)
				s.must(got, err)
				if got, err := s.attach(actor.Attach[*apipb.Mixin](s.client, got)); err != nil || got != "x-request-id=7 x-team=blue" {
					t.Errorf("what was sent hears %q, %v", got, err)
				}
				_, err = s.do(t.Context(), "a", ask, actor.Header("Authorization", "s3cret"))
				s.refused(err, actor.InvalidArgument, "authorization", "secret")
				secret := s.fn(func(ctx actor.Context) error { // In a handler too.
					_, err := s.do(ctx, "b", ask, actor.Header("x-session-token", "s3cret"))
					return err
				})
				_, err = s.do(t.Context(), "a", secret)
				s.refused(err, actor.InvalidArgument, "x-session-token", "secret")
			}, opts...)
		})
	}
}

// TestHeadersOfLaterAttempts: an attempt that follows a failure, a wait or a continue as new, a restart and
// a Run's closure see what the first one saw; the first call's are those of its idempotency key.
func TestHeadersOfLaterAttempts(t *testing.T) {
	inMemory(t, func(s *stage) {
		t := s.t
		failed := false
		s.on("again", func(ctx actor.Context) (string, error) {
			if !failed {
				failed = true
				return "", errors.New("a trifle")
			}
			if err := actor.Sleep(ctx, time.Hour); err != nil {
				return "", err
			}
			inside, err := actor.Run(ctx, "ask", func(ctx context.Context) (string, error) { return heard(ctx), nil })
			if err != nil {
				return "", err
			}
			return heard(ctx) + ", " + inside, nil
		})
		s.on("anew", func(ctx actor.Context) (string, error) { return "", actor.ContinueAsNew(&apipb.Mixin{Root: "again"}) })
		sent, err := s.send(t.Context(), s.batches.Methods[keep], "", "anew", actor.Header("x-team", "blue"), actor.IdempotencyKey("one"))
		s.must(sent, err)
		_, err = s.send(t.Context(), s.batches.Methods[keep], "", "anew", actor.Header("x-team", "red"), actor.IdempotencyKey("one"))
		s.must(nil, err)
		if got, err := s.attach(sent); err != nil || got != "x-team=blue, x-team=blue" {
			t.Errorf("later attempts hear %q, %v", got, err)
		}
		restarted := &adminv1.RestartInvocationResponse{}
		if text := s.admin("RestartInvocation", &adminv1.RestartInvocationRequest{InvocationId: sent.ID()}, restarted); text != "" {
			t.Fatal(text)
		}
		id := restarted.GetInvocationId()
		if got, err := s.attach(actor.Attach[*apipb.Mixin](s.client, id)); err != nil || got != "x-team=blue, x-team=blue" {
			t.Errorf("one that was restarted hears %q, %v", got, err)
		}
		shown := s.look(id).GetInvocation().GetHeaders()
		if len(shown) != 1 || shown["x-team"] != "blue" {
			t.Errorf("operators see %v", shown)
		}
	}, cluster.WithInactivityTimeout(time.Nanosecond))
}

// TestHeadersOutliveRestarts: what is kept is kept on disk, and no secret is.
func TestHeadersOutliveRestarts(t *testing.T) {
	dir := t.TempDir()
	open := func() *stage {
		// Before the node starts, for with it the handler does.
		return newStageWith(t, func(s *stage) {
			s.on("wait", func(ctx actor.Context) (string, error) {
				_, err := actor.InboxOf[*apipb.Mixin](ctx, "HSIGNAL").Receive(ctx)
				return heard(ctx), err
			})
		}, cluster.WithDataDir(dir), cluster.WithHeaders("X-Request-Id", "x-acme-*"))
	}
	s := open()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/stage.v1.FlowService/HRUN", strings.NewReader(`{"name":"w","root":"wait"}`))
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Perdure-Send": "1", "X-Request-Id": "r-17", "X-Acme-Team": "team-blue",
		"Accept-Language": "de-CH", "Perdure-Headers": "accept-language",
		"Authorization": "Bearer s3cret-1", "Cookie": "sid=s3cret-2", "X-Acme-Token": "s3cret-3", "X-Api-Key": "s3cret-4", "X-Other": "other-5",
	} {
		request.Header.Set(name, value)
	}
	response := httptest.NewRecorder()
	s.node.Handler().ServeHTTP(response, request)
	if response.Code != http.StatusOK {
		t.Fatal(response.Code, response.Body)
	}
	stopNode(t, s.node)

	found := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, text := range []string{"r-17", "team-blue", "de-CH", "s3cret", "other-5"} {
			found[text] = found[text] || strings.Contains(string(data), text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for text, is := range found {
		if kept := !slices.Contains([]string{"s3cret", "other-5"}, text); is != kept {
			t.Errorf("%s on disk: %v, want %v", text, is, kept)
		}
	}

	s = open()
	defer stopNode(t, s.node)
	s.must(s.invoke(t.Context(), s.flows.Methods[flowTell], "w", "go"))
	got, err := actor.AttachKey[*apipb.Mixin](t.Context(), s.client, s.flows.Methods[flowRun], "w")
	if err != nil || got.GetRoot() != "accept-language=de-CH x-acme-team=team-blue x-request-id=r-17" {
		t.Errorf("after a restart the handler hears %q, %v", got.GetRoot(), err)
	}
}

// TestHeadersOverTheNetwork: a Go client's headers arrive, whatever the node keeps by itself.
func TestHeadersOverTheNetwork(t *testing.T) {
	node := newNode(t, t.TempDir())
	m := &actor.MethodDesc{
		Service: "t.v1.S", Name: "H", Kind: actor.KindService, Mode: actor.ModeTransaction,
		NewRequest:  func() proto.Message { return new(apipb.Mixin) },
		NewResponse: func() proto.Message { return new(apipb.Mixin) },
		Handle: func(ctx actor.Context, _ any, _ proto.Message) (proto.Message, error) {
			return &apipb.Mixin{Root: heard(ctx)}, nil
		},
	}
	node.RegisterService(&actor.ServiceDesc{Name: "t.v1.S", Kind: actor.KindService, Methods: []*actor.MethodDesc{m}}, struct{}{})
	startNode(t, node)
	defer stopNode(t, node)
	client := cluster.Dial(http.DefaultClient, node.URL())
	got, err := actor.Invoke[*apipb.Mixin](t.Context(), client, m, "", &apipb.Mixin{}, []actor.CallOption{actor.Header("X-Team", "blue"), actor.Header("user-agent", "mine")})
	if err != nil || got.GetRoot() != "user-agent=mine x-team=blue" {
		t.Errorf("it hears %q, %v", got.GetRoot(), err)
	}
	_, err = actor.Invoke[*apipb.Mixin](t.Context(), client, m, "", &apipb.Mixin{}, []actor.CallOption{actor.Header("Cookie", "s3cret")})
	if actor.CodeOf(err) != actor.InvalidArgument || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a cookie: %v", err)
	}
}
