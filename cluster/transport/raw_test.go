package transport_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	. "github.com/perdure/perdure/cluster/transport/transporttest"
	transportv1 "github.com/perdure/perdure/internal/transport/v1"
)

// raw speaks the protocol to n without a Transport.
func raw(t *testing.T, n *Node, procedure string) connect.ClientStream {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	carrier := &http.Transport{Protocols: protocols}
	t.Cleanup(carrier.CloseIdleConnections)
	client := connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: carrier}, "http://"+n.Address))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := client.CallClientStream(ctx, connect.Spec{StreamType: connect.StreamTypeBidi, Procedure: "/perdure.transport.v1.TransportService/" + procedure})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	return stream
}

func send(t *testing.T, stream connect.ClientStream, message any) {
	t.Helper()
	if err := stream.Send(message); err != nil {
		t.Fatal(err)
	}
}

// TestNewestStreamOfFramesHolds: what was written to an earlier one comes too late to be in order.
func TestNewestStreamOfFramesHolds(t *testing.T) {
	n := Start(t, tcp, 2, nil)
	open := func() connect.ClientStream {
		stream := raw(t, n, "Frames")
		send(t, stream, &transportv1.FramesRequest{Hello: &transportv1.Hello{ClusterId: "c", From: 9, To: 2, MinVersion: 1, MaxVersion: 1}})
		var welcome transportv1.FramesResponse
		if err := stream.Receive(&welcome); err != nil || welcome.GetWelcome().GetNode() != 2 || welcome.Welcome.Version != 1 || welcome.Welcome.Build != "build 2" {
			t.Fatalf("welcome %v: %v", &welcome, err)
		}
		return stream
	}
	frame := func(text string) *transportv1.FramesRequest {
		return &transportv1.FramesRequest{Frames: []*transportv1.Frame{{Kind: 1, Data: []byte(text)}}}
	}
	first := open()
	send(t, first, frame("a"))
	Eventually(t, "the first frame", func() bool { return len(n.Frames()) == 1 })
	second := open()
	send(t, first, frame("late"))
	var last transportv1.FramesResponse
	if err := first.Receive(&last); connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("the earlier stream got %v: %v", &last, err)
	}
	send(t, second, frame("b"))
	Eventually(t, "the second frame", func() bool { return len(n.Frames()) >= 2 })
	if got := strings.Join(n.Frames(), " "); got != "9/1/a 9/1/b" {
		t.Errorf("frames %s", got)
	}
}

// TestHelloIsAwaitedForAWhile: a stream without one ends.
func TestHelloIsAwaitedForAWhile(t *testing.T) {
	n := Start(t, tcp, 2, func(n *Node) { n.Config.Timing.Hello = 50 * time.Millisecond })
	for _, procedure := range []string{"Frames", "Stream"} {
		stream := raw(t, n, procedure)
		if err := stream.SendHeaders(); err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		var response transportv1.FramesResponse
		if err := stream.Receive(&response); err == nil || err == io.EOF {
			t.Errorf("%s without a hello: %v %v", procedure, &response, err)
		}
		if took := time.Since(started); took > 10*time.Second {
			t.Errorf("%s without a hello lasted %v", procedure, took)
		}
	}
	// One without any is refused like one of another cluster.
	stream := raw(t, n, "Frames")
	send(t, stream, &transportv1.FramesRequest{})
	var response transportv1.FramesResponse
	if err := stream.Receive(&response); err != nil || response.GetRefusal().GetReason() != transportv1.Reason_REASON_NOT_MEMBER {
		t.Errorf("an empty hello: %v %v", &response, err)
	}
}

// TestOldConnectionsAreCutOff: of peers that don't replace theirs.
func TestOldConnectionsAreCutOff(t *testing.T) {
	n := Start(t, tcp, 2, func(n *Node) { n.Config.Timing.ConnectionAge = 20 * time.Millisecond })
	hello := &transportv1.Hello{ClusterId: "c", From: 9, To: 2, MinVersion: 1, MaxVersion: 1}
	stream := raw(t, n, "Frames")
	send(t, stream, &transportv1.FramesRequest{Hello: hello})
	var response transportv1.FramesResponse
	if err := stream.Receive(&response); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		var last transportv1.FramesResponse
		ended <- stream.Receive(&last)
	}()
	Eventually(t, "the stream of frames ends", func() bool {
		_ = stream.Send(&transportv1.FramesRequest{Frames: []*transportv1.Frame{{Kind: 1}}})
		select {
		case err := <-ended:
			if connect.CodeOf(err) != connect.CodeAborted {
				t.Errorf("it ended with %v", err)
			}
			return true
		default:
			return false
		}
	})

	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	carrier := &http.Transport{Protocols: protocols}
	defer carrier.CloseIdleConnections()
	client := connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: carrier}, "http://"+n.Address))
	connections := 0
	Eventually(t, "calls take a third connection", func() bool {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
			if !got.Reused {
				connections++
			}
		}})
		var response transportv1.CallResponse
		if err := client.CallUnary(ctx, connect.Spec{Procedure: "/perdure.transport.v1.TransportService/Call"}, &transportv1.CallRequest{Hello: hello, Method: "m"}, &response); err != nil || string(response.Response) != "9 m " {
			t.Fatalf("a call: %v %v", &response, err)
		}
		return connections == 3
	})
}
