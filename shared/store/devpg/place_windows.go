package devpg

import "errors"

// findPlace returns an error: the holder relies on process groups, file modes and signals
// that Windows does not have.
func findPlace(string) (place, error) {
	return place{}, errors.New("PostgreSQL is not started on Windows: run one yourself and set DATABASE_URL")
}

// elsewhere returns no other directory.
func elsewhere(dir string) string { return dir }
