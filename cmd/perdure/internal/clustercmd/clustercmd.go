// Package clustercmd is the command "perdure cluster": it shows the nodes of a cluster and where
// partitions are, and tells it what an operator wants. It talks to any node's ClusterService.
package clustercmd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// Console is what the command needs of the program that it is part of. All of it must be set.
type Console struct {
	// Call calls an rpc of a service that every node has.
	Call func(ctx context.Context, service, rpc string, request, response proto.Message) error
	// JSON is whether messages are printed, by Print, rather than tables.
	JSON  func() bool
	Print func(message proto.Message) error
	// Terminal is whether what is printed is seen rather than kept.
	Terminal bool
	Table    func(indent string, header []string, rows [][]string)
	Fields   func(indent string, pairs ...string)
	Printf   func(format string, args ...any)
	// Note is for people, beside what is printed.
	Note func(format string, args ...any)
	// Usage is an error of the command line.
	Usage func(format string, args ...any) error
}

type command struct{ Console }

// call calls an rpc of ClusterService.
func (c command) call(ctx context.Context, rpc string, request, response proto.Message) error {
	return c.Call(ctx, "perdure.admin.v1.ClusterService", rpc, request, response)
}

// Command makes the command.
func Command(console Console) *cobra.Command {
	c := command{console}
	root := &cobra.Command{
		Use:   "cluster",
		Short: "Show the nodes of the cluster and where partitions are, and steer them",
		Long: `Show the nodes of the cluster and where partitions are, and steer them.

Any node answers for the whole cluster. NODE is the id of a node, or the beginning of one that
no other has.`,
		Example: `  perdure cluster status
  perdure cluster partitions --watch
  perdure cluster drain 5f1d`,
	}
	root.AddCommand(
		c.look("status", "Show how the cluster is: its nodes, what moves and why", c.status),
		c.look("nodes", "List the nodes", c.nodes),
		c.look("partitions", "List the partitions with who leads, votes and has a copy", c.partitions),
		c.drain(), c.remove(), c.transfer(), c.set(),
	)
	return root
}

// exactly takes arguments of these names.
func (c command) exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, given []string) error {
		switch {
		case len(given) < len(names):
			return c.Usage("%s is missing", strings.Join(names[len(given):], " and "))
		case len(given) > len(names):
			return c.Usage("%q is too much: it takes %d arguments", given[len(names)], len(names))
		}
		return nil
	}
}

func (c command) get(ctx context.Context) (*adminv1.GetClusterResponse, error) {
	cluster := &adminv1.GetClusterResponse{}
	return cluster, c.call(ctx, "GetCluster", &adminv1.GetClusterRequest{}, cluster)
}

// look is a command that shows something, once or again and again.
func (c command) look(use, short string, show func(*adminv1.GetClusterResponse)) *cobra.Command {
	var watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use: use, Short: short, Args: c.exactly(), ValidArgsFunction: cobra.NoFileCompletions,
		Example: "  perdure cluster " + use + "\n  perdure cluster " + use + " --watch",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every <= 0 {
				return c.Usage("--every is %s; it must be more than 0", every)
			}
			for again := false; ; again = true {
				cluster, err := c.get(cmd.Context())
				if again && cmd.Context().Err() != nil {
					return nil // interrupted
				}
				if err != nil {
					return err
				}
				if again && c.Terminal {
					c.Printf("\x1b[H\x1b[2J")
				} else if again && !c.JSON() {
					c.Printf("\n")
				}
				if c.JSON() {
					err = c.Print(cluster)
				} else {
					show(cluster)
				}
				if err != nil || !watch {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(every):
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again and again, until interrupted")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "`how often`, with --watch")
	_ = cmd.RegisterFlagCompletionFunc("every", cobra.NoFileCompletions)
	return cmd
}

// word is the last part of an enum's name, "" if it is unspecified.
func word(value fmt.Stringer, prefix string) string {
	text := strings.ToLower(strings.TrimPrefix(value.String(), prefix))
	if text == "unspecified" {
		return ""
	}
	return text
}

// condition is what there is to say of a node in a word or two.
func condition(node *adminv1.ClusterNode) string {
	state, health := word(node.GetState(), "NODE_STATE_"), word(node.GetHealth(), "NODE_HEALTH_")
	switch {
	case node.GetState() == adminv1.NodeState_NODE_STATE_REMOVED:
		return state
	case health == "":
		return state + ", not asked"
	case node.GetHealth() == adminv1.NodeHealth_NODE_HEALTH_ALIVE:
		return state
	}
	return state + ", " + health
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func (c command) status(cluster *adminv1.GetClusterResponse) {
	led, whole, moving := 0, 0, 0
	var waits [][]string
	for _, p := range cluster.GetPartitions() {
		if p.GetWaitsFor() != "" {
			waits = append(waits, []string{number(p.GetId()), p.GetWaitsFor()})
		}
		if p.GetId() == 0 {
			continue
		}
		if p.GetLeader() != "" {
			led++
		}
		if uint32(len(p.GetVoters())) >= cluster.GetReplicationFactor() && len(p.GetLagging()) == 0 {
			whole++
		}
		if len(p.GetLearners())+len(p.GetOutgoing()) > 0 {
			moving++
		}
	}
	level := number(cluster.GetFeatureLevel())
	if limit := cluster.GetFeatureLevelLimit(); limit != 0 {
		level += ", limited to " + number(limit)
	}
	partitions := number(cluster.GetPartitionCount())
	if len(cluster.GetPartitions()) == 0 {
		partitions += ", how they are is not known"
	} else {
		partitions += fmt.Sprintf(", %d led, %d with all replicas", led, whole)
	}
	if moving > 0 {
		partitions += fmt.Sprintf(", %d with learners", moving)
	}
	c.Fields("",
		"cluster", cluster.GetClusterId(),
		"leader", cluster.GetLeader(),
		"partitions", partitions,
		"replication factor", number(cluster.GetReplicationFactor()),
		"feature level", level,
		"problem", cluster.GetProblem(),
	)
	c.Printf("\n")
	c.nodes(cluster)
	if len(waits) > 0 {
		c.Printf("\n")
		c.Table("", []string{"PARTITION", "WAITS, BECAUSE"}, waits)
	}
	const most = 10
	var steps [][]string
	for _, step := range cluster.GetSteps()[:min(len(cluster.GetSteps()), most)] {
		outcome := "done"
		switch {
		case step.GetEndedAt() == nil:
			outcome = "under way"
		case step.GetFailure() != "":
			outcome = "failed: " + step.GetFailure()
		}
		steps = append(steps, []string{step.GetBeganAt().AsTime().Local().Format("15:04:05"), number(step.GetPartition()), step.GetAction(), step.GetReason(), outcome})
	}
	if len(steps) > 0 {
		c.Printf("\n")
		c.Table("", []string{"BEGAN", "PARTITION", "STEP", "BECAUSE", "OUTCOME"}, steps)
	}
}

func (c command) nodes(cluster *adminv1.GetClusterResponse) {
	var rows [][]string
	count := func(n uint32) string {
		if len(cluster.GetPartitions()) == 0 {
			return "-" // nobody who knows has answered
		}
		return number(n)
	}
	for _, node := range cluster.GetNodes() {
		id := node.GetId()
		if id == cluster.GetLeader() {
			id += " *"
		}
		rows = append(rows, []string{
			id, condition(node), count(node.GetLeads()), count(node.GetVotes()), count(node.GetCopies()),
			node.GetZone(), node.GetVersion(), node.GetTransportAddress(), node.GetIngressAddress(), node.GetFailure(), hosted(node),
		})
	}
	c.Table("", []string{"NODE", "STATE", "LEADS", "VOTES", "COPIES", "ZONE", "VERSION", "TRANSPORT", "INGRESS", "FAILURE", "HOSTS"}, rows)
}

// hosted is what a node has handlers of; all of it is in the JSON form.
func hosted(node *adminv1.ClusterNode) string {
	const most = 2
	services := node.GetServices()
	switch {
	case node.GetDeployment() == "":
		return ""
	case len(services) == 0:
		return "nothing"
	case len(services) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(services[:most], " "), len(services)-most)
	}
	return strings.Join(services, " ")
}

func (c command) partitions(cluster *adminv1.GetClusterResponse) {
	var rows [][]string
	list := func(ids []string) string {
		if len(ids) == 0 {
			return "-"
		}
		return strings.Join(ids, " ")
	}
	for _, p := range cluster.GetPartitions() {
		leader := p.GetLeader()
		if leader == "" {
			leader = "-"
		}
		voters := list(p.GetVoters())
		if len(p.GetOutgoing()) > 0 {
			voters += ", before: " + list(p.GetOutgoing())
		}
		rows = append(rows, []string{number(p.GetId()), leader, voters, list(p.GetLearners()), list(p.GetLagging()), p.GetWaitsFor()})
	}
	c.Table("", []string{"PARTITION", "LEADER", "VOTERS", "LEARNERS", "LAGGING", "WAITS, BECAUSE"}, rows)
	if cluster.GetProblem() != "" {
		c.Note("%s", cluster.GetProblem())
	}
}

// find is the node that an argument means.
func (c command) find(ctx context.Context, id string) (*adminv1.GetClusterResponse, *adminv1.ClusterNode, error) {
	cluster, err := c.get(ctx)
	if err != nil {
		return nil, nil, err
	}
	var found []*adminv1.ClusterNode
	var there []string
	for _, node := range cluster.GetNodes() {
		there = append(there, node.GetId())
		if id != "" && strings.HasPrefix(node.GetId(), strings.ToLower(id)) {
			found = append(found, node)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil, fmt.Errorf("no node's id begins with %q; there are: %s", id, strings.Join(there, ", "))
	case 1:
		return cluster, found[0], nil
	}
	return nil, nil, fmt.Errorf("the ids of %d nodes begin with %q: give more of it", len(found), id)
}

// complete offers ids of nodes as the argument number at.
func (c command) complete(at int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) != at {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		var ids []string
		if cluster, err := c.get(ctx); err == nil {
			for _, node := range cluster.GetNodes() {
				ids = append(ids, node.GetId()+"\t"+condition(node))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

func (c command) drain() *cobra.Command {
	var undo, noWait bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Have a node give its leaders and replicas to others, and wait until it has none",
		Long: `Have a node give its leaders and replicas to others, and wait until it has none, saying how many
there are. Leaders go first, in moments; a replica goes when another node has it. What no other node
can take stays, and is waited for. A copy of the cluster's own group, which every node has, stays too.

Interrupting the wait doesn't end draining: --undo does.`,
		Example: `  perdure cluster drain 5f1d
  perdure cluster drain 5f1d --no-wait
  perdure cluster drain 5f1d --undo`,
		Args: c.exactly("NODE"), ValidArgsFunction: c.complete(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if every <= 0 {
				return c.Usage("--every is %s; it must be more than 0", every)
			}
			_, node, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			to := adminv1.NodeState_NODE_STATE_DRAINING
			if undo {
				to = adminv1.NodeState_NODE_STATE_ACTIVE
			}
			response := &adminv1.SetNodeStateResponse{}
			if err := c.call(cmd.Context(), "SetNodeState", &adminv1.SetNodeStateRequest{NodeId: node.GetId(), State: to}, response); err != nil {
				return err
			}
			if undo || noWait {
				return c.done(response, "node %s is %s", node.GetId(), word(to, "NODE_STATE_"))
			}
			if err := c.awaitDrained(cmd.Context(), node.GetId(), every); err != nil {
				return err
			}
			return c.done(response, "node %s is drained", node.GetId())
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&undo, "undo", false, "have it take leaders and replicas again")
	flags.BoolVar(&noWait, "no-wait", false, "don't wait until it has none")
	flags.DurationVar(&every, "every", time.Second, "`how often` to look how many are left")
	_ = cmd.RegisterFlagCompletionFunc("every", cobra.NoFileCompletions)
	return cmd
}

// done ends a command that has nothing else to show.
func (c command) done(response proto.Message, format string, args ...any) error {
	if c.JSON() {
		return c.Print(response)
	}
	c.Printf(format+"\n", args...)
	return nil
}

// viewPatience is how much longer the node that is asked may take to hear of a change than who made it.
const viewPatience = 10 * time.Second

// awaitDrained says what is left whenever that has changed.
func (c command) awaitDrained(ctx context.Context, id string, every time.Duration) error {
	said, began, seen := "", time.Now(), false
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		cluster, node, err := c.find(ctx, id)
		if err != nil {
			return err
		}
		left, unknown := remaining(cluster, id), cluster.GetProblem() != ""
		switch draining := node.GetState() == adminv1.NodeState_NODE_STATE_DRAINING; {
		case draining && left == "" && !unknown:
			return nil
		case draining:
			seen = true
		case seen || time.Since(began) > viewPatience:
			return fmt.Errorf("node %s is %s now: somebody has ended the draining", id, word(node.GetState(), "NODE_STATE_"))
		default:
			left = "" // what the node that is asked knows is older than the draining
		}
		if unknown {
			left = cluster.GetProblem()
		}
		if left != said && left != "" {
			c.Note("%s", left)
			said = left
		}
		select {
		case <-ctx.Done():
			return errors.New("interrupted; the node goes on draining, --undo ends that")
		case <-tick.C:
		}
	}
}

// remaining says what a draining node still has; "": nothing but its copy of group 0.
func remaining(cluster *adminv1.GetClusterResponse, id string) string {
	leads, copies, stuck := 0, 0, ""
	for _, p := range cluster.GetPartitions() {
		has := false
		for _, ids := range [][]string{p.GetVoters(), p.GetOutgoing(), p.GetLearners()} {
			for _, member := range ids {
				has = has || member == id
			}
		}
		if p.GetId() == 0 {
			has = false
			for _, voter := range p.GetVoters() {
				has = has || voter == id
			}
		}
		if !has {
			continue
		}
		copies++
		if p.GetLeader() == id {
			leads++
		}
		if p.GetWaitsFor() != "" && stuck == "" {
			stuck = fmt.Sprintf("; partition %d waits: %s (Ctrl-C ends this command, and the node goes on draining)", p.GetId(), p.GetWaitsFor())
		}
	}
	if copies == 0 {
		return ""
	}
	return fmt.Sprintf("leads %d and has copies of %d partitions%s", leads, copies, stuck)
}

func (c command) remove() *cobra.Command {
	request := &adminv1.SetNodeStateRequest{State: adminv1.NodeState_NODE_STATE_REMOVED}
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Remove a node from the cluster, for good",
		Long: `Remove a node from the cluster, for good: the others listen to it no more, and it can only come back
with an empty data directory, as another node. Drain it first. One that is gone and won't come back, or
whose place no other node can take, is removed with --force; what would lose data is refused even so.`,
		Example: `  perdure cluster remove 5f1d
  perdure cluster remove 5f1d --force`,
		Args: c.exactly("NODE"), ValidArgsFunction: c.complete(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, node, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			request.NodeId = node.GetId()
			response := &adminv1.SetNodeStateResponse{}
			if err := c.call(cmd.Context(), "SetNodeState", request, response); err != nil {
				return err
			}
			return c.done(response, "node %s is removed", node.GetId())
		},
	}
	cmd.Flags().BoolVar(&request.Force, "force", false, "though it votes in partitions")
	return cmd
}

func (c command) transfer() *cobra.Command {
	return &cobra.Command{
		Use:   "transfer PARTITION NODE",
		Short: "Have another node lead a partition",
		Long: `Have another node lead a partition, one that votes in it. Placement may hand it over again, to even
out leaders; to keep a node from leading, drain it.`,
		Example: `  perdure cluster transfer 7 5f1d`,
		Args:    c.exactly("PARTITION", "NODE"), ValidArgsFunction: c.complete(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			partition, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil {
				return c.Usage("PARTITION is %q; it must be a number", args[0])
			}
			_, node, err := c.find(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			response := &adminv1.TransferLeadershipResponse{}
			if err := c.call(cmd.Context(), "TransferLeadership", &adminv1.TransferLeadershipRequest{Partition: uint32(partition), NodeId: node.GetId()}, response); err != nil {
				return err
			}
			return c.done(response, "partition %d is handed over to node %s", partition, node.GetId())
		},
	}
}

func (c command) set() *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME VALUE",
		Short: "Change a setting of the cluster: replication-factor or feature-level-limit",
		Long: `Change a setting of the cluster:

  replication-factor   how many replicas a partition has, once there are as many nodes: 1, 3, 5 or 7
  feature-level-limit  keeps the cluster from writing records of a higher level, so that an upgrade can
                       be taken back; 0 is no limit`,
		Example: `  perdure cluster set replication-factor 5
  perdure cluster set feature-level-limit 0`,
		Args:              c.exactly("NAME", "VALUE"),
		ValidArgsFunction: cobra.FixedCompletions([]string{"replication-factor", "feature-level-limit"}, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			response := &adminv1.SetClusterSettingResponse{}
			if err := c.call(cmd.Context(), "SetClusterSetting", &adminv1.SetClusterSettingRequest{Name: args[0], Value: args[1]}, response); err != nil {
				return err
			}
			return c.done(response, "%s is %s", args[0], args[1])
		},
	}
}
