package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func needsPrometheus(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("GPORTMAP_REQUIRE_ALL") == "1" {
			t.Fatalf("needs %s, of Debian's package prometheus", program)
		}
		t.Skipf("needs %s, of Debian's package prometheus", program)
	}
	return path
}

// TestAlertRules has promtool check the rules, and that each fires when it should.
func TestAlertRules(t *testing.T) {
	tool := needsPrometheus(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "../../docs/alerts.yml"}, {"test", "rules", "../../docs/alerts_test.yml"}} {
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}

// metricNames are the metrics that an expression asks for.
var metricNames = regexp.MustCompile(`\b(?:gportmap|go|process)_[a-z_]+\b`)

// TestMonitoring has a real Prometheus scrape a daemon and answer every query of the dashboard, and checks that the daemon
// tells every metric that dashboard and rules ask for.
func TestMonitoring(t *testing.T) {
	prometheus := needsPrometheus(t, "prometheus")
	port := freePort(t)
	a, _, _ := populated(t, "--metrics", fmt.Sprint(port))
	a.ask(t)
	if code, _, _ := execute(t, "set", "--socket", a.socket(), "300000", "1", "tcp", "0.0.0.0.8.1"); code != exitNo {
		t.Errorf("another address of what is alive: exit code %d", code) // it is also the call that was refused
	}
	dir := t.TempDir()
	config := fmt.Sprintf("scrape_configs: [{job_name: gportmap, scrape_interval: 500ms, scrape_timeout: 500ms, static_configs: [{targets: ['127.0.0.1:%d']}]}]\n", port)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	web := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	server := exec.Command(prometheus, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+web, "--log.level=error")
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	results := func(query string) int {
		response, err := http.Get("http://" + web + "/api/v1/query?query=" + url.QueryEscape(query))
		if err != nil {
			return 0 // not yet
		}
		defer response.Body.Close()
		var answer struct {
			Status, Error string
			Data          struct{ Result []any }
		}
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			return 0
		}
		if answer.Status == "error" && strings.Contains(answer.Error, "parse error") {
			t.Fatalf("%s: %s", query, answer.Error)
		}
		return len(answer.Data.Result)
	}
	eventually := func(query string) {
		t.Helper()
		for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if results(query) > 0 {
				return
			}
		}
		t.Errorf("no result: %s", query)
	}
	eventually(`up{job="gportmap"} == 1`)
	for _, q := range dashboardQueries(t) {
		eventually(q)
	}
	rules, err := os.ReadFile("../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range metricNames.FindAllString(string(rules), -1) {
		eventually(name)
	}
}

// dashboardQueries returns the queries of every panel as Grafana asks them, for every job and instance.
func dashboardQueries(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("../../docs/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }

			FieldConfig struct {
				Defaults struct {
					Thresholds struct{ Steps []any }
				}
			}
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	var queries []string
	for i, p := range dashboard.Panels {
		if p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d: %+v", i, p)
		}
		if p.Type == "stat" && len(p.FieldConfig.Defaults.Thresholds.Steps) == 0 {
			t.Errorf("%s has no thresholds: those that Grafana puts there turn it red from 80", p.Title)
		}
		for _, other := range dashboard.Panels[:i] {
			if a, b := p.GridPos, other.GridPos; a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("the panels %s and %s lie on each other", p.Title, other.Title)
			}
		}
		for _, target := range p.Targets {
			q := strings.NewReplacer("$job", ".+", "$instance", ".+", "$__rate_interval", "10s").Replace(target.Expr)
			if strings.Contains(q, "$") || !metricNames.MatchString(q) {
				t.Errorf("%s: %s", p.Title, q)
			}
			queries = append(queries, q)
		}
	}
	if len(queries) < 15 {
		t.Errorf("only %d queries", len(queries))
	}
	return queries
}
