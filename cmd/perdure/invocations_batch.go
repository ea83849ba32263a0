package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// batchPage is how many invocations one request deals with: few enough that a person who
// interrupts it hears at once where it stands.
const batchPage = 200

// batch is one operation on all invocations that match. Where it stands is in its token alone:
// the node keeps nothing of it, and each operation may be done twice.
type batch struct {
	c      *cli
	op     *operation
	filter *filterFlags
	dryRun bool
	yes    bool
	goOn   string
}

func (c *cli) batchFlags(command *cobra.Command, op *operation) *batch {
	b := &batch{c: c, op: op, filter: c.filterFlags(command)}
	flags := command.Flags()
	flags.BoolVar(&b.dryRun, "dry-run", false, "only count those that match")
	flags.BoolVar(&b.yes, "yes", false, "do not ask before it is done to all that match")
	flags.StringVar(&b.goOn, "go-on", "", "go on where it was interrupted: the `token` it printed")
	must(command.RegisterFlagCompletionFunc("go-on", cobra.NoFileCompletions))
	return b
}

// given is the first flag of a batch that is set.
func (b *batch) given(cmd *cobra.Command) string {
	for _, name := range append(filterNames, "dry-run", "yes", "go-on") {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// progress is how far a batch is.
type progress struct {
	Matched   uint64         `json:"matched"`
	Done      uint64         `json:"done"`
	Failed    uint64         `json:"failed"`
	Scanned   uint64         `json:"scanned"`
	DryRun    bool           `json:"dryRun,omitempty"`
	Failures  []batchFailure `json:"failures,omitempty"`
	GoOn      string         `json:"goOn,omitempty"`
	lastShown time.Time
}

type batchFailure struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

func (b *batch) run(cmd *cobra.Command) error {
	began := time.Now()
	which, err := b.filter.read(began)
	if err != nil {
		return err
	}
	// Fixed for the whole batch, and for all that go on with it.
	if which.CreatedBefore == nil {
		which.CreatedBefore = timestamppb.New(began)
	}
	request := &adminv1.BatchInvocationsRequest{
		Operation: b.op.batch, Invocations: which, DryRun: b.dryRun, RequestId: strconv.FormatInt(began.UnixNano(), 36) + "-" + strconv.Itoa(os.Getpid()),
		ResumeDeployment: b.op.on,
	}
	if b.goOn != "" {
		if err := parseGoOn(b.goOn, request); err != nil {
			return err
		}
	}
	which.PageSize = batchPage
	if !b.dryRun && !b.yes {
		if err := b.confirm(cmd.Context(), request); err != nil {
			return err
		}
	}
	sum := &progress{DryRun: b.dryRun, lastShown: began}
	for {
		page := &adminv1.BatchInvocationsResponse{}
		if err := b.c.admin(cmd.Context(), "BatchInvocations", request, page); err != nil {
			return b.interrupted(cmd, request, sum, err)
		}
		sum.add(page)
		for _, failure := range page.GetFailures() {
			b.c.note("perdure: %s %s: %s", b.op.verb, failure.GetInvocationId(), errorName(failure.GetError()))
		}
		which.PageToken = page.GetNextPageToken()
		if which.PageToken == "" {
			return b.finish(sum)
		}
		if time.Since(sum.lastShown) >= time.Second {
			sum.lastShown = time.Now()
			b.c.note("… %s", sum.text(b.op))
		}
	}
}

func (p *progress) add(page *adminv1.BatchInvocationsResponse) {
	p.Matched += page.GetMatched()
	p.Done += page.GetDone()
	p.Failed += page.GetFailed()
	p.Scanned += page.GetScanned()
	for _, failure := range page.GetFailures() {
		if len(p.Failures) < batchPage {
			p.Failures = append(p.Failures, batchFailure{failure.GetInvocationId(), errorName(failure.GetError())})
		}
	}
}

func (p *progress) text(op *operation) string {
	if p.DryRun {
		return fmt.Sprintf("%s match of %s looked at", count(int(p.Matched), "invocation"), count(int(p.Scanned), "invocation"))
	}
	text := fmt.Sprintf("%s %s of %d that match", count(int(p.Done), "invocation"), op.done, p.Matched)
	if p.Failed > 0 {
		text += fmt.Sprintf(", %d could not be", p.Failed)
	}
	return text + fmt.Sprintf("; %s looked at", count(int(p.Scanned), "invocation"))
}

// confirm counts what matches and asks.
func (b *batch) confirm(ctx context.Context, request *adminv1.BatchInvocationsRequest) error {
	which := request.GetInvocations()
	from := which.GetPageToken()
	defer func() { request.DryRun, which.PageToken = false, from }()
	request.DryRun = true
	sum := &progress{DryRun: true}
	for more := true; more; more = which.PageToken != "" {
		page := &adminv1.BatchInvocationsResponse{}
		if err := b.c.admin(ctx, "BatchInvocations", request, page); err != nil {
			return err
		}
		sum.add(page)
		which.PageToken = page.GetNextPageToken()
	}
	if sum.Matched == 0 {
		b.c.note("no invocations match")
		return silentOK{}
	}
	fmt.Fprintf(b.c.err, "%s %s? [y/N] ", b.op.verb, count(int(sum.Matched), "invocation"))
	answer, err := bufio.NewReader(b.c.in).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	case "":
		if err != nil {
			b.c.note("")
			return usagef("there is nobody to ask: add --yes, or --dry-run to see how many match")
		}
	}
	b.c.note("nothing was done")
	return silentOK{}
}

// silentOK ends the command with success; all has been said.
type silentOK struct{}

func (silentOK) Error() string { return "done" }

func (b *batch) finish(sum *progress) error {
	if b.c.output == "json" {
		if err := b.c.printValue(sum); err != nil {
			return err
		}
	} else {
		b.c.printf("%s\n", sum.text(b.op))
	}
	if sum.Failed > 0 {
		return silentError{}
	}
	return nil
}

// interrupted says how to go on.
func (b *batch) interrupted(cmd *cobra.Command, request *adminv1.BatchInvocationsRequest, sum *progress, err error) error {
	if cmd.Context().Err() != nil {
		err = errors.New("interrupted")
	}
	sum.GoOn = goOnToken(request)
	if b.c.output == "json" {
		if printErr := b.c.printValue(sum); printErr != nil {
			return printErr
		}
		return err
	}
	b.c.note("… %s", sum.text(b.op))
	b.c.note("go on with: %s", b.commandLine(cmd, sum.GoOn))
	return err
}

// commandLine is the command with the same filter, and a token.
func (b *batch) commandLine(cmd *cobra.Command, token string) string {
	words := []string{cmd.CommandPath()}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "go-on", "older-than", "newer-than": // The token has what they came to.
		case "header": // A credential must not be shown.
		case "yes", "dry-run":
			words = append(words, "--"+f.Name)
		case "status":
			words = append(words, "--status", strings.Join(b.filter.status, ","))
		default:
			words = append(words, "--"+f.Name, quoted(f.Value.String()))
		}
	})
	return strings.Join(append(words, "--go-on", token), " ")
}

// quoted is text as one word of a shell.
func quoted(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,@=") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// goOnToken holds what later pages of a batch need beside the filter: the bounds of creation, the
// request id, and the place.
func goOnToken(request *adminv1.BatchInvocationsRequest) string {
	which := request.GetInvocations()
	after := int64(0)
	if which.GetCreatedAfter() != nil {
		after = which.GetCreatedAfter().AsTime().UnixMilli()
	}
	return fmt.Sprintf("%d.%d.%s.%s", which.GetCreatedBefore().AsTime().UnixMilli(), after, request.GetRequestId(), cmp.Or(which.GetPageToken(), "start"))
}

func parseGoOn(token string, request *adminv1.BatchInvocationsRequest) error {
	bad := usagef("--go-on is %q, which is not a token that this command printed", token)
	parts := strings.Split(token, ".")
	if len(parts) != 4 {
		return bad
	}
	before, err := strconv.ParseInt(parts[0], 10, 64)
	after, afterErr := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || afterErr != nil || parts[2] == "" || parts[3] == "" {
		return bad
	}
	which := request.GetInvocations()
	which.CreatedBefore = timestamppb.New(time.UnixMilli(before))
	if after != 0 {
		which.CreatedAfter = timestamppb.New(time.UnixMilli(after))
	}
	request.RequestId = parts[2]
	if parts[3] != "start" {
		which.PageToken = parts[3]
	}
	return nil
}
