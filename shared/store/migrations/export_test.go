package migrations

import "time"

// LockNumber is the key of the lock.
const LockNumber = lockNumber

// Hurry returns the target with less patience.
func (t Target) Hurry(patience time.Duration) Target {
	t.patience = patience
	return t
}

// OwnerTables are the tables whose owners a move renames.
var OwnerTables = ownerTables
