package ingress

import (
	"connectrpc.com/connect/v2"

	"github.com/perdure/perdure/internal/header"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// readHeaders are the headers of a request that its handler sees.
func readHeaders(sent *connect.Header, keep *header.Rule) ([]*recordv1.Header, error) {
	kept, err := header.OfRequest(sent, keep, sent.Values(HeaderHeaders))
	if err != nil {
		return nil, invalid("%v", err)
	}
	return kept, nil
}

// headersOf are those that a call of this process gives.
func headersOf(given map[string]string) ([]*recordv1.Header, error) {
	kept, err := header.OfCall(given)
	if err != nil {
		return nil, invalid("%v", err)
	}
	return kept, nil
}
