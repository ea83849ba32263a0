package main

import (
	"context"
	"errors"
	"fmt"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// A tree is for people: beyond these nobody reads it.
const (
	treeDepth = 10
	treeNodes = 200
)

// branch is an invocation with those that it has called and sent.
type branch struct {
	// Step of the caller that made it: "#2 call". Empty at the root.
	Step   string `json:"step,omitempty"`
	ID     string `json:"id"`
	Target string `json:"target"`
	Status string `json:"status"`
	Took   string `json:"took,omitempty"`
	Error  string `json:"error,omitempty"`
	// Note says why there is nothing below it though there may be.
	Note     string    `json:"note,omitempty"`
	Children []*branch `json:"children,omitempty"`
}

// printTree prints an invocation and all below it.
func (c *cli) printTree(ctx context.Context, id string) error {
	left := treeNodes
	root, err := c.grow(ctx, id, 0, &left)
	if err != nil {
		return err
	}
	if c.output == "json" {
		return c.printValue(root)
	}
	c.printBranch(root, "", "")
	return nil
}

func (c *cli) grow(ctx context.Context, id string, depth int, left *int) (*branch, error) {
	*left--
	found, err := c.fetchInvocation(ctx, id, 10*adminPage)
	if err != nil {
		return nil, err
	}
	inv := found.GetInvocation()
	b := &branch{ID: inv.GetId(), Target: targetName(inv.GetTarget()), Status: statusName(inv.GetStatus()), Error: errorName(inv.GetError())}
	if inv.GetCompletedAt() != nil {
		b.Took = between(inv.GetCreatedAt(), inv.GetCompletedAt())
	}
	for _, entry := range found.GetJournal() {
		if kind := entry.GetKind(); kind != "call" && kind != "send" || entry.GetInvocationId() == "" {
			continue
		}
		step := fmt.Sprintf("#%d %s", entry.GetIndex(), entry.GetKind())
		if depth == treeDepth || *left <= 0 {
			b.Note = "there is more below"
			break
		}
		child, err := c.grow(ctx, entry.GetInvocationId(), depth+1, left)
		if failure, ok := errors.AsType[*nodeError](err); ok && failure.Code == "not_found" {
			child, err = c.gone(entry), nil
		}
		if err != nil {
			return nil, err
		}
		child.Step = step
		b.Children = append(b.Children, child)
	}
	if found.GetNextPageToken() != "" {
		b.Note = "its journal is longer than what was looked at"
	}
	return b, nil
}

// gone is a call whose invocation is not kept, or not there yet: the caller's journal knows how it
// ended.
func (c *cli) gone(entry *adminv1.JournalEntry) *branch {
	b := &branch{ID: entry.GetInvocationId(), Target: entry.GetName(), Status: outcome(entry, false), Note: "not kept"}
	if entry.GetKind() == "call" {
		b.Took = took(entry)
	} else {
		b.Status = "sent"
	}
	return b
}

func (c *cli) printBranch(b *branch, first, others string) {
	text := b.ID + "  " + b.Status
	if b.Step != "" {
		text = b.Step + "  " + text
	}
	text += "  " + b.Target
	for _, more := range []string{b.Took, b.Error, b.Note} {
		if more != "" && more != "-" {
			text += "  " + more
		}
	}
	c.printf("%s%s\n", first, printable(text))
	for i, child := range b.Children {
		if i == len(b.Children)-1 {
			c.printBranch(child, others+"└─ ", others+"   ")
			continue
		}
		c.printBranch(child, others+"├─ ", others+"│  ")
	}
}
