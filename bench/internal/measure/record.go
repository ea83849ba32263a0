// Package measure takes the measurements of one benchmark run: systems in turns, each call mix in a window of time.
package measure

import "time"

// WorkloadHTTP is what the tables call the floor's calls.
const WorkloadHTTP = "empty HTTP call"

// Records is everything one run measured, in the order it was measured.
type Records struct {
	Machine  string // one line
	Disk     string // file system of the data directories
	Started  time.Time
	Took     time.Duration
	Command  string // what the user typed, without paths
	Versions []string
	// Transactions says that the plan was FullTransactions or QuickTransactions, which has tables of its own.
	Transactions bool
	Windows      []Window
	Floors       []Floor
	Starts       []Start
	Idles        []Idle
	Recoveries   []Recovery
	// Notes are sentences about what was left out or went wrong.
	Notes []string
}

// Window is one call mix on one system for one stretch of time.
type Window struct {
	Kind     string `json:"kind"` // "window"
	System   string `json:"system"`
	Workload string `json:"workload"`
	Callers  int    `json:"callers"`
	Round    int    `json:"round"`

	Seconds    float64 `json:"seconds"`
	Calls      uint64  `json:"calls"`
	Errors     uint64  `json:"errors"`            // since the callers connected, so warm-up too
	Refused    uint64  `json:"refused,omitempty"` // calls that a handler declined; they are among Calls
	FirstError string  `json:"first_error,omitempty"`
	PerSecond  float64 `json:"calls_per_second"`
	P50MS      float64 `json:"p50_ms"`
	P90MS      float64 `json:"p90_ms"`
	P99MS      float64 `json:"p99_ms"`
	MaxMS      float64 `json:"max_ms"`

	// Processor cores used: by the server, by the process with Restate's handlers, by the load generator, by everything
	// else on the machine, and taken away by the hypervisor.
	ServerCores    float64 `json:"server_cores"`
	ServiceCores   float64 `json:"service_cores"`
	GeneratorCores float64 `json:"generator_cores"`
	OtherCores     float64 `json:"other_cores"`
	StealCores     float64 `json:"steal_cores"`
	// CPUPerCallUS is processor time of server and service together, in microseconds.
	CPUPerCallUS float64 `json:"cpu_us_per_call"`

	// ServerBytes and ServiceBytes are resident memory at the end of the window.
	ServerBytes  int64 `json:"server_resident_bytes"`
	ServiceBytes int64 `json:"service_resident_bytes"`
	// WrittenPerCall is what server and service sent to storage, DeviceWrittenPerCall what anybody wrote to that device,
	// in bytes. FlushesPerCall is how often its write cache was flushed, for whomever: what syncs end in. Both are -1
	// where the file system has no device of its own.
	WrittenPerCall       float64 `json:"written_bytes_per_call"`
	DeviceWrittenPerCall float64 `json:"device_written_bytes_per_call"`
	FlushesPerCall       float64 `json:"device_flushes_per_call"`

	// Transactions is what the server counted meanwhile; nil where it counts none.
	Transactions *Transactions `json:"transactions,omitempty"`
}

// Transactions is what a Perdure node counted of transactions during a window.
type Transactions struct {
	Committed  float64 `json:"committed"`
	RolledBack float64 `json:"rolled_back"`
	// Retries are tries that were given up and begun again, by reason.
	Retries map[string]float64 `json:"retries"`
}

// Clean says whether the window may be compared: at most one call in a thousand failed, and some succeeded.
func (w Window) Clean() bool { return w.Calls > 0 && w.Errors*1000 <= w.Calls }

// Floor is one series of synced 256-byte appends.
type Floor struct {
	Kind      string  `json:"kind"` // "floor"
	Round     int     `json:"round"`
	PerSecond float64 `json:"appends_per_second"`
	P50MS     float64 `json:"p50_ms"`
	P99MS     float64 `json:"p99_ms"`
}

// Start is one start on an empty directory.
type Start struct {
	Kind   string `json:"kind"` // "start"
	System string `json:"system"`
	Round  int    `json:"round"`
	// ServingMS is from exec to ready, FirstCallMS from exec to the first answered call; for Restate that includes the
	// registration of its handlers.
	ServingMS   float64 `json:"serving_ms"`
	FirstCallMS float64 `json:"first_call_ms"`
}

// Idle is what a system costs while nobody calls it.
type Idle struct {
	Kind         string  `json:"kind"` // "idle"
	System       string  `json:"system"`
	Seconds      float64 `json:"seconds"`
	Cores        float64 `json:"cores"` // server and service
	ServerBytes  int64   `json:"server_resident_bytes"`
	ServiceBytes int64   `json:"service_resident_bytes"`
}

// Recovery is one SIGKILL under load with an immediate restart.
type Recovery struct {
	Kind         string `json:"kind"` // "recovery"
	System       string `json:"system"`
	Round        int    `json:"round"`
	Acknowledged int    `json:"acknowledged"`
	Retried      int    `json:"retried"`
	// GapMS is the silence the callers saw, AllResumedMS from its start until every caller was answered again (0 when
	// some were not), ServingMS from the second exec to ready.
	GapMS        float64  `json:"gap_ms"`
	AllResumedMS float64  `json:"all_resumed_ms"`
	ServingMS    float64  `json:"serving_ms"`
	Problems     []string `json:"problems"`
}
