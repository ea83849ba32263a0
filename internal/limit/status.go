package limit

// Status is what a partition knows of a limit that it owns, for people to look at.
type Status struct {
	Name     string
	Settings Settings
	// Rule is the name of the rule by which these are the settings, and Declared is what they would
	// be without. Empty: there is no rule.
	Rule     string
	Declared Settings
	// UntilDone: permits are kept until the invocation ends.
	UntilDone     bool
	Held, Waiting int
	// Tokens of the rate that are there.
	Tokens int64
	// Oldest is when the one asked who waits longest, 0 if nobody does.
	Oldest int64
	// Shares, Holders and Queue are set for one limit only.
	Shares  []Share
	Holders []Holder
	Queue   []Ask
}
