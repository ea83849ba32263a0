package routing

import (
	"time"

	"github.com/perdure/perdure/internal/invocation"
)

// LimitQuery says which limits are wanted.
type LimitQuery struct {
	// Name of one, which comes with its tenants, holders and waiting ones. The other fields are
	// ignored then.
	Name string
	// Service whose limits they are; "" for all.
	Service string
	// Waiting: only those that somebody waits for.
	Waiting bool
}

// MaxLimitMembers is how many tenants, holders and waiting ones of a limit are shown.
const MaxLimitMembers = 100

// Limit is what is known of a limit that somebody uses, or has used a moment ago.
type Limit struct {
	Name string
	// Partition that owns it.
	Partition uint32
	LimitSettings
	UntilDone bool
	// Rule is the name of the rule by which these are the settings, and Declared is what they would be
	// without. Empty: there is none.
	Rule     string
	Declared LimitSettings
	// Held permits, those that wait, and tokens that are there.
	Held, Waiting int
	Tokens        int64
	// Oldest is when the one asked who waits longest; zero if nobody does.
	Oldest  time.Time
	Tenants []LimitTenant
	Holders []LimitMember
	Queue   []LimitMember
}

// LimitSettings is what a limit lets.
type LimitSettings struct {
	// Concurrency is 0 without one and -1 if nobody may run.
	Concurrency int
	// RateCount is 0 without a rate.
	RateCount, RateBurst int64
	RatePer              time.Duration
	// MaxQueue is 0 for any number and -1 for none.
	MaxQueue int
}

// LimitTenant is what one tenant has of a limit.
type LimitTenant struct {
	Tenant        string
	Held, Waiting int
}

// LimitMember is one who holds a permit, or waits for one.
type LimitMember struct {
	ID     invocation.ID
	Tenant string
	// Since it holds or waits.
	Since time.Time
	// Priority and Begun of one that waits.
	Priority int
	Begun    bool
}
