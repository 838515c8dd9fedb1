package admin

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/distlimiter/ratelimit/internal/algo"
	"github.com/distlimiter/ratelimit/internal/config"
)

// The bounds on bodies in bytes.
const (
	maxRules = 16 << 20
	maxBody  = 1 << 20 // any other
)

// explainPath is the path of a POST that changes nothing.
const explainPath = "/admin/explain"

//go:embed openapi.yaml
var openapiFile string

// openapi is the document with the names of the algorithms filled in.
var openapi = []byte(strings.Replace(openapiFile, "$algorithms", strings.Join(algo.Algorithms(), ", "), 1))

// api serves /admin/ as openapi.yaml describes it.
type api struct {
	Options
	// writing is full while a write of rules is under way: those of this process take
	// turns, so that they conflict with other replicas alone.
	writing chan struct{}
}

// endpoint answers a request, or returns an error, which is sent as a problem.
type endpoint func(w http.ResponseWriter, r *http.Request) error

func (o Options) api() http.Handler {
	a := api{o, make(chan struct{}, 1)}
	mux := http.NewServeMux()
	for pattern, serve := range map[string]endpoint{
		"GET /admin/rules":          a.listRules,
		"POST /admin/rules":         a.applyRules,
		"GET /admin/rules/{key}":    a.getRule,
		"DELETE /admin/rules/{key}": a.deleteRule,
		"GET /admin/stats":          a.listStats,
		"GET /admin/stats/{key}":    a.getStats,
		"GET /admin/counters":       a.getCounters,
		"POST /admin/reset":         a.reset,
		"POST /admin/credit":        a.credit,
		"POST " + explainPath:       a.explain,
		"GET /admin/reloads":        a.listReloads,
		"GET /admin/replica":        a.getReplica,
		"GET " + livePath:           a.watch,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := serve(w, r); err != nil {
				writeProblem(w, err)
			}
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler, pattern := mux.Handler(r); pattern == "" {
			missed := &statusOnly{header: w.Header()}
			handler.ServeHTTP(missed, r)
			writeProblem(w, refuse(missed.status, "%s %s: see /openapi.yaml for the paths and methods", r.Method, r.URL.Path))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// statusOnly records the status and the headers of an answer, and drops its body.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

func (a api) listReloads(w http.ResponseWriter, _ *http.Request) error {
	answer(w, http.StatusOK, a.Reloads())
	return nil
}

// answerTimeout is the time that a client has to read an answer.
const answerTimeout = time.Minute

// begin begins the time that the client has for the answer. The server's own deadline began
// with the request, so the outcome of a large change that took as long would be lost.
func begin(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout)) // a client that has left is no error of ours
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	begin(w)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encode(w, v)
}

func encode(w io.Writer, v any) {
	_ = json.NewEncoder(w).Encode(v) // a client that has left is no error of ours
}

// readBody returns the body of a request, whose media type must be one of types. Pages
// of another origin cannot send these types by a form.
func readBody(w http.ResponseWriter, r *http.Request, most int64, types ...string) ([]byte, error) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || !slices.Contains(types, mediaType) {
		w.Header().Set("Accept-Post", types[0])
		return nil, refuse(http.StatusUnsupportedMediaType, "Content-Type %q: send %s", r.Header.Get("Content-Type"), strings.Join(types, " or "))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "reading the body: %v", err)
	}
	return body, nil
}

// readJSON reads the body of a request into v, and refuses fields that v does not have.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := readBody(w, r, maxBody, "application/json")
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return refuse(http.StatusBadRequest, "the body: %s", wrongJSON(err))
	}
	if _, more := d.Token(); !errors.Is(more, io.EOF) {
		return refuse(http.StatusBadRequest, "the body: something follows the document")
	}
	return nil
}

// wrongJSON returns what an error of the decoder means to a client, who does not know the
// types of this program.
func wrongJSON(err error) string {
	if errors.Is(err, io.EOF) {
		return "it is empty: send a JSON object"
	}
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return strings.TrimPrefix(err.Error(), "json: ")
	}
	want := map[reflect.Kind]string{reflect.String: "a string", reflect.Slice: "a list", reflect.Int64: "a whole number", reflect.Struct: "an object"}[wrong.Type.Kind()]
	if field := wrong.Field[strings.LastIndexByte(wrong.Field, '.')+1:]; field != "" {
		return fmt.Sprintf("%s: want %s, found %s", field, want, wrong.Value)
	}
	return fmt.Sprintf("want %s, found %s", want, wrong.Value)
}

// flag returns a parameter that is 0 or 1, of a request that only reads.
func flag(r *http.Request, name string) (bool, error) {
	return isSet(name, r.URL.Query().Get(name))
}

func isSet(name, value string) (bool, error) {
	switch value {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, refuse(http.StatusBadRequest, "%s=%s: use 0 or 1", name, value)
}

// flags returns the parameters of a request that writes, each of which is 0 or 1. It
// refuses unknown parameters: a misspelt one may have been intended to prevent the
// write, such as dry_run.
func flags(r *http.Request, names ...string) (map[string]bool, error) {
	known := "there are none"
	if len(names) > 0 {
		known = "use " + strings.Join(names, ", ")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the parameters %q: %v", r.URL.RawQuery, err)
	}
	set := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		values := query[name]
		switch {
		case !slices.Contains(names, name):
			return nil, refuse(http.StatusBadRequest, "unknown parameter %q: %s", name, known)
		case len(values) > 1:
			return nil, refuse(http.StatusBadRequest, "%s is given %d times", name, len(values))
		case values[0] == "":
			return nil, refuse(http.StatusBadRequest, "%s has no value: use 0 or 1", name)
		}
		if set[name], err = isSet(name, values[0]); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// rulesInForce returns the rules in force; empty rules before the first reload.
func (a api) rulesInForce() *config.Rules {
	if rules := a.Rules(); rules != nil {
		return rules
	}
	return new(config.Rules)
}

// find returns the rule in force whose key is in the path of the request.
func (a api) find(r *http.Request) (config.Rule, error) {
	return a.findID(r.PathValue("key"))
}

func (a api) findID(id string) (config.Rule, error) {
	for rule := range a.rulesInForce().All() {
		if rule.ID() == id {
			return rule, nil
		}
	}
	return config.Rule{}, noRule(id)
}

func noRule(id string) *problem {
	return refuse(http.StatusNotFound, "no rule has the key %q: GET /admin/rules lists them", id)
}
