// Package deploy holds what tests need to check the files of this directory, and
// the Kubernetes manifests elsewhere in the project: Helm as a library, and the
// types of the APIs. It is a module of its own, so that the service's has none of
// their dependencies.
//
// Manifests are checked by decoding them strictly into the types of the API
// servers' own Go modules. These are at hand without a network, always fit their
// version, and let tests follow what one object says of another, which a JSON
// schema cannot express.
package deploy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"testing"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	istio "istio.io/api/networking/v1"
	"istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// newDecoder returns a decoder that refuses fields that no type has, duplicate ones
// and values of another type.
var newDecoder = sync.OnceValues(func() (runtime.Decoder, error) {
	all := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, monitoring.AddToScheme, egv1a1.AddToScheme, gateway.Install} {
		if err := add(all); err != nil {
			return nil, err
		}
	}
	all.AddKnownTypes(egv1a1.GroupVersion, &egv1a1.EnvoyGateway{}) // a file, not an API
	return serializer.NewCodecFactory(all, serializer.EnableStrict).UniversalDeserializer(), nil
})

// documents splits a YAML stream.
func documents(t *testing.T, stream []byte) (docs [][]byte) {
	t.Helper()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(stream)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(doc)) > 0 {
			docs = append(docs, doc)
		}
	}
}

// istioSpecs are the specs of Istio's kinds. They are decoded by protobuf, for as Go
// types they ignore fields that they don't know.
var istioSpecs = map[string]proto.Message{
	"networking.istio.io/v1alpha3 EnvoyFilter": &v1alpha3.EnvoyFilter{},
	"networking.istio.io/v1 Gateway":           &istio.Gateway{},
	"networking.istio.io/v1 VirtualService":    &istio.VirtualService{},
}

// istioObject is a manifest of one of Istio's kinds.
type istioObject struct {
	metav1.ObjectMeta
	spec proto.Message
}

// decodeIstio reads a manifest, strictly, if it is of one of Istio's kinds. Otherwise it
// returns nil.
func decodeIstio(doc []byte) (*istioObject, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &kind); err != nil {
		return nil, err
	}
	spec := istioSpecs[kind.APIVersion+" "+kind.Kind]
	if spec == nil {
		return nil, nil
	}
	var object struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              json.RawMessage `json:"spec"`
	}
	if err := yaml.UnmarshalStrict(doc, &object); err != nil {
		return nil, err
	}
	spec = proto.Clone(spec)
	return &istioObject{object.ObjectMeta, spec}, protojson.Unmarshal(object.Spec, spec)
}

// decode reads one manifest, strictly. Istio's come without an object.
func decode(doc []byte) (runtime.Object, error) {
	if object, err := decodeIstio(doc); object != nil || err != nil {
		return nil, err
	}
	decoder, err := newDecoder()
	if err != nil {
		return nil, err
	}
	object, _, err := decoder.Decode(doc, nil, nil)
	return object, err
}

// objects decodes all manifests of a stream, and fails the test for those that
// the API server would refuse.
func objects(t *testing.T, stream []byte) (all []runtime.Object) {
	t.Helper()
	for _, doc := range documents(t, stream) {
		object, err := decode(doc)
		if err != nil {
			t.Errorf("%v\n%s", err, doc)
		}
		all = append(all, object)
	}
	return all
}

// only returns the objects of one type.
func only[T runtime.Object](all []runtime.Object) (some []T) {
	for _, object := range all {
		if o, ok := object.(T); ok {
			some = append(some, o)
		}
	}
	return some
}

func TestDecodingIsStrict(t *testing.T) {
	for what, doc := range map[string]string{
		"unknown field":   "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {port: 1}}",
		"wrong type":      "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: one}]}}",
		"unknown kind":    "{apiVersion: v1, kind: Servant, metadata: {name: x}}",
		"unknown version": "{apiVersion: policy/v9, kind: PodDisruptionBudget, metadata: {name: x}}",
		"duplicate field": "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nmetadata: {name: y}",
		"Envoy patch":     "{apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter, metadata: {name: x}, spec: {configPatches: [{applyTo: HTTP_FILTRE}]}}",
		"Gateway policy":  "{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: BackendTrafficPolicy, metadata: {name: x}, spec: {rateLimits: {}}}",
	} {
		if _, err := decode([]byte(doc)); err == nil {
			t.Errorf("%s: accepted %s", what, doc)
		}
	}
}
