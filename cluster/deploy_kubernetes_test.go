package cluster

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// What kubernetes.yaml uses of what Kubernetes has: a field that is not here is refused, as a misspelled one is there.
type (
	kubernetesMeta struct {
		Name, Namespace string
		Labels          map[string]string
	}
	kubernetesSelector struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	}
	kubernetesService struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   kubernetesMeta
		Spec       struct {
			ClusterIP                string `yaml:"clusterIP"`
			PublishNotReadyAddresses bool   `yaml:"publishNotReadyAddresses"`
			Selector                 map[string]string
			Ports                    []struct {
				Name       string
				Port       int
				TargetPort string `yaml:"targetPort"` // a name, or a number in text; empty: Port
				Protocol   string // empty: TCP
			}
		}
	}
	kubernetesBudget struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   kubernetesMeta
		Spec       struct {
			MaxUnavailable int `yaml:"maxUnavailable"`
			Selector       kubernetesSelector
		}
	}
	kubernetesProbe struct {
		HTTPGet struct {
			Path, Port string
		} `yaml:"httpGet"`
		PeriodSeconds    int `yaml:"periodSeconds"`
		FailureThreshold int `yaml:"failureThreshold"`
	}
	kubernetesContainer struct {
		Name, Image string
		Args        []string
		Env         []struct {
			Name      string
			ValueFrom struct {
				FieldRef struct {
					FieldPath string `yaml:"fieldPath"`
				} `yaml:"fieldRef"`
			} `yaml:"valueFrom"`
		}
		Ports []struct {
			Name          string
			ContainerPort int    `yaml:"containerPort"`
			Protocol      string // empty: TCP
		}
		StartupProbe    kubernetesProbe `yaml:"startupProbe"`
		ReadinessProbe  kubernetesProbe `yaml:"readinessProbe"`
		LivenessProbe   kubernetesProbe `yaml:"livenessProbe"`
		Resources       struct{ Requests, Limits map[string]string }
		SecurityContext struct {
			AllowPrivilegeEscalation bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop []string }
		} `yaml:"securityContext"`
		VolumeMounts []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	kubernetesPod struct {
		TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
		SecurityContext               struct {
			RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
			RunAsUser      int                   `yaml:"runAsUser"`
			FSGroup        int                   `yaml:"fsGroup"`
			SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
		} `yaml:"securityContext"`
		Affinity struct {
			PodAntiAffinity struct {
				Preferred []struct {
					Weight          int
					PodAffinityTerm struct {
						TopologyKey   string             `yaml:"topologyKey"`
						LabelSelector kubernetesSelector `yaml:"labelSelector"`
					} `yaml:"podAffinityTerm"`
				} `yaml:"preferredDuringSchedulingIgnoredDuringExecution"`
			} `yaml:"podAntiAffinity"`
		}
		Containers []kubernetesContainer
		Volumes    []struct {
			Name   string
			Secret struct {
				SecretName string `yaml:"secretName"`
			}
		}
	}
	kubernetesStatefulSet struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   kubernetesMeta
		Spec       struct {
			ServiceName         string `yaml:"serviceName"`
			PodManagementPolicy string `yaml:"podManagementPolicy"`
			Replicas            int
			MinReadySeconds     int `yaml:"minReadySeconds"`
			Selector            kubernetesSelector
			Template            struct {
				Metadata kubernetesMeta
				Spec     kubernetesPod
			}
			VolumeClaimTemplates []struct {
				Metadata kubernetesMeta
				Spec     struct {
					AccessModes []string `yaml:"accessModes"`
					Resources   struct{ Requests map[string]string }
				}
			} `yaml:"volumeClaimTemplates"`
		}
	}
)

// readManifest decodes a document into the struct of its kind, in which each of its fields must be.
func readManifest(t *testing.T) (services []kubernetesService, budget kubernetesBudget, set kubernetesStatefulSet) {
	t.Helper()
	text, err := os.ReadFile("../deploy/kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var head struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string
		}
		if err := yaml.Unmarshal(document, &head); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		strictly := func(into any) {
			decoder := yaml.NewDecoder(bytes.NewReader(document))
			decoder.KnownFields(true)
			if err := decoder.Decode(into); err != nil {
				t.Fatalf("%v in\n%s", err, document)
			}
		}
		switch kind := head.APIVersion + " " + head.Kind; kind {
		case " ": // comments
		case "v1 Service":
			var service kubernetesService
			strictly(&service)
			services = append(services, service)
		case "policy/v1 PodDisruptionBudget":
			strictly(&budget)
		case "apps/v1 StatefulSet":
			strictly(&set)
		default:
			t.Errorf("nobody has looked at a %s", kind)
		}
	}
	return services, budget, set
}

// configOf is what a program makes of its command line.
func configOf(t *testing.T, arguments []string) (config Config) {
	t.Helper()
	type parsed struct{}
	defer func() {
		if stopped := recover(); stopped != nil && stopped != (parsed{}) {
			panic(stopped)
		}
	}()
	var said bytes.Buffer
	code := run("node", arguments, func(string) string { return "" }, io.Discard, &said, func(n *Node) {
		config = n.config.withDefaults()
		panic(parsed{}) // before it starts
	}, nil)
	t.Fatalf("exit code %d of %q: %s", code, arguments, &said)
	return config
}

// longestShutdown is what a node may take to stop in order: calls under way, answers of what is sent away, and
// what telemetry has still to send.
const longestShutdown = 2*defaultDrain + 5*time.Second

// TestDeployKubernetes: the parts of the manifest are those of one another and of the program.
func TestDeployKubernetes(t *testing.T) {
	services, budget, set := readManifest(t)
	pod := set.Spec.Template.Spec
	if len(services) != 2 || budget.Kind == "" || len(pod.Containers) != 1 {
		t.Fatalf("%d services, %d containers, budget %v", len(services), len(pod.Containers), budget)
	}
	same := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	container := pod.Containers[0]

	// The command line.
	const podIP = "192.0.2.7"
	replaced := map[string]string{"POD_IP": podIP}
	for _, variable := range container.Env {
		same("where "+variable.Name+" comes from", variable.ValueFrom.FieldRef.FieldPath, map[string]string{"POD_IP": "status.podIP"}[variable.Name])
	}
	var arguments []string
	for _, argument := range container.Args {
		for _, variable := range container.Env {
			argument = strings.ReplaceAll(argument, "$("+variable.Name+")", replaced[variable.Name])
		}
		arguments = append(arguments, argument)
	}
	config := configOf(t, arguments)
	if err := config.Validate(); err != nil {
		t.Errorf("the arguments: %v", err)
	}
	port := func(what, address, wantHost string) int {
		t.Helper()
		host, number, err := splitAddress(address)
		if err != nil || host != wantHost {
			t.Errorf("%s %q: host %q, want %q; %v", what, address, host, wantHost, err)
		}
		return number
	}
	const everywhere = "0.0.0.0"
	peers := config.Peers
	ingress, gossip, transport := port("--listen", config.Listen, everywhere), port("--cluster", peers.Listen, everywhere), port("the transport", peers.TransportListen, everywhere)
	same("port of --cluster-advertise", port("--cluster-advertise", peers.Advertise, podIP), gossip)
	same("port of --cluster-transport-advertise", port("--cluster-transport-advertise", peers.TransportAdvertise, podIP), transport)

	// Who is who.
	same("--found-on, which is the first pod's name", peers.FoundOn, set.Metadata.Name+"-0")
	for _, join := range peers.Join {
		host, number, err := splitAddress(join)
		if err != nil {
			t.Error(err)
		}
		same("port of --join", number, gossip)
		name, rest, qualified := strings.Cut(host, ".")
		same("host of --join, which is the pods' service", name, set.Spec.ServiceName)
		if qualified {
			namespace, _, _ := strings.Cut(rest, ".")
			same("namespace in --join", namespace, set.Metadata.Namespace)
		}
	}
	same("addresses to join", len(peers.Join), 1)

	// Ports.
	protocolOf := func(given string) string {
		if given == "" {
			return "TCP"
		}
		return given
	}
	open, named := map[string]bool{}, map[string]string{}
	for _, p := range container.Ports {
		at := fmt.Sprint(protocolOf(p.Protocol), " ", p.ContainerPort)
		open[at], named[p.Name] = true, at
	}
	forCallers := map[string]bool{fmt.Sprint("TCP ", ingress): true}
	forPeers := map[string]bool{fmt.Sprint("TCP ", gossip): true, fmt.Sprint("UDP ", gossip): true, fmt.Sprint("TCP ", transport): true}
	all := maps.Clone(forPeers)
	maps.Copy(all, forCallers)
	same("the container's ports", open, all)
	labels := set.Spec.Template.Metadata.Labels
	for _, service := range services {
		same("namespace of "+service.Metadata.Name, service.Metadata.Namespace, set.Metadata.Namespace)
		same("whom "+service.Metadata.Name+" selects", service.Spec.Selector, labels)
		headless, reached := service.Metadata.Name == set.Spec.ServiceName, map[string]bool{}
		for _, p := range service.Spec.Ports {
			own := fmt.Sprint(protocolOf(p.Protocol), " ", p.Port)
			to := own
			if p.TargetPort != "" {
				if to = named[p.TargetPort]; to == "" {
					to = protocolOf(p.Protocol) + " " + p.TargetPort
				}
			}
			same(service.Metadata.Name+"'s protocol of "+p.Name, strings.Fields(to)[0], protocolOf(p.Protocol))
			reached[to] = true
			if headless { // nothing translates ports
				same(service.Metadata.Name+"'s port "+p.Name, own, to)
			}
		}
		want := forCallers
		if headless {
			want = forPeers
			same("cluster IP of "+service.Metadata.Name, service.Spec.ClusterIP, "None")
			same("whether those that are not ready find each other", service.Spec.PublishNotReadyAddresses, true)
		}
		same("what "+service.Metadata.Name+" leads to", reached, want)
	}
	if !slices.ContainsFunc(services, func(s kubernetesService) bool { return s.Metadata.Name == set.Spec.ServiceName }) {
		t.Errorf("no service is called %s", set.Spec.ServiceName)
	}

	// The pods.
	same("whom the set selects", set.Spec.Selector.MatchLabels, labels)
	same("whom the budget selects", budget.Spec.Selector.MatchLabels, labels)
	same("how many may be away", budget.Spec.MaxUnavailable, 1)
	for _, term := range pod.Affinity.PodAntiAffinity.Preferred {
		same("from whom pods are kept apart", term.PodAffinityTerm.LabelSelector.MatchLabels, labels)
	}
	if grace := time.Duration(pod.TerminationGracePeriodSeconds) * time.Second; grace <= longestShutdown {
		t.Errorf("a pod is killed after %s, and may take %s to stop", grace, longestShutdown)
	}
	mounted := map[string]string{}
	for _, mount := range container.VolumeMounts {
		mounted[mount.Name] = mount.MountPath
	}
	given := map[string]string{}
	for _, claim := range set.Spec.VolumeClaimTemplates {
		given[claim.Metadata.Name] = config.DataDir
	}
	same("volumes that outlive a pod", len(given), 1)
	for _, volume := range pod.Volumes {
		given[volume.Name] = filepath.Dir(peers.KeyringFile)
	}
	same("where volumes are", mounted, given)

	// Probes.
	node := fakeNode(t, newFakeEngine())
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		probe      kubernetesProbe
	}{{"startup", "/healthz", container.StartupProbe}, {"readiness", "/readyz", container.ReadinessProbe}, {"liveness", "/healthz", container.LivenessProbe}} {
		same(c.name+" probe's path", c.probe.HTTPGet.Path, c.path)
		at := named[c.probe.HTTPGet.Port]
		if at == "" {
			at = "TCP " + c.probe.HTTPGet.Port
		}
		same(c.name+" probe's port", at, fmt.Sprint("TCP ", ingress))
		recorder := httptest.NewRecorder()
		node.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.probe.HTTPGet.Path, nil))
		same("what a node answers at "+c.probe.HTTPGet.Path, recorder.Code, http.StatusOK)
	}
	if err := node.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
