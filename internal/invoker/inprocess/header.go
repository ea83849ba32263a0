package inprocess

import (
	"iter"

	"github.com/perdure/perdure/internal/header"
)

func (d *durable) Headers() iter.Seq2[string, string]     { return header.All(d.attempt.Headers) }
func (t *transaction) Headers() iter.Seq2[string, string] { return header.All(t.attempt.Headers) }
func (r *read) Headers() iter.Seq2[string, string]        { return header.All(r.read.Headers) }

func (d *durable) Replaying() bool { return !d.live.Load() }

// Replaying is never true without a journal.
func (t *transaction) Replaying() bool { return false }

func (r *read) Replaying() bool { return false }
