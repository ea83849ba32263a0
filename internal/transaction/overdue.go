package transaction

// Overdue reports whether an answer is late, a second after it was asked for; instants are in
// milliseconds. A clock that went back since does not know: then it is, since all that follows is
// to ask again.
func Overdue(since, now int64) bool { return now < since || now-since >= 1000 }
