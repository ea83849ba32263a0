package admin

import (
	"context"
	"runtime"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// NodeInfo is how a node is at one instant. A zero field is not known.
type NodeInfo struct {
	NodeID string
	// Version of the perdure module.
	Version   string
	StartedAt time.Time
	// NotReady is why the node serves no calls; nil while it does.
	NotReady   error
	Partitions []PartitionInfo
	Storage    StorageInfo
}

// PartitionInfo is one partition as the node has it.
type PartitionInfo struct {
	ID uint32
	// Leader: this node acts for it.
	Leader bool
	// Epoch of the current leadership.
	Epoch        uint64
	AppliedIndex uint64
	// Failure is why the partition refuses to serve; nil while it serves.
	Failure error
}

// StorageInfo is what a node keeps on disk.
type StorageInfo struct {
	// Directory is empty if everything is in memory.
	Directory                       string
	LogBytes, StoreBytes, FreeBytes uint64
}

func (s *Service) getNode(context.Context, *adminv1.GetNodeRequest) (*adminv1.GetNodeResponse, error) {
	info := s.config.Node()
	response := &adminv1.GetNodeResponse{
		NodeId: info.NodeID, Version: info.Version, Ready: info.NotReady == nil,
		GoVersion: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
		Storage: &adminv1.Storage{
			Directory: info.Storage.Directory, LogBytes: info.Storage.LogBytes,
			StoreBytes: info.Storage.StoreBytes, FreeBytes: info.Storage.FreeBytes,
		},
	}
	if info.NotReady != nil {
		response.NotReadyReason = info.NotReady.Error()
	}
	if !info.StartedAt.IsZero() {
		response.StartedAt = timestamppb.New(info.StartedAt)
		response.Uptime = durationpb.New(s.config.Now().Sub(info.StartedAt))
	}
	for _, partition := range info.Partitions {
		row := &adminv1.Partition{
			Id: partition.ID, Leader: partition.Leader, Epoch: partition.Epoch, AppliedIndex: partition.AppliedIndex,
		}
		if partition.Failure != nil {
			row.Failure = partition.Failure.Error()
		}
		response.Partitions = append(response.Partitions, row)
	}
	return response, nil
}
