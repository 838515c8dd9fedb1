package admin

import (
	"net/http"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
)

// Replica describes this process, one of several replicas.
type Replica struct {
	// Name distinguishes it from other replicas for operators, such as the name of its host.
	Name    string
	Version string
	Started time.Time
	// Store is the operators' name for the store of counters, such as Redis.
	// StoreHealthy reports whether it can decide now.
	Store        string
	StoreHealthy func() bool
}

// replicaJSON is the answer of GET /admin/replica.
type replicaJSON struct {
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Time     time.Time `json:"time"` // now, for clients whose clock differs
	Serving  bool      `json:"serving"`
	Store    storeJSON `json:"store"`
	ReadOnly bool      `json:"read_only"`
	Values   bool      `json:"values"`
}

type storeJSON struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"`
}

func (a api) getReplica(w http.ResponseWriter, r *http.Request) error {
	state, err := a.Health.Check(r.Context(), &grpc_health_v1.HealthCheckRequest{})
	answer(w, http.StatusOK, replicaJSON{
		Name: a.Replica.Name, Version: a.Replica.Version, Started: a.Replica.Started, Time: time.Now(),
		Serving:  err == nil && state.Status == grpc_health_v1.HealthCheckResponse_SERVING,
		Store:    storeJSON{a.Replica.Store, a.Replica.StoreHealthy()},
		ReadOnly: a.Access.ReadOnly, Values: !a.Access.ForAnyone(),
	})
	return nil
}
