package admin

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/distlimiter/ratelimit/internal/config"
)

// The types of problems (RFC 9457), except about:blank.
const (
	invalidRules     = "urn:distlimiter:problem:invalid-rules"
	notFromHere      = "urn:distlimiter:problem:not-from-here"
	changedMeanwhile = "urn:distlimiter:problem:changed-meanwhile"
	noRuleStore      = "urn:distlimiter:problem:no-rule-store"
	storeFailed      = "urn:distlimiter:problem:store-failed"
	backendFailed    = "urn:distlimiter:problem:backend-failed"
	readOnly         = "urn:distlimiter:problem:read-only"
	cannotReset      = "urn:distlimiter:problem:cannot-reset"
	nothingUsed      = "urn:distlimiter:problem:nothing-used"
)

// problem is an error that a client gets, as a problem document.
type problem struct {
	Type     string           `json:"type"`
	Title    string           `json:"title"`
	Status   int              `json:"status"`
	Detail   string           `json:"detail,omitempty"`
	Location string           `json:"location,omitempty"`
	Problems []config.Problem `json:"problems,omitempty"` // of rules in a body: they have no file

	cause error // for the log alone
}

// Error implements error.
func (p *problem) Error() string { return p.Detail }

// refuse returns a problem of the type about:blank.
func refuse(status int, format string, args ...any) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// refuseAs returns a problem of the given type.
func refuseAs(typ, title string, status int, format string, args ...any) *problem {
	return &problem{Type: typ, Title: title, Status: status, Detail: fmt.Sprintf(format, args...)}
}

// notValid returns the problem for invalid rules in a body.
func notValid(bad *config.Invalid) *problem {
	p := refuseAs(invalidRules, "The rules are not valid", http.StatusUnprocessableEntity, "%s", bad.Problems[0].Error())
	if n := len(bad.Problems); n > 1 {
		p.Detail = fmt.Sprintf("%d problems, the first: %s", n, p.Detail)
	}
	p.Problems = withoutFile(bad.Problems)
	return p
}

func withoutFile(problems []config.Problem) []config.Problem {
	problems = slices.Clone(problems)
	for i := range problems {
		problems[i].File = ""
	}
	return problems
}

// writeProblem answers with an error. An error that is not a problem becomes an
// internal server error.
func writeProblem(w http.ResponseWriter, err error) {
	p, ok := errors.AsType[*problem](err)
	if !ok {
		p = refuse(http.StatusInternalServerError, "%v", err)
	}
	begin(w)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	encode(w, p)
}
