package settings

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/otel/propagation"

	"github.com/distlimiter/ratelimit/internal/telemetry"
)

// signal is the part of variable names that stands for one kind of telemetry.
type signal string

const (
	traces  signal = "TRACES_"
	metrics signal = "METRICS_"
)

const exporterPrefix = "OTEL_EXPORTER_OTLP_"

// protocol returns how to send a signal: as given, or else as a variable says.
func protocol(getenv Getenv, given telemetry.Protocol, of signal) (p telemetry.Protocol, err error) {
	if given != "" {
		return given, nil
	}
	for _, name := range []string{exporterPrefix + string(of) + "PROTOCOL", exporterPrefix + "PROTOCOL"} {
		if value := getenv(name); value != "" {
			if err := p.UnmarshalText([]byte(value)); err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
			return p, nil
		}
	}
	return telemetry.HTTP, nil
}

// CompleteTelemetry fills in the settings that s leaves open from the variables of
// OpenTelemetry, for traces and metrics if they are in use. The error lists every bad
// variable, including those that the SDK reads by itself: the SDK would ignore a bad
// value, and send elsewhere or not at all.
func CompleteTelemetry(getenv Getenv, s *telemetry.Settings, withTraces, withMetrics bool) error {
	var errs []error
	check := func(name string, of func(string) error) {
		if value := getenv(name); value != "" {
			if err := of(value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	for _, in := range []struct {
		of       signal
		on       bool
		protocol *telemetry.Protocol
	}{{traces, withTraces, &s.TraceProtocol}, {metrics, withMetrics, &s.MetricProtocol}} {
		if !in.on {
			continue
		}
		p, err := protocol(getenv, *in.protocol, in.of)
		errs = append(errs, err)
		*in.protocol = p
		for _, prefix := range []string{exporterPrefix, exporterPrefix + string(in.of)} {
			check(prefix+"ENDPOINT", func(value string) error { return checkEndpoint(value, p) })
			check(prefix+"INSECURE", checkBool)
			check(prefix+"TIMEOUT", checkCount)
			check(prefix+"HEADERS", checkPairs)
			check(prefix+"COMPRESSION", checkCompression)
			check(prefix+"CERTIFICATE", checkAuthorities)
			errs = append(errs, checkClient(getenv, prefix))
		}
	}
	if withTraces {
		for _, name := range []string{"SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE"} {
			check("OTEL_BSP_"+name, checkCount)
		}
		p, err := propagators(getenv)
		errs = append(errs, err)
		s.Propagator = p
	}
	if withMetrics {
		check("OTEL_METRIC_EXPORT_INTERVAL", checkCount)
		check("OTEL_METRIC_EXPORT_TIMEOUT", checkCount)
	}
	if withTraces || withMetrics {
		check("OTEL_RESOURCE_ATTRIBUTES", checkPairs)
	}
	return unique(errs)
}

// unique joins the errors without repeating any, because both signals share variables.
func unique(errs []error) error {
	said := map[string]bool{}
	var all []error
	for _, err := range errs {
		if err != nil && !said[err.Error()] {
			said[err.Error()] = true
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func checkEndpoint(value string, p telemetry.Protocol) error {
	u, err := url.Parse(value)
	switch {
	case err != nil:
	case u.Scheme == "http", u.Scheme == "https":
		if u.Host != "" {
			return nil
		}
	case p == telemetry.GRPC: // any target that gRPC knows
		return nil
	}
	return fmt.Errorf("%q: write http://host:port, or https://host:port for TLS", value)
}

func checkBool(value string) error {
	if value != "true" && value != "false" {
		return fmt.Errorf("%q: write true or false", value)
	}
	return nil
}

func checkCount(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < 1 {
		return fmt.Errorf("%q: write a whole number above 0; times are in milliseconds", value)
	}
	return nil
}

// checkPairs does not repeat the value, which may hold a password.
func checkPairs(list string) error {
	for i, pair := range strings.Split(list, ",") {
		name, value, found := strings.Cut(pair, "=")
		if _, err := url.PathUnescape(value); !found || strings.TrimSpace(name) == "" || err != nil {
			return fmt.Errorf("part %d is not a pair: write name=value,name=value, with %%2C for a comma in a value", i+1)
		}
	}
	return nil
}

func checkCompression(value string) error {
	if value != "gzip" && value != "none" {
		return fmt.Errorf("%q: write gzip or none", value)
	}
	return nil
}

func checkAuthorities(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return fmt.Errorf("%s has no certificate in PEM format", path)
	}
	return nil
}

func checkClient(getenv Getenv, prefix string) error {
	cert, key := getenv(prefix+"CLIENT_CERTIFICATE"), getenv(prefix+"CLIENT_KEY")
	if cert == "" && key == "" {
		return nil
	}
	if cert == "" || key == "" {
		return fmt.Errorf("%[1]sCLIENT_CERTIFICATE and %[1]sCLIENT_KEY belong together", prefix)
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		return fmt.Errorf("%[1]sCLIENT_CERTIFICATE and %[1]sCLIENT_KEY: %[2]w", prefix, err)
	}
	return nil
}

// propagators returns the propagators of OTEL_PROPAGATORS, which read the context of a
// trace from headers. The default headers are traceparent, tracestate and baggage.
func propagators(getenv Getenv) (propagation.TextMapPropagator, error) {
	const name = "OTEL_PROPAGATORS"
	value := getenv(name)
	if value == "" {
		value = "tracecontext,baggage"
	}
	p, err := autoprop.TextMapPropagator(strings.Split(value, ",")...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: write tracecontext, baggage, b3, b3multi, jaeger, xray, ottrace or none", name, err)
	}
	return p, nil
}
