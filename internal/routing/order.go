package routing

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// SortTransactions puts them in the order of Router.Transactions, at most MaxPage: the oldest
// first, and of each transaction the coordinator.
func SortTransactions(all []Transaction) []Transaction {
	slices.SortFunc(all, func(a, b Transaction) int {
		if a.Coordinator != b.Coordinator && a.Root == b.Root && a.At.Equal(b.At) {
			if a.Coordinator {
				return -1
			}
			return 1
		}
		return cmp.Or(a.At.Compare(b.At), bytes.Compare(a.Root[:], b.Root[:]),
			cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Sequence, b.Sequence))
	})
	return all[:min(len(all), MaxPage)]
}

// SortLimits puts them in the order of Router.Limits, at most MaxPage.
func SortLimits(all []Limit) []Limit {
	slices.SortFunc(all, func(a, b Limit) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.Held, a.Held), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Partition, b.Partition))
	})
	return all[:min(len(all), MaxPage)]
}

// PartitionNames is "partition 3" or "partitions 3, 4, 5", for an error.
func PartitionNames(ids []uint32) string {
	const most = 10
	if len(ids) == 1 {
		return fmt.Sprint("partition ", ids[0])
	}
	var names []string
	for _, id := range slices.Sorted(slices.Values(ids)) {
		if len(names) == most {
			names = append(names, fmt.Sprintf("%d more", len(ids)-most))
			break
		}
		names = append(names, fmt.Sprint(id))
	}
	return "partitions " + strings.Join(names, ", ")
}
