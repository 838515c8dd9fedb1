package admin

import (
	"bytes"
	stderrors "errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/errors"
)

// specified is a transport that checks every exchange under /admin/ against
// openapi.yaml: a request that it does not allow must be refused, and every
// answer must conform to it.
type specified struct {
	t    *testing.T
	spec validator.Validator
}

// readSpecification reads openapi.yaml once, because every test needs it and reading takes a good part of a second.
var readSpecification = sync.OnceValues(func() (validator.Validator, error) {
	document, err := libopenapi.NewDocument(openapi)
	if err != nil {
		return nil, err
	}
	spec, errs := validator.NewValidator(document)
	return spec, stderrors.Join(errs...)
})

func newSpecified(t *testing.T) specified {
	t.Helper()
	spec, err := readSpecification()
	if err != nil {
		t.Fatal(err)
	}
	return specified{t: t, spec: spec}
}

func TestSpecificationIsValid(t *testing.T) {
	if ok, errs := newSpecified(t).spec.ValidateDocument(); !ok {
		t.Error(texts(errs))
	}
}

// RoundTrip implements http.RoundTripper.
func (s specified) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.Body != nil {
		var err error
		if sent, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	fill := func() { r.Body = io.NopCloser(bytes.NewReader(sent)) }
	fill()
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || !strings.HasPrefix(r.URL.Path, "/admin/") {
		return answer, err
	}
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	_ = answer.Body.Close()
	refill := func() { answer.Body = io.NopCloser(bytes.NewReader(got)) }
	refill()
	fill()
	if answer.StatusCode < 400 {
		if ok, errs := s.spec.ValidateHttpRequestSync(r); !ok {
			s.t.Errorf("%s %s was answered with %s, but is not allowed: %s", r.Method, r.URL, answer.Status, texts(errs))
		}
	}
	fill()
	if known := answer.StatusCode != http.StatusMethodNotAllowed && answer.StatusCode != http.StatusNotFound; known {
		if ok, errs := s.spec.ValidateHttpResponse(r, answer); !ok {
			s.t.Errorf("%s %s: %s\n%s\nis not as specified: %s", r.Method, r.URL, answer.Status, got, texts(errs))
		}
	}
	refill()
	return answer, nil
}

func texts(errs []*errors.ValidationError) string {
	var b strings.Builder
	for _, e := range errs {
		b.WriteString("\n" + e.Message + ": " + e.Reason)
		for _, schema := range e.SchemaValidationErrors {
			b.WriteString("\n  " + schema.FieldPath + " " + schema.Reason)
		}
	}
	return b.String()
}
