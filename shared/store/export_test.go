package store

// Hurry gives the statements of db a tenth of their time, so that a test needs not wait for all of it.
func Hurry(db *DB) {
	db.pool.limits.statement, db.pool.limits.bulk = defaultLimits.statement/10, defaultLimits.bulk/10
}
