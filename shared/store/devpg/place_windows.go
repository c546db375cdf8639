package devpg

import "errors"

func findPlace(string) (place, error) {
	return place{}, errors.New("PostgreSQL is not started on Windows: run one yourself and set DATABASE_URL")
}
